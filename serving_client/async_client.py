"""The client for code that runs in an event loop: the same names, to await."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from serving_client.client import PinClient
from serving_client.opened import QUERY_CACHE_BYTES
from serving_client.queries.query_cache import CacheStats
from serving_client.workers import THREADS, WAITING, Workers

if TYPE_CHECKING:
    from embedders.encoder import Encoder

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    method: Callable[Concatenate[PinClient, P], T],
) -> Callable[Concatenate[AsyncPinClient, P], Coroutine[Any, Any, T]]:
    """A method with the same arguments and answer that runs in a thread."""

    @functools.wraps(method)
    async def call(self: AsyncPinClient, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._workers.run(functools.partial(method, self._client, *args, **kwargs))

    return call


class AsyncPinClient:
    """The client with methods to await; otherwise :class:`~serving_client.client.PinClient`. Tasks may share it.

    One calls it so::

        async with AsyncPinClient("my_repo") as client:
            found = await client.search("green velvet sofa", limit=5)

    A task that is cancelled leaves nothing behind: its call ends in its thread and is not heard. Deadlines are set with
    :func:`serving_client.stages.deadline`.

    :param repo: a folder with ``feature_store.yaml``.
    :param threads: calls that run at a time.
    :param waiting: calls that may wait for a thread; beyond them :class:`~serving_client.workers.BusyError` is raised.
    :param device: this and the following as :class:`~serving_client.client.PinClient`.
    """

    def __init__(
        self,
        repo: str | Path,
        *,
        threads: int = THREADS,
        waiting: int = WAITING,
        device: str = "auto",
        query_cache_bytes: int = QUERY_CACHE_BYTES,
        encoder: Encoder | None = None,
        read_ahead_bytes: int = 0,
    ) -> None:
        self._workers = Workers(threads, waiting)
        self._client = PinClient(
            repo,
            device=device,
            query_cache_bytes=query_cache_bytes,
            encoder=encoder,
            read_ahead_bytes=read_ahead_bytes,
        )

    async def __aenter__(self) -> AsyncPinClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Take no more calls, wait for those under way, let go of store and models."""
        await asyncio.to_thread(self._workers.close)
        self._client.close()

    @property
    def query_cache(self) -> CacheStats:
        """Hits, misses and size of the query cache."""
        return self._client.query_cache

    refresh = _awaited(PinClient.refresh)
    embed_queries = _awaited(PinClient.embed_queries)
    embed_boards = _awaited(PinClient.embed_boards)
    pin_embeddings = _awaited(PinClient.pin_embeddings)
    pin_features = _awaited(PinClient.pin_features)
    query_features = _awaited(PinClient.query_features)
    score = _awaited(PinClient.score)
    search = _awaited(PinClient.search)
    related_pins = _awaited(PinClient.related_pins)
    home_feed = _awaited(PinClient.home_feed)
    board_pins = _awaited(PinClient.board_pins)
    boards_for_pin = _awaited(PinClient.boards_for_pin)
    evict_queries = _awaited(PinClient.evict_queries)
    status = _awaited(PinClient.status)
