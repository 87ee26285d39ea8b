"""Scorers of the tables: each is fitted on training pairs, answers for the judged ones, and becomes a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.relevance.labels import soft_labels
from benchmarks.relevance.vectors import RememberedEncoder
from embedders.encoder import Encoder, load_encoder
from embedders.evaluation.evaluate import Measured, as_row, compare, measure
from embedders.evaluation.intervals import SAMPLES, interval
from embedders.evaluation.metrics import Floats
from embedders.evaluation.pairs import PairSet
from embedders.student import LevelCalibrator, Levels, train_head
from embedders.training import PairFeatures, fit_statistics, pair_features, score_pairs
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate

GAINS = ("ndcg@20", "auroc_4")
"""Figures of which it is said how much of the teacher's gain the student keeps."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What one scorer says of the judged pairs."""

    name: str
    probabilities: Floats
    """[n, 5]"""
    scores: Floats | None = None
    """[n] what ranks; None: the expected level."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A set's two sides with the features of every pair; the towers and statistics know no label."""

    train: PairSet
    judge: PairSet
    train_features: PairFeatures
    judge_features: PairFeatures

    @classmethod
    def of(
        cls,
        train: PairSet,
        judge: PairSet,
        encoder: Encoder | None = None,
        template: PinTextTemplate = DEFAULT_TEMPLATE,
        without: Sequence[str] = (),
    ) -> Prepared:
        """Features by ``encoder`` (the packaged model), lexical statistics of the pins of both sides.

        :param without: sources whose tokens count as missing; the words of the vectors are up to ``template``.
        """
        encoder = encoder or packaged()
        pins = PairSet(train.name, (), (*train.pins, *judge.pins), np.zeros(0, np.int64))
        statistics = fit_statistics(pins, without)
        sides = [pair_features(side, encoder, template, statistics, without=without) for side in (train, judge)]
        return cls(train, judge, *sides)


def packaged() -> Encoder:
    """The packaged model, which remembers what it encoded before in ``build/relevance``."""
    return RememberedEncoder(load_encoder("packaged"))


def baselines(prepared: Prepared) -> list[Answer]:
    """BM25 and the cosine of the towers, with levels calibrated on the training side."""
    answers = []
    for name in ("bm25", "cosine"):
        train, judge = (getattr(side, name) for side in (prepared.train_features, prepared.judge_features))
        calibrator = LevelCalibrator.fit(train, prepared.train.require_levels())
        label = {"bm25": "BM25", "cosine": "zero-shot"}[name]
        answers.append(Answer(label, calibrator.probabilities(judge), judge))
    return answers


def head_answer(name: str, prepared: Prepared, columns: Sequence[int] | None = None, seed: int = 0) -> Answer:
    """The student without text tower (v1): a head over the features, fitted on the human labels.

    :param columns: the features that it may read; None: all.
    """
    return fitted_head(
        name, prepared.train_features, prepared.train.require_levels(), prepared.judge_features, columns, seed
    )


def fitted_head(
    name: str,
    train: PairFeatures,
    targets: Levels,
    judge: PairFeatures,
    columns: Sequence[int] | None = None,
    seed: int = 0,
) -> Answer:
    """A head fitted on ``targets``, levels [n] or soft ones [n, 5]."""
    kept = np.arange(len(train.names)) if columns is None else np.asarray(columns)
    names = [train.names[column] for column in kept]
    head = train_head(train.matrix[:, kept], targets, names, train.groups, seed)
    return Answer(name, head.probabilities(judge.matrix[:, kept]))


def bundle_answer(name: str, folder: Path, judge: PairSet) -> Answer:
    """A trained student as it is served: its towers (else the packaged model), statistics and head.

    :raises BundleError: if the bundle is damaged, or was trained on vectors of a model that is not there.
    """
    from embedders.bundle import StudentBundle

    bundle = StudentBundle.load(folder)
    query, pin = (RememberedEncoder(bundle.encoder(role)) if bundle.towers else packaged() for role in ("query", "pin"))
    features = pair_features(
        judge, query, bundle.template, bundle.statistics, without=bundle.manifest.without, pin_encoder=pin
    )
    return Answer(name, score_pairs(judge, bundle, query, features=features))


def teacher_answer(folder: Path, judge: PairSet, template: PinTextTemplate | None = None) -> Answer:
    """The cross-encoder's calibrated probabilities.

    :param template: the pin text that it is shown; None: the one that it was trained with.
    :raises TeacherError: if there is no whole teacher in ``folder``.
    """
    from embedders.teacher import Teacher

    return Answer("teacher", soft_labels(Teacher.load(folder), judge, template))


def judged_rows(
    judge: PairSet, answers: Sequence[Answer], against: Sequence[str] = (), samples: int = SAMPLES
) -> list[dict[str, Any]]:
    """A row of figures for each answer, with ``minus``: its paired difference to each answer named in ``against``."""
    measured = measured_answers(judge, answers, samples)
    rows = []
    for name, result in measured.items():
        others = [other for other in against if other != name and other in measured]
        minus = {other: compare(result, measured[other]) for other in others}
        rows.append({**as_row(judge.name, name, result), "minus": minus})
    return rows


def measured_answers(judge: PairSet, answers: Sequence[Answer], samples: int = SAMPLES) -> dict[str, Measured]:
    """Each answer judged on the same draws of queries."""
    levels = judge.require_levels()
    return {
        each.name: measure(judge.queries, levels, each.probabilities, each.scores, samples=samples) for each in answers
    }


def share_kept(measured: Mapping[str, Measured], student: str, teacher: str, base: str) -> dict[str, Any]:
    """How much of the teacher's gain over ``base`` the student has, (student - base) / (teacher - base), by figure.

    ``share`` is None where the teacher gains nothing; the interval is that of the ratio over the same draws, and None
    where the teacher gains nothing in more than 2.5 % of them, for a ratio to a gain that may be none says nothing.
    """
    out: dict[str, Any] = {}
    for key in GAINS:
        taught = measured[teacher].point[key] - measured[base].point[key]
        learnt = measured[student].point[key] - measured[base].point[key]
        drawn_taught = measured[teacher].draws[key] - measured[base].draws[key]
        drawn_learnt = measured[student].draws[key] - measured[base].draws[key]
        ratios = np.divide(drawn_learnt, drawn_taught, out=np.full(len(drawn_taught), np.nan), where=drawn_taught > 0)
        sure = np.mean(drawn_taught <= 0) <= 0.025
        out[key] = {"share": learnt / taught if taught > 0 else None, "ci": interval(ratios) if sure else None}
    return out
