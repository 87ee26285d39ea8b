"""Points out of the vector log alone: for a lost store, frozen spaces, and pins whose text nobody can encode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.definitions import RepoDefinitions
from materialize.ledger import DOUBTFUL_RAW, DOUBTFUL_TEXT, SCHEMA, Ledger
from materialize.log_index import Logged
from materialize.plan import Kind, PinChange
from materialize.points import ledger_entries, pin_point, pin_point_id
from materialize.quarantine import is_unit
from materialize.reconcile import view_space
from materialize.scan import PAYLOAD_COLUMNS
from materialize.standing import Scope
from materialize.stores.layout import entity_collection, point_id
from materialize.stores.port import DEFAULT_VECTOR, VectorStore

if TYPE_CHECKING:
    from materialize.space_run import SpaceRun

_LAST_RUNS = 100
LOGGED_PINS = 1024
"""Pins that are written out of the log at once."""


def doubt_logged(paths: RepoPaths, space: str, ledger: Ledger, run: int) -> None:
    """Where the ledger was lost, doubt the pins that the vector log has: to be found again, or purged if they left.

    Nobody else would remember a pin that left after store and ledger were lost, and its vector would stay in the log.
    """
    if not ledger.incomplete(space):
        return
    known = {key for page in ledger.pages(space, ["key"]) for key in page["key"].to_pylist()}
    events: dict[str, datetime] = {}
    for table in vector_log.read_parts(paths, space, ["pin_id", "event_timestamp"]):
        for pin_id, when in zip(table["pin_id"].to_pylist(), table["event_timestamp"].to_pylist(), strict=True):
            if pin_id not in known:
                events[pin_id] = max(when, events.get(pin_id, when))
    ledger.doubt(space, run, list(events), list(events.values()))


def left_unfinished(ledger: Ledger, space: str, run: int) -> bool:
    """Whether a run over ``space`` before ``run`` ended too early and none was done since: its texts are in the log."""
    past = (row for row in ledger.run_rows(_LAST_RUNS) if row.space == space and row.run < run)
    return next((row.status != "done" for row in past if row.status not in ("refused", "repair")), False)


def write_logged(
    run: SpaceRun, batch: list[PinChange], delete: Callable[[SpaceRun, list[str]], None], *, drop: bool
) -> None:
    """Write what the log has of ``batch``, with the payload of today; in the order of doubt, store, ledger.

    A vector of an older text keeps that text's fingerprint and a raw fingerprint that matches no row, so the next run
    that may encode brings it up to date. A frozen space keeps a point that says whose vector it is, and logs it again.
    What the log lacks else stays in doubt; with ``drop`` it is deleted: from a frozen
    space, which nobody will bring up to date, and where the text is in quarantine.
    """
    found = run.log().find([change.pin_id for change in batch])
    standing = _standing(run, batch, found) if run.target.scope is Scope.FROZEN else {}
    alive, gone = [], []
    for change, logged in zip(batch, found, strict=True):
        logged = logged or standing.get(change.pin_id)
        if change.kind is not Kind.REJECTED and logged is not None:
            raw = change.raw if logged.text_fp == change.text_fp else DOUBTFUL_RAW
            alive.append((replace(change, text_fp=logged.text_fp, raw=raw), logged.vector.astype(np.float32)))
        elif drop:
            gone.append(change)
        else:
            run.counts.waiting += 1
    touched = [*(change for change, _ in alive), *gone]
    run.ledger.doubt(
        run.space.name,
        run.number,
        [change.pin_id for change in touched],
        [change.event_timestamp for change in touched],
    )
    run.store.upsert(
        run.space.name, [pin_point(run.project, run.space, each, vector, run.started) for each, vector in alive]
    )
    run.counts.upserted += len(alive)
    delete(run, [change.pin_id for change in gone])
    run.store.flush()
    log_vectors(run, [each for each in alive if each[0].pin_id in standing])
    run.ledger.remove(run.space.name, run.number, [change.pin_id for change in gone])
    run.ledger.write(run.space.name, run.number, ledger_entries([change for change, _ in alive]))


def _standing(run: SpaceRun, batch: list[PinChange], found: list[Logged | None]) -> dict[str, Logged]:
    """Points of pins that the log lacks and that say themselves whose vector they hold, by pin id."""
    pins = [change.pin_id for change, logged in zip(batch, found, strict=True) if logged is None]
    ids = [pin_point_id(run.project, pin_id) for pin_id in pins]
    points = run.store.get_many(run.space.name, ids, with_payload=["text_fp", "model"], with_vectors=True)
    kept = {}
    for pin_id, point in zip(pins, points, strict=True):
        vector = point.vectors.get(DEFAULT_VECTOR) if point else None
        if point is None or vector is None or not is_unit(vector) or not point.payload.get("text_fp"):
            continue
        if point.payload.get("model") == run.space.model_fingerprint:
            kept[pin_id] = Logged(bytes.fromhex(point.payload["text_fp"]), vector.astype(np.float16))
    return kept


def log_vectors(run: SpaceRun, written: Sequence[tuple[PinChange, npt.NDArray[np.float32]]]) -> None:
    """Append vectors that were written to the space's log."""
    if not written:
        return
    run.part += 1
    if run.part % vector_log.MOST_PARTS == 0:
        vector_log.compact(run.paths, run.space.name)
    vector_log.append(
        run.paths,
        run.space.name,
        run.number,
        run.part,
        [change.pin_id for change, _ in written],
        np.stack([vector for _, vector in written]).astype(np.float16),
        [change.text_fp.hex() for change, _ in written if change.text_fp],
        [change.event_timestamp for change, _ in written],
        run.started,
    )


def revive_held(run: SpaceRun, delete: Callable[[SpaceRun, list[str]], None]) -> None:
    """Settle held pins that are in doubt: no scan shows them, as no valid row stands behind them.

    They get their logged vector, with the payload that their point has, if any; what the log lacks is deleted.
    """
    space = run.space.name
    for page in _held_doubts(run.ledger, space, run.held, run.options.only):
        events = dict(page)
        ids = [pin_point_id(run.project, pin_id) for pin_id in events]
        points = run.store.get_many(space, ids, with_payload=[*PAYLOAD_COLUMNS, "payload_fp"])
        batch = []
        for (pin_id, event), point in zip(events.items(), points, strict=True):
            had = point.payload if point else {}
            change = PinChange(
                pin_id=pin_id,
                kind=Kind.TOUCHED,
                text="",
                text_fp=None,
                payload={name: had[name] for name in PAYLOAD_COLUMNS if name in had},
                # Written without its words, which nobody knows here: the next valid row brings them.
                payload_fp=0 if run.space.words else int(had.get("payload_fp", 0)),
                raw=DOUBTFUL_RAW,
                event_timestamp=event or run.started,
                had_vector=True,
                truncated=False,
                doubtful=True,
            )
            batch.append(change)
        write_logged(run, batch, delete, drop=True)


def settle_held_rows(
    definitions: RepoDefinitions, ledger: Ledger, store: VectorStore, run: int, held: frozenset[str]
) -> None:
    """Settle online rows of held pins that are in doubt: those that the store has stay, lost ones are forgotten."""
    for view in definitions.feature_views():
        if view.join_keys != ("pin_id",):
            continue
        space, collection = view_space(view), entity_collection(definitions.project, view.join_keys)
        for page in _held_doubts(ledger, space, held, None):
            ids = [point_id(definitions.project, view.name, {"pin_id": pin_id}) for pin_id, _ in page]
            points = store.get_many(collection, ids, with_payload=["fp"])
            both = list(zip(page, points, strict=True))
            ledger.remove(space, run, [pin_id for (pin_id, _), point in both if point is None])
            there = [(*row, point.payload.get("fp")) for row, point in both if point is not None]
            columns = {
                "key": [pin_id for pin_id, _, _ in there],
                "raw": [DOUBTFUL_RAW if fp is None else int(fp) for _, _, fp in there],  # None: a push of Feast's
                "text_fp": [None] * len(there),
                "payload_fp": [None] * len(there),
                "event_timestamp": [event for _, event, _ in there],
            }
            ledger.write(
                space, run, pa.table({name: pa.array(v, SCHEMA.field(name).type) for name, v in columns.items()})
            )
        ledger.fold(space)


def _held_doubts(
    ledger: Ledger, space: str, held: frozenset[str], only: frozenset[str] | None
) -> Iterator[list[tuple[str, datetime | None]]]:
    """(pin, event time) of held pins in doubt, :data:`LOGGED_PINS` at a time; reads nothing where all is settled."""
    wanted = held if only is None else held & only
    if not wanted or not ledger.summary(space).doubtful:
        return
    pins = pa.array(sorted(wanted), pa.string())
    found: list[tuple[str, datetime | None]] = []
    for page in ledger.pages(space, ["key", "text_fp", "event_timestamp"]):
        doubtful = pc.equal(page["text_fp"], pa.scalar(DOUBTFUL_TEXT, SCHEMA.field("text_fp").type))
        rows = page.filter(pc.and_(pc.fill_null(doubtful, False), pc.is_in(page["key"], pins)))
        found += zip(rows["key"].to_pylist(), rows["event_timestamp"].to_pylist(), strict=True)
    for start in range(0, len(found), LOGGED_PINS):
        yield found[start : start + LOGGED_PINS]
