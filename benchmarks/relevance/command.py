"""What the commands share: their options, and how a report is saved."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, machine, save
from benchmarks.relevance.vectors import WORK

SIZES = ("cpu", "full")


def parser(text: str | None) -> argparse.ArgumentParser:
    """``--size``, ``--teacher``, ``--student``, ``--whole``, ``--out``."""
    out = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument(
        "--size", choices=SIZES, default="cpu", help="cpu: minutes on 2 cores; full: all pairs, made for a GPU"
    )
    out.add_argument(
        "--teacher", type=Path, default=WORK / "teacher", help="folder of a trained teacher; left out if not there"
    )
    out.add_argument(
        "--student", type=Path, default=WORK / "student", help="bundle of a trained student; left out if not there"
    )
    out.add_argument(
        "--whole", type=Path, default=WORK / "student-whole", help="the same with all weights of its towers trained"
    )
    out.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    return out


def finish(table: str, options: argparse.Namespace, content: dict[str, Any], module: str = "") -> None:
    """Save ``relevance_<table>.json``, with the machine at its head.

    :param module: the command, where it is not called like the table.
    """
    head = machine(f"relevance.{module or table}", ("torch", "numpy"))
    save(f"relevance_{table}", head | {"size": options.size, **content}, options.out / f"relevance_{table}.json")


def tell(rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> None:
    """The rows as text, so that a long command shows what it has."""
    for row in rows:
        cells = " ".join(f"{figure} {row[figure]:.3f}" if row[figure] is not None else "" for figure in figures)
        print(f"{row['dataset']:14} {row['scorer']:34} {cells}", flush=True)
