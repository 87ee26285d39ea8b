"""One writer and many readers of an embedded Qdrant folder.

``root/writer/`` belongs to the process that holds ``root/writer.lock``; ``root/publications/`` holds what readers see.
A reader loads the newest publication and switches to a newer one with all collections at once.

    with open_writer("data/online") as writer:
        writer.create("pins", CollectionSpec({"vector": VectorSpec(384)}))
        writer.upsert("pins", points)
        writer.publish()

    reader = open_reader("data/online")
    reader.search("pins", query, limit=10)

The two newest publications are kept. An older one goes when nobody reads it: whoever opens the writer or publishes
removes it, and so does a reader when it has let it go. Its copies may be taken over by the next publication.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import published as disk
from .conditions import Condition, Match
from .edge import EdgeReads, EdgeStore
from .edge_collection import EdgeCollection
from .errors import StoreError
from .files import close_locks, fsync_folder
from .following import look_now
from .known_counts import FILE as KNOWN
from .known_counts import KnownCounts
from .lease import WriterLease
from .points import CollectionSpec, Point
from .published import Published
from .reader import Reader

WRITER = "writer"
LOCK = "writer.lock"
_DIRTY = ".dirty"


def open_writer(
    root: str | Path, lock_timeout: float = 10.0, purpose: str = "materialize", *, publishes: bool = True
) -> Writer:
    """The writer of ``root``; made if need be. Within one process all callers share it, whoever closes last ends it.

    :param lock_timeout: seconds to wait for a writer in another process.
    :param publishes: whether the caller publishes when its work is whole; meanwhile :attr:`Writer.owned` says so.
    :raises StoreBusyError: if that one does not finish in time; nothing was written.
    """
    path = Path(root).expanduser().resolve()
    with _path_lock(path):
        shared = current_writer(path, publishes=publishes)
        if shared is not None:
            return shared
        lease = WriterLease(path / LOCK, lock_timeout, purpose)
        lease.acquire()
        try:
            core = _WRITERS[path] = _WriterCore(path, lease)
            return core.handle(publishes)
        except BaseException:
            lease.release()
            raise


def current_writer(root: str | Path, *, publishes: bool = False) -> Writer | None:
    """A further handle on the writer of ``root`` if this process has it open, else None."""
    core = _WRITERS.get(Path(root).expanduser().resolve())
    if core is None or core.pid != os.getpid():
        return None
    with core.counting:
        return core.handle(publishes) if core.handles else None


@contextmanager
def own_writes(root: Path) -> Iterator[Writer | None]:
    """The writer of ``root`` to read from, if this process has it open; it stays open for the block.

    Other than a handle this does not keep the lease: when the last handle goes, no further block gets it.
    """
    core = _WRITERS.get(root)
    if core is None or core.pid != os.getpid() or not core.begin_reading():
        yield None
        return
    try:
        yield Writer(core)
    finally:
        core.end_reading()


def open_reader(root: str | Path, cache_bytes: int = 0) -> Reader:
    """A reader of the newest publication under ``root``.

    :param cache_bytes: see :class:`~.reader.Reader`.
    :raises NoPublicationError: if nothing was published there yet.
    """
    return Reader(root, cache_bytes)


class _WriterCore(EdgeStore):
    """What all handles of one process share: the open collections, the lease, which collections have changed."""

    def __init__(self, root: Path, lease: WriterLease) -> None:
        super().__init__(root / WRITER)
        self.root = root
        self.pid = os.getpid()
        self.handles = self.owners = self.readers = 0
        self.counting = threading.RLock()
        self._lease = lease
        self._newest: Published | None = None
        self._flags = self.path / _DIRTY
        self._flags.mkdir(exist_ok=True)
        self.end_rewrites()
        for leftover in self.path.glob(".*"):  # of a writer that was killed while it made or dropped a collection
            if leftover.is_file() and leftover.name not in (disk.RECORD, KNOWN):
                leftover.unlink(missing_ok=True)
            elif leftover.is_dir() and leftover.name != _DIRTY:
                shutil.rmtree(leftover, ignore_errors=True)
        self._dirty = {flag.name for flag in self._flags.iterdir()}
        self._known = KnownCounts(self.path)
        for name in self._dirty:
            self._known.forget(name)
        disk.remove_old(root)

    def handle(self, publishes: bool) -> Writer:
        with self.counting:
            self.handles += 1
            self.owners += publishes
            return Writer(self, publishes)

    def let_go(self, publishes: bool) -> None:
        with self.counting:
            self.handles -= 1
            self.owners -= publishes
            self._end_if_unused()

    def begin_reading(self) -> bool:
        with self.counting:
            self.readers += self.handles > 0
            return self.handles > 0

    def end_reading(self) -> None:
        with self.counting:
            self.readers -= 1
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self.handles or self.readers:
            return
        try:
            self.close()
            self._known.save()
        finally:
            _WRITERS.pop(self.root, None)
            self._lease.release()

    def publish(self, release: dict[str, Any] | None) -> int:
        with self._lock:
            for name in self._dirty & self.collections().keys():
                self._open(name)  # a killed writer's changes are in the write-ahead log until it is opened
                self.count(name)  # so that the next run need not open it for that
            self.flush()
            last = self.newest()
            specs = self.collections()
            earlier = last.collections if last else {}
            recorded = disk.recorded_number(self.path)
            unchanged: dict[str, str] = {}
            if last and last.number == recorded:  # else somebody went back to it, and it may lack any change
                kept = {n: p for n, p in earlier.items() if n in specs and n not in self._dirty}
                unchanged = {n: p for n, p in kept.items() if disk.has_copy(self.root, p)}
            release = release if release is not None else (last.release if last else None)
            if last and unchanged.keys() == specs.keys() == earlier.keys() and release == last.release:
                return last.number
            release = _plain_json(release)
            try:
                now = disk.write_publication(self.root, self.path, specs, unchanged, release, recorded)
            except OSError as error:  # a full disk, most often
                disk.remove_old(self.root)
                raise StoreError(
                    f"Nothing was published under {self.root}: {error.strerror} ({error.filename or self.path}). "
                    "What was written is kept, and readers go on as before. Make room, then publish again."
                ) from error
            disk.record_number(self.path, now.number)
            for name in self._dirty:
                (self._flags / name).unlink(missing_ok=True)
            self._dirty.clear()
            self._newest = now
            disk.remove_old(self.root)
            return now.number

    def count(self, name: str, filter: Condition | None = None) -> int:
        """See :class:`~.port.VectorStore`; all points, and those of a view, are known where nobody changed any."""
        match filter:
            case None:
                return self._answer(name, "points", lambda: super(_WriterCore, self).count(name))
            case Match("view", str(view), None):
                return self._answer(name, f"points of {view}", lambda: super(_WriterCore, self).count(name, filter))
        return super().count(name, filter)

    def unindexed(self, name: str) -> int:
        """See :meth:`~.edge.EdgeStore.unindexed`."""
        asked = f"unindexed by {self.indexing}"
        return self._answer(name, asked, lambda: super(_WriterCore, self).unindexed(name))

    def _answer(self, name: str, question: str, ask: Callable[[], int]) -> int:
        with self._lock:
            self._folder(name)  # a name that cannot be one is refused
            found = self._known.get(name, question)
            if found is None:
                found = ask()
                self._known.note(name, question, found)
            return found

    def newest(self) -> Published | None:
        """The newest publication; nobody else makes one while this process has the lease."""
        number = disk.newest_number(self.root)
        if number is None or self._newest is None or self._newest.number != number:
            self._newest = disk.newest(self.root)
        return self._newest

    def _will_change(self, name: str) -> None:
        self._known.forget(name)
        # On disk before the change: a killed writer's changes are published by the next one.
        if name not in self._dirty:
            (self._flags / name).touch()
            fsync_folder(self._flags)
            self._dirty.add(name)


def _plain_json(release: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        return json.loads(json.dumps(release))
    except (TypeError, ValueError) as error:
        raise StoreError(f"A release is made of JSON values: {error}.") from error


class Writer(EdgeReads):
    """A :class:`~.port.VectorStore` that reads its own writes; others see them after :meth:`publish`."""

    def __init__(self, core: _WriterCore, publishes: bool = False) -> None:
        self._core: _WriterCore | None = core
        self._publishes = publishes
        self.root = core.root

    def publish(self, release: dict[str, Any] | None = None) -> int:
        """Let readers see everything written so far; returns the publication's number.

        Without a change since the last publication nothing is made and its number comes back. Other sessions of this
        process have switched when this returns, those of other processes within two seconds.

        :param release: put into the publication for readers; None keeps the former one.
        """
        number = self._shared().publish(release)
        look_now(self.root)
        return number

    def rewrite(self, name: str) -> None:
        """See :meth:`~.edge.EdgeStore.rewrite`."""
        self._shared().rewrite(name)

    def unindexed(self, name: str) -> int:
        """See :meth:`~.edge.EdgeStore.unindexed`."""
        return self._shared().unindexed(name)

    def index(self, name: str, stop: Callable[[], bool] | None = None) -> None:
        """See :meth:`~.edge.EdgeStore.index`."""
        self._shared().index(name, stop)

    def forget_former(self) -> list[int]:
        """Remove every publication but the newest; numbers of those that readers hold, which go when they let go."""
        return disk.remove_former(self._shared().root)

    @property
    def release(self) -> dict[str, Any] | None:
        """The release of the newest publication."""
        last = self._shared().newest()
        return last.release if last else None

    @property
    def number(self) -> int:
        """The number of the newest publication, 0 if there is none."""
        return disk.newest_number(self.root) or 0

    @property
    def owned(self) -> bool:
        """Whether somebody in this process has it open who publishes when their work is whole."""
        return self._shared().owners > 0

    def create(self, name: str, spec: CollectionSpec) -> None:
        """See :class:`~.port.VectorStore`."""
        self._shared().create(name, spec)

    def collections(self) -> dict[str, CollectionSpec]:
        """See :class:`~.port.VectorStore`."""
        return self._shared().collections()

    def count(self, name: str, filter: Condition | None = None) -> int:
        """See :class:`~.port.VectorStore`."""
        return self._shared().count(name, filter)

    def drop(self, name: str) -> None:
        """See :class:`~.port.VectorStore`."""
        self._shared().drop(name)

    def upsert(self, name: str, points: Iterable[Point], unless_newer: str | None = None) -> None:
        """See :class:`~.port.VectorStore`."""
        self._shared().upsert(name, points, unless_newer)

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        """See :class:`~.port.VectorStore`."""
        self._shared().delete(name, ids, filter)

    def flush(self) -> None:
        """See :class:`~.port.VectorStore`."""
        self._shared().flush()

    def close(self) -> None:
        """Give this handle back; the last one flushes, and frees the lease. Does not publish."""
        core, self._core = self._core, None
        if core is not None and core.pid == os.getpid():
            core.let_go(self._publishes)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, name: str) -> EdgeCollection:
        return self._shared()._open(name)

    def _shared(self) -> _WriterCore:
        if self._core is None:
            raise StoreError(f"This writer of {self.root} was closed; open it again.")
        if self._core.pid != os.getpid():
            raise StoreError(f"This writer of {self.root} was opened before a fork; open it in the new process.")
        return self._core


_WRITERS: dict[Path, _WriterCore] = {}
_PATH_LOCKS: dict[Path, threading.Lock] = {}


def _path_lock(path: Path) -> threading.Lock:
    return _PATH_LOCKS.setdefault(path, threading.Lock())


def _after_fork() -> None:
    # A child must neither use the parent's engine nor let it be collected, which would flush into the parent's files.
    # The engine's locks came along with its open files: held here, they would outlive the parent's writer.
    for core in _WRITERS.values():
        close_locks(core.path)
    _PARENTS.append(dict(_WRITERS))
    _WRITERS.clear()
    _PATH_LOCKS.clear()


_PARENTS: list[dict[Path, _WriterCore]] = []
os.register_at_fork(after_in_child=_after_fork)
