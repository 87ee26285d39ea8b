"""A connection: uvicorn's, with the bounds that it lacks."""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""Within so long a connection must have sent the headers of a request."""
MOST_HEADER_BYTES = 32 << 10
MOST_PIPELINED = 16
"""Requests that a connection may send before the first one is answered; each of 20 bytes takes some thousand here."""
SLICE = 16 << 10
"""The parser gets so many bytes at a time: it goes to the end of what it gets, whatever it finds."""
PART_BYTES = 64 << 10
"""What a client has to take of an answer within the service's ``send_seconds``, else its connection is broken."""


class TooMuchError(Exception):
    """More headers or requests than a connection may send; uvicorn answers it as what is no HTTP."""


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with an end for who does not finish the headers; its own timer ends idle connections only.

    The headers have a size here, which the parser does not look at, and so has what follows a body.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _unsent = 0
    _in_headers = False
    """Whether a request has begun whose headers are not complete."""
    _beside_body = 0
    """Bytes that came since the last one of a body or of a request."""
    _of_headers = 0
    """Bytes of the headers of the request that is read."""
    _plain = b""
    """Headers of a request that wanted another protocol, without that wish: its body would be left unread."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Bytes came; the timer runs on while they are part of headers."""
        for start in range(0, len(data), SLICE):
            part = data[start : start + SLICE]
            self._beside_body += len(part)
            self._feed(part)
            if self.transport.is_closing():
                return
            if self._beside_body > MOST_HEADER_BYTES:
                self.send_400_response("Invalid HTTP request received.")
                return
        if self._header_timer is None and not self._answering:
            self._start_timer()

    def _feed(self, part: bytes) -> None:
        """Give bytes to the parser; it stops at a request for another protocol, which is given again without that."""
        self._unset_keepalive_if_required()
        try:
            while part:
                try:
                    self.parser.feed_data(part)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    part, self._plain = self._plain + part[upgrade.args[0] :], b""
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_headers = True
        self._of_headers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; what comes in their form after a body is none, so that nothing is told once it was looked at."""
        if not self._in_headers:
            return
        self._of_headers += len(name) + len(value)
        if self._of_headers > MOST_HEADER_BYTES:
            raise TooMuchError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request can begin."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            version = self.parser.get_http_version().encode("ascii")
            lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
            lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
            self._plain = b"\r\n".join(lines) + b"\r\n\r\n"
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            raise TooMuchError
        self._in_headers = False
        self._beside_body = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._beside_body = 0
        if not self._plain:  # else it comes again
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is sent; what came of a next request may be a part of its headers."""
        unread = not self.pipeline and self.cycle.more_body
        super().on_response_complete()
        if unread:  # nobody reads the rest of the body, and each part of it would stop uvicorn's timer
            self.transport.close()
        elif self._in_headers and self._header_timer is None and not self._answering:
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
        if not self._answering:
            self.transport.close()
