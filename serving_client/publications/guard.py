"""Reads of the store that fail fast: what just failed is not asked again at once; no read takes a whole request.

A collection that failed is left alone for :data:`~serving_client.publications.parts.RETRY_SECONDS`; then one request
tries it, and where that works all do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from materialize.stores.deadline import deadline, seconds_left
from materialize.stores.errors import BadInputError, StoreError, StoreSlowError
from materialize.stores.port import CollectionSpec
from materialize.stores.session import StoreView
from serving_client.degraded import Code, UnavailableError
from serving_client.publications.parts import RETRY_SECONDS

logger = logging.getLogger(__name__)

SHARE = 0.6
"""Of the time that is left to a request, what one call of a server may take: the rest is for answering without it."""
PATIENT_SECONDS = 1.0
"""A read that was late although it had so long says that the store is slow; with less, that the caller was hasty."""
LISTED_SECONDS = 1.0
"""So long the list of a server's collections counts."""

LIST = "the list of collections"
"""What stands for a collection where a server is asked which there are."""

T = TypeVar("T")


class Guard:
    """What is known of the failing collections of one store; threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._failed: dict[str, tuple[float, UnavailableError]] = {}
        """Collection to when it may be tried again, and why."""

    def view(self, opened: StoreView, remote: bool) -> StoreView:
        """``opened``, whose failures are :class:`UnavailableError`.

        :param remote: whether it asks a server, which may be slow.
        """
        return cast(StoreView, _GuardedView(self, opened, remote))

    def failing(self) -> dict[str, Code]:
        """Collection to what is the matter with it, of those whose last read failed."""
        with self._lock:
            return {name: error.code for name, (_, error) in self._failed.items()}

    def keep_only(self, collections: Collection[str]) -> None:
        """Forget what is known of other collections than these: nobody will ever read them well again."""
        with self._lock:
            self._failed = {name: each for name, each in self._failed.items() if name in collections or name == LIST}

    def call(self, name: str, read: Callable[[], T], remote: bool) -> T:
        """``read`` of the collection ``name``.

        :raises UnavailableError: if the store cannot give it, or could not a moment ago.
        """
        if name in self._failed:
            self._wait_its_turn(name)
        left = seconds_left()
        try:
            if remote and left is not None:
                with deadline(left * SHARE):
                    found = read()
            else:
                found = read()
        except BadInputError:  # the caller's own
            raise
        except StoreError as error:
            raise self._failure(name, error, left) from error
        if name in self._failed:
            with self._lock:
                self._failed.pop(name, None)
            logger.warning("%s can be read again", name)
        return found

    def _wait_its_turn(self, name: str) -> None:
        now = self.clock()
        with self._lock:
            again, error = self._failed.get(name, (now, None))
            if error is None:
                return
            if now >= again:  # this one tries; the others wait for what comes of it
                self._failed[name] = (now + RETRY_SECONDS, error)
                return
        raise UnavailableError(str(error), error.code)

    def _failure(self, name: str, error: StoreError, left: float | None) -> UnavailableError:
        code: Code = "store_slow" if isinstance(error, StoreSlowError) else "store_gone"
        if code == "store_gone" or left is None or left * SHARE >= PATIENT_SECONDS:
            with self._lock:
                known = name in self._failed
                # Not the one that is raised: its traceback would keep a request, and what it read from, in memory.
                self._failed[name] = (self.clock() + RETRY_SECONDS, UnavailableError(str(error), code))
            if not known:
                logger.warning("%s cannot be read: %s", name, error)
        return UnavailableError(str(error), code)


class _GuardedView:
    """A view whose methods that take a collection go through the guard; all else is the view's own."""

    def __init__(self, guard: Guard, view: StoreView, remote: bool) -> None:
        self._guard = guard
        self._view = view
        self._remote = remote
        self._listed: tuple[float, dict[str, CollectionSpec]] | None = None

    def collections(self) -> dict[str, CollectionSpec]:
        """Of a server: as it said within the last second, or as it said last if it says nothing now."""
        if not self._remote:
            return self._view.collections()
        now = self._guard.clock()
        if self._listed is None or now - self._listed[0] >= LISTED_SECONDS:
            try:
                self._listed = now, self._guard.call(LIST, self._view.collections, True)
            except UnavailableError:
                if self._listed is None:
                    raise
        return self._listed[1]

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._view, name)
        if name not in _READS:
            return attribute
        guard, remote = self._guard, self._remote

        def read(collection: str, *args: Any, **kwargs: Any) -> Any:
            return guard.call(collection, lambda: attribute(collection, *args, **kwargs), remote)

        self.__dict__[name] = read  # found without __getattr__ from now on
        return read


_READS = frozenset({"get_many", "columns", "search", "count", "scroll"})
