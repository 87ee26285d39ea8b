"""Points as arrays that a reader keeps: what a request for hundreds of pins reads, without an object for each pin.

A publication never changes, so what was read stays right until it is let go; see :mod:`.row_cache`, which keeps whole
rows likewise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from sys import getsizeof
from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from .layout import point_ids, stack_vectors
from .points import DEFAULT_VECTOR, Point
from .port import PayloadFields, VectorStore

Arrays = dict[str, npt.NDArray[Any]]
"""Name to an array with one entry, or one line, for each point."""
GetMany = Callable[[list[str], PayloadFields, bool], list[Point | None]]

_ROW_BYTES = 170
"""What a row costs besides its numbers and its key: entries of a dict and of three lists."""
_SLICES = 32
"""So many parts make the whole; one of them goes at once, so that not every request has to look for the oldest."""
_FEWEST = 256
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Kind:
    """One way of reading points of a collection, by keys, as arrays."""

    name: str
    """What is kept under one name was read in one way."""
    ids: Callable[[Sequence[str]], list[str]]
    """Keys to point ids."""
    payload: PayloadFields
    with_vectors: bool
    arrays: Callable[[Sequence[Point | None]], Arrays]
    """Points to arrays; of any points the same names and types. What arrays of objects hold is shared with all who read
    it, so it is not to be changed."""

    def read(self, points: GetMany, keys: Sequence[str]) -> Arrays:
        """The arrays of ``keys`` through a function such as a collection's ``get_many``."""
        return self.arrays(points(self.ids(keys), self.payload, self.with_vectors))


@lru_cache(maxsize=256)
def vector_kind(project: str, view: str, join_key: str, size: int) -> Kind:
    """``vector`` float32 [n, size], NaN where there is none, and ``event_ts`` datetime64[us] [n], else NaT."""
    return Kind(
        f"vectors of {project} {view} {join_key}",
        lambda keys: point_ids(project, view, join_key, keys),
        ("event_ts",),
        True,
        lambda points: {DEFAULT_VECTOR: stack_vectors(points, size), "event_ts": event_times(points)},
    )


def event_times(points: Sequence[Point | None]) -> npt.NDArray[np.datetime64]:
    """The event timestamps of points, datetime64[us] [n]; NaT where there is no point, or it has none."""
    micros = [None if point is None else point.payload.get("event_ts") for point in points]
    return np.array(["NaT" if each is None else each for each in micros], dtype="datetime64[us]")


def read_columns(view: VectorStore, name: str, kind: Kind, keys: Sequence[str]) -> Arrays:
    """The arrays of ``keys``, duplicates included; from what the view keeps, where it is one that does."""
    keeping = getattr(view, "columns", None)
    if keeping is not None:
        found: Arrays = keeping(name, kind, keys)
        return found
    return kind.read(lambda ids, payload, vectors: view.get_many(name, ids, payload, vectors), keys)


class ColumnCache:
    """Arrays of all collections of one reader, at most about ``max_bytes`` of them, the least recently used out first.

    :param grown: called with the bytes that are kept now, when that has changed.
    """

    def __init__(self, max_bytes: int, grown: Callable[[int], None] | None = None) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.Lock()
        self._grown = grown
        self._members: WeakSet[Columns] = WeakSet()
        self._now = 0

    @property
    def bytes(self) -> int:
        """Estimated bytes of what is kept."""
        return sum(columns.bytes for columns in self._members)

    def columns(self) -> Columns:
        """Room for one kind of arrays of one collection; forgotten when nobody refers to it any more."""
        columns = Columns(self)
        with self.lock:
            self._members.add(columns)
        return columns

    def tick(self) -> int:
        """The time, in requests; the caller holds :attr:`lock`."""
        self._now += 1
        return self._now

    def shrink(self) -> None:
        """Let the least recently used go until the rest fits; the caller holds :attr:`lock`."""
        while (excess := self.bytes - self.max_bytes) > 0:
            oldest = min((each for each in self._members if len(each)), key=Columns.oldest)
            oldest.drop(max(excess, self.max_bytes // _SLICES))
        if self._grown is not None:
            self._grown(self.bytes)


class Columns:
    """Arrays of one kind, of some keys of one collection. Threads may share it."""

    def __init__(self, cache: ColumnCache) -> None:
        self._cache = cache
        self._rows: dict[str, int] = {}
        self._arrays: Arrays = {}
        self._keys = np.empty(0, dtype=object)
        self._sizes = np.zeros(0, dtype=np.int64)
        self._used = np.zeros(0, dtype=np.int64)
        """When each row was last asked for; 0 for one that is free."""
        self._free: list[int] = []
        self._expected = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, keys: Sequence[str], load: Callable[[list[str]], Arrays]) -> Arrays:
        """The arrays of ``keys`` in their order, the caller's own; ``load`` gives those of distinct missing keys."""
        with self._cache.lock:
            find = self._rows.get
            rows = np.array([find(key, -1) for key in keys], dtype=np.int64)
            absent = np.flatnonzero(rows < 0)
            kept = {name: _taken(array, rows) for name, array in self._arrays.items()} if self._rows else {}
            self._used[rows[rows >= 0] if len(absent) else rows] = self._cache.tick()
        if kept and not len(absent):
            return kept
        lacking = [keys[row] for row in absent.tolist()]
        missing = {key: number for number, key in enumerate(dict.fromkeys(lacking))}
        fresh = load(list(missing))
        with self._cache.lock:
            self._keep(list(missing), fresh, self._cache.tick(), self._cache.max_bytes)
        places = np.array([missing[key] for key in lacking], dtype=np.int64)
        if len(absent) == len(keys):
            return {name: array[places] for name, array in fresh.items()}
        for name, array in kept.items():
            array[absent] = fresh[name][places]
        return kept

    def fill(self, keys: Sequence[str], load: Callable[[list[str]], Arrays], max_bytes: int) -> bool:
        """Keep rows that nobody has asked for yet, as the first ones to go again; whether all of them are kept.

        They push out no others, and are kept only as long as the whole cache has no more than ``max_bytes``.
        """
        with self._cache.lock:
            lacking = list(dict.fromkeys(key for key in keys if key not in self._rows))
            most = min(max_bytes, self._cache.max_bytes)
            full = self._cache.bytes >= most
        if not lacking or full:
            return not lacking
        fresh = load(lacking)
        with self._cache.lock:
            self._keep(lacking, fresh, 1, most - self._cache.bytes)
            return all(key in self._rows for key in lacking)

    def expect(self, count: int) -> None:
        """Make room for ``count`` rows at once while it costs nothing; else it grows by steps, which hold up readers.

        Room that nobody writes to takes no memory.
        """
        with self._cache.lock:
            self._expected = count

    def keys(self) -> list[str]:
        """The keys of what is kept, those that were asked for last first."""
        with self._cache.lock:
            rows = np.flatnonzero(self._used)
            kept: list[str] = self._keys[rows[np.argsort(-self._used[rows], kind="stable")]].tolist()
        return kept

    def oldest(self) -> int:
        """When the row was asked for that nobody has asked for since longest."""
        return int(self._used[self._used > 0].min())

    def drop(self, size: int) -> None:
        """Let about ``size`` bytes of the least recently used rows go, one row at least."""
        rows = np.flatnonzero(self._used)
        count = min(len(rows), max(1, -(-size * len(rows) // max(self.bytes, 1))))
        if count < len(rows):
            rows = rows[np.argpartition(self._used[rows], count - 1)[:count]]
        for key in self._keys[rows]:
            del self._rows[key]
        self.bytes -= int(self._sizes[rows].sum())
        self._used[rows] = 0
        self._keys[rows] = None
        for array in self._arrays.values():
            if array.dtype == object:
                array[rows] = None
        self._free += rows.tolist()
        if len(self._rows) < len(self._keys) // 4 and len(self._keys) > _FEWEST:
            self._compact()

    def _compact(self) -> None:
        """Give the room of what went back, as other columns have it now; the caller holds the lock."""
        rows = np.flatnonzero(self._used)
        after = max(2 * len(rows), _FEWEST)
        self._arrays = {name: _longer(array[rows], after) for name, array in self._arrays.items()}
        self._keys, self._sizes, self._used = (
            _longer(each[rows], after) for each in (self._keys, self._sizes, self._used)
        )
        self._rows = {key: row for row, key in enumerate(self._keys[: len(rows)].tolist())}
        self._free = list(range(after - 1, len(rows) - 1, -1))

    def _keep(self, keys: list[str], fresh: Arrays, used: int, most: int) -> None:
        """Keep what was read, at most so many bytes of it, unless another thread has done so meanwhile.

        The caller holds the lock.
        """
        new = np.array([number for number, key in enumerate(keys) if key not in self._rows], dtype=np.int64)
        if not len(new):
            return
        self._widen(fresh)
        sizes = self._bytes_of(keys, fresh)[new]
        fitting = int(np.searchsorted(np.cumsum(sizes), most, side="right"))
        new, sizes = new[:fitting], sizes[:fitting]
        self._make_room(fitting)
        rows = [self._free.pop() for _ in range(fitting)]
        names = [keys[number] for number in new.tolist()]
        for name, array in fresh.items():
            self._arrays[name][rows] = array[new]
        self._keys[rows] = names
        self._sizes[rows] = sizes
        self._used[rows] = used
        self._rows.update(zip(names, rows, strict=True))
        self.bytes += int(sizes.sum())
        self._cache.shrink()

    def _widen(self, fresh: Arrays) -> None:
        """Make the kept arrays such that they hold ``fresh`` exactly."""
        if not self._arrays:
            self._arrays = {name: _halved(array)[:0] for name, array in fresh.items()}
        for name, kept in self._arrays.items():
            if kept.dtype == np.float16 and _halved(fresh[name]).dtype != np.float16:
                self._arrays[name] = kept.astype(np.float32)
                more = 2 * kept.shape[1]
                self._sizes[self._used > 0] += more
                self.bytes += more * len(self._rows)

    def _bytes_of(self, keys: Sequence[str], fresh: Arrays) -> npt.NDArray[np.int64]:
        """Estimated bytes of each key's row."""
        sizes = np.array([_ROW_BYTES + getsizeof(key) for key in keys], dtype=np.int64)
        for name, kept in self._arrays.items():
            if kept.dtype == object:
                sizes += [_size(value) for value in fresh[name]]
            sizes += kept.itemsize * int(np.prod(kept.shape[1:]))
        return sizes

    def _make_room(self, count: int) -> None:
        """At least ``count`` free rows."""
        if len(self._free) >= count:
            return
        before = len(self._keys)
        after = max(2 * before, before + count, self._expected, _FEWEST)
        self._arrays = {name: _longer(array, after) for name, array in self._arrays.items()}
        self._keys, self._sizes, self._used = (_longer(each, after) for each in (self._keys, self._sizes, self._used))
        self._free += range(after - 1, before - 1, -1)


def _size(value: Any) -> int:
    """Estimated bytes of a value out of JSON."""
    if value is None or isinstance(value, bool):
        return 0
    return getsizeof(value) + (sum(map(_size, value)) if isinstance(value, list) else 0)


def _halved(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lines of float32 as float16 where that changes no value: the vectors of our spaces, see ``as_stored``."""
    if values.dtype != np.float32 or values.ndim != 2:
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values, equal_nan=True) else values


def _taken(array: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """A copy of some rows, of any row where it is -1."""
    if array.dtype != np.float16:
        return array.take(rows, axis=0)
    taken = np.empty((len(rows), *array.shape[1:]), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):  # in parts that stay in the processor's cache
        taken[start : start + _BLOCK] = array.take(rows[start : start + _BLOCK], axis=0)
    return taken


def _longer(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    longer = np.zeros((rows, *array.shape[1:]), dtype=array.dtype)  # pages that nobody writes to take no memory
    if array.dtype == object:
        longer[:] = None
    longer[: len(array)] = array
    return longer
