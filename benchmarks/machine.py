"""Where, when and with what a benchmark ran: the head of every report."""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"


def machine(name: str, packages: tuple[str, ...] = ("numpy",)) -> dict[str, Any]:
    """Command, date, commit, processor and versions; ``name`` is the benchmark's module."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "command": " ".join([f"python -m benchmarks.{name}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "cpu": facts.get("model name", platform.processor()),
        "cpu_flags": [flag for flag in flags if flag.startswith(("avx", "amx", "bf16", "fma"))],
        "processors": len(os.sched_getaffinity(0)),
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def peak_mb() -> int:
    """Most memory that this process has held, in MB.

    Where the system does not say it, that of ``getrusage``: on Linux this is at least what the parent held when it
    started the process.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def conclude(name: str, report: dict[str, Any], unmet: Sequence[str], table: str, out: Path | None = None) -> None:
    """Write the report with the bounds ``unmet`` and print its table; ends with 1 where there is one of these."""
    save(name, report | {"not_met": list(unmet)}, out)
    print(table)
    if unmet:
        raise SystemExit("Not met: " + "; ".join(unmet))


def save(name: str, report: dict[str, Any], out: Path | None = None) -> None:
    """Write the report as JSON under ``results/``."""
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
