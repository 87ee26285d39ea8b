"""Teacher and student of the tables, trained on the training folds of both shops.

Run from the checkout's root, before the tables:

    .venv/bin/python -m benchmarks.relevance.train

What lies in the folders already is kept, and a training that was interrupted goes on. The teacher learns all human
labels of both training folds. It then labels those pairs again, and pairs that nobody judged: products near a query by
cosine, for the queries of the training folds and for ones that nobody asked: words of a product's own title. The
student's towers learn from all of them; where people judged, half of the target is theirs. A second student has all
weights of its towers trained, on the same pairs. Products come from the training folds only, and no query of the judged
folds is in any of it. ``relevance_training.json`` has the times, of the run that trained what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
from feature_repo.errors import PinfeatherError
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
"""Pairs of a judged query that nobody judged, over both sets, by their share of the judged ones."""
INVENTED = {
    "cpu": {"crowdflower": 24_000, "homedepot": 16_000},
    "full": {"crowdflower": 240_000, "homedepot": 160_000},
}
"""Pairs of an invented query; CrowdFlower, which has few queries of its own, gets more."""
EACH = 8
"""Products of an invented query."""
FIRST_WORDS = 9
"""Of a title, from which a query's one to four words are taken."""
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


def invented(train: PairSet, size: int, encoder: Encoder, seed: int = 0, fold: int = data.JUDGE_FOLD) -> PairSet:
    """About ``size`` pairs of a query made of neighbouring words of a product's title, and a product.

    Each query comes with that product, with three of the twelve that are nearest to it, and with four of the next 108.
    None would belong to the judged ``fold`` if somebody had asked it.

    :raises PinfeatherError: if there are too few products, or their titles do not hold so many different queries.
    """
    if len(train.pins) < (least := 12 + EACH - 4):
        raise PinfeatherError(f"{train.name} has {len(train.pins)} products: at least {least} are needed.")
    random = np.random.default_rng([seed, 7])
    pins = np.nan_to_num(encode_pairs(train, encoder, DEFAULT_TEMPLATE)[3])
    queries = _title_queries(train, size // EACH, random, fold)
    vectors = encoder.encode(list(queries))
    found: list[tuple[str, int]] = []
    for (query, own), vector in zip(queries.items(), vectors, strict=True):
        likeness = pins @ vector
        near = np.argsort(-likeness, kind="stable")[: 2 * NEAREST]
        chosen = [*random.choice(near[:12], 3, replace=False), *random.choice(near[12:], EACH - 4, replace=False), own]
        found += [(query, int(pin)) for pin in dict.fromkeys(chosen)]
    return PairSet(
        f"{train.name}, invented",
        tuple(query for query, _ in found),
        train.pins,
        np.array([pin for _, pin in found], np.int64),
        source=f"{train.source}, invented",
    )


def _title_queries(train: PairSet, count: int, random: np.random.Generator, fold: int) -> dict[str, int]:
    """``count`` queries of one to four words, each with the number of the product whose title it is from."""
    titles = [(pin.title or "").split()[:FIRST_WORDS] for pin in train.pins]
    asked, found = set(train.queries), dict[str, int]()
    for _ in range(20):  # a title gives one query in each round
        for pin in random.permutation(len(titles)).tolist():
            words = titles[pin]
            if len(words) < 2:
                continue
            most = min(int(random.choice([1, 2, 3, 4], p=[0.1, 0.35, 0.35, 0.2])), len(words))
            start = int(random.integers(len(words) - most + 1))
            query = " ".join(words[start : start + most]).lower().strip(",.-()/& ")
            if len(query) > 3 and query not in asked and data.may_train(query, fold):
                found.setdefault(query, pin)
            if len(found) >= count:
                return found
    raise PinfeatherError(f"The titles of {train.name} gave {len(found)} queries, not {count}: ask for fewer.")


def distilled(
    trains: list[PairSet],
    teacher: Labeller,
    pool: int,
    encoder: Encoder,
    inventions: Mapping[str, int] | None = None,
    fold: int = data.JUDGE_FOLD,
) -> PairSet:
    """What the student learns from: judged, retrieved and invented pairs of all sets, with their targets."""
    total = sum(len(train) for train in trains)
    parts = []
    for train in trains:
        parts.append(replace(mixed(train, soft_labels(teacher, train), HUMAN_SHARE), levels=None))
        if size := pool * len(train) // total:
            more = retrieved(train, size, encoder)
            parts.append(replace(more, targets=soft_labels(teacher, more)))
        if size := (inventions or {}).get(train.name, 0):
            more = invented(train, size, encoder, fold=fold)
            parts.append(replace(more, targets=soft_labels(teacher, more)))
    return together("shops", *parts)


def trained(
    trains: list[PairSet],
    teacher_folder: Path,
    student_folder: Path,
    whole_folder: Path | None,
    settings: CrossSettings,
    training: TeacherTraining,
    towers: TowerTraining,
    pool: int,
    encoder: Encoder | None = None,
    inventions: Mapping[str, int] | None = None,
    fold: int = data.JUDGE_FOLD,
) -> dict[str, Any]:
    """Train what is not there, and give the wall and processor seconds of each stage, of former runs too.

    These are ``teacher``, ``labels``, ``student``, and ``whole``: a student with all weights of its towers trained
    (None: not). They are kept in ``times.json`` beside the student. Of an interrupted training the last part counts.
    """
    encoder = encoder or packaged()
    kept = student_folder.with_name("times.json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    took: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    started = (perf_counter(), process_time())

    def stage(name: str, **more: Any) -> None:
        nonlocal started
        now = (perf_counter(), process_time())
        took[name] = {"seconds": now[0] - started[0], "processor_seconds": now[1] - started[1], **more}
        new = kept.with_suffix(".new")
        new.write_text(json.dumps(took))
        new.replace(kept)
        started = now

    if not teacher_folder.is_dir():
        people = data.joined("shops", *trains)
        manifest = train_teacher(
            people, teacher_folder, settings=settings, training=training, tell=print, encoder=encoder
        )
        stage("teacher", **manifest.training)
    students = {"student": (student_folder, towers)}
    if whole_folder:
        students["whole"] = (whole_folder, replace(towers, rank=0))
    if all(folder.is_dir() for folder, _ in students.values()):
        return took
    teacher = Teacher.load(teacher_folder)
    pairs = distilled(trains, teacher, pool, encoder, inventions, fold)
    if took.get("labels", {}).get("teacher") != teacher.fingerprint:  # else they were there before
        stage("labels", pairs=len(pairs), teacher=teacher.fingerprint)
    report = {"teacher": teacher.name, "teacher_version": teacher.fingerprint, "human_share": HUMAN_SHARE}
    for name, (folder, how) in students.items():
        if not folder.is_dir():
            started = (perf_counter(), process_time())
            bundle = train_student_bundle(pairs, folder, towers=how, report=report, tell=print)
            stage(name, **bundle.manifest.training)
    return took


def main() -> None:
    """Train, write the JSON."""
    options = parser(__doc__).parse_args()
    trains = [data.split(name)[0] for name in data.SETS]
    settings, training = TEACHER[options.size]
    folders = (options.teacher, options.student, options.whole)
    if all(folder.is_dir() for folder in folders):
        raise SystemExit(f"{', '.join(map(str, folders))} are there: remove one to train it anew.")
    size = options.size
    took = trained(trains, *folders, settings, training, TOWERS[size], RETRIEVED[size], inventions=INVENTED[size])
    finish("training", options, took, "train")


if __name__ == "__main__":
    main()
