"""The outermost layer of the service: a request's id, its log line, its metrics, and an answer to every exception."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving_client.degraded import code_of
from serving_client.http.errors import Problem, Refused, problem_of
from serving_client.http.headers import header_of
from serving_client.http.logs import frames
from serving_client.http.metrics import Metrics
from serving_client.http.readiness import Readiness
from serving_client.workers import BusyError

REQUEST_ID = "X-Request-Id"
_REQUEST_ID_HEADER = REQUEST_ID.lower().encode()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
GONE = 499
"""Status in log and metrics of a request that got no answer, as its sender went away; nobody receives it."""
PAGE = "/page/"
"""Where the page's files are."""


@dataclass
class Told:
    """What is known of a request beside what it asks."""

    request_id: str
    began: float
    """By :func:`time.monotonic`."""
    key: str | None = None
    """Name of its API key."""
    degraded: list[str] = field(default_factory=list)
    """Codes of its answer."""

    def degrade(self, reasons: Collection[str]) -> None:
        """Note the codes of an answer's ``degraded``."""
        self.degraded = [code_of(reason) or "other" for reason in reasons]

    def left(self, seconds: float) -> float:
        """How much of ``seconds`` since it began is left."""
        return self.began + seconds - time.monotonic()


def told_of(scope: Scope) -> Told:
    """What :class:`Frame` keeps of the request."""
    told: Told = scope["state"]["told"]
    return told


class SenderGoneError(Exception):
    """Whoever sent a request has closed the connection."""


class Frame:
    """Gives every request an id, answers every exception, and tells log and metrics how it went.

    :param paths: those that metrics and log name; all others are ``/page/`` or ``other``, as anybody may invent them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        paths: Collection[str],
        metrics: Metrics,
        readiness: Readiness,
        logger: Any,
        root: str,
    ) -> None:
        self.app, self.metrics, self.readiness, self.logger, self.root = app, metrics, readiness, logger, root
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = Told(_request_id(scope), time.monotonic())
        scope.setdefault("state", {})["told"] = told
        answer = _Answer(self, told.request_id, send)
        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, answer.send)
            except SenderGoneError:
                answer.status = GONE
            except Exception as error:
                await self._answer_error(error, told, answer)
            finally:
                self._tell(scope, told, answer.status or GONE)

    async def _answer_error(self, error: Exception, told: Told, answer: _Answer) -> None:
        problem = problem_of(error, self.root)
        if problem.reason:
            told.degraded = [problem.reason]
        # Refusals of an overload are counted and stand in the request's line; more would cost what is scarce then.
        if problem.code in ("internal", "unavailable") and not isinstance(error, Refused | BusyError):
            self.logger.error(
                "failed",
                request_id=told.request_id,
                error=type(error).__name__,
                reason=problem.reason,
                frames=frames(error.__cause__ or error),
            )
        if answer.status:  # its beginning is sent: all that is left is to break the connection
            raise error
        for message in problem_messages(problem, told.request_id):
            await answer.send(message)

    def _tell(self, scope: Scope, told: Told, status: int) -> None:
        seconds = time.monotonic() - told.began
        path = scope["path"]
        route = path if path in self.paths else PAGE if path.startswith(PAGE) else "other"
        self.metrics.request(route, status, seconds, told.degraded)
        self.logger.info(
            "request",
            request_id=told.request_id,
            key=told.key,
            method=scope["method"] if scope["method"] in _METHODS else "other",
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
            degraded=told.degraded,
        )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class _Answer:
    """Sends an answer with the headers that all have, and remembers its status."""

    def __init__(self, frame: Frame, request_id: str, send: Send) -> None:
        self.frame, self.request_id, self._send = frame, request_id, send
        self.status = 0

    async def send(self, message: Message) -> None:
        """One part of it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._headers(message.get("headers", ()))
        await self._send(message)

    def _headers(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = [*given, (_REQUEST_ID_HEADER, self.request_id.encode("ascii"))]
        names = {name for name, _ in headers}
        headers += [pair for pair in _HEADERS if pair[0] not in names]
        if self.frame.readiness.draining:
            headers = [pair for pair in headers if pair[0] != b"connection"] + [(b"connection", b"close")]
        return headers


def problem_messages(problem: Problem, request_id: str) -> list[Message]:
    """``problem`` as ASGI messages."""
    body = problem.body(request_id)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **problem.headers}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return [
        {"type": "http.response.start", "status": problem.status, "headers": raw},
        {"type": "http.response.body", "body": body},
    ]


def _request_id(scope: Scope) -> str:
    """The id that the sender gave, if it can stand in a log, else a new one."""
    given = header_of(scope, _REQUEST_ID_HEADER)
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
