"""Table (a): baselines, students and teacher on the judged fold of both sets, with paired differences.

Run from the checkout's root (about 5 minutes on 2 cores without the teacher, 10 with it):

    .venv/bin/python -m benchmarks.relevance.backbones --teacher FOLDER --student BUNDLE

BM25 and the cosine of the packaged model are not trained; student v1 is the head over frozen vectors and lexical
features, fitted on all human labels of the training folds, or on the teacher's labels of the same pairs (kept in
``build/relevance/labels``); the students v2 (towers as low-rank differences, and with all weights trained) and the
teacher were trained on the same folds and lie in the folders.
``--backbone FOLDER_OR_ID``, any number of times, trains a teacher on it here first (once; it stays in
``build/relevance``). Larger weights were not at hand: their rows hold no figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.relevance import data
from benchmarks.relevance.command import finish, parser, tell
from benchmarks.relevance.labels import soft_labels
from benchmarks.relevance.scorers import (
    Answer,
    Prepared,
    baselines,
    bundle_answer,
    fitted_head,
    head_answer,
    judged_rows,
    measured_answers,
    packaged,
    share_kept,
    teacher_answer,
)
from benchmarks.relevance.vectors import WORK
from embedders.encoder import Encoder
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.pairs import PairSet

BASES = ("BM25", "zero-shot")
FIGURES = ("ndcg@20", "precision@8", "accuracy", "auroc_3", "auroc_4", "auroc_5")
V1, TAUGHT, V2, WHOLE = "student v1", "student v1, teacher's labels", "student v2", "student v2, all weights"
NOT_RUN = (
    {"name": "XLM-R base, XLM-R large", "why": "no weights here; the code path is tested on a tiny random one"},
    {"name": "mBERT, DeBERTa", "why": "no weights here; the code path is tested on a tiny random BERT"},
    {"name": "Llama or another decoder", "why": "no weights here; the code path is tested on a tiny random one"},
)


def table(
    splits: Sequence[tuple[PairSet, PairSet]],
    options: argparse.Namespace,
    encoder: Encoder | None = None,
    samples: int = SAMPLES,
    others: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """``rows`` of every scorer on every set, and ``kept``: the share of the teacher's gain that a student has.

    :param others: teachers on other backbones, by name.
    """
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    encoder = encoder or packaged()
    for train, judge in splits:
        prepared = Prepared.of(train, judge, encoder)
        answers = [*baselines(prepared), head_answer(V1, prepared), *_trained(options, others or {}, prepared)]
        new = judged_rows(judge, answers, (*BASES, V1), samples)
        tell(new, FIGURES)
        rows += new
        measured = measured_answers(judge, answers, samples)
        if "teacher" in measured:
            for student in (name for name in (V1, TAUGHT, V2, WHOLE) if name in measured):
                share = share_kept(measured, student, "teacher", "zero-shot")
                kept.append({"dataset": judge.name, "student": student, **share})
    return {"rows": rows, "kept": kept, "not_run": list(NOT_RUN)}


def teachers_on(backbones: Sequence[str], splits: Sequence[tuple[PairSet, PairSet]], work: Path) -> dict[str, Path]:
    """Folder of a teacher on each backbone, trained on the training folds of all sets unless it is there."""
    from embedders.cross_model import CrossSettings
    from embedders.teacher_training import train_teacher

    folders = {}
    for backbone in backbones:
        name = f"teacher, {Path(backbone).name}"
        folders[name] = work / f"teacher-{Path(backbone).name}"
        if not folders[name].is_dir():
            pairs = data.joined("shops", *(train for train, _ in splits))
            train_teacher(pairs, folders[name], settings=CrossSettings(base=backbone), tell=print, encoder=packaged())
    return folders


def _trained(options: argparse.Namespace, others: Mapping[str, Path], prepared: Prepared) -> list[Answer]:
    """What depends on a trained teacher or student, where they are there."""
    judge = prepared.judge
    answers = [replace(teacher_answer(folder, judge), name=name) for name, folder in others.items()]
    if options.teacher.is_dir():
        from embedders.teacher import Teacher

        labels = soft_labels(Teacher.load(options.teacher), prepared.train)
        answers.append(fitted_head(TAUGHT, prepared.train_features, labels, prepared.judge_features))
    for name, folder in ((V2, options.student), (WHOLE, options.whole)):
        if folder.is_dir():
            answers.append(bundle_answer(name, folder, judge))
    if options.teacher.is_dir():
        answers.append(teacher_answer(options.teacher, judge))
    return answers


def main() -> None:
    """Judge, print, write the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--backbone", action="append", default=[], help="train a teacher on it, too; repeatable")
    options = arguments.parse_args()
    splits = [data.split(name) for name in data.SETS]
    others = teachers_on(options.backbone, splits, WORK)
    finish("backbones", options, table(splits, options, others=others))


if __name__ == "__main__":
    main()
