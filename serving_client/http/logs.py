"""Structured logs: one JSON object a line. They say that a request was answered and how, never what it asked.

No query, no pin and no key is logged, and of an exception only its type and place: its message may repeat a query.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog

REQUESTS = "serving_client.http"
"""Name of the logger of requests."""
_FRAMES = 8


def frames(error: BaseException) -> list[str]:
    """Where ``error`` came from, innermost last: ``file:line function``, without the text of a line or a value."""
    return _places(error.__traceback__)


def _places(trace: TracebackType | None) -> list[str]:
    extracted = traceback.extract_tb(trace)[-_FRAMES:]
    return [f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in extracted]


def _without_message(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The exception of a record as its type and place."""
    info = event.pop("exc_info", None)
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if isinstance(info, tuple) and info[0] is not None:
        event["error"], event["frames"] = info[0].__name__, _places(info[2])
    return event


_COMMON: Sequence[Any] = (
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
)


def request_logger() -> Any:
    """Where the service tells of requests. Nothing global of structlog is changed."""
    return structlog.wrap_logger(
        logging.getLogger(REQUESTS),
        processors=[structlog.stdlib.filter_by_level, *_COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def json_handler(stream: TextIO) -> logging.Handler:
    """Writes every record, also those of other packages, as a line of JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_message,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=list(_COMMON),
        )
    )
    return handler


def log_as_json(level: str, stream: TextIO) -> None:
    """Send the logs of this process to ``stream``: for a process that is the service, not for a library."""
    root = logging.getLogger()
    root.handlers[:] = [json_handler(stream)]
    root.setLevel(level.upper())
    for name in (
        "httpx",
        "httpx2",
        "httpcore",
        "urllib3",
        "qdrant_client",
    ):  # they log every call
        logging.getLogger(name).setLevel(logging.WARNING)
