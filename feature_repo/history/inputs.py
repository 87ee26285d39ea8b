"""What a snapshot was computed from, as a fingerprint of the rows up to its time.

Rows that came later leave it as it was, so a snapshot stays good when the log grows; a row that was delivered late, or
taken away, changes it. The row hashes are summed up per step of the grid in one pass over every table, which gives the
fingerprint of every time of the grid at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import xxhash

from feature_repo.aggregates.caption_files import CURRENT, history
from feature_repo.aggregates.session import microseconds
from feature_repo.contracts import CONTRACTS
from feature_repo.history.tables import files_sql
from feature_repo.history.versions import stamp_parts
from feature_repo.paths import RepoPaths

if TYPE_CHECKING:
    import duckdb

_NOT_READ = ("pins", "products", "judgments")
"""Pins have versions of their own; the others are in no aggregate."""


@dataclass(frozen=True)
class Inputs:
    """Rows and their hash sum per table and step of the grid."""

    every: int
    steps: dict[str, list[tuple[int, int, int]]]
    """Of each table (step, rows, sum of row hashes), ascending; a step ends at its number times ``every``."""
    captioners: list[tuple[str, int]]
    """The captioners in use, each with the microsecond from which on its captions count."""
    first: int | None
    """Microseconds of the earliest row of all tables, pins included; None without a row."""

    def as_of(self, moment: int) -> dict[str, Any]:
        """Rows and hash sum of each table up to ``moment``, a time of the grid, and the captioners by then."""
        last = moment // self.every
        found: dict[str, Any] = {"captioners": [use for use in self.captioners if use[1] <= moment]}
        for table, steps in self.steps.items():
            upto = [(rows, total) for step, rows, total in steps if step <= last]
            found[table] = [sum(rows for rows, _ in upto), sum(total for _, total in upto)]
        return found


def read_inputs(con: duckdb.DuckDBPyConnection, paths: RepoPaths, every: int) -> Inputs:
    """One pass over every table that the aggregates read, but ``pins``."""
    steps: dict[str, list[tuple[int, int, int]]] = {}
    firsts = [_first(con, stamp_parts(paths), ("event_timestamp", "created_at"))]
    for table, (files, time) in input_files(paths).items():
        if not files:
            continue
        rows = [_contribution(files, time, every)]
        if table == "board_saves":
            # A removal changes what a save says, from its own time on.
            rows = [
                _contribution(files, time, every, without="removed_at"),
                _contribution(files, "removed_at", every),
            ]
        found = con.execute(
            f"SELECT step, count(*), sum(h) FROM ({' UNION ALL '.join(rows)}) GROUP BY step ORDER BY step"
        ).fetchall()
        steps[table] = [(int(step), int(count), int(total)) for step, count, total in found]
        firsts.append(_first(con, files, (time,)))
    known = [first for first in firsts if first is not None]
    captioners = [(use.fingerprint, microseconds(use.since)) for use in history(paths.captions)]
    return Inputs(every, steps, captioners, min(known) if known else None)


def input_files(paths: RepoPaths) -> dict[str, tuple[list[Path], str]]:
    """Files and time column of every table with a time of its own."""
    found = {
        name: (paths.valid_files(name), contract.latest_by)
        for name, contract in CONTRACTS.items()
        if name not in _NOT_READ
    }
    found["captions made here"] = (sorted(paths.captions.glob("*/*.parquet")), "event_timestamp")
    return found


def stamp(paths: RepoPaths) -> str:
    """Names, sizes and times of every file that is read: while it is the same, nothing has to be read to know."""
    files = [*stamp_parts(paths), *(file for files, _ in input_files(paths).values() for file in files)]
    if (captioners := paths.captions / CURRENT).is_file():
        files.append(captioners)
    return digest([[str(file.relative_to(paths.data)), *_stat(file)] for file in files])


def digest(data: Any) -> str:
    """xxh3-128 of plain data, 32 hexadecimal characters."""
    return xxhash.xxh3_128_hexdigest(json.dumps(data, sort_keys=True).encode())


def table_sum(con: duckdb.DuckDBPyConnection, file: Path) -> list[int]:
    """Rows of one file and the sum of their hashes."""
    columns = ", ".join(f'"{name}"' for name in sorted(pq.read_schema(file).names))
    found = con.execute(f"SELECT count(*), sum(hash({columns})::HUGEINT) FROM {files_sql([file])}").fetchone()
    return [int(found[0]), int(found[1] or 0)] if found else [0, 0]


def _stat(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _contribution(files: Sequence[Path], time: str, every: int, without: str = "") -> str:
    """SQL of (step, hash) of every row that has the time; a row of the very end of a step belongs to it."""
    names = sorted({name for file in files for name in pq.read_schema(file).names} - {without})
    columns = ", ".join(f'"{name}"' for name in names)
    return f"""SELECT (epoch_us({time}) + {every - 1}) // {every} AS step, hash({columns})::HUGEINT AS h
               FROM {files_sql(files)} WHERE {time} IS NOT NULL"""


def _first(con: duckdb.DuckDBPyConnection, files: Sequence[Path], times: Sequence[str]) -> int | None:
    if not files:
        return None
    columns = ", ".join(f"min({time})" for time in times)
    found = con.execute(f"SELECT epoch_us(least({columns})) FROM {files_sql(files)}").fetchone()
    return int(found[0]) if found and found[0] is not None else None
