"""Short writes and cached reads of a store, for callers that come and go (Feast, a service).

One :class:`Session` a place and process. That of a folder publishes at most once per interval, loses nothing at exit,
gives the writer lease back in between, follows the publications of others, and reads its own writes.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from .edge_collection import EdgeCollection
from .following import Follower
from .place import Place
from .points import CollectionSpec
from .port import PayloadFields, VectorStore
from .publication import Writer, open_writer, own_writes
from .published import newest_number, remove_unread
from .reader import ReadOnly, Snapshot
from .row_cache import StoredRow


class StoreView(VectorStore, Protocol):
    """What :meth:`Session.reading` gives: one state of the store for the whole block."""

    @property
    def release(self) -> dict[str, Any] | None:
        """The release, None if there is none yet."""
        ...

    @property
    def number(self) -> int:
        """The number of the publication or release, 0 if there is none yet."""
        ...

    def rows(
        self, name: str, ids: Sequence[str], with_payload: PayloadFields, with_vectors: bool
    ) -> Sequence[StoredRow]:
        """As :meth:`get_many`, but rows may be as they are kept: whole, for :func:`~.row_cache.point_of`."""
        ...


class StoreWriter(StoreView, Protocol):
    """What :meth:`Session.writing` gives."""

    def publish(self, release: dict[str, Any] | None = None) -> int:
        """Let readers see everything written so far, and ``release`` if one is given; returns the number."""
        ...


class Session(Protocol):
    """The process's way to one store; get it from :func:`session`."""

    @property
    def place(self) -> Place:
        """Where the store is."""
        ...

    def writing(
        self, purpose: str, lock_timeout: float = 10.0, publish_interval: float = 0.0
    ) -> AbstractContextManager[StoreWriter]:
        """A writer for the block; afterwards what it wrote is published, at once or when the interval has passed.

        :param purpose: shown to whoever waits for the writer of a folder.
        :param lock_timeout: seconds to wait for a writer in another process, folders only.
        :param publish_interval: seconds between two publications, folders only.
        :raises StoreBusyError: if another process writes for longer; nothing was written.
        """
        ...

    def reading(self) -> AbstractContextManager[StoreView]:
        """What to read from.

        :raises NoPublicationError: if nothing was ever written, folders only.
        """
        ...

    def number(self) -> int:
        """The number of the newest publication or release, 0 for none; cheap."""
        ...

    def publish(self) -> None:
        """Publish what waits for the interval to pass."""
        ...

    def close(self) -> None:
        """Publish what waits and let everything go; may be called twice."""
        ...


logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.5
"""Between two looks whether somebody who publishes by himself is done."""


class EdgeSession:
    """The :class:`Session` of a folder with publications; after a fork it begins anew in the child.

    A view is one publication, and follows by itself: another process's publication is seen within two seconds, this
    process's own at once. While this process has the writer open, a view is that writer, with all that it wrote.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.root = Path(place.path or "")
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._turn = threading.Condition()
        self._writing: Counter[int] = Counter()
        self._giving_back = False
        self._opening = threading.Lock()
        self._follower: Follower | None = None
        self._published = float("-inf")
        self._pending: Writer | None = None
        self._timer: threading.Timer | None = None

    @contextmanager
    def writing(self, purpose: str, lock_timeout: float = 10.0, publish_interval: float = 0.0) -> Iterator[Writer]:
        """See :class:`Session`.

        While somebody in this process is writing who publishes when their work is whole (a materializer), publishing
        waits for them.
        """
        self._check_process()
        with self._my_turn():
            writer = open_writer(self.root, lock_timeout, purpose, publishes=False)
            try:
                yield writer
            except BaseException:
                writer.close()
                raise
            with self._lock:
                left = self._published + publish_interval - time.monotonic()
                if self._pending is not None:
                    writer.close()
                elif left > 0 or writer.owned:
                    self._publish_later(writer, left if left > 0 else _AGAIN_SECONDS)
                else:
                    self._settle(writer)

    @contextmanager
    def reading(self) -> Iterator[Snapshot | OwnWrites]:
        """See :class:`Session`."""
        self._check_process()
        with own_writes(self.root) as writer:
            yield self._newest() if writer is None else OwnWrites(writer)

    def number(self) -> int:
        """See :class:`Session`."""
        return newest_number(self.root) or 0

    def publish(self) -> None:
        """See :class:`Session`."""
        self._publish_waiting(final=True)

    def give_back(self) -> None:
        """Publish what waits, and with it give the lease back, unless this very thread is writing."""
        if self._pid == os.getpid() and self._pending is not None and not self._writing[threading.get_ident()]:
            self._publish_waiting()

    def close(self) -> None:
        """See :class:`Session`. Blocks that are reading finish over what they have."""
        self._check_process()
        try:
            self.publish()
        finally:
            with self._opening:
                follower, self._follower = self._follower, None
            if follower is not None:
                follower.close()
                del follower
                remove_unread(self.root)

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """Of writers of this process: they wait while the lease is given back, or another process never got it."""
        me = threading.get_ident()
        with self._turn:
            self._turn.wait_for(lambda: not self._giving_back or self._writing[me] > 0)
            self._writing[me] += 1
        try:
            yield
        finally:
            with self._turn:
                self._writing[me] -= 1
                self._writing += Counter()  # drops those that are done
                self._turn.notify_all()

    def _publish_later(self, writer: Writer, seconds: float) -> None:
        self._pending = writer  # keeps the lease, so that this process reads its own write
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._publish_waiting)
        self._timer.daemon = True
        self._timer.start()

    def _publish_waiting(self, final: bool = False) -> None:
        self._check_process()
        me = threading.get_ident()
        with self._turn:
            self._turn.wait_for(lambda: not self._giving_back)
            self._giving_back = True
            self._turn.wait_for(lambda: set(self._writing) <= {me})
        try:
            with self._lock:
                pending, self._pending = self._pending, None
                timer, self._timer = self._timer, None
                if timer is not None:
                    timer.cancel()
                if pending is None:
                    return
                if pending.owned and not final:
                    self._publish_later(pending, _AGAIN_SECONDS)
                else:
                    self._settle(pending)
        finally:
            with self._turn:
                self._giving_back = False
                self._turn.notify_all()

    def _settle(self, writer: Writer) -> None:
        try:
            if not writer.owned:
                writer.publish()
                self._published = time.monotonic()
        finally:
            writer.close()

    def _newest(self) -> Snapshot:
        follower = self._follower
        if follower is None:
            with self._opening:
                follower = self._follower = self._follower or Follower(self.root, self.place.cache_bytes)
        return follower.snapshot()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._begin()  # what the parent has open is kept from being collected where it was opened


class OwnWrites(ReadOnly):
    """The open writer of this process as a view: fixed is the release, rows are as they were written last."""

    def __init__(self, writer: Writer) -> None:
        self.root = writer.root
        self.release = writer.release
        self.number = writer.number
        self._writer = writer

    def collections(self) -> dict[str, CollectionSpec]:
        """See :class:`~.port.VectorStore`."""
        return self._writer.collections()

    def close(self) -> None:
        """Nothing to do: the writer is given back at the end of the block."""

    def _open(self, name: str) -> EdgeCollection:
        return self._writer._open(name)


def session(place: Place | str | Path) -> Session:
    """The session of this process for ``place``; a text or path is a folder."""
    if not isinstance(place, Place):
        place = Place(path=str(Path(place).expanduser().resolve()))
    with _LOCK:
        if place.embedded:  # what else a Place may say makes no difference to a folder
            place = Place(path=str(Path(place.path or "").expanduser().resolve()), cache_bytes=place.cache_bytes)
        opened = _SESSIONS.get(place)
        if opened is None:
            opened = _SESSIONS[place] = EdgeSession(place) if place.embedded else _server_session(place)
        return opened


def _server_session(place: Place) -> Session:
    from .server_session import ServerSession  # imports qdrant_client, which folders do without

    return ServerSession(place)


def close_all() -> None:
    """Close every session of this process, publishing what waits; runs at exit by itself."""
    with _LOCK:
        opened = list(_SESSIONS.values())
        _SESSIONS.clear()
    for each in opened:
        each.close()


def _before_fork() -> None:
    # A child would inherit the engine's locks of a writer that waits to publish.
    for each in list(_SESSIONS.values()):
        if isinstance(each, EdgeSession):
            try:
                each.give_back()
            except Exception as error:  # the fork goes on, and the next write publishes
                logger.warning("%s was not published before a fork: %s", each.root, error)


def _after_fork() -> None:
    # The sessions stay: each finds out by itself that it is in a child now.
    global _LOCK
    _LOCK = threading.Lock()


_LOCK = threading.Lock()
_SESSIONS: dict[Place, Session] = {}
atexit.register(close_all)
os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
