"""The service follows publications beside its requests."""

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor

from client_catalogue import move_pin
from degraded_shop import codes, spoil_next

from serving_client import PinClient
from serving_client.collector import settled
from serving_client.http import following

pytest_plugins = ("client_repo",)


def test_a_newer_publication_is_loaded_without_a_request_and_after_a_damaged_one(client_shop, tower, monkeypatch):
    monkeypatch.setattr("serving_client.opened.FRESH_SECONDS", 1e9)  # so that no request looks by itself
    monkeypatch.setattr(following, "FOLLOW_SECONDS", 0.0)
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.0)

    async def until(met):
        async with asyncio.timeout(60):
            while not met(await asyncio.to_thread(client.status)):
                await asyncio.sleep(0)

    async def play():
        first = client.status().publication
        task = asyncio.create_task(following.follow(client, executor))
        await asyncio.to_thread(move_pin, client_shop, "pasta0", "fern")
        await until(lambda status: status.publication > first)
        broken = spoil_next(client_shop, client.status().publication)
        await until(lambda status: "stale" in codes(status))
        assert not task.done()
        shutil.rmtree(broken)
        await until(lambda status: "stale" not in codes(status))
        task.cancel()

    with settled(), PinClient(client_shop.root, encoder=tower) as client, ThreadPoolExecutor(1) as executor:
        asyncio.run(play())
