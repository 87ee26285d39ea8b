"""A whole catalogue of synthetic raw tables, a function of size and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from feature_repo.errors import PinfeatherError, UsageError
from pinfeather.generate.boards import draw_savers, saves_chunk
from pinfeather.generate.judging import judgments
from pinfeather.generate.lexicon import lexicon
from pinfeather.generate.output import Clock, Tables
from pinfeather.generate.pins import captions_chunk, pins_chunk
from pinfeather.generate.searches import draw_queries, log_chunks
from pinfeather.generate.topics import topics_chunk
from pinfeather.generate.world import draw_world

TABLES = ("pins", "captions", "pin_topics", "board_saves", "search_log", "judgments")
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SMALLEST, LARGEST = 100, 100_000
CHUNK = 5_000  # pins rendered at a time


@dataclass(frozen=True)
class GenerateReport:
    """Rows written per table, number of topics and of distinct queries, and where the tables are."""

    out: Path
    seed: int
    rows: dict[str, int]
    topics: int
    queries: int


def generate_catalogue(
    out: Path,
    pins: int = 5_000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    now: datetime | None = None,
) -> GenerateReport:
    """Writes ``out/<table>/part-0000.parquet`` for each of :data:`TABLES`; earlier ones of a generator are replaced.

    :param pins: 100 to 100,000.
    :param progress: called with numbers of pins done since the last call; they sum to ``pins``.
    :param now: no row is later than this aware time; fixed by default, so that size and seed decide everything.
    :raises UsageError: for a size out of range, a negative seed or a ``now`` without a time zone.
    :raises PinfeatherError: if ``out`` holds tables that this function did not write.
    """
    moment = _checked(out, pins, seed, now)
    clock = Clock.at(moment)
    world = draw_world(lexicon(), pins, seed)
    savers = draw_savers(world, seed)
    done = _Share(progress or (lambda _: None), pins)
    with Tables(out) as tables:
        for start in range(0, pins, CHUNK):
            stop = min(start + CHUNK, pins)
            tables.write("pins", pins_chunk(world, start, stop, seed, clock))
            own = np.arange(start, stop)
            tables.write("captions", captions_chunk(world, own[world.image[start:stop] == own], seed, clock))
            tables.write("pin_topics", topics_chunk(world, start, stop, seed, clock))
            tables.write("board_saves", saves_chunk(world, savers, start, stop, seed, clock))
            done.up_to(0.6 * stop / pins)
        queries = draw_queries(world, seed)
        requests = 0
        for chunk in log_chunks(world, queries, savers.ids, seed, clock):
            tables.write("search_log", chunk)
            requests += chunk.num_rows
            done.up_to(min(0.95, 0.6 + requests / (60 * pins)))
        tables.write("judgments", judgments(world, queries, seed, clock))
    done.up_to(1.0)
    return GenerateReport(out, seed, dict(tables.rows), len(np.unique(world.topic)), len(queries.texts))


class _Share:
    """Turns shares of the work into steps of whole pins."""

    def __init__(self, progress: Callable[[int], None], pins: int) -> None:
        self.progress, self.pins, self.told = progress, pins, 0

    def up_to(self, share: float) -> None:
        reached = round(share * self.pins)
        if reached > self.told:
            self.progress(reached - self.told)
            self.told = reached


def _checked(out: Path, pins: int, seed: int, now: datetime | None) -> datetime:
    """The moment to use, after a look at every argument."""
    if not SMALLEST <= pins <= LARGEST:
        raise UsageError(f"Cannot generate {pins} pins: choose {SMALLEST:,} to {LARGEST:,} with --pins.")
    if seed < 0:
        raise UsageError(f"Cannot use seed {seed}: choose 0 or a positive number with --seed.")
    moment = NOW if now is None else now
    if moment.tzinfo is None:
        raise UsageError(f"The time {moment.isoformat()} has no time zone: give one, as in {NOW.isoformat()}.")
    for table in TABLES:
        others = [path for path in (out / table).glob("*.parquet") if path.name != "part-0000.parquet"]
        if others or (out / f"{table}.parquet").exists():
            found = others[0] if others else out / f"{table}.parquet"
            raise PinfeatherError(
                f"{out} already holds {found.relative_to(out)}, which would be mixed with generated rows. "
                "Generate into an empty folder, or move that file away."
            )
    return moment
