"""A lost store refilled without a model: vectors from the log, payload and feature rows from their sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.releases import current_release
from materialize.run import RunOptions, materialize
from materialize.spaces import Status, load_space, load_spaces
from materialize.standing import RunCounts


def restore(
    paths: RepoPaths,
    space: str | None = None,
    *,
    lock_timeout: float = 10.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[RunCounts]:
    """Write every point that the store lacks and the vector log has; with the live space, the feature rows too.

    A vector of a text that has changed since comes back as it was, and the next run encodes it anew. Pins that have
    left the source do not come back. The counts' ``upserted`` are the points written, ``waiting`` those pins whose
    vector is in no log, which the next run encodes unless they are in quarantine. Pins in quarantine, and pins whose
    row `validate` rejected, come back with the vector that was logged last; no log has the feature rows of the latter.

    :param space: this space alone; default is every space.
    :raises UsageError: for a space that there is not.
    :raises PinfeatherError: before the first run, or if the log cannot be read.
    :raises StoreError: if another process writes, or the store fails.
    """
    done = []
    for name in _wanted(paths, space):
        options = RunOptions(space=name, restore=True, lock_timeout=lock_timeout, progress=progress)
        done.append(materialize(paths, options))
    return done


def _wanted(paths: RepoPaths, space: str | None) -> Sequence[str]:
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"Nothing was materialized in {paths.root} yet: there is nothing to restore.")
    if space is not None:
        return [load_space(paths, release.live_space if space == "live" else space).name]
    others = [each.name for each in load_spaces(paths) if each.status is not Status.DROPPING]
    return [release.live_space, *(name for name in others if name != release.live_space)]
