"""Answers of scorers on a repository's judgments, and of a teacher on a file: what ``pinfeather evaluate`` judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.switchboard import template_without
from feature_repo.text import canonical_query
from pinfeather.training import FileScores

if TYPE_CHECKING:
    from pinfeather.training import Judged

TEACHER, STUDENT = "teacher.json", "manifest.json"
"""The file that a folder of each kind has."""


def cross_answers(judged: Judged, scorers: Sequence[str], folds: int = 5, seed: int = 0) -> list[FileScores]:
    """Each scorer on the repository's judgments, every pair by a model that has not seen its query.

    :raises UsageError: for the teacher, which was trained on these judgments, and unknown scorers.
    :raises PinfeatherError: if all queries fall into one fold.
    """
    from embedders.cross_validation import cross_fit

    refuse_teacher(scorers)
    fitted = [cross_fit(judged.trainer(seed), scorer, folds) for scorer in dict.fromkeys(scorers)]
    return [FileScores(one.scorer, one.probabilities, one.scores, judged.without) for one in fitted]


def refuse_teacher(scorers: Sequence[str]) -> None:
    """Refuse to judge the teacher on a repository's judgments, for nobody trains one anew for each fold.

    :raises UsageError: if it is among the scorers.
    """
    if "teacher" in scorers:
        raise UsageError(
            "The teacher was trained on the repository's judgments, which so say nothing of it: judge it on others, "
            "with --pairs FILE."
        )


def named_models(
    paths: RepoPaths | None, scorers: Sequence[str], bundle: str | None, teacher: str | None
) -> tuple[str | None, Path | None]:
    """The name of the student, and the folder of the teacher, each None if it is not asked for or not named.

    Without a student among the scorers, ``bundle`` names the teacher.

    :raises UsageError: if a model is named and none of its kind asked for, or it is of the other kind.
    :raises PinfeatherError: if there is no such teacher.
    """
    student, taught = "student" in scorers, "teacher" in scorers
    if teacher is not None and not taught:
        raise UsageError("--teacher names a teacher, and none is asked for: add --scorer teacher, or leave it out.")
    if bundle is not None and not student and not taught:
        raise UsageError(
            "--bundle names a student or a teacher, and none is asked for: add --scorer student or --scorer teacher, "
            "or leave it out."
        )
    if bundle is not None and not student:
        if teacher is not None:
            raise UsageError("--bundle and --teacher both name the teacher: leave one out, or add --scorer student.")
        bundle, teacher = None, bundle
    if bundle is not None:
        folder = _folder(bundle, paths.bundles if paths else None)
        if (folder / TEACHER).is_file():
            raise UsageError(f"{bundle} is a teacher, no student: ask for it with --scorer teacher --bundle {bundle}.")
    return bundle, _teacher(paths, teacher) if taught else None


def teacher_answer(
    pairs: PairSet, folder: Path, device: str, progress: Callable[[int], None] | None, off: tuple[str, ...]
) -> FileScores:
    """The teacher of ``folder`` on all pairs, its pin text without the sources that are off.

    :raises PinfeatherError: if it cannot be loaded.
    """
    from embedders.teacher import Teacher

    teacher = Teacher.load(folder, device=device)
    template = template_without(teacher.template, off)
    texts = [template.render(pin).text for pin in pairs.pins]
    queries = [canonical_query(query) for query in pairs.queries]
    probabilities = teacher.probabilities(queries, [texts[pin] for pin in pairs.pin_of], progress)
    return FileScores("teacher", probabilities, None, off)


def _teacher(paths: RepoPaths | None, name: str | None) -> Path:
    if name is None:
        return _only_teacher(paths)
    folder = _folder(name, paths.teachers if paths else None)
    if (folder / TEACHER).is_file():
        return folder
    if (folder / STUDENT).is_file() or (paths and (paths.bundles / name / STUDENT).is_file()):
        raise UsageError(f"{name} is a student, no teacher: ask for it with --scorer student --bundle {name}.")
    raise PinfeatherError(
        f"There is no teacher {name}: {folder / TEACHER} does not exist. Name one of {_known(paths)} or a folder, or "
        "run `pinfeather train teacher`."
    )


def _only_teacher(paths: RepoPaths | None) -> Path:
    found = _teachers(paths)
    if not paths or not found:
        raise PinfeatherError(
            "There is no teacher yet: run `pinfeather train teacher`, or name a folder with --teacher."
        )
    if len(found) > 1:
        raise UsageError(f"There are {len(found)} teachers: name one of {', '.join(found)} with --teacher NAME.")
    return paths.teachers / found[0]


def _teachers(paths: RepoPaths | None) -> list[str]:
    if paths is None or not paths.teachers.is_dir():
        return []
    return sorted(folder.name for folder in paths.teachers.iterdir() if (folder / TEACHER).is_file())


def _known(paths: RepoPaths | None) -> str:
    return ", ".join(_teachers(paths)) or "the repository's (it has none)"


def _folder(name: str, own: Path | None) -> Path:
    """A folder of that path, else the repository's model of that name."""
    return own / name if own and (own / name).is_dir() and not Path(name).is_dir() else Path(name)
