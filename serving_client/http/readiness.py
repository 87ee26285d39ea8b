"""Whether the service should get requests: it has a publication, its model has answered, and it is not about to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

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
        self.draining = False
        """Whether the service takes no new work because it ends."""

    @property
    def problem(self) -> str | None:
        """Why no requests should come; None where they may."""
        return "The service is about to end." if self.draining else self.missing

    async def prepare(self, client: PinClient, executor: Executor, told: Callable[[str], str]) -> None:
        """Load everything, again and again until it is there.

        :param told: makes the text of an error fit for everybody.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(executor, _load, client)
            except Exception as error:  # of any kind: it may be over at the next try
                expected = isinstance(error, PinfeatherError | StoreError | OSError)
                missing = told(str(error)) if expected else f"The first search failed ({type(error).__name__})."
                if missing != self.missing:
                    logger.warning("not ready: %s", missing)
                self.missing = missing
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.missing = None
                return


def _load(client: PinClient) -> None:
    client.embed_queries([PROBE])
    client.search(PROBE, limit=1)
    settle()
