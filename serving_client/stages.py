"""The stages of a request: each checks the deadline when it begins and reports its time when it ends.

``cache`` (query vectors that are kept), ``embed`` (the query tower), ``store`` (reads and searches), ``lexical`` (words
of the candidates), ``head`` (the student) and ``lists`` (diversifying, clustering). Whoever wants the times passes a
listener to :func:`listening`; the HTTP service makes metrics of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

from feature_repo.errors import PinfeatherError, UsageError
from materialize.stores import deadline as store_deadline
from materialize.stores.deadline import seconds_left

__all__ = ["STAGES", "DeadlineError", "Listener", "Stage", "deadline", "listening", "seconds_left", "stage"]

Stage = Literal["cache", "embed", "store", "lexical", "head", "lists"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Listener = Callable[[Stage, float], None]
"""Called with a stage and the seconds it took; calls may come from several threads."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


class DeadlineError(PinfeatherError):
    """The time that the caller gave a request is over."""


@contextmanager
def deadline(seconds: float | None, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Everything called in this block ends with :class:`DeadlineError` at the next stage after ``seconds``.

    Calls of a store's server wait no longer than that. The earlier one counts where blocks are nested; None sets none.

    :raises UsageError: unless ``seconds`` is above 0.
    """
    if seconds is not None and not seconds > 0:
        raise UsageError(f"A deadline of {seconds} seconds is none: give a number above 0, or None.")
    with store_deadline.deadline(seconds, clock):
        yield


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """``listener`` hears of every stage within this block, also of one that failed."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """One stage of a request.

    :raises DeadlineError: if the deadline has passed before it begins.
    """
    if seconds_left() == 0:
        raise DeadlineError(f"The deadline passed before the stage {name!r}: give the request more time.")
    listener = _listener.get()
    if listener is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        listener(name, time.perf_counter() - began)
