"""The OpenAPI document: FastAPI's, with the errors, the headers and the keys that every path has."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serving_client.degraded import CODES
from serving_client.http.deadline import HEADER
from serving_client.http.errors import STATUSES
from serving_client.http.frame import REQUEST_ID
from serving_client.http.gate import OPEN
from serving_client.http.wire import JSON

VERSION = "1"
"""Of the paths and their JSON; keys may be added to answers without another one."""
DESCRIPTION = (
    "Five-level relevance, search, related pins, home feeds, boards, features and vectors over one repository. "
    "Bodies are the arguments of the Python client's methods. NaN is null; times are ISO 8601 in UTC."
)
_ERROR = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"enum": sorted({code for code, _ in STATUSES.values()})},
                "message": {"type": "string", "description": "For people."},
                "request_id": {"type": "string"},
                "reason": {"enum": list(CODES), "description": "The part that is missing, where one is."},
            },
        }
    },
}
_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_HEADERS = [
    {
        "name": REQUEST_ID,
        "in": "header",
        "description": "Up to 128 letters, digits, _ . -; comes back and stands in the log. Made where it is not so.",
        "schema": {"type": "string"},
    },
    {
        "name": HEADER,
        "in": "header",
        "description": "Milliseconds after which the answer is of no use.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "example": 1000,
    },
]


def describe(app: FastAPI, *, with_keys: bool) -> None:
    """Let ``app`` give this document as its own, made once."""
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(_document(app, with_keys))
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, with_keys: bool) -> dict[str, Any]:
    document = get_openapi(title="Pinfeather", version=VERSION, description=DESCRIPTION, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Error"] = _ERROR
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of errors
        schemas.pop(unused, None)
    if with_keys:
        components["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"] |= _error_responses(path, "requestBody" in operation)
            if path.startswith("/v1/"):
                operation["parameters"] = [*operation.get("parameters", []), *_HEADERS]
            if with_keys and path not in OPEN:
                operation["security"] = [{name: []} for name in _SCHEMES]
    return document


def _error_responses(path: str, has_body: bool) -> dict[str, Any]:
    statuses = {400, 500}
    if path not in OPEN:
        statuses |= {401, 503}
    if path == "/readyz":
        statuses |= {503}
    if path.startswith("/v1/"):
        statuses |= {504}
    if has_body:
        statuses |= {408, 413, 415, 422}
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": STATUSES[status][1], "content": content} for status in sorted(statuses)}
