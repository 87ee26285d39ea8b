"""Teacher and student of the tables, trained on the training folds of both shops.

Run from the checkout's root, before the tables:

    .venv/bin/python -m benchmarks.relevance.train

What lies in the folders already is kept, and a training that was interrupted goes on. The teacher learns all human
labels of both training folds. It then labels those pairs again, and pairs that nobody judged: products near a query by
cosine. The student's towers learn from all of them; where people judged, half of the target is theirs. Products come
from the training folds only, and no query of the judged folds is in any of it. ``relevance_training.json`` has the
times.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from benchmarks.relevance import data
from benchmarks.relevance.command import finish, parser
from benchmarks.relevance.labels import Labeller, soft_labels
from benchmarks.relevance.scorers import packaged
from embedders.cross_model import CrossSettings
from embedders.encoder import Encoder
from embedders.evaluation.pairs import PairSet
from embedders.student_training import mixed, together, train_student_bundle
from embedders.teacher import Teacher
from embedders.teacher_training import TeacherTraining, train_teacher
from embedders.tower_training import TowerTraining
from embedders.training import encode_pairs
from feature_repo.pin_text import DEFAULT_TEMPLATE

TEACHER = {
    "cpu": (
        CrossSettings(frozen_layers=2, max_length=96),
        TeacherTraining(epochs=2, learning_rate=8e-5, held_back=0.06, evaluations=2),
    ),
    "full": (CrossSettings(), TeacherTraining(epochs=4)),
}
TOWERS = {"cpu": TowerTraining(epochs=1), "full": TowerTraining(epochs=4)}
RETRIEVED = {"cpu": 8_000, "full": 500_000}
"""Pairs that nobody judged, over both sets, by their share of the judged ones."""
HUMAN_SHARE = 0.5
"""Of the target of a pair that people judged; the rest is the teacher's."""
NEAREST = 60
"""Products by cosine from which the retrieved ones of a query are drawn."""


def retrieved(train: PairSet, size: int, encoder: Encoder, seed: int = 0) -> PairSet:
    """At most ``size`` pairs of a training query and a product near it that nobody judged for it."""
    names, groups, queries, pins = encode_pairs(train, encoder, DEFAULT_TEMPLATE)
    judged: dict[int, list[int]] = {}
    for group, pin in zip(groups.tolist(), train.pin_of.tolist(), strict=True):
        judged.setdefault(group, []).append(pin)
    random = np.random.default_rng(seed)
    each = size // len(names) + 1
    found: list[tuple[int, int]] = []
    pins = np.nan_to_num(pins)  # a pin without vector is near nothing
    for number, query in enumerate(np.nan_to_num(queries)):
        likeness = pins @ query
        likeness[judged[number]] = -np.inf
        near = np.argsort(-likeness, kind="stable")[:NEAREST]
        near = near[np.isfinite(likeness[near])]
        found += [(number, int(pin)) for pin in random.permutation(near)[:each]]
    kept = [found[row] for row in random.permutation(len(found))[:size]]
    return PairSet(
        f"{train.name}, retrieved",
        tuple(names[query] for query, _ in kept),
        train.pins,
        np.array([pin for _, pin in kept], np.int64),
        source=f"{train.source}, retrieved",
    )


def distilled(trains: list[PairSet], teacher: Labeller, pool: int, encoder: Encoder) -> PairSet:
    """What the student learns from: judged and retrieved pairs of all sets, with their targets."""
    total = sum(len(train) for train in trains)
    parts = []
    for train in trains:
        parts.append(replace(mixed(train, soft_labels(teacher, train), HUMAN_SHARE), levels=None))
        if size := pool * len(train) // total:
            more = retrieved(train, size, encoder)
            parts.append(replace(more, targets=soft_labels(teacher, more)))
    return together("shops", *parts)


def trained(
    trains: list[PairSet],
    teacher_folder: Path,
    student_folder: Path,
    settings: CrossSettings,
    training: TeacherTraining,
    towers: TowerTraining,
    pool: int,
    encoder: Encoder | None = None,
) -> dict[str, Any]:
    """Train what is not there, and give the wall and processor seconds of ``teacher``, ``labels`` and ``student``."""
    encoder = encoder or packaged()
    took: dict[str, Any] = {}
    started = (perf_counter(), process_time())

    def stage(name: str, **more: Any) -> None:
        nonlocal started
        now = (perf_counter(), process_time())
        took[name] = {"seconds": now[0] - started[0], "processor_seconds": now[1] - started[1], **more}
        started = now

    if not teacher_folder.is_dir():
        people = data.joined("shops", *trains)
        manifest = train_teacher(
            people, teacher_folder, settings=settings, training=training, tell=print, encoder=encoder
        )
        stage("teacher", **manifest.training)
    if not student_folder.is_dir():
        teacher = Teacher.load(teacher_folder)
        pairs = distilled(trains, teacher, pool, encoder)
        stage("labels", pairs=len(pairs), teacher=teacher.fingerprint)
        report = {"teacher": teacher.name, "teacher_version": teacher.fingerprint, "human_share": HUMAN_SHARE}
        bundle = train_student_bundle(pairs, student_folder, towers=towers, report=report, tell=print)
        stage("student", **bundle.manifest.training)
    return took


def main() -> None:
    """Train, write the JSON."""
    options = parser(__doc__).parse_args()
    trains = [data.split(name)[0] for name in data.SETS]
    settings, training = TEACHER[options.size]
    took = trained(
        trains, options.teacher, options.student, settings, training, TOWERS[options.size], RETRIEVED[options.size]
    )
    if not took:
        raise SystemExit(f"{options.teacher} and {options.student} are there: remove one to train it anew.")
    finish("training", options, took)


if __name__ == "__main__":
    main()
