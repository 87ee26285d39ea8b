"""What was deleted lately, so that nobody writes it back: one grave for each deleted row of an entity collection.

A grave has the id of its row and lies in a collection beside the rows', so that no reader of rows meets one. A row that
is not newer than its grave stays away; a newer one is written. Whoever deletes rows for good digs (the materializer);
whoever writes rows that may be old asks (Feast's online store).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from .errors import CollectionMissingError
from .layout import entity_collection, to_micros
from .port import CollectionSpec, Point, Range, VectorStore

KEEP = timedelta(days=30)
"""How long a grave is kept: a row that is older than its deletion must not arrive later than that."""

_SUFFIX = "~deleted"
_SPEC = CollectionSpec(indexes={"view": "keyword", "buried_at": "integer"})


def grave_collection(project: str, join_keys: Iterable[str]) -> str:
    """The collection of the graves beside :func:`~.layout.entity_collection`; no row's collection is called so.

    It begins as that one does, so that dropping a view or tearing a project down takes the graves along.
    """
    return entity_collection(project, join_keys)[: 200 - len(_SUFFIX)] + _SUFFIX


def is_grave_collection(name: str) -> bool:
    """Whether :func:`grave_collection` gives such a name; no row's collection ends so."""
    return name.endswith(_SUFFIX)


def bury(
    store: VectorStore, project: str, view: str, join_keys: Iterable[str], deleted: Mapping[str, int], now: datetime
) -> None:
    """Note that the rows with these ids were deleted, and forget what was deleted longer than :data:`KEEP` ago.

    :param deleted: point id of the row to the time of its deletion in microseconds since 1970.
    """
    if not deleted:
        return
    name = grave_collection(project, join_keys)
    store.create(name, _SPEC)
    buried_at = to_micros(now)
    payload = {"view": view, "buried_at": buried_at}
    store.upsert(name, [Point(row, {**payload, "event_ts": when}, {}) for row, when in deleted.items()])
    store.delete(name, filter=Range("buried_at", lt=buried_at - KEEP // timedelta(microseconds=1)))


def unbury(store: VectorStore, project: str, join_keys: Iterable[str], rows: Sequence[str]) -> None:
    """Forget that rows were deleted: they are back."""
    name = grave_collection(project, join_keys)
    if rows and name in store.collections() and store.count(name):
        store.delete(name, ids=rows)


def deletion_times(store: VectorStore, project: str, join_keys: Iterable[str], rows: Sequence[str]) -> dict[str, int]:
    """Those of the rows that were deleted lately, to the microseconds since 1970 of when."""
    if not rows:
        return {}
    try:
        graves = store.get_many(grave_collection(project, join_keys), rows, with_payload=["event_ts"])
    except CollectionMissingError:  # nothing was ever deleted; on a server cheaper than asking for all collections
        return {}
    return {row: grave.payload["event_ts"] for row, grave in zip(rows, graves, strict=True) if grave is not None}


def newer_than_deletion(
    store: VectorStore, project: str, join_keys: Iterable[str], points: Sequence[Point]
) -> list[Point]:
    """``points`` without those of rows that were deleted at their event time or later."""
    deleted = deletion_times(store, project, join_keys, [point.id for point in points])
    return [point for point in points if point.id not in deleted or point.payload["event_ts"] > deleted[point.id]]
