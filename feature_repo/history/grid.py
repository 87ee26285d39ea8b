"""The grid of times that snapshots are taken at: whole multiples of an interval since 1970, in UTC microseconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_repo.errors import UsageError

DAY = 86_400 * 10**6
MOST_DAYS = 3_650


def interval(days: int) -> int:
    """Microseconds of ``days``.

    :raises UsageError: if that is not 1 to :data:`MOST_DAYS`.
    """
    if not 1 <= days <= MOST_DAYS:
        raise UsageError(f"--every is {days}: give 1 to {MOST_DAYS} days.")
    return days * DAY


def snapshot_times(moments: npt.NDArray[np.int64], every: int) -> npt.NDArray[np.int64]:
    """For each moment the last time of the grid that lies strictly before it, shape as given.

    Strictly, because a snapshot holds the events of its own microsecond, and the labelled event may be one of them.
    """
    return (moments - 1) // every * every


def snapshot_time(moment: int, every: int) -> int:
    """:func:`snapshot_times` of one moment."""
    return (moment - 1) // every * every
