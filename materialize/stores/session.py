"""Short writes and cached reads of an embedded folder, for callers that come and go (Feast, a service).

One :class:`Session` a folder and process: it publishes at most once per interval, loses nothing at exit, gives the
writer lease back in between, and reads from this process's own writer while there is one.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .publication import Writer, current_writer, last_published, open_reader, open_writer
from .reader import Reader

REFRESH_SECONDS = 1.0
"""How long a reader may go without looking for a newer publication."""


class Session:
    """The process's way to one folder; get it from :func:`session`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._reader: Reader | None = None
        self._looked = 0.0
        self._published = float("-inf")
        self._pending: Writer | None = None
        self._timer: threading.Timer | None = None

    @contextmanager
    def writing(self, lock_timeout: float, publish_interval: float, purpose: str) -> Iterator[Writer]:
        """A writer for the block; afterwards everything is published, at once or when the interval has passed.

        Where somebody else in this process is writing too (a materializer), the publishing is left to them: they
        know when their work is whole.

        :raises StoreBusyError: if another process writes for longer than ``lock_timeout`` seconds.
        """
        writer = open_writer(self.root, lock_timeout, purpose)
        try:
            yield writer
        except BaseException:
            writer.close()
            raise
        with self._lock:
            left = self._published + publish_interval - time.monotonic()
            if left <= 0:
                self._settle(writer)
            elif self._pending is None:
                self._pending = writer  # keeps the lease, so that this process reads its own write
                self._timer = threading.Timer(left, self.publish)
                self._timer.daemon = True
                self._timer.start()
            else:
                writer.close()

    @contextmanager
    def reading(self) -> Iterator[Writer | Reader]:
        """What to read from: the own writer while this process has it open, else the newest publication.

        :raises NoPublicationError: if there is neither.
        """
        writer = current_writer(self.root)
        if writer is not None:
            try:
                yield writer
            finally:
                writer.close()
            return
        yield self._fresh_reader()

    def publish(self) -> None:
        """Publish what waits for the interval to pass."""
        with self._lock:
            pending, self._pending = self._pending, None
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            if pending is not None:
                self._settle(pending)

    def close(self) -> None:
        """Publish what waits, and let the reader go."""
        with self._lock:
            self.publish()
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()

    def _settle(self, writer: Writer) -> None:
        try:
            if writer.handles == 1 + (self._pending is not None):
                writer.publish()
                self._published = time.monotonic()
        finally:
            writer.close()

    def _fresh_reader(self) -> Reader:
        reader, now = self._reader, time.monotonic()
        if reader is not None and now - self._looked < REFRESH_SECONDS and reader.number >= last_published(self.root):
            return reader
        with self._lock:
            if self._reader is None:
                self._reader = open_reader(self.root)
            else:
                self._reader.refresh()
            self._looked = now
            return self._reader


def session(root: str | Path) -> Session:
    """The session of this process for ``root``."""
    path = Path(root).expanduser().resolve()
    return _SESSIONS.setdefault(path, Session(path))


def close_all() -> None:
    """Close every session of this process, publishing what waits; runs at exit by itself."""
    for opened in list(_SESSIONS.values()):
        opened.close()
    _SESSIONS.clear()


def _after_fork() -> None:
    # The parent's engine objects must not be used in a child, nor be collected there.
    _PARENTS.append(dict(_SESSIONS))
    _SESSIONS.clear()


_SESSIONS: dict[Path, Session] = {}
_PARENTS: list[dict[Path, Session]] = []
atexit.register(close_all)
os.register_at_fork(after_in_child=_after_fork)
