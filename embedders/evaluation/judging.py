"""Everything that ``pinfeather evaluate`` says of scorers on one set: figures, differences, slices, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from embedders.evaluation.evaluate import METRICS, Measured, as_row, check_answer, compare, measure
from embedders.evaluation.folds import query_groups
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.levels import agreement
from embedders.evaluation.metrics import Floats, Ints
from embedders.evaluation.pairs import PairSet
from embedders.evaluation.slices import large_enough, slice_rows
from feature_repo.errors import UsageError


class Answer(Protocol):
    """What one scorer says of n pairs."""

    @property
    def scorer(self) -> str:
        """Its name."""

    @property
    def probabilities(self) -> Floats | None:
        """[n, 5], or None where it knows no levels."""

    @property
    def scores(self) -> Floats | None:
        """[n] raw score that ranks; None: the expected level does."""


def judge(
    pairs: PairSet,
    answers: Sequence[Answer],
    by: Sequence[str] = (),
    against: str | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per scorer with the keys of ``evaluate --json``; figures are None where the pairs carry no levels.

    A row also has ``against`` (the scorer it is compared with, and :func:`embedders.evaluation.evaluate.compare`) if
    asked for; ``student_minus`` where the student is judged beside it; ``slices`` by slicing and slice if asked for,
    those that are too small with their counts alone; and ``agreement`` where the pairs carry a teacher's labels, which
    judge nobody.

    :param by: slicings, see :data:`embedders.evaluation.slices.SLICINGS`.
    :param against: the scorer that the others are compared with; one of ``answers``.
    :raises UsageError: for a slicing that the pairs do not tell, or a baseline that is not among the answers.
    :raises PinfeatherError: as :func:`embedders.evaluation.evaluate.measure`.
    """
    names = [answer.scorer for answer in answers]
    if against is not None and against not in names:
        raise UsageError(f"Cannot compare with {against!r}: the scorers here are {', '.join(names)}.")
    for answer in answers:
        check_answer(len(pairs), answer.probabilities, answer.scores)  # pairs without levels measure nothing
    everything = np.arange(len(pairs))
    rows = _figures(pairs, answers, everything, against, samples, seed)
    for slicing in dict.fromkeys(by):
        parts = slice_rows(pairs, slicing)
        judged = {name: _slice(pairs, answers, part, against, samples, seed) for name, part in parts.items()}
        for number, row in enumerate(rows):
            row.setdefault("slices", {})[slicing] = {name: figures[number] for name, figures in judged.items()}
    if pairs.teacher is not None:
        for row, answer in zip(rows, answers, strict=True):
            known = answer.probabilities is not None
            row["agreement"] = agreement(pairs.teacher, np.asarray(answer.probabilities)) if known else None
    return [{"dataset": pairs.name, "scorer": name, **row} for name, row in zip(names, rows, strict=True)]


def contradictions(pairs: PairSet) -> int:
    """Rows whose query and pin text come again in the set with another level.

    Each stays a judgment of its own, since a file names no pins: two pins may read the same. No scorer meets them all.
    """
    levels = pairs.require_levels()
    _, groups = query_groups(pairs.queries)
    cells = groups * max(1, len(pairs.pins)) + pairs.pin_of
    _, cell = np.unique(cells, return_inverse=True)
    kinds = np.unique(np.column_stack([cell, levels]), axis=0)[:, 0]
    return int((np.bincount(kinds)[cell] > 1).sum()) if len(pairs) else 0


def _slice(
    pairs: PairSet, answers: Sequence[Answer], rows: Ints, against: str | None, samples: int, seed: int
) -> list[dict[str, Any]]:
    queries = [pairs.queries[row] for row in rows]
    if large_enough(queries):
        return _figures(pairs, answers, rows, against, samples, seed)
    return [_empty(queries)] * len(answers)


def _figures(
    pairs: PairSet, answers: Sequence[Answer], rows: Ints, against: str | None, samples: int, seed: int
) -> list[dict[str, Any]]:
    """Of each answer, its figures on these rows."""
    queries = [pairs.queries[row] for row in rows]
    if pairs.levels is None:
        return [_empty(queries) for _ in answers]
    measured: dict[str, Measured] = {}
    for answer in answers:
        probabilities, scores = (None if part is None else part[rows] for part in (answer.probabilities, answer.scores))
        measured[answer.scorer] = measure(queries, pairs.levels[rows], probabilities, scores, samples, seed)
    out = []
    for name, each in measured.items():
        row = as_row(pairs.name, name, each)
        del row["dataset"], row["scorer"]
        if "student" in measured and name != "student":
            row["student_minus"] = compare(measured["student"], each)
        if against is not None and name != against:
            row["against"] = {"scorer": against, **compare(each, measured[against])}
        out.append(row)
    return out


def _empty(queries: Sequence[str]) -> dict[str, Any]:
    counts: dict[str, Any] = {"pairs": len(queries), "queries": len(query_groups(queries)[0])}
    return counts | dict.fromkeys([name for metric in METRICS for name in (metric, f"{metric}_ci")])
