"""Rows that a reader has decoded already: a publication never changes, so they stay right until it is let go."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from .payload import Selection, select
from .points import FloatVector, Point

_ROW_BYTES = 450
"""A row's share of the cache's own objects: key, entry, links."""
_ARRAY_BYTES = 300
_NUMBER_BYTES = 32


@dataclass(frozen=True, slots=True)
class CachedRow:
    """A whole row; ``payload`` is None where there is no point, ``vectors`` where they were never read."""

    id: str
    payload: dict[str, Any] | None
    vectors: dict[str, FloatVector] | None
    size: int
    """Estimated bytes in memory."""

    @classmethod
    def of(cls, point: Point | None, with_vectors: bool) -> CachedRow:
        """A row as it was read whole, its vectors too or not."""
        if point is None:
            return cls("", None, {}, _ROW_BYTES)
        payload, size = _compact(point.payload)
        arrays = sum(_ARRAY_BYTES + vector.nbytes for vector in point.vectors.values())
        return cls(point.id, payload, point.vectors if with_vectors else None, _ROW_BYTES + size + arrays)

    def point(self, whole: bool, parts: Selection | None, with_vectors: bool) -> Point:
        """What a read of ``parts`` (None: all if ``whole``, else nothing) gives; shares its objects."""
        assert self.payload is not None
        payload = select(self.payload, parts) if parts is not None else self.payload if whole else {}
        return Point(self.id, payload, self.vectors if with_vectors and self.vectors else {})


class RowCache:
    """Rows of all collections of one reader, at most about ``max_bytes`` of them, the least recently used out first.

    May be used by several threads at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._rows: OrderedDict[tuple[int, str], CachedRow] = OrderedDict()
        self._bytes = 0
        self._numbers = count()
        self._gone: deque[int] = deque()

    @property
    def bytes(self) -> int:
        """Estimated bytes of what is kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._rows)

    def rows_of(self, collection: object) -> CollectionRows:
        """The rows of one collection; forgotten when ``collection`` is."""
        number = next(self._numbers)
        # Only noted: this may run in the middle of anything, also of our own methods.
        weakref.finalize(collection, self._gone.append, number).atexit = False
        return CollectionRows(self, number)

    def find(self, number: int, ids: Sequence[str], with_vectors: bool) -> dict[str, CachedRow]:
        """The rows that are kept, by id; see :meth:`CollectionRows.find`."""
        found = {}
        rows = self._rows
        with self._lock:
            self._sweep()
            for point_id in ids:
                key = (number, point_id)
                row = rows.get(key)
                if row is not None and not (with_vectors and row.vectors is None):
                    rows.move_to_end(key)
                    found[point_id] = row
        return found

    def keep(self, number: int, fresh: Mapping[str, CachedRow]) -> None:
        """Keep rows, and let the least recently used go; see :meth:`CollectionRows.keep`."""
        with self._lock:
            self._sweep()
            for point_id, row in fresh.items():
                former = self._rows.pop((number, point_id), None)
                if former is not None:
                    self._bytes -= former.size
                self._rows[number, point_id] = row
                self._bytes += row.size
            while self._bytes > self.max_bytes:
                self._bytes -= self._rows.popitem(last=False)[1].size

    def _sweep(self) -> None:
        """Drop the rows of collections that are gone."""
        while self._gone:
            number = self._gone.popleft()
            for key in [key for key in self._rows if key[0] == number]:
                self._bytes -= self._rows.pop(key).size


class CollectionRows:
    """One collection's part of a :class:`RowCache`."""

    def __init__(self, cache: RowCache, number: int) -> None:
        self._cache = cache
        self._number = number

    def find(self, ids: Sequence[str], with_vectors: bool) -> dict[str, CachedRow]:
        """The rows that are kept, by id as it was given; those without vectors only where none are asked for."""
        return self._cache.find(self._number, ids, with_vectors)

    def keep(self, fresh: Mapping[str, CachedRow]) -> None:
        """Keep rows by the id that they were asked for."""
        self._cache.keep(self._number, fresh)


def _compact(payload: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """An equal dict whose keys are shared with other rows, and about how many bytes it takes."""
    copy = {}
    total = 0
    for key, value in payload.items():
        kind = type(value)
        if kind is dict:
            value, size = _compact(value)
            total += size
        elif kind is str or kind is list:
            total += _bytes_of(value)
        else:
            total += _NUMBER_BYTES
        copy[sys.intern(key)] = value
    return copy, total + sys.getsizeof(copy)


def _bytes_of(value: Any) -> int:
    if type(value) is list:
        return sys.getsizeof(value) + sum(map(_bytes_of, value))
    return _compact(value)[1] if type(value) is dict else sys.getsizeof(value)
