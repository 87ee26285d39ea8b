"""Releases: one small immutable manifest that says which space, bundle and statistics serve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize.files import write_json
from materialize.places import open_store

LIVE_EMBEDDING = "pin_student_embedding"
"""Public name of the live space: the Feast view without a suffix."""


@dataclass(frozen=True)
class Release:
    """What serves: public view name to space, the student bundle, the lexical statistics snapshot."""

    number: int
    names: Mapping[str, str] = field(default_factory=dict)
    bundle: str | None = None
    lexical: str | None = None
    created_at: str = ""

    @property
    def live_space(self) -> str | None:
        """The space behind the live embedding view."""
        return self.names.get(LIVE_EMBEDDING)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the manifest and for a publication."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Release:
        """The release of a manifest."""
        return cls(**data)


def current_release(paths: RepoPaths) -> Release | None:
    """The release that serves, or None before the first.

    :raises PinfeatherError: if the manifest cannot be read, or is gone although there were releases.
    """
    copy = f"Copy the newest good manifest from {paths.releases}/NNNNNN.json over it."
    if not paths.release.is_file():
        # Asked again, since the first release may have been written meanwhile; it comes before its copy in releases/.
        if _numbers(paths) and not paths.release.is_file():
            raise PinfeatherError(f"The release manifest {paths.release} is gone, though there were releases. {copy}")
        if not paths.release.is_file():
            return None
    try:
        return Release.from_json(json.loads(paths.release.read_text()))
    except (ValueError, TypeError) as error:
        raise PinfeatherError(f"The release manifest {paths.release} cannot be read ({error}). {copy}") from error


def past_release(paths: RepoPaths, number: int) -> Release:
    """The release ``number``.

    :raises UsageError: if there was none.
    :raises PinfeatherError: if its manifest cannot be read.
    """
    numbers = release_numbers(paths)
    if number not in numbers:
        known = ", ".join(map(str, numbers)) or "none yet"
        raise UsageError(f"There is no release {number}; there are: {known}.")
    current = current_release(paths)
    if current and current.number == number:  # a killed writer may have left no copy of it yet
        return current
    path = _past(paths, number)
    try:
        return Release.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise PinfeatherError(f"The release manifest {path} cannot be read ({error}).") from error


def release_numbers(paths: RepoPaths) -> list[int]:
    """Numbers of all releases so far, ascending, the present one last."""
    current = current_release(paths)
    if current is None:
        return []
    return [*(number for number in _numbers(paths) if number < current.number), current.number]


def _numbers(paths: RepoPaths) -> list[int]:
    """Numbers of the manifests in ``releases/``, ascending."""
    return sorted(int(path.stem) for path in paths.releases.glob("*.json") if path.stem.isdecimal())


def _past(paths: RepoPaths, number: int) -> Path:
    return paths.releases / f"{number:06d}.json"


def write_release(
    paths: RepoPaths,
    *,
    names: Mapping[str, str] | None = None,
    bundle: str | None = None,
    lexical: str | None = None,
    without_bundle: bool = False,
) -> Release:
    """Write the next release: the current one with what is given replaced; nothing is written if nothing changes.

    :param without_bundle: the next release has no student, whatever ``bundle`` says.
    """
    current = current_release(paths) or Release(0)
    changed = replace(
        current,
        names={**current.names, **(names or {})},
        bundle=None if without_bundle else bundle or current.bundle,
        lexical=lexical or current.lexical,
    )
    return _write_next(paths, current, changed)


def write_release_again(paths: RepoPaths, former: Release) -> Release:
    """Write what ``former`` said as the next release."""
    current = current_release(paths) or Release(0)
    changed = replace(current, names=former.names, bundle=former.bundle, lexical=former.lexical)
    return _write_next(paths, current, changed)


def _write_next(paths: RepoPaths, current: Release, changed: Release) -> Release:
    if changed == current and current.number:
        return current
    if current.number:
        _keep(paths, current)
    number = max([current.number, *_numbers(paths)]) + 1  # no number is given twice, even after an older one came back
    release = replace(changed, number=number, created_at=datetime.now(UTC).isoformat())
    write_json(paths.release, release.to_json())  # the one write that switches
    _keep(paths, release)  # after it, so that what is in releases/ has served
    return release


def _keep(paths: RepoPaths, release: Release) -> None:
    """Put a copy of ``release`` into ``releases/``, where there is none."""
    if not _past(paths, release.number).is_file():
        write_json(_past(paths, release.number), release.to_json())


def publish_release(paths: RepoPaths, *, bundle: str | None = None, lexical: str | None = None) -> Release:
    """Write the next release and let readers see it: a new publication that shares every unchanged collection.

    :raises StoreError: if another process writes.
    """
    with open_store(paths, "publish release") as store:
        release = write_release(paths, bundle=bundle, lexical=lexical)
        store.publish(release.to_json())
    return release
