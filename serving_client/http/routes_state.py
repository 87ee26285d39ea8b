"""The paths for those who run the service: health, readiness, metrics."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving_client.http.errors import Refused
from serving_client.http.service import Service
from serving_client.http.wire import JSON

STATE_PATHS = ("/healthz", "/readyz", "/metrics")


def add_state_routes(app: FastAPI, service: Service) -> None:
    """``/healthz``, ``/readyz`` and ``/metrics``."""

    async def healthz() -> Response:
        return _json({"alive": True})

    async def readyz() -> Response:
        problem = service.readiness.problem
        if problem is not None:
            raise Refused(503, f"Not ready: {problem}", Retry_After="1")
        lacking = service.readiness.lacking
        return _json({"ready": True} if lacking is None else {"ready": True, "lacking": lacking})

    async def metrics() -> Response:
        text = await asyncio.get_running_loop().run_in_executor(service.aside, service.metrics.text)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    yes: dict[str, Any] = {JSON: {"schema": {"type": "object", "additionalProperties": {"const": True}}}}
    ready: dict[str, Any] = {
        JSON: {"schema": {"type": "object", "properties": {"ready": {"const": True}, "lacking": {"type": "string"}}}}
    }
    text: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    for path, endpoint, summary, content in (
        ("/healthz", healthz, "Whether the process lives.", yes),
        ("/readyz", readyz, "Whether requests should come.", ready),
        ("/metrics", metrics, "Metrics in Prometheus' text format.", text),
    ):
        answer: dict[int | str, Any] = {200: {"description": summary, "content": content}}
        app.add_api_route(path, endpoint, methods=["GET"], response_class=Response, summary=summary, responses=answer)


def _json(data: dict[str, Any]) -> Response:
    return Response(json.dumps(data), media_type=JSON)
