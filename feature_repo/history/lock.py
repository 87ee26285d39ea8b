"""One process at a time changes the history of a repository."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths


@contextmanager
def history_lock(paths: RepoPaths) -> Iterator[None]:
    """Nobody else takes or removes snapshots meanwhile.

    :raises PinfeatherError: if another process does so now.
    """
    paths.data.mkdir(parents=True, exist_ok=True)
    with (paths.data / ".history.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PinfeatherError(
                f"Another process is at the history of {paths.root} (it holds {paths.data / '.history.lock'}): wait "
                "until it is done, then run the same command again."
            ) from error
        yield
