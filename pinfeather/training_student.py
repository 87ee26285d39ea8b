"""Train a student: on a repository's judgments and labels, or on files of pairs; with towers of its own or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.switchboard import template_without, text_read
from feature_repo.text import canonical_query
from materialize.releases import publish_release
from materialize.spaces import live_space
from pinfeather.training import Judged, free_name
from pinfeather.training_teacher import file_pairs
from pinfeather.writable import check_writable

if TYPE_CHECKING:
    from embedders.bundle import StudentBundle

Tell = Callable[[str], None]
HUMAN_SHARE = 0.5
"""Of the target of a pair that people and a teacher have labelled."""


def train_student(
    judged: Judged,
    name: str | None = None,
    seed: int = 0,
    live: bool | None = None,
    teacher: str | None = None,
    human_share: float | None = None,
    towers: Mapping[str, Any] | None = None,
    dropout: float = 0.2,
    device: str = "auto",
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Train on every judged pair, and on a teacher's labels where one is named; write the bundle.

    Without ``towers`` (v1) the head reads the vectors of ``judged``'s space and the next release names the bundle. With
    them (v2) the bundle waits for a space of its own: `pinfeather spaces create NAME --bundle BUNDLE`, backfill,
    `pinfeather promote NAME --bundle BUNDLE`. Sources that ``judged`` was read without are off in the bundle for good;
    ``in_vectors`` names those that the vectors of the space are made of all the same.

    :param live: whether the release names it; None: if it reads the live space and no source is off, for a student
        without a source is an experiment. ``release`` is None for one that does not.
    :param teacher: name or version of the teacher whose labels count.
    :param human_share: how much of the target of a pair that has both is what people said; default
        :data:`HUMAN_SHARE`.
    :param towers: arguments of :class:`embedders.tower_training.TowerTraining`.
    :raises UsageError: if a bundle of that name exists (bundles are never overwritten), or ``live`` is asked of a
        student that does not read the live space.
    """
    from embedders.student_training import train_student_bundle

    paths, space = judged.paths, judged.space
    of_live = towers is None and live_space(paths).name == space.name
    if live and not of_live:
        raise _not_live(space.name, towers is not None)
    name, share = _new_name(paths, name), _share(teacher, human_share)
    pairs, report = with_labels(judged, teacher, share) if teacher else (judged.pairs, {})
    bundle = train_student_bundle(
        pairs,
        paths.bundles / name,
        **_of_judged(judged, towers),
        dropout=dropout,
        seed=seed,
        report=report,
        features=None if teacher else judged.features,
        device=device,
        tell=tell,
    )
    if live is None:
        live = of_live and not judged.without
    release = publish_release(paths, bundle=name).number if live else None
    return {
        **_told(bundle, paths.bundles / name),
        "space": None if towers is not None else space.name,
        "of_live": of_live,
        "release": release,
        "without": list(judged.without),
        "in_vectors": [] if towers is not None else list(text_read(space.template, judged.without)),
    }


def _of_judged(judged: Judged, towers: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a student takes over from the pairs' space: its vectors as they are, unless ``towers`` are trained."""
    space = judged.space
    common = {
        "statistics": judged.statistics,
        "encoder": judged.encoder,
        "pin_tower": space.model_fingerprint,
        "without": judged.without,
    }
    if towers is None:
        own = {"spaces": (space.name,), "product_penalty": judged.product_penalty}
        return {**common, "template": space.template, **own}
    from embedders.tower_training import TowerTraining

    template = template_without(space.template, judged.without)
    return {**common, "template": template, "towers": TowerTraining(**towers)}


def check_student(paths: RepoPaths, name: str | None, teacher: str | None, human_share: float | None) -> None:
    """Refuse a name that is taken or none, and a teacher without labels, before anything is encoded.

    :raises UsageError: saying which.
    """
    from pinfeather.labelling_store import find_labels

    _new_name(paths, name)
    _share(teacher, human_share)
    if teacher is not None:
        find_labels(paths, teacher)


def _not_live(space: str, towers: bool) -> UsageError:
    own, place = ("a space of its towers", "SPACE") if towers else (f"one of {space}", space)
    return UsageError(
        f"--live is for students of the live space: {own} goes live with it, `pinfeather promote {place} "
        "--bundle NAME`. Leave --live out."
    )


def _new_name(paths: RepoPaths, name: str | None) -> str:
    name = name or free_name(paths)
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"A bundle cannot be called {name!r}: give a plain name such as student-2.")
    if (paths.bundles / name).exists():
        raise UsageError(f"There is a bundle {name} in {paths.bundles} already: give another --name.")
    return name


def _share(teacher: str | None, human_share: float | None) -> float:
    """The share of human labels; one without a teacher to share with would do nothing."""
    if human_share is not None and teacher is None:
        raise UsageError("--human-share is between people and a teacher: name one with --teacher, or leave it out.")
    return HUMAN_SHARE if human_share is None else human_share


def train_student_on_files(
    files: Sequence[str],
    out: str,
    seed: int = 0,
    teacher: str | None = None,
    human_share: float | None = None,
    towers: Mapping[str, Any] | None = None,
    dropout: float = 0.2,
    device: str = "auto",
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Train on files of pairs, without a repository, and write the bundle to ``out``.

    :param teacher: a teacher's folder, which labels the pairs first.
    :raises UsageError: if there is something at ``out``.
    :raises PinfeatherError: if a file cannot be read, or ``out`` not written.
    """
    from embedders.student_training import mixed, train_student_bundle
    from embedders.tower_training import TowerTraining

    folder = Path(out)
    if folder.exists():
        raise UsageError(f"There is something at {folder} already: give another --out, or remove it.")
    check_writable("--out", folder.parent)
    share = _share(teacher, human_share)
    pairs = file_pairs(files)
    report: dict[str, Any] = {}
    if teacher is not None:
        labels, report = teacher_labels(pairs, teacher, device, tell)
        pairs = mixed(pairs, labels, share)
        report |= {"human_share": share}
    bundle = train_student_bundle(
        pairs,
        folder,
        towers=TowerTraining(**towers) if towers is not None else None,
        dropout=dropout,
        seed=seed,
        report=report,
        device=device,
        tell=tell,
    )
    nothing: dict[str, Any] = {"space": None, "of_live": False, "release": None, "without": [], "in_vectors": []}
    return {**_told(bundle, folder), **nothing}


def teacher_labels(
    pairs: PairSet, folder: str | Path, device: str = "auto", tell: Tell | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities [n, 5] of the teacher in ``folder``, and what the bundle says of it."""
    from embedders.teacher import Teacher

    model = Teacher.load(folder, device)
    texts = [model.template.render(pin).text for pin in pairs.pins]
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if tell:
            tell(f"labels: {done:,} of {len(pairs):,} pairs")

    labels = model.probabilities(pairs.queries, [texts[pin] for pin in pairs.pin_of], progress)
    return labels, {"teacher": model.name, "teacher_version": model.fingerprint}


def with_labels(judged: Judged, teacher: str, human_share: float) -> tuple[PairSet, dict[str, Any]]:
    """Judged pairs mixed with the teacher's labels of them, and the pairs that only the teacher labelled.

    :raises PinfeatherError: if the teacher labelled nothing.
    """
    from embedders.student_training import mixed, together
    from pinfeather.labelling_pairs import labelled_pairs
    from pinfeather.labelling_store import find_labels

    version = find_labels(judged.paths, teacher)
    labels = labelled_pairs(judged.paths, version, judged.space.name)
    people = judged.pairs
    rows = {key: row for row, key in enumerate(_keys(labels))}
    at = np.array([rows.get(key, -1) for key in _keys(people)])
    targets, both = people.require_targets().copy(), at >= 0
    if both.any():
        targets[both] = mixed(people.subset(both), labels.require_targets()[at[both]], human_share).require_targets()
    only = np.setdiff1d(np.arange(len(labels)), at[both])
    parts = [replace(people, targets=targets), *([labels.subset(only)] if len(only) else [])]
    report = {
        "teacher": teacher,
        "teacher_version": version,
        "human_share": human_share,
        "human_pairs": len(people),
        "labelled_pairs": len(only),
    }
    return together(people.name, *parts), report


def _keys(pairs: PairSet) -> list[tuple[str, str]]:
    if pairs.pin_ids is None:
        raise PinfeatherError(f"The pins of {pairs.name} have no ids.")
    return [
        (canonical_query(query), pairs.pin_ids[pin]) for query, pin in zip(pairs.queries, pairs.pin_of, strict=True)
    ]


def _told(bundle: StudentBundle, folder: Path) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": folder.name,
        "folder": str(folder),
        "dimension": manifest.dimension,
        "has_towers": bool(manifest.towers),
        **manifest.training,
    }
