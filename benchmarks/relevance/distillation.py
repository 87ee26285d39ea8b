"""Table (c): how much distilled data the student needs, 1x to 100x, beside as many human labels.

Run from the checkout's root, with a teacher trained on the training folds (about 10 minutes on 2 cores, most of it the
teacher's labels, which are kept in ``build/relevance/labels``):

    .venv/bin/python -m benchmarks.relevance.distillation --teacher build/relevance/teacher

x is 500 pairs (``--size full``: 5,000; pairs beyond the judged ones are not made up, so the amounts end with the
training folds). Every amount is whole queries of both training folds, a smaller one part of each larger one; the
teacher's labels and the human ones are of the same pairs. The student is v1, its head alone: it is fitted in seconds,
so that three draws of every amount can be averaged. The teacher was trained on all human labels of these folds, so
this is a curve of the amount at a fixed teacher, not of a teacher that saw x pairs only.

    .venv/bin/python -m benchmarks.relevance.distillation --small

is the other question, few human labels all the way: x is 5,000 pairs, a teacher is trained on those alone (once; it
stays in ``build/relevance``), and labels the rest, up to 10x. Another 10 minutes; its JSON is
``relevance_distillation_small.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.relevance import data
from benchmarks.relevance.command import finish, parser, tell
from benchmarks.relevance.labels import Labeller, soft_labels
from benchmarks.relevance.scorers import Answer, Prepared, baselines, fitted_head, measured_answers, packaged
from benchmarks.relevance.vectors import WORK
from embedders.encoder import Encoder
from embedders.evaluation.evaluate import METRICS, Measured, as_row, compare
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.metrics import Floats
from embedders.evaluation.pairs import PairSet
from embedders.training import PairFeatures
from feature_repo.errors import PinfeatherError

FACTORS = (1, 3, 10, 30, 100)
X, SMALL_X = {"cpu": 500, "full": 5_000}, 5_000
SEEDS = (0, 1, 2)
FIGURES = ("ndcg@20", "auroc_4")
BASE = "distilled 1x"


@dataclass(frozen=True, eq=False)
class Pool:
    """All training pairs of both sets under one numbering."""

    features: PairFeatures
    queries: tuple[str, ...]
    levels: np.ndarray
    """[n] what people said."""
    soft: Floats
    """[n, 5] what the teacher says."""

    @classmethod
    def of(cls, prepared: Sequence[Prepared], teacher: Labeller) -> Pool:
        """The training sides one after another."""
        parts = [each.train_features for each in prepared]
        counts = [int(part.groups.max()) + 1 for part in parts]
        offsets = np.cumsum([0, *counts[:-1]])
        features = PairFeatures(
            np.concatenate([part.matrix for part in parts]),
            parts[0].names,
            np.concatenate([part.bm25 for part in parts]),
            np.concatenate([part.groups + offset for part, offset in zip(parts, offsets, strict=True)]),
        )
        return cls(
            features,
            queries_of([each.train for each in prepared]),
            np.concatenate([each.train.require_levels() for each in prepared]),
            np.concatenate([soft_labels(teacher, each.train) for each in prepared]),
        )

    def rows(self, chosen: np.ndarray) -> PairFeatures:
        """The features of some rows."""
        kept = self.features
        return PairFeatures(kept.matrix[chosen], kept.names, kept.bm25[chosen], kept.groups[chosen])


def queries_of(trains: Sequence[PairSet]) -> tuple[str, ...]:
    """The queries of all pairs; the same words in two sets are two queries, for each has candidates of its own."""
    return tuple(f"{train.name} {query}" for train in trains for query in train.queries)


def small_human_set(trains: Sequence[PairSet], x: int, seed: int = SEEDS[0]) -> PairSet:
    """The human labels of 1x: the same pairs as the first draw of :func:`table`."""
    return data.joined("shops", *trains).subset(data.rows_of_queries(queries_of(trains), x, seed))


def table(
    splits: Sequence[tuple[PairSet, PairSet]],
    teacher: Labeller,
    x: int,
    encoder: Encoder | None = None,
    factors: Sequence[int] = FACTORS,
    seeds: Sequence[int] = SEEDS,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """``rows``: each set, kind of label and amount, averaged over ``seeds``, with ``minus`` to the same set's 1x."""
    encoder = encoder or packaged()
    prepared = [Prepared.of(train, judge, encoder) for train, judge in splits]
    pool = Pool.of(prepared, teacher)
    feasible = [factor for factor in factors if factor * x <= len(pool.levels)]
    if not feasible:
        raise PinfeatherError(f"x is {x} pairs, but the training folds hold {len(pool.levels)}: give a smaller --x.")
    answered: dict[tuple[str, int, int], list[Answer]] = {}
    used: dict[int, float] = {}
    for seed in seeds:
        for factor in feasible:
            chosen = data.rows_of_queries(pool.queries, factor * x, seed)
            features = pool.rows(chosen)
            for kind, targets in (("distilled", pool.soft[chosen]), ("human", pool.levels[chosen])):
                answered[kind, factor, seed] = [
                    fitted_head(f"{kind} {factor}x", features, targets, each.judge_features) for each in prepared
                ]
            print(f"seed {seed}, {factor}x: {int(chosen.sum())} pairs", flush=True)
            used[factor] = used.get(factor, 0) + int(chosen.sum()) / len(seeds)
    rows: list[dict[str, Any]] = []
    for place, each in enumerate(prepared):
        measured: dict[str, Measured] = {}
        amounts: dict[str, int] = {}
        for kind in ("human", "distilled"):
            for factor in feasible:
                answers = [answered[kind, factor, seed][place] for seed in seeds]
                name = answers[0].name
                measured[name] = mean([measured_answers(each.judge, [one], samples)[name] for one in answers])
                amounts[name] = round(used[factor])
        extra = [*baselines(each), Answer("teacher", soft_labels(teacher, each.judge))]
        measured |= measured_answers(each.judge, extra, samples)
        new = amount_rows(each.judge.name, measured, amounts)
        tell(new, FIGURES)
        rows += new
    return {"x": x, "seeds": list(seeds), "pool": len(pool.levels), "rows": rows}


def amount_rows(dataset: str, measured: Mapping[str, Measured], amounts: Mapping[str, int]) -> list[dict[str, Any]]:
    """A row for each scorer with the pairs it learnt from, None where these do not count, and ``minus`` 1x."""
    return [
        {
            **as_row(dataset, name, one),
            "train_pairs": amounts.get(name),
            "minus": {BASE: compare(one, measured[BASE])} if name != BASE else {},
        }
        for name, one in measured.items()
    ]


def mean(measured: Sequence[Measured]) -> Measured:
    """The mean over models, draw by draw, so that the interval is that of the mean."""
    first = measured[0]
    return Measured(
        first.pairs,
        first.queries,
        {key: float(np.mean([one.point[key] for one in measured])) for key in METRICS},
        {key: np.mean([one.draws[key] for one in measured], axis=0) for key in METRICS},
    )


def small_teacher(trains: Sequence[PairSet], x: int) -> Path:
    """Folder of a teacher that was trained on ``x`` human pairs alone."""
    from embedders.teacher_training import train_teacher

    folder = WORK / f"teacher-{x}"
    if not folder.is_dir():
        train_teacher(small_human_set(trains, x), folder, tell=print, encoder=packaged())
    return folder


def main() -> None:
    """Label, fit, judge, print, write the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--x", type=int, help="pairs of 1x; default 500, 5,000 with --size full or --small")
    arguments.add_argument("--small", action="store_true", help="train the teacher on x human pairs alone")
    options = arguments.parse_args()
    from embedders.teacher import Teacher

    splits = [data.split(name) for name in data.SETS]
    x = options.x or (SMALL_X if options.small else X[options.size])
    teacher = Teacher.load(small_teacher([train for train, _ in splits], x) if options.small else options.teacher)
    content = table(splits, teacher, x)
    name = "distillation_small" if options.small else "distillation"
    finish(name, options, {"teacher": teacher.fingerprint, **content}, "distillation")


if __name__ == "__main__":
    main()
