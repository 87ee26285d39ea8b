"""Rows split into buckets by the top bits of their key's hash, so that each bucket fits into memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.errors import PinfeatherError
from feature_repo.leftovers import scratch_folder
from materialize.hashes import Words, arrow, prefixes

_HELD_BYTES = 48 << 20


class Scratch:
    """Memory for rows that one thread uses again and again: fresh pages cost more than what is done in them."""

    def __init__(self) -> None:
        self._held: dict[str, Words] = {}

    def rows(self, name: str, rows: int, width: int) -> Words:
        """An array (rows, width) of anything; it is overwritten when ``name`` is asked for again."""
        if len(self._held.get(name, ())) < rows * width:
            self._held[name] = np.empty(rows * width * 9 // 8, np.uint64)
        return self._held[name][: rows * width].reshape(rows, width)


def spill_folder(parent: Path | None) -> AbstractContextManager[Path]:
    """A folder for what does not fit into memory, in ``parent`` or the system's own place; removed at the end.

    Folders that killed processes of this host left in ``parent`` go, too.
    """
    return scratch_folder(parent, "scan")


class HashedRows:
    """Rows of 64-bit numbers by bucket, in one file. The first number of a row is the one that names its bucket."""

    def __init__(self, path: Path, width: int, bits: int) -> None:
        self._path, self._width, self._bits = path, width, bits
        self._file = path.open("w+b", buffering=0)
        self._ends: list[npt.NDArray[np.int64]] = []
        self._starts: list[int] = []
        self._sorted = np.empty((0, width), np.uint64)
        self.rows = 0

    def add(self, rows: Words) -> None:
        """Append ``rows``, an array (rows, width)."""
        buckets = prefixes(rows[:, 0], self._bits)
        if self._bits:
            if len(self._sorted) < len(rows):
                self._sorted = np.empty_like(rows)
            order = np.argsort(buckets, kind="stable")
            rows = np.take(rows, order, axis=0, out=self._sorted[: len(rows)], mode="clip")  # clip: no second buffer
        self._starts.append(self.rows)
        self._ends.append(np.cumsum(np.bincount(buckets, minlength=1 << self._bits)))
        view = np.ascontiguousarray(rows).data.cast("B")
        while view:
            view = view[self._file.write(view) or 0 :]
        self.rows += len(rows)

    def pieces(self, bucket: int, rows: int, scratch: Scratch) -> Iterator[Words]:
        """The rows of ``bucket``, in arrays of about ``rows`` at most; each is gone when the next one is asked for."""
        places: list[tuple[int, int]] = []
        held = 0
        for start, ends in zip(self._starts, self._ends, strict=True):
            first = int(ends[bucket - 1]) if bucket else 0
            if count := int(ends[bucket]) - first:
                places.append((start + first, count))
                held += count
            if held >= rows:
                yield self._read(places, held, scratch)
                places, held = [], 0
        if places:
            yield self._read(places, held, scratch)

    def _read(self, places: Sequence[tuple[int, int]], count: int, scratch: Scratch) -> Words:
        """The ``count`` rows that lie at ``places`` of the file: (first row, rows)."""
        found = scratch.rows("piece", count, self._width)
        view = found.data.cast("B")
        for first, rows in places:
            at, end = first * self._width * 8, (first + rows) * self._width * 8
            while at < end:
                read = os.preadv(self._file.fileno(), [view[: end - at]], at)
                if not read:
                    raise PinfeatherError(
                        f"{self._path} ended early: something removed a part of it while a scan ran. Try again."
                    )
                at, view = at + read, view[read:]
        return found

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Partitions:
    """Tables by bucket, in memory while they are small, else in files under ``folder``."""

    def __init__(self, folder: Path, bits: int) -> None:
        self._folder, self.bits = folder, bits
        self._held: list[tuple[pa.Table, npt.NDArray[np.int64]]] = []
        self._bytes = 0
        self._files: set[int] = set()
        self.counts = np.zeros(1 << bits, np.int64)
        """Rows of each bucket."""

    @property
    def rows(self) -> int:
        """Rows of all buckets."""
        return int(self.counts.sum())

    def add(self, table: pa.Table, high: Words) -> None:
        """Append rows whose hashes begin with ``high``; within a bucket they keep their order."""
        if not table.num_rows:
            return
        buckets = prefixes(high, self.bits)
        counts = np.bincount(buckets, minlength=1 << self.bits)
        if self.bits:
            table = table.take(arrow(np.argsort(buckets, kind="stable")))
        self._held.append((table, np.append(0, np.cumsum(counts))))
        self.counts += counts
        self._bytes += table.nbytes
        if self._bytes > _HELD_BYTES:
            self._flush()

    def read(self, bucket: int) -> pa.Table | None:
        """The rows of ``bucket`` in the order in which they came; None where there are none."""
        tables = [*self._stored(bucket), *self._slices(bucket)]
        return pa.concat_tables(tables) if tables else None

    def _slices(self, bucket: int) -> list[pa.Table]:
        found = [table.slice(ends[bucket], ends[bucket + 1] - ends[bucket]) for table, ends in self._held]
        return [table for table in found if table.num_rows]

    def _stored(self, bucket: int) -> list[pa.Table]:
        tables = []
        if bucket in self._files:
            with pa.OSFile(str(self._folder / str(bucket))) as file:
                while file.tell() < file.size():
                    tables.append(pa.ipc.open_stream(file).read_all())
        return tables

    def _flush(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for bucket in range(1 << self.bits):
            if slices := self._slices(bucket):
                table = pa.concat_tables(slices).combine_chunks()
                with (self._folder / str(bucket)).open("ab") as file, pa.ipc.new_stream(file, table.schema) as writer:
                    writer.write_table(table)
                self._files.add(bucket)
        self._held, self._bytes = [], 0

    def clear(self) -> None:
        """Forget every row, and remove the files."""
        self._held, self._bytes, self._files = [], 0, set()
        self.counts[:] = 0
        shutil.rmtree(self._folder, ignore_errors=True)
