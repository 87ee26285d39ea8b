"""A reader that follows the publications by itself, so that no request waits for a newer one to load."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from pathlib import Path

from . import published as disk
from .reader import Reader, Snapshot

REFRESH_SECONDS = 0.5
"""How often a follower looks for a newer publication."""
STALE_SECONDS = 2.0
"""A request looks by itself if nobody has for so long: the process was frozen, or starved."""

logger = logging.getLogger(__name__)


class Follower:
    """The newest publication under ``root``, looked for in a thread of its own.

    The thread ends at :meth:`close` or with the process. What it cannot read is logged once, and the former publication
    goes on serving.

    :raises NoPublicationError: if nothing was published yet.
    """

    def __init__(self, root: Path, cache_bytes: int) -> None:
        self.root = root
        self._reader = Reader(root, cache_bytes)
        self._former: Snapshot | None = None
        self._leaving: list[weakref.ref[Snapshot]] = []
        self._looked = time.monotonic()
        self._looking = threading.Lock()
        self._logged = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="publication follower", daemon=True)
        self._thread.start()
        _FOLLOWERS.append(self)

    def snapshot(self) -> Snapshot:
        """The publication for one request."""
        if time.monotonic() - self._looked > STALE_SECONDS:
            self.look(wait=False)
        return self._reader.snapshot()

    def look(self, wait: bool = True) -> None:
        """Switch if there is a newer publication; without ``wait``, leave it to another thread that is at it."""
        if not self._looking.acquire(blocking=wait):
            return
        try:
            self._looked = time.monotonic()
            self._let_go()
            before = self._reader.snapshot()
            if self._reader.refresh():
                self._former = before
                self._leaving.append(weakref.ref(before))
            self._logged = ""
        except Exception as error:  # whatever it is, the thread must live on
            if str(error) != self._logged:
                self._logged = str(error)
                logger.warning("publication %d of %s goes on serving: %s", self._reader.number, self.root, error)
        finally:
            self._looking.release()

    def close(self) -> None:
        """End the thread; the publication goes with this object, and with the blocks that still read it."""
        if self in _FOLLOWERS:
            _FOLLOWERS.remove(self)
        self._end.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._end.wait(REFRESH_SECONDS):
            self.look()

    def _let_go(self) -> None:
        # One look after the switch, when requests that began before it are done: freeing it would take their time.
        self._former = None
        held = [former for former in self._leaving if former() is not None]
        if len(held) < len(self._leaving):
            self._leaving = held
            disk.remove_unread(self.root)


def look_now(root: Path) -> None:
    """Let this process's followers of ``root`` (an absolute path) switch now."""
    for follower in list(_FOLLOWERS):
        if follower.root == root:
            follower.look()


def _after_fork() -> None:
    # The parent's engine objects must not be collected in a child.
    _PARENTS.append(list(_FOLLOWERS))
    _FOLLOWERS.clear()


_FOLLOWERS: list[Follower] = []
_PARENTS: list[list[Follower]] = []
os.register_at_fork(after_in_child=_after_fork)
