"""How well five levels and their probabilities fit the judged ones: kappa, calibration error, confusion, agreement.

Every figure that is no mean over pairs is made of sums by query, so that a bootstrap draw of queries is one product
with the draws [B, Q] (:mod:`embedders.evaluation.intervals`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation.metrics import LEVELS, Floats, Ints, expected_level, predicted_levels

CALIBRATION_BINS = 15
"""Bins of equal mass in which confidence is compared with accuracy."""
BIN_PAIRS = 10
"""Fewest pairs to a bin: a small set has fewer bins, for a bin of two or three pairs says nothing."""
_LEAST = 1e-12  # a probability below counts as this: a KL divergence stays finite


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: one point a bin, by rising confidence."""

    confidence: NDArray[np.float64]
    """Mean confidence of each bin that is not empty."""
    share: NDArray[np.float64]
    """Share of its pairs that came true."""
    pairs: Ints
    """Pairs in it."""

    @property
    def error(self) -> float:
        """The expected calibration error: mean distance of the points from the diagonal, by pairs; NaN without any."""
        total = self.pairs.sum()
        return float((np.abs(self.confidence - self.share) * self.pairs).sum() / total) if total else float("nan")


def confusion(levels: Ints, predicted: Ints) -> Ints:
    """[5, 5] number of pairs by judged level (row) and predicted level (column)."""
    return np.bincount(_cells(levels, predicted), minlength=LEVELS**2).reshape(LEVELS, LEVELS)


def kappa_of_draws(levels: Ints, predicted: Ints, groups: Ints, draws: Floats) -> Floats:
    """Quadratic weighted kappa of each row of ``draws`` [B, Q], how often each query counts; [B], at most 1.

    One less the squared distance of judged and predicted levels over what it would be if both were drawn apart with
    the same frequencies (Cohen, "Weighted kappa", Psychological Bulletin 70, 1968); the ``cohen_kappa_score`` of
    scikit-learn with quadratic weights. NaN where that is 0, when both know one and the same level only.
    """
    by_query = np.zeros((draws.shape[1], LEVELS**2))
    np.add.at(by_query, (groups, _cells(levels, predicted)), 1.0)
    counts = (draws @ by_query).reshape(-1, LEVELS, LEVELS)
    distance = np.subtract.outer(np.arange(LEVELS), np.arange(LEVELS)) ** 2
    found = (counts * distance).sum((1, 2)) * counts.sum((1, 2))
    by_chance = np.einsum("bi,ij,bj->b", counts.sum(2), distance.astype(np.float64), counts.sum(1))
    return 1 - np.divide(found, by_chance, out=np.full(len(counts), np.nan), where=by_chance > 0)


def calibration_error_of_draws(confidence: Floats, true: NDArray[np.bool_], groups: Ints, draws: Floats) -> Floats:
    """Expected calibration error of each row of ``draws`` [B, Q]; [B] in 0..1, NaN for a draw without pairs.

    The mean over bins, by their pairs, of |mean confidence - share that came true| (Naeini, Cooper and Hauskrecht,
    "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; of the predicted class as in Guo et
    al., "On calibration of modern neural networks", ICML 2017), in bins of equal mass (Nguyen and O'Connor,
    "Posterior calibration and exploratory analysis for natural language processing models", EMNLP 2015). The bins are
    those of all pairs in every draw.

    :param confidence: [n] probability of what may come true. :param true: [n] whether it did.
    """
    bins, count = calibration_bins(confidence)
    gaps = np.zeros((draws.shape[1], count))
    np.add.at(gaps, (groups, bins), np.asarray(confidence, np.float64) - np.asarray(true, bool))
    total = draws @ np.bincount(groups, minlength=draws.shape[1])
    return np.divide(np.abs(draws @ gaps).sum(1), total, out=np.full(len(draws), np.nan), where=total > 0)


def calibration_bins(confidence: Floats) -> tuple[Ints, int]:
    """[n] the bin of each pair, and the number of bins; pairs of one confidence share a bin, whatever the order."""
    confidence = np.asarray(confidence, np.float64)
    rows = len(confidence)
    count = int(np.clip(rows // BIN_PAIRS, 1, CALIBRATION_BINS))
    ordered = np.sort(confidence)
    edges = ordered[[number * rows // count for number in range(1, count)]] if rows else ordered
    return np.searchsorted(edges, confidence, side="right"), count


def reliability(confidence: Floats, true: NDArray[np.bool_]) -> Reliability:
    """The reliability diagram (DeGroot and Fienberg, "The comparison and evaluation of forecasters", 1983)."""
    bins, count = calibration_bins(confidence)
    pairs = np.bincount(bins, minlength=count)
    kept = pairs > 0
    sums = [np.bincount(bins, np.asarray(each, np.float64), minlength=count) for each in (confidence, true)]
    return Reliability(sums[0][kept] / pairs[kept], sums[1][kept] / pairs[kept], pairs[kept])


def agreement(teacher: Floats, probabilities: Floats) -> dict[str, float | None]:
    """How close a scorer is to a teacher's labels, both [n, 5]; never a figure of quality.

    ``accuracy``: share with the same most probable level; ``kl``: mean Kullback-Leibler divergence of the teacher from
    the scorer, in nats; ``expected_level_correlation``: Pearson's, None where one of the two does not vary.
    """
    target, given = (np.maximum(np.asarray(each, np.float64), _LEAST) for each in (teacher, probabilities))
    divergence = (target * (np.log(target) - np.log(given))).sum(axis=1)
    levels = expected_level(teacher), expected_level(probabilities)
    varies = min(np.std(each) for each in levels) > _LEAST
    return {
        "accuracy": float(np.mean(predicted_levels(teacher) == predicted_levels(probabilities))),
        "kl": float(np.mean(divergence)),
        "expected_level_correlation": float(np.corrcoef(*levels)[0, 1]) if varies else None,
    }


def _cells(levels: Ints, predicted: Ints) -> Ints:
    return (np.asarray(levels) - 1) * LEVELS + np.asarray(predicted) - 1
