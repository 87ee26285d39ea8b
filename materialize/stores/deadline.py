"""The time that a caller gives a request: every call of a server within it waits no longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

Clock = Callable[[], float]


class _Deadline(NamedTuple):
    at: float
    clock: Clock


_deadline: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline(seconds: float | None, clock: Clock = time.monotonic) -> Iterator[None]:
    """What is called in this block has ``seconds``; where blocks are nested the earliest end counts; None sets none.

    :param clock: seconds, of a clock that never goes back.
    """
    left = seconds_left()
    if seconds is None or (left is not None and left <= seconds):
        yield
        return
    token = _deadline.set(_Deadline(clock() + seconds, clock))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float | None:
    """Seconds until the deadline of this request, at least 0; None without one."""
    found = _deadline.get()
    return None if found is None else max(found.at - found.clock(), 0.0)
