"""Points of a store that name what is to be erased: by their key, or in a feature that lists queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from feature_repo.erasures import SUBJECT_COLUMNS, Erasures, Subject
from feature_repo.text import canonical_query
from materialize.stores.errors import StoreError
from materialize.stores.graves import is_grave_collection
from materialize.stores.layout import decode_key, feature_path
from materialize.stores.port import Point, VectorStore

QUERY_LISTS = ("engaged_queries",)
"""Features whose items are queries of the search log. A title that reads as a query is the pin's own."""
PAGE = 1000


def named(erasures: Erasures, column: str, value: Any) -> bool:
    """Whether ``value`` of a key or column called ``column`` is in the list."""
    subject = SUBJECT_COLUMNS.get(column)
    if subject is None or value is None:
        return False
    return erasures.has(subject, canonical_query(str(value)) if subject is Subject.QUERY else str(value))


def lists_query(erasures: Erasures, values: Any) -> bool:
    """Whether one of the queries ``values`` is in the list."""
    return isinstance(values, list) and any(
        isinstance(value, str) and erasures.has(Subject.QUERY, canonical_query(value)) for value in values
    )


def find_points(store: VectorStore, erasures: Erasures) -> Iterator[tuple[str, Point]]:
    """(collection, point) of every point that names something of the list. Graves name nothing."""
    fields = ["view", "key", "event_ts", *(feature_path(name) for name in QUERY_LISTS)]
    for collection in store.collections():
        if is_grave_collection(collection):
            continue
        after = None
        while True:
            points, after = store.scroll(collection, limit=PAGE, after=after, with_payload=fields)
            yield from ((collection, point) for point in points if _names(erasures, point.payload))
            if after is None:
                break


def _names(erasures: Erasures, payload: Mapping[str, Any]) -> bool:
    try:
        key = decode_key(payload.get("key") or {})
    except (StoreError, ValueError, KeyError, TypeError):
        key = {}
    features = payload.get("f") or {}
    return any(named(erasures, name, value) for name, value in key.items()) or any(
        lists_query(erasures, features.get(name)) for name in QUERY_LISTS
    )
