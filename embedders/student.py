"""The student's head: five-level relevance from the features of a pair, in numpy alone when it serves.

The head is multinomial logistic regression over standardised features: ``softmax(z W + b)`` with levels 1 to 5.
:func:`train_head` fits it; the towers that make the features come from :mod:`embedders.encoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation.metrics import LEVELS, expected_level
from embedders.relevance import TOWER_PRODUCT
from feature_repo.errors import PinfeatherError

Floats = NDArray[np.floating]
Levels = Sequence[int] | NDArray[np.number]

BASELINE = (LEVELS + 1) / 2
"""Expected level of five equal logits: 3.0, what the head says when it is told nothing."""
BLOCK_NAME = "tower products"
"""The one name under which all tower products are explained."""
CLIP = 5.0
"""Standard deviations at which a feature is cut off, so that one odd value cannot decide alone."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_EXACT = 1e-7
_BLOCK = 64
"""Rows at a time, so that what lies between features and logits stays in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why n pairs got their expected level: ``contributions.sum(axis=1) + bias == expected_level - baseline``."""

    names: tuple[str, ...]
    """N names; the tower products are one of them."""
    contributions: NDArray[np.float64]
    """[n, N] in levels; positive raises."""
    bias: NDArray[np.float64]
    """[n] what a pair of average features gets beyond the baseline: the same in every row."""
    baseline: float

    def top(self, row: int, count: int = 3) -> list[tuple[str, float]]:
        """The ``count`` names that moved ``row`` most, with their contribution."""
        order = np.argsort(-np.abs(self.contributions[row]), kind="stable")[:count]
        return [(self.names[column], float(self.contributions[row, column])) for column in order]


@dataclass(frozen=True, eq=False)
class RelevanceHead:
    """Five probabilities from raw features [n, F]: standardise, missing to the mean, clip, one linear layer, softmax.

    A missing value (NaN) becomes 0 after standardising, so it says nothing by itself; what missingness means is
    learned by the mask columns of :mod:`embedders.relevance`. A feature that never varied in training has scale 0 and
    is switched off.
    """

    names: tuple[str, ...]
    """F feature names in the order of the columns."""
    mean: NDArray[np.float32]
    """[F]"""
    scale: NDArray[np.float32]
    """[F] one over the standard deviation, or 0."""
    weights: NDArray[np.float32]
    """[F, 5]"""
    bias: NDArray[np.float32]
    """[5]"""

    def standardised(self, features: Floats) -> NDArray[np.float32]:
        """[n, F] standardised and clipped, missing values 0.

        :raises PinfeatherError: if the number of columns is not that of the head.
        """
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise PinfeatherError(
                f"The head reads [n, {len(self.names)}] features, got {list(features.shape)}: the bundle belongs to "
                "other towers or another version of the features. Train it again with `pinfeather train student`."
            )
        z = np.subtract(features, self.mean)
        with np.errstate(invalid="ignore"):  # infinity in a feature that is switched off
            z *= self.scale
        np.copyto(z, 0, where=np.isnan(z))
        np.minimum(z, CLIP, out=z)  # with maximum a third of the time of clip: this is on the way of every request
        return np.maximum(z, -CLIP, out=z)

    def logits(self, features: Floats) -> NDArray[np.float64]:
        """[n, 5] before the softmax."""
        blocks = [features[start : start + _BLOCK] for start in range(0, len(features), _BLOCK)] or [features]
        return np.concatenate([_logits(self.standardised(block), self.weights, self.bias) for block in blocks])

    def probabilities(self, features: Floats) -> NDArray[np.float64]:
        """P(level 1) to P(level 5) of each row, [n, 5]; rows sum to 1."""
        return softmax(self.logits(features))

    def expected_level(self, features: Floats) -> NDArray[np.float64]:
        """Mean level of each row, [n] in 1..5: the score that ranks."""
        return expected_level(self.probabilities(features)).astype(np.float64)

    def explain(self, features: Floats) -> Explanation:
        """What each feature added to the expected level, exact to 1e-6.

        Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017) along
        the straight path from a pair whose features are all average to this pair; their completeness makes the parts
        sum to the whole. The bias is what the average pair gets beyond the baseline, the same for every pair. The
        integral is Gauss-Legendre quadrature, in halves until the parts sum.
        """
        z = self.standardised(features)
        start = self.bias.astype(np.float64)
        slopes = _mean_slopes(start, _logits(z, self.weights, np.zeros_like(self.bias)))
        parts = z.astype(np.float64) * (slopes @ self.weights.T.astype(np.float64))
        block = np.array([name.startswith(TOWER_PRODUCT) for name in self.names])
        names = tuple(name for name, blocked in zip(self.names, block, strict=True) if not blocked)
        if block.any():
            names += (BLOCK_NAME,)
            parts = np.column_stack([parts[:, ~block], parts[:, block].sum(axis=1)])
        bias = float(expected_level(softmax(start[None]))[0]) - BASELINE
        return Explanation(names, parts, np.full(len(parts), bias), BASELINE)


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Rows of [n, k] as probabilities."""
    exponents = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def _logits(z: NDArray[np.float32], weights: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float64]:
    # float64 so that one row alone and the same row among 500 agree to the last figures a user sees
    return z.astype(np.float64) @ weights.astype(np.float64) + bias


def _mean_slopes(start: NDArray[np.float64], steps_to: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient of the expected level by the logits, averaged over start + t * steps_to, 0 <= t <= 1, [n, 5]."""
    target = expected_level(softmax(start + steps_to)) - expected_level(softmax(start[None]))
    slopes = np.zeros_like(steps_to)
    pending = np.arange(len(steps_to))
    pieces = 1
    while len(pending) and pieces <= 64:
        steps = ((_NODES[None] + np.arange(pieces)[:, None]) / pieces).ravel()
        shares = np.tile(_WEIGHTS, pieces) / pieces
        slopes[pending] = _quadrature(start, steps_to[pending], steps, shares)
        wrong = np.abs((slopes[pending] * steps_to[pending]).sum(axis=1) - target[pending]) > _EXACT
        pending, pieces = pending[wrong], pieces * 2
    # What quadrature leaves of a step that is all but a cliff goes along the path, so that the parts sum to the whole.
    left = target - (slopes * steps_to).sum(axis=1)
    length = np.maximum((steps_to**2).sum(axis=1), np.finfo(np.float64).tiny)
    return slopes + (left / length)[:, None] * steps_to


def _quadrature(
    start: NDArray[np.float64], steps_to: NDArray[np.float64], steps: Floats, shares: Floats
) -> NDArray[np.float64]:
    total = np.zeros_like(steps_to)
    values = np.arange(1.0, LEVELS + 1)
    for step, share in zip(steps, shares, strict=True):
        chances = softmax(start + step * steps_to)
        centred = values - (chances @ values)[:, None]
        total += share * chances * centred
    return total


PRODUCT_PENALTIES = (10_000.0, 1_000.0)
"""Penalties tried for the tower products, strongest first; a query-disjoint slice of the training pairs chooses."""
PENALTY = 30.0
"""Penalty (sum over weights, against the summed log-loss) on all other features."""
_SLICE = 5  # one fifth of the queries chooses
_MIN_GROUPS = 10  # fewer queries cannot choose: the strongest penalty is taken


def train_head(
    features: Floats,
    levels: Levels,
    names: Sequence[str],
    groups: Sequence[int] | NDArray[np.integer] | None = None,
    seed: int = 0,
    penalty: float = PENALTY,
    product_penalty: float | None = None,
) -> RelevanceHead:
    """Fit a head by penalised maximum likelihood; convex and full-batch, so the same input gives the same head.

    Levels are not reweighted when some are rare: the probabilities then stay those of the pairs as they come. Every
    level gets one pair's worth of belief beforehand, so one that never occurs keeps a small, finite probability.

    :param features: [n, F] raw features, NaN where missing.
    :param levels: [n] levels 1..5, or [n, 5] soft targets whose rows sum to 1.
    :param names: F names; those with :data:`TOWER_PRODUCT` get ``product_penalty``.
    :param groups: [n] query numbers; with them ``product_penalty`` None is chosen on queries held back.
    :param seed: picks the queries that are held back.
    :raises PinfeatherError: for no pairs, levels outside 1..5, targets that are no probabilities, or other lengths.
    """
    features = np.asarray(features, dtype=np.float32)
    targets = _targets(levels, len(features))
    if features.ndim != 2 or features.shape[1] != len(names):
        raise PinfeatherError(f"Features of shape {list(features.shape)} do not fit {len(names)} names.")
    block = np.array([name.startswith(TOWER_PRODUCT) for name in names], dtype=bool)
    untrained = _untrained(features, tuple(names))
    z = untrained.standardised(features)
    if product_penalty is None:
        product_penalty = PRODUCT_PENALTIES[0]
        if block.any() and groups is not None:
            product_penalty = _choose(z, targets, block, np.asarray(groups), penalty, seed)
    weights, bias = _fit(z, targets, np.where(block, product_penalty, penalty))
    return replace(untrained, weights=weights.astype(np.float32), bias=bias.astype(np.float32))


def _targets(levels: Levels, rows: int) -> NDArray[np.float64]:
    given = np.asarray(levels, dtype=np.float64)
    if not rows or len(given) != rows:
        raise PinfeatherError(
            f"Training needs one level for each pair and at least one pair: got {rows} and {len(given)}."
        )
    if given.ndim == 2:
        if given.shape[1] != LEVELS or (given < 0).any() or not np.allclose(given.sum(axis=1), 1, atol=1e-3):
            raise PinfeatherError("Soft targets must be [n, 5] probabilities: not negative, each row summing to 1.")
        return given
    wrong = ~np.isin(given, np.arange(1, LEVELS + 1))
    if wrong.any():
        raise PinfeatherError(f"Level {given[wrong][0]:g} is not one of 1, 2, 3, 4, 5: correct the judgments.")
    return np.eye(LEVELS)[given.astype(np.int64) - 1]


def _untrained(features: NDArray[np.float32], names: tuple[str, ...]) -> RelevanceHead:
    """A head that standardises by ``features`` and knows nothing yet."""
    known = np.isfinite(features)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, features, 0).astype(np.float64)
    mean = values.sum(axis=0) / count
    deviation = np.sqrt((np.where(known, features - mean, 0) ** 2).sum(axis=0) / count)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
    width = len(names)
    return RelevanceHead(
        names,
        mean.astype(np.float32),
        scale.astype(np.float32),
        np.zeros((width, LEVELS), np.float32),
        np.zeros(LEVELS, np.float32),
    )


def _choose(
    z: Floats, targets: Floats, block: NDArray[np.bool_], groups: NDArray[np.integer], penalty: float, seed: int
) -> float:
    """The product penalty with the least log-loss on held-back queries."""
    distinct = np.unique(groups)
    if len(distinct) < _MIN_GROUPS:
        return PRODUCT_PENALTIES[0]
    back = np.random.default_rng(seed).permutation(distinct)[: len(distinct) // _SLICE]
    held = np.isin(groups, back)
    losses = {}
    start = None
    for candidate in PRODUCT_PENALTIES:
        start = _fit(z[~held], targets[~held], np.where(block, candidate, penalty), start)
        chances = softmax(z[held] @ start[0] + start[1])
        losses[candidate] = -float((targets[held] * np.log(np.maximum(chances, 1e-12))).sum())
    return min(losses, key=lambda candidate: losses[candidate])


def _fit(
    z: Floats,
    targets: Floats,
    penalties: Floats,
    start: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [F, 5] and bias [5] that minimise log-loss plus half the penalised squares, by L-BFGS."""
    import torch

    rows, width = z.shape
    unit = 1 / np.sqrt(np.asarray(penalties, np.float64))[:, None]  # in these units all weights are penalised alike,
    x = torch.from_numpy((z * unit[:, 0]).astype(np.float32))  # which makes L-BFGS several times faster
    y = torch.from_numpy(targets)
    weights = torch.zeros((width, LEVELS), dtype=torch.float64)
    bias = torch.log(y.sum(0) + 1) - torch.log(y.sum(0) + 1).mean()
    if start is not None:
        weights, bias = torch.from_numpy(start[0] / unit), torch.from_numpy(start[1].copy())
    parameters = [weights.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=60,
        tolerance_grad=1e-5,
        tolerance_change=1e-8,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = -(y * torch.log_softmax((x @ weights.float()).double() + bias, 1)).sum()
        loss = loss - torch.log_softmax(bias, 0).sum() + (weights**2).sum() / 2
        (loss / rows).backward()
        return loss / rows

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the steps are small: on a busy machine threads wait for each other longer than they work
    try:
        optimiser.step(closure)
    finally:
        torch.set_num_threads(threads)
    return weights.detach().numpy() * unit, bias.detach().numpy()


class LevelCalibrator:
    """Five probabilities from one raw score (BM25, cosine), so that accuracy is defined for every scorer.

    A multinomial logistic regression on that score alone, fitted on pairs whose queries are not judged.
    """

    def __init__(self, head: RelevanceHead) -> None:
        self.head = head

    @classmethod
    def fit(cls, scores: Floats, levels: Levels) -> LevelCalibrator:
        """Fit on ``scores`` [n] and ``levels`` [n] in 1..5 (or soft targets [n, 5])."""
        return cls(train_head(np.asarray(scores, np.float32)[:, None], levels, ("score",)))

    def probabilities(self, scores: Floats) -> NDArray[np.float64]:
        """[n, 5] for ``scores`` [n]."""
        return self.head.probabilities(np.asarray(scores, np.float32)[:, None])
