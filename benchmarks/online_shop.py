"""A Feast repository of one wide view in either of the two online stores that are compared, and rows for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

DIMENSION = 384
SEED = 20
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
WORDS = ("walnut", "oak", "linen", "brass", "velvet", "rustic", "modern", "lamp", "sofa", "shelf", "garden", "basil")
TYPES = {
    "title": "string",
    "lang": "string",
    "country": "string",
    "clicks": "int64",
    "saves": "int64",
    "rate": "float64",
    "price": "float32",
    "active": "bool",
    "tags": "string_list",
    "vector": "float32_list",
}
STORES = {
    "sqlite": {"type": "sqlite", "path": "online.db"},
    "ours": {"type": "materialize.online_store.PinfeatherOnlineStore", "path": "online"},
}


class Shop:
    """A Feast repository in a folder with one of the two online stores."""

    def __init__(self, root: Path, kind: str) -> None:
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
        from feast.types import Array, Bool, Float32, Float64, Int64, String
        from feast.value_type import ValueType

        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.config = RepoConfig(
            project="bench",
            provider="local",
            registry=str(root / "registry.db"),
            repo_path=root,
            online_store={**STORES[kind], "path": str(root / str(STORES[kind]["path"]))},
            entity_key_serialization_version=3,
        )
        self.store = FeatureStore(config=self.config)
        self.online = root / "online"
        kinds = [String, String, String, Int64, Int64, Float64, Float32, Bool, Array(String), Array(Float32)]
        fields = [Field(name=name, dtype=kind) for name, kind in zip(TYPES, kinds, strict=True)]
        fields[-1] = Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=DIMENSION)
        pin = Entity(name="pin_id", join_keys=["pin_id"], value_type=ValueType.STRING)
        source = FileSource(name="none", path=str(root / "none.parquet"), timestamp_field="event_timestamp")
        listed = [*fields[:-1], Field(name="vector", dtype=Array(Float32))]
        self.views = {
            name: FeatureView(name=name, entities=[pin], schema=schema, source=source, ttl=timedelta(0))
            for name, schema in (("pins", fields), ("listed", listed))
        }
        self.store.registry.apply_entity(pin, "bench")
        for view in self.views.values():
            view.entity_columns.append(Field(name="pin_id", dtype=String))
            self.store.registry.apply_feature_view(view, "bench")
        self.store._get_provider().update_infra("bench", [], list(self.views.values()), [], [pin], False)

    def write(self, view: str, rows: list[Any], batch: int) -> float:
        """Rows per second."""
        provider = self.store._get_provider()
        start = perf_counter()
        for first in range(0, len(rows), batch):
            provider.online_write_batch(self.config, self.views[view], rows[first : first + batch], lambda _: None)
        return len(rows) / (perf_counter() - start)

    def read(self, pins: list[str]) -> dict[str, Any]:
        """All 10 features of some pins, through Feast."""
        features = [f"pins:{name}" for name in TYPES]
        return self.store.get_online_features(features, [{"pin_id": pin} for pin in pins]).to_dict()


def make_rows(count: int) -> list[Any]:
    """What Feast gives to an online store, pin by pin."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import FloatList, StringList, Value

    rng = np.random.default_rng(SEED)
    rows = []
    for number, vector in enumerate(unit_vectors(count)):
        words = rng.choice(WORDS, 8).tolist()
        values = {
            "title": Value(string_val=" ".join(words[:5])),
            "lang": Value(string_val=("en", "de", "fr", "pt")[number % 4]),
            "country": Value(string_val=("US", "DE", "FR", "PT", "BR")[number % 5]),
            "clicks": Value(int64_val=number % 1000),
            "saves": Value(int64_val=int(rng.integers(100))),
            "rate": Value(double_val=float(rng.random())),
            "price": Value(float_val=float(rng.random() * 100)),
            "active": Value(bool_val=number % 2 == 0),
            "tags": Value(string_list_val=StringList(val=words[5:])),
            "vector": Value(float_list_val=FloatList(val=vector.tolist())),
        }
        key = EntityKey(join_keys=["pin_id"], entity_values=[Value(string_val=f"pin-{number}")])
        rows.append((key, values, NOON, NOON))
    return rows


def unit_vectors(count: int, seed: int = SEED) -> Any:
    """Random directions, float32 [count, 384]."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
