"""Feast's feature views and rows as collections and points, without importing Feast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from . import layout
from .errors import BadInputError
from .feast_values import declared_type, decoder, encode_proto, entity_of
from .port import (
    DEFAULT_VECTOR,
    And,
    CollectionSpec,
    Condition,
    DistanceName,
    FloatVector,
    Hit,
    Match,
    Not,
    Or,
    Point,
    Range,
    VectorSpec,
)

Row = tuple[Any, dict[str, Any], datetime, datetime | None]
"""What Feast writes: entity key proto, value protos by feature, event time, created time."""

_METRICS: dict[str, DistanceName] = {
    "cosine": "cosine",
    "dot": "dot",
    "dot_product": "dot",
    "inner_product": "dot",
    "ip": "dot",
    "l2": "euclid",
    "euclidean": "euclid",
    "euclid": "euclid",
    "l1": "manhattan",
    "manhattan": "manhattan",
}


@dataclass(frozen=True)
class FeastView:
    """What the store needs to know of a feature view; ``name`` includes its version, if versions are on."""

    project: str
    name: str
    types: Mapping[str, str | None]
    vector: Any

    @classmethod
    def of(cls, config: Any, table: Any, name: str) -> FeastView:
        """The view ``table`` of a Feast repository, stored as ``name``."""
        vector = next((field for field in table.features if field.vector_index), None)  # Feast allows one
        types = {field.name: declared_type(field.dtype) for field in table.features}
        return cls(config.project, name, types, vector)

    def collection(self, release: Mapping[str, Any] | None, join_keys: Sequence[str]) -> str:
        """Where the rows lie; ``release`` as in the publication, ``join_keys`` of the view's entities."""
        if self.vector is None:
            return layout.entity_collection(self.project, join_keys)
        return layout.view_collection(self.project, self.name, (release or {}).get("names"))

    def spec(self, length: int | None = None) -> CollectionSpec | None:
        """The collection's spec; None while the length of its vectors is unknown."""
        if self.vector is None:
            return CollectionSpec()
        size = self.vector.vector_length or length
        metric = (self.vector.vector_search_metric or "dot").lower()
        if metric not in _METRICS:
            raise BadInputError(
                f"vector_search_metric of {self.name}.{self.vector.name} is {metric!r}; "
                f"allowed are {', '.join(sorted(_METRICS))}."
            )
        return CollectionSpec({DEFAULT_VECTOR: VectorSpec(size, _METRICS[metric])}) if size else None

    @property
    def rows(self) -> Condition:
        """Matches the view's rows in a collection."""
        return And((Match("project", self.project), Match("view", self.name)))


def vector_of(view: FeastView, values: Mapping[str, Any]) -> Sequence[float] | None:
    """The numbers of the row's vector feature, None where it has none."""
    value = values.get(view.vector.name) if view.vector else None
    field = value.WhichOneof("val") if value is not None else None
    if value is None or field is None or not field.endswith("_list_val"):
        return None
    return getattr(value, field).val


def newest_points(view: FeastView, spec: CollectionSpec, data: Sequence[Row]) -> list[Point]:
    """One point an entity: of several rows the one that is newest by event, then creation time, then place."""
    newest_rows: dict[str, tuple[tuple[int, int], Point]] = {}
    for key, values, event_time, created_time in data:
        entity = entity_of(key)
        event_ts = layout.to_micros(event_time)
        created_ts = None if created_time is None else layout.to_micros(created_time)
        age = (event_ts, created_ts or 0)
        identity = layout.point_id(view.project, view.name, entity)
        if identity in newest_rows and newest_rows[identity][0] > age:
            continue
        features = {name: encode_proto(value, view.types.get(name)) for name, value in values.items()}
        numbers = vector_of(view, values)
        vectors: dict[str, FloatVector] = {}
        if numbers and view.vector:
            vectors[DEFAULT_VECTOR] = np.asarray(numbers, dtype=np.float32)
            if view.types[view.vector.name] == "float32_list" and spec.vectors[DEFAULT_VECTOR].distance != "cosine":
                del features[view.vector.name]  # the point's vector holds it exactly
        payload = layout.row_payload(view.project, view.name, entity, event_ts, features, created_ts)
        newest_rows[identity] = (age, Point(identity, payload, vectors))
    return [point for _, point in newest_rows.values()]


def decoders(view: FeastView, requested: Sequence[str] | None) -> dict[str, Callable[[Any], Any]]:
    """For each requested feature (None: all) what turns its stored value into a proto."""
    return {name: decoder(view.types[name]) for name in (requested or view.types) if name in view.types}


def features_of(view: FeastView, point: Point | Hit, wanted: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The value protos of a stored row; a vector feature comes from the point's vector."""
    stored = point.payload.get("f", {})
    values = {name: decode(stored[name]) for name, decode in wanted.items() if name in stored}
    if view.vector is not None and view.vector.name in wanted and DEFAULT_VECTOR in point.vectors:
        values.setdefault(view.vector.name, decoder("float32_list")(point.vectors[DEFAULT_VECTOR].tolist()))
    return values


def condition_of(filters: Any) -> Condition:
    """A Feast ``ComparisonFilter`` or ``CompoundFilter`` on features as the port's condition."""
    if hasattr(filters, "filters"):
        inner = tuple(condition_of(part) for part in filters.filters)
        return And(inner) if filters.type == "and" else Or(inner)
    path, value = layout.feature_path(filters.key), filters.value
    match filters.type:
        case "eq":
            return _equals(path, value)
        case "ne":
            return Not(_equals(path, value))
        case "in":
            return Or(tuple(_equals(path, item) for item in value))
        case "nin":
            return Not(Or(tuple(_equals(path, item) for item in value)))
        case "gt" | "gte" | "lt" | "lte" as bound:
            return Or((Range(path, **{bound: float(value)}), Range(f"{path}.n", **{bound: float(value)})))
        case other:
            raise BadInputError(f"Filters are eq, ne, gt, gte, lt, lte, in and nin, not {other!r}.")


def _equals(path: str, value: Any) -> Condition:
    if not isinstance(value, float):
        return Match(path, value)
    return Or((Match(path, value), Match(f'{path}."$float"', repr(value))))  # see layout.encode_value
