"""Checks of what callers give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from feature_repo.board_text import Board
from feature_repo.errors import UsageError

_Item = TypeVar("_Item")

MOST_LISTED = 1_000
"""Pins, or boards, that a list holds at most."""


def check_limit(limit: int) -> None:
    """Refuse a length of a list that is not 1 to :data:`MOST_LISTED`.

    :raises UsageError: if it is, or is no whole number.
    """
    check_range("limit", limit, 1, MOST_LISTED)
    if not isinstance(limit, Integral):
        raise UsageError(f"limit is {limit}, but must be a whole number.")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside low..high.

    :raises UsageError: if it is, is not finite, or is no number.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise UsageError(f"{name} is {value!r:.60}, but must be a number from {low:g} to {high:g}.")


def moments(name: str, times: Sequence[datetime | str], count: int) -> NDArray[np.datetime64]:
    """Times as microseconds in UTC, [count]; a time without a zone is UTC.

    :param times: each a datetime, or a text in ISO 8601.
    :raises UsageError: if there are more or fewer than ``count``, or one is no time.
    """
    if isinstance(times, str | bytes) or not isinstance(times, Sequence) or len(times) != count:
        listed = isinstance(times, list | tuple)
        given = f"has {_counted(len(times), 'time')}" if listed else f"is of type {type(times).__name__}"
        pins = _counted(count, "pin")
        raise UsageError(f"{name} {given} for {pins}: give one time a pin, in the same order, or None.")
    return np.array([_moment(name, each) for each in times], dtype="datetime64[us]")


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _moment(name: str, time: datetime | str) -> datetime:
    try:
        when = time if isinstance(time, datetime) else datetime.fromisoformat(time)
        if when != when:  # pandas' NaT is a datetime
            raise ValueError("no time")
        return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{name} has {time!r:.60}, which is no time: give datetimes or texts like 2026-11-01T12:00:00+00:00 (ISO "
            "8601)."
        ) from error


def text_list(name: str, values: Iterable[str]) -> list[str]:
    """The batch as a list of texts; numbers of a column of ids count as their digits.

    :raises UsageError: if one text was given instead of a batch.
    """
    return [str(value) for value in listed(name, values)]


def listed(name: str, values: Iterable[_Item]) -> Iterable[_Item]:
    """``values``, any iterable but a text.

    :raises UsageError: for a text, or what is no batch at all.
    """
    if isinstance(values, str | bytes):
        raise UsageError(f"{name} takes a list, not one text: give [{values!r:.60}].")
    if not isinstance(values, Iterable):
        raise UsageError(f"{name} takes a list, not {values!r:.60}.")
    return values


def board_of(board: Board | str | Sequence[str]) -> Board:
    """A board out of any form in which one may be given.

    :raises UsageError: if it is none of them.
    """
    if isinstance(board, Board):
        return board
    parts = [board] if isinstance(board, str) else board
    if not isinstance(parts, Sequence) or not all(isinstance(text, str) for text in parts):
        raise UsageError(f"A board is its title, or a list of its title and titles of its pins, not {board!r:.60}.")
    title, *titles = parts or [""]
    return Board(title, tuple(titles))
