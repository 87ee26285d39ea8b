"""What a run over every space that is kept would do, and over one."""

from __future__ import annotations

import time

from feature_repo.paths import RepoPaths
from materialize.definitions import load_definitions
from materialize.ledger import Ledger
from materialize.plan import ASSUMED_TOKENS_PER_SECOND, count_features, count_logged, open_pin_scan
from materialize.scan import connect, held_pins
from materialize.selection import Selection
from materialize.standing import RunCounts, count_target, targets


def plan_spaces(
    paths: RepoPaths, model: str | None = None, only: str | None = None, *, rescan: bool = False
) -> RunCounts:
    """Count what ``materialize`` would do now: the live space, or ``only``, with the other spaces in ``spaces``.

    Loads no model and writes nothing but the ledger's own folder.

    :param rescan: read files, too, that are as the last scan left them.
    :raises UsageError: for a space that there is not.
    :raises PinfeatherError: if the repository is not applied, or a source cannot be read.
    """
    definitions = load_definitions(paths)
    done: list[RunCounts] = []
    with Ledger(paths) as ledger, connect(paths.ledger, noting=True, rescan=rescan) as con:
        held = held_pins(paths)
        for target in targets(paths, model, only, None, None):
            started = time.perf_counter()
            counts = RunCounts(target.space.name)
            if target.live:
                count_features(con, definitions, ledger, held, counts)
            scan = open_pin_scan(con, definitions, target.space, ledger, held)
            quarantined = frozenset(ledger.quarantined(target.space.name))
            texts = count_target(scan, target, counts, Selection(quarantined=quarantined))
            count_logged(paths, target.space.name, ledger, counts, texts or ())
            counts.held = scan.held
            counts.files, counts.files_unchanged = con.file_counts()
            rate = ledger.tokens_per_second(target.space.name) or ASSUMED_TOKENS_PER_SECOND
            counts.estimated_seconds = counts.tokens / rate
            counts.seconds = time.perf_counter() - started
            done.append(counts)
    first, *others = done
    first.spaces = {counts.space: counts for counts in others}
    return first
