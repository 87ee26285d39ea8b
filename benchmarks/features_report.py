"""`pinfeather features --report` over a million pins: seconds and peak memory of the whole process.

Run from the checkout's root (a minute on 2 cores; ``--pins 100000`` for a quick look):

    .venv/bin/python -m benchmarks.features_report

The view sources are those of the generated catalogue (5,000 pins), each row repeated under ids of its own, with every
text made different by a number, so that nothing is read once for many. Scope: from the start of the process to its end,
imports included; the first report, then a second one after one pin in a hundred was left out, with its change. The
million view sources lie on disk, the page cache is warm.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import duckdb

from benchmarks.machine import machine, save
from feature_repo.aggregates import aggregate
from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from pinfeather.generate import NOW, generate_catalogue
from pinfeather.init import init_repository

BASE = 5_000
TEXTS = ("title", "description", "caption", "link_title", "link_description")
LISTS = ("board_titles", "engaged_queries")


def enlarge(paths: RepoPaths, times: int) -> None:
    """Every row of the views of pins ``times`` times, under ids and with texts of their own."""
    with duckdb.connect(config={"memory_limit": "2GB"}) as con:
        con.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
        for view, schema in VIEW_SCHEMAS.items():
            if "pin_id" not in schema.names:
                continue
            made = {"pin_id": "pin_id || '-' || n"}
            made |= {name: f"{name} || ' ' || n" for name in TEXTS}
            made |= {name: f"list_transform({name}, x -> x || ' ' || n)" for name in LISTS}
            columns = ", ".join(f"{made.get(name, name)} AS {name}" for name in schema.names)
            source, part = paths.views / f"{view}.parquet", paths.views / f".{view}.large"
            rows = f"FROM '{source}', range({times}) AS numbers(n)"
            con.execute(f"COPY (SELECT {columns} {rows}) TO '{part}' (FORMAT parquet, COMPRESSION zstd)")
            part.replace(source)


def leave_out(paths: RepoPaths) -> None:
    """One pin in a hundred, out of ``pin_text``."""
    source, part = paths.views / "pin_text.parquet", paths.views / ".pin_text.less"
    with duckdb.connect() as con:
        con.execute(
            f"COPY (FROM '{source}' WHERE hash(pin_id) % 100 > 0) TO '{part}' (FORMAT parquet, COMPRESSION zstd)"
        )
    part.replace(source)


def report(paths: RepoPaths) -> tuple[float, float, dict]:
    """Seconds, processor seconds and JSON of one report."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    command = [sys.executable, "-m", "pinfeather", "features", "--report", "--repo", str(paths.root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return perf_counter() - start, used, json.loads(done.stdout)


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=1_000_000)
    options = parser.parse_args()
    found = machine("features_report", ("duckdb",))
    with tempfile.TemporaryDirectory() as folder:
        paths = init_repository(Path(folder) / "repo")
        generate_catalogue(paths.raw, pins=BASE, seed=0)
        validate(paths, now=datetime.now(UTC))
        aggregate(paths, as_of=NOW)
        enlarge(paths, options.pins // BASE)
        first, first_used, _ = report(paths)
        leave_out(paths)
        second, second_used, data = report(paths)
    figures = {
        "pins": data["change"]["pins"],
        "first_s": round(first, 2),
        "first_processor_s": round(first_used, 2),
        "second_s": round(second, 2),
        "second_processor_s": round(second_used, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    for name, value in figures.items():
        print(f"{name:20} {value}")
    save("features_report", found | {"figures": figures})


if __name__ == "__main__":
    main()
