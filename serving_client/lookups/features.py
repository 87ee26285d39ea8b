"""Feature look-ups: straight from the stored rows, and the slow way through Feast that must agree with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from materialize.definitions import RepoDefinitions, ViewDefinition, load_definitions, open_feature_store
from materialize.stores.columns import Arrays, Kind, event_times
from materialize.stores.layout import (
    decode_feature,
    feature_path,
    from_micros,
    point_ids,
    stack_vectors,
    to_micros,
)
from materialize.stores.port import DEFAULT_VECTOR, Point
from serving_client.answers import FeatureTable
from serving_client.publications.publications import Publication
from serving_client.stages import stage

CONTENT = "pin_content_v1"
"""The service that holds the words of a pin."""

_PIN = ("pin_id",)
_TIME = ""
"""Beside the names of features, none of which is empty: the event timestamps."""


def service_features(definitions: RepoDefinitions, service: str) -> Mapping[str, tuple[str, ...]]:
    """View to feature names of a service whose views are all keyed by pin.

    :raises UsageError: if there is no such service, or it needs other keys.
    """
    if not isinstance(service, str) or service not in definitions.services:
        raise UsageError(
            f"There is no feature service {service!r}; there are: {', '.join(sorted(definitions.services)) or 'none'}. "
            "Add one to the repository's definitions and run `pinfeather apply`."
        )
    members = definitions.services[service]
    for view in members:
        if definitions.views[view].join_keys != _PIN:
            keys = ", ".join(definitions.views[view].join_keys)
            raise UsageError(f"Service {service} reads {view}, which is keyed by {keys}: only pin_id can be asked for.")
    return members


def read_features(publication: Publication, pin_ids: Sequence[str], service: str) -> FeatureTable:
    """The features of ``service``: each view read once, decoded from the stored bytes when they are first read."""
    members = service_features(publication.definitions, service)
    columns: dict[str, list[Any]] = {}
    stamps: dict[str, NDArray[np.datetime64]] = {}
    with stage("store"):
        for view, features in members.items():
            definition = publication.definitions.views[view]
            arrays = _view_arrays(publication, definition, pin_ids)
            stamps[view] = arrays[_TIME]
            for feature in features:
                columns[f"{view}__{feature}"] = _values(arrays[feature], definition, feature)
    return FeatureTable(tuple(pin_ids), service, _any_row(stamps, len(pin_ids)), columns, stamps)


def _view_arrays(publication: Publication, view: ViewDefinition, pin_ids: Sequence[str]) -> Arrays:
    """Feature to its decoded values, and :data:`_TIME` to the event timestamps."""
    decoded = tuple((name, kind) for name, kind in view.features.items() if name != view.vector_field)
    if view.vector_field is None:
        return publication.pin_columns(_view_kind(publication.project, view.name, decoded), pin_ids)
    if view.name not in publication.release.names:
        return {**_decoded([None] * len(pin_ids), decoded), view.vector_field: _objects([None] * len(pin_ids))}
    space = publication.space(view.name)
    if not decoded:
        arrays = publication.vector_columns(space, pin_ids)
        return {_TIME: arrays["event_ts"], view.vector_field: arrays[DEFAULT_VECTOR]}
    points = publication.vector_points(space, pin_ids, ["event_ts", *(feature_path(name) for name, _ in decoded)])
    return {**_decoded(points, decoded), view.vector_field: stack_vectors(points, space.dimension)}


@lru_cache(maxsize=256)
def _view_kind(project: str, view: str, features: tuple[tuple[str, str], ...]) -> Kind:
    return Kind(
        f"features of {project} {view}: {features}",
        lambda pin_ids: point_ids(project, view, "pin_id", pin_ids),
        ["event_ts", *(feature_path(name) for name, _ in features)],
        False,
        lambda points: _decoded(points, features),
    )


def _decoded(points: Sequence[Point | None], features: Sequence[tuple[str, str]]) -> Arrays:
    arrays: Arrays = {name: _objects(decode_feature(points, name, kind)) for name, kind in features}
    return {**arrays, _TIME: event_times(points)}


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    return np.fromiter(values, dtype=object, count=len(values))  # np.array would look into lists


def _values(array: NDArray[Any], view: ViewDefinition, feature: str) -> list[Any]:
    """One feature as the caller's own values."""
    if array.dtype != object:  # vectors
        return [None if np.isnan(row[0]) else row.tolist() for row in array]
    if view.features.get(feature, "").endswith("_list"):
        return [None if value is None else value.copy() for value in array]
    values: list[Any] = array.tolist()
    return values


def _any_row(stamps: Mapping[str, NDArray[np.datetime64]], rows: int) -> NDArray[np.bool_]:
    found = np.zeros(rows, dtype=np.bool_)
    for each in stamps.values():
        found |= ~np.isnat(each)
    return found


def read_features_through_feast(paths: RepoPaths, pin_ids: Sequence[str], service: str) -> FeatureTable:
    """The same table by Feast's ``get_online_features``, for comparison. Imports Feast, which takes seconds."""
    members = service_features(load_definitions(paths), service)
    store = open_feature_store(paths)
    response = store.get_online_features(
        features=store.get_feature_service(service),
        entity_rows=[{"pin_id": pin_id} for pin_id in pin_ids],
        full_feature_names=True,
    )
    values = response.to_dict()
    names = [f"{view}__{feature}" for view, features in members.items() for feature in features]
    columns = {name: [_plain(value) for value in values[name]] for name in names}
    proto_columns = dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))
    stamps = {view: _feast_timestamps(proto_columns[f"{view}__{features[0]}"]) for view, features in members.items()}
    return FeatureTable(tuple(pin_ids), service, _any_row(stamps, len(pin_ids)), columns, stamps)


def _plain(value: Any) -> Any:
    """Feast's times as ours: UTC, without the time zone object of pandas."""
    if isinstance(value, datetime):
        return from_micros(to_micros(value.astimezone(UTC) if value.tzinfo else value))
    return value


def _feast_timestamps(column: Any) -> NDArray[np.datetime64]:
    """Feast gives every feature of a row the row's time, and time 0 where there is no row."""
    micros = [stamp.ToMicroseconds() or "NaT" for stamp in column.event_timestamps]
    return np.array(micros, dtype="datetime64[us]")
