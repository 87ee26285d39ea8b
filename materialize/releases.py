"""Releases: one small immutable manifest that says which space, bundle and statistics serve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from feature_repo.errors import PinfeatherError
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

    :raises PinfeatherError: if the manifest cannot be read.
    """
    if not paths.release.is_file():
        return None
    try:
        return Release.from_json(json.loads(paths.release.read_text()))
    except (ValueError, TypeError) as error:
        last = f"{paths.releases}/NNNNNN.json"
        raise PinfeatherError(
            f"The release manifest {paths.release} cannot be read ({error}). "
            f"Copy the newest good manifest from {last} over it."
        ) from error


def write_release(
    paths: RepoPaths,
    *,
    names: Mapping[str, str] | None = None,
    bundle: str | None = None,
    lexical: str | None = None,
) -> Release:
    """Write the next release: the current one with what is given replaced; nothing is written if nothing changes."""
    current = current_release(paths) or Release(0)
    changed = replace(
        current,
        names={**current.names, **(names or {})},
        bundle=bundle or current.bundle,
        lexical=lexical or current.lexical,
    )
    if changed == current and current.number:
        return current
    release = replace(changed, number=current.number + 1, created_at=datetime.now(UTC).isoformat())
    write_json(paths.releases / f"{release.number:06d}.json", release.to_json())
    write_json(paths.release, release.to_json())  # the one write that switches
    return release


def publish_release(paths: RepoPaths, *, bundle: str | None = None, lexical: str | None = None) -> Release:
    """Write the next release and let readers see it: a new publication that shares every unchanged collection.

    :raises StoreError: if another process writes.
    """
    with open_store(paths, "publish release") as store:
        release = write_release(paths, bundle=bundle, lexical=lexical)
        store.publish(release.to_json())
    return release
