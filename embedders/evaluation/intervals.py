"""95 % intervals by resampling whole queries, so that pairs of one query are never taken for independent ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedders.evaluation.metrics import Floats, Ints

SAMPLES = 1000
COVERAGE = 0.95
_CELLS = 4_000_000  # of the [draws, pairs] weights held at a time: 32 MB


def query_draws(queries: int, samples: int = SAMPLES, seed: int = 0) -> Ints:
    """How often each query occurs in each bootstrap sample, [samples, queries]; the same seed gives the same draws.

    Two scorers measured under the same draws give a paired bootstrap (Efron and Tibshirani, 1993).
    """
    generator = np.random.default_rng(seed)
    if not queries:
        return np.zeros((samples, 0), np.int64)
    return generator.multinomial(queries, np.full(queries, 1.0 / queries), size=samples)


def pair_weights(draws: Ints | Floats, groups: Ints) -> Iterator[Floats]:
    """The draws spread over pairs, [some, n] at a time so that memory stays bounded."""
    step = max(1, _CELLS // max(1, len(groups)))
    for start in range(0, len(draws), step):
        yield draws[start : start + step][:, groups].astype(np.float64)


def interval(values: Floats) -> list[float] | None:
    """[low, high] of the middle 95 % of ``values`` without their NaN; None if none is left."""
    known = np.asarray(values)[~np.isnan(values)]
    if not len(known):
        return None
    edge = (1 - COVERAGE) / 2 * 100
    low, high = np.percentile(known, [edge, 100 - edge])
    return [float(low), float(high)]
