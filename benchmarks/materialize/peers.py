"""Pinfeather beside LangChain, LlamaIndex and CocoIndex: seconds, memory, encoder calls, and what is right afterwards.

Run from the checkout's root. The peers get a virtual environment of their own, made under ``--dir`` from
``requirements-peers.txt`` unless ``--peers-python`` names the Python of one:

    .venv/bin/python -m benchmarks.materialize.peers
    .venv/bin/python -m benchmarks.materialize.peers --documents 20000 --only ours langchain --peers-python PATH

Speed: documents of 40 words; a first run, an unchanged run and one with 0.1 % of the texts changed, each in a process
of its own. CPU seconds are user and system time of that process, from opening store and books until they are closed;
imports are not in it. The peers get the documents as Python objects, made outside the clock; Pinfeather reads them from
its Parquet sources, inside. ``before MB`` is resident before the run, with imports (and the peers' documents), ``peak
MB`` the process's peak. The unchanged run is the best of ``--rounds``.

Correctness: cases on 50 documents (``peers_cases.py``), each step in a process of its own; then every row of the store
is compared with the truth. A cell is what was found wrong, ``right`` if nothing, and the texts that the
last run encoded.

Every system encodes with the same fake encoder, which makes vectors of 384 numbers out of a hash and counts.

  ours        ``materialize`` on the Edge store; it writes the documents' feature rows too
  langchain   ``index()``, ``SQLRecordManager`` in SQLite, cleanup ``full``, batches of 1,000
  llamaindex  ``IngestionPipeline``, persisted ``SimpleDocumentStore``, ``UPSERTS_AND_DELETE``, batches of 1,000
  cocoindex   one memoised component a document, memoised encoder in batches of 1,000, LMDB, its SQLite target

LangChain and LlamaIndex write to one SQLite table (``peers_vectors.py``), as their own stores keep nothing when a
process dies.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, machine, save
from benchmarks.materialize.peers_child import MODULES

REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")
NAMES = {"ours": "Pinfeather", "langchain": "LangChain", "llamaindex": "LlamaIndex", "cocoindex": "CocoIndex"}
GOALS = {"langchain": 50, "llamaindex": 30, "cocoindex": 20}
"""How many times fewer CPU seconds an unchanged run at 100,000 documents is to take."""
STEPS = {"first": False, "unchanged": False, "changed 0.1 %": True}
"""Run to whether it is over the edited documents."""


class Bench:
    """The systems, each under the Python that has its packages, in folders of their own under ``folder``."""

    def __init__(self, folder: Path, peers_python: Path) -> None:
        self.folder, self.peers_python = folder, peers_python

    def child(self, system: str, step: str, work: Path, *words: str) -> dict[str, Any]:
        """The result of one step in a new process.

        :raises SystemExit: if it fails; its error is on the standard error output.
        """
        python = sys.executable if system == "ours" else str(self.peers_python)
        result = self.folder / f"{system}.json"
        command = [python, "-m", "benchmarks.materialize.peers_child", "--system", system, "--step", step]
        done = subprocess.run(
            [*command, "--folder", str(work), "--result", str(result), *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COCOINDEX_DISABLE_USAGE_TRACKING": "1"},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{NAMES[system]}: the step {step!r} ended with {done.returncode}; its error is above.")
        loaded: dict[str, Any] = json.loads(result.read_text())
        return loaded

    def speed(self, system: str, count: int, rounds: int) -> dict[str, Any]:
        """First, unchanged and changed run at ``count`` documents."""
        figures: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            for step, edited in STEPS.items():
                words = ["--documents", str(count), *(["--edited"] if edited else [])]
                fresh = ["--fresh"] if step == "first" else []
                prepared = self.child(system, "prepare", Path(work), *words, *fresh)
                runs = [
                    self.child(system, "measure", Path(work), *words)
                    for _ in range(rounds if step == "unchanged" else 1)
                ]
                best = min(runs, key=lambda each: float(each["cpu_seconds"]))
                peak = max(each["peak_mb"] for each in runs)
                figures[step] = {**best, "peak_mb": peak, "all_cpu_seconds": [each["cpu_seconds"] for each in runs]}
                print(f"{NAMES[system]:12}{count:9,} {step:14}{_words(figures[step])}", flush=True)
        return {**figures, "versions": prepared["versions"]}

    def correctness(self, system: str) -> dict[str, Any]:
        """Every case, by name."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            return self.child(system, "cases", Path(work))


def _words(run: dict[str, Any]) -> str:
    return (
        f"{run['cpu_seconds']:9.2f} CPU s {run['seconds']:8.2f} s {run['before_mb']:6} MB before"
        f" {run['peak_mb']:6} MB peak {run['encoder_calls']:5} calls {run['encoded_texts']:8,} texts"
    )


def cell(case: dict[str, Any]) -> str:
    """What a case left, in words."""
    wrong = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in case["wrong"].items())
    return f"{wrong or 'right'} ({case['encoded_texts']})"


def speed_ratios(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times more CPU seconds than ours each peer takes to find nothing changed."""
    if "ours" not in figures:
        return {}
    ours = figures["ours"]["unchanged"]["cpu_seconds"]
    return {peer: round(figures[peer]["unchanged"]["cpu_seconds"] / ours, 1) for peer in GOALS if peer in figures}


def print_cases(found: dict[str, dict[str, Any]]) -> None:
    """One line a case, one column a system; the texts that the last run encoded in brackets."""
    print(f"\n{'':48}" + "".join(f"{NAMES[system]:26}" for system in found))
    for name in next(iter(found.values())):
        print(f"{name:48}" + "".join(f"{cell(cases[name]):26}" for cases in found.values()))


def peers_python(folder: Path) -> Path:
    """The Python of a new environment with the pinned peers."""
    home = folder / "peers"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    return python


def measure(options: argparse.Namespace, folder: Path, head: dict[str, Any]) -> None:
    """Every figure that was asked for, saved as it comes."""
    needed = set(options.only) - {"ours"}
    python = options.peers_python or (peers_python(folder) if needed else Path(sys.executable))
    bench = Bench(folder, python.absolute())
    report: dict[str, Any] = {**head, "goals": GOALS, "sizes": {}}
    for count in options.documents:
        figures: dict[str, dict[str, Any]] = {}
        for system in options.only:
            figures[system] = bench.speed(system, count, options.rounds)
            report["sizes"][str(count)] = {"systems": figures, "times_slower_unchanged": speed_ratios(figures)}
            save("materialize_peers", report, options.out)
        for peer, times in speed_ratios(figures).items():
            print(f"  unchanged, {count:,} documents: {times} times faster than {NAMES[peer]} (goal {GOALS[peer]})")
    if not options.no_cases:
        report["cases"] = {}
        for system in options.only:
            report["cases"][system] = bench.correctness(system)
            save("materialize_peers", report, options.out)
        print_cases(report["cases"])


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="*", default=[20_000, 100_000], help="sizes; none: only cases")
    parser.add_argument("--only", nargs="+", choices=list(MODULES), default=list(NAMES), help="these systems")
    parser.add_argument("--rounds", type=int, default=3, help="unchanged runs, of which the best counts")
    parser.add_argument("--no-cases", action="store_true", help="leave correctness out")
    parser.add_argument("--peers-python", type=Path, help="a Python that has the packages of requirements-peers.txt")
    parser.add_argument("--dir", type=Path, help="where stores and environment lie; default a temporary folder")
    parser.add_argument("--out", type=Path, help="the JSON; default benchmarks/results/materialize_peers.json")
    options = parser.parse_args()
    head = machine("materialize.peers", ("duckdb", "pyarrow", "numpy", "qdrant-edge-py"))
    sizes = " ".join(str(count) for count in options.documents)
    head["command"] = (  # without the folders of one machine
        f"python -m benchmarks.materialize.peers --documents {sizes} --only {' '.join(options.only)}"
        f" --rounds {options.rounds}{' --no-cases' if options.no_cases else ''}"
    )
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        measure(options, Path(folder), head)


if __name__ == "__main__":
    main()
