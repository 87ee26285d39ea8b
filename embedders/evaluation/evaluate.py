"""One scorer on one judged set: the figures of ``pinfeather evaluate`` with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation import metrics
from embedders.evaluation.folds import query_groups
from embedders.evaluation.intervals import SAMPLES, interval, pair_weights, query_draws
from embedders.evaluation.metrics import Floats, Ints
from feature_repo.errors import PinfeatherError

METRICS = ("ndcg@20", "precision@8", "accuracy", "within_one", "auroc_3", "auroc_4", "auroc_5")
"""Keys of every figure; each also has ``<key>_ci``. AUROC k is that of "level k or more"."""


@dataclass(frozen=True)
class Measured:
    """Point values (NaN = not defined) and the values of every bootstrap draw, [samples] each."""

    pairs: int
    queries: int
    point: Mapping[str, float]
    draws: Mapping[str, Floats]


def measure(
    queries: Sequence[str],
    levels: Sequence[int] | Ints,
    probabilities: Floats | None = None,
    scores: Floats | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Measured:
    """All of :data:`METRICS` for one scorer.

    :param probabilities: [n, 5]; without them accuracy and within_one are NaN.
    :param scores: [n] raw scores that rank and give AUROC; without them the expected level ranks and
        P(level or more) gives AUROC.
    :raises PinfeatherError: for lengths that differ, levels outside 1..5, scores that are not finite, or neither given.
    """
    checked = _checked_levels(levels, len(queries))
    ranking, thresholds = _ranking_scores(len(queries), probabilities, scores)
    names, groups = query_groups(queries)
    by_query = {
        "ndcg@20": metrics.ndcg_by_query(checked, ranking, groups),
        "precision@8": metrics.precision_by_query(checked, ranking, groups),
    }
    unknown = np.full(len(checked), np.nan)
    by_pair = {
        "accuracy": unknown if probabilities is None else metrics.correct(checked, probabilities),
        "within_one": unknown if probabilities is None else metrics.within_one(checked, probabilities),
    }
    drawn = query_draws(len(names), samples, seed)
    everything = np.vstack([np.ones((1, len(names)), np.int64), drawn])  # row 0 is the point value
    values: dict[str, Floats] = {key: _mean(everything @ each, everything.sum(1)) for key, each in by_query.items()}
    sizes = everything @ np.bincount(groups, minlength=len(names))
    for key, each in by_pair.items():
        values[key] = _mean(everything @ np.bincount(groups, each, minlength=len(names)), sizes)
    for level, score in thresholds.items():
        values[f"auroc_{level}"] = _auroc(checked >= level, score, groups, everything)
    point = {key: float(values[key][0]) for key in METRICS}
    return Measured(len(checked), len(names), point, {key: values[key][1:] for key in METRICS})


def evaluate_scores(
    dataset: str,
    scorer: str,
    queries: Sequence[str],
    levels: Sequence[int] | Ints,
    probabilities: Floats | None = None,
    scores: Floats | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """One row of ``evaluate --json``: ``dataset, scorer, pairs, queries``, each metric and its ``_ci``.

    A figure that is not defined (AUROC where one class does not occur, accuracy without probabilities) is None.
    Arguments and errors as :func:`measure`.
    """
    return as_row(dataset, scorer, measure(queries, levels, probabilities, scores, samples, seed))


def as_row(dataset: str, scorer: str, measured: Measured) -> dict[str, Any]:
    """The JSON row of one measurement."""
    row: dict[str, Any] = {
        "dataset": dataset,
        "scorer": scorer,
        "pairs": measured.pairs,
        "queries": measured.queries,
    }
    for key in METRICS:
        defined = not np.isnan(measured.point[key])
        row[key] = measured.point[key] if defined else None
        row[f"{key}_ci"] = interval(measured.draws[key]) if defined else None
    return row


def compare(one: Measured, other: Measured) -> dict[str, dict[str, Any]]:
    """Paired bootstrap of ``one`` minus ``other``: per metric difference, 95 % interval, share of draws not above zero.

    Both must come from :func:`measure` on the same rows with the same samples and seed.
    """
    out: dict[str, dict[str, Any]] = {}
    for key in METRICS:
        difference = one.draws[key] - other.draws[key]
        known = difference[~np.isnan(difference)]
        point = one.point[key] - other.point[key]
        out[key] = {
            "difference": None if np.isnan(point) else float(point),
            "ci": interval(difference),
            "p": float(np.mean(known <= 0)) if len(known) else None,
        }
    return out


def _auroc(positive: NDArray[np.bool_], scores: Floats, groups: Ints, draws: Ints) -> Floats:
    if len(groups) * draws.shape[1] <= metrics.WIN_CELLS:
        return metrics.auroc_of_draws(positive, scores, groups, draws)
    return np.concatenate([metrics.auroc(positive, scores, weights) for weights in pair_weights(draws, groups)])


def _mean(total: Floats, count: Ints) -> Floats:
    return np.divide(total, count, out=np.full(len(count), np.nan), where=np.asarray(count) > 0)


def _checked_levels(levels: Sequence[int] | Ints, rows: int) -> Ints:
    given = np.asarray(levels)
    if len(given) != rows:
        raise PinfeatherError(f"Got {rows} queries but {len(given)} levels: give one level for each pair.")
    wrong = ~np.isin(given, np.arange(1, metrics.LEVELS + 1))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise PinfeatherError(f"Level {given[first]!s} in row {first + 1} is not one of 1, 2, 3, 4, 5.")
    return given.astype(np.int64)


def _ranking_scores(rows: int, probabilities: Floats | None, scores: Floats | None) -> tuple[Floats, dict[int, Floats]]:
    """What ranks the pairs, and what gives AUROC 3, 4 and 5."""
    if probabilities is None and scores is None:
        raise PinfeatherError("Nothing to evaluate: give probabilities [n, 5], scores [n], or both.")
    for name, given, shape in (("probabilities", probabilities, (rows, metrics.LEVELS)), ("scores", scores, (rows,))):
        if given is not None and np.shape(given) != shape:
            raise PinfeatherError(f"The {name} have shape {np.shape(given)}: expected {shape}, one row for each pair.")
        if given is not None and not np.isfinite(given).all():
            raise PinfeatherError(f"The {name} hold NaN or infinity: score every pair, or drop the pair.")
    if scores is not None:
        return np.asarray(scores, np.float64), dict.fromkeys((3, 4, 5), np.asarray(scores, np.float64))
    ranked = metrics.expected_level(np.asarray(probabilities))
    return ranked, {level: metrics.at_least(np.asarray(probabilities), level) for level in (3, 4, 5)}
