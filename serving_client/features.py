"""Feature look-ups: straight from the stored rows, and the slow way through Feast that must agree with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from materialize.definitions import RepoDefinitions, ViewDefinition, load_definitions, open_feature_store
from materialize.stores.layout import decode_feature, feature_path, from_micros, to_micros
from materialize.stores.port import DEFAULT_VECTOR, Point
from serving_client.answers import FeatureTable
from serving_client.publications import Publication

CONTENT = "pin_content_v1"
"""The service that holds the words of a pin."""

_PIN = ("pin_id",)


def service_features(definitions: RepoDefinitions, service: str) -> Mapping[str, tuple[str, ...]]:
    """View to feature names of a service whose views are all keyed by pin.

    :raises UsageError: if there is no such service, or it needs other keys.
    """
    if service not in definitions.services:
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
    """The features of ``service``: one read per collection, decoded from the stored bytes."""
    definitions = publication.definitions
    members = service_features(definitions, service)
    plain = [view for view in members if definitions.views[view].vector_field is None]
    points: dict[str, list[Point | None]] = publication.rows(plain, pin_ids)
    columns: dict[str, list[Any]] = {}
    for view, features in members.items():
        definition = definitions.views[view]
        if definition.vector_field is not None:
            points[view] = _vector_rows(publication, definition, pin_ids)
        for feature in features:
            columns[f"{view}__{feature}"] = (
                _vectors(points[view])
                if feature == definition.vector_field
                else decode_feature(points[view], feature, definition.features[feature])
            )
    stamps = {view: _event_timestamps(points[view]) for view in members}
    return FeatureTable(tuple(pin_ids), service, _any_row(stamps, len(pin_ids)), columns, stamps)


def _vector_rows(publication: Publication, view: ViewDefinition, pin_ids: Sequence[str]) -> list[Point | None]:
    if view.name not in publication.release.names:
        return [None] * len(pin_ids)
    paths = ["event_ts", *(feature_path(name) for name in view.features if name != view.vector_field)]
    return publication.vector_points(publication.space(view.name), pin_ids, paths)


def _vectors(points: Sequence[Point | None]) -> list[list[float] | None]:
    return [None if point is None else point.vectors[DEFAULT_VECTOR].tolist() for point in points]


def _event_timestamps(points: Sequence[Point | None]) -> NDArray[np.datetime64]:
    micros = [None if point is None else point.payload.get("event_ts") for point in points]
    return np.array(["NaT" if each is None else each for each in micros], dtype="datetime64[us]")


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
