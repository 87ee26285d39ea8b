"""Relevance blended with what people did before, by an explicit formula.

    score = expected level + engagement weight * prior      where the expected level is at least the floor
    score = expected level                                  below it

The prior is between 0 and 1: with lift = (click rate / 5 % + save rate / 2 %) / 2, it is lift / (1 + lift). The rates
are those of :mod:`feature_repo.aggregates.engagement`, smoothed towards exactly these 5 % and 2 %, so a pin that nobody
was shown yet has 0.5, as has the ordinary one; twice the ordinary engagement gives 0.67, none after many impressions
nearly 0. An engagement weight of 1 can lift a pin by one level at most; 0 ranks by relevance alone.

Popular pins that do not fit must not pass those that do: what lies below the floor gets nothing from the prior, and as
the prior takes nothing away either, it stands below everything at or above the floor, by relevance alone. It is not
left out, so a search with few good pins still fills its page.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ORDINARY_CLICKS = 0.05
ORDINARY_SAVES = 0.02
"""Rates of a pin of which nothing is known, those of :mod:`feature_repo.aggregates.engagement`."""

DEFAULT_FLOOR = 3.0
"""Level 3 fits in part."""


def engagement_prior(click_rate: NDArray[np.floating], save_rate: NDArray[np.floating]) -> Floats:
    """The prior of n pins, 0 to 1; a rate that is NaN counts as the ordinary one."""
    clicks = np.nan_to_num(np.asarray(click_rate, np.float64) / ORDINARY_CLICKS, nan=1.0)
    saves = np.nan_to_num(np.asarray(save_rate, np.float64) / ORDINARY_SAVES, nan=1.0)
    lift = (clicks + saves) / 2
    return lift / (1 + lift)


def blended(expected: Floats, prior: Floats, weight: float, floor: float) -> Floats:
    """The scores of n pins by the formula above; NaN stays NaN.

    :param expected: [n] levels. :param prior: [n], 0 to 1. :param weight: 0 or more.
    """
    return np.where(expected >= floor, expected + weight * prior, expected)
