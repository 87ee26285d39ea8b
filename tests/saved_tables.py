"""What ``validate`` and ``aggregate`` make of a pins table, kept for the test run: the same table gives the same."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.paths import RepoPaths

FOLDERS = ("valid", "rejected", "aggregates")
"""What the steps leave in folders of their own."""
FILES = ("reports/aggregate.json", *(f"views/{view}.parquet" for view in VIEW_SCHEMAS))
"""And beside what others write."""
OTHERS = ("captions", "erasures", "history", "pin_versions", "screening.yaml")
"""What they read besides raw tables."""


def saved(paths: RepoPaths, keep: Path | None, save: Callable[[], Any]) -> Any:
    """``save()``, which validates and aggregates; or what it once left and returned for the same raw table.

    It is done in any case where there is more to read than one table of pins.

    :param keep: the folder of what was made; None keeps nothing.
    """
    raw = [path for path in paths.raw.rglob("*") if not path.is_dir()]
    alone = len(raw) == 1 and not any((place / name).exists() for place in (paths.data, paths.root) for name in OTHERS)
    if keep is None or not alone:
        return save()
    kept = keep / hashlib.sha256(raw[0].read_bytes()).hexdigest()[:24]
    if not kept.is_dir():
        report = save()
        _keep(kept, paths, report)
        return report
    _put(kept, paths)
    return pickle.loads((kept / "report").read_bytes())


def _keep(kept: Path, paths: RepoPaths, report: Any) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=kept.parent))
    for folder in FOLDERS:
        shutil.copytree(paths.data / folder, made / folder)
    for name in FILES:
        (made / name).parent.mkdir(exist_ok=True)
        shutil.copy(paths.data / name, made / name)
    (made / "report").write_bytes(pickle.dumps(report))
    try:
        made.rename(kept)
    except OSError:  # another worker was quicker
        shutil.rmtree(made)


def _put(kept: Path, paths: RepoPaths) -> None:
    for folder in FOLDERS:
        shutil.rmtree(paths.data / folder, ignore_errors=True)
        shutil.copytree(kept / folder, paths.data / folder)
    for name in FILES:
        place = paths.data / name
        place.parent.mkdir(exist_ok=True)
        shutil.copy(kept / name, place.with_suffix(".new"))
        place.with_suffix(".new").replace(place)
