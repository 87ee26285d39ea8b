"""One run: plan, encode distinct texts once, upsert, wait, append the vector log, commit the ledger, publish.

A run takes the live space first, with feature rows and release, then every other space that is kept
(:mod:`materialize.standing`); each has a run number of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.batches import delete, delete_gone, write_batch
from materialize.definitions import load_definitions
from materialize.encoders import Encoders
from materialize.feature_rows import RowsPart, guard_rows, write_feature_rows
from materialize.indexing import index_space
from materialize.ledger import Ledger
from materialize.payload_fields import LATER_PAYLOAD
from materialize.places import open_store
from materialize.plan import ASSUMED_TOKENS_PER_SECOND, PinChange, open_pin_scan, pin_changes
from materialize.points import space_spec
from materialize.quarantine import EncoderFailedError
from materialize.reconcile import reconcile_space, reconcile_views, space_definition
from materialize.releases import LIVE_EMBEDDING, current_release, write_release
from materialize.revive import doubt_logged, left_unfinished, revive_held, settle_held_rows
from materialize.scan import PinScan, connect, held_pins, payload_columns, raw_engine
from materialize.selection import PAID, Selection, unknown_pins
from materialize.space_run import RunOptions, SpaceRun
from materialize.spaces import Space, Status, change_space, empty_dropping, load_space, save_space
from materialize.stages import timed
from materialize.standing import RunCounts, Scope, chosen, count_target, tally, targets

__all__ = ["BATCH_TEXTS", "RunOptions", "materialize"]

BATCH_TEXTS = 1024
"""Texts encoded between two commits: what a crash can cost at most."""


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
        connect(paths.ledger, noting=True, rescan=options.rescan) as con,
    ):
        if options.space is None:
            empty_dropping(paths, store)
        held = held_pins(paths) - (options.erased or frozenset())
        for target in targets(paths, options.model, options.space, options.fill, options.fill_limit):
            if options.restore:
                target = replace(target, scope=Scope.RESTORE)
            try:
                number = ledger.start_run(target.space.name, after=vector_log.last_run(paths))
                run = SpaceRun(
                    paths=paths,
                    definitions=definitions,
                    options=options,
                    encoders=encoders,
                    store=store,
                    ledger=ledger,
                    con=con,
                    held=held,
                    target=target,
                    number=vector_log.note_run(paths, number),
                    counts=RunCounts(target.space.name),
                )
                done.append(run.counts)
                _run_space(run)
            except BaseException as error:
                ledger.fail_runs(error)
                raise
            if done[-1].interrupted:
                break
    first, *others = done
    first.spaces = {counts.space: counts for counts in others}
    return first


def _run_space(run: SpaceRun) -> None:
    """One run over one space, from plan to publication."""
    strangers = _reconcile(run)
    scan = _plan(run)
    try:
        _guard(run, scan)
    except PinfeatherError as error:
        run.counts.remaining += run.counts.paid
        run.finish("refused", error)
        raise
    if run.stopping():
        run.counts.remaining += run.counts.paid
        run.finish("interrupted")
        return
    run.store.delete(run.space.name, ids=strangers)
    if run.target.live:
        with timed(run.counts.stages, "reconcile"):
            run.selection.whole = reconcile_views(run.definitions, run.ledger, run.store, run.number)
    run.resumed = left_unfinished(run.ledger, run.space.name, run.number)
    try:
        _write(run, scan)
    except BaseException as error:
        _count_failure(run, error)
        run.finish("failed", error)
        raise
    run.counts.files, run.counts.files_unchanged = run.con.file_counts()
    run.finish("interrupted" if run.counts.interrupted else "done")


def _reconcile(run: SpaceRun) -> list[str]:
    """Bring ledger and store of the space together, as far as nothing is deleted; ids of points that nobody knows."""
    space = run.space.name
    if run.target.scope is not Scope.FROZEN or space not in run.store.collections():
        # A frozen space gets no index of a field that its points were written without.
        run.store.create(space, space_spec(run.space, _filterable(run)))
    strangers = reconcile_space(run.project, space, run.ledger, run.store, run.number)
    doubt_logged(run.paths, space, run.ledger, run.number)
    return strangers


def _filterable(run: SpaceRun) -> set[str]:
    """The fields that points can be filtered by now.

    An index is the promise that every point has its field: one of later gets its own when a run has written it to all.
    """
    fields = set(payload_columns(run.definitions))
    spec = run.store.collections().get(run.space.name)
    if spec is None or not run.store.count(run.space.name):
        return fields
    return fields - (LATER_PAYLOAD - spec.indexes.keys())


def _plan(run: SpaceRun) -> PinScan:
    """Scan the sources, and count what is to be written and what it will cost."""
    counts, options, ledger, space = run.counts, run.options, run.ledger, run.space
    with timed(counts.stages, "scan"):
        scan = open_pin_scan(run.con, run.definitions, space, ledger, run.held)
        everything = options.retry_quarantined or run.target.scope is Scope.RESTORE  # it gives the encoder nothing
        quarantined = frozenset[bytes]() if everything else frozenset(ledger.quarantined(space.name))
        run.selection = Selection(options.only, options.limit, quarantined, options.rows)
        counts.held = 0 if options.only is not None else scan.held
        counts.unknown = unknown_pins(run.con, run.definitions, ledger, space.name, options.only, run.held)
    with timed(counts.stages, "plan"):
        run.planned = count_target(scan, run.target, counts, run.selection)
    if options.only is not None:  # of the others nothing is said
        counts.rejected -= scan.still_empty + scan.held
        known = len(options.only) - len(counts.unknown)
        counts.unchanged = max(0, known - run.selection.picked - len(run.selection.skipped) - counts.gone)
    counts.estimated_seconds = counts.tokens / (ledger.tokens_per_second(space.name) or ASSUMED_TOKENS_PER_SECOND)
    return scan


def _count_failure(run: SpaceRun, error: BaseException) -> None:
    """Count what a run that failed leaves to the next one."""
    counts = run.counts
    counts.remaining += 0 if counts.interrupted else run.left
    if isinstance(error, EncoderFailedError):
        run.ledger.unquarantine(run.space.name, run.careful.streak)
        cleared = sum(change.text_fp in run.careful.streak for change in run.poisoned)
        counts.remaining += cleared
        counts.rejected -= cleared
        counts.quarantined -= cleared


def _write(run: SpaceRun, scan: PinScan) -> None:
    space = run.space
    if not (run.paths.spaces / f"{space.name}.json").is_file():
        vector_log.prepare(run.paths, space.name, space.dimension)
        save_space(run.paths, space)
    _write_batches(run, scan)
    if not run.stopping():
        with timed(run.counts.stages, "delete"):
            revive_held(run, delete)
            if run.target.scope is not Scope.RESTORE:
                delete_gone(run, scan)
    if run.target.live and not run.stopping():
        with timed(run.counts.stages, "features"):
            part = RowsPart(run.paths, run.selection.keys, run.options.stop)
            run.counts.features = write_feature_rows(
                run.con, run.definitions, run.ledger, run.store, run.number, run.held, part
            )
            if not run.stopping():
                settle_held_rows(run.definitions, run.ledger, run.store, run.number, run.held)
    complete = run.selection.complete and not run.counts.limited and not run.stopping()
    complete = complete and run.target.scope in (Scope.WHOLE, Scope.KNOWN)
    if complete or run.ledger.engine(space.name) in (None, raw_engine()):  # else rows of the old engine are left
        run.ledger.set_engine(space.name, raw_engine(), space_definition(run.project))
    if complete and run.target.scope is Scope.WHOLE and run.target.limit is None:
        run.ledger.keep_quarantined(space.name, [each.pin_id for each in (*run.selection.skipped, *run.poisoned)])
    with timed(run.counts.stages, "ledger"):
        run.ledger.fold(space.name)
        scan.settle(run.number)
        vector_log.compact(run.paths, space.name)
    if run.options.only is None:
        _note_state(run, scan)
    with timed(run.counts.stages, "publish"):
        if complete:
            run.store.create(space.name, space_spec(space, payload_columns(run.definitions)))
        _publish(run)  # before the index, which takes minutes: a takedown must not wait for it
    if not run.stopping() and load_space(run.paths, space.name).status is not Status.BUILDING:  # then once, when whole
        with timed(run.counts.stages, "index"):
            indexed = index_space(run.store, space.name, run.options.tell, run.options.stop)
        if indexed:
            with timed(run.counts.stages, "publish"):
                _publish(run)


def _write_batches(run: SpaceRun, scan: PinScan) -> None:
    written = 0
    total = run.selection.picked or scan.rows - scan.unchanged
    for batch in _batches(run, scan):
        if run.stopping():
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
            _guard_deletes(run, scan)  # nothing was counted ahead
        for start in range(0, len(changes), BATCH_TEXTS):
            yield changes[start : start + BATCH_TEXTS]


def _guard(run: SpaceRun, scan: PinScan) -> None:
    """Refuse a source that lost more pins, or rows of a view, than the options believe.

    :raises PinfeatherError: if it did; nothing is written then.
    """
    _guard_deletes(run, scan)
    options = run.options
    if run.target.live and run.target.scope is not Scope.RESTORE and not options.allow_deletes:
        gone = {pin_id for pin_id, _, _ in run.selection.gone(scan.gone)}
        keys, erased = run.selection.keys, options.erased
        guard_rows(run.con, run.definitions, run.ledger, run.held, gone, keys, options.max_gone, erased)


def _guard_deletes(run: SpaceRun, scan: PinScan) -> None:
    """Refuse to believe that more pins are gone than the options say."""
    target, options = run.target, run.options
    # Whoever is gone is gone for every space of the run: the first one, which is asked here before any, decides that.
    erased = options.erased or frozenset()
    left = run.selection.gone(scan.gone) if target.first else []
    gone = sum(had_vector for pin_id, had_vector, _ in left if pin_id not in erased)
    gone += max(0, run.counts.emptied - len(erased))
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
