"""Rows that a reader has decoded already: a publication never changes, so they stay right until it is let go."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from sys import getsizeof, intern
from typing import Any

from .payload import Selection, select, selection
from .points import FloatVector, Point

_ROW_BYTES = 900
"""A row's share of the cache's own objects: key, entry, links, and the point that was last made of it."""
_ARRAY_BYTES = 300
_NUMBER_BYTES = 32


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a read wants of rows; equal wishes are one object while they are in use."""

    parts: Selection | None
    """None: the whole payload."""
    with_vectors: bool

    @classmethod
    def of(cls, with_payload: bool | Sequence[str], with_vectors: bool) -> Look:
        """The wish of a read.

        :raises BadInputError: if one of the fields is no path.
        """
        if isinstance(with_payload, bool):
            return _WHOLE[with_vectors] if with_payload else _NOTHING[with_vectors]
        selection(with_payload)  # refuses what tuple() would take
        return _look(tuple(with_payload), with_vectors)

    def at(self, row: CachedRow) -> Point:
        """What the read gives of a row that is there; shares its objects."""
        assert row.payload is not None
        payload = row.payload if self.parts is None else select(row.payload, self.parts)
        return Point(row.id, payload, row.vectors if self.with_vectors and row.vectors else {})


_WHOLE = (Look(None, False), Look(None, True))
_NOTHING = (Look({}, False), Look({}, True))


@lru_cache(maxsize=256)
def _look(paths: tuple[str, ...], with_vectors: bool) -> Look:
    return Look(selection(paths), with_vectors)


@dataclass(slots=True)
class CachedRow:
    """A whole row; ``payload`` is None where there is no point, ``vectors`` where they were never read."""

    id: str
    payload: dict[str, Any] | None
    vectors: dict[str, FloatVector] | None
    size: int
    """Estimated bytes in memory."""
    shown: tuple[Look | None, Point | None] = field(default=(None, None), compare=False)
    """The point that was last made of it, for the next read with the same wish."""

    @classmethod
    def of(cls, point: Point | None, with_vectors: bool) -> CachedRow:
        """A row as it was read whole, its vectors too or not."""
        if point is None:
            return cls("", None, {}, _ROW_BYTES)
        payload, size = _compact(point.payload)
        for vector in point.vectors.values():
            size += _ARRAY_BYTES + vector.nbytes
        return cls(point.id, payload, point.vectors if with_vectors else None, _ROW_BYTES + size)

    def point(self, look: Look) -> Point | None:
        """What a read gives of it, None where there is no point; may be shared with other reads."""
        if self.payload is None:
            return None
        wish, point = self.shown  # one assignment, so other threads see either pair
        if wish is not look:
            point = look.at(self)
            self.shown = (look, point)
        return point


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
            self._shrink()

    def leave(self, bytes_: int) -> None:
        """Leave so many of the bytes to somebody else from now on."""
        with self._lock:
            self._left = self.max_bytes - bytes_
            self._shrink()

    def _shrink(self) -> None:
        while self._rows and self._bytes > self._left:
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
        if kind is str:
            total += getsizeof(value)
        elif kind is dict:
            value, size = _compact(value)
            total += size
        elif kind is list:
            total += _bytes_of_list(value)
        else:
            total += _NUMBER_BYTES
        copy[intern(key)] = value
    return copy, total + getsizeof(copy)


def _bytes_of_list(values: list[Any]) -> int:
    total = getsizeof(values)
    for value in values:
        kind = type(value)
        total += _bytes_of_list(value) if kind is list else _compact(value)[1] if kind is dict else getsizeof(value)
    return total
