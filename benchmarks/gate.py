"""What the gate of ``promote`` sees of spaces that differ from the live one as templates and dimensions do.

Run from the checkout's root (about a minute on 2 cores):

    .venv/bin/python -m benchmarks.gate

The live space of a generated catalogue is the packaged model with all fields. Each other space is made, filled and put
before a gate that no space passes, so that none goes live; the two figures are those that the gate prints. The program
that wrote the catalogue wrote the judgments too, so nDCG@20 says how far two spaces are apart and not what a field is
worth elsewhere.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, save

SPACES = {
    "without captions": ("--without", "caption"),
    "without title and description": ("--without", "title", "--without", "description"),
    "without boards and queries": ("--without", "boards", "--without", "queries"),
    "128 of 384 dimensions": ("--dimension", "128"),
}
CLOSED = ("--no-bundle", "--overlap-min", "1", "--ndcg-drop-max", "0")


def pinfeather(repo: Path, command: str, *words: str, allowed: tuple[int, ...] = (0, 3)) -> str:
    """Stdout of a command on ``repo``."""
    place = [str(repo)] if command == "init" else ["--repo", str(repo)]
    line = [sys.executable, "-m", "pinfeather", *command.split(), *words, *place]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(f"pinfeather {command} {' '.join(words)} failed:\n{done.stderr}")
    return done.stdout


def measure(repo: Path, pins: int) -> dict[str, Any]:
    """Overlap and nDCG@20 of each space, and nDCG@20 of the live one."""
    pinfeather(repo, "init")
    pinfeather(repo, "generate", "--pins", str(pins))
    for command in ("validate", "aggregate", "apply", "materialize"):
        pinfeather(repo, command)
    report: dict[str, Any] = {"pins": pins, "spaces": {}}
    for number, (title, words) in enumerate(SPACES.items()):
        name = f"space{number}"
        pinfeather(repo, "spaces create", name, *words)
        pinfeather(repo, "spaces backfill", name)
        switch = json.loads(pinfeather(repo, "promote", name, *CLOSED, "--json", allowed=(1,)))
        checks = {check["name"]: check for check in switch["checks"]}
        report["live_ndcg@20"] = round(checks["ndcg@20"]["bound"], 4)
        report["spaces"][title] = {each: round(checks[each]["value"], 4) for each in ("overlap@10", "ndcg@20")}
    return report


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=1000)
    options = parser.parse_args()
    report = machine("gate", ("torch", "qdrant-edge-py"))
    with tempfile.TemporaryDirectory() as folder:
        report |= measure(Path(folder) / "repo", options.pins)
    print(f"{'live, all fields':34}{'':10}  nDCG@20 {report['live_ndcg@20']:.3f}")
    for title, found in report["spaces"].items():
        print(f"{title:34}overlap {found['overlap@10']:.2f}  nDCG@20 {found['ndcg@20']:.3f}")
    save("gate", report)


if __name__ == "__main__":
    main()
