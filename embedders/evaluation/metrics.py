"""Measures of a graded ranking and of five-level classification, in numpy.

Levels are 1 (irrelevant) to 5 (perfect). A *weight* is how often a query was drawn by the bootstrap
(:mod:`embedders.evaluation.intervals`); every measure is defined under weights, and all ones is the plain measure.

Ties are broken by nobody: a pair gets the mean gain of all pairs that share its score, which is the expected value over
every order of the tied pairs (McSherry and Najork, "Computing information retrieval performance measures efficiently in
the presence of tied scores", ECIR 2008). So neither file order nor pair ids decide a figure.

A query none of whose pairs has any gain stays in the mean and counts as zero, as ``ir_measures`` counts it; the order
of such pairs cannot be judged, and every scorer pays the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

LEVELS = 5
GAINS = np.array([0.0, 1.0, 3.0, 7.0, 15.0])
"""nDCG gain of levels 1 to 5: 2^(level-1) - 1, so that an irrelevant pin earns nothing."""
RELEVANT_LEVEL = 4
"""A pin of this level or more counts as relevant for precision."""
NDCG_CUTOFF = 20
PRECISION_CUTOFF = 8
WIN_CELLS = 8_000_000
"""Most pairs x queries for which :func:`auroc_of_draws` is used: 64 MB at a time."""


def ndcg_by_query(levels: Ints, scores: Floats, groups: Ints, k: int = NDCG_CUTOFF) -> Floats:
    """nDCG@k of every query, [Q] in 0..1: sum of gain / log2(rank + 1) over that of the best order.

    Same as ``nDCG(gains={1: 0, 2: 1, 3: 3, 4: 7, 5: 15})@k`` of ir_measures where no scores tie.

    :param levels: [n] in 1..5. :param scores: [n], higher is better. :param groups: [n] query numbers 0..Q-1.
    """
    gains = GAINS[np.asarray(levels) - 1]
    got = _discounted(gains, scores, groups, k)
    best = _discounted(gains, gains, groups, k)
    return np.divide(got, best, out=np.zeros_like(got), where=best > 0)


def precision_by_query(levels: Ints, scores: Floats, groups: Ints, k: int = PRECISION_CUTOFF) -> Floats:
    """Share of the top ``k`` with level 4 or 5, [Q]; a query with fewer than k pairs still divides by k.

    Same as ``P(rel=4)@k`` of ir_measures where no scores tie.
    """
    relevant = (np.asarray(levels) >= RELEVANT_LEVEL).astype(np.float64)
    order, rank, tie_group = _ranking(scores, groups)
    taken = np.where(rank < k, _tie_means(relevant[order], tie_group), 0.0)
    return np.bincount(np.asarray(groups)[order], taken, minlength=_count(groups)) / k


def auroc(positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None) -> Floats:
    """Chance that a positive pair scores above a negative one, ties counting half (the Mann-Whitney statistic).

    :param positive: [n]. :param scores: [n].
    :param weights: [B, n] draws, or None for one draw of ones.
    :returns: [B] in 0..1; NaN for a draw in which one of the classes does not occur.
    """
    scores = np.asarray(scores, np.float64)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0]) if len(order) else np.zeros(0, np.int64)
    draws = np.ones((1, len(scores))) if weights is None else weights
    if not len(order):
        return np.full(len(draws), np.nan)
    drawn, hit = draws[:, order], np.asarray(positive, bool)[order]
    above = np.add.reduceat(drawn * hit, starts, axis=1)
    below = np.add.reduceat(drawn * ~hit, starts, axis=1)
    wins = np.einsum("bg,bg->b", above, np.cumsum(below, axis=1) - below / 2)
    pairs = above.sum(1) * below.sum(1)
    return np.divide(wins, pairs, out=np.full(len(draws), np.nan), where=pairs > 0)


def auroc_of_draws(positive: NDArray[np.bool_], scores: Floats, groups: Ints, draws: Ints | Floats) -> Floats:
    """:func:`auroc` of every row of ``draws`` [B, Q], how often each query counts; same values, far less arithmetic.

    The wins of query q's positive pairs over query r's negative ones are counted once, [Q, Q]; a draw is then one
    quadratic form. Needs n * Q cells: see :data:`WIN_CELLS`.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    queries = draws.shape[1]
    order = np.argsort(scores, kind="stable")
    negatives = np.zeros((len(order) + 1, queries))
    negatives[np.arange(1, len(order) + 1), groups[order]] = ~positive[order]
    np.cumsum(negatives, axis=0, out=negatives)  # row i: negatives of each query among the i lowest scores
    ranked, asked = scores[order], scores[positive]
    won = (negatives[np.searchsorted(ranked, asked, "left")] + negatives[np.searchsorted(ranked, asked, "right")]) / 2
    wins = np.zeros((queries, queries))
    np.add.at(wins, groups[positive], won)
    weights = draws.astype(np.float64)
    pairs = (weights @ np.bincount(groups[positive], minlength=queries)) * (weights @ negatives[-1])
    total = np.einsum("bq,bq->b", weights @ wins, weights)
    return np.divide(total, pairs, out=np.full(len(draws), np.nan), where=pairs > 0)


def correct(levels: Ints, probabilities: Floats) -> Floats:
    """[n] 1.0 where the most probable level is the judged one (the lower level of two that tie)."""
    return (predicted_levels(probabilities) == levels).astype(np.float64)


def within_one(levels: Ints, probabilities: Floats) -> Floats:
    """[n] 1.0 where the most probable level is at most one from the judged one."""
    return (np.abs(predicted_levels(probabilities) - np.asarray(levels)) <= 1).astype(np.float64)


def predicted_levels(probabilities: Floats) -> Ints:
    """The most probable level, 1..5, of each row of [n, 5]."""
    return np.argmax(probabilities, axis=1) + 1


def expected_level(probabilities: Floats) -> Floats:
    """Mean level, 1..5, under each row of [n, 5]."""
    return np.asarray(probabilities, np.float64) @ np.arange(1.0, LEVELS + 1)


def at_least(probabilities: Floats, level: int) -> Floats:
    """P(level or more) of each row of [n, 5]."""
    return np.asarray(probabilities, np.float64)[:, level - 1 :].sum(axis=1)


def _count(groups: Ints) -> int:
    return int(np.max(groups)) + 1 if len(groups) else 0


def _ranking(scores: Floats, groups: Ints) -> tuple[Ints, Ints, Ints]:
    """Order by query and falling score; the rank of each ordered row in its query; numbers of the runs of ties."""
    scores, groups = np.asarray(scores, np.float64), np.asarray(groups)
    order = np.lexsort((-scores, groups))
    grouped, scored = groups[order], scores[order]
    new_query = np.r_[True, grouped[1:] != grouped[:-1]][: len(order)]
    starts = np.flatnonzero(new_query)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    new_tie = new_query | np.r_[True, scored[1:] != scored[:-1]][: len(order)]
    return order, rank, np.cumsum(new_tie) - 1


def _tie_means(values: Floats, tie_group: Ints) -> Floats:
    totals = np.bincount(tie_group, values)
    return (totals / np.maximum(np.bincount(tie_group), 1))[tie_group]


def _discounted(gains: Floats, scores: Floats, groups: Ints, k: int) -> Floats:
    order, rank, tie_group = _ranking(scores, groups)
    discount = np.where(rank < k, 1.0 / np.log2(rank + 2.0), 0.0)
    earned = _tie_means(gains[order], tie_group) * discount
    return np.asarray(np.bincount(np.asarray(groups)[order], earned, minlength=_count(groups)), dtype=np.float64)
