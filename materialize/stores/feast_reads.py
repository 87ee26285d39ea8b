"""Reading rows of several Feast views at once: one call of the store for each collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import layout
from .errors import CollectionMissingError
from .feast_rows import FeastView, decoders, features_of
from .row_cache import StoredRow, point_of
from .session import StoreView

ReadRow = tuple[datetime | None, dict[str, Any] | None]
"""Event time and value protos by feature; (None, None) where there is no row."""


@dataclass(frozen=True)
class RowRequest:
    """Rows of one view that are wanted."""

    view: FeastView
    join_keys: Sequence[str]
    ids: Sequence[str]
    """The point ids of the entities."""
    features: Sequence[str] | None
    """The features wanted, None for all."""

    @classmethod
    def of(
        cls, view: FeastView, entities: Sequence[Mapping[str, layout.KeyValue]], features: Sequence[str] | None
    ) -> RowRequest:
        """Rows of some entities, all with the same join keys."""
        join_keys = list(entities[0]) if entities else []
        if len(join_keys) == 1:
            (join_key,) = join_keys
            return cls.of_column(view, join_key, [entity[join_key] for entity in entities], features)
        ids = [layout.point_id(view.project, view.name, entity) for entity in entities]
        return cls(view, join_keys, ids, features)

    @classmethod
    def of_column(
        cls, view: FeastView, join_key: str, values: Iterable[layout.KeyValue], features: Sequence[str] | None
    ) -> RowRequest:
        """Rows of the entities with these values of the one join key."""
        return cls(view, [join_key], layout.point_ids(view.project, view.name, join_key, values), features)

    @property
    def wants_vectors(self) -> bool:
        """Whether the view's vector is among the features wanted."""
        vector = self.view.vector
        return vector is not None and (not self.features or vector.name in self.features)

    @property
    def fields(self) -> list[str] | None:
        """The payload paths to read, None for all of them."""
        # Most of a row costs more to pick than the rest of it to read.
        if self.view.shares or not self.features or 2 * len(self.features) > len(self.view.types):
            return None
        return ["event_ts", *(layout.feature_path(name) for name in self.features if name in self.view.types)]


@dataclass
class _Batch:
    """What is read from one collection."""

    requests: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    fields: dict[str, None] = field(default_factory=dict)
    whole: bool = False
    """Whether one of the requests wants all fields."""
    vectors: bool = False


def read_rows(store: StoreView, requests: Sequence[RowRequest]) -> list[list[ReadRow]]:
    """The rows of each request, in the order of its entities."""
    found = read_stored(store, requests)
    return [decoded(request, points) for request, points in zip(requests, found, strict=True)]


def read_stored(store: StoreView, requests: Sequence[RowRequest]) -> list[Sequence[StoredRow]]:
    """The rows of each request, in the order of its entities, for :func:`~.row_cache.point_of`.

    Most of a large request's objects are made of its rows, and whoever makes them one row at a time keeps the garbage
    collector from passing over all of Feast's own objects every few requests.
    """
    batches: dict[str, _Batch] = {}
    spans = []
    for place, request in enumerate(requests):
        if not request.ids:
            spans.append((0, 0))
            continue
        batch = batches.setdefault(request.view.collection(store.release, request.join_keys), _Batch())
        start = len(batch.ids)
        batch.requests.append(place)
        batch.ids += request.ids
        fields = request.fields
        batch.fields.update(dict.fromkeys(fields or ()))
        batch.whole |= fields is None
        batch.vectors |= request.wants_vectors
        spans.append((start, len(batch.ids)))
    found: list[Sequence[StoredRow]] = [[] for _ in requests]
    for name, batch in batches.items():
        rows = _read(store, name, batch)
        for place in batch.requests:
            start, end = spans[place]
            found[place] = rows[start:end]
    return found


def _read(store: StoreView, name: str, batch: _Batch) -> Sequence[StoredRow]:
    try:
        return store.rows(name, batch.ids, batch.whole or list(batch.fields), batch.vectors)
    except CollectionMissingError:  # made with the first row, where a vector's length is not declared
        return [None] * len(batch.ids)


def decoded(request: RowRequest, rows: Sequence[StoredRow]) -> list[ReadRow]:
    """Rows as Feast wants them."""
    wanted = decoders(request.view, request.features)
    return [
        (None, None)
        if point is None
        else (layout.from_micros(point.payload["event_ts"]), features_of(request.view, point, wanted))
        for point in map(point_of, rows)
    ]
