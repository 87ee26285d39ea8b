"""One streamed pass over the rows of a view that gives hashes.

A pass reads every Parquet file once, in bounded memory, and leaves per row the hash of its key, a fingerprint of what
the pin text and payload read, one of the other features, and its times; buckets of keys are then compared in arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from materialize.hashes import SIGN, Words, bits_for, numbers_of, pairs, sorting, span
from materialize.spill import HashedRows, Scratch

if TYPE_CHECKING:
    import duckdb

    from materialize.sources import Source

BUCKET_ROWS = 1 << 17
"""A pass makes the fewest buckets, a power of two, that hold this many rows of the view each."""

_STREAM_ROWS = 1 << 16


@dataclass(frozen=True)
class LatestRows:
    """The latest row of each key, sorted by hash, as arrays."""

    high: Words
    low: Words
    columns: Mapping[str, Words]
    """Those that were asked for: ``event`` with its sign bit flipped, ``text``, ``rest``."""


class HashedView:
    """One pass over the rows of a view. One thread at a time reads the buckets of a session's views."""

    def __init__(self, con: duckdb.DuckDBPyConnection, source: Source, path: Path, scratch: Scratch) -> None:
        self.source = source
        self.names = tuple(source.hashed_columns)
        counted = con.execute(f"SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata({source.files})").fetchone()
        self.bits = bits_for(int(counted[0] or 0) if counted else 0, BUCKET_ROWS)
        self._rows = HashedRows(path, 2 + len(self.names), self.bits)
        self._scratch = scratch
        self._kept: tuple[int, Sequence[str], LatestRows] | None = None
        reader = con.execute(
            f"SELECT md5_number({source.key}), {', '.join(source.hashed_columns.values())} {source.every}"
        ).fetch_record_batch(_STREAM_ROWS)
        into = np.empty((_STREAM_ROWS, 2 + len(self.names)), np.uint64)
        for batch in reader:
            self._rows.add(_words(batch, into))
        self.total = self._rows.rows

    @property
    def raw_names(self) -> list[str]:
        """What of a pass goes into the raw fingerprint of a row: its event time and all features."""
        return [name for name in self.names if name != "created"]

    def rows(self, bits: int, prefix: int, names: Sequence[str]) -> LatestRows:
        """The latest rows of the keys whose hash begins with the ``bits`` bits ``prefix``; at least :attr:`bits`.

        :param names: the columns that are wanted.
        """
        bucket = prefix >> (bits - self.bits)
        if self._kept is None or self._kept[:2] != (bucket, names):
            self._kept = None
            self._kept = (bucket, names, self._load(bucket, names))
        rows = self._kept[2]
        if bits == self.bits:
            return rows
        place = span(rows.high, bits, prefix)
        columns = {name: values[place] for name, values in rows.columns.items()}
        return LatestRows(rows.high[place], rows.low[place], columns)

    def _load(self, bucket: int, names: Sequence[str]) -> LatestRows:
        width = 2 + len(self.names)
        rows = np.empty((0, width), np.uint64)
        # more than one piece only where keys repeat: keep their latest
        for piece in self._rows.pieces(bucket, 8 * BUCKET_ROWS, self._scratch):
            both = np.concatenate([rows, piece]) if len(rows) else piece
            rows = _latest(both, self._scratch.rows("latest", len(both), width))
        # Copies in any case: the scratch is about to be overwritten.
        columns = {name: np.array(rows[:, 2 + self.names.index(name)]) for name in names}
        return LatestRows(np.array(rows[:, 0]), np.array(rows[:, 1]), columns)


def _words(batch: pa.RecordBatch, into: Words) -> Words:
    """A batch of a pass as an array (rows, 2 + hashed columns), in ``into`` where it is large enough."""
    rows = into[: batch.num_rows]
    if len(rows) < batch.num_rows:
        rows = np.empty((batch.num_rows, 1 + batch.num_columns), np.uint64)
    rows[:, :2] = pairs(batch.column(0))
    for place, column in enumerate(batch.columns[1:]):  # of 64 bits each, none of them null
        values = numbers_of(column)
        if pa.types.is_uint64(column.type):
            rows[:, 2 + place] = values
        else:
            np.bitwise_xor(values, SIGN, out=rows[:, 2 + place])
    return rows


def _latest(rows: Words, into: Words) -> Words:
    """The last row of each key by (event, created, hashes), sorted by key; in ``into`` where no key repeats."""
    high, low = np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1])
    order = sorting(high, low, *rows[:, 2:].T)
    rows = np.take(rows, order, axis=0, out=into, mode="clip")  # clip: no second buffer
    last = np.append((rows[1:, 0] != rows[:-1, 0]) | (rows[1:, 1] != rows[:-1, 1]), True)[: len(rows)]
    return rows if last.all() else rows[last]
