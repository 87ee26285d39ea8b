"""A call of a service ends in time although the service sends something now and then."""

import asyncio
import socket
import threading
from contextlib import contextmanager

import pytest

from serving_client import AsyncRemotePinClient, RemotePinClient
from serving_client.stages import DeadlineError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


@contextmanager
def dripping(begin):
    """The address of a server that answers with ``begin`` and then a byte every hundredth of a second, 300 in all, and
    those that it has sent."""
    over, sent = threading.Event(), []

    def serve():
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(begin)
            try:
                for _ in range(300):
                    if over.wait(0.01):
                        return
                    connection.sendall(b"1")
                    sent.append(1)
            except OSError:  # the client went
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", sent
        finally:
            over.set()
            thread.join(20)


@pytest.mark.parametrize("begin", [HEAD, b"HTTP/1.1 200 OK\r\nX-Slow: "], ids=["body", "head"])
def test_a_server_that_drips_does_not_hold_a_call(begin):
    with dripping(begin) as (url, sent), RemotePinClient(url, timeout=0.2) as client:
        with pytest.raises(DeadlineError, match="did not answer in time"):
            client.status()
        assert len(sent) < 300


@pytest.mark.parametrize("begin", [HEAD, b"HTTP/1.1 200 OK\r\nX-Slow: "], ids=["body", "head"])
def test_a_server_that_drips_does_not_hold_an_awaited_call(begin):
    async def ask(url):
        async with AsyncRemotePinClient(url, timeout=0.2) as client:
            await client.status()

    with dripping(begin) as (url, sent):
        with pytest.raises(DeadlineError, match="did not answer in time"):
            asyncio.run(ask(url))
        assert len(sent) < 300
