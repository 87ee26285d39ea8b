"""The feature rows of an audit: each stored row against its ledger entry, and its values against the source's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.paths import RepoPaths
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.feature_rows import unwritable
from materialize.scan import PIN_VIEW, WRITTEN, FeatureScan, Source, quote, view_source
from materialize.stores.errors import StoreError
from materialize.stores.graves import deletion_times
from materialize.stores.layout import (
    decode_key,
    decode_value,
    encode_value,
    entity_collection,
    from_micros,
    point_id,
    to_micros,
)
from materialize.stores.port import Match, Point
from materialize.takedowns import alive, taken_down

if TYPE_CHECKING:
    from materialize.audit import Check

PAGE = 1000


def audit_view(
    check: Check, con: Any, paths: RepoPaths, definitions: RepoDefinitions, view: ViewDefinition, entries: pa.Table
) -> None:
    """Audit the online rows of ``view`` against ``entries``, its part of the ledger, and its source.

    A row that the source has and the view's types cannot hold is no finding: it keeps its last value, and every run
    counts it as rejected.
    """
    project = definitions.project
    pending, rejected = _pending(check, con, view, entries)
    source = view_source(con, view)
    name = entity_collection(project, view.join_keys)
    chosen = check.choose(entries)
    wounded = check.wounds.rows.setdefault(view.name, {})
    found = 0
    columns = "".join(f", s.{quote(column)}" for column in source.columns)
    con.register("audited", chosen.select(["key", "raw", "event_timestamp"]))
    reader = con.execute(
        f"SELECT a.key, a.raw, a.event_timestamp AS written, s.event_timestamp IS NOT NULL AS there{columns} "
        f"FROM audited a LEFT JOIN ({source.sql}) s ON a.key = s.key"
    ).fetch_record_batch(PAGE)
    for batch in reader:
        rows = batch.to_pylist()
        ids = [point_id(project, view.name, source.entity(row["key"])) for row in rows]
        points = check.read(name, ids, ["event_ts", "fp", "f"])
        for row, point in zip(rows, points, strict=True):
            found += point is not None
            key = row["key"]
            if key in rejected:
                continue
            kind = _judge(row, point, source, comparable=row["there"] and key not in pending)
            if kind:
                check.result.note(kind, f"{view.name}/{key}")
            if kind and kind != "ahead":
                wounded[key] = row["written"]
    con.unregister("audited")
    for key, event in pending.items():
        if key not in wounded:
            check.result.note("stale", f"{view.name}/{key}")
            wounded[key] = event
    expected = found if chosen is entries else entries.num_rows
    _find_extra(check, con, paths, definitions, source, entries, expected)


def _pending(
    check: Check, con: Any, view: ViewDefinition, entries: pa.Table
) -> tuple[dict[str, datetime | None], set[str]]:
    """Written rows that the source has changed or lost since, and keys of rows that cannot be written.

    A row that was never written is not missed yet.
    """
    scan = FeatureScan(con, view, entries, check.held)
    pending: dict[str, datetime | None] = dict(zip(scan.gone, scan.gone_events, strict=True))
    rejected: set[str] = set()
    for batch in scan.changes():
        bad = unwritable(view, batch)
        rejected |= bad
        for row in batch.select(["key", WRITTEN]).to_pylist():
            if row[WRITTEN] is not None and row["key"] not in bad:
                pending[row["key"]] = row[WRITTEN]
    return pending, rejected


def _judge(row: dict[str, Any], point: Point | None, source: Source, *, comparable: bool) -> str | None:
    """What there is to say of the stored row of a ledger entry; None if all is well."""
    if point is None:
        return "missing"
    if point.payload.get("event_ts", 0) > to_micros(row["written"] or from_micros(0)):
        return "ahead"
    if point.payload.get("fp") not in (str(row["raw"]), None):  # Feast's own materialize leaves no fingerprint
        return "stale"
    if comparable and not _same_values(row, point.payload.get("f", {}), source):
        return "corrupted"
    return None


def _same_values(row: dict[str, Any], stored: dict[str, Any], source: Source) -> bool:
    for name, kind in source.view.features.items():
        wanted = row.get(name)
        try:
            expected = None if wanted is None else decode_value(encode_value(wanted, kind), kind)
            actual = decode_value(stored.get(name), kind)
        except (StoreError, TypeError, ValueError, KeyError):
            return False
        if expected != actual and repr(expected) != repr(actual):  # NaN equals nothing
            return False
    return True


def _find_extra(
    check: Check,
    con: Any,
    paths: RepoPaths,
    definitions: RepoDefinitions,
    source: Source,
    entries: pa.Table,
    expected: int,
) -> None:
    """Rows that no ledger entry stands for. One that was pushed is ahead where it is newer than what was written.

    Newer than its deletion if it or its pin was deleted, else newer than every row of the view; and newer than every
    pin that the source has, where it is about a pin that the source has not.
    """
    project, view = definitions.project, source.view
    name = entity_collection(project, view.join_keys)
    newest = pc.max(entries["event_timestamp"]).as_py()
    horizon = to_micros(newest) if newest is not None else -1

    def known() -> set[str]:
        return {point_id(project, view.name, source.entity(key)) for key in entries["key"].to_pylist()}

    rows = check.extras(name, Match("view", view.name), expected, known, ["key", "fp", "event_ts"])
    while page := list(islice(rows, PAGE)):
        keys = [ledger_key(project, source, point) for point in page]
        deleted = deletion_times(check.store, project, view.join_keys, [point.id for point in page])
        bounds = {} if view.join_keys != ("pin_id",) else _bounds(con, paths, definitions, keys, horizon)
        for point, key in zip(page, keys, strict=True):
            what = f"{view.name}/{point.id if key is None else key}"
            bound = deleted.get(point.id, horizon if key is None else bounds.get(key, horizon))
            if "fp" not in point.payload and point.payload.get("event_ts", 0) > bound:
                check.result.note("ahead", what)
                continue
            check.result.note("extra", what)
            if key is None:
                check.wounds.points.setdefault(name, []).append(point.id)
            else:  # the run that heals writes it again if the source has it, else deletes it
                check.wounds.rows.setdefault(view.name, {})[key] = from_micros(point.payload.get("event_ts", 0))


def _bounds(
    con: Any, paths: RepoPaths, definitions: RepoDefinitions, keys: Sequence[str | None], horizon: int
) -> dict[str, int]:
    """Of the pins that the source has not: up to which event time the tables know that there is no such pin."""
    pins = [key for key in keys if key is not None]
    gone = set(pins) - alive(con, definitions, pins)
    if not gone:
        return {}
    pin_source = view_source(con, definitions.views[PIN_VIEW])
    stamp = quote(pin_source.view.timestamp_field)
    ((newest,),) = con.execute(f"SELECT max({stamp}::TIMESTAMPTZ) {pin_source.every}").fetchall()
    horizon = max(horizon, to_micros(newest) if newest is not None else -1)
    deleted = taken_down(con, paths, sorted(gone))
    return {pin_id: to_micros(deleted[pin_id]) if pin_id in deleted else horizon for pin_id in gone}


def ledger_key(project: str, source: Source, point: Point) -> str | None:
    """The key of a stored row in the ledger; None if the point is not where a row of that key belongs."""
    try:
        entity = decode_key(point.payload["key"])
        values = [entity[name] for name in source.view.join_keys]
        key = str(values[0]) if source.text_key else json.dumps(values, separators=(",", ":"), ensure_ascii=False)
        return key if point_id(project, source.view.name, source.entity(key)) == point.id else None
    except (StoreError, KeyError, TypeError, ValueError):
        return None
