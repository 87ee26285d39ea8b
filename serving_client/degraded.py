"""Why an answer is not what was asked for: texts for people that begin with a stable code, for programs.

Answers carry them as ``degraded``, such as ``no_student: release 3 names no student bundle; scored by zero-shot``.
docs/degraded.md says what is answered instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, TypeVar

from feature_repo.errors import PinfeatherError

Code = Literal[
    "no_student",
    "no_space",
    "no_lexical",
    "lexical_masked",
    "no_embedding",
    "empty_query",
    "store_slow",
    "store_gone",
    "stale",
]
"""Stable: programs and alerts go by them."""

CODES: Mapping[Code, str] = MappingProxyType(
    {
        "no_student": "The student bundle is missing, damaged or does not fit the live space; another scorer scored.",
        "no_space": "No space of vectors could be read; only words decided.",
        "no_lexical": "The lexical statistics are missing, damaged or of another version; no words decided.",
        "lexical_masked": "The words of some pins could not be read, or a part of them is not used.",
        "no_embedding": "The query could not be embedded, because its tower cannot be loaded or is another one.",
        "empty_query": "Nothing is left of the query in its canonical form; nothing was scored.",
        "store_slow": "A read of the store did not end in time; what it would have given is left out.",
        "store_gone": "The store cannot be reached or its files cannot be read; what it would have given is left out.",
        "stale": "No newer publication can be loaded; the last one that was loaded answers.",
    }
)
"""Code to what it means, in one sentence."""


def reason(code: Code, detail: str) -> str:
    """The text ``code: detail``, as :func:`code_of` reads it."""
    if code not in CODES:
        raise ValueError(f"There is no reason {code!r} of a degraded answer; there are: {', '.join(CODES)}.")
    return f"{code}: {detail}"


def code_of(text: str) -> Code | None:
    """The code that ``text`` begins with; None where it has none of :data:`CODES`."""
    head = text.partition(":")[0]
    return next((code for code in CODES if code == head), None)


class UnavailableError(PinfeatherError):
    """Nothing can answer this request now, and the same request may be answered later.

    :param code: of the part that is missing.
    """

    def __init__(self, message: str, code: Code = "store_gone") -> None:
        super().__init__(message)
        self.code: Code = code


# --- reasons that come up far below the answer -------------------------------------------------------------------

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")
_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Add a :func:`reason` to the answer of the request under way, once; does nothing outside of one."""
    notes = _notes.get()
    if notes is not None and text not in notes:
        notes.append(text)


def noted(method: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer]:
    """Let the answer of ``method``, a dataclass with ``degraded``, end its reasons with what was noted meanwhile."""

    @wraps(method)
    def call(*args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        if _notes.get() is not None:  # of the request that this one is a part of
            return method(*args, **kwargs)
        notes: list[str] = []
        token = _notes.set(notes)
        try:
            answer: Any = method(*args, **kwargs)
        finally:
            _notes.reset(token)
        return replace(answer, degraded=(*answer.degraded, *notes)) if notes else answer

    return call
