"""Reading publications: any number of processes at once, none of them writing to what it reads.

Loading a collection rewrites some small files, so each reader loads a private copy of those and shares the big ones.
A :class:`Snapshot` is one publication and never changes; a :class:`Reader` goes from one to the next.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import published as disk
from .columns import ColumnCache
from .conditions import Condition
from .edge import EdgeReads
from .edge_collection import EdgeCollection
from .errors import NoPublicationError, StoreCorruptError, StoreError, missing
from .files import PrivateFolder, lock_shared, read_ahead, shadow_tree
from .points import CollectionSpec, Point
from .published import Published
from .row_cache import RowCache

COLUMN_SHARE = 0.75
"""Of the bytes that a reader keeps, what arrays may take at most; whole rows have the rest."""


class ReadOnly(EdgeReads):
    """A :class:`~.port.VectorStore` that refuses to be written to."""

    root: Path

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def drop(self, name: str) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def upsert(self, name: str, points: Iterable[Point], unless_newer: str | None = None) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def flush(self) -> None:
        """Nothing to do."""

    def _refusal(self) -> StoreError:
        return StoreError(f"A reader of {self.root} cannot write; use open_writer.")


class Snapshot(ReadOnly):
    """One publication; threads may share it. Its files stay until nobody refers to it, or :meth:`close`."""

    def __init__(self, process: _Process, published: Published, copies: Mapping[str, _Copy]) -> None:
        self.root = process.root
        self.number = published.number
        self.created_at = published.created_at
        """When it was made, ISO 8601."""
        self.release = published.release
        self._published = published
        self._pid = os.getpid()
        self._open_parts: tuple[_Process, Mapping[str, _Copy]] | None = (process, copies)

    @classmethod
    def newest(cls, root: Path, cache_bytes: int) -> Snapshot:
        """The newest publication, without anything of a former one; see :class:`Reader`."""
        published, copies = _lock_newest(root, {})
        return cls(_Process(root, cache_bytes), published, copies)

    @classmethod
    def numbered(cls, root: Path, number: int) -> Snapshot | None:
        """One publication of those on disk, None if it is not complete or went meanwhile."""
        published = disk.read_marker(root, number)
        if published is None:
            return None
        try:
            copies = {name: _Copy(root, place) for name, place in published.collections.items()}
        except OSError:
            return None
        return cls(_Process(root, 0), published, copies)

    @property
    def places(self) -> list[str]:
        """Where its collections lie, relative to ``publications/``."""
        return sorted(self._published.collections.values())

    def newer(self) -> Snapshot | None:
        """The newest publication, None if this is it.

        Collections that have not changed are shared with this one, decoded rows included. Of the others, those that
        were loaded here are loaded there, and so is what takes their place in the release.

        :raises StoreCorruptError: if it is damaged; this one can still be read.
        """
        if disk.newest_number(self.root) == self.number:
            return None
        process, held = self._parts()
        published, copies = _lock_newest(self.root, held)
        if published.number == self.number:
            return None
        newer = Snapshot(process, published, copies)
        newer.load(_successors(held, self.release, published.release) & copies.keys())
        return newer

    def load(self, names: Iterable[str]) -> None:
        """Load collections now rather than when they are first read."""
        for name in names:
            self._open(name)

    def collections(self) -> dict[str, CollectionSpec]:
        """See :class:`~.port.VectorStore`."""
        return dict(sorted(self._published.specs.items()))

    def close(self) -> None:
        """Let the publication go, what a newer one shares with it stays; remove what nobody reads any more."""
        self._open_parts = None
        disk.remove_unread(self.root)

    def _parts(self) -> tuple[_Process, Mapping[str, _Copy]]:
        if os.getpid() != self._pid:
            raise StoreError(f"This reader of {self.root} was opened before a fork; open it in the new process.")
        if self._open_parts is None:
            raise StoreError(f"This reader of {self.root} was closed; open it again.")
        return self._open_parts

    def _open(self, name: str) -> EdgeCollection:
        process, copies = self._parts()
        if name not in copies:
            raise missing(name, self.collections())
        return copies[name].open(process)


class Reader(ReadOnly):
    """The newest publication at the time of opening or of the last :meth:`refresh`.

    What a block of reads must see as one is read from a :meth:`snapshot`.

    :param cache_bytes: rows and columns that are kept for the next time, and payloads read ahead; 0 for none.
    :raises NoPublicationError: if nothing was published yet.
    """

    def __init__(self, root: str | Path, cache_bytes: int = 0) -> None:
        self.root = Path(root).expanduser().resolve()
        self._lock = threading.Lock()
        self._snapshot = Snapshot.newest(self.root, cache_bytes)

    @property
    def number(self) -> int:
        """The number of the publication that is read."""
        return self._snapshot.number

    @property
    def release(self) -> dict[str, Any] | None:
        """The release in the publication that is read."""
        return self._snapshot.release

    @property
    def created_at(self) -> str:
        """When the publication that is read was made, ISO 8601."""
        return self._snapshot.created_at

    def snapshot(self) -> Snapshot:
        """The publication that is read now; a later refresh does not change it."""
        return self._snapshot

    def refresh(self) -> bool:
        """Switch to the newest publication, all collections at once; whether there was a newer one.

        Reads go on over the former one until the newer one is loaded.
        """
        with self._lock:
            newer = self._snapshot.newer()
            if newer is None:
                return False
            self._snapshot = newer
            return True

    def collections(self) -> dict[str, CollectionSpec]:
        """See :class:`~.port.VectorStore`."""
        return self._snapshot.collections()

    def close(self) -> None:
        """See :meth:`Snapshot.close`."""
        with self._lock:
            self._snapshot.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, name: str) -> EdgeCollection:
        return self._snapshot._open(name)


class _Process:
    """What all snapshots of one reader share: the private folder and the cache."""

    def __init__(self, root: Path, cache_bytes: int) -> None:
        self.root = root
        self.private = PrivateFolder(root / disk.READERS)
        self.cache = RowCache(cache_bytes) if cache_bytes > 0 else None
        self.columns: ColumnCache | None = None
        if self.cache is not None:
            self.columns = ColumnCache(int(COLUMN_SHARE * cache_bytes), self.cache.leave)


class _Copy:
    """A published collection: locked from the start, loaded on first use."""

    def __init__(self, root: Path, place: str) -> None:
        self.place = place
        self._source = root / disk.FOLDER / place
        self._hold = _Hold(lock_shared(disk.lock_file(self._source)))
        self._loading = threading.Lock()
        self._collection: EdgeCollection | None = None

    @property
    def loaded(self) -> bool:
        return self._collection is not None

    def open(self, process: _Process) -> EdgeCollection:
        if self._collection is None:
            with self._loading:
                if self._collection is None:
                    self._collection = self._load(process)
        return self._collection

    def _load(self, process: _Process) -> EdgeCollection:
        shadow = self._hold.shadow = process.private.path / self.place.replace("/", "-")
        self._hold.private = process.private
        shutil.rmtree(shadow, ignore_errors=True)  # of a load that failed
        try:
            shadow_tree(self._source, shadow)
        except OSError as error:
            raise StoreError(f"The publication {self._source} cannot be read: {error}.") from error
        if process.cache is not None:
            _read_payloads(self._source, process.cache.max_bytes)
        return _HeldCollection(shadow, process, self._hold)


class _HeldCollection(EdgeCollection):
    """Keeps its files locked while a call uses it, even if its snapshot was let go meanwhile."""

    def __init__(self, path: Path, process: _Process, hold: _Hold) -> None:
        super().__init__(path, process.cache, process.columns)
        self._hold = hold


class _Hold:
    """The lock on a published copy and its private shadow, until nobody refers to it."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._pid = os.getpid()
        self.shadow: Path | None = None
        self.private: PrivateFolder | None = None

    def __del__(self) -> None:
        # Files that are still mapped may be removed, but not written to: the lock says when.
        if self.shadow is not None and os.getpid() == self._pid:
            shutil.rmtree(self.shadow, ignore_errors=True)
        os.close(self._lock)


def _read_payloads(collection: Path, most: int) -> None:
    """Have payloads in the system's memory; the engine does that for vectors only.

    It even lets go of both when a reader ends, so without this the rows that the next one reads first come from the
    disk, page by page, which takes several times as long.
    """
    for page in sorted(collection.glob("segments/*/payload_storage/page_*.dat")):
        most -= read_ahead(page, most)


def _lock_newest(root: Path, known: Mapping[str, _Copy]) -> tuple[Published, dict[str, _Copy]]:
    """The newest publication and its copies, those that are ``known`` taken from there."""
    places = {copy.place: copy for copy in known.values()}
    failure: OSError | None = None
    for _ in range(20):  # a publication may be removed between reading its marker and locking it
        found = disk.newest(root)
        if found is None:
            raise NoPublicationError(f"There is no publication under {root} yet: write and publish first.")
        try:
            return found, {name: places.get(at) or _Copy(root, at) for name, at in found.collections.items()}
        except OSError as error:
            failure = error
    raise StoreCorruptError(
        f"The newest publication under {root} lacks a collection it refers to ({failure}). Publish again."
    )


def _successors(
    held: Mapping[str, _Copy], before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> set[str]:
    """Collections that are loaded, and those that take the place of one in the new release."""
    loaded = {name for name, copy in held.items() if copy.loaded}
    names = (after or {}).get("names") or {}
    return loaded | {
        names[public]
        for public, name in ((before or {}).get("names") or {}).items()
        if name in loaded and public in names
    }
