"""What went wrong in a call of Qdrant: whether it passes by itself, and in which words it is told."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from .errors import (
    BadInputError,
    CollectionMissingError,
    StoreAccessError,
    StoreError,
    StoreSlowError,
    StoreUnavailableError,
)


class TooLargeError(BadInputError):
    """The server takes no request of that size."""


class ExistsError(StoreError):
    """What was to be made is there already."""


class NotQdrantError(StoreError):
    """The answer is none of Qdrant's."""


class Failure(NamedTuple):
    """One failure of one try."""

    kind: type[StoreError]
    words: str
    passes: bool = False
    wait: float | None = None


def judge(error: Exception) -> Failure:
    """What an exception of the client means."""
    match error:
        case ResourceExhaustedResponse():
            return Failure(StoreUnavailableError, "is too busy (429)", True, float(error.retry_after_s))
        case QdrantException():  # a Retry-After that is a date
            return Failure(StoreUnavailableError, "is too busy (429)", True)
        case UnexpectedResponse():
            return _judge_status(error.status_code or 0, _words(error.content))
        case ResponseHandlingException():
            return _judge_transport(error.source)
        case grpc.RpcError():
            return _judge_grpc(error)
        case json.JSONDecodeError():
            return Failure(NotQdrantError, "the answer is no JSON")
        case ValueError() | KeyError() | AssertionError():
            return _judge_client(str(error))
        case _:
            return Failure(StoreError, f"raised {type(error).__name__}: {error}")


def _judge_status(status: int, words: str) -> Failure:
    if status in (408, 429) or 500 <= status <= 504:
        kind = StoreSlowError if status in (408, 504) else StoreUnavailableError
        return Failure(kind, f"answers {status} ({words})", True)
    if status in (401, 403):
        return Failure(StoreAccessError, f"{status}: {words}")
    if status == 404 and "Collection" in words:
        return Failure(CollectionMissingError, f"says: {words}")
    if status == 409 or (status == 400 and "already exists" in words):
        return Failure(ExistsError, f"says: {words}")
    if status in (400, 422):
        return Failure(BadInputError, words)
    if status == 413:
        return Failure(TooLargeError, words)
    if status in (301, 302, 307, 308, 404, 405, 406, 415):
        return Failure(NotQdrantError, f"{status} ({words})")
    return Failure(StoreError, f"answers {status} ({words})")


def _judge_transport(source: Exception) -> Failure:
    words = str(source).strip() or type(source).__name__
    if isinstance(source, httpx.TimeoutException):
        return Failure(StoreSlowError, "did not answer in time", True)
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return Failure(
            StoreError, f"has a certificate that nobody known signed ({words}); name its authority in tls_ca"
        )
    if "[SSL" in words:
        return Failure(StoreError, f"speaks no TLS that is understood here ({words}); is it http:// ?")
    if isinstance(source, httpx.TransportError):
        return Failure(StoreUnavailableError, f"cannot be reached ({words})", True)
    if isinstance(source, ValidationError):
        return Failure(NotQdrantError, "the answer lacks the fields of Qdrant's")
    return Failure(StoreError, f"cannot be asked ({words})")


def _judge_grpc(error: grpc.RpcError) -> Failure:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    words = _line(str(error.details() if isinstance(error, grpc.Call) else error))
    status = _GRPC_STATUS.get(code)
    if status is not None:
        return _judge_status(status, words)
    return Failure(StoreError, f"answers {code.name} ({words})")


_GRPC_STATUS = {
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.ABORTED: 500,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 413,
    grpc.StatusCode.UNIMPLEMENTED: 405,
}


def _judge_client(words: str) -> Failure:
    """What the client itself refuses, or the Qdrant in memory."""
    if re.search(r"Collection .* not found", words):
        return Failure(CollectionMissingError, f"says: {words}")
    if "already exists" in words:
        return Failure(ExistsError, f"says: {words}")
    return Failure(BadInputError, _line(words))


def _words(content: bytes) -> str:
    """What a server said, in one line."""
    try:
        status = json.loads(content)["status"]
        return _line(status["error"] if isinstance(status, dict) else str(status))
    except (ValueError, KeyError, TypeError):
        return _line(re.sub(r"<[^>]*>", " ", content[:2000].decode("utf-8", "replace"))) or "no reason given"


def _line(text: str) -> str:
    folded = " ".join(text.split()).rstrip(".")
    return folded if len(folded) <= 300 else folded[:297] + "..."
