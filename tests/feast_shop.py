"""A small Feast repository with our online store, and what its tests do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from materialize.stores import session as sessions
from materialize.stores.points import Point

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TYPE = "materialize.online_store.PinfeatherOnlineStore"
LOCAL = pytest.mark.parametrize("kind", ["edge", "memory"])
"""Marks what need not run over HTTP too."""


class Shop:
    """A Feast repository in a folder, and what the tests do with it."""

    def __init__(self, root: Path, project: str = "shop", registry: Mapping[str, Any] | None = None, **online: Any):
        from feast import FeatureStore, RepoConfig

        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.options = online
        self.config = RepoConfig(
            project=project,
            provider="local",
            registry={"path": str(root / "registry.db"), **(registry or {})},
            repo_path=root,
            offline_store={"type": "duckdb"},
            online_store={"type": TYPE, **online},
            entity_key_serialization_version=3,
        )
        self.feast = FeatureStore(config=self.config)

    @property
    def store(self) -> Any:
        """Our store, as Feast holds it."""
        return self.feast._get_provider().online_store

    @property
    def session(self) -> Any:
        """The session of the store's place."""
        return sessions.session(self.config.online_store.place(self.config))

    # --- definitions ---

    def apply(self, *views: Any, delete: Sequence[Any] = ()) -> None:
        """``feast apply`` of these views and their entities; of only these if something is deleted."""
        self.feast.apply([*entities(*views), *views], objects_to_delete=list(delete), partial=not delete)

    def view(self, name: str, features: Mapping[str, Any], keys: Sequence[str] = ("pin_id",), **options: Any) -> Any:
        """A feature view; ``features`` maps names to Feast types or to (type, options of the field)."""
        from feast import FeatureView, Field, FileSource
        from feast.data_source import PushSource
        from feast.types import from_value_type

        source = FileSource(
            name=f"{name}_file",
            path=str(self.root / f"{name}.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        keyed = {key: from_value_type(entity(key).value_type) for key in keys}  # else Feast reads the source for it
        fields = {
            feature: spec if isinstance(spec, tuple) else (spec, {}) for feature, spec in {**keyed, **features}.items()
        }
        return FeatureView(
            name=name,
            entities=[entity(key) for key in keys],
            schema=[Field(name=feature, dtype=dtype, **more) for feature, (dtype, more) in fields.items()],
            source=options.pop("source", None) or PushSource(name=f"{name}_push", batch_source=source),
            **{"ttl": None, **options},
        )

    # --- rows ---

    def push(self, view: str, *rows: Mapping[str, Any], at: datetime = NOON) -> None:
        """Push rows of one event time, unless they say otherwise; a feature that a row does not name is null."""
        features = [field.name for field in self.feast.get_feature_view(view).features]
        self.feast.push(f"{view}_push", table(rows, at, features))

    def sources(self, view: str, *rows: Mapping[str, Any], at: datetime = NOON) -> None:
        """Write the batch source of a view."""
        table(rows, at).to_parquet(self.root / f"{view}.parquet")

    def materialize(self, *views: str) -> None:
        """``feast materialize`` of the last month."""
        self.feast.materialize(NOON - timedelta(days=30), NOON + timedelta(hours=12), list(views) or None)

    def read(self, *features: str, full_feature_names: bool = False, **keys: Sequence[Any]) -> dict[str, list[Any]]:
        """Online features of the entities that ``keys`` list by join key."""
        return self.ask(*features, full_feature_names=full_feature_names, **keys).to_dict()

    def ask(self, *features: str, full_feature_names: bool = False, **keys: Sequence[Any]) -> Any:
        """The response to :meth:`read`, before it is made a dict."""
        rows = [dict(zip(keys, values, strict=True)) for values in zip(*keys.values(), strict=True)]
        return self.feast.get_online_features(list(features), rows, full_feature_names)

    def write(self, view: Any, *rows: tuple[Any, Mapping[str, Any]], at: datetime = NOON) -> None:
        """Write rows of value protos past Feast: (entity key, values by feature), one event time."""
        self.store.online_write_batch(self.config, view, [(key, dict(values), at, None) for key, values in rows], None)

    # --- what is there ---

    def collections(self) -> dict[str, int]:
        """The number of points by collection."""
        with self.session.reading() as store:
            return {name: store.count(name) for name in store.collections()}

    def specs(self) -> dict[str, Any]:
        """The spec of each collection."""
        with self.session.reading() as store:
            return store.collections()

    def points(self, collection: str) -> list[Point]:
        """All points of a collection, with vectors."""
        with self.session.reading() as store:
            return store.scroll(collection, with_vectors=True)[0]

    def release(self, **names: str) -> None:
        """Let a release name the spaces of views."""
        with self.session.writing("a release") as writer:
            writer.publish({"names": names})


def table(rows: Sequence[Mapping[str, Any]], at: datetime, features: Sequence[str] = ()) -> pd.DataFrame:
    """Rows as a data frame whose whole numbers stay whole where others are null."""
    times = {"event_timestamp": at, "created_timestamp": at}
    frame = pd.DataFrame([{**dict.fromkeys(features), **times, **row} for row in rows], dtype=object)
    return frame.assign(**{name: pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]") for name in times})


def entity(key: str) -> Any:
    """The entity of a join key: numbers are called so, everything else is text."""
    from feast import Entity
    from feast.value_type import ValueType

    kind = ValueType.INT64 if key.endswith("number") else ValueType.STRING
    return Entity(name=key, join_keys=[key], value_type=kind)


def entities(*views: Any) -> list[Any]:
    """The entities of views."""
    return [entity(key) for key in dict.fromkeys(key for view in views for key in view.join_keys) if key[0] != "_"]


def entity_key(**values: Any) -> Any:
    """An ``EntityKeyProto`` of texts, numbers, bytes and value protos."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    return EntityKey(join_keys=list(values), entity_values=[proto(value) for value in values.values()])


def proto(value: Any) -> Any:
    """A ``ValueProto`` of a plain value."""
    from feast.protos.feast.types.Value_pb2 import Value

    fields = {str: "string_val", int: "int64_val", bytes: "bytes_val", bool: "bool_val", float: "double_val"}
    if isinstance(value, Value):
        return value
    if isinstance(value, list):
        return Value(float_list_val={"val": value})
    return Value(**{fields[type(value)]: value}) if value is not None else Value()


def statuses(response: Any, feature: str) -> list[str]:
    """The status of each value of a feature, in words."""
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    place = list(response.proto.metadata.feature_names.val).index(feature)
    return [FieldStatus.Name(status) for status in response.proto.results[place].statuses]


def pinned(**options: Any) -> dict[str, Any]:
    """The schema of a document view: a vector of length 2, and two texts."""
    from feast.types import Array, Float32, String

    return {
        "vector": (Array(Float32), {"vector_index": True, "vector_length": 2, **options}),
        "title": String,
        "lang": String,
    }
