"""A batch of changed pins from text to ledger; and the deletions of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from materialize import vector_log
from materialize.plan import Kind, PinChange
from materialize.points import ledger_entries, pin_point, pin_point_id
from materialize.quarantine import is_unit
from materialize.revive import LOGGED_PINS, log_vectors, write_logged
from materialize.scan import PinScan
from materialize.stages import timed
from materialize.standing import Scope
from materialize.stores.port import DEFAULT_VECTOR

if TYPE_CHECKING:
    from materialize.space_run import SpaceRun

SHARED_TEXTS = 1 << 16
"""Texts whose vectors a backfill keeps at hand for further pins that carry them: 100 MB at 384 dimensions."""


def write_batch(run: SpaceRun, batch: list[PinChange]) -> None:
    """Encode, doubt, upsert, log, commit: in this order, so that the ledger never claims what the store lacks."""
    if run.target.scope in (Scope.RESTORE, Scope.FROZEN):
        write_logged(run, batch, delete=delete, drop=run.target.scope is Scope.FROZEN)
        return
    kept = _stored_vectors(run, [change for change in batch if change.kind is Kind.PAYLOAD_ONLY])
    kept |= _logged_vectors(run, [change for change in batch if change.doubtful])
    vectors, batch = _encode(run, batch, kept)
    touched = [change for change in batch if change.kind is not Kind.TOUCHED and (change.text_fp or change.had_vector)]
    events = [change.event_timestamp for change in touched]
    run.ledger.doubt(run.space.name, run.number, [change.pin_id for change in touched], events)
    points, logged = [], []
    for change in batch:
        if change.kind in (Kind.TOUCHED, Kind.REJECTED) or change.text_fp is None:
            continue
        fresh = change.pin_id not in kept
        vector = vectors[change.text_fp] if fresh else kept[change.pin_id]
        points.append(pin_point(run.project, run.space, change, vector, run.started))
        if fresh:
            logged.append((change, vector))
    with timed(run.counts.stages, "store"):
        run.store.upsert(run.space.name, points)
        run.counts.upserted += len(points)
        delete(run, [change.pin_id for change in batch if change.kind is Kind.REJECTED and change.had_vector])
        run.store.flush()
    log_vectors(run, logged)
    run.ledger.write(run.space.name, run.number, ledger_entries(batch))


def _wants_vector(change: PinChange, kept: dict[str, npt.NDArray[np.float32]]) -> bool:
    if change.pin_id in kept:
        return False
    return change.kind in (Kind.NEW, Kind.CHANGED, Kind.PAYLOAD_ONLY)  # payload only: the store lost the point


def _stored_vectors(run: SpaceRun, changes: list[PinChange]) -> dict[str, npt.NDArray[np.float32]]:
    """Vectors that the store holds already, by pin id: a new payload needs no model."""
    points = run.store.get_many(
        run.space.name,
        [pin_point_id(run.project, change.pin_id) for change in changes],
        with_payload=["text_fp"],
        with_vectors=True,
    )
    return {
        change.pin_id: point.vectors[DEFAULT_VECTOR]
        for change, point in zip(changes, points, strict=True)
        if point and change.text_fp and point.payload.get("text_fp") == change.text_fp.hex()
    }


def _logged_vectors(run: SpaceRun, changes: list[PinChange]) -> dict[str, npt.NDArray[np.float32]]:
    """Vectors of the same text that the log has, by pin id: a killed run or a lost store needs no model."""
    if not changes:
        return {}
    found = run.log().find([change.pin_id for change in changes])
    return {
        change.pin_id: entry.vector.astype(np.float32)
        for change, entry in zip(changes, found, strict=True)
        if entry is not None and entry.text_fp == change.text_fp and is_unit(entry.vector.astype(np.float32))
    }


def _encode(
    run: SpaceRun, batch: list[PinChange], kept: dict[str, npt.NDArray[np.float32]]
) -> tuple[dict[bytes, npt.NDArray[np.float32]], list[PinChange]]:
    """A vector for each distinct text of ``batch`` that wants one, and the changes without those of poison texts.

    A text that several pins carry is encoded once in the run.
    """
    texts = {change.text_fp: change.text for change in batch if change.text_fp and _wants_vector(change, kept)}
    known = {fp: run.shared[fp] for fp in texts if fp in run.shared}
    missing = [fp for fp in texts if fp not in known]
    if run.resumed and missing:  # else a text that a killed run encoded for one pin is paid again for the next
        logged = {fp: row.astype(np.float32) for fp, row in run.log().find_texts(missing).items()}
        known |= {fp: row for fp, row in logged.items() if is_unit(row)}
        missing = [fp for fp in missing if fp not in known]
    if not missing:
        return known, batch
    encoder = run.encoders.of(run.space)
    try:
        with timed(run.counts.stages, "encode"):
            fresh, poison = run.careful.encode(encoder, {fp: texts[fp] for fp in missing})
    finally:
        run.counts.encoder_calls, run.counts.encoded_texts = run.careful.calls, run.careful.encoded
    if run.planned is not None:
        run.shared.update({fp: row for fp, row in fresh.items() if run.planned.get(fp, 0) > 1})
    elif len(run.shared) < SHARED_TEXTS:  # nobody counted which of them come again
        run.shared.update(fresh)
    return {**known, **fresh}, _without_poison(run, batch, kept, poison)


def _without_poison(
    run: SpaceRun, batch: list[PinChange], kept: dict[str, npt.NDArray[np.float32]], poison: dict[bytes, str]
) -> list[PinChange]:
    """``batch`` without the pins whose text is poison, which go to quarantine."""
    bad = [change for change in batch if change.text_fp in poison and _wants_vector(change, kept)]
    run.ledger.quarantine(
        run.space.name, run.number, [(each.pin_id, each.text_fp, poison[each.text_fp]) for each in bad if each.text_fp]
    )
    run.poisoned += bad
    for change in bad:
        setattr(run.counts, change.kind, getattr(run.counts, change.kind) - 1)
    run.counts.rejected += len(bad)
    run.counts.quarantined += len(bad)
    taken = {change.pin_id for change in bad}
    return [change for change in batch if change.pin_id not in taken] if bad else batch


def delete(run: SpaceRun, pin_ids: list[str]) -> None:
    """Take pins out of the store and out of the vector log."""
    if not pin_ids:
        return
    run.store.delete(run.space.name, ids=[pin_point_id(run.project, pin_id) for pin_id in pin_ids])
    vector_log.purge(run.paths, run.space.name, run.number, pin_ids, run.started)
    run.counts.deleted += len(pin_ids)


def delete_gone(run: SpaceRun, scan: PinScan) -> None:
    """Delete what left the source; pins in doubt whose text is in quarantine get their logged vector, or go too."""
    unsure = [each for each in (*run.selection.skipped, *run.poisoned) if each.doubtful]
    for start in range(0, len(unsure), LOGGED_PINS):
        write_logged(run, unsure[start : start + LOGGED_PINS], delete=delete, drop=True)
    gone = run.selection.gone(scan.gone)
    stored = [(key, event) for key, had_vector, event in gone if had_vector]
    keys = [key for key, _ in stored]
    run.ledger.doubt(run.space.name, run.number, keys, [event for _, event in stored])
    delete(run, keys)
    run.store.flush()
    run.ledger.remove(run.space.name, run.number, [key for key, _, _ in gone])
