"""The service follows the newest publication beside its requests, so that none of them waits for one to load."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from feature_repo.errors import PinfeatherError
from materialize.stores.errors import StoreError
from serving_client.client import PinClient
from serving_client.collector import settle
from serving_client.publications.parts import RETRY_SECONDS

FOLLOW_SECONDS = 0.5
"""Between two looks: below what the client waits before a request looks by itself."""


async def nothing() -> None:
    """What there is to do besides looking, where that is nothing."""


async def follow(client: PinClient, executor: Executor, besides: Callable[[], Awaitable[None]] = nothing) -> None:
    """Look for a newer publication again and again, in a thread of ``executor``, until cancelled.

    One that cannot be loaded is told in the log and in the answers, not here.

    :param besides: awaited after each look that went well.
    """
    loop = asyncio.get_running_loop()
    wait = FOLLOW_SECONDS
    while True:
        await asyncio.sleep(wait)
        try:
            await loop.run_in_executor(executor, _look, client)
            wait = FOLLOW_SECONDS
            await besides()
        except (PinfeatherError, StoreError):
            wait = RETRY_SECONDS


def _look(client: PinClient) -> None:
    if client.refresh():
        settle()
