"""Where a bundle is that somebody names: in the repository, in a folder anywhere, or packaged with Pinfeather."""

from __future__ import annotations

import shutil
from pathlib import Path

from embedders.bundle import MANIFEST, BundleError, StudentBundle
from embedders.model_files import file_sha256
from embedders.tower_folder import replacing
from feature_repo.paths import RepoPaths

PRETRAINED = "pretrained"
"""Name of the student that is installed with Pinfeather."""


def pretrained_path() -> Path:
    """The folder of the packaged student.

    :raises BundleError: if this installation has none.
    """
    folder = Path(__file__).parent / "pretrained" / "student"
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"This installation has no pretrained student ({folder} is no bundle): install Pinfeather again, or train "
            "one with `pinfeather train student`."
        )
    return folder


def bundle_folder(name: str, paths: RepoPaths | None = None) -> Path:
    """The folder of the bundle ``name``: ``pretrained``, the name of one of the repository, or a folder.

    :raises BundleError: if there is none.
    """
    if name == PRETRAINED:
        return pretrained_path()
    given = Path(name).expanduser()
    own = [paths.bundles / name] if paths and given.name == name else []
    for folder in (*own, given):
        if (folder / MANIFEST).is_file():
            return folder.absolute()
    known = sorted(each.parent.name for each in paths.bundles.glob(f"[!.]*/{MANIFEST}")) if paths else []
    raise BundleError(
        f"There is no bundle {name!r}: give {PRETRAINED}, a folder with {MANIFEST}, or one of the repository "
        f"({', '.join(known) or 'which has none yet: `pinfeather train student` makes one'})."
    )


def adopt_bundle(paths: RepoPaths, name: str) -> str:
    """Name of the bundle in the repository; one from outside is checked and copied there first.

    So nothing breaks when the folder outside disappears. Where another bundle of that name is there, the copy's name
    ends in eight digits of its manifest's hash.

    :raises BundleError: if there is no such bundle, or it is damaged.
    """
    folder = bundle_folder(name, paths)
    if folder.resolve().parent == paths.bundles.resolve():
        return folder.name
    StudentBundle.load(folder)
    digest = file_sha256(folder / MANIFEST)
    plain = PRETRAINED if name == PRETRAINED else folder.resolve().name.lstrip(".") or "bundle"
    for own in (plain, f"{plain}-{digest[:8]}"):
        there = paths.bundles / own / MANIFEST
        if there.is_file() and file_sha256(there) == digest:
            return own
        if not (paths.bundles / own).exists():
            with replacing(paths.bundles / own) as building:
                shutil.copytree(folder, building, dirs_exist_ok=True)
            return own
    raise BundleError(f"{paths.bundles / own} is in the way of a copy of {folder}: delete it, or move it away.")
