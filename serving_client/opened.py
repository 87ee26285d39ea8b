"""A repository as a client holds it: the publication that serves, models, caches, and what happens at a switch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from feature_repo.paths import RepoPaths
from materialize.spaces import Space
from serving_client.publications.publications import Publication, Publications
from serving_client.publications.read_ahead import ReadAhead
from serving_client.queries.query_cache import CacheStats, QueryCache
from serving_client.queries.towers import Towers
from serving_client.queries.warm import Warmth

if TYPE_CHECKING:
    from embedders.encoder import Encoder

QUERY_CACHE_BYTES = 128 << 20
"""Some 115,000 queries at 384 dimensions; docs/query_cache.md has the hit rate by size."""
FRESH_SECONDS = 1.0
"""A request that begins so long after the last look looks for a newer publication."""


class OpenedRepository:
    """What :class:`~serving_client.client.PinClient` asks; its parameters and errors are documented there."""

    def __init__(
        self,
        repo: str | Path,
        *,
        device: str = "auto",
        query_cache_bytes: int = QUERY_CACHE_BYTES,
        encoder: Encoder | None = None,
        read_ahead_bytes: int = 0,
    ) -> None:
        self.paths = RepoPaths.open(repo)
        self._ahead_bytes = read_ahead_bytes
        self._ahead: ReadAhead | None = None
        self._towers = Towers(device, QueryCache(query_cache_bytes), encoder)
        self._warmth = Warmth(self.paths, self._towers)
        self._asked: set[str] = set()
        """Spaces that somebody asked for by their own name: their models and query vectors outlive a switch."""
        self._publications = Publications(
            self.paths, self._switched, FRESH_SECONDS, on_look=self._warmth.look, on_retired=self._tidy
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of store and models; calls that are under way finish first."""
        if self._ahead is not None:
            self._ahead.close()
        self._publications.close()

    def refresh(self) -> bool:
        """Switch to the newest publication now; whether there was a newer one."""
        return self._publications.refresh()

    def read_ahead(self, max_bytes: int) -> None:
        """Read the rows of the live space in a thread from now on, until what is kept takes ``max_bytes``.

        Whoever is asked for pins all the time wants that (the service does it), a script does not: it takes a core for
        some seconds for every 100,000 pins. More than the store's ``cache_mb`` allows is never kept.
        """
        self._ahead = self._ahead or ReadAhead(self._publications, max_bytes)
        self._ahead.start()

    @property
    def pins_read_ahead(self) -> int:
        """Pins of the publication that serves, whose rows were read before anybody asked for them."""
        return 0 if self._ahead is None else self._ahead.pins

    @property
    def query_cache(self) -> CacheStats:
        """Hits, misses and size of the query cache."""
        return self._towers.cache.stats

    def _switched(self, publication: Publication) -> None:
        self._asked.intersection_update(publication.spaces())
        self._tidy(publication)
        self._warmth.switched(_served(publication))
        if self._ahead_bytes > 0:
            self.read_ahead(self._ahead_bytes)

    def _tidy(self, publication: Publication) -> None:
        """Let go of models and query vectors that ``publication`` does not need.

        Once more when the last request over a former one has ended: it may have loaded the former model again.
        """
        self._towers.keep_only([*_served(publication), *publication.opened(self._asked.copy())])

    def _space(self, publication: Publication, name: str) -> Space:
        space = publication.space(name)
        if name == space.name:
            self._asked.add(name)
        return space


def _served(publication: Publication) -> list[Space]:
    """The spaces of the release, the live one first: it gets the room for warm vectors first."""
    live = [publication.release.live_space] if publication.release.live_space else []
    return [publication.space(name) for name in dict.fromkeys([*live, *publication.release.names.values()])]
