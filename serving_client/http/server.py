"""The server process: sockets, timeouts that uvicorn lacks, and an end that loses no request."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from feature_repo.errors import UsageError
from serving_client.http.service import Service

HEADER_SECONDS = 10.0
"""Within so long a connection must have sent the headers of a request."""
IDLE_SECONDS = 75
"""So long a connection stays open between requests: longer than the 60 seconds after which common gateways close
theirs, so that none sends a request into a connection that just ends."""
MOST_CONNECTIONS = 2048
MOST_HEADER_BYTES = 32 << 10
PART_BYTES = 64 << 10
"""What a client has to take of an answer within the service's ``send_seconds``, else its connection is broken."""


class TimedProtocol(H11Protocol):
    """uvicorn's protocol, with an end for who does not finish the headers; its own timer ends idle connections only.

    h11 and not httptools, which puts no bound to the headers' size.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Bytes came; the timer runs on while they are part of headers."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None and self.conn.trailing_data[0]:
            self._start_timer()

    def on_response_complete(self) -> None:
        """An answer is sent; what came of a next request may be a part of its headers."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:  # nobody reads it, and each part of it would stop uvicorn's timer
            self.transport.close()
        if self._header_timer is None and self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More is to be sent than the client takes; uvicorn has written the whole answer and waits for nothing."""
        super().pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        """The client has taken nearly all."""
        self._stop_send_timer()
        super().resume_writing()

    def _start_send_timer(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        seconds = self.config.app.state.service.settings.send_seconds  # type: ignore[union-attr]
        self._send_timer = self.loop.call_later(seconds, self._look_what_is_taken)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _look_what_is_taken(self) -> None:
        self._send_timer = None
        if self._unsent - self.transport.get_write_buffer_size() < PART_BYTES:
            self.transport.abort()  # closing would wait until all is taken
        else:
            self._start_send_timer()

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            self.transport.close()


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
                h11_max_incomplete_event_size=MOST_HEADER_BYTES,
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
