"""A whole run on the real Edge store: many points written, found unchanged, 0.1 % edited, audited.

Run from the checkout's root (``--pins 20000`` is a small run):

    .venv/bin/python -m benchmarks.materialize.edge --pins 200000

The encoder is a fake that counts its texts and makes a vector in no time; sources, ledger, vector log, store and
publications are real. Making the sources is outside the clock. It ends with an error if a run does more or less than
the edits ask for, or if the audit is not clean.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.machine import machine, peak_mb, save
from benchmarks.materialize.peers_documents import FakeEncoder, documents
from benchmarks.materialize.peers_ours import PACKAGES, System
from materialize.audit import audit

STEP = 1000
"""Each so many-th pin is edited: 0.1 %."""


def taken(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` gives, beside its seconds, processor seconds and the process's peak so far."""
    start, before = perf_counter(), os.times()
    result = work()
    after = os.times()
    return result | {
        "seconds": round(perf_counter() - start, 2),
        "cpu_seconds": round(after.user + after.system - before.user - before.system, 2),
        "peak_mb": peak_mb(),
    }


def measure(folder: Path, pins: int) -> dict[str, Any]:
    """First run, unchanged run, 0.1 % edited, audit."""
    system = System(folder)
    system.reset()
    figures: dict[str, Any] = {}
    edits = -(-pins // STEP)
    asked = {"first": (pins, pins), "unchanged": (0, 0), "0.1 % edited": (edits, edits)}
    for name, (texts, points) in asked.items():
        if name != "unchanged":
            system.prepare(list(documents(pins, 0 if name == "first" else STEP)))
        encoder = FakeEncoder()
        counts = figures[name] = taken(lambda encoder=encoder: _counts(system.sync([], encoder)))  # type: ignore[misc]
        if (encoder.texts, counts["upserted"], counts["deleted"]) != (texts, points, 0):
            raise SystemExit(f"{name}: {counts}, where {texts} texts and {points} points were asked for.")
        print(f"{name:14}{counts}", flush=True)
    figures["audit"] = taken(lambda: audit(system.paths).to_json())
    print(f"audit         {figures['audit']}", flush=True)
    if any(figures["audit"][kind] for kind in ("missing", "extra", "stale", "wrong_space", "corrupted")):
        raise SystemExit("The audit is not clean.")
    return figures


def _counts(counts: dict[str, Any]) -> dict[str, Any]:
    """What of a run's counts says what it did."""
    return {name: counts[name] for name in ("unchanged", "changed", "encoded_texts", "upserted", "deleted", "stages")}


def main() -> None:
    """Measure, print, write the JSON report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=200_000, help="points on Edge (default 200000)")
    parser.add_argument("--out", type=Path, help="the JSON report; default results/materialize_edge.json")
    options = parser.parse_args()
    report = machine("materialize.edge", PACKAGES) | {"pins": options.pins}
    with tempfile.TemporaryDirectory() as folder:
        report["steps"] = measure(Path(folder), options.pins)
    save("materialize_edge", report, options.out)


if __name__ == "__main__":
    main()
