"""The server process: its socket, and an end that loses no request."""

from __future__ import annotations

import signal
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from feature_repo.errors import UsageError
from serving_client.http.connection import TimedProtocol
from serving_client.http.service import Service

IDLE_SECONDS = 75
"""So long a connection stays open between requests: longer than the 60 seconds after which common gateways close
theirs, so that none sends a request into a connection that just ends."""
MOST_CONNECTIONS = 2048


class Server(uvicorn.Server):
    """uvicorn's server, which at SIGTERM first says that it is not ready, then finishes what is under way.

    :param drain_delay: seconds for load balancers to notice, in which requests are still taken. SIGINT skips them.
    :param drain_seconds: seconds after that for requests under way.
    """

    def __init__(self, app: FastAPI, *, drain_delay: float, drain_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=TimedProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
                limit_concurrency=MOST_CONNECTIONS,
            )
        )
        self.service: Service = app.state.service
        self.drain_delay = drain_delay
        self._exit_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second signal ends the delay, a further one what is under way.

        uvicorn's own raises the signal again afterwards, so that the process would not end with 0.
        """
        self.service.readiness.draining = True
        if self.should_exit:
            self.force_exit = True
        elif sig == signal.SIGINT or self._exit_at is not None:
            self.should_exit = True
        else:
            self._exit_at = time.monotonic() + self.drain_delay

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now; asked ten times a second."""
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    :raises UsageError: if ``host`` is no address of this machine or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # a name with an empty or too long part cannot be written in IDNA
        raise UsageError(f"Cannot listen on {host}: {getattr(error, 'strerror', None) or error}.") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(MOST_CONNECTIONS)
    except OSError as error:
        opened.close()
        raise UsageError(f"Cannot listen on {host} port {port}: {error.strerror}. Give another --port.") from error
    return opened


def address_of(opened: socket.socket) -> str:
    """The http address of a listening socket."""
    name: Any = opened.getsockname()
    host = f"[{name[0]}]" if opened.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"
