"""Heal what an audit finds: out of the vector log where it can, with the encoder where it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.audit import Audit, Wounds, audit, inspect
from materialize.ledger import Ledger
from materialize.places import open_store
from materialize.releases import current_release
from materialize.run import RunOptions, materialize
from materialize.stores.session import StoreWriter


@dataclass(frozen=True)
class RepairReport:
    """What was found, and what the audit after the repair finds."""

    before: Audit
    after: Audit


def repair(
    paths: RepoPaths, options: RunOptions | None = None, progress: Callable[[int], None] | None = None
) -> RepairReport:
    """Audit under the writer lease, heal every finding, and audit again as readers see it.

    What is wrong is first doubted in the ledger, so a repair that is killed is ended by the next run. A run over these
    pins and rows alone follows: a vector comes back from the log where that has one of the same text, else the text is
    encoded; feature rows are written again from their sources. What nothing stands behind is deleted.

    :param options: how the run encodes, and how many gone pins it believes.
    :raises PinfeatherError: if nothing was materialized yet, a source cannot be read, or too many pins are gone.
    :raises StoreError: if another process writes, or the store fails.
    """
    options = options or RunOptions()
    with open_store(paths, "repair", options.lock_timeout) as store, Ledger(paths) as ledger:
        before, wounds = inspect(paths, ledger, store, progress=progress)
        if wounds.files:  # what they held shows once they are gone
            for file in wounds.files:
                file.unlink(missing_ok=True)
            _, wounds = inspect(paths, ledger, store)
        _dress(paths, ledger, store, wounds, before)
    materialize(
        paths,
        replace(
            options,
            only=frozenset(pin_id for pins in wounds.pins.values() for pin_id in pins),
            rows={view: frozenset(keys) for view, keys in wounds.rows.items()},
        ),
    )
    after = audit(paths, progress=progress)
    after.repaired = max(0, before.findings - after.findings)
    return RepairReport(before, after)


def _dress(paths: RepoPaths, ledger: Ledger, store: StoreWriter, wounds: Wounds, found: Audit) -> None:
    """Doubt what is to be written again, then delete what nothing stands behind."""
    release = current_release(paths)
    live = release.live_space if release else None
    run = vector_log.note_run(paths, ledger.start_run(live or "", after=vector_log.last_run(paths)))
    now = datetime.now(UTC)
    for space, pins in wounds.pins.items():
        ledger.doubt(space, run, list(pins), list(pins.values()))
    for view, rows in wounds.rows.items():
        ledger.doubt(f"view:{view}", run, list(rows), list(rows.values()))
    for space, pin_ids in wounds.logged.items():
        vector_log.purge(paths, space, run, pin_ids, now)
    for collection, ids in wounds.points.items():
        store.delete(collection, ids=ids)
    store.flush()
    ledger.finish_run(run, "repair", {"found": {**found.to_json(), "examples": {}}})
