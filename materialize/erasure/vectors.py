"""What an erasure changes in ledger, spaces and vector logs, before and after the run that writes."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.erasures import Erasures, Subject
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.audit_rows import ledger_key
from materialize.definitions import RepoDefinitions
from materialize.erasure.online import find_points
from materialize.erasure.pending import Pending
from materialize.files import write_parquet
from materialize.ledger import Ledger
from materialize.plan import Kind, open_pin_scan, pin_changes
from materialize.points import pin_point_id
from materialize.reconcile import view_space
from materialize.scan import connect, held_pins, view_source
from materialize.spaces import Space, Status, load_spaces
from materialize.stores.layout import from_micros
from materialize.stores.port import Point
from materialize.stores.session import StoreWriter

logger = logging.getLogger(__name__)


@dataclass
class Settled:
    """What was taken away, by space."""

    points: dict[str, int] = field(default_factory=dict)
    """Pins whose vector was made of an older text and cannot be made anew here: frozen spaces, quarantined texts."""
    vectors: dict[str, int] = field(default_factory=dict)
    """Rows of the vector log that were made of older texts."""


def doubt_named(
    paths: RepoPaths, definitions: RepoDefinitions, ledger: Ledger, store: StoreWriter, run: int, erasures: Erasures
) -> int:
    """Doubt every online point that names something of the list, whoever wrote it; how many there are.

    The run that follows then deletes it, or writes it again from its source, pushes included.
    """
    views = {view.name: view for view in definitions.feature_views()}
    spaces = {space.name for space in load_spaces(paths)}
    doubts: dict[str, dict[str, datetime]] = {}
    strangers: dict[str, list[str]] = {}
    found = 0
    with connect() as con:
        sources = {name: view_source(con, view) for name, view in views.items()}
        for collection, point in find_points(store, erasures):
            found += 1
            source = sources.get(str(point.payload.get("view")))
            key = ledger_key(definitions.project, source, point) if source and collection not in spaces else None
            if collection in spaces:
                doubts.setdefault(collection, {})[_pin_id(point)] = from_micros(point.payload.get("event_ts", 0))
            elif source is None or key is None:
                strangers.setdefault(collection, []).append(point.id)
            else:
                space = view_space(source.view)
                doubts.setdefault(space, {})[key] = from_micros(point.payload.get("event_ts", 0))
    for space, keys in doubts.items():
        ledger.doubt(space, run, list(keys), list(keys.values()))
    for collection, ids in strangers.items():  # of views that are defined no more, or not where they belong
        store.delete(collection, ids=ids)
    return found


def _pin_id(point: Point) -> str:
    return str((point.payload.get("key") or {}).get("pin_id", ""))


def settle(
    paths: RepoPaths, definitions: RepoDefinitions, ledger: Ledger, store: StoreWriter, run: int, pending: Pending
) -> Settled:
    """Take every vector away that was made of a text from before the erasure, from all spaces and their logs."""
    settled = Settled()
    held = held_pins(paths) - pending.all_pins
    with connect(paths.ledger) as con:
        for space in load_spaces(paths):
            if space.status is Status.DROPPING:
                continue
            stale = _stale(con, definitions, ledger, space, held, pending)
            if stale:
                _remove(paths, definitions.project, ledger, store, run, space, stale)
                settled.points[space.name] = len(stale)
            present = _present(ledger, space, pending)
            if purged := purge_former(paths, space.name, present):
                settled.vectors[space.name] = purged
    store.flush()
    return settled


def _stale(
    con: Any, definitions: RepoDefinitions, ledger: Ledger, space: Space, held: frozenset[str], pending: Pending
) -> dict[str, datetime]:
    """Pins of the erasure that the space has with another text, or other words, than now, or without any source."""
    scan = open_pin_scan(con, definitions, space, ledger, held)
    stale = {key: event for key, _, event in scan.gone if key in pending.all_pins}
    for batch in pin_changes(scan, space):
        for change in batch:
            other = change.doubtful or change.kind in (Kind.CHANGED, Kind.REJECTED)
            other = other or (space.words and change.kind is Kind.PAYLOAD_ONLY)  # words beyond the text that was read
            if change.pin_id in pending.all_pins and change.had_vector and other:
                stale[change.pin_id] = change.event_timestamp
    return stale


def _remove(
    paths: RepoPaths,
    project: str,
    ledger: Ledger,
    store: StoreWriter,
    run: int,
    space: Space,
    stale: Mapping[str, datetime],
) -> None:
    pins = list(stale)
    ledger.doubt(space.name, run, pins, list(stale.values()))
    store.delete(space.name, ids=[pin_point_id(project, pin_id) for pin_id in pins])
    store.flush()
    vector_log.purge(paths, space.name, run, pins, datetime.now(UTC))
    ledger.remove(space.name, run, pins)
    ledger.fold(space.name)


def _present(ledger: Ledger, space: Space, pending: Pending) -> dict[str, str | None]:
    """Fingerprint of the text that each pin's point was made of; None where the space has none."""
    present: dict[str, str | None] = dict.fromkeys(pending.all_pins)
    wanted = pa.array(sorted(pending.all_pins), pa.string())
    for page in ledger.pages(space.name, ["key", "text_fp"]):
        rows = page if pending.former else page.filter(pc.is_in(page["key"], wanted))
        for key, text_fp in zip(rows["key"].to_pylist(), rows["text_fp"].to_pylist(), strict=True):
            present[key] = text_fp.hex() if text_fp else None
    return present


def purge_former(paths: RepoPaths, space: str, present: Mapping[str, str | None]) -> int:
    """Take out of the log every row of these pins that is not of their present text; how many left.

    Other than :func:`~materialize.vector_log.purge` this notes no deletion: whoever follows the log keeps the pin.

    :raises PinfeatherError: if a part cannot be read.
    """
    wanted = pa.array(sorted(present), pa.string())
    gone = 0
    for path in vector_log.parts(paths, space):
        try:
            rows = pq.read_table(path, columns=["pin_id", "text_fp"])
            places = np.flatnonzero(pc.is_in(rows["pin_id"], wanted).to_numpy(zero_copy_only=False))
            if not len(places):
                continue
            few = rows.take(pa.array(places))
            pairs = zip(few["pin_id"].to_pylist(), few["text_fp"].to_pylist(), strict=True)
            former = places[[present[pin_id] != text_fp for pin_id, text_fp in pairs]]
            if not len(former):
                continue
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise PinfeatherError(
                f"The vector log part {path} cannot be read ({error}), so nobody can say what is in it. Run "
                "`pinfeather audit --repair`, then the same erasure again."
            ) from error
        kept = np.ones(table.num_rows, dtype=np.bool_)
        kept[former] = False
        write_parquet(path, table.filter(pa.array(kept)))
        gone += len(former)
    return gone


def forget_notes(paths: RepoPaths, erasures: Erasures) -> None:
    """Take names of the list out of what the ledger notes of past runs and quarantined texts, and free its pages.

    SQLite leaves deleted rows in free pages, so the file is written anew.
    """
    db = sqlite3.connect(paths.ledger / "ledger.db", isolation_level=None, timeout=10)
    try:
        for space, pin_id in db.execute("SELECT space, pin_id FROM quarantine").fetchall():
            if erasures.has(Subject.PIN, pin_id):
                db.execute("DELETE FROM quarantine WHERE space=? AND pin_id=?", (space, pin_id))
        for run, text in db.execute("SELECT run, counts FROM runs WHERE counts IS NOT NULL").fetchall():
            counts = json.loads(text)
            if (without := without_names(counts, erasures)) != counts:
                db.execute("UPDATE runs SET counts=? WHERE run=?", (json.dumps(without), run))
        try:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:  # somebody reads
            logger.warning("%s/ledger.db was not written anew (%s): free pages wait.", paths.ledger, error)
    finally:
        db.close()


def without_names(value: Any, erasures: Erasures) -> Any:
    """A note of a run without the pins of the list, which stand in lists there."""
    match value:
        case dict():
            return {key: without_names(item, erasures) for key, item in value.items()}
        case list():
            return [without_names(item, erasures) for item in value if not _is_pin(item, erasures)]
        case _:
            return value


def _is_pin(value: Any, erasures: Erasures) -> bool:
    return isinstance(value, str) and erasures.has(Subject.PIN, value)


def start_run(paths: RepoPaths, ledger: Ledger, spaces: Sequence[str]) -> int:
    """A run number for deletions and doubts, as a repair takes one."""
    return vector_log.note_run(paths, ledger.start_run(spaces[0] if spaces else "", after=vector_log.last_run(paths)))
