"""The application: routes and layers put together over a client."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from serving_client.client import PinClient
from serving_client.http.errors import STATUSES, Problem, problem_of
from serving_client.http.following import follow
from serving_client.http.frame import Frame, told_of
from serving_client.http.gate import Gate
from serving_client.http.logs import request_logger
from serving_client.http.openapi import describe
from serving_client.http.routes_client import Straight, add_client_routes
from serving_client.http.routes_page import add_page_routes
from serving_client.http.routes_state import STATE_PATHS, add_state_routes
from serving_client.http.service import Service
from serving_client.http.settings import Settings
from serving_client.http.wire import JSON
from serving_client.methods import served_methods

OPENAPI = "/openapi.json"
SWITCH_SECONDS = 0.001
"""After so long a thread that computes lets another one have its turn. With Python's 5 ms the event loop, which reads,
writes and begins all requests, would wait for every thread that works on one."""


def create_app(client: PinClient, settings: Settings | None = None) -> FastAPI:
    """The service over ``client`` as an ASGI application; ``app.state.service`` holds its parts.

    Without API keys it answers only to loopback names as Host; where it listens is for its server to see to. The client
    is not closed with it.
    """
    service = Service(client, settings or Settings())
    app = FastAPI(
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        openapi_url=OPENAPI,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.service = service
    answers = add_client_routes(app, service)
    add_state_routes(app, service)
    add_page_routes(app)
    describe(app, with_keys=bool(service.settings.keys))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Straight, answers=answers)
    app.add_middleware(Gate, settings=service.settings)
    app.add_middleware(  # the last one is the outermost
        Frame,
        paths=("/", OPENAPI, *STATE_PATHS, *(method.path for method in served_methods().values())),
        metrics=service.metrics,
        readiness=service.readiness,
        logger=request_logger(),
        root=service.root,
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    thresholds, switching = gc.get_threshold(), sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    aside = asyncio.create_task(_prepare_and_follow(service))
    try:
        yield
    finally:
        aside.cancel()
        with suppress(asyncio.CancelledError):
            await aside
        service.close()
        gc.unfreeze()  # what was set aside for the service
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(switching)


async def _prepare_and_follow(service: Service) -> None:
    await service.readiness.prepare(service.client, service.aside, service.tellable)
    if service.settings.read_ahead:
        service.client.read_ahead(service.settings.read_ahead)
    complete = partial(service.readiness.complete, service.client, service.aside, service.tellable)
    await follow(service.client, service.aside, complete)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, another method, a body that is none."""
    if not isinstance(error, HTTPException) or error.status_code not in STATUSES:
        return _response(request, problem_of(error))
    message = str(error.detail) if error.status_code == 400 else STATUSES[error.status_code][1]
    return _response(request, Problem(error.status_code, message, dict(error.headers or {})))


def _response(request: Request, problem: Problem) -> Response:
    body = problem.body(told_of(request.scope).request_id)
    return Response(body, problem.status, headers=dict(problem.headers), media_type=JSON)
