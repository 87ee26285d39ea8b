"""The answer of ``get_online_features``, which makes value protos only for whoever asks for them.

Feast turns stored values into protos and a dict's protos into values again; for 500 rows of 10 features that is most
of the time of a request. :class:`LateResponse` gives the same dict straight from the rows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feast import FeatureView, utils
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.type_map import feast_value_type_to_python_type
from feast.value_type import ValueType

from .stores.errors import BadInputError
from .stores.feast_reads import ReadRow, RowRequest, decoded
from .stores.feast_rows import FeastView
from .stores.feast_values import decoder, key_values
from .stores.layout import KeyValue, decode_feature
from .stores.points import DEFAULT_VECTOR, Point

# Feast gives values of the other types in forms of its own: datetimes, parsed JSON, UUIDs, decimals.
_SCALARS = ("string", "bytes", "bool", "int32", "int64", "float32", "float64")
_FILLING = threading.Lock()
_AS_DECODED = frozenset({*_SCALARS, *(f"{name}_list" for name in _SCALARS)})


@dataclass(frozen=True)
class ViewRead:
    """What was read of one view for a request."""

    table: FeatureView
    request: RowRequest
    points: Sequence[Point | None]
    """Of the request's entities, each once."""
    places: Sequence[list[int]]
    """For each of them the rows of the answer that it stands in."""
    length: int
    """Rows of the answer."""

    def fill(self, response: Any, full_feature_names: bool, include_metadata: bool) -> None:
        """Put it into Feast's response proto; rows older than the view's ttl get the status OUTSIDE_MAX_AGE."""
        first, rows = len(response.results), decoded(self.request, self.points)
        utils._populate_response_from_feature_data(
            list(self.request.features or ()),
            rows,
            self.places,
            response,
            full_feature_names,
            self.table,
            self.length,
            include_metadata,
        )
        _mark_old(response.results[first:], self.table, rows, self.places)

    def columns(self) -> dict[str, list[Any]]:
        """The values of each feature as Feast gives them, by row of the answer."""
        by_row: list[Point | None] = [None] * self.length
        for point, places in zip(self.points, self.places, strict=True):
            for place in places:
                by_row[place] = point
        types = {field.name: field.dtype.to_value_type() for field in self.table.features}
        view = self.request.view
        return {name: _column(view, name, types.get(name), by_row) for name in self.request.features or ()}


def unique_entities(
    table: FeatureView, columns: dict[str, list[Any]], join_keys: dict[str, str]
) -> tuple[list[dict[str, KeyValue]], Sequence[list[int]], int]:
    """The entities of a request, each once, the rows of the answer that each stands in, and how many rows there are.

    :param columns: value protos by join key, as Feast makes them of a request.
    :param join_keys: of all views of the request, by entity.
    :raises KeyError: as Feast does, if the request lacks a join key.
    """
    found = utils._get_table_entity_values(table, join_keys, columns)
    if len(found) == 1 and found.keys() == {*join_keys.values()}:
        ((join_key, column),) = found.items()
        texts = [value.string_val for value in column]  # empty where it is no text
        if texts and all(texts):
            places: dict[str, list[int]] = {}
            for place, text in enumerate(texts):
                places.setdefault(text, []).append(place)
            return [{join_key: text} for text in places], list(places.values()), len(texts)
    entities, groups, length = utils._get_unique_entities(table, columns, join_keys)
    return [key_values(entity.items()) for entity in entities], groups, length


class LateResponse(OnlineResponse):
    """Feast's response; its protos are made when they are first asked for.

    :param answer: Feast's own response as far as it is complete: with the columns of the entities only.
    :param reads: what is still to be put in.
    """

    def __init__(
        self, answer: OnlineResponse, reads: Sequence[ViewRead], full_feature_names: bool, include_metadata: bool
    ) -> None:
        self._answer = answer
        self._feature_types = answer._feature_types
        self._reads = reads
        self._full = full_feature_names
        self._metadata = include_metadata
        self._complete = False

    @property
    def proto(self) -> Any:  # type: ignore[override]
        """Feast's ``GetOnlineFeaturesResponse``."""
        with _FILLING:
            if not self._complete:
                for read in self._reads:
                    read.fill(self._answer.proto, self._full, self._metadata)
                self._complete = True
        return self._answer.proto

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:
        """The values of each feature and join key, by its name."""
        if include_event_timestamps or self._complete:
            return super().to_dict(include_event_timestamps)
        proto = self._answer.proto
        response: dict[str, Any] = {}
        for name, column in zip(proto.metadata.feature_names.val, proto.results, strict=True):
            response[name] = _entity_column(column.values, self._feature_types.get(name))
        for read in self._reads:
            prefix = f"{read.table.projection.name_to_use()}__" if self._full else ""
            response.update({f"{prefix}{name}": values for name, values in read.columns().items()})
        return response


def _entity_column(values: Sequence[Any], feature_type: Any) -> list[Any]:
    """The values of a join key as Feast gives them."""
    if feature_type in (None, ValueType.STRING):
        texts = [value.string_val for value in values]  # empty where it is no text
        if all(texts):
            return texts
    return [feast_value_type_to_python_type(value, feature_type) for value in values]


def _column(view: FeastView, name: str, feature_type: Any, points: Sequence[Point | None]) -> list[Any]:
    """One feature of points as Feast gives it; None where there is no value."""
    kind = view.types.get(name)
    values: list[Any] | None = None
    if kind in _AS_DECODED:
        with suppress(BadInputError):  # some were written with another type than declared, and are kept as protos
            values = decode_feature(points, name, kind or "")
    if values is None:
        decode = decoder(kind)
        stored = [None if point is None else point.payload.get("f", {}).get(name) for point in points]
        values = [None if v is None else feast_value_type_to_python_type(decode(v), feature_type) for v in stored]
    if view.vector is None or name != view.vector.name:
        return values
    return [
        point.vectors[DEFAULT_VECTOR].tolist()
        if point is not None and DEFAULT_VECTOR in point.vectors and name not in point.payload.get("f", {})
        else value
        for point, value in zip(points, values, strict=True)
    ]


def _mark_old(vectors: Sequence[Any], table: FeatureView, rows: Sequence[ReadRow], places: Sequence[list[int]]) -> None:
    """Change the status of values whose row is older than the view's ttl."""
    ttl = getattr(table, "ttl", None)
    if not ttl:
        return
    oldest = datetime.now(UTC) - ttl
    old = [place for (when, _), spots in zip(rows, places, strict=True) if when and when < oldest for place in spots]
    for vector in vectors if old else ():
        for place in old:
            if vector.statuses[place] == FieldStatus.PRESENT:
                vector.statuses[place] = FieldStatus.OUTSIDE_MAX_AGE


LATE: ContextVar[list[ViewRead] | None] = ContextVar("LATE", default=None)
"""Where the reads of a request go whose protos are made later; None: they are made at once."""
