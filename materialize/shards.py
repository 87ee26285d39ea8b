"""The entries of one space as the ledger's files hold them: shards by key hash, with the journal laid over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import PinfeatherError
from materialize.hashes import HASH, arrow, halves, prefixes, sorting, span
from materialize.spill import Partitions

Result = TypeVar("Result")

SCHEMA = pa.schema(
    [
        ("hash", HASH),  # MD5 of the key: the order of the shards
        ("key", pa.string()),
        ("raw", pa.uint64()),
        ("text_fp", pa.binary(16)),  # null: the pin has no text, so no vector
        ("payload_fp", pa.uint64()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("run", pa.int64()),
    ]
)
REMOVED = "_removed"
"""Column of journal rows: true where the key is no longer in the space."""

DOUBTFUL_RAW, DOUBTFUL_TEXT = 0, bytes(16)
"""Fingerprints of an entry whose point may or may not have been written; no source row has them."""


class LedgerError(PinfeatherError):
    """The ledger cannot be read."""


class ShardReplacedError(Exception):
    """A run beside this reader has folded: the files that were listed are gone."""


@dataclass(frozen=True)
class Summary:
    """Counts over entries."""

    rows: int = 0
    vectors: int = 0
    """With a text fingerprint."""
    doubtful: int = 0
    """With the text fingerprint of a doubt."""
    unmatched: int = 0
    """With a raw fingerprint that no row has: doubts, and vectors of an older text out of the log."""

    @classmethod
    def of(cls, entries: pa.Table) -> Summary:
        """Counts over ``entries``, which has ``raw`` and ``text_fp``."""
        text = entries["text_fp"]
        return cls(
            entries.num_rows,
            len(text) - text.null_count,
            pc.sum(pc.equal(text, pa.scalar(DOUBTFUL_TEXT, HASH))).as_py() or 0,
            pc.sum(pc.equal(entries["raw"], pa.scalar(DOUBTFUL_RAW, pa.uint64()))).as_py() or 0,
        )

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.rows + other.rows,
            self.vectors + other.vectors,
            self.doubtful + other.doubtful,
            self.unmatched + other.unmatched,
        )


@dataclass(frozen=True)
class Shard:
    """One file: every entry whose hash begins with the ``bits`` bits ``prefix``. Without entries there is no file."""

    bits: int
    prefix: int
    file: str
    counts: Summary

    def covers(self, bits: int, prefix: int) -> bool:
        """Whether it holds hashes that begin with ``prefix``."""
        common = min(bits, self.bits)
        return prefix >> (bits - common) == self.prefix >> (self.bits - common)


class Reader(Protocol):
    """Entries by bucket."""

    def part(self, bits: int, prefix: int, columns: Sequence[str]) -> pa.Table:
        """Columns of the entries whose hash begins with the ``bits`` bits ``prefix``, sorted by hash."""


class Entries(Protocol):
    """The entries of a space, wherever they are kept."""

    def read(self, work: Callable[[Reader], Result]) -> Result:
        """What ``work`` gives for a reader of one moment; it may be called again if that moment is gone."""


class ShardReader:
    """Shards and journal of one moment."""

    def __init__(
        self, folder: Path, shards: Sequence[Shard], journal: Partitions, still_live: Callable[[str], bool]
    ) -> None:
        self._folder, self.shards, self.journal, self._still_live = folder, shards, journal, still_live
        self._last: tuple[str, tuple[str, ...], pa.Table | None] = ("", (), None)

    def part(self, bits: int, prefix: int, columns: Sequence[str]) -> pa.Table:
        """Columns of the entries whose hash begins with the ``bits`` bits ``prefix``, sorted by hash.

        :raises LedgerError: if a shard cannot be read.
        :raises ShardReplacedError: if a shard is no longer the live one.
        """
        journal = self._journal(bits, prefix)
        names = ["hash", *(name for name in columns if name != "hash")]
        tables = [pa.Table.from_batches([], SCHEMA).select(names)]
        for shard in self.shards:
            if shard.covers(bits, prefix) and (table := self._read(shard, names)) is not None:
                tables.append(table if shard.bits >= bits else table.slice(*_within(table, bits, prefix)))
        if journal is None:
            return pa.concat_tables(tables).select(list(columns))
        gone = arrow(np.zeros(sum(table.num_rows for table in tables), bool))
        shards = pa.concat_tables(tables).append_column(REMOVED, gone)
        return last_of_each(pa.concat_tables([shards, journal.select([*names, REMOVED])])).select(list(columns))

    def pending(self, bits: int, prefix: int) -> int:
        """Journal rows whose hash begins with ``prefix``, or a bound on them."""
        if bits >= self.journal.bits:
            return int(self.journal.counts[prefix >> (bits - self.journal.bits)])
        more = self.journal.bits - bits
        return int(self.journal.counts[prefix << more : (prefix + 1) << more].sum())

    def lost(self, shard: Shard) -> bool:
        """Whether the shard's file is not there."""
        return bool(shard.file) and not (self._folder / shard.file).is_file()

    def summary(self) -> Summary:
        """Counts over all entries; a lost shard counts as empty."""
        if not self.journal.rows:
            return sum((shard.counts for shard in self.shards if not self.lost(shard)), Summary())
        bits, total = self.bits, Summary()
        for prefix in range(1 << bits):
            total += Summary.of(self.part(bits, prefix, ["raw", "text_fp"]))
        return total

    @property
    def bits(self) -> int:
        """Bits of buckets that are each of a reasonable size."""
        return max([self.journal.bits, *(shard.bits for shard in self.shards)])

    def _journal(self, bits: int, prefix: int) -> pa.Table | None:
        if not self.pending(bits, prefix):
            return None
        if bits <= self.journal.bits:
            more = self.journal.bits - bits
            tables = [self.journal.read(bucket) for bucket in range(prefix << more, (prefix + 1) << more)]
            return pa.concat_tables([table for table in tables if table is not None])
        table = self.journal.read(prefix >> (bits - self.journal.bits))
        if table is None:
            return None
        return table.filter(arrow(prefixes(halves(table["hash"])[0], bits) == prefix))

    def _read(self, shard: Shard, names: Sequence[str]) -> pa.Table | None:
        if not shard.file:
            return None
        key = (shard.file, tuple(names))
        if self._last[:2] != key:
            self._last = (*key, self._load(self._folder / shard.file, names))
        return self._last[2]

    def _load(self, path: Path, names: Sequence[str]) -> pa.Table | None:
        try:
            with pq.ParquetFile(path) as file:
                return file.read(columns=list(names)).select(names).combine_chunks()
        except FileNotFoundError:
            if not self._still_live(path.name):
                raise ShardReplacedError from None
            return None  # lost: reconciling makes that good
        except (pa.ArrowException, OSError) as error:
            raise LedgerError(
                f"The ledger shard {path} cannot be read ({error}). Restore it from a backup; or delete it and run "
                "`pinfeather materialize`, which compares store and source and writes what this shard was about again."
            ) from error


class TableEntries:
    """Entries that were read before, all of them."""

    def __init__(self, table: pa.Table) -> None:
        self._table, self._high = table, halves(table["hash"])[0]

    def read(self, work: Callable[[Reader], Result]) -> Result:
        """What ``work`` gives for them."""
        return work(self)

    def part(self, bits: int, prefix: int, columns: Sequence[str]) -> pa.Table:
        """Columns of the entries whose hash begins with the ``bits`` bits ``prefix``, sorted by hash."""
        place = span(self._high, bits, prefix)
        return self._table.slice(place.start, place.stop - place.start).select(list(columns))


def last_of_each(table: pa.Table) -> pa.Table:
    """The last row of each hash, sorted by hash, without those that the last row removes."""
    high, low = halves(table["hash"])
    places = np.arange(table.num_rows, dtype=np.uint64)
    order = sorting(high, low, places)
    high, low = high[order], low[order]
    last = np.append((high[1:] != high[:-1]) | (low[1:] != low[:-1]), True)[: len(order)]
    kept = table.take(arrow(order[last]))
    return kept.filter(pc.invert(kept[REMOVED])).drop_columns([REMOVED])


def _within(table: pa.Table, bits: int, prefix: int) -> tuple[int, int]:
    place = span(halves(table["hash"])[0], bits, prefix)
    return place.start, place.stop - place.start
