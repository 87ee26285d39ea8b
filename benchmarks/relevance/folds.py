"""Teacher and student judged on every query of both sets: each fold in turn is held out of a training of its own.

Run from the checkout's root, after :mod:`benchmarks.relevance.train`, whose models judge fold 0 (that took 36 minutes
on 2 cores, and each other fold needs a training of its own; what is trained stays in ``build/relevance``, and an
interrupted training goes on):

    .venv/bin/python -m benchmarks.relevance.folds

The other tables judge fold 0 alone, which has 37 queries of CrowdFlower: too few to tell a gain of 0.01 from none. Here
every query is answered by models that never saw it, and a figure is over the queries of all folds together. AUROC and
accuracy mix the answers of five models, each with a calibration of its own. ``--folds 1 3`` trains and judges some of
them and writes nothing: two such runs side by side, each with ``OMP_NUM_THREADS=1``, use 2 cores better than one after
the other; a run over all folds afterwards makes the table. ``--teacher`` and ``--student`` are those of fold 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.relevance import data
from benchmarks.relevance.backbones import BASES, V1, V2
from benchmarks.relevance.command import finish, parser, tell
from benchmarks.relevance.scorers import (
    Answer,
    Prepared,
    baselines,
    bundle_answer,
    head_answer,
    judged_rows,
    measured_answers,
    packaged,
    share_kept,
    teacher_answer,
)
from benchmarks.relevance.train import INVENTED, RETRIEVED, TEACHER, TOWERS, trained
from benchmarks.relevance.vectors import WORK
from embedders.encoder import Encoder
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.pairs import PairSet

FIGURES = ("ndcg@20", "precision@8", "auroc_4")


def answered(
    train: PairSet, judge: PairSet, teacher: Path, student: Path, encoder: Encoder | None = None
) -> list[Answer]:
    """What every scorer that never saw the queries of ``judge`` says of its pairs."""
    prepared = Prepared.of(train, judge, encoder or packaged())
    return [
        *baselines(prepared),
        head_answer(V1, prepared),
        bundle_answer(V2, student, judge),
        teacher_answer(teacher, judge),
    ]


def pooled(name: str, folds: Sequence[tuple[PairSet, Sequence[Answer]]]) -> tuple[PairSet, list[Answer]]:
    """The judged pairs of several folds one after another, with each scorer's answers to them."""
    whole = data.joined(name, *(judge for judge, _ in folds))
    answers = []
    for parts in zip(*(given for _, given in folds), strict=True):
        scores = [part.scores for part in parts if part.scores is not None]
        answers.append(
            Answer(
                parts[0].name,
                np.concatenate([part.probabilities for part in parts]),
                np.concatenate(scores) if scores else None,
            )
        )
    return whole, answers


def table(
    splits: Mapping[int, Sequence[tuple[PairSet, PairSet]]],
    folders: Mapping[int, tuple[Path, Path]],
    encoder: Encoder | None = None,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """``rows`` of every scorer over the judged sides of all folds, ``kept``, and ``folds``: each fold on its own.

    :param splits: of each fold, (train, judge) of every set.
    :param folders: of each fold, its teacher and its student.
    """
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    single: list[dict[str, Any]] = []
    for place in range(len(next(iter(splits.values())))):
        parts = []
        for fold, sides in splits.items():
            train, judge = sides[place]
            answers = answered(train, judge, *folders[fold], encoder)
            parts.append((judge, answers))
            single += [{"fold": fold, **row} for row in judged_rows(judge, answers, samples=samples)]
        judge, answers = pooled(parts[0][0].name, parts)
        new = judged_rows(judge, answers, BASES, samples)
        tell(new, FIGURES)
        rows += new
        measured = measured_answers(judge, answers, samples)
        kept += [
            {"dataset": judge.name, "student": student, **share_kept(measured, student, "teacher", "zero-shot")}
            for student in (V1, V2)
        ]
    return {"rows": rows, "kept": kept, "folds": single}


def main() -> None:
    """Train what is not there, judge, print; of all folds write the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--folds", type=int, nargs="+", choices=range(data.FOLDS), help="some only; default all")
    options = arguments.parse_args()
    size = options.size
    folds = sorted({*(options.folds or range(data.FOLDS))})
    splits = {fold: [data.split(name, fold) for name in data.SETS] for fold in folds}
    folders = {}
    for fold, sides in splits.items():
        folders[fold] = (options.teacher, options.student)
        if fold != data.JUDGE_FOLD:
            place = WORK / (f"fold-{fold}" if size == "cpu" else f"fold-{fold}-{size}")
            folders[fold] = (place / "teacher", place / "student")
        if not all(folder.is_dir() for folder in folders[fold]):
            print(f"fold {fold}", flush=True)
            how = (*TEACHER[size], TOWERS[size], RETRIEVED[size])
            trained([train for train, _ in sides], *folders[fold], None, *how, inventions=INVENTED[size], fold=fold)
    content = table(splits, folders)
    if len(folds) == data.FOLDS:
        finish("folds", options, content)


if __name__ == "__main__":
    main()
