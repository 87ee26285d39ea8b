"""Probabilities that mean what they say: one temperature for all logits."""

from __future__ import annotations

import numpy as np

from embedders.evaluation.metrics import Floats
from feature_repo.errors import PinfeatherError

BOUNDS = (0.05, 20.0)
"""Temperatures outside say that the logits or the labels are broken; the fit stops there."""


def fit_temperature(logits: Floats, targets: Floats, weights: Floats | None = None) -> float:
    """The T > 0 that minimises the cross-entropy of ``softmax(logits / T)`` against ``targets``.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017. Fit it on pairs that the
    logits were not trained on. The order of pairs by any one class's odds does not change.

    :param logits: [n, 5]. :param targets: [n, 5] probabilities. :param weights: [n], default ones.
    :raises PinfeatherError: for no pairs or logits that are not finite.
    """
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    if not len(logits) or not np.isfinite(logits).all():
        raise PinfeatherError(f"A temperature needs finite logits of at least one pair, got {len(logits)} pairs.")
    shares = np.ones(len(logits)) if weights is None else np.asarray(weights, np.float64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        log_chances = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -float(shares @ (targets * log_chances).sum(axis=1))

    low, high = (float(np.log(bound)) for bound in BOUNDS)
    ratio = (np.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-4:  # golden section: the loss is convex in 1 / T, hence unimodal in log T
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))
