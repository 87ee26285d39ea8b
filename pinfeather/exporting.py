"""Towers of a student written where other programs find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedders.bundle import ROLES, StudentBundle
from embedders.bundle_places import bundle_folder
from embedders.tower_folder import TOWER, copy_model, open_model, replacing
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import CONFIG, RepoPaths


def export_tower(bundle: str, out: str, repo: str, role: str = "pin", merged: bool = False) -> dict[str, Any]:
    """Write the tower ``role`` of ``bundle`` to the new folder ``out``, as it is or merged with its base.

    :param bundle: ``pretrained``, a folder, or a bundle of the repository ``repo``, which need not be there otherwise.
    :returns: ``bundle, tower, folder, fingerprint, dimension, merged``, the fingerprint being the new folder's.
    :raises UsageError: if there is something at ``out``, or ``role`` is unknown.
    :raises PinfeatherError: if there is no such bundle, it is damaged, or it has no towers.
    """
    if role not in ROLES:
        raise UsageError(f"There is no tower {role!r}; there are: {', '.join(ROLES)}.")
    target = Path(out).expanduser().absolute()
    if target.exists():
        raise UsageError(f"{out} is there already: name a folder that is not, or delete that one first.")
    paths = RepoPaths.open(repo) if (Path(repo).expanduser() / CONFIG).is_file() else None
    student = StudentBundle.load(bundle_folder(bundle, paths))
    if not student.towers:
        raise PinfeatherError(
            f"Bundle {bundle} has no towers of its own; it reads the spaces {', '.join(student.manifest.spaces)}, "
            "whose models `pinfeather spaces list` names: take those."
        )
    source = student.towers[role]
    if merged and (source / TOWER).is_file():
        from embedders.merging import merge_tower

        merge_tower(source, target)
    else:  # a tower that is a whole model already is merged as it is
        with replacing(target) as building:
            copy_model(source, building)
    model = open_model(target)
    return {
        "bundle": student.manifest.name,
        "tower": role,
        "folder": str(target),
        "fingerprint": model.fingerprint(),
        "dimension": model.dimension,
        "merged": merged,
    }
