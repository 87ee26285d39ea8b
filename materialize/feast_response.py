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
from typing import Any, TypeVar

from feast import FeatureView, utils
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.type_map import feast_value_type_to_python_type
from feast.value_type import ValueType

from .stores.errors import BadInputError
from .stores.feast_reads import ReadRow, RowRequest, decoded
from .stores.feast_rows import FeastView
from .stores.feast_values import decoder, key_values
from .stores.layout import decode_values
from .stores.points import DEFAULT_VECTOR, FloatVector
from .stores.row_cache import StoredRow, parts_of

# Feast gives values of the other types in forms of its own: datetimes, parsed JSON, UUIDs, decimals.
_SCALARS = ("string", "bytes", "bool", "int32", "int64", "float32", "float64")
T = TypeVar("T")
_FILLING = threading.Lock()
_AS_DECODED = frozenset({*_SCALARS, *(f"{name}_list" for name in _SCALARS)})


@dataclass(frozen=True)
class Wanted:
    """What a request wants of one view."""

    request: RowRequest
    """Of each entity once."""
    places: Sequence[list[int]] | None
    """For each of them the rows of the answer that it stands in; None: one, in their order."""
    length: int
    """Rows of the answer."""


@dataclass(frozen=True)
class ViewRead:
    """What was read of one view for a request."""

    table: FeatureView
    wanted: Wanted
    rows: Sequence[StoredRow]
    """Of the request's entities."""

    def fill(self, response: Any, full_feature_names: bool, include_metadata: bool) -> None:
        """Put it into Feast's response proto; rows older than the view's ttl get the status OUTSIDE_MAX_AGE."""
        request, length = self.wanted.request, self.wanted.length
        places = self.wanted.places or [[place] for place in range(length)]
        first, rows = len(response.results), decoded(request, self.rows)
        utils._populate_response_from_feature_data(
            list(request.features or ()),
            rows,
            places,
            response,
            full_feature_names,
            self.table,
            length,
            include_metadata,
        )
        _mark_old(response.results[first:], self.table, rows, places)

    def columns(self) -> dict[str, list[Any]]:
        """The values of each feature as Feast gives them, by row of the answer."""
        view, names = self.wanted.request.view, self.wanted.request.features or ()
        columns: dict[str, list[Any]] = {name: [] for name in names}
        vectors = _gather(self.rows, columns)
        if self.wanted.places is not None:
            columns = {name: self._placed(stored) for name, stored in columns.items()}
            vectors = self._placed(vectors)
        types = {field.name: field.dtype.to_value_type() for field in self.table.features}
        for name, stored in columns.items():
            columns[name] = _column(view, name, types.get(name), stored)
            if view.vector is not None and name == view.vector.name:
                columns[name] = [
                    value if vector is None or kept is not None else vector.tolist()
                    for value, kept, vector in zip(columns[name], stored, vectors, strict=True)
                ]
        return columns

    def _placed(self, values: Sequence[T | None]) -> list[T | None]:
        """What there is of each entity, in the rows of the answer that it stands in."""
        placed: list[T | None] = [None] * self.wanted.length
        for value, places in zip(values, self.wanted.places or (), strict=True):
            for place in places:
                placed[place] = value
        return placed


def requested(
    view: FeastView, table: FeatureView, features: list[str], columns: dict[str, list[Any]], join_keys: dict[str, str]
) -> Wanted:
    """The rows of one view that a request wants.

    :param columns: value protos by join key, as Feast makes them of a request.
    :param join_keys: of all views of the request, by entity.
    :raises KeyError: as Feast does, if the request has none of the view's join keys.
    """
    found = utils._get_table_entity_values(table, join_keys, columns)
    if len(found) == 1:
        ((join_key, column),) = found.items()
        texts = [value.string_val for value in column]  # empty where it is no text
        if texts and all(texts):
            distinct = dict.fromkeys(texts)
            request = RowRequest.of_column(view, join_key, distinct, features)
            return Wanted(request, None if len(distinct) == len(texts) else _places(texts), len(texts))
    entities, groups, length = utils._get_unique_entities(table, columns, join_keys)
    return Wanted(RowRequest.of(view, [key_values(key.items()) for key in entities], features), groups, length)


def _places(texts: Sequence[str]) -> list[list[int]]:
    """Where each distinct text stands."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    return list(places.values())


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


def _gather(rows: Sequence[StoredRow], columns: dict[str, list[Any]]) -> list[FloatVector | None]:
    """Append each row's stored value of each feature, None where it has none; the vectors, by row.

    A row is unpacked only here and let go of again, see :func:`.stores.feast_reads.read_stored`.
    """
    vectors: list[FloatVector | None] = []
    for row in rows:
        payload, vector = parts_of(row, DEFAULT_VECTOR)
        stored = payload.get("f", {})
        for name, column in columns.items():
            column.append(stored.get(name))
        vectors.append(vector)
    return vectors


def _column(view: FeastView, name: str, feature_type: Any, stored: Sequence[Any]) -> list[Any]:
    """One feature as Feast gives it, of its stored values; None where there is no value."""
    kind = view.types.get(name)
    values: list[Any] | None = None
    if kind in _AS_DECODED:
        with suppress(BadInputError):  # some were written with another type than declared, and are kept as protos
            values = decode_values(stored, kind or "")
    if values is None:
        decode = decoder(kind)
        values = [None if v is None else feast_value_type_to_python_type(decode(v), feature_type) for v in stored]
    return values


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
