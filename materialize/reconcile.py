"""Before a run: does the ledger still speak of this store and these definitions? What it cannot vouch for is doubted.

A doubted key matches no source row, so the run that follows writes or deletes it. Nothing here is costly while store
and ledger agree: a count or two a collection.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import DOUBTFUL_RAW, DOUBTFUL_TEXT, Ledger
from materialize.releases import LIVE_EMBEDDING
from materialize.scan import raw_engine
from materialize.stores.layout import entity_collection, from_micros, point_ids
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


def reconcile_views(definitions: RepoDefinitions, ledger: Ledger, store: VectorStore, run: int) -> None:
    """Doubt or forget the rows of feature views that changed their definition, or that the store does not hold."""
    known = {view_space(view) for view in definitions.feature_views()}
    for space in ledger.spaces():
        if space.startswith("view:") and space not in known:
            _forget(ledger, store, space)
    for view in definitions.feature_views():
        space, now = view_space(view), view_definition(definitions.project, view)
        if ledger.definition(space) not in (None, now):
            logger.info("feature view %s is defined otherwise than when it was written: writing it again", view.name)
            _forget(ledger, store, space)
        elif ledger.incomplete(space):
            _delete_own_rows(store, entity_collection(definitions.project, view.join_keys), view.name)
            ledger.forget(space)
        elif ledger.engine(space) != raw_engine():
            _doubt_all(ledger, space, run)
        ledger.set_engine(space, raw_engine(), now)
    _find_lost_rows(definitions, ledger, store, run)


def _find_lost_rows(definitions: RepoDefinitions, ledger: Ledger, store: VectorStore, run: int) -> None:
    """Doubt a view's rows where the store holds fewer than the ledger says."""
    collections: dict[str, list[tuple[ViewDefinition, int]]] = {}
    for view in definitions.feature_views():
        name = entity_collection(definitions.project, view.join_keys)
        raws = ledger.entries(view_space(view))["raw"].to_pylist()
        collections.setdefault(name, []).append((view, len(raws) - raws.count(DOUBTFUL_RAW)))
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
    entries = ledger.entries(space)
    text_fps = entries["text_fp"].to_pylist()
    with_vector = [key for key, fp in zip(entries["key"].to_pylist(), text_fps, strict=True) if fp is not None]
    moved = ledger.definition(space) not in (None, space_definition(project))
    settled = not moved and DOUBTFUL_TEXT not in text_fps and not ledger.incomplete(space)
    if settled and store.count(space) == len(with_vector):
        return []
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


def _delete_own_rows(store: VectorStore, collection: str, view: str) -> None:
    """Delete the rows of a view that a materializer wrote; rows that Feast pushed carry no fingerprint and stay."""
    if collection in store.collections():
        points = _points(store, collection, Match("view", view), ["fp"])
        store.delete(collection, ids=[point.id for point in points if "fp" in point.payload])


def _doubt_all(ledger: Ledger, space: str, run: int) -> None:
    entries = ledger.entries(space)
    ledger.doubt(space, run, entries["key"].to_pylist(), entries["event_timestamp"].to_pylist())


def _points(store: VectorStore, collection: str, condition: Condition | None, fields: list[str]) -> Iterator[Point]:
    after = None
    while True:
        points, after = store.scroll(collection, condition, limit=_PAGE, after=after, with_payload=fields)
        yield from points
        if after is None:
            return
