"""Before a run: does the ledger still speak of this store and these definitions? What it cannot vouch for is doubted.

A doubted key matches no source row, so the run that follows writes or deletes it. Nothing here is costly while store
and ledger agree: a count or two a collection.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow.compute as pc

from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import Ledger
from materialize.releases import LIVE_EMBEDDING
from materialize.scan import raw_engine
from materialize.stores.errors import StoreError
from materialize.stores.layout import decode_key, entity_collection, from_micros, point_id, point_ids
from materialize.stores.port import Condition, Match, Point, VectorStore

logger = logging.getLogger(__name__)
_PAGE = 1000


def view_space(view: ViewDefinition) -> str:
    """Name of a feature view's rows in the ledger."""
    return f"view:{view.name}"


def view_definition(project: str, view: ViewDefinition) -> str:
    """Everything that a view's stored rows depend on besides their values."""
    parts = {
        "project": project,
        "join_keys": list(view.join_keys),
        "features": dict(sorted(view.features.items())),
        "columns": dict(sorted(view.columns.items())),
    }
    return json.dumps(parts, sort_keys=True)


def space_definition(project: str) -> str:
    """What the points of a space depend on besides model and template, which its name says."""
    return json.dumps({"project": project})


def reconcile_views(definitions: RepoDefinitions, ledger: Ledger, store: VectorStore, run: int) -> frozenset[str]:
    """Doubt or forget the rows of feature views that changed their definition, or that store or ledger lost.

    Gives the names of the views whose entries were given up here: they are to be written again in whole.
    """
    emptied = set()
    known = {view_space(view) for view in definitions.feature_views()}
    for space in ledger.spaces():
        if space.startswith("view:") and space not in known:
            _forget(ledger, store, space)
    for view in definitions.feature_views():
        space, now = view_space(view), view_definition(definitions.project, view)
        if ledger.definition(space) not in (None, now):
            logger.info("feature view %s is defined otherwise than when it was written: writing it again", view.name)
            _forget(ledger, store, space)
            emptied.add(view.name)
        elif ledger.incomplete(space):
            written = ledger.engine(space) is not None
            ledger.forget(space)
            if _adopt_rows(definitions.project, view, ledger, store, run) or written:
                emptied.add(view.name)
        elif ledger.engine(space) != raw_engine():
            _doubt_all(ledger, space, run)
        ledger.set_engine(space, raw_engine(), now)
    _find_lost_rows(definitions, ledger, store, run)
    return frozenset(emptied)


def _find_lost_rows(definitions: RepoDefinitions, ledger: Ledger, store: VectorStore, run: int) -> None:
    """Doubt a view's rows where the store holds fewer than the ledger says."""
    collections: dict[str, list[tuple[ViewDefinition, int]]] = {}
    for view in definitions.feature_views():
        name = entity_collection(definitions.project, view.join_keys)
        written = ledger.summary(view_space(view))
        collections.setdefault(name, []).append((view, written.rows - written.unmatched))
    for name, views in collections.items():
        stored = store.count(name) if name in store.collections() else 0
        if stored >= sum(rows for _, rows in views):
            continue
        for view, rows in views:
            if rows and (not stored or store.count(name, Match("view", view.name)) < rows):
                logger.warning("the store lost rows of feature view %s: writing it again", view.name)
                _doubt_all(ledger, view_space(view), run)


def reconcile_space(project: str, space: str, ledger: Ledger, store: VectorStore, run: int) -> list[str]:
    """Doubt what store and ledger disagree on; ids of points that no pin of this project stands behind, to delete."""
    written = ledger.summary(space)
    moved = ledger.definition(space) not in (None, space_definition(project))
    settled = not moved and not written.doubtful and not ledger.incomplete(space)
    if settled and store.count(space) == written.vectors:
        return []
    entries = ledger.entries(space)
    with_vector = entries.filter(pc.is_valid(entries["text_fp"]))["key"].to_pylist()
    events = dict(zip(entries["key"].to_pylist(), entries["event_timestamp"].to_pylist(), strict=True))
    expected = dict(zip(point_ids(project, LIVE_EMBEDDING, "pin_id", with_vector), with_vector, strict=True))
    doubtful, strangers = set(with_vector), []
    for point in _points(store, space, None, ["key", "event_ts"]):
        key = (point.payload.get("key") or {}).get("pin_id")
        if point.id in expected:
            doubtful.discard(expected[point.id])
        elif key is not None and point.id == point_ids(project, LIVE_EMBEDDING, "pin_id", [key])[0]:
            doubtful.add(key)
            events.setdefault(key, from_micros(point.payload.get("event_ts", 0)))
        else:
            strangers.append(point.id)
    ledger.doubt(space, run, sorted(doubtful), [events.get(key) for key in sorted(doubtful)])
    return strangers


def _forget(ledger: Ledger, store: VectorStore, space: str) -> None:
    """Delete the rows of a view where its old definition put them, and every entry of it."""
    old: dict[str, Any] = json.loads(ledger.definition(space) or "{}")
    if old:
        name = entity_collection(old["project"], old["join_keys"])
        if name in store.collections():
            store.delete(name, filter=Match("view", space.removeprefix("view:")))
    ledger.forget(space)


def _adopt_rows(project: str, view: ViewDefinition, ledger: Ledger, store: VectorStore, run: int) -> bool:
    """Doubt the rows of pins that a materializer wrote and only the store knows; whether there was any row.

    So the run writes them again, or deletes and buries what the source no longer has. Rows of other keys are deleted.
    Rows that Feast pushed carry no fingerprint and stay as they are.
    """
    collection = entity_collection(project, view.join_keys)
    if collection not in store.collections():
        return False
    found, strangers = False, []
    points = _points(store, collection, Match("view", view.name), ["key", "event_ts", "fp"])
    rows = (point for point in points if "fp" in point.payload)
    while page := list(islice(rows, _PAGE)):
        found = True
        pins = [_pin_of(project, view, point) for point in page]
        strangers += [point.id for pin_id, point in zip(pins, page, strict=True) if pin_id is None]
        known = {
            pin: point.payload.get("event_ts", 0) for pin, point in zip(pins, page, strict=True) if pin is not None
        }
        ledger.doubt(view_space(view), run, list(known), [from_micros(event) for event in known.values()])
    store.delete(collection, ids=strangers)
    return found


def _pin_of(project: str, view: ViewDefinition, point: Point) -> str | None:
    """The pin whose row lies there; None if it is no row of a pin, or not where that pin's row belongs."""
    try:
        pin_id = decode_key(point.payload["key"])["pin_id"] if view.join_keys == ("pin_id",) else None
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    there = isinstance(pin_id, str) and point.id == point_id(project, view.name, {"pin_id": pin_id})
    return str(pin_id) if there else None


def _doubt_all(ledger: Ledger, space: str, run: int) -> None:
    for entries in ledger.pages(space, ["key", "event_timestamp"]):
        ledger.doubt(space, run, entries["key"].to_pylist(), entries["event_timestamp"].to_pylist())


def _points(store: VectorStore, collection: str, condition: Condition | None, fields: list[str]) -> Iterator[Point]:
    after = None
    while True:
        points, after = store.scroll(collection, condition, limit=_PAGE, after=after, with_payload=fields)
        yield from points
        if after is None:
            return
