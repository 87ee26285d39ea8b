"""Checks of what callers give."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError

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
        given = f"{len(times)} times" if isinstance(times, list | tuple) else f"a {type(times).__name__}"
        raise UsageError(f"{name} is {given} for {count} pins: give one time a pin, in the same order, or None.")
    return np.array([_moment(name, each) for each in times], dtype="datetime64[us]")


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
