"""One scorer on one judged set: the figures of ``pinfeather evaluate`` with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation import levels as five
from embedders.evaluation import metrics
from embedders.evaluation.folds import query_groups
from embedders.evaluation.intervals import SAMPLES, interval, pair_weights, query_draws
from embedders.evaluation.metrics import Floats, Ints
from feature_repo.errors import PinfeatherError

METRICS = (
    "ndcg@20",
    "precision@8",
    "accuracy",
    "within_one",
    "auroc_3",
    "auroc_4",
    "auroc_5",
    "kappa",
    "calibration_error",
    "calibration_error_4",
)
"""Keys of every figure; each also has ``<key>_ci``. AUROC k is that of "level k or more", as is calibration error 4."""
LOWER_IS_BETTER = frozenset({"calibration_error", "calibration_error_4"})


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

    :param probabilities: [n, 5]; without them every figure of levels and of calibration is NaN.
    :param scores: [n] raw scores that rank and give AUROC; without them the expected level ranks and
        P(level or more) gives AUROC.
    :raises PinfeatherError: for lengths that differ, levels outside 1..5, scores that are not finite, rows that are no
        probabilities, or neither given.
    """
    checked = _checked_levels(levels, len(queries))
    ranking, thresholds = _ranking_scores(len(queries), probabilities, scores)
    names, groups = query_groups(queries)
    by_query = {
        "ndcg@20": metrics.ndcg_by_query(checked, ranking, groups),
        "precision@8": metrics.precision_by_query(checked, ranking, groups),
    }
    drawn = query_draws(len(names), samples, seed)
    everything = np.vstack([np.ones((1, len(names))), drawn])  # row 0 is the point value; floats multiply faster
    values: dict[str, Floats] = {key: _mean(everything @ each, everything.sum(1)) for key, each in by_query.items()}
    for level, score in thresholds.items():
        values[f"auroc_{level}"] = _auroc(checked >= level, score, groups, everything)
    unknown = np.full(len(everything), np.nan)
    values = dict.fromkeys(METRICS, unknown) | values
    if probabilities is not None:
        values |= _level_figures(checked, np.asarray(probabilities, np.float64), groups, everything)
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
    """Paired bootstrap by query of ``one`` minus ``other``: per metric ``difference, ci, p, significant``.

    ``p`` is two-sided: twice the smaller share of draws on one side of zero, each share with one draw added, so that it
    is never 0 (Davison and Hinkley, "Bootstrap methods and their application", 1997). ``significant``: the 95 %
    interval excludes 0. Both must come from :func:`measure` on the same rows with the same samples and seed.
    """
    out: dict[str, dict[str, Any]] = {}
    for key in METRICS:
        difference = one.draws[key] - other.draws[key]
        known = difference[~np.isnan(difference)]
        point = one.point[key] - other.point[key]
        bounds = interval(difference)
        out[key] = {
            "difference": None if np.isnan(point) else float(point),
            "ci": bounds,
            "p": _two_sided(known),
            "significant": bool(bounds[0] > 0 or bounds[1] < 0) if bounds else None,
        }
    return out


def _two_sided(differences: Floats) -> float | None:
    if not len(differences):
        return None
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(differences) + 1))


def _level_figures(levels: Ints, probabilities: Floats, groups: Ints, draws: Floats) -> dict[str, Floats]:
    """What needs probabilities: [1 + samples] of each, the point value first."""
    queries = draws.shape[1]
    sizes = draws @ np.bincount(groups, minlength=queries)
    predicted = metrics.predicted_levels(probabilities)
    hit = metrics.correct(levels, probabilities)
    near = metrics.within_one(levels, probabilities)
    at_least = metrics.at_least(probabilities, metrics.RELEVANT_LEVEL)
    relevant = levels >= metrics.RELEVANT_LEVEL
    errors = {"calibration_error": (probabilities.max(1), hit > 0), "calibration_error_4": (at_least, relevant)}
    return {
        "accuracy": _mean(draws @ np.bincount(groups, hit, minlength=queries), sizes),
        "within_one": _mean(draws @ np.bincount(groups, near, minlength=queries), sizes),
        "kappa": five.kappa_of_draws(levels, predicted, groups, draws),
        **{
            key: _less_bias(five.calibration_error_of_draws(confidence, true, groups, draws))
            for key, (confidence, true) in errors.items()
        },
    }


def _less_bias(values: Floats) -> Floats:
    """Draws moved so that their mean is the point value, which comes first; not below 0.

    A mean of absolute gaps grows with noise, so every draw of it is too high: without this the interval of a well
    calibrated scorer would lie above its own figure (bias correction: Efron and Tibshirani, 1993, chapter 10).
    """
    known = values[1:][~np.isnan(values[1:])]
    if not len(known):
        return values
    return np.r_[values[:1], np.maximum(values[1:] - (known.mean() - values[0]), 0.0)]


def _auroc(positive: NDArray[np.bool_], scores: Floats, groups: Ints, draws: Floats) -> Floats:
    if len(groups) * draws.shape[1] <= metrics.WIN_CELLS:
        return metrics.auroc_of_draws(positive, scores, groups, draws)
    return np.concatenate([metrics.auroc(positive, scores, weights) for weights in pair_weights(draws, groups)])


def _mean(total: Floats, count: Floats) -> Floats:
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


def check_answer(rows: int, probabilities: Floats | None, scores: Floats | None) -> None:
    """Nothing, if a scorer's answer on ``rows`` pairs can be used.

    :raises PinfeatherError: for lengths that differ, scores that are not finite, rows that are no probabilities, or
        neither given.
    """
    if probabilities is None and scores is None:
        raise PinfeatherError("Nothing to evaluate: give probabilities [n, 5], scores [n], or both.")
    for name, given, shape in (("probabilities", probabilities, (rows, metrics.LEVELS)), ("scores", scores, (rows,))):
        if given is not None and np.shape(given) != shape:
            raise PinfeatherError(f"The {name} have shape {np.shape(given)}: expected {shape}, one row for each pair.")
        if given is not None and not np.isfinite(given).all():
            raise PinfeatherError(f"The {name} hold NaN or infinity: score every pair, or drop the pair.")
    if probabilities is not None:
        _check_probabilities(np.asarray(probabilities, np.float64))


def _ranking_scores(rows: int, probabilities: Floats | None, scores: Floats | None) -> tuple[Floats, dict[int, Floats]]:
    """What ranks the pairs, and what gives AUROC 3, 4 and 5."""
    check_answer(rows, probabilities, scores)
    if scores is not None:
        return np.asarray(scores, np.float64), dict.fromkeys((3, 4, 5), np.asarray(scores, np.float64))
    ranked = metrics.expected_level(np.asarray(probabilities))
    return ranked, {level: metrics.at_least(np.asarray(probabilities), level) for level in (3, 4, 5)}


def _check_probabilities(given: Floats) -> None:
    wrong = (given < 0).any(axis=1) | (np.abs(given.sum(axis=1) - 1) > 1e-3)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise PinfeatherError(
            f"Row {first + 1} holds no probabilities ({', '.join(f'{value:.3g}' for value in given[first])}): "
            "give five that are not negative and sum to 1."
        )
