"""What differs between sources and ledger, bucket by bucket; and the rows behind it, fetched in a second pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from materialize.hashes import HASH, SIGN, Words, arrow, find, halves, numbers_of, sorting, span, whole
from materialize.shards import Reader
from materialize.sources import Session, Source, quote
from materialize.spill import Partitions

BATCH_ROWS = 4096
_UHUGEINT = pa.opaque(HASH, "uhugeint", "DuckDB")
_WANTED_ROWS = 1 << 18
_TABLE_ROWS = 1 << 15
"""Keys at most whose rows go through a table in DuckDB, which holds them whole: some 100 MB of usual texts."""
_Bucket = tuple[Words, Words, Words]
_OLD = ["text_fp", "payload_fp", "event_timestamp"]


@dataclass
class Differences:
    """How the keys of a source compare with the entries of a ledger."""

    changed: Partitions
    """Keys that are new or whose raw fingerprint differs: ``hash``, ``raw``, ``known``, and what the ledger has of
    them: ``text_fp, payload_fp, event_timestamp``."""
    rows: int = 0
    known: int = 0
    unchanged: int = 0
    still_empty: int = 0
    """Of the unchanged, those without a text fingerprint."""
    gone: list[tuple[str, bool, Any]] = field(default_factory=list)
    """Entries that no row stands behind: key, whether there was a text fingerprint, event time (None: not known)."""


def hashes_of(keys: Partitions, bucket: int | None = None) -> list[pa.Array]:
    """The hashes of ``keys``, or of one bucket of them."""
    parts = [keys.read(each) for each in (range(1 << keys.bits) if bucket is None else [bucket])]
    return [chunk for part in parts if part is not None for chunk in part["hash"].chunks]


@dataclass(frozen=True)
class Compared:
    """What a session found of a view, for those who ask again."""

    mark: str
    """Of the ledger's entries that the rows were compared with."""
    equal: frozenset[str]
    """Contents of files that were found earlier to hold these entries' rows."""
    found: Differences


def compare(reader: Reader, current: Callable[[int], _Bucket], changed: Partitions, *, trust_raw: bool) -> Differences:
    """Compare ``current``, which gives hashes and raw fingerprints of a bucket, with the entries of ``reader``.

    :param changed: filled with what differs; its bits are those of the buckets.
    :param trust_raw: False takes every row for changed.
    """
    changed.clear()
    found = Differences(changed)
    for bucket, (high, low, raw) in enumerate(_one_ahead(current, 1 << changed.bits)):
        part = reader.part(changed.bits, bucket, ["hash", "raw", "text_fp"])
        old_high, old_low = halves(part["hash"])
        places = find(high, low, old_high, old_low)
        there = places >= 0
        same = (
            there & (np.take(numbers_of(part["raw"]), places) == raw)
            if trust_raw and len(part)
            else np.zeros_like(there)
        )
        found.rows += len(high)
        found.known += len(old_high)
        found.unchanged += int(same.sum())
        if part["text_fp"].null_count:
            found.still_empty += part["text_fp"].take(arrow(places[same])).null_count
        left = len(old_high) - int(there.sum())
        if left:
            mask = np.ones(len(old_high), bool)
            mask[places[there]] = False
            whom = reader.part(changed.bits, bucket, ["key", "text_fp", "event_timestamp"]).filter(arrow(mask))
            rows = (column.to_pylist() for column in (whom["key"], whom["text_fp"].is_valid(), whom["event_timestamp"]))
            found.gone += zip(*rows, strict=True)
        differ = np.flatnonzero(~same)
        if len(differ):
            old = reader.part(changed.bits, bucket, _OLD).take(_places(places[differ]))
            keys = {
                "hash": whole(high[differ], low[differ]),
                "raw": arrow(raw[differ]),
                "known": arrow(there[differ]),
            }
            changed.add(pa.table({**keys, **{name: old[name] for name in _OLD}}), high[differ])
    found.gone.sort(key=lambda each: each[0])
    return found


class OnlyThese:
    """The entries of some keys, by bucket."""

    def __init__(self, reader: Reader, high: Words, low: Words, but: tuple[Words, Words]) -> None:
        """Of the keys with these sorted hashes; ``but`` are not counted in :attr:`empty`."""
        self._reader, self._high, self._low, self._but = reader, high, low, but
        self.empty: dict[int, int] = {}
        """Bucket to its entries without a text."""

    def part(self, bits: int, prefix: int, columns: Sequence[str]) -> pa.Table:
        """Columns of those whose hash begins with the ``bits`` bits ``prefix``, sorted by hash."""
        table = self._reader.part(bits, prefix, ["hash", *(name for name in columns if name != "hash")])
        here = span(self._high, bits, prefix)
        places = find(self._high[here], self._low[here], *halves(table["hash"]))
        table = table.take(arrow(places[places >= 0]))
        if "text_fp" in columns:
            counted = find(*halves(table["hash"]), *self._but) < 0
            self.empty[prefix] = table["text_fp"].filter(arrow(counted)).null_count
        return table.select(list(columns))


class Wanted:
    """The keys that changed, as a table in DuckDB that a second pass over the sources is joined with."""

    def __init__(self, session: Session, changed: Partitions) -> None:
        self._session, self._changed = session, changed
        self._by: str | None = None

    def __enter__(self) -> Wanted:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.execute(
            "DROP TABLE IF EXISTS wanted; DROP TABLE IF EXISTS wanted_names; DROP TABLE IF EXISTS wanted_rows"
        )

    def _by_hash(self) -> str:
        """Puts all keys into a table; a first run, whose keys are all that there are, seldom asks for it."""
        self._session.execute("CREATE OR REPLACE TEMP TABLE wanted (hash UHUGEINT)")
        held: list[pa.Array] = []
        for bucket in range(1 << self._changed.bits):
            held += hashes_of(self._changed, bucket)
            if held and (sum(map(len, held)) > _WANTED_ROWS or bucket + 1 == 1 << self._changed.bits):
                storage = pa.concat_arrays(held)
                keys = pa.table({"hash": pa.ExtensionArray.from_storage(_UHUGEINT, storage)})
                self._session.register("wanted_keys", keys)
                self._session.execute("INSERT INTO wanted SELECT hash FROM wanted_keys")
                self._session.unregister("wanted_keys")
                held = []
        return "md5_number({key}) IN (SELECT hash FROM wanted)"

    def by_name(self, rows: Partitions) -> None:
        """From now on look for the keys of ``rows`` alone, by name: no other one needs to be hashed for that."""
        self._session.execute("CREATE OR REPLACE TEMP TABLE wanted_names (key VARCHAR)")
        for bucket in range(1 << rows.bits):
            if (part := rows.read(bucket)) is not None:
                self._session.register("wanted_keys", part.select(["key"]))
                self._session.execute("INSERT INTO wanted_names SELECT key FROM wanted_keys")
                self._session.unregister("wanted_keys")
        self._by = "{key} IN (SELECT key FROM wanted_names)"

    def rows(
        self, source: Source, total: int | None, columns: Sequence[str], parts: Sequence[str], folder: Path
    ) -> Partitions:
        """The rows of the changed keys by bucket: ``hash``, ``key``, features ``columns`` and hashed ``parts``.

        :param total: rows of the source, None where they are many times the changed keys.
        """
        hashed = source.hashed_columns
        features = [quote(source.view.columns[name]) for name in columns]
        # Where most keys changed, the join would cost more than the rows that it keeps out.
        few = total is None or self._changed.rows * 2 < total
        only = ""
        if few:
            self._by = self._by or self._by_hash()
            only = f" AND {self._by.format(key=source.key)}"
        selected = [f"md5_number({source.key})", source.key, *features, *(hashed[part] for part in parts)]
        values = ", ".join(f"{each} AS c{place}" for place, each in enumerate(selected))
        query = f"SELECT {values} {source.every}{only}"
        if few and self._changed.rows <= _TABLE_ROWS:
            # DuckDB streams a result mostly from one thread, and fills a table with all that it may use.
            self._session.execute(f"CREATE OR REPLACE TEMP TABLE wanted_rows AS {query}")
            query = "FROM wanted_rows"
        reader = self._session.execute(query).fetch_record_batch(BATCH_ROWS * 4)
        names = ["hash", "key", *(f"feature {name}" for name in columns), *parts]
        found = Partitions(folder, self._changed.bits)
        for batch in reader:
            arrays = [batch.column(0).storage, *batch.columns[1:]]
            found.add(pa.table(arrays, names=names), halves(arrays[0])[0])
        self._session.execute("DROP TABLE IF EXISTS wanted_rows")
        return found


def _one_ahead(read: Callable[[int], _Bucket], buckets: int) -> Iterator[_Bucket]:
    """What ``read`` gives for each bucket; a thread sorts the next one meanwhile."""
    if buckets == 1:
        yield read(0)
        return
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(read, 0)
        for bucket in range(1, buckets):
            here = coming.result()
            coming = worker.submit(read, bucket)
            yield here
        yield coming.result()


@dataclass(frozen=True)
class Fetched:
    """Rows of a bucket beside the keys that were wanted of it."""

    table: pa.Table
    places: npt.NDArray[np.int64]
    """Place in ``table`` of the latest row of each wanted key, -1 where there is none."""

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """Which of the wanted keys have a row."""
        return self.places >= 0

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """A hashed part of the keys that have a row."""
        return np.take(self.table[name].to_numpy(), self.places[self.there])

    def column(self, name: str) -> pa.ChunkedArray:
        """A column for every wanted key, null where it has no row."""
        return self.table[name].take(_places(self.places))


def fetched(rows: Partitions, bucket: int, high: Words, low: Words, parts: Sequence[str]) -> Fetched | None:
    """The latest rows of keys of ``bucket``; None where it has no row at all."""
    table = rows.read(bucket)
    if table is None:
        return None
    all_high, all_low = halves(table["hash"])
    order = sorting(all_high, all_low, *(_sortable(table[part]) for part in parts))
    all_high, all_low = all_high[order], all_low[order]
    last = np.append((all_high[1:] != all_high[:-1]) | (all_low[1:] != all_low[:-1]), True)
    order = order[last]
    places = find(high, low, all_high[last], all_low[last])
    return Fetched(table, np.where(places >= 0, np.take(order, places), -1))


def in_batches(tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """The rows of ``tables`` in batches of :data:`BATCH_ROWS`, the last one smaller."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(each.num_rows for each in held) >= BATCH_ROWS:
            joined = pa.concat_tables(held, promote_options="default").combine_chunks()
            full = joined.num_rows - joined.num_rows % BATCH_ROWS
            yield from joined.slice(0, full).to_batches(BATCH_ROWS)
            held = [joined.slice(full)]
    if held:
        yield from pa.concat_tables(held, promote_options="default").combine_chunks().to_batches(BATCH_ROWS)


def timestamps(micros: npt.NDArray[np.int64]) -> pa.Array:
    """Microseconds since 1970 as timestamps in UTC."""
    return pa.array(micros).cast(pa.timestamp("us", tz="UTC"))


def _sortable(column: pa.ChunkedArray) -> Words:
    values = column.to_numpy()
    return values if values.dtype == np.uint64 else values.view(np.uint64) ^ SIGN


def _places(places: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(places, pa.int64(), mask=places < 0)
