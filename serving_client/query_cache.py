"""Query vectors kept in memory: least recently used by bytes, and one computation per query across threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError

Vector = NDArray[np.float32]
Key = tuple[str, str]
"""(fingerprint of the query tower, canonical query): a vector is never found under another model."""

ENTRY_OVERHEAD = 400
"""Bytes that an entry costs besides its text and its numbers: array, text and tuple objects, slot in the table."""


@dataclass(frozen=True)
class CacheStats:
    """Counts since the cache was made, each distinct query of a call counted once, and what it holds now."""

    hits: int = 0
    misses: int = 0
    """Queries that had to be encoded."""
    shared: int = 0
    """Queries that another thread was just encoding."""
    evictions: int = 0
    entries: int = 0
    bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the queries that cost no encoding; 0 before the first."""
        return (self.hits + self.shared) / max(self.hits + self.shared + self.misses, 1)


class QueryCache:
    """Vectors by (query-tower fingerprint, canonical query). Threads may share it.

    :param max_bytes: what the entries may take together, texts and overhead counted; 0 keeps nothing.
    :raises UsageError: for a negative size.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise UsageError(f"The query cache cannot have {max_bytes} bytes: give 0 to switch it off, or more.")
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Vector] = OrderedDict()
        self._in_flight: dict[Key, Future[Vector]] = {}
        self._bytes = 0
        self._hits = self._misses = self._shared = self._evictions = 0

    def vectors(
        self, fingerprint: str, queries: Sequence[str], encode: Callable[[list[str]], NDArray[np.float32]]
    ) -> dict[str, Vector]:
        """The vector of each distinct query, read-only.

        ``encode`` is called at most once, with the queries that are neither kept nor being encoded by another thread;
        it returns one row each. If it fails, everybody who waits for its result gets the error, and nothing is kept.
        """
        found: dict[str, Vector] = {}
        mine: dict[str, Future[Vector]] = {}
        others: dict[str, Future[Vector]] = {}
        with self._lock:
            for query in dict.fromkeys(queries):
                self._look_up((fingerprint, query), found, mine, others)
        if mine:  # before waiting for others: nobody waits for somebody who waits
            found.update(self._encode(fingerprint, mine, encode))
        for query, future in others.items():
            found[query] = future.result()
        return found

    def _look_up(
        self,
        key: Key,
        found: dict[str, Vector],
        mine: dict[str, Future[Vector]],
        others: dict[str, Future[Vector]],
    ) -> None:
        query = key[1]
        if key in self._entries:
            self._entries.move_to_end(key)
            found[query] = self._entries[key]
            self._hits += 1
        elif key in self._in_flight:
            others[query] = self._in_flight[key]
            self._shared += 1
        else:
            mine[query] = self._in_flight[key] = Future()
            self._misses += 1

    def _encode(
        self, fingerprint: str, mine: dict[str, Future[Vector]], encode: Callable[[list[str]], NDArray[np.float32]]
    ) -> dict[str, Vector]:
        try:
            rows = np.asarray(encode(list(mine)), dtype=np.float32)
            vectors = {query: _own(row) for query, row in zip(mine, rows, strict=True)}
        except BaseException as error:
            with self._lock:
                for query in mine:
                    self._in_flight.pop((fingerprint, query), None)
            for future in mine.values():
                future.set_exception(error)
            raise
        with self._lock:
            for query, vector in vectors.items():
                self._in_flight.pop((fingerprint, query), None)
                self._keep((fingerprint, query), vector)
        for query, future in mine.items():
            future.set_result(vectors[query])
        return vectors

    def _keep(self, key: Key, vector: Vector) -> None:
        size = entry_bytes(key[1], vector)
        if size > self.max_bytes:
            return
        if key not in self._entries:  # else it was computed twice around keep_only
            self._bytes += size
        self._entries[key] = vector
        self._entries.move_to_end(key)
        while self._bytes > self.max_bytes:
            (_, query), oldest = self._entries.popitem(last=False)
            self._bytes -= entry_bytes(query, oldest)
            self._evictions += 1

    def keep_only(self, fingerprints: Collection[str]) -> None:
        """Let go of every entry of another query tower."""
        with self._lock:
            for key in [key for key in self._entries if key[0] not in fingerprints]:
                self._bytes -= entry_bytes(key[1], self._entries.pop(key))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    @property
    def stats(self) -> CacheStats:
        """Counts and size, of one moment."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._shared, self._evictions, len(self._entries), self._bytes)


def entry_bytes(query: str, vector: Vector) -> int:
    """What an entry counts for: its numbers, its text in UTF-8, and :data:`ENTRY_OVERHEAD`."""
    return vector.nbytes + len(query.encode("utf-8", "surrogatepass")) + ENTRY_OVERHEAD


def _own(row: Vector) -> Vector:
    """A copy, so that an entry does not keep its whole batch in memory; read-only, as callers share it."""
    vector = row.copy()
    vector.flags.writeable = False
    return vector
