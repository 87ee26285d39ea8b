"""Feast's feature views and rows as collections and points, without importing Feast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from . import layout
from .errors import BadInputError
from .feast_packing import RowPacker
from .feast_text import document_vector
from .feast_values import NO_ENTITY, declared_type, decoder, encoder, entity_of, numbers_of, vector_proto
from .payload import path_of
from .points import (
    DEFAULT_VECTOR,
    TEXT_VECTOR,
    CollectionSpec,
    DistanceName,
    FloatVector,
    Hit,
    IndexKind,
    Point,
    SparseVector,
    VectorSpec,
)

Row = tuple[Any, dict[str, Any], datetime, datetime | None]
"""What Feast writes: entity key proto, value protos by feature, event time, created time."""

PRECOMPUTED = "__precomputed__"
"""How the names of Feast's own views of precomputed vectors begin."""

VERSIONS = 1000
"""Versions of a view that are looked for when it is dropped, if it is not known to have more."""

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
_VECTOR_FIELDS = ("float_list_val", "double_list_val", "int32_list_val", "int64_list_val")
_INDEXES: dict[str, IndexKind] = {
    "string": "keyword",
    "uuid": "keyword",
    "time_uuid": "keyword",
    "decimal": "keyword",
    "bool": "bool",
    "int32": "integer",
    "int64": "integer",
    "unix_timestamp": "integer",
    "float32": "float",
    "float64": "float",
}


class UnknownMetricError(BadInputError, ValueError):
    """There is no such metric; also a ``ValueError``, as Feast's callers expect."""


def metric_named(name: str, asker: str) -> DistanceName:
    """The distance that Feast calls ``name``.

    :raises UnknownMetricError: naming ``asker`` and what there is.
    """
    try:
        return _METRICS[name.lower()]
    except KeyError:
        raise UnknownMetricError(f"{asker} is {name!r}; allowed are {', '.join(sorted(_METRICS))}.") from None


@dataclass(frozen=True)
class FeastView:
    """What the store needs to know of a feature view."""

    project: str
    name: str
    """As it is stored: a version of a view, if versions are on, is a view of its own called ``name@vN``, which no
    other view can be called."""
    types: Mapping[str, str | None]
    """Features and their declared types."""
    keys: Mapping[str, str | None]
    """Join keys and their declared types; empty for Feast's own views of precomputed vectors."""
    vector: Any
    """The field with ``vector_index``, None where there is none."""
    versions: int = 0
    """The highest version number that may have rows, 0 where versions are off."""

    @classmethod
    def of(cls, config: Any, table: Any) -> FeastView:
        """The view ``table`` of a Feast repository."""
        name, versions = table.name, 0
        if config.registry.enable_online_feature_view_versioning:
            asked = getattr(table.projection, "version_tag", None)
            current = getattr(table, "current_version_number", None)
            version = asked if asked is not None else current
            name, versions = _versioned(name, version), max(version or 0, current or 0, VERSIONS)
        vector = next((field for field in table.features if field.vector_index), None)  # Feast allows one
        types = {field.name: declared_type(field.dtype) for field in table.features}
        keys = {field.name: declared_type(field.dtype) for field in table.entity_columns if field.name != NO_ENTITY}
        return cls(config.project, name, types, keys, vector, versions)

    def every_version(self) -> list[FeastView]:
        """The view as each of its versions, itself among them."""
        base = self.name.partition("@")[0]
        return [replace(self, name=_versioned(base, version)) for version in range(self.versions + 1)]

    def is_space(self, release: Mapping[str, Any] | None) -> bool:
        """Whether the release names a space for the view; such a collection is the materializer's to make and drop."""
        return self.vector is not None and self.name in ((release or {}).get("names") or {})

    @property
    def shares(self) -> bool:
        """Whether it shares a collection with other views."""
        return self.vector is None and not self.name.startswith(PRECOMPUTED)

    def collection(self, release: Mapping[str, Any] | None, join_keys: Sequence[str]) -> str:
        """Where the rows lie; ``release`` as in the publication, ``join_keys`` of the view's entities."""
        if self.shares:
            return layout.entity_collection(self.project, [key for key in join_keys if key != NO_ENTITY])
        names = (release or {}).get("names") if self.vector is not None else None
        return layout.view_collection(self.project, self.name, names)

    @property
    def metric(self) -> DistanceName:
        """How the view's vectors are compared; L2 where it does not say, as everywhere in Feast."""
        return metric_named(
            self.vector.vector_search_metric or "L2", f"vector_search_metric of {self.name}.{self.vector.name}"
        )

    @property
    def texts(self) -> list[str]:
        """The features whose words can be searched: those of type String."""
        return [name for name, kind in self.types.items() if kind == "string"]

    def spec(self, length: int | None = None) -> CollectionSpec | None:
        """The collection's spec; None while the length of its vectors is unknown.

        A collection of vectors has room for words even if no feature is a text yet, so that one may be added later.
        """
        if self.vector is None:
            return layout.entity_spec()
        metric, size, kind = self.metric, self.vector.vector_length or length, self.types[self.vector.name]
        if kind not in ("float32_list", "float64_list", "int32_list", "int64_list"):
            raise BadInputError(
                f"{self.name}.{self.vector.name} has vector_index=True, so it has to be a list of numbers, "
                f"such as Array(Float32), not {self.vector.dtype}."
            )
        if not size:
            return None
        return CollectionSpec({DEFAULT_VECTOR: VectorSpec(size, metric)}, (TEXT_VECTOR,), indexes=self._indexes())

    def _indexes(self) -> dict[str, IndexKind]:
        """Indexes of what filters look at: a search is slow without, and servers may insist on them."""
        indexes: dict[str, IndexKind] = {"event_ts": layout.ROW_INDEXES["event_ts"]}
        for name, kind in self.types.items():
            if kind in _INDEXES:
                indexes[path_of("f", name)] = _INDEXES[kind]
            if kind == "float64":  # see layout.encode_value
                indexes[path_of("f", name, "n")] = "float"
        for name, kind in self.keys.items():
            path = key_path(name, kind)
            if kind in ("bytes", "float32", "float64"):
                indexes[path] = "keyword"
            elif kind in _INDEXES:
                indexes[path] = _INDEXES[kind]
        return indexes


def _versioned(name: str, version: int | None) -> str:
    return f"{name}@v{version}" if version else name


def key_path(name: str, kind: str | None) -> str:
    """The payload path of a join key of a type; see :func:`.layout.encode_key`."""
    if kind == "bytes":
        return path_of("key", name, "$b64")
    return path_of("key", name, "$float") if kind in ("float32", "float64") else path_of("key", name)


def vector_of(view: FeastView, values: Mapping[str, Any]) -> Sequence[float] | None:
    """The numbers of the row's vector feature, None where it has none."""
    value = values.get(view.vector.name) if view.vector else None
    field = value.WhichOneof("val") if value is not None else None
    if value is None or field not in _VECTOR_FIELDS:
        return None
    return getattr(value, field).val


def newest_points(view: FeastView, spec: CollectionSpec, data: Sequence[Row]) -> list[Point]:
    """One point an entity: of several rows the one that is newest by event, then creation time, then place."""
    newest_rows: dict[str, tuple[tuple[int, int], Point]] = {}
    packer = RowPacker(view.name, view.types) if spec.packed == layout.PACKED else None
    documents = _Documents(view, spec)
    for key, values, event_time, created_time in data:
        entity = entity_of(key)
        event_ts = layout.to_micros(event_time)
        created_ts = None if created_time is None else layout.to_micros(created_time)
        age = (event_ts, created_ts or 0)
        identity = layout.point_id(view.project, view.name, entity)
        if identity in newest_rows and newest_rows[identity][0] > age:
            continue
        if packer is not None:
            point = Point(identity, packer.payload(entity, event_ts, created_ts, values), {}, {})
        else:
            point = documents.point(identity, entity, event_ts, created_ts, values)
        newest_rows[identity] = (age, point)
    return [point for _, point in newest_rows.values()]


class _Documents:
    """Makes the points of rows that can be searched."""

    def __init__(self, view: FeastView, spec: CollectionSpec) -> None:
        self._view = view
        self._encoders = {name: encoder(kind) for name, kind in view.types.items()}
        self._other = encoder(None)
        self._exact = _exact_vector(view, spec)
        self._texts = view.texts if TEXT_VECTOR in spec.sparse else []

    def point(
        self,
        identity: str,
        entity: Mapping[str, layout.KeyValue],
        event_ts: int,
        created_ts: int | None,
        values: Mapping[str, Any],
    ) -> Point:
        """The point of a row; times as in :func:`.layout.row_payload`."""
        vectors, exact = _vectors(self._view, values), self._exact
        left_out = exact if exact and vectors and values[exact].HasField("float_list_val") else None
        encoders, other = self._encoders, self._other
        features = {name: encoders.get(name, other)(value) for name, value in values.items() if name != left_out}
        sparse: dict[str, SparseVector] = {}
        if self._texts:
            words = document_vector(text for name in self._texts if isinstance(text := features.get(name), str))
            if words is not None:
                sparse[TEXT_VECTOR] = words
        return Point(
            identity, layout.row_payload(self._view.name, entity, event_ts, features, created_ts), vectors, sparse
        )


def _exact_vector(view: FeastView, spec: CollectionSpec) -> str | None:
    """The vector feature, if a point's vector holds it exactly, so that it need not be kept twice."""
    if view.vector is None or view.types[view.vector.name] != "float32_list":
        return None
    return None if spec.vectors[DEFAULT_VECTOR].distance == "cosine" else view.vector.name


def _vectors(view: FeastView, values: Mapping[str, Any]) -> dict[str, FloatVector]:
    numbers = vector_of(view, values)
    if not numbers:
        return {}
    value = values[view.vector.name]
    if not value.HasField("float_list_val"):
        return {DEFAULT_VECTOR: np.asarray(numbers, dtype=np.float32)}
    return {DEFAULT_VECTOR: numbers_of(value.float_list_val, "<f4").astype(np.float32, copy=False)}


def decoders(view: FeastView, requested: Sequence[str] | None) -> dict[str, Callable[[Any], Any]]:
    """For each requested feature (None: all) what turns its stored value into a proto."""
    return {name: decoder(view.types[name]) for name in (requested or view.types) if name in view.types}


def features_of(view: FeastView, point: Point | Hit, wanted: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The value protos of a stored row; a vector feature comes from the point's vector."""
    stored = point.payload.get("f", {})
    values = {name: decode(stored[name]) for name, decode in wanted.items() if name in stored}
    vector = view.vector.name if view.vector is not None else None
    if vector is not None and vector in wanted and vector not in values and DEFAULT_VECTOR in point.vectors:
        values[vector] = vector_proto(point.vectors[DEFAULT_VECTOR])
    return values


def stored_vector(view: FeastView, point: Point | Hit) -> FloatVector | None:
    """The vector as it was written, also where the collection keeps it at length 1; None if the row has none."""
    original = point.payload.get("f", {}).get(view.vector.name)
    if DEFAULT_VECTOR not in point.vectors:
        return None
    if original is not None and layout.FEAST_TAG not in original:
        kind = view.types[view.vector.name] or "float32_list"
        decode = layout.decode_numbers if kind.startswith("float") else layout.decode_value
        return np.asarray(decode(original, kind), dtype=np.float32)
    return point.vectors[DEFAULT_VECTOR]
