"""A bounded pool of threads for calls of the client from an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from feature_repo.errors import PinfeatherError, UsageError
from serving_client.stages import DeadlineError, seconds_left

T = TypeVar("T")

THREADS = 4
"""The engine and numpy's small operations hold the interpreter lock, so that more threads answer no faster; fewer
would let one slow read of a store, or one query that is embedded, hold up everybody."""
WAITING = 64
"""Calls that may wait for a thread. At a few milliseconds a call it is a fraction of a second; a longer queue would
only make answers that nobody waits for any more."""


class BusyError(PinfeatherError):
    """As many calls wait as may; the same call may be made again in a moment."""


class Workers:
    """At most ``threads`` calls at a time and ``waiting`` more in a queue, first come, first served.

    A call sees the context of who awaits it, so also its deadline (:mod:`serving_client.stages`).

    :raises UsageError: for fewer than one thread or a negative queue.
    """

    def __init__(self, threads: int = THREADS, waiting: int = WAITING) -> None:
        if threads < 1 or waiting < 0:
            raise UsageError(f"{threads} threads and {waiting} waiting calls: give at least 1 thread and 0 waiting.")
        self.threads, self.waiting = threads, waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="pinfeather")
        self._lock = threading.Lock()
        self._pending = 0

    @property
    def pending(self) -> int:
        """Calls that run or wait."""
        return self._pending

    async def run(self, call: Callable[[], T]) -> T:
        """What ``call`` gives. Who is cancelled or out of time goes; a call that runs then ends by itself, unheard.

        :raises BusyError: if too many wait.
        :raises DeadlineError: at the deadline, even if the thread still works.
        """
        with self._lock:
            if self._pending >= self.threads + self.waiting:
                raise BusyError(f"{self._pending} calls run or wait, which is all that may: try again in a moment.")
            self._pending += 1
        try:
            future = self._executor.submit(contextvars.copy_context().run, call)
        except RuntimeError as error:
            self._done()
            raise PinfeatherError("This client was closed; open another one.") from error
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(seconds_left()) as limit:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineError(
                "The deadline passed before the answer was there: give the request more time."
            ) from error

    def _done(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._pending -= 1

    def close(self, *, wait: bool = True) -> None:
        """Take no more calls.

        :param wait: return only when those that run and wait are done; else those that wait are dropped.
        """
        self._executor.shutdown(wait=wait, cancel_futures=not wait)
