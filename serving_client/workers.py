"""A bounded pool of threads for calls of the client from an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from feature_repo.errors import PinfeatherError, UsageError
from serving_client.stages import DeadlineError, seconds_left

T = TypeVar("T")

THREADS = 4
"""So many calls work at a time where each is slow: a store or a query that is embedded holds up nobody else."""
WAITING = 64
"""Calls that may wait for a thread. At a few milliseconds a call it is a fraction of a second; a longer queue would
only make answers that nobody waits for any more."""
OVERTAKE_SECONDS = 0.005
"""A call waits for the one before it so long at most, then it begins beside it. The engine and numpy's small operations
hold the interpreter lock, for which threads that compute side by side only fight: each call takes longer so."""


class BusyError(PinfeatherError):
    """As many calls wait as may; the same call may be made again in a moment."""


class Workers:
    """At most ``threads`` calls at a time and ``waiting`` more in a queue, first come, first served.

    One thread takes calls one after the other; another one joins it when a call takes long. A call sees the context of
    who awaits it, so also its deadline (:mod:`serving_client.stages`).

    :raises UsageError: for fewer than one thread or a negative queue.
    """

    def __init__(self, threads: int = THREADS, waiting: int = WAITING) -> None:
        if threads < 1 or waiting < 0:
            raise UsageError(f"{threads} threads and {waiting} waiting calls: give at least 1 thread and 0 waiting.")
        self.threads, self.waiting = threads, waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="pinfeather")
        self._lock = threading.Lock()
        self._calls: deque[_Call] = deque()
        """Those that wait."""
        self._began: dict[_Call, float] = {}
        """Those that run, and when they began."""
        self._taking = 0
        """Threads that take calls."""
        self._latest = 0.0
        """When a thread last began, or took a call."""
        self._watching: asyncio.AbstractEventLoop | None = None
        """The loop that looks now and then whether a call waits for a slow one."""
        self._closed = False

    @property
    def pending(self) -> int:
        """Calls that run or wait."""
        return len(self._calls) + len(self._began)

    async def run(self, call: Callable[[], T]) -> T:
        """What ``call`` gives. Who is cancelled or out of time goes; a call that runs then ends by itself, unheard.

        :raises BusyError: if too many wait.
        :raises DeadlineError: at the deadline, even if the thread still works.
        """
        loop = asyncio.get_running_loop()
        wanted = _Call(call, loop)
        self._take_in(wanted, loop)
        try:
            async with asyncio.timeout(seconds_left()) as limit:
                result: T = await wanted.future
                return result
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineError(
                "The deadline passed before the answer was there: give the request more time."
            ) from error
        finally:
            if not wanted.taken:
                with self._lock, suppress(ValueError):  # a thread may have taken it just now
                    self._calls.remove(wanted)
            del wanted  # an error that it got refers to this frame

    def _take_in(self, call: _Call, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._closed:
                raise PinfeatherError("This client was closed; open another one.")
            if self.pending >= self.threads + self.waiting:
                raise BusyError(f"{self.pending} calls run or wait, which is all that may: try again in a moment.")
            self._calls.append(call)
            if self._taking <= 0:
                try:
                    self._begin()
                except BaseException:  # no thread can be started
                    self._calls.pop()
                    raise
            elif self._watching is None or not self._watching.is_running():
                self._watching = loop
                loop.call_later(OVERTAKE_SECONDS, self._look, loop)

    def _begin(self) -> None:
        """Let one more thread take calls; the caller holds the lock."""
        self._executor.submit(self._work)
        self._taking += 1
        self._latest = time.monotonic()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let another thread join if none has taken a call for long; again and again while calls wait."""
        with self._lock:
            if self._watching is not loop:  # another one looks since this one stood still
                return
            self._watching = None
            if not self._calls or self._closed:
                return
            if self._taking < self.threads and time.monotonic() - self._latest >= OVERTAKE_SECONDS:
                self._begin()
            self._watching = loop
        loop.call_later(OVERTAKE_SECONDS, self._look, loop)

    def _work(self) -> None:
        call = self._next(None)
        while call is not None:
            result, error = _made(call.context, call.function)
            following = self._next(call)
            with suppress(RuntimeError):  # its loop was closed meanwhile, so nobody waits
                call.loop.call_soon_threadsafe(_tell, call.future, result, error)
            call = following
            del result, error  # which refers to this frame, too

    def _next(self, done: _Call | None) -> _Call | None:
        """The call that this thread takes after ``done``; None where it takes no more."""
        with self._lock:
            if done is None and self._taking <= 0:  # of a thread that could not be started, and later was
                return None
            now = time.monotonic()
            one_too_many = False
            if done is not None:
                del self._began[done]
                one_too_many = any(now - began < OVERTAKE_SECONDS for began in self._began.values())
            if one_too_many or not self._calls:
                self._taking -= 1
                return None
            call = self._calls.popleft()
            call.taken = True
            self._began[call] = self._latest = now
            return call

    def close(self, *, wait: bool = True) -> None:
        """Take no more calls.

        :param wait: return only when those that run and wait are done; else those that wait are dropped.
        """
        with self._lock:
            self._closed = True
            dropped = [] if wait else list(self._calls)
            if not wait:
                self._calls.clear()
        for call in dropped:
            with suppress(RuntimeError):
                call.loop.call_soon_threadsafe(call.future.cancel)
        self._executor.shutdown(wait=wait)


class _Call:
    """One call and who awaits it."""

    __slots__ = ("context", "function", "future", "loop", "taken")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function, self.context = function, contextvars.copy_context()
        self.loop, self.future = loop, loop.create_future()
        self.taken = False


def _made(context: contextvars.Context, function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a call gives, or its error: which refers to this frame, so nothing here refers to who gets it."""
    try:
        return context.run(function), None
    except BaseException as error:
        return None, error


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # who awaited it is gone
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
