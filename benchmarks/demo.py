"""The demo and the quick commands as whole processes: seconds and peak memory against their bounds.

Run from the checkout's root (three minutes on 2 cores; ``--pins 500`` for a quick look):

    .venv/bin/python -m benchmarks.demo

Scope: from the start of the process to its end, imports included. ``materialize again`` is the command line on the
demo's repository, with nothing changed; each quick command runs five times and the median counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.machine import machine, save

PINFEATHER = [sys.executable, "-m", "pinfeather"]
ROUNDS = 5


def timed(*words: str) -> tuple[float, str]:
    """Seconds and stdout of one command."""
    start = perf_counter()
    done = subprocess.run([*PINFEATHER, *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"pinfeather {' '.join(words)} failed:\n{done.stderr}")
    return perf_counter() - start, done.stdout


def median(*words: str) -> float:
    """Median seconds over :data:`ROUNDS` runs."""
    return statistics.median(timed(*words)[0] for _ in range(ROUNDS))


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=5000)
    options = parser.parse_args()
    report = machine("demo", ("torch", "duckdb", "feast", "qdrant-edge-py"))
    with tempfile.TemporaryDirectory() as folder:
        repo = str(Path(folder) / "demo")
        seconds, out = timed("demo", "--pins", str(options.pins), "--dir", repo, "--json")
        demo = json.loads(out)
        again = median("materialize", "--repo", repo, "--json")
        inside = json.loads(timed("materialize", "--repo", repo, "--json")[1])["seconds"]
        plan = median("plan", "--repo", repo, "--json")
    rows = [
        ("demo, whole process, s", round(seconds, 1), 120),
        ("demo, peak memory, MB", demo["peak_memory_mb"], 3000),
        ("demo, first materialize, s", demo["first"]["seconds"], None),
        ("materialize again, whole process, s", round(again, 2), 2),
        ("materialize again, inside, s", inside, None),
        ("plan, whole process, s", round(plan, 2), None),
        ("pinfeather --help, whole process, s", round(median("--help"), 3), 0.5),
    ]
    print(f"{options.pins} synthetic pins on {report['cpu']}, {report['processors']} processors")
    for name, value, bound in rows:
        print(f"{name:40}{value:>10}" + (f"   bound {bound}" if bound else ""))
    report |= {"pins": options.pins, "figures": {name: {"value": value, "bound": bound} for name, value, bound in rows}}
    save("demo", report)


if __name__ == "__main__":
    main()
