"""Past runs of the captioners, as ``pinfeather runs`` shows them: one small file a run, written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_repo.paths import RepoPaths
from materialize.files import write_json
from materialize.stores.lease import WriterLease

SPACE = "captions:"
"""Begins what stands for a space in the list of runs."""
_KEPT = 1_000


def lease(paths: RepoPaths, timeout: float) -> WriterLease:
    """The right to write captions: one process has it."""
    return WriterLease(lock(paths), timeout, "caption")


def lock(paths: RepoPaths) -> Path:
    """The lock file of that right."""
    return paths.captions / "writer.lock"


def start(paths: RepoPaths, name: str) -> int:
    """Note that a run of the captioner ``name`` began; its number among the captions' runs."""
    files = _files(paths)
    for file in files[: max(0, len(files) - _KEPT)]:
        file.unlink(missing_ok=True)
    number = int(files[-1].stem) + 1 if files else 1
    _write(paths, number, {"run": number, "space": SPACE + name, "started": _now(), "ended": None, "status": "running"})
    return number


def finish(paths: RepoPaths, number: int, status: str, counts: Mapping[str, Any]) -> None:
    """Note how it ended, with its counts."""
    begun = _read(_file(paths, number)) or {"run": number}
    _write(paths, number, {**begun, "ended": _now(), "status": status, "counts": dict(counts)})


def rows(paths: RepoPaths) -> list[dict[str, Any]]:
    """Runs as noted, the last one first: ``run, space, started, ended, status, counts``."""
    found = (_read(file) for file in reversed(_files(paths)))
    return [row for row in found if row is not None]


def _files(paths: RepoPaths) -> list[Path]:
    return sorted((paths.captions / "runs").glob("[0-9]*.json"))


def _file(paths: RepoPaths, number: int) -> Path:
    return paths.captions / "runs" / f"{number:09d}.json"


def _write(paths: RepoPaths, number: int, row: Mapping[str, Any]) -> None:
    write_json(_file(paths, number), row)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        row = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) and {"run", "space", "started", "status"} <= row.keys() else None


def _now() -> str:
    return datetime.now(UTC).isoformat()
