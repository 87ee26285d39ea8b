"""What a point of a space says of its pin besides the vector, so that searches can be filtered by it."""

from __future__ import annotations

from collections.abc import Mapping

from materialize.stores.points import IndexKind

PAYLOAD_COLUMNS: Mapping[str, tuple[str, str]] = {
    "lang": ("pin_text", "lang"),
    "country": ("pin_text", "country"),
    "created_at": ("pin_text", "created_at"),
    "safe": ("pin_text", "safe"),
}
"""Filterable payload of a vector to (view, feature)."""

PAYLOAD_INDEXES: Mapping[str, IndexKind] = {
    "lang": "keyword",
    "country": "keyword",
    "created_at": "integer",
    "safe": "bool",
}
"""How each of them is indexed."""

LATER_PAYLOAD = frozenset({"safe"})
"""Those that a registry lacks which was applied before they were there: a scan goes without them then."""
