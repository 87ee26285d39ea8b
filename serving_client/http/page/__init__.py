"""The web page at ``/``: plain HTML, CSS and JavaScript modules, no build, nothing from another host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from feature_repo.errors import UsageError

FOLDER = Path(__file__).parent
INDEX = "index.html"
"""What ``/`` answers with; the others are ``/page/<name>``."""
_SCRIPT = "text/javascript; charset=utf-8"
FILES: Mapping[str, str] = MappingProxyType(
    {
        INDEX: "text/html; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "parts.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
        "main.js": _SCRIPT,
        "api.js": _SCRIPT,
        "cards.js": _SCRIPT,
        "compare.js": _SCRIPT,
        "dom.js": _SCRIPT,
        "form.js": _SCRIPT,
        "related.js": _SCRIPT,
        "results.js": _SCRIPT,
        "state.js": _SCRIPT,
        "status.js": _SCRIPT,
        "why.js": _SCRIPT,
    }
)
"""Every file that may be served, and its media type. A name that is not here does not exist."""

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' http: https:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'"
)
"""Header of every answer of the page. Pictures of pins may lie anywhere; all else is of this origin, and text never
becomes HTML (Trusted Types close the sinks)."""


def read_file(name: str) -> bytes:
    """The bytes of a file of :data:`FILES`.

    :raises UsageError: for any other name.
    """
    if name not in FILES:
        raise UsageError(f"The page has no file {name!r}; it has: {', '.join(FILES)}.")
    return (FOLDER / name).read_bytes()
