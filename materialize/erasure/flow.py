"""An erasure from the list of what must not come back to the last old publication; killed anywhere, it can be repeated.

The order: note the pins concerned, rewrite samples and labels, record the names, rewrite the tables, aggregate anew,
doubt online rows that name it, run over every space, take away vectors of older texts, fit the statistics again,
publish, drop what was published before, delete what killed processes left. What is noted goes last, so the same command
ends what a kill left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from embedders.bundle import MANIFEST
from feature_repo.aggregates import aggregate, forget_state
from feature_repo.erased_pairs import erase_pairs
from feature_repo.erased_tables import erase_captions, find_traces, rewrite_tables, unborne
from feature_repo.erasures import Erasures, Subjects, record, tables_locked
from feature_repo.history import forget_history
from feature_repo.leftovers import sweep
from feature_repo.paths import RepoPaths
from feature_repo.report.storage import forget_pins, noted
from materialize.captions.journal import lease as caption_lease
from materialize.captions.using import forget_rejected
from materialize.definitions import load_definitions
from materialize.erasure.pending import Pending, end_pending, load_pending, save_pending
from materialize.erasure.vectors import Settled, doubt_named, forget_notes, settle, start_run
from materialize.ledger import Ledger
from materialize.places import open_store
from materialize.releases import current_release
from materialize.run import RunOptions, materialize
from materialize.spaces import load_spaces
from materialize.standing import RunCounts
from materialize.stores.graves import is_grave_collection
from materialize.stores.lease import WriterLease
from materialize.stores.publication import Writer
from materialize.warm import erase_warm


@dataclass
class EraseReport:
    """What an erasure did; counts only, but for names that nothing bore."""

    recorded: int = 0
    """Names that the list did not have yet."""
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """Of the new names those that no valid or rejected row bore, by what they are."""
    resumed: bool = False
    """Whether an erasure that was begun before was ended by this one."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows that left the valid and rejected tables, by table, and those that left samples and labels."""
    captions: int = 0
    """Captions made here that left."""
    pins: int = 0
    """Pins that were erased."""
    touched: int = 0
    """Pins that stay and may have lost words."""
    views: dict[str, int] = field(default_factory=dict)
    """Rows of every view source after it; empty where nothing was aggregated before."""
    online: int = 0
    """Points of the store that named it."""
    counts: RunCounts | None = None
    """What the run over the spaces did; None where nothing was materialized before."""
    settled: Settled = field(default_factory=Settled)
    lexical: str | None = None
    """The statistics that were fitted anew, None where the release names none."""
    former_lexical: list[str] = field(default_factory=list)
    """Statistics fitted before, which past releases name: counts of hashed words, without pins."""
    bundles: list[str] = field(default_factory=list)
    """Student bundles, which were trained before and are as they were."""
    warm: int = 0
    """Queries that left the files of vectors that clients begin with."""
    held_publications: list[int] = field(default_factory=list)
    """Old publications that go when their reader lets go."""
    leftovers: int = 0
    """Unfinished files and scratch folders of killed processes that were deleted."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather erase --json``."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("counts", "settled")}
        return {
            **data,
            "points": self.settled.points,
            "vectors": self.settled.vectors,
            "run": self.counts.to_json() if self.counts else None,
            "seconds": round(self.seconds, 3),
        }


Told = Callable[[str], None]


def erase(
    paths: RepoPaths,
    subjects: Subjects,
    options: RunOptions | None = None,
    *,
    min_users: int | None = None,
    purge_former: bool = False,
    refit: Callable[[], str | None] | None = None,
    tell: Told | None = None,
) -> EraseReport:
    """Take ``subjects`` out of everything that is derived, publish, and end what an earlier erasure had begun.

    :param options: how the run encodes, and how many other pins it believes to be gone.
    :param min_users: as `aggregate` takes it; None: as it was run last.
    :param purge_former: take the vectors of older texts of every pin out of the vector logs, whatever lost its words.
    :param refit: fits the lexical statistics anew; gives their digest.
    :param tell: called with words about each step.
    :raises PinfeatherError: if the list, a table or a source cannot be read.
    :raises StoreError: if another process writes or erases, or the store fails.
    """
    clock = time.perf_counter()
    options = options or RunOptions()
    say = tell or (lambda words: None)
    report = EraseReport()
    with WriterLease(paths.erasures / "writer.lock", options.lock_timeout, "erase"):
        begun = load_pending(paths)
        report.resumed = begun is not None
        if not subjects and begun is None and not purge_former:
            return report
        say("tables")
        begun = replace(begun or Pending(), former=purge_former or bool(begun and begun.former))
        pending, erasures = _rewrite(paths, subjects, begun, options, report)
        say("aggregates")
        _aggregate(paths, pending, min_users, report)
        report.warm = erase_warm(paths, news=bool(report.recorded or report.resumed))
        if current_release(paths) is not None:
            say("online rows and spaces")
            _spaces(paths, pending, erasures, options, report)
            say("publications")
            _publish(paths, options, refit, report)
        report.bundles = sorted(path.name for path in paths.bundles.glob("*") if (path / MANIFEST).is_file())
        with tables_locked(paths):
            report.leftovers = sweep(paths)
        end_pending(paths)
    report.seconds = time.perf_counter() - clock
    return report


def _rewrite(
    paths: RepoPaths, subjects: Subjects, begun: Pending, options: RunOptions, report: EraseReport
) -> tuple[Pending, Erasures]:
    """List and tables. What is noted first cannot be found any more once the rows have left."""
    with tables_locked(paths):
        listed = Erasures.load(paths)
        report.unknown = unborne(paths, [name for name in subjects.names() if not listed.has(*name)])
        traces = find_traces(paths, Erasures.of(subjects))
        named = Pending(subjects.pins, traces.pins - subjects.pins, bool(subjects.pins or subjects.queries))
        pending = begun | named
        pending = replace(pending, touched=pending.touched - pending.pins)
        save_pending(paths, pending)
        pairs = erase_pairs(paths, [listed, Erasures.of(subjects)])  # while rows tell who asked what
        erasures, report.recorded = record(paths, replace(subjects, images=traces.images))
        report.rows = {**pairs, **rewrite_tables(paths, erasures)}
        if paths.captions.is_dir():
            with caption_lease(paths, options.lock_timeout):
                report.captions = erase_captions(paths, erasures)
                forget_rejected(paths)
    report.pins, report.touched = len(pending.pins), len(pending.touched)
    return pending, erasures


def _aggregate(paths: RepoPaths, pending: Pending, min_users: int | None, report: EraseReport) -> None:
    forget_history(paths, pending.pins)
    forget_state(paths)
    forget_pins(paths)
    if not paths.valid_files("pins") or not any(paths.views.glob("*.parquet")):
        return
    last = (noted(paths, "aggregate") or {}).get("options", {})
    as_of = last.get("as_of")
    counted = aggregate(
        paths,
        as_of=datetime.fromisoformat(as_of) if as_of else None,
        min_users=min_users or last.get("min_users", 2),
        window_days=last.get("window_days", 730),
    )
    report.views = dict(counted.views)


def _spaces(paths: RepoPaths, pending: Pending, erasures: Erasures, options: RunOptions, report: EraseReport) -> None:
    definitions = load_definitions(paths)
    spaces = [space.name for space in load_spaces(paths)]
    if pending.keyed:
        with _noted(paths, options, spaces) as (store, ledger, run):
            report.online = doubt_named(paths, definitions, ledger, store, run, erasures)
    report.counts = materialize(paths, replace(options, erased=pending.all_pins))
    with _noted(paths, options, spaces) as (store, ledger, run):
        report.settled = settle(paths, definitions, ledger, store, run, pending)
        forget_notes(paths, erasures)


@contextmanager
def _noted(paths: RepoPaths, options: RunOptions, spaces: list[str]) -> Iterator[tuple[Any, Ledger, int]]:
    """The writer and a run of its own, noted as a repair is: it heals nothing, but no later run goes on from it."""
    with open_store(paths, "erase", options.lock_timeout) as store, Ledger(paths) as ledger:
        run = start_run(paths, ledger, spaces)
        yield store, ledger, run
        store.flush()
        ledger.finish_run(run, "repair", {})


def _publish(
    paths: RepoPaths, options: RunOptions, refit: Callable[[], str | None] | None, report: EraseReport
) -> None:
    release = current_release(paths)
    if refit is not None and release is not None and release.lexical is not None:
        report.lexical = refit()
        kept = (path.stem for path in paths.lexical.glob("*.json"))
        report.former_lexical = sorted(digest for digest in kept if digest != report.lexical)
    with open_store(paths, "erase", options.lock_timeout) as store:
        release = current_release(paths)
        if isinstance(store, Writer):  # a server frees what was deleted by itself
            for collection in store.collections():
                if not is_grave_collection(collection):  # graves name nothing
                    store.rewrite(collection)
        store.publish(release.to_json() if release else None)
        if isinstance(store, Writer):
            report.held_publications = store.forget_former()
