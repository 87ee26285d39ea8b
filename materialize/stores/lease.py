"""The one writer of a folder: an advisory lock that the kernel frees when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import StoreBusyError, StoreError

POLL_SECONDS = 0.05
"""Pause between two tries while another process holds the lease."""


class WriterLease:
    """Holds ``path`` locked; whoever waits longer than ``timeout`` learns who holds it.

    The file names its holder, but only the lock counts: a killed process holds nothing.

    :param path: the lock file; it stays when the lease is given back.
    :param timeout: seconds to wait for another holder, 0 for one try.
    :param purpose: what the lease is wanted for, shown to those who wait.
    """

    def __init__(self, path: str | Path, timeout: float = 10.0, purpose: str = "write") -> None:
        self.path = Path(path)
        self.timeout = timeout
        self.purpose = purpose
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lease."""
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lease.

        :raises StoreBusyError: after ``timeout`` seconds, naming the holder; nothing was written.
        """
        if self._fd is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"The lock file {self.path} cannot be opened for writing: {error.strerror}.") from error
        try:
            self._queue(fd)
            _write_holder(fd, self.purpose)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        _HELD.add(self)

    def _queue(self, fd: int) -> None:
        """Wait for the queue, then in it for the lease: who gives it back and wants it again comes after the first."""
        give_up = time.monotonic() + self.timeout
        queue = os.open(self.path.with_name(f"{self.path.name}.queue"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._wait(queue, give_up)
            self._wait(fd, give_up)
        finally:
            os.close(queue)

    def _wait(self, fd: int, give_up: float) -> None:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise StoreError(f"The lock file {self.path} cannot be locked: {error.strerror}.") from error
            left = give_up - time.monotonic()
            if left <= 0:
                raise StoreBusyError(
                    f"{self.path.parent} is being written by {_describe(read_holder(self.path))}. Waited "
                    f"{self.timeout:g} s for it to finish; nothing was written. Run again when it is done, or raise "
                    "the lock timeout."
                )
            time.sleep(min(POLL_SECONDS, left))

    def release(self) -> None:
        """Give the lease back; may be called twice."""
        fd, self._fd = self._fd, None
        _HELD.discard(self)
        if fd is not None:
            os.ftruncate(fd, 0)
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def __enter__(self) -> WriterLease:
        self.acquire()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def _forget_in_child(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)  # no unlocking: the lock is the parent's


def read_holder(path: str | Path) -> dict[str, Any]:
    """Who wrote the lock file last: ``pid, host, command, since, purpose``; empty if unknown."""
    try:
        holder = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _write_holder(fd: int, purpose: str) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join(sys.argv)[:200] or "python",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "purpose": purpose,
    }
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(holder).encode(), 0)


def _describe(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "another process"
    return "process {pid} on {host} ({command}; {purpose}) since {since}".format_map(
        {key: holder.get(key, "?") for key in ("pid", "host", "command", "purpose", "since")}
    )


_HELD: weakref.WeakSet[WriterLease] = weakref.WeakSet()


def _after_fork() -> None:
    for lease in list(_HELD):
        lease._forget_in_child()
    _HELD.clear()


os.register_at_fork(after_in_child=_after_fork)
