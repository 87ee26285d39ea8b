"""The paths that answer for the client's methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from serving_client.answers import Embeddings
from serving_client.http.deadline import HEADER, seconds_of
from serving_client.http.errors import Refused, invalid_body
from serving_client.http.frame import told_of
from serving_client.http.headers import header_of
from serving_client.http.models import arguments, body_of
from serving_client.http.schemas import schema_of
from serving_client.http.service import Service
from serving_client.http.wire import ARROW, JSON, to_arrow, to_bytes
from serving_client.methods import Method, served_methods
from serving_client.stages import DeadlineError, deadline, listening

Answers = Mapping[tuple[str, str], ASGIApp]
"""HTTP method and path to what answers."""
_DEADLINE = HEADER.lower().encode()


def add_client_routes(app: FastAPI, service: Service) -> Answers:
    """One path for each method of the client; what answers at them, for :class:`Straight`."""
    routes = {(method.verb, method.path): _ClientRoute(method, service) for method in served_methods().values()}
    app.router.routes.extend(routes.values())
    return {where: route.app for where, route in routes.items()}


class Straight:
    """Takes requests of the client's paths straight to what answers them; all others go on as ever.

    What FastAPI and Starlette do on the way is much beside an answer of two milliseconds.
    """

    def __init__(self, app: ASGIApp, *, answers: Answers) -> None:
        self.app, self.answers = app, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        answer = self.answers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (answer or self.app)(scope, receive, send)


class _ClientRoute(APIRoute):
    """Stands in the OpenAPI document as FastAPI's own routes do, and answers without them.

    What FastAPI does for a request, beside checking the body, nothing here needs.
    """

    def __init__(self, method: Method, service: Service) -> None:
        self._method, self._service = method, service
        self._call = getattr(service.client, method.name)
        self._body: type[BaseModel] | None = body_of(method, service.settings) if method.parameters else None

        async def taking(body: BaseModel) -> None:  # only read for its parameters, as is the next one
            return None

        async def taking_nothing() -> None:
            return None

        taking.__annotations__["body"] = self._body
        super().__init__(
            method.path,
            taking if method.parameters else taking_nothing,
            methods=[method.verb],
            summary=method.summary,
            operation_id=method.name,
            response_model=None,
            responses={200: {"description": "The answer.", "content": _contents(method)}},
        )
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = {}
        if self._body is not None:  # which is there as a whole, see Gate
            given = arguments(_checked(self._body, (await receive())["body"]))
        content, media = await _answered(scope, self._service, self._method, partial(self._call, **given))
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", media.encode("ascii"))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _contents(method: Method) -> dict[str, Any]:
    contents: dict[str, Any] = {JSON: {"schema": schema_of(method.answer)}}
    if method.answer is Embeddings:
        contents[ARROW] = {"schema": {"type": "string", "format": "binary"}}
    return contents


def _checked(kind: type[BaseModel], body: bytes) -> BaseModel:
    """The body of a request.

    :raises Refused: if it is not there, no JSON, not of its form, or its bytes are no text.
    """
    if not body:
        raise invalid_body([{"type": "missing", "loc": ()}])
    try:
        data = json.loads(body)
    except json.JSONDecodeError as error:
        raise invalid_body([{"type": "json_invalid", "loc": (), "ctx": {"error": error.msg}}]) from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, "There was an error parsing the body") from error
    try:
        return kind.__pydantic_validator__.validate_python(data)
    except ValidationError as error:
        raise invalid_body(error.errors(include_url=False, include_input=False)) from error


async def _answered(scope: Scope, service: Service, method: Method, call: Callable[[], Any]) -> tuple[bytes, str]:
    """The answer, written, and as what."""
    told = told_of(scope)
    left = told.left(seconds_of(header_of(scope, _DEADLINE), service.settings.deadline))
    if left <= 0:
        raise DeadlineError("The deadline passed before the body had arrived: give the request more time.")
    arrow = method.answer is Embeddings and ARROW in (header_of(scope, b"accept") or "")
    with deadline(left), listening(service.metrics.stage):
        content, media, degraded = await service.workers.run(partial(_written, call, ARROW if arrow else JSON))
    told.degrade(degraded)
    return content, media


def _written(call: Callable[[], Any], media: str) -> tuple[bytes, str, tuple[str, ...]]:
    """The answer of ``call``, written in the thread that made it, and as what."""
    answer = call()
    degraded = getattr(answer, "degraded", ())
    if media == ARROW:
        try:
            return to_arrow(answer), ARROW, degraded
        except UnicodeEncodeError:  # an id with half a character, which JSON can say and Arrow cannot
            pass
    return to_bytes(answer), JSON, degraded
