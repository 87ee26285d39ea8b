"""One run: plan, encode distinct texts once, upsert, wait, append the vector log, commit the ledger, publish.

A run takes the live space first, with feature rows and release, then every other space that is kept
(:mod:`materialize.standing`); each has a run number of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from embedders.encoder import Encoder
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.batches import delete, delete_gone, write_batch
from materialize.definitions import RepoDefinitions, load_definitions
from materialize.encoders import Encoders
from materialize.feature_rows import RowsPart, guard_rows, write_feature_rows
from materialize.ledger import Ledger
from materialize.log_index import LogIndex
from materialize.places import open_store
from materialize.plan import ASSUMED_TOKENS_PER_SECOND, PinChange, open_pin_scan, pin_changes
from materialize.points import space_spec
from materialize.quarantine import CarefulEncoding, EncoderFailedError
from materialize.reconcile import reconcile_space, reconcile_views, space_definition
from materialize.releases import LIVE_EMBEDDING, current_release, write_release
from materialize.revive import doubt_logged, left_unfinished, revive_held, settle_held_rows
from materialize.scan import PinScan, connect, held_pins, payload_columns, raw_engine
from materialize.selection import PAID, Selection, unknown_pins
from materialize.spaces import Space, Status, change_space, empty_dropping, save_space
from materialize.stages import timed
from materialize.standing import RunCounts, Scope, Target, chosen, count_target, tally, targets
from materialize.stores.session import StoreWriter

BATCH_TEXTS = 1024
"""Texts encoded between two commits: what a crash can cost at most."""


@dataclass(frozen=True)
class RunOptions:
    """How to run: which model and device, and how many gone pins are believed."""

    model: str | None = None
    device: str = "auto"
    precision: str = "auto"
    max_gone: float = 0.2
    allow_deletes: bool = False
    lock_timeout: float = 10.0
    progress: Callable[[int, int], None] | None = None
    """Called with (pins written, pins to write)."""
    tell: Callable[[str], None] | None = None
    """Called with words about choices made: which device and precision, and why."""
    encoder: Encoder | None = None
    """Use this encoder instead of loading the spaces' own; its fingerprint must be that of their model."""
    space: str | None = None
    """This space alone; feature rows then only if it is the live one. None: every space that is kept."""
    fill: str | None = None
    """Last of all, add to this space pins that it has not had yet: at most ``fill_limit``."""
    fill_limit: int | None = None
    restore: bool = False
    """Encode nothing: only write what the vector log has and the store has not."""
    only: frozenset[str] | None = None
    """These pins alone are written or deleted, vectors and rows of views by pin; None for all."""
    rows: Mapping[str, frozenset[str]] | None = None
    """Feature view to the keys of the rows that alone are written; None for those of ``only``."""
    limit: int | None = None
    """So many points at most are written in each space, the rest by later runs; deletions and rows are not counted."""
    retry_quarantined: bool = False
    """Try texts again that an encoder could not take."""
    stop: Callable[[], bool] | None = None
    """Asked between two batches; once it says True the run ends there, published, and ``interrupted`` is set."""
    erased: frozenset[str] | None = None
    """Pins that an erasure took something from: their loss is believed, and none of them is held. None: no erasure."""


@dataclass
class SpaceRun:
    """State of one run over one space."""

    paths: RepoPaths
    project: str
    target: Target
    ledger: Ledger
    store: StoreWriter
    number: int
    counts: RunCounts
    options: RunOptions
    encoders: Encoders
    planned: dict[bytes, int] | None
    """Text fingerprint to how many pins want its vector; None if that was not counted."""
    started: datetime
    held: frozenset[str]
    """Pins that `validate` rejected: they keep what was written of them last."""
    selection: Selection
    careful: CarefulEncoding = field(default_factory=CarefulEncoding)
    poisoned: list[PinChange] = field(default_factory=list)
    """Pins whose text was found to be poison in this run."""
    paid: int = 0
    """Pins of the batches that are written, of those whose point is to be written."""
    part: int = 0
    shared: dict[bytes, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Vectors of texts that several pins carry."""
    resumed: bool = False
    """Whether a run of the space ended too early before: then the log is asked for texts, too."""
    logged: LogIndex | None = None
    """The vector log by pin, read when first needed."""

    @property
    def space(self) -> Space:
        """The space that is written."""
        return self.target.space

    @property
    def left(self) -> int:
        """Pins that were counted to be written and are not."""
        return max(0, self.counts.paid + len(self.poisoned) - self.paid)

    def log(self) -> LogIndex:
        """What the vector log has, as of when it was first asked for in this run."""
        self.logged = self.logged or LogIndex(self.paths, self.space.name)
        return self.logged


def materialize(paths: RepoPaths, options: RunOptions | None = None) -> RunCounts:
    """Write what changed since the last run: feature rows, vectors, deletions; then publish.

    Safe to kill at any moment and to repeat: a batch is in the ledger only after the store has acknowledged it and the
    vector log is on disk. The counts are those of the live space, or of ``options.space``; the others' are in them.

    :raises PinfeatherError: if the repository is not applied, a source cannot be read, or more pins are gone than
        ``max_gone`` allows.
    :raises StoreError: if another process writes, or the store fails.
    """
    options = options or RunOptions()
    definitions = load_definitions(paths)
    encoders = Encoders(options.device, options.precision, options.encoder, options.tell)
    done: list[RunCounts] = []
    with (
        open_store(paths, "materialize", options.lock_timeout) as store,
        Ledger(paths) as ledger,
        connect(paths.ledger) as con,
    ):
        if options.space is None:
            empty_dropping(paths, store)
        held = held_pins(paths) - (options.erased or frozenset())
        for target in targets(paths, options.model, options.space, options.fill, options.fill_limit):
            if options.restore:
                target = replace(target, scope=Scope.RESTORE)
            try:
                done.append(_run_target(paths, definitions, options, target, encoders, store, ledger, con, held))
            except BaseException as error:
                ledger.fail_runs(error)
                raise
            if done[-1].interrupted:
                break
    first, *others = done
    first.spaces = {counts.space: counts for counts in others}
    return first


def _run_target(
    paths: RepoPaths,
    definitions: RepoDefinitions,
    options: RunOptions,
    target: Target,
    encoders: Encoders,
    store: StoreWriter,
    ledger: Ledger,
    con: Any,
    held: frozenset[str],
) -> RunCounts:
    """One run over one space, from plan to publication."""
    clock = time.perf_counter()
    space = target.space
    counts = RunCounts(space.name)
    number = vector_log.note_run(paths, ledger.start_run(space.name, after=vector_log.last_run(paths)))
    if target.scope is not Scope.FROZEN or space.name not in store.collections():
        # A frozen space gets no index of a field that its points were written without.
        store.create(space.name, space_spec(space, payload_columns(definitions)))
    strangers = reconcile_space(definitions.project, space.name, ledger, store, number)
    doubt_logged(paths, space.name, ledger, number)
    with timed(counts.stages, "scan"):
        scan = open_pin_scan(con, definitions, space, ledger, held)
        everything = options.retry_quarantined or target.scope is Scope.RESTORE  # a restore gives the encoder nothing
        quarantined = frozenset[bytes]() if everything else frozenset(ledger.quarantined(space.name))
        selection = Selection(options.only, options.limit, quarantined, options.rows)
        counts.held = 0 if options.only is not None else scan.held
        counts.unknown = unknown_pins(con, definitions, ledger, space.name, options.only, held)
    with timed(counts.stages, "plan"):
        planned = count_target(scan, target, counts, selection)
    if options.only is not None:  # of the others nothing is said
        counts.rejected -= scan.still_empty + scan.held
        known = len(options.only) - len(counts.unknown)
        counts.unchanged = max(0, known - selection.picked - len(selection.skipped) - counts.gone)
    rate = ledger.tokens_per_second(space.name) or ASSUMED_TOKENS_PER_SECOND
    counts.estimated_seconds = counts.tokens / rate
    try:
        _guard_deletes(scan, counts, target, options, selection)
        if target.live and target.scope is not Scope.RESTORE and not options.allow_deletes:
            gone = {pin_id for pin_id, _, _ in selection.gone(scan.gone)}
            guard_rows(con, definitions, ledger, held, gone, selection.keys, options.max_gone, options.erased)
    except PinfeatherError as error:
        counts.remaining += counts.paid
        _finish(ledger, number, "refused", counts, clock, error)
        raise
    if options.stop and options.stop():
        counts.interrupted, counts.remaining = True, counts.remaining + counts.paid
        _finish(ledger, number, "interrupted", counts, clock)
        return counts
    store.delete(space.name, ids=strangers)
    if target.live:
        with timed(counts.stages, "reconcile"):
            selection.whole = reconcile_views(definitions, ledger, store, number)
    run = SpaceRun(
        paths=paths,
        project=definitions.project,
        target=target,
        ledger=ledger,
        store=store,
        number=number,
        counts=counts,
        options=options,
        encoders=encoders,
        planned=planned,
        started=datetime.now(UTC),
        held=held,
        selection=selection,
        resumed=left_unfinished(ledger, space.name, number),
    )
    try:
        _write(run, con, definitions, scan)
    except BaseException as error:
        counts.remaining += 0 if counts.interrupted else run.left
        if isinstance(error, EncoderFailedError):
            ledger.unquarantine(space.name, run.careful.streak)
            cleared = sum(change.text_fp in run.careful.streak for change in run.poisoned)
            counts.remaining += cleared
            counts.rejected -= cleared
            counts.quarantined -= cleared
        _finish(ledger, number, "failed", counts, clock, error)
        raise
    _finish(ledger, number, "interrupted" if counts.interrupted else "done", counts, clock)
    return counts


def _finish(
    ledger: Ledger, number: int, status: str, counts: RunCounts, clock: float, error: BaseException | None = None
) -> None:
    """Note how a run that began at ``clock`` ended."""
    counts.seconds = time.perf_counter() - clock
    noted = {**counts.to_json(), "encode_seconds": counts.stages.get("encode", 0.0)}
    if error is not None:
        noted["error"] = str(error) or type(error).__name__
    ledger.finish_run(number, status, noted)


def _write(run: SpaceRun, con: Any, definitions: RepoDefinitions, scan: PinScan) -> None:
    space = run.space
    if not (run.paths.spaces / f"{space.name}.json").is_file():
        vector_log.prepare(run.paths, space.name, space.dimension)
        save_space(run.paths, space)
    _write_batches(run, scan)
    if not _stopping(run):
        with timed(run.counts.stages, "delete"):
            revive_held(run, delete)
            if run.target.scope is not Scope.RESTORE:
                delete_gone(run, scan)
    if run.target.live and not _stopping(run):
        with timed(run.counts.stages, "features"):
            part = RowsPart(run.paths, run.selection.keys, run.options.stop)
            run.counts.features = write_feature_rows(
                con, definitions, run.ledger, run.store, run.number, run.held, part
            )
            if not _stopping(run):
                settle_held_rows(definitions, run.ledger, run.store, run.number, run.held)
    complete = run.selection.complete and run.target.scope in (Scope.WHOLE, Scope.KNOWN) and not _stopping(run)
    if complete or run.ledger.engine(space.name) in (None, raw_engine()):  # else rows of the old engine are left
        run.ledger.set_engine(space.name, raw_engine(), space_definition(definitions.project))
    if complete and run.target.scope is Scope.WHOLE and run.target.limit is None:
        run.ledger.keep_quarantined(space.name, [each.pin_id for each in (*run.selection.skipped, *run.poisoned)])
    with timed(run.counts.stages, "ledger"):
        run.ledger.fold(space.name)
        vector_log.compact(run.paths, space.name)
    if run.options.only is None:
        _note_state(run, scan)
    with timed(run.counts.stages, "publish"):
        _publish(run)


def _write_batches(run: SpaceRun, scan: PinScan) -> None:
    written = 0
    total = run.selection.picked or scan.rows - scan.unchanged
    for batch in _batches(run, scan):
        if _stopping(run):
            run.counts.remaining += run.left
            break
        write_batch(run, batch)
        run.paid += sum(change.kind in PAID for change in batch)
        written += len(batch)
        if run.options.progress:
            run.options.progress(written, total)
    if run.target.limit is not None:  # nothing was counted ahead
        run.counts.quarantined += len(run.selection.skipped)
        run.counts.rejected += len(run.selection.skipped)


def _stopping(run: SpaceRun) -> bool:
    """Whether the run was asked to stop; once it was, it stays so."""
    run.counts.interrupted = run.counts.interrupted or bool(run.options.stop and run.options.stop())
    return run.counts.interrupted


def _publish(run: SpaceRun) -> None:
    space = run.space
    if run.target.live:
        vector_log.link_live(run.paths, LIVE_EMBEDDING, space.name)
        release = write_release(run.paths, names={LIVE_EMBEDDING: space.name})
        run.store.publish(release.to_json())
    else:
        current = current_release(run.paths)
        run.store.publish(current.to_json() if current else None)


def _note_state(run: SpaceRun, scan: PinScan) -> None:
    """Coverage and recipe into the manifest; a space that has every pin is no longer being built."""
    wanted = scan.rows - (run.counts.rejected - scan.held)
    coverage = round(min(1.0, run.store.count(run.space.name) / wanted), 6) if wanted > 0 else 1.0
    whole = run.target.scope is Scope.WHOLE and run.selection.complete and not run.counts.interrupted
    filled = whole and not run.counts.limited
    run.counts.coverage = coverage
    recipe = run.encoders.of(run.space).recipe.to_json() if run.counts.encoder_calls else {}

    def noted(space: Space) -> Space:
        built = filled and space.status is Status.BUILDING
        status = Status.READY if built else space.status
        kept = space.coverage if space.status is Status.FROZEN else coverage  # says whether it was ever whole
        return replace(space, coverage=kept, status=status, recipe=space.recipe or recipe)

    change_space(run.paths, run.space.name, noted)


def _batches(run: SpaceRun, scan: PinScan) -> Iterator[list[PinChange]]:
    """Changes in batches of at most :data:`BATCH_TEXTS`."""
    for changes in chosen(run.target, run.selection.pick(pin_changes(scan, run.space)), run.counts):
        if run.target.limit is not None:
            tally(run.counts, changes)
            _guard_deletes(scan, run.counts, run.target, run.options, run.selection)  # nothing was counted ahead
        for start in range(0, len(changes), BATCH_TEXTS):
            yield changes[start : start + BATCH_TEXTS]


def _guard_deletes(scan: PinScan, counts: RunCounts, target: Target, options: RunOptions, selection: Selection) -> None:
    # Whoever is gone is gone for every space of the run: the first one, which is asked here before any, decides that.
    erased = options.erased or frozenset()
    left = selection.gone(scan.gone) if target.first else []
    gone = sum(had_vector for pin_id, had_vector, _ in left if pin_id not in erased)
    gone += max(0, counts.emptied - len(erased))
    trusted = options.allow_deletes or target.scope is Scope.RESTORE
    if trusted or not gone or gone <= scan.known * options.max_gone:
        return
    raise PinfeatherError(
        f"{gone} of {scan.known} pins are gone from the source or lost all their text, more than the "
        f"{options.max_gone:.0%} that are believed; nothing was written. Check the pins table; if they are gone "
        "indeed, run again with --allow-deletes."
        if target.first
        else f"{gone} of {scan.known} pins of space {target.space.name} lost all the text that it reads, more than the "
        f"{options.max_gone:.0%} that are believed; nothing was written to it, the spaces before it are up to date. "
        "Check the tables; if the texts are gone indeed, run again with --allow-deletes."
    )
