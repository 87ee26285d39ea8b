"""The paths that answer for the client's methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from serving_client.answers import Embeddings
from serving_client.http.deadline import HEADER, seconds_of
from serving_client.http.frame import told_of
from serving_client.http.models import arguments, body_of
from serving_client.http.schemas import schema_of
from serving_client.http.service import Service
from serving_client.http.wire import ARROW, JSON, to_arrow, to_bytes
from serving_client.methods import Method, served_methods
from serving_client.stages import DeadlineError, deadline, listening


def add_client_routes(app: FastAPI, service: Service) -> None:
    """One path for each method of the client."""
    for method in served_methods().values():
        app.router.routes.append(_ClientRoute(method, service))


class _ClientRoute(APIRoute):
    """Stands in the OpenAPI document as FastAPI's own routes do, and answers without them.

    What FastAPI does for a request, beside checking the body, takes as long as many of these answers.
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
        request = Request(scope, receive)
        given = {} if self._body is None else arguments(_checked(self._body, await request.body()))
        response = await _answered(request, self._service, self._method, partial(self._call, **given))
        await response(scope, receive, send)


def _contents(method: Method) -> dict[str, Any]:
    contents: dict[str, Any] = {JSON: {"schema": schema_of(method.answer)}}
    if method.answer is Embeddings:
        contents[ARROW] = {"schema": {"type": "string", "format": "binary"}}
    return contents


def _checked(kind: type[BaseModel], body: bytes) -> BaseModel:
    """The body of a request.

    :raises RequestValidationError: if it is not there, no JSON, or not of its form; as FastAPI says it.
    :raises HTTPException: if its bytes are no text.
    """
    if not body:
        raise RequestValidationError([{"type": "missing", "loc": ("body",)}])
    try:
        data = json.loads(body)
    except json.JSONDecodeError as error:
        raise RequestValidationError(
            [{"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}]
        ) from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "There was an error parsing the body") from error
    try:
        return kind.__pydantic_validator__.validate_python(data, from_attributes=True)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in mistakes]) from error


async def _answered(request: Request, service: Service, method: Method, call: Callable[[], Any]) -> Response:
    told = told_of(request.scope)
    left = told.left(seconds_of(request.headers.get(HEADER), service.settings.deadline))
    if left <= 0:
        raise DeadlineError("The deadline passed before the body had arrived: give the request more time.")
    media = ARROW if method.answer is Embeddings and ARROW in request.headers.get("accept", "") else JSON
    with deadline(left), listening(service.metrics.stage):
        content, media, degraded = await service.workers.run(partial(_written, call, media))
    told.degrade(degraded)
    return Response(content, media_type=media)


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
