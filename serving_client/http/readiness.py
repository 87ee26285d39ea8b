"""Whether the service should get requests: it has a publication, its model has answered, and it is not about to end.

A service whose query tower cannot be loaded is ready nevertheless, and says what it lacks: features, vectors, related
pins, home feeds and searches by words need no tower, and nobody is served better by none of all its processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext, suppress

from feature_repo.errors import PinfeatherError
from materialize.stores.errors import StoreError
from serving_client.client import PinClient
from serving_client.collector import settle

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
PROBE = "ready"
"""The query of the first search, which makes everything be loaded."""


class Readiness:
    """What the service still misses."""

    def __init__(self) -> None:
        self.missing: str | None = "starting"
        """What is missing, for people; None where nothing is."""
        self.lacking: str | None = None
        """What a service that is ready has to do without, for people; None where that is nothing."""
        self.draining = False
        """Whether the service takes no new work because it ends."""

    @property
    def problem(self) -> str | None:
        """Why no requests should come; None where they may."""
        return "The service is about to end." if self.draining else self.missing

    async def prepare(self, client: PinClient, executor: Executor, told: Callable[[str], str]) -> None:
        """Load everything, again and again until it is there, or nothing but what queries need is not.

        :param told: makes the text of an error fit for everybody.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                lacking = await loop.run_in_executor(executor, _load, client)
            except Exception as error:  # of any kind: it may be over at the next try
                expected = isinstance(error, PinfeatherError | StoreError | OSError)
                missing = told(str(error)) if expected else f"The first search failed ({type(error).__name__})."
                if missing != self.missing:
                    logger.warning("not ready: %s", missing)
                self.missing = missing
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.missing, self.lacking = None, None if lacking is None else told(lacking)
                if self.lacking is not None:
                    logger.warning("ready without embedding queries: %s", self.lacking)
                return

    async def complete(self, client: PinClient, executor: Executor, told: Callable[[str], str]) -> None:
        """Try once more to load what a service that is ready lacks.

        :param told: as for :meth:`prepare`.
        """
        if self.lacking is None:
            return
        lacking = await asyncio.get_running_loop().run_in_executor(executor, _unable_to_embed, client)
        self.lacking = None if lacking is None else told(lacking)
        if self.lacking is None:
            logger.warning("queries can be embedded again")


def _load(client: PinClient) -> str | None:
    """Load what serves; why no query can be embedded, None if it can."""
    client.pin_embeddings([PROBE])  # without a space that can be read there is nothing to serve
    lacking = _unable_to_embed(client)
    with nullcontext() if lacking is None else suppress(PinfeatherError):  # where words lack too, pins can be related
        client.search(PROBE, limit=1)
    settle()
    return lacking


def _unable_to_embed(client: PinClient) -> str | None:
    try:
        client.embed_queries([PROBE])
    except PinfeatherError as error:
        return str(error)
    return None
