"""Query vectors that `promote --warm` made are taken into the cache at a switch, and an erasure empties it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.spaces import Space
from materialize.warm_files import last_erasure, read_warm, warm_path
from serving_client.queries.towers import Towers

logger = logging.getLogger(__name__)


class Warmth:
    """Which files of a repository were taken in, and the erasures that were heeded; one thread at a time asks."""

    def __init__(self, paths: RepoPaths, towers: Towers) -> None:
        self.paths = paths
        self._towers = towers
        self._taken: dict[str, tuple[int, int, int]] = {}
        """Space to its file as it was taken in; none twice, as what was evicted since must not come back."""
        self._served: Sequence[Space] = ()
        self._erased = last_erasure(paths)

    def look(self) -> None:
        """Let go of all query vectors after an erasure; on a server none makes a new publication."""
        erased = last_erasure(self.paths)
        if erased != self._erased:
            self._towers.cache.clear()
            self._taken.clear()
            self._erased = erased
            self.switched(self._served)

    def switched(self, served: Sequence[Space]) -> None:
        """Take in the vectors made for the spaces ``served``, as far as there is room."""
        self._served = served
        for space in served:
            try:
                self._take(space)
            except (PinfeatherError, OSError) as error:
                logger.warning("space %s begins without its head queries: %s", space.name, error)

    def _take(self, space: Space) -> None:
        try:
            stat = warm_path(self.paths, space.name).stat()
        except FileNotFoundError:
            return
        seen = stat.st_mtime_ns, stat.st_size, stat.st_ino
        if self._taken.get(space.name) == seen or not self._towers.cache.max_bytes:
            return
        self._taken[space.name] = seen
        warm = read_warm(self.paths, space.name)
        if warm is None:
            return
        tower = self._towers.fingerprint(space)
        if warm.tower != tower or warm.vectors.shape[1] != space.dimension:
            raise PinfeatherError(
                f"{warm_path(self.paths, space.name)} holds {warm.vectors.shape[1]} dimensions of the tower "
                f"{warm.tower}, and queries get {space.dimension} of {tower}: make it again by `pinfeather promote "
                "--warm`, or delete it."
            )
        taken = self._towers.cache.warm(tower, warm.digests, warm.vectors)
        logger.info("space %s begins with the vectors of %d of %d head queries", space.name, taken, len(warm.digests))
