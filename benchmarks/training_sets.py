"""What a training set costs: snapshots at first, again with nothing changed, and after one more day of the log.

Run from the checkout's root (``--pins 1000 --labels 5000 --every 30`` for a quick look):

    .venv/bin/python -m benchmarks.training_sets

A generated catalogue; labels are (query, pin) pairs of its search log at random times of its span, so that every step
of the grid is needed. Each case is a process of its own, whose peak of resident memory is taken. The day that comes
has a hundredth of the rows of the log, all later than every label: no snapshot may be taken again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine, peak_mb, save
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from pinfeather.generate import generate_catalogue
from pinfeather.init import init_repository

SEED = 11


def prepare(root: Path, pins: int, labels: int) -> None:
    """The repository, and ``labels.parquet`` beside it."""
    paths = init_repository(root / "shop")
    generate_catalogue(paths.raw, pins=pins, seed=SEED)
    validate(paths)
    log = pa.concat_tables([pq.read_table(file, partitioning=None) for file in paths.valid_files("search_log")])
    rng = np.random.default_rng(SEED)
    rows = rng.integers(len(log), size=labels)
    times = log["event_timestamp"].cast(pa.int64()).to_numpy()
    when = rng.integers(times.min(), times.max(), size=labels)
    table = pa.table(
        {
            "query": log["query"].take(pa.array(rows)),
            "pin_id": log["pin_id"].take(pa.array(rows)),
            "label": pa.array(rng.integers(2, size=labels), pa.float64()),
            "event_timestamp": pa.array(when).cast(pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, root / "labels.parquet")


def one_more_day(root: Path) -> None:
    """A hundredth of the log once more, a day after its end."""
    paths = RepoPaths(root / "shop")
    file = sorted((paths.raw / "search_log").glob("*.parquet"))[0]
    log = pq.read_table(file, partitioning=None)
    day = log.slice(0, max(1, len(log) // 100)).to_pylist()
    end = max(row["event_timestamp"] for row in log.to_pylist()) + timedelta(days=1)
    for row in day:
        row |= {"event_timestamp": end, "request_id": f"later-{row['request_id']}"}
    pq.write_table(pa.Table.from_pylist(day, schema=log.schema), file.with_name("part-later.parquet"))
    validate(paths)


def build(root: Path, every: int) -> dict[str, Any]:
    """One training set, by the same functions as the command."""
    from feature_repo.pin_text import DEFAULT_TEMPLATE
    from pinfeather.label_sources import from_file
    from pinfeather.training_set import TrainingSetOptions, build_training_set

    started = perf_counter()
    labels = from_file(root / "labels.parquet")
    options = TrainingSetOptions(DEFAULT_TEMPLATE, every)
    note = build_training_set(RepoPaths(root / "shop"), labels, root / "out.parquet", options)
    return {
        "rows": note["rows"],
        "with_text": note["rows_with_text"],
        "snapshots": len(note["snapshots"]),
        **note["history"],
        "snapshot_seconds": note["history"]["seconds"],
        "seconds": round(perf_counter() - started, 2),
        "file_megabytes": round((root / "out.parquet").stat().st_size / 1e6, 1),
        "peak_gigabytes": round(peak_mb() / 1000, 2),
    }


def in_a_process(work: Callable[..., Any], *values: Any) -> Any:
    """``work`` in a process of its own; an error in it is one here."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, values)


def main() -> None:
    """Measures the three cases and saves the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pins", type=int, default=5_000)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1, help="days between snapshots")
    parser.add_argument("--out", type=Path, help="where the report goes instead of results/")
    parser.add_argument("--folder", type=Path, help="where the repository is made; default a temporary folder")
    options = parser.parse_args()
    report = machine("training_sets", ("duckdb", "feast", "pyarrow"))
    report |= {"pins": options.pins, "labels": options.labels, "every_days": options.every}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder)
        in_a_process(prepare, root, options.pins, options.labels)
        report["first"] = in_a_process(build, root, options.every)
        report["again"] = in_a_process(build, root, options.every)
        in_a_process(one_more_day, root)
        report["one_more_day"] = in_a_process(build, root, options.every)
    report["again_over_first"] = round(report["again"]["seconds"] / report["first"]["seconds"], 3)
    if report["one_more_day"]["made"] or report["again"]["made"]:
        raise SystemExit(f"Snapshots were taken again though nothing before them had changed: {report}")
    save("training_sets", report, options.out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
