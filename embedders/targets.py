"""What training aims at: five probabilities for each judged pair, from levels and from how far raters agreed."""

from __future__ import annotations

import numpy as np

from embedders.evaluation.metrics import LEVELS, Floats, Ints
from feature_repo.errors import PinfeatherError

MAX_DEVIATION = 0.8
"""Raters who disagree more than this many levels leave the target no flatter: the median still is what most said."""
MIN_DEVIATION = 0.25


def soft_targets(levels: Ints, means: Floats | None = None, variances: Floats | None = None) -> Floats:
    """[n, 5] targets, each row summing to 1.

    Our choice, in this order. Raters' variance v known: a discrete normal around the mean (around the level without
    one), with the deviation sqrt(v) kept between 0.25 and 0.8 levels. Only the mean known: the two levels around it,
    so that the target's mean is the raters'. Neither: all on the level. A level that never occurs in the set gets
    nothing, for the raters had no such answer.

    :param levels: [n] in 1..5. :param means: [n] in 1..5 or NaN. :param variances: [n] >= 0 or NaN.
    :raises PinfeatherError: for values outside these ranges.
    """
    levels = np.asarray(levels, np.int64)
    _check("level", levels, 1, LEVELS)
    targets = np.eye(LEVELS)[levels - 1]
    nothing = np.full(len(levels), np.nan)
    mean = nothing if means is None else np.asarray(means, np.float64)
    variance = nothing if variances is None else np.asarray(variances, np.float64)
    _check("level_mean", mean[~np.isnan(mean)], 1, LEVELS)
    _check("level_variance", variance[~np.isnan(variance)], 0, (LEVELS - 1) ** 2)
    scale = np.arange(1.0, LEVELS + 1)
    asked = np.isin(np.arange(1, LEVELS + 1), levels)
    between = ~np.isnan(mean) & np.isnan(variance)
    near = np.maximum(0, 1 - np.abs(mean[between, None] - scale)) * asked
    # where nobody could give either of the two levels, the level itself is all that is known
    targets[between] = np.where(near.sum(axis=1, keepdims=True) > 0, near, targets[between])
    spread = ~np.isnan(variance)
    centre = np.where(np.isnan(mean), levels, mean)[spread, None]
    deviation = np.clip(np.sqrt(variance[spread, None]), MIN_DEVIATION, MAX_DEVIATION)
    targets[spread] = np.exp(-(((scale - centre) / deviation) ** 2) / 2) * asked
    return targets / targets.sum(axis=1, keepdims=True)


def mean_targets(targets: Floats, pair_of: Ints, pairs: int) -> Floats:
    """[pairs, 5] mean of the targets of each pair's judgments.

    :param targets: [m, 5] of m judgments. :param pair_of: [m] the number of each one's pair; every pair has one.
    """
    total = np.zeros((pairs, LEVELS))
    np.add.at(total, np.asarray(pair_of), targets)
    return total / total.sum(axis=1, keepdims=True)


def balanced_weights(targets: Floats, power: float = 0.5) -> Floats:
    """[n] weights, mean 1, that lift pairs of rare levels: expected (1 / share of the level) ** ``power``.

    ``power`` 0 leaves all alike, 1 makes all levels weigh the same; a level that never occurs counts for nothing.
    """
    shares = targets.mean(axis=0)
    lifts = np.divide(1.0, shares, out=np.zeros(LEVELS), where=shares > 0) ** power
    weights = targets @ np.where(shares > 0, lifts, 0.0)
    return weights / weights.mean()


def _check(name: str, values: np.ndarray, low: float, high: float) -> None:
    wrong = ~((values >= low) & (values <= high))
    if wrong.any():
        raise PinfeatherError(
            f"{name} {values[wrong][0]:g} is not between {low} and {high:g}: correct the judgments, or leave the "
            f"column {name} out."
        )
