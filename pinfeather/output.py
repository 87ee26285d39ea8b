"""What commands print: data on stdout, talk on stderr, tables for people and JSON for machines."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click


def emit_json(data: Any) -> None:
    """Print ``data`` as one JSON document; NaN becomes null."""
    click.echo(json.dumps(_plain(data), ensure_ascii=False, indent=2, default=_scalar))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _scalar(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def say(text: str) -> None:
    """Talk to the person: stderr."""
    click.echo(text, err=True)


def say_at_once(text: str) -> None:
    """Like :func:`say`, from inside a signal handler, where a buffered stream may be in use."""
    os.write(2, f"{text}\n".encode())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str | None = None) -> None:
    """Print a table on stdout; numbers are set right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], (int, float)) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(show(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 110
    Console(width=width, highlight=False).print(grid)


def show(value: Any) -> str:
    """A cell: thousands grouped, three decimals, a dash for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


LINE_SECONDS = 10.0
"""Pause between two lines of progress where there is no terminal to draw a bar on."""


@contextmanager
def progress(label: str, quiet: bool = False, lines: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar with rate and time left on stderr, where that is a terminal.

    The callback takes (done, total or None).

    :param lines: where there is no terminal, a line instead: the first at once, then every :data:`LINE_SECONDS`.
    """
    started = time.monotonic()
    if quiet or not sys.stderr.isatty():
        last = float("-inf")

        def line(done: int, total: int | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= LINE_SECONDS or done == total:
                last = now
                say(f"{label}: {progress_line(done, total, now - started)}")

        yield line if lines and not quiet else lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, line="")

        def update(done: int, total: int | None) -> None:
            line = progress_line(done, total, time.monotonic() - started)
            bar.update(task, completed=done, total=total, line=line)

        yield update


def progress_line(done: int, total: int | None, seconds: float) -> str:
    """How far it is, at what rate, and how long the rest takes: ``1,024 of 4,096, 128/s, 24 s left``."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [f"{done:,} of {total:,}" if total is not None else f"{done:,}"]
    if rate:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if total is not None and total > done:
            left = (total - done) / rate
            parts.append(f"{left:,.0f} s left" if left < 120 else f"{left / 60:,.0f} min left")
    return ", ".join(parts)


def running_total(tell: Callable[[int, int | None], None], total: int | None = None) -> Callable[[int], None]:
    """A callback for steps done since the last call, told to ``tell`` as (done, total)."""
    done = 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        tell(done, total)

    return step
