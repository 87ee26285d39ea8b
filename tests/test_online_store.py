"""Feast on our store: apply, materialize, push and read in a small repository of its own."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from materialize.stores import layout
from materialize.stores import session as sessions
from materialize.stores.errors import StoreBusyError, StoreError
from materialize.stores.lease import WriterLease
from materialize.stores.port import CollectionSpec, Point, VectorSpec
from materialize.stores.publication import open_reader, open_writer

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PINS = ("p1", "p2", "p3")


def rows(view: str) -> pd.DataFrame:
    """Three pins (two of one query), with a later and an earlier row of p1."""
    frame = pd.DataFrame({"pin_id": [*PINS, "p1"], "title": ["Oak shelf", "Étagère 🌿", None, "old title"]})
    frame["clicks"] = pd.array([3, 0, None, 1], dtype="Int64")
    frame["rate"] = pd.Series([0.1, math.pi, 1e-300, 0.0])
    frame["boards"] = [["Living", "Oak"], [], ["é"], ["old"]]
    frame["vector"] = [[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [0.1, 0.2]]
    frame["query"] = ["shelf", "shelf", "plants", "shelf"]
    frame["event_timestamp"] = [NOON, NOON, NOON, NOON - timedelta(days=3)]
    frame["created_timestamp"] = NOON
    columns = {
        "text": ["pin_id", "title", "boards"],
        "counts": ["pin_id", "clicks", "rate"],
        "vectors": ["pin_id", "vector"],
        "pairs": ["query", "pin_id", "clicks"],
    }[view]
    return frame[[*columns, "event_timestamp", "created_timestamp"]]


def entities() -> list[Any]:
    from feast import Entity
    from feast.value_type import ValueType

    return [Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in ("pin_id", "query")]


class Shop:
    """A Feast repository in a folder, and what the tests do with it."""

    def __init__(self, root: Path, **options: Any) -> None:
        from feast import FeatureStore, RepoConfig

        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.config = RepoConfig(
            project=options.pop("project", "shop"),
            provider="local",
            registry=str(root / "registry.db"),
            repo_path=root,
            offline_store={"type": "duckdb"},
            online_store={
                "type": "materialize.online_store.PinfeatherOnlineStore",
                "path": "data/online",
                "publish_interval": 0,
                "lock_timeout": 0.1,
                **options,
            },
            entity_key_serialization_version=3,
        )
        self.store = FeatureStore(config=self.config)
        self.online = root / "data" / "online"

    def view(self, name: str, keys: tuple[str, ...] = ("pin_id",), view_of: str | None = None, **options: Any) -> Any:
        from feast import FeatureView, Field, FileSource
        from feast.data_source import PushSource
        from feast.types import Array, Float32, Float64, Int64, String

        types = {"title": String, "boards": Array(String), "clicks": Int64, "rate": Float64, "vector": Array(Float32)}
        frame = rows(view_of or name)
        path = self.root / f"{name}.parquet"
        frame.to_parquet(path)
        source = FileSource(
            name=name,
            path=str(path),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        vector = {"vector_index": True, "vector_length": 2, **options.pop("vector", {})}
        schema = [
            Field(name=column, dtype=types[column], **(vector if column == "vector" else {}))
            for column in frame.columns
            if column in types
        ]
        return FeatureView(
            name=name,
            entities=[entity for entity in entities() if entity.name in keys],
            schema=schema,
            source=PushSource(name=f"{name}_push", batch_source=source),
            ttl=None,
            **options,
        )

    def apply(self, *views: Any, delete: tuple[Any, ...] = ()) -> None:
        self.store.apply([*entities(), *views], objects_to_delete=list(delete), partial=not delete)

    def materialize(self, *views: str) -> None:
        self.store.materialize(NOON - timedelta(days=30), NOON + timedelta(hours=1), list(views) or None)

    def push(self, view: str, event_time: datetime, **columns: Any) -> None:
        from feast.data_source import PushMode

        frame = pd.DataFrame([{**columns, "event_timestamp": event_time, "created_timestamp": event_time}])
        self.store.push(f"{view}_push", frame, to=PushMode.ONLINE)

    def read(self, *features: str, pins: tuple[str, ...] = PINS, **more: list) -> dict[str, list]:
        keys = [dict(zip(("pin_id", *more), values, strict=True)) for values in zip(pins, *more.values(), strict=True)]
        return self.store.get_online_features(list(features), keys).to_dict()

    def collections(self) -> dict[str, int]:
        with open_reader(self.online) as reader:
            return {name: reader.count(name) for name in reader.collections()}


@pytest.fixture(scope="session", autouse=True)
def feast() -> Any:
    """Feast takes seconds to import; once a session is enough."""
    return importlib.import_module("feast")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    yield Shop(tmp_path / "shop")
    sessions.close_all()


@pytest.fixture
def full(shop: Shop) -> Shop:
    """Four views, applied and materialized."""
    shop.apply(
        shop.view("text"), shop.view("counts"), shop.view("vectors"), shop.view("pairs", keys=("query", "pin_id"))
    )
    shop.materialize()
    return shop


def all_features(shop: Shop) -> dict[str, list]:
    return shop.read("text:title", "text:boards", "counts:clicks", "counts:rate", "vectors:vector")


class TestReadsWhatWasWritten:
    def test_every_view_and_type(self, full: Shop) -> None:
        read = all_features(full)
        assert read["title"] == ["Oak shelf", "Étagère 🌿", None]
        assert read["boards"] == [["Living", "Oak"], [], ["é"]]
        assert read["clicks"] == [3, 0, None]
        assert read["rate"] == [0.1, math.pi, 1e-300]
        assert [[round(x, 6) for x in vector] for vector in read["vector"]] == [[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]

    def test_views_of_one_entity_set_share_a_collection(self, full: Shop) -> None:
        assert full.collections() == {"shop@pin_id": 6, "shop@pin_id+query": 3, "shop__vectors": 3}

    def test_order_duplicates_and_unknown_entities(self, full: Shop) -> None:
        read = full.read("text:title", "counts:clicks", pins=("p2", "nobody", "p1", "p2"))
        assert read["title"] == ["Étagère 🌿", None, "Oak shelf", "Étagère 🌿"]
        assert read["clicks"] == [0, None, 3, 0]
        response = full.store.get_online_features(["text:title"], [{"pin_id": "p1"}, {"pin_id": "nobody"}]).proto
        names = list(response.metadata.feature_names.val)
        result = response.results[names.index("title")]
        assert [int(status) for status in result.statuses] == [1, 3]  # PRESENT, NOT_FOUND
        assert result.event_timestamps[0].ToDatetime(tzinfo=UTC) == NOON

    def test_composite_keys(self, full: Shop) -> None:
        read = full.read("pairs:clicks", pins=("p1", "p3", "p1"), query=["shelf", "plants", "plants"])
        assert read["clicks"] == [3, None, None]
        statuses = full.store.get_online_features(["pairs:clicks"], [{"query": "plants", "pin_id": "p3"}]).proto
        assert int(statuses.results[-1].statuses[0]) != 3  # stored, and null

    def test_rows_are_laid_out_for_readers_without_feast(self, full: Shop) -> None:
        with open_reader(full.online) as reader:
            ids = layout.point_ids("shop", "text", "pin_id", PINS)
            points = reader.get_many("shop@pin_id", ids)
            vectors = reader.get_many(
                "shop__vectors", layout.point_ids("shop", "vectors", "pin_id", PINS), with_vectors=True
            )
        assert layout.decode_feature(points, "title", "string") == ["Oak shelf", "Étagère 🌿", None]
        assert points[0] is not None
        assert points[0].payload == {
            "project": "shop",
            "view": "text",
            "key": {"pin_id": "p1"},
            "event_ts": layout.to_micros(NOON),
            "created_ts": layout.to_micros(NOON),
            "f": {"title": "Oak shelf", "boards": ["Living", "Oak"]},
        }
        assert layout.stack_vectors(vectors, 2)[1].tolist() == [1.0, 0.0]
        assert vectors[0] is not None
        assert vectors[0].payload["f"] == {}

    def test_materializing_again_changes_nothing(self, full: Shop) -> None:
        before = all_features(full)
        full.materialize()
        assert all_features(full) == before
        assert full.collections() == {"shop@pin_id": 6, "shop@pin_id+query": 3, "shop__vectors": 3}

    def test_vector_search(self, full: Shop) -> None:
        found = full.store.retrieve_online_documents_v2(["vectors:vector"], top_k=2, query=[0.0, 1.0]).to_dict()
        assert dict(zip(found["pin_id"], found["distance"], strict=True)) == pytest.approx({"p3": 1.0, "p1": 0.8})
        assert dict(zip(found["pin_id"], found["vector"], strict=True))["p3"] == [0.0, 1.0]


class TestWritesFollowTheClock:
    def test_push_of_newer_older_and_equal_rows(self, full: Shop) -> None:
        full.push("text", NOON - timedelta(hours=1), pin_id="p1", title="older", boards=["x"])
        assert full.read("text:title")["title"][0] == "Oak shelf"
        full.push("text", NOON, pin_id="p1", title="equal", boards=["x"])
        assert full.read("text:title")["title"][0] == "equal"
        full.push("text", NOON + timedelta(microseconds=1), pin_id="p1", title="newer", boards=["x"])
        read = all_features(full)
        assert read["title"] == ["newer", "Étagère 🌿", None]
        assert (read["clicks"], read["rate"]) == ([3, 0, None], [0.1, math.pi, 1e-300])  # the other views are untouched

    def test_materializing_does_not_bring_an_older_row_back(self, full: Shop) -> None:
        full.push("text", NOON + timedelta(hours=2), pin_id="p1", title="newer", boards=["x"])
        full.materialize()
        assert full.read("text:title")["title"][0] == "newer"

    def test_newest_row_of_a_batch_wins(self, full: Shop) -> None:
        from feast.data_source import PushMode

        times = [NOON + timedelta(hours=h) for h in (3, 5, 5, 4)]
        created = [NOON + timedelta(hours=h) for h in (0, 2, 1, 9)]
        frame = pd.DataFrame({"pin_id": "p1", "title": list("abcd"), "boards": [["x"]] * 4, "event_timestamp": times})
        full.store.push("text_push", frame.assign(created_timestamp=created), to=PushMode.ONLINE)
        assert full.read("text:title")["title"][0] == "b"

    def test_a_busy_folder_refuses_the_push_and_keeps_serving(self, full: Shop) -> None:
        with (
            WriterLease(full.online / "writer.lock", purpose="nightly run"),
            pytest.raises(StoreBusyError, match="nightly run"),
        ):
            full.push("text", NOON + timedelta(hours=1), pin_id="p1", title="late", boards=["x"])
        assert full.read("text:title")["title"][0] == "Oak shelf"

    def test_a_materializer_in_the_same_process(self, full: Shop) -> None:
        with open_writer(full.online) as materializer:
            before = materializer.number
            payload = layout.row_payload(
                "shop", "text", {"pin_id": "p4"}, layout.to_micros(NOON), {"title": "made here", "boards": []}
            )
            materializer.upsert("shop@pin_id", [Point(layout.point_id("shop", "text", {"pin_id": "p4"}), payload)])
            full.push("text", NOON + timedelta(hours=1), pin_id="p1", title="pushed", boards=["x"])
            assert full.read("text:title", pins=("p4", "p1"))["title"] == ["made here", "pushed"]
            assert materializer.number == before
            materializer.publish()
        assert full.read("text:title", pins=("p4", "p1"))["title"] == ["made here", "pushed"]

    def test_pushes_within_the_interval_share_a_publication(self, tmp_path: Path) -> None:
        shop = Shop(tmp_path / "shop", publish_interval=3600)
        shop.apply(shop.view("text"))
        with open_reader(shop.online) as other:
            applied = other.number
            for n in range(3):
                shop.push("text", NOON, pin_id=f"p{n}", title=f"title {n}", boards=["x"])
                assert shop.read("text:title", pins=(f"p{n}",))["title"] == [f"title {n}"]
            sessions.close_all()
            other.refresh()
            assert other.count("shop@pin_id") == 3
            assert other.number <= applied + 2


class TestViewsComeAndGo:
    def test_apply_twice_makes_no_publication_and_needs_no_lease(self, full: Shop) -> None:
        with open_reader(full.online) as reader:
            before = reader.number
            with WriterLease(full.online / "writer.lock"):
                full.apply(full.view("text"), full.view("counts"), full.view("vectors"))
            assert reader.refresh() is False
            assert reader.number == before

    def test_dropping_a_view_leaves_the_others_alone(self, full: Shop) -> None:
        before = all_features(full)
        full.apply(full.view("text"), delete=(full.store.get_feature_view("counts"),))
        assert full.read("text:title", "text:boards", "vectors:vector") == {
            name: before[name] for name in ("pin_id", "title", "boards", "vector")
        }
        assert full.collections() == {"shop@pin_id": 3, "shop@pin_id+query": 3, "shop__vectors": 3}
        full.apply(full.view("counts"))
        assert full.read("counts:clicks")["clicks"] == [None, None, None]
        full.materialize("counts")
        assert all_features(full) == before

    def test_dropping_a_vector_view_drops_its_collection(self, full: Shop) -> None:
        full.apply(full.view("text"), delete=(full.store.get_feature_view("vectors"),))
        assert full.collections() == {"shop@pin_id": 6, "shop@pin_id+query": 3}
        full.apply(full.view("vectors"), delete=(full.view("pairs", keys=("query", "pin_id")),))
        assert full.collections()["shop__vectors"] == 0

    def test_changed_vector_length_is_explained(self, full: Shop) -> None:
        with pytest.raises(
            StoreError, match=r"declared otherwise .*2 dimensions.*not with .*3 dimensions.*remove the view"
        ):
            full.apply(full.view("vectors", vector={"vector_length": 3}))

    def test_teardown(self, full: Shop) -> None:
        full.store.teardown()
        assert full.collections() == {}
        full.store.teardown()
        Shop(full.root.parent / "never applied").store.teardown()

    def test_projects_in_one_folder_are_kept_apart(self, full: Shop, tmp_path: Path) -> None:
        other = Shop(tmp_path / "other", project="other", path=str(full.online))
        other.apply(other.view("text"))
        assert other.read("text:title")["title"] == [None, None, None]
        other.push("text", NOON, pin_id="p1", title="theirs", boards=["x"])
        assert full.read("text:title")["title"][0] == "Oak shelf"
        other.store.teardown()
        assert all_features(full)["title"] == ["Oak shelf", "Étagère 🌿", None]

    def test_view_that_is_not_online(self, full: Shop) -> None:
        view = full.view("offline", view_of="text", online=False)
        full.apply(view)
        for call in (
            lambda: full.read("offline:title"),
            lambda: full.push("offline", NOON, pin_id="p1", title="x", boards=["x"]),
        ):
            with pytest.raises(StoreError, match=r"feature view offline has online=False.*Set online=True"):
                call()

    def test_reading_before_any_apply(self, shop: Shop) -> None:
        from materialize.online_store import PinfeatherOnlineStore

        view = shop.view("text")
        with pytest.raises(StoreError, match="write and publish first"):
            PinfeatherOnlineStore().online_read(shop.config, view, [entity_key(pin_id="p1")])


class TestSpaces:
    """A release names the collection of an embedding view; the materializer owns it."""

    def released(self, shop: Shop, space: str = "search-a1") -> None:
        shop.apply(shop.view("text"))
        with open_writer(shop.online) as writer:
            writer.create(space, CollectionSpec({"vector": VectorSpec(2)}))
            payload = layout.row_payload("shop", "vectors", {"pin_id": "p1"}, layout.to_micros(NOON), {})
            identity = layout.point_id("shop", "vectors", {"pin_id": "p1"})
            writer.upsert(space, [Point(identity, payload, {"vector": [0.0, 1.0]})])  # type: ignore[dict-item]
            writer.publish({"names": {"vectors": space}})

    def test_feast_reads_the_space(self, shop: Shop) -> None:
        self.released(shop)
        shop.apply(shop.view("vectors"))
        assert shop.read("vectors:vector", pins=("p1", "p2"))["vector"] == [[0.0, 1.0], None]
        found = shop.store.retrieve_online_documents_v2(["vectors:vector"], top_k=5, query=[0.0, 2.0]).to_dict()
        assert (found["pin_id"], found["distance"]) == (["p1"], [2.0])
        assert shop.collections() == {"search-a1": 1, "shop@pin_id": 0}

    @pytest.mark.parametrize("space", ["search-a1", "shop__vectors"])
    def test_apply_drop_and_teardown_leave_it_alone(self, shop: Shop, space: str) -> None:
        self.released(shop, space)
        shop.apply(shop.view("vectors", vector={"vector_length": 5}))
        shop.apply(shop.view("text"), delete=(shop.store.get_feature_view("vectors"),))
        shop.store.teardown()
        assert shop.collections()[space] == 1


def entity_key(**values: Any) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    fields = {str: "string_val", int: "int64_val", bytes: "bytes_val"}
    return EntityKey(
        join_keys=list(values), entity_values=[Value(**{fields[type(value)]: value}) for value in values.values()]
    )


def every_value() -> dict[str, tuple[Any, list[Any]]]:
    """Feast type -> value protos of it, odd ones included."""
    from feast import types
    from feast.protos.feast.types import Value_pb2 as pb

    def scalars(field: str, *values: Any) -> list[Any]:
        return [pb.Value(**{field: value}) for value in values]

    def lists(field: str, *values: Any) -> list[Any]:
        return [pb.Value(**{field: {"val": value}}) for value in ([], list(values))]

    odd = (0.0, -0.0, math.pi, 1e-300, 0.1, 1e22, math.inf, -math.inf, math.nan, 123456789.12345679)
    known = {
        "String": (types.String, scalars("string_val", "", "é\0😀", "null")),
        "Bytes": (types.Bytes, scalars("bytes_val", b"", bytes(range(256)))),
        "Bool": (types.Bool, scalars("bool_val", True, False)),
        "Int32": (types.Int32, scalars("int32_val", 0, -(2**31), 2**31 - 1)),
        "Int64": (types.Int64, scalars("int64_val", 0, -(2**63), 2**63 - 1)),
        "Float32": (types.Float32, scalars("float_val", *odd)),
        "Float64": (types.Float64, scalars("double_val", *odd)),
        "UnixTimestamp": (types.UnixTimestamp, scalars("unix_timestamp_val", 0, -1, 1_700_000_000, -(2**63))),
        "Json": (types.Json, scalars("json_val", '{"a": 1}')),
        "Uuid": (types.Uuid, scalars("uuid_val", "5f0c9a52-6c0e-5d0b-9a55-3d6a4f7c1e21")),
        "Decimal": (types.Decimal, scalars("decimal_val", "1.50")),
        "Strings": (types.Array(types.String), lists("string_list_val", "a", "")),
        "ByteStrings": (types.Array(types.Bytes), lists("bytes_list_val", b"\0", b"")),
        "Bools": (types.Array(types.Bool), lists("bool_list_val", True, False)),
        "Int32s": (types.Array(types.Int32), lists("int32_list_val", 1, -1)),
        "Int64s": (types.Array(types.Int64), lists("int64_list_val", 2**63 - 1)),
        "Float32s": (types.Array(types.Float32), lists("float_list_val", *odd)),
        "Float64s": (types.Array(types.Float64), lists("double_list_val", *odd)),
        "Times": (types.Array(types.UnixTimestamp), lists("unix_timestamp_list_val", 0, 1_700_000_000)),
        "Map": (types.Map, [pb.Value(map_val={"val": {"a": pb.Value(int64_val=1), "b": pb.Value()}})]),
        "Set": (types.Set(types.String), [pb.Value(string_set_val={"val": ["b", "a"]})]),
        "Mismatch": (types.Int64, scalars("string_val", "declared as a number")),
        "Null": (types.String, [pb.Value(), pb.Value(null_val=0)]),
    }
    return known


def test_every_value_proto_round_trips(shop: Shop) -> None:
    from feast import Entity, FeatureView, Field, FileSource

    from materialize.online_store import PinfeatherOnlineStore

    store, values = PinfeatherOnlineStore(), every_value()
    view = FeatureView(
        name="values",
        entities=[Entity(name="k", join_keys=["k"])],
        schema=[Field(name=name, dtype=dtype) for name, (dtype, _) in values.items()],
        source=FileSource(path="unused", timestamp_field="t"),
    )
    longest = max(len(protos) for _, protos in values.values())
    written = [
        {name: protos[row] for name, (_, protos) in values.items() if row < len(protos)} for row in range(longest)
    ]
    keys = [entity_key(k=key, n=5) for key in ("a", 1, b"a", "1", "", 2**62, b"", "b", "c", "d")][:longest]
    data = [(key, row, NOON.replace(tzinfo=None), None) for key, row in zip(keys, written, strict=True)]
    done: list[int] = []
    store.online_write_batch(shop.config, view, data, done.append)
    assert sum(done) == longest
    read = store.online_read(shop.config, view, keys)
    for row, (event_time, features) in zip(written, read, strict=True):
        assert event_time == NOON
        assert features is not None
        assert {n: v.SerializeToString(deterministic=True) for n, v in features.items()} == {
            n: v.SerializeToString(deterministic=True) for n, v in row.items()
        }
    some = store.online_read(shop.config, view, keys[:1], ["Int64", "nothing"])
    assert list(some[0][1] or ()) == ["Int64"]


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot", None])
def test_vectors_come_back_exactly_with_every_metric(shop: Shop, metric: str | None) -> None:
    shop.apply(shop.view("vectors", vector={"vector_search_metric": metric, "vector_length": 0}))
    shop.push("vectors", NOON, pin_id="p1", vector=[3.0, 4.0])
    shop.push("vectors", NOON, pin_id="p2", vector=[0.30000001192092896, -7.0])
    assert shop.read("vectors:vector")["vector"] == [[3.0, 4.0], [0.30000001192092896, -7.0], None]
    found = shop.store.retrieve_online_documents_v2(["vectors:vector"], top_k=1, query=[0.0, 1.0]).to_dict()
    assert found["vector"] == [[3.0, 4.0]]


def test_filters(shop: Shop) -> None:
    from feast.filter_models import ComparisonFilter, CompoundFilter

    from materialize.stores.feast_rows import condition_of

    with open_writer(shop.online) as writer:
        writer.create("rows", CollectionSpec())
        values = {"a": ("en", math.pi), "b": ("fr", 1e-300), "c": ("fr", 5.0)}
        for name, (lang, rate) in values.items():
            features = {"lang": layout.encode_value(lang, "string"), "rate": layout.encode_value(rate, "float64")}
            payload = layout.row_payload("p", "v", {"k": name}, 0, features)
            writer.upsert("rows", [Point(layout.point_id("p", "v", {"k": name}), payload)])

        def keys(filters: Any) -> str:
            points = writer.scroll("rows", filter=condition_of(filters))[0]
            return "".join(sorted(p.payload["key"]["k"] for p in points))

        def compare(kind: str, key: str, value: Any) -> Any:
            return ComparisonFilter(type=kind, key=key, value=value)

        french, low = compare("eq", "lang", "fr"), compare("lt", "rate", 4.0)
        assert keys(french) == "bc"
        assert keys(compare("ne", "lang", "fr")) == "a"
        assert keys(compare("in", "lang", ["en", "de"])) == "a"
        assert keys(compare("nin", "lang", ["en", "de"])) == "bc"
        assert keys(low) == "ab"
        assert keys(compare("gte", "rate", math.pi)) == "ac"
        assert keys(compare("eq", "rate", math.pi)) == "a"
        assert keys(compare("eq", "rate", 1e-300)) == "b"
        assert keys(compare("eq", "rate", 5.0)) == "c"
        assert keys(CompoundFilter(type="and", filters=[french, low])) == "b"
        assert keys(CompoundFilter(type="or", filters=[french, low])) == "abc"


def test_the_store_is_found_by_its_name_in_a_configuration(shop: Shop) -> None:
    from materialize.online_store import PinfeatherOnlineStoreConfig

    assert shop.config.online_store.publish_interval == 0
    assert PinfeatherOnlineStoreConfig().path == "data/online"
    assert type(shop.store._get_provider().online_store).__name__ == "PinfeatherOnlineStore"
