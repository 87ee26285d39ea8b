"""Scorers judged on pairs whose queries they were not fitted on; the student by the recipe that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedders.evaluation.evaluate import Measured, as_row, compare, measure
from embedders.evaluation.folds import query_folds
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.metrics import Floats
from embedders.student import LevelCalibrator
from embedders.student_head import HeadTrainer
from feature_repo.errors import PinfeatherError, UsageError

SCORERS = ("bm25", "zero-shot", "student")
"""``bm25`` (all fields as one document), ``zero-shot`` (cosine of the towers), ``student`` (the trained head)."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One scorer's answer for n pairs whose queries it was not fitted on."""

    scorer: str
    probabilities: Floats
    """[n, 5]"""
    scores: Floats | None
    """[n] raw score that ranks; None: the expected level does."""


def cross_fit(trainer: HeadTrainer, scorer: str, folds: int = 5) -> Scored:
    """Score every pair by a model fitted on the folds that do not hold its query.

    :raises UsageError: for an unknown scorer.
    :raises PinfeatherError: if all queries fall into one fold.
    """
    features, seed = trainer.features, trainer.seed
    levels, queries = trainer.pairs.require_levels(), trainer.pairs.queries
    if scorer not in SCORERS:
        raise UsageError(f"Unknown scorer {scorer!r}: allowed are {', '.join(SCORERS)}.")
    fold_of = query_folds(queries, folds, seed)
    if len(present := np.unique(fold_of)) < 2:
        raise PinfeatherError(
            f"{len(set(queries))} queries cannot be split into {folds} folds that share none: judge more queries."
        )
    raw = {"bm25": features.bm25, "zero-shot": features.cosine, "student": None}[scorer]
    probabilities = np.empty((len(levels), 5))
    for fold in present:
        held, train = fold_of == fold, fold_of != fold
        if raw is None:
            probabilities[held] = trainer.fit(train).probabilities(features.matrix[held])
        else:
            probabilities[held] = LevelCalibrator.fit(raw[train], levels[train]).probabilities(raw[held])
    return Scored(scorer, probabilities, raw)


def cross_validate(
    trainer: HeadTrainer, scorers: Sequence[str] = SCORERS, folds: int = 5, samples: int = SAMPLES
) -> list[dict[str, Any]]:
    """One row per scorer with the keys of ``evaluate --json``, on query-disjoint folds.

    Where ``student`` is among the scorers, every other row also has ``student_minus``: paired differences by
    :func:`embedders.evaluation.evaluate.compare`. Errors as :func:`cross_fit`.
    """
    pairs, seed = trainer.pairs, trainer.seed
    measured: dict[str, Measured] = {}
    for scorer in scorers:
        scored = cross_fit(trainer, scorer, folds)
        levels = pairs.require_levels()
        measured[scorer] = measure(pairs.queries, levels, scored.probabilities, scored.scores, samples, seed)
    rows = []
    for scorer, result in measured.items():
        row = as_row(pairs.name, scorer, result)
        if scorer != "student" and "student" in measured:
            row["student_minus"] = compare(measured["student"], result)
        rows.append(row)
    return rows
