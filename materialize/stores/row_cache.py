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
from typing import Any, Final

from .payload import Selection, select
from .points import FloatVector, Point

_ROW_BYTES = 380
"""A row's share of the cache's own objects: key, entry, links."""
_ABSENT_BYTES = 160
_ARRAY_BYTES = 180
_PAYLOAD: Final = 1
_SIZE: Final = 2
_HAS_VECTORS: Final = 3
_VECTORS: Final = 4
"""Places in a row."""

CachedRow = tuple[Any, ...]
"""A whole row: its id; its marshalled payload, None where there is no point; estimated bytes in memory; whether its
vectors were read; of each of these its name and its array.

One flat tuple of texts, bytes, numbers and arrays: the garbage collector lets go of it at its next pass, so that a full
collection, which stops every thread, has nothing to do with it. A dict or a tuple in it would undo that. Marshalling is
exact for all that JSON has.
"""
ABSENT: CachedRow = "", None, _ABSENT_BYTES, True
"""Where there is no point."""
StoredRow = CachedRow | Point | None
"""What a store has of a row: as it is kept, or as it was read."""


def cached_row(
    point_id: str, payload: dict[str, Any], vectors: Mapping[str, FloatVector], with_vectors: bool
) -> CachedRow:
    """A row as it was read whole, its vectors too or not."""
    marshalled = marshal.dumps(payload)
    size = _ROW_BYTES + len(marshalled)
    flat: list[str | FloatVector] = []
    for name, vector in vectors.items():
        size += _ARRAY_BYTES + vector.nbytes
        flat += [name, vector]
    return point_id, marshalled, size, with_vectors, *flat


def parts_of(row: StoredRow, name: str) -> tuple[dict[str, Any], FloatVector | None]:
    """The payload of a row and one of its vectors, as :func:`point_of` gives them; ({}, None) where there is none."""
    if row is None:
        return {}, None
    if isinstance(row, Point):
        return row.payload, row.vectors.get(name)
    if row[_PAYLOAD] is None:
        return {}, None
    vector = None
    for place in range(_VECTORS, len(row), 2):
        if row[place] == name:
            vector = row[place + 1]
    return marshal.loads(row[_PAYLOAD]), vector


def point_of(row: StoredRow, parts: Selection | None = None, with_vectors: bool = True) -> Point | None:
    """What a read gives of a row, None where there is no point; arrays are shared with other reads.

    :param parts: what the read wants of the payload, None for all.
    """
    if row is None or isinstance(row, Point):
        return row
    marshalled = row[_PAYLOAD]
    if marshalled is None:
        return None
    payload = {} if parts == {} else marshal.loads(marshalled)
    vectors = {row[place]: row[place + 1] for place in range(_VECTORS, len(row), 2)} if with_vectors else {}
    return Point(row[0], select(payload, parts) if parts else payload, vectors)


class RowCache:
    """Rows of all collections of one reader, at most about ``max_bytes`` of them, the least recently used out first.

    May be used by several threads at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._left = max_bytes
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, CachedRow] = OrderedDict()
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
                key = f"{number} {point_id}"
                row = rows.get(key)
                if row is not None and (row[_HAS_VECTORS] or not with_vectors):
                    rows.move_to_end(key)
                    found[point_id] = row
        return found

    def keep(self, number: int, fresh: Mapping[str, CachedRow]) -> None:
        """Keep rows, and let the least recently used go; see :meth:`CollectionRows.keep`."""
        with self._lock:
            self._sweep()
            for point_id, row in fresh.items():
                key = f"{number} {point_id}"
                former = self._rows.pop(key, None)
                if former is not None:
                    self._bytes -= former[_SIZE]
                self._rows[key] = row
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
            start = f"{self._gone.popleft()} "
            for key in [key for key in self._rows if key.startswith(start)]:
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
