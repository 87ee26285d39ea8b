"""The paths that answer for the client's methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

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
        app.add_api_route(
            method.path,
            _endpoint(method, service),
            methods=[method.verb],
            summary=method.summary,
            operation_id=method.name,
            response_model=None,
            responses={200: {"description": "The answer.", "content": _contents(method)}},
        )


def _contents(method: Method) -> dict[str, Any]:
    contents: dict[str, Any] = {JSON: {"schema": schema_of(method.answer)}}
    if method.answer is Embeddings:
        contents[ARROW] = {"schema": {"type": "string", "format": "binary"}}
    return contents


def _endpoint(method: Method, service: Service) -> Callable[..., Awaitable[Response]]:
    call = getattr(service.client, method.name)

    async def ask(request: Request, body: BaseModel) -> Response:
        return await _answered(request, service, method, partial(call, **arguments(body)))

    async def ask_nothing(request: Request) -> Response:
        return await _answered(request, service, method, call)

    if method.parameters:
        ask.__annotations__["body"] = body_of(method, service.settings)
    endpoint = ask if method.parameters else ask_nothing
    endpoint.__annotations__ |= {"request": Request, "return": Response}
    return endpoint


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
