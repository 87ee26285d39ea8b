"""How long a request may take."""

from __future__ import annotations

from serving_client.http.errors import Refused

HEADER = "X-Deadline-Ms"
_LONGEST = 9
"""Digits of a header that is still a number of milliseconds."""


def seconds_of(header: str | None, default: float) -> float:
    """Seconds for a request: those it asks for, at most ``default``.

    :raises Refused: if the header is no whole number of milliseconds above 0.
    """
    if header is None:
        return default
    if not (header.isascii() and header.isdigit() and len(header) <= _LONGEST and int(header)):
        raise Refused(400, f"{HEADER} is no deadline: give milliseconds as a whole number above 0, such as 50.")
    return min(int(header) / 1000, default)
