"""Train a teacher on a repository's judgments, or on files of pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate
from pinfeather.example_pairs import example_pairs, is_training_set
from pinfeather.judged import judged_pairs
from pinfeather.writable import check_writable

Tell = Callable[[str], None]


def file_pairs(files: Sequence[str]) -> PairSet:
    """The pairs of several files as one set: judged ones, and training sets with features as they were.

    :raises PinfeatherError: if one cannot be read, or has neither levels nor a teacher's labels.
    """
    from embedders.student_training import together

    paths = [Path(file) for file in files]
    parts = [example_pairs(path) if is_training_set(path) else PairSet.from_file(path) for path in paths]
    for part in parts:
        part.require_targets()
    return parts[0] if len(parts) == 1 else together(" + ".join(part.name for part in parts), *parts)


def read_lora(file: str | None) -> Mapping[str, Any] | None:
    """PEFT's ``LoraConfig`` arguments in a JSON file.

    :raises UsageError: if it holds no object.
    """
    if file is None:
        return None
    try:
        value = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--lora {file} cannot be read ({error}): give a JSON file such as {_LORA}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"--lora {file} holds no object: write arguments of PEFT's LoraConfig, such as {_LORA}.")
    return value


_LORA = '{"r": 16, "lora_alpha": 32}'


def train_teacher(
    repo: str,
    files: Sequence[str],
    out: str | None,
    name: str | None,
    cross: Mapping[str, Any],
    how: Mapping[str, Any],
    seeds: int = 1,
    device: str = "auto",
    precision: str = "auto",
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Train a teacher and write its folder: ``out``, else one of the repository's teachers.

    :param files: files of pairs; without any, the repository's judgments.
    :param cross: arguments of :class:`embedders.cross_model.CrossSettings`.
    :param how: arguments of :class:`embedders.teacher_training.TeacherTraining`.
    :returns: what the manifest says: ``teacher, folder, teacher_version, pairs, queries, temperature, held_back_loss``
        and more.
    :raises UsageError: if the folder is there already, or settings do not fit.
    :raises PinfeatherError: if it cannot be written, or a file not be read.
    """
    from embedders.cross_model import CrossSettings
    from embedders.teacher import teacher_fingerprint
    from embedders.teacher_training import TeacherTraining
    from embedders.teacher_training import train_teacher as train
    from materialize.spaces import live_space

    paths = RepoPaths.open(repo) if out is None or not files else None
    folder = Path(out) if out is not None else _own_folder(paths, name)
    if folder.exists():
        raise UsageError(f"There is something at {folder} already: give another name, or remove it.")
    check_writable("--out" if out is not None else "the teacher", folder)
    base = Path(str(cross.get("base", ""))).expanduser()
    own = {"base": str(base.absolute())} if cross.get("base") and base.is_dir() else {}
    settings = CrossSettings(**{**cross, **own})
    training = TeacherTraining(**how)
    template: PinTextTemplate = DEFAULT_TEMPLATE
    if files:
        pairs = file_pairs(files)
    elif paths is not None:
        pairs, template = judged_pairs(paths), live_space(paths).template
    folder.parent.mkdir(parents=True, exist_ok=True)
    manifest = train(pairs, folder, name, settings, training, template, device, precision, seeds=seeds, tell=tell)
    return {
        "teacher": manifest.name,
        "folder": str(folder),
        "teacher_version": teacher_fingerprint(manifest),
        "base": manifest.settings["base"],
        "temperature": manifest.temperature,
        "members": len(manifest.members) or 1,
        **manifest.training,
    }


def _own_folder(paths: RepoPaths | None, name: str | None) -> Path:
    if paths is None:
        raise PinfeatherError("Nothing says where the teacher goes: give --out DIR, or a repository with --repo.")
    if name is None:
        number = 1
        while (paths.teachers / f"teacher-{number}").exists():
            number += 1
        name = f"teacher-{number}"
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"A teacher cannot be called {name!r}: give a plain name such as teacher-2.")
    return paths.teachers / name
