"""Rows that a reader has read already: a publication never changes, so they stay right until it is let go.

A row is kept as one byte string and its arrays. As objects it would take ten times the room, and the garbage collector
would walk through all of them.
"""

from __future__ import annotations

import marshal
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

from .payload import Selection, select
from .points import FloatVector, Point

_ROW_BYTES = 500
"""A row's share of the cache's own objects: key, entry, links."""
_ARRAY_BYTES = 300
_VECTORS: Final = 2
_SIZE: Final = 3
"""Places in a row."""

CachedRow = tuple[str, bytes | None, tuple[tuple[str, FloatVector], ...] | None, int]
"""A whole row: its id; its marshalled payload, None where there is no point; its vectors, None where they were never
read; estimated bytes in memory.

Plain tuples of texts, bytes, numbers and arrays: the garbage collector lets go of them after a few passes, so that a
full collection, which stops every thread, takes a third of the time for them, about 0.1 µs a row. A dict in it, or a
class, would undo that. Marshalling is exact for all that JSON has.
"""


def cached_row(point: Point | None, with_vectors: bool) -> CachedRow:
    """A row as it was read whole, its vectors too or not."""
    if point is None:
        return "", None, (), _ROW_BYTES
    payload = marshal.dumps(point.payload)
    size = _ROW_BYTES + len(payload)
    for vector in point.vectors.values():
        size += _ARRAY_BYTES + vector.nbytes
    return point.id, payload, tuple(point.vectors.items()) if with_vectors else None, size


def point_of(row: CachedRow, parts: Selection | None, with_vectors: bool) -> Point | None:
    """What a read gives of a row, None where there is no point; arrays are shared with other reads.

    :param parts: what the read wants of the payload, None for all.
    """
    point_id, marshalled, kept, _ = row
    if marshalled is None:
        return None
    payload = {} if parts == {} else marshal.loads(marshalled)
    vectors = dict(kept) if with_vectors and kept else {}
    return Point(point_id, select(payload, parts) if parts else payload, vectors)


class RowCache:
    """Rows of all collections of one reader, at most about ``max_bytes`` of them, the least recently used out first.

    May be used by several threads at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._left = max_bytes
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
                if row is not None and not (with_vectors and row[_VECTORS] is None):
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
                    self._bytes -= former[_SIZE]
                self._rows[number, point_id] = row
                self._bytes += row[_SIZE]
            self._shrink()

    def leave(self, bytes_: int) -> None:
        """Leave so many of the bytes to somebody else from now on."""
        with self._lock:
            self._left = self.max_bytes - bytes_
            self._shrink()

    def _shrink(self) -> None:
        while self._rows and self._bytes > self._left:
            self._bytes -= self._rows.popitem(last=False)[1][_SIZE]

    def _sweep(self) -> None:
        """Drop the rows of collections that are gone."""
        while self._gone:
            number = self._gone.popleft()
            for key in [key for key in self._rows if key[0] == number]:
                self._bytes -= self._rows.pop(key)[_SIZE]


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
