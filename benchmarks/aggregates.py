"""The search log at size: a full count, one more day merged, and what the day costs without a merge.

Run from the checkout's root (50 million rows need about 8 GB of disk; ``--rows 5000000`` for a quick look):

    .venv/bin/python -m benchmarks.aggregates

The log is made up, in a hundred files of time: a request shows 15 pins of its query's own list to one person, who
clicks 8 % and saves 2 % of them; queries, places in the list and people follow Zipf laws; pins have a title, and a
topic. The first files span two years, so that the day that comes pushes one day out of the window. Each case is a
process of its own, whose peak of resident memory is taken; everything that ``aggregate`` does is timed: every view
source is written. Beside the merge, in the same run: the full count of the same day, whose view sources must be equal
byte for byte; and the published top-20 merge (the day's scores are added to the twenty that are kept of each pin, and
the best twenty of these are kept), with the pins whose lists it gets wrong.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine, peak_mb, save
from feature_repo.aggregates import VIEW_SCHEMAS, Resources, aggregate
from feature_repo.aggregates.log import totals
from feature_repo.aggregates.log.state import State
from feature_repo.aggregates.queries import KEPT_QUERIES
from feature_repo.aggregates.session import literal, parquet
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.paths import PARTS, RepoPaths
from feature_repo.raw_files import BATCH_ROWS

END = datetime(2026, 11, 1, tzinfo=UTC)
FILES, DAYS = 100, 730
SHOWN = 15
LIST = 60
"""Pins that a query can show."""
TOPICS = 50
MIN_USERS = 2
SEED = 5


class World:
    """Queries, pins and people in numbers that grow with the rows."""

    def __init__(self, rows: int) -> None:
        self.queries, self.pins, self.people = rows // 50, max(rows // 100, 1_000), rows // 50
        self.rng = np.random.default_rng(SEED)

    def _zipf(self, count: int, below: int, power: float = 0.99) -> npt.NDArray[np.int64]:
        """Ranks from 0 by a Zipf law, through the inverse of its continuous distribution."""
        top = (below + 1) ** (1 - power)
        draws = self.rng.random(count)
        return np.minimum(((1 + draws * (top - 1)) ** (1 / (1 - power))).astype(np.int64) - 1, below - 1)

    def write_log(self, path: Path, rows: int, start: datetime, span: timedelta, number: int) -> None:
        """One valid file of the log, in order of time."""
        requests = rows // SHOWN
        query = self._zipf(requests, self.queries)
        person = self._zipf(requests, self.people, 0.6)
        seconds = np.sort(self.rng.random(requests)) * span.total_seconds()
        place = self._zipf(requests * SHOWN, LIST, 0.7)
        pin = (np.repeat(query, SHOWN) * 7_919 + place * place * 31 + place) % self.pins
        action = self.rng.choice(4, requests * SHOWN, p=[0.90, 0.05, 0.03, 0.02])
        moments = np.repeat((seconds * 1e6).astype(np.int64), SHOWN) + int(start.timestamp()) * 10**6
        languages = np.array(["en", "de", "fr", "es", "zh"])[query % 7 % 5]
        columns = {
            "request_id": np.repeat(_named(f"r{number}-", np.arange(requests)), SHOWN),
            "query": np.repeat(_named("oak table ", query), SHOWN),
            "lang": np.repeat(languages, SHOWN),
            "country": pa.nulls(requests * SHOWN, pa.string()),
            "user_id": np.repeat(_named("person-", person), SHOWN),
            "pin_id": _named("pin-", pin),
            "position": np.tile(np.arange(SHOWN), requests),
            "action": np.array(["impression", "click", "long_click", "save"])[action],
            "dwell_s": np.where(action == 1, 4.0, np.where(action == 2, 30.0, np.nan)),
            "event_timestamp": moments,
        }
        arrays = [pa.array(column) for column in columns.values()]
        _write(_table("search_log", dict(zip(columns, arrays, strict=True))), path)

    def write_pins(self, paths: RepoPaths) -> None:
        """Pins with titles and topics; no boards, no captions."""
        names = pa.array(_named("pin-", np.arange(self.pins)))
        long_ago = pa.array(np.full(self.pins, int((END - timedelta(days=1_000)).timestamp()) * 10**6))
        titles = pa.array(_named("Solid oak table for the hall, number ", np.arange(self.pins)))
        topics = pa.array(_named("topic ", np.arange(self.pins) % TOPICS))
        pins = {"pin_id": names, "title": titles, "created_at": long_ago, "event_timestamp": long_ago}
        weights = pa.array(np.ones(self.pins))
        about = {"pin_id": names, "topic": topics, "weight": weights, "event_timestamp": long_ago}
        for table, columns in {"pins": pins, "pin_topics": about, "board_saves": {}, "captions": {}}.items():
            _write(_table(table, columns), paths.valid / f"{table}.parquet")


def _named(prefix: str, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    return np.char.add(prefix, numbers.astype(np.str_))


def _write(table: pa.Table, path: Path) -> None:
    """As ``pinfeather validate`` writes it."""
    pq.write_table(table, path, compression="zstd", row_group_size=BATCH_ROWS)


def _table(name: str, columns: dict[str, pa.Array]) -> pa.Table:
    fields = [pa.field(column.name, arrow_type(column.kind)) for column in CONTRACTS[name].columns]
    rows = len(next(iter(columns.values()), []))
    arrays = [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(rows) for field in fields]
    return pa.Table.from_arrays([array.cast(field.type) for array, field in zip(arrays, fields, strict=True)],
                                schema=pa.schema(fields))  # fmt: skip


def make_log(paths: RepoPaths, world: World, rows: int) -> None:
    """Two years of log before ``END``."""
    folder = paths.valid / "search_log"
    folder.mkdir(parents=True)
    span = timedelta(days=DAYS) / FILES
    for number in range(FILES):
        start = END - timedelta(days=DAYS) + number * span
        world.write_log(folder / f"{number:03}.parquet", rows // FILES, start, span, number)
    _note(folder)
    world.write_pins(paths)


def add_day(paths: RepoPaths, world: World, rows: int) -> None:
    """One more day, from ``END`` on."""
    folder = paths.valid / "search_log"
    world.write_log(folder / f"{FILES}.parquet", rows, END, timedelta(days=1), FILES)
    _note(folder)


def _note(folder: Path) -> None:
    parts = [{"file": path.name} for path in sorted(folder.glob("*.parquet"))]
    (folder / PARTS).write_text(json.dumps({"parts": parts}))


def measured(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """Seconds, seconds of all cores and peak memory of ``work`` in a process of its own, beside what it gives."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, work, given))
    process.start()
    sender.close()
    found: dict[str, Any] = receiver.recv()
    process.join()
    return found


def _measure(sender: Any, work: Callable[..., dict[str, Any]], given: tuple[Any, ...]) -> None:
    started = perf_counter()
    found = work(*given)
    seconds = perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    sender.send({"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mb": peak_mb()} | found)


def count(root: Path, as_of: datetime, memory: str, threads: int, folder: Path | None = None) -> dict[str, Any]:
    """``aggregate``, and the seconds of its stages."""
    stages: dict[str, float] = {}
    last = perf_counter()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = perf_counter()
        stages[stage] = round(stages.get(stage, 0.0) + now - last, 2)
        last = now

    resources = Resources(threads=threads, memory=memory)
    report = aggregate(RepoPaths(root), as_of, MIN_USERS, DAYS, tell, resources, folder)
    return {"log": report.log, "reason": report.log_reason, "views": report.views, "stages": stages}


def export_scores(root: Path, out: Path) -> None:
    """Scores and people by (pin_id, query), as the state of the last aggregate has them."""
    import duckdb

    state = State(RepoPaths(root).aggregates)
    crowds = totals.patched(state.before, "crowds")
    named = f"{crowds} JOIN {state.before('queries')} USING (q) JOIN {state.before('pins')} USING (p)"
    duckdb.execute(f"COPY (SELECT pin_id, query, score, users FROM {named}) TO {literal(out)}")
    state.close()


def top_twenty(before: Path, day: Path, right: Path) -> dict[str, int]:
    """What becomes of the lists when only twenty queries a pin are kept, and the day's scores added to them.

    :param before, day: scores from :func:`export_scores`, of the two years and of the day alone.
    :param right: the source of ``pin_engaged_queries`` after the day.
    """
    import duckdb

    first = f"QUALIFY row_number() OVER (PARTITION BY pin_id ORDER BY score DESC, query) <= {KEPT_QUERIES}"
    kept = f"SELECT * FROM {parquet([before])} WHERE users >= {MIN_USERS} {first}"
    added = f"""SELECT pin_id, query, sum(score) AS score FROM (({kept}) UNION ALL FROM {parquet([day])})
                GROUP BY pin_id, query HAVING sum(users) >= {MIN_USERS}"""
    merged = f"SELECT * FROM ({added}) {first}"
    lists = f"SELECT pin_id, list(query ORDER BY score DESC, query) AS found FROM ({merged}) GROUP BY pin_id"
    found = duckdb.execute(
        f"""SELECT count(*), count_if(d.pin_id IS NOT NULL),
              count_if(coalesce(l.found, []) <> r.engaged_queries),
              count_if(coalesce(l.found, []) <> r.engaged_queries AND d.pin_id IS NOT NULL)
            FROM {parquet([right])} r LEFT JOIN ({lists}) l USING (pin_id)
              LEFT JOIN (SELECT DISTINCT pin_id FROM {parquet([day])}) d USING (pin_id)"""
    ).fetchone()
    names = ("pins_with_a_list", "pins_the_day_touched", "wrong_lists", "wrong_lists_of_pins_the_day_touched")
    return dict(zip(names, found or (), strict=True))


def same_sources(one: Path, other: Path) -> bool:
    """Whether every view source is the same, byte for byte."""
    return all(filecmp.cmp(one / f"{view}.parquet", other / f"{view}.parquet", shallow=False) for view in VIEW_SCHEMAS)


def benchmark(root: Path, rows: int, day_rows: int, memory: str, threads: int) -> dict[str, Any]:
    """Everything, in order; ``root`` is empty."""
    paths, world = RepoPaths(root), World(rows)
    alone = RepoPaths(root / "alone")
    started = perf_counter()
    make_log(paths, world, rows)
    report: dict[str, Any] = {"made_s": round(perf_counter() - started, 1)}
    report["full"] = measured(count, root, END, memory, threads)
    export_scores(root, root / "before.parquet")
    add_day(paths, world, day_rows)
    tomorrow = END + timedelta(days=1)
    report["merge"] = measured(count, root, tomorrow, memory, threads)
    report["day_in_full"] = measured(count, root, tomorrow, memory, threads, root / "full")
    report["equal_byte_for_byte"] = same_sources(paths.views, root / "full")
    alone.valid.mkdir(parents=True)
    for table in ("pins", "board_saves", "captions"):
        os.link(paths.valid / f"{table}.parquet", alone.valid / f"{table}.parquet")
    os.link(paths.valid / "search_log" / f"{FILES}.parquet", alone.valid / "search_log.parquet")
    measured(count, alone.root, tomorrow, memory, threads)
    export_scores(alone.root, root / "day.parquet")
    right = paths.views / "pin_engaged_queries.parquet"
    report["published_top_20"] = top_twenty(root / "before.parquet", root / "day.parquet", right)
    report["state_mb"] = _megabytes(paths.aggregates)
    report["valid_log_mb"] = _megabytes(paths.valid / "search_log")
    return report


def _megabytes(folder: Path) -> int:
    return round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20)


def main() -> None:
    """Reads the options, prints what was found and saves it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--day-rows", type=int, default=500_000)
    parser.add_argument("--memory", default="2GB", help="what DuckDB may take; beyond it spills to disk")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the log is made (and removed); default a temporary folder")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report = machine("aggregates", ("duckdb", "pyarrow", "numpy")) | {
        "rows": options.rows // FILES // SHOWN * SHOWN * FILES,
        "day_rows": options.day_rows // SHOWN * SHOWN,
        "files": FILES,
        "memory": options.memory,
        "threads": options.threads,
    }
    with tempfile.TemporaryDirectory(prefix="aggregates-", dir=options.folder) as root:
        report |= benchmark(Path(root), options.rows, options.day_rows, options.memory, options.threads)
    full, merged, anew = report["full"], report["merge"], report["day_in_full"]
    report["merge_is_faster_by"] = round(anew["seconds"] / merged["seconds"], 1)
    for name, found in (("full", full), ("merge", merged), ("the day in full", anew)):
        seconds = f"{found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s of all cores)"
        print(f"{name}: {found['log']}, {seconds}, peak {found['peak_mb']:,} MB")
    print("equal byte for byte:", report["equal_byte_for_byte"])
    print("published top-20 merge:", report["published_top_20"])
    save("aggregates", report, options.out)


if __name__ == "__main__":
    main()
