"""Reading rows of several Feast views at once: one call of the store for each collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import layout
from .errors import CollectionMissingError
from .feast_rows import FeastView, decoders, features_of
from .points import Point
from .session import StoreView

ReadRow = tuple[datetime | None, dict[str, Any] | None]
"""Event time and value protos by feature; (None, None) where there is no row."""


@dataclass(frozen=True)
class RowRequest:
    """Rows of one view that are wanted."""

    view: FeastView
    entities: Sequence[Mapping[str, layout.KeyValue]]
    features: Sequence[str] | None
    """The features wanted, None for all."""

    def ids(self) -> list[str]:
        """The point ids of the entities."""
        view, entities = self.view, self.entities
        if len(entities[0]) == 1:
            (join_key,) = entities[0]
            return layout.point_ids(view.project, view.name, join_key, [entity[join_key] for entity in entities])
        return [layout.point_id(view.project, view.name, entity) for entity in entities]

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
    found = read_points(store, requests)
    return [decoded(request, points) for request, points in zip(requests, found, strict=True)]


def read_points(store: StoreView, requests: Sequence[RowRequest]) -> list[list[Point | None]]:
    """The points of each request, in the order of its entities."""
    batches: dict[str, _Batch] = {}
    spans = []
    for place, request in enumerate(requests):
        if not request.entities:
            spans.append((0, 0))
            continue
        batch = batches.setdefault(request.view.collection(store.release, list(request.entities[0])), _Batch())
        start = len(batch.ids)
        batch.requests.append(place)
        batch.ids += request.ids()
        fields = request.fields
        batch.fields.update(dict.fromkeys(fields or ()))
        batch.whole |= fields is None
        batch.vectors |= request.wants_vectors
        spans.append((start, len(batch.ids)))
    found: list[list[Point | None]] = [[] for _ in requests]
    for name, batch in batches.items():
        points = _read(store, name, batch)
        for place in batch.requests:
            start, end = spans[place]
            found[place] = points[start:end]
    return found


def _read(store: StoreView, name: str, batch: _Batch) -> list[Point | None]:
    try:
        return store.get_many(name, batch.ids, batch.whole or list(batch.fields), batch.vectors)
    except CollectionMissingError:  # made with the first row, where a vector's length is not declared
        return [None] * len(batch.ids)


def decoded(request: RowRequest, points: Sequence[Point | None]) -> list[ReadRow]:
    """The rows that points hold."""
    wanted = decoders(request.view, request.features)
    return [
        (None, None)
        if point is None
        else (layout.from_micros(point.payload["event_ts"]), features_of(request.view, point, wanted))
        for point in points
    ]
