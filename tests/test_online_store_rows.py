"""Reading what was written: Feast's contract for rows, on every kind of place."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest
from feast_shop import NOON, Shop, entity_key, proto, statuses, table

from materialize.stores import layout
from materialize.stores.errors import BadInputError, StoreError

pytest_plugins = ["feast_places"]

PINS = ("p1", "p2", "p3")
TEXTS = [
    {"pin_id": "p1", "title": "Oak shelf", "boards": ["Living", "Oak"]},
    {"pin_id": "p2", "title": "Étagère 🌿", "boards": []},
    {"pin_id": "p3", "title": None, "boards": ["é"]},
]
COUNTS = [
    {"pin_id": "p1", "clicks": 3, "rate": 0.1},
    {"pin_id": "p2", "clicks": 0, "rate": math.pi},
    {"pin_id": "p3", "clicks": None, "rate": 1e-300},
]
VECTORS = [
    {"pin_id": "p1", "vector": [0.6, 0.8]},
    {"pin_id": "p2", "vector": [1.0, 0.0]},
    {"pin_id": "p3", "vector": [0.0, 1.0]},
]
PAIRS = [{"query": "shelf", "pin_id": "p1", "clicks": 3}, {"query": "plants", "pin_id": "p3", "clicks": None}]
ALL = ("text:title", "text:boards", "counts:clicks", "counts:rate", "vectors:vector")


def views(shop: Shop) -> dict[str, Any]:
    from feast.types import Array, Float32, Float64, Int64, String

    vector = (Array(Float32), {"vector_index": True, "vector_length": 2})
    return {
        "text": shop.view("text", {"title": String, "boards": Array(String)}),
        "counts": shop.view("counts", {"clicks": Int64, "rate": Float64}),
        "vectors": shop.view("vectors", {"vector": vector}),
        "pairs": shop.view("pairs", {"clicks": Int64}, keys=("query", "pin_id")),
    }


@pytest.fixture
def full(shop: Shop) -> Shop:
    """Four views, applied and materialized, with an older row of p1 in one source."""
    shop.apply(*views(shop).values())
    for name, rows in {"text": TEXTS, "counts": COUNTS, "vectors": VECTORS, "pairs": PAIRS}.items():
        shop.sources(name, *rows, {**rows[0], "event_timestamp": NOON - timedelta(days=3)})
    shop.materialize()
    return shop


def everything(shop: Shop) -> dict[str, list]:
    return shop.read(*ALL, pin_id=PINS)


def test_what_was_materialized_is_read_from_one_row_an_entity(full: Shop) -> None:
    read = everything(full)
    assert read["title"] == ["Oak shelf", "Étagère 🌿", None]
    assert read["boards"] == [["Living", "Oak"], [], ["é"]]
    assert read["clicks"] == [3, 0, None]
    assert read["rate"] == [0.1, math.pi, 1e-300]
    assert read["vector"] == [[pytest.approx(x) for x in row["vector"]] for row in VECTORS]
    assert full.collections() == {"shop@pin_id": 6, "shop@pin_id+query": 2, "shop__vectors": 3}

    full.materialize()
    assert everything(full) == read
    assert full.collections() == {"shop@pin_id": 6, "shop@pin_id+query": 2, "shop__vectors": 3}

    # A feature service, and a view under another name.
    from feast import FeatureService

    text = full.feast.get_feature_view("text")
    full.feast.apply(
        [
            FeatureService(
                name="both", features=[text.with_name("words")[["title"]], full.feast.get_feature_view("counts")]
            )
        ]
    )
    served = full.feast.get_online_features(
        full.feast.get_feature_service("both"), [{"pin_id": "p2"}], full_feature_names=True
    ).to_dict()
    assert served == {
        "pin_id": ["p2"],
        "words__title": ["Étagère 🌿"],
        "counts__clicks": [0],
        "counts__rate": [math.pi],
    }


def test_order_duplicates_missing_entities_and_statuses(full: Shop) -> None:
    pins = ("p2", "nobody", "p1", "p2", "p3")
    read = full.read("text:title", "counts:clicks", pin_id=pins)
    assert read["title"] == ["Étagère 🌿", None, "Oak shelf", "Étagère 🌿", None]
    assert read["clicks"] == [0, None, 3, 0, None]
    response = full.ask("text:title", pin_id=pins)
    assert statuses(response, "title") == ["PRESENT", "NOT_FOUND", "PRESENT", "PRESENT", "PRESENT"]  # p3's is null
    times = response.proto.results[list(response.proto.metadata.feature_names.val).index("title")].event_timestamps
    assert [time.seconds for time in times] == [int(NOON.timestamp()), 0, *[int(NOON.timestamp())] * 3]

    pairs = full.ask("pairs:clicks", query=["shelf", "plants", "plants"], pin_id=["p1", "p3", "p1"])
    assert pairs.to_dict()["clicks"] == [3, None, None]
    assert statuses(pairs, "clicks") == ["PRESENT", "PRESENT", "NOT_FOUND"]


def test_online_read_itself(shop: Shop) -> None:
    """The method alone: before any apply, order, duplicates, requested features, keys in any order, no keys."""
    from feast.types import Int64, String

    pairs = shop.view("pairs", {"clicks": Int64, "note": String}, keys=("query", "pin_id"))
    one = entity_key(query="shelf", pin_id="p1")
    shop.write(pairs, (one, {"clicks": proto(3), "note": proto("n")}))  # no apply before
    turned, nobody = entity_key(pin_id="p1", query="shelf"), entity_key(query="p1", pin_id="shelf")
    found = (NOON, {"clicks": proto(3), "note": proto("n")})
    read = shop.store.online_read
    assert read(shop.config, pairs, [nobody, one, turned, one]) == [(None, None), found, found, found]
    assert read(shop.config, pairs, [one], ["note"]) == [(NOON, {"note": proto("n")})]
    assert read(shop.config, pairs, [one], ["nothing"]) == [(NOON, {})]
    assert read(shop.config, pairs, []) == []
    assert read(shop.config, shop.view("unwritten", {"x": Int64}, keys=("query", "pin_id")), [one]) == [(None, None)]


def test_a_view_without_entities(shop: Shop) -> None:
    from feast.types import Int64

    shop.apply(shop.view("totals", {"pins": Int64}, keys=()))
    shop.push("totals", {"pins": 7})
    assert shop.feast.get_online_features(["totals:pins"], [{"any": 1}]).to_dict() == {"pins": [7]}


def test_an_entity_under_another_key(full: Shop) -> None:
    from feast import FeatureService

    text = full.feast.get_feature_view("text")
    origin = text.with_name("origin").with_join_key_map({"pin_id": "origin_id"})
    target = text.with_name("target").with_join_key_map({"pin_id": "target_id"})
    full.feast.apply([FeatureService(name="moves", features=[origin[["title"]], target[["title"]]])])
    rows = [{"origin_id": "p1", "target_id": "p2"}, {"origin_id": "p2", "target_id": "p1"}]
    read = full.feast.get_online_features(full.feast.get_feature_service("moves"), rows, True).to_dict()
    assert read["origin__title"] == ["Oak shelf", "Étagère 🌿"]
    assert read["target__title"] == ["Étagère 🌿", "Oak shelf"]


class TestNewerRowsWin:
    def test_pushes(self, shop: Shop) -> None:
        shop.apply(views(shop)["text"], views(shop)["counts"])
        shop.push("counts", *COUNTS)
        shop.push("text", *TEXTS)
        before = shop.read("counts:clicks", "counts:rate", pin_id=PINS)
        for late, title, then in (
            (-timedelta(hours=1), "older", "Oak shelf"),
            (timedelta(0), "equal", "equal"),
            (timedelta(microseconds=1), "newer", "newer"),
            (timedelta(0), "late again", "newer"),
        ):
            shop.push("text", {"pin_id": "p1", "title": title, "boards": ["x"]}, at=NOON + late)
            assert shop.read("text:title", pin_id=PINS)["title"] == [then, "Étagère 🌿", None]
        assert shop.read("counts:clicks", "counts:rate", pin_id=PINS) == before

    def test_within_a_batch(self, shop: Shop) -> None:
        shop.apply(views(shop)["text"])
        hours, created = (3, 5, 5, 4), (0, 2, 1, 9)
        rows = [
            {
                "pin_id": "p1",
                "title": title,
                "boards": ["x"],
                "event_timestamp": NOON + timedelta(hours=hour),
                "created_timestamp": NOON + timedelta(hours=late),
            }
            for title, hour, late in zip("abcd", hours, created, strict=True)
        ]
        shop.push("text", *rows)
        assert shop.read("text:title", pin_id=["p1"])["title"] == ["b"]

    def test_materializing_does_not_bring_an_older_row_back(self, full: Shop) -> None:
        full.push("text", {"pin_id": "p1", "title": "newer", "boards": ["x"]}, at=NOON + timedelta(hours=2))
        full.materialize()
        assert full.read("text:title", pin_id=PINS)["title"] == ["newer", "Étagère 🌿", None]

    @pytest.mark.parametrize("hours", [0, 2, -7])
    def test_event_and_created_times_of_every_zone(self, shop: Shop, hours: int) -> None:
        from datetime import timezone

        from feast.types import Int64

        view, key = shop.view("counts", {"clicks": Int64}), entity_key(pin_id="p1")
        moment = NOON.astimezone(timezone(timedelta(hours=hours))) + timedelta(microseconds=123456)
        shop.store.online_write_batch(shop.config, view, [(key, {"clicks": proto(1)}, moment, moment)], None)
        (when, _), *_ = shop.store.online_read(shop.config, view, [key])
        assert (when, when.utcoffset()) == (moment, timedelta(0))
        (point,) = shop.points("shop@pin_id")
        assert point.payload["event_ts"] == point.payload["created_ts"] == layout.to_micros(moment)
        naive = (moment + timedelta(seconds=1)).astimezone(NOON.tzinfo).replace(tzinfo=None)  # naive is UTC in Feast
        shop.store.online_write_batch(shop.config, view, [(key, {"clicks": proto(2)}, naive, None)], None)
        assert shop.store.online_read(shop.config, view, [key]) == [
            (moment + timedelta(seconds=1), {"clicks": proto(2)})
        ]


class TestOneRequest:
    """Several views are read together."""

    def test_one_call_a_collection_and_one_state_of_the_store(self, full: Shop, monkeypatch) -> None:
        calls: list[tuple[str, int]] = []
        blocks: list[Any] = []
        with full.session.reading() as store:
            reader = type(store)
        rows, reading = reader.rows, type(full.session).reading

        def counted(self, name, ids, *args, **more):
            calls.append((name, len(ids)))
            return rows(self, name, ids, *args, **more)

        def opened(self):
            blocks.append(self)
            return reading(self)

        monkeypatch.setattr(reader, "rows", counted)
        monkeypatch.setattr(type(full.session), "reading", opened)
        read = full.read(*ALL, "pairs:clicks", pin_id=PINS, query=["shelf", "shelf", "plants"], full_feature_names=True)
        assert read["pairs__clicks"] == [3, None, None]
        assert read["text__title"] == ["Oak shelf", "Étagère 🌿", None]
        assert sorted(calls) == [("shop@pin_id", 6), ("shop@pin_id+query", 3), ("shop__vectors", 3)]
        assert len(blocks) == 1
        calls.clear()
        blocks.clear()
        keys = [{"pin_id": pin} for pin in PINS]
        later = asyncio.run(full.feast.get_online_features_async(list(ALL), keys)).to_dict()
        assert later == everything(full)
        assert sorted(calls) == sorted([("shop@pin_id", 6), ("shop__vectors", 3)] * 2)
        assert len(blocks) == 2

    def test_rows_beyond_the_ttl_say_so_and_keep_their_values(self, shop: Shop) -> None:
        from datetime import UTC, datetime

        from feast.types import Int64

        now = datetime.now(UTC)
        old, new = now - timedelta(hours=3), now - timedelta(minutes=1)
        limits = {"hourly": timedelta(hours=1), "daily": timedelta(days=1), "zero": timedelta(0), "none": None}
        shop.apply(*(shop.view(name, {f"{name}_n": Int64}, ttl=ttl) for name, ttl in limits.items()))
        for name in limits:
            shop.push(name, {"pin_id": "old", f"{name}_n": 1}, at=old)
            shop.push(name, {"pin_id": "new", f"{name}_n": 2}, at=new)
        refs = [f"{name}:{name}_n" for name in limits]
        pins = ["old", "new", "nobody", "old"]
        response = shop.ask(*refs, pin_id=pins)
        assert statuses(response, "hourly_n") == ["OUTSIDE_MAX_AGE", "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
        for name in ("daily", "zero", "none"):
            assert statuses(response, f"{name}_n") == ["PRESENT", "PRESENT", "NOT_FOUND", "PRESENT"]
        assert response.to_dict()["hourly_n"] == [1, 2, None, 1]


class TestAsynchronously:
    def test_writes_and_reads(self, shop: Shop) -> None:
        shop.apply(views(shop)["counts"], views(shop)["text"])

        async def run() -> list[dict]:
            await shop.feast.initialize()
            await shop.feast.push_async("text_push", table(TEXTS, NOON))
            reads = [
                shop.feast.get_online_features_async(["text:title"], [{"pin_id": pin}, {"pin_id": "nobody"}])
                for pin in PINS
            ]
            answers = [answer.to_dict() for answer in await asyncio.gather(*reads)]
            await shop.feast.close()
            return answers

        supported = shop.store.async_supported
        assert (supported.read, supported.write) == (True, True)
        assert [answer["title"] for answer in asyncio.run(run())] == [[row["title"], None] for row in TEXTS]
        assert shop.read("text:title", pin_id=["p1"])["title"] == ["Oak shelf"]  # opened again

    def test_rows_of_one_view(self, shop: Shop) -> None:
        from feast.types import Int64

        view, key = shop.view("counts", {"clicks": Int64}), entity_key(pin_id="p1")

        async def run() -> Any:
            done: list[int] = []
            rows = [(key, {"clicks": proto(4)}, NOON, None)]
            await shop.store.online_write_batch_async(shop.config, view, rows, done.append)
            return done, await shop.store.online_read_async(shop.config, view, [key, entity_key(pin_id="p2")])

        assert asyncio.run(run()) == ([1], [(NOON, {"clicks": proto(4)}), (None, None)])


class TestBesidePlainViews:
    def test_push_modes(self, shop: Shop) -> None:
        from feast.data_source import PushMode

        shop.apply(views(shop)["counts"])
        shop.sources("counts", {"pin_id": "p1", "clicks": 1, "rate": 0.5})
        late = NOON + timedelta(hours=1)
        row = {"pin_id": "p2", "clicks": 2, "rate": 0.25, "event_timestamp": late, "created_timestamp": late}
        shop.feast.push("counts_push", pd.DataFrame([row]), to=PushMode.OFFLINE)
        assert shop.read("counts:clicks", pin_id=["p2"])["clicks"] == [None]
        shop.feast.push("counts_push", pd.DataFrame([row]), to=PushMode.ONLINE_AND_OFFLINE)
        assert shop.read("counts:clicks", pin_id=["p2"])["clicks"] == [2]
        shop.materialize("counts")
        assert shop.read("counts:clicks", "counts:rate", pin_id=["p1", "p2"])["clicks"] == [1, 2]

    def test_on_demand_views_on_top_and_written(self, shop: Shop) -> None:
        from feast import Field
        from feast.on_demand_feature_view import on_demand_feature_view
        from feast.types import Float64, Int64

        counts = views(shop)["counts"]

        @on_demand_feature_view(sources=[counts], schema=[Field(name="doubled", dtype=Int64)], mode="python")
        def twice(inputs: dict[str, Any]) -> dict[str, Any]:
            return {"doubled": [None if n is None else 2 * n for n in inputs["clicks"]]}

        shop.apply(counts, twice)
        shop.push("counts", *COUNTS)
        read = shop.read("twice:doubled", "counts:rate", pin_id=("p3", "p1", "nobody"))
        assert read["doubled"] == [None, 6, None]
        assert read["rate"] == [1e-300, 0.1, None]

        from feast_shop import entity

        @on_demand_feature_view(
            sources=[counts],
            entities=[entity("pin_id")],
            schema=[Field(name="pin_id", dtype=counts.entity_columns[0].dtype), Field(name="half", dtype=Float64)],
            mode="python",
            write_to_online_store=True,
        )
        def halved(inputs: dict[str, Any]) -> dict[str, Any]:
            return {"half": [n / 2 for n in inputs["clicks"]]}

        shop.apply(counts, halved)
        frame = pd.DataFrame([{"pin_id": "p1", "clicks": 3, "rate": 0.1, "event_timestamp": NOON}])
        shop.feast.write_to_online_store("halved", df=frame)
        assert shop.read("halved:half", pin_id=["p1", "p2"])["half"] == [1.5, None]
        assert shop.read("counts:clicks", pin_id=["p1"])["clicks"] == [3]

    def test_precomputed_vectors(self, shop: Shop) -> None:
        """Feast's own views of precomputed vectors have no source and no entities."""
        keys = [entity_key(pin_id=pin) for pin in PINS]
        read = shop.store.read_precomputed_vectors
        assert read(shop.config, "both", "shop", keys) == [None, None, None]
        for key, blob in zip(keys[:2], (b"\0one", b"two"), strict=True):
            shop.store.write_precomputed_vector(shop.config, "both", "shop", key, blob)
        shop.store.write_precomputed_vector(shop.config, "other", "shop", keys[0], b"another service's")
        assert read(shop.config, "both", "shop", keys) == [b"\0one", b"two", None]
        shop.apply(views(shop)["counts"])
        shop.push("counts", *COUNTS)
        shop.store.teardown(shop.config, [], [])
        assert read(shop.config, "both", "shop", keys) == [b"\0one", b"two", None]
        shop.feast.teardown()
        assert shop.collections() == {}


class TestRefused:
    def test_a_view_that_is_not_online(self, shop: Shop) -> None:
        from feast.types import Int64

        shop.apply(shop.view("offline", {"clicks": Int64}, online=False), views(shop)["counts"])
        assert list(shop.collections()) == ["shop@pin_id"]
        view = shop.feast.get_feature_view("offline")
        for call in (
            lambda: shop.read("offline:clicks", pin_id=["p1"]),
            lambda: shop.push("offline", {"pin_id": "p1", "clicks": 1}),
            lambda: shop.store.online_read(shop.config, view, [entity_key(pin_id="p1")]),
        ):
            with pytest.raises(StoreError, match=r"feature view offline has online=False.*Set online=True"):
                call()

    def test_a_key_without_a_value(self, shop: Shop) -> None:
        from feast.protos.feast.types.Value_pb2 import Value

        view = views(shop)["counts"]
        for nothing in (None, Value(null_val=0)):
            with pytest.raises(BadInputError, match="'pin_id' has no value"):
                shop.write(view, (entity_key(pin_id=nothing), {"clicks": proto(1)}))

    def test_a_batch_with_one_bad_row_writes_nothing(self, shop: Shop) -> None:
        from feast_shop import pinned

        docs = shop.view("docs", pinned())
        shop.store.update(shop.config, [], [docs], [], [], True)
        good = (entity_key(pin_id="good"), {"vector": proto([1.0, 0.0])})
        for bad, words in (([1.0, 2.0, 3.0], r"shape \(3,\)"), ([math.nan, 0.0], "NaN")):
            with pytest.raises(BadInputError, match=words):
                shop.write(docs, good, (entity_key(pin_id="bad"), {"vector": proto(bad)}))
        assert shop.collections() == {"shop__docs": 0}
