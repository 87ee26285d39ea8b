"""Every error that the service answers, and the one place where exceptions become them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from feature_repo.errors import PinfeatherError, UsageError
from materialize.stores.errors import BadInputError, StoreError
from serving_client.degraded import UnavailableError
from serving_client.stages import DeadlineError

Code = Literal[
    "bad_request",
    "unauthorized",
    "not_found",
    "too_large",
    "unsupported_media_type",
    "deadline",
    "unavailable",
    "internal",
]
STATUSES: Mapping[int, tuple[Code, str]] = MappingProxyType(
    {
        400: ("bad_request", "The call is wrong; the message says what is allowed."),
        401: ("unauthorized", "No API key, or none that is known."),
        404: ("not_found", "There is nothing at this path."),
        405: ("bad_request", "The path takes another method."),
        408: ("deadline", "The body did not arrive in time."),
        413: ("too_large", "The body or one of its lists is larger than the service allows."),
        415: ("unsupported_media_type", "The body is not called application/json."),
        422: ("bad_request", "The body is no JSON or not of the form that the path takes."),
        500: ("internal", "A fault of the service."),
        503: ("unavailable", "The service cannot answer this now; Retry-After says when to ask again."),
        504: ("deadline", "The deadline of the request passed."),
    }
)
"""Status to its code and what it means."""
RETRY_SECONDS = 1
_MOST_MISTAKES = 5


@dataclass(frozen=True)
class Problem:
    """One error as it is answered."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    """Code of the part that is missing, see :data:`serving_client.degraded.CODES`."""

    @property
    def code(self) -> Code:
        """The stable code of its status."""
        return STATUSES[self.status][0]

    def body(self, request_id: str) -> bytes:
        """Its JSON."""
        error = {"code": self.code, "message": self.message, "request_id": request_id}
        if self.reason:
            error["reason"] = self.reason
        return json.dumps({"error": error}).encode("ascii")


class Refused(Exception):
    """A request that the service does not take."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.problem = Problem(status, message, {name.replace("_", "-"): value for name, value in headers.items()})


_FOLDER = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"`,;:()]+/)+[^\s/'\"`,;:()]*(?<!\.)")


def without_folders(message: str) -> str:
    """``message`` without absolute paths: models, stores and former places of a repository lie outside of it."""
    return _FOLDER.sub("a folder of the server", message)


def problem_of(error: BaseException, root: str = "") -> Problem:
    """What is answered for ``error``. Messages for the asker pass, others do not.

    :param root: the repository's folder, which no answer names.
    """
    if isinstance(error, Refused):
        return error.problem
    message = str(error).replace(root, "the repository") if root else str(error)
    if isinstance(error, UsageError | BadInputError):
        return Problem(400, message)
    if isinstance(error, DeadlineError):
        return Problem(504, message)
    if isinstance(error, PinfeatherError | StoreError):
        reason = error.code if isinstance(error, UnavailableError) else None
        return Problem(503, without_folders(message), {"Retry-After": str(RETRY_SECONDS)}, reason)
    return Problem(500, "The service failed at this request. Its log says more under the request's id.")


def invalid_body(mistakes: Sequence[Any]) -> Refused:
    """The refusal of a body that is not of its form, from pydantic's errors. Values are not repeated.

    Of several ways in which a value may be given, the mistakes of each are told.
    """
    told = list(dict.fromkeys(_told(mistake) for mistake in mistakes))
    more = f"; and {len(told) - _MOST_MISTAKES} more" if len(told) > _MOST_MISTAKES else ""
    too_long = any(mistake["type"] == "too_long" for mistake in mistakes)
    return Refused(413 if too_long else 422, "; ".join(told[:_MOST_MISTAKES]) + more + ".")


def _told(mistake: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in mistake["loc"] if not str(part).startswith(("list[", "constrained")))
    if mistake["type"] == "extra_forbidden":
        return f"{where!r} is no key of this request"
    if mistake["type"] == "json_invalid":
        return f"the body is no JSON ({mistake.get('ctx', {}).get('error', 'invalid')})"
    if mistake["type"] == "missing":
        return f"{where!r} is missing" if where else "the body is missing"
    return f"{where or 'the body'}: {mistake['msg']}"
