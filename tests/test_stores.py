"""The store port: one contract for every adapter, the layout of rows, and what corrupt or foreign folders do."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from materialize.stores import layout
from materialize.stores.edge import EdgeStore
from materialize.stores.errors import (
    BadInputError,
    CollectionMissingError,
    SpecMismatchError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
)
from materialize.stores.port import And, CollectionSpec, Match, Not, Or, Point, Range, VectorSpec, VectorStore

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS: dict[str, Callable[[Path], VectorStore]] = {"edge": EdgeStore}
PINS = CollectionSpec({"vector": VectorSpec(4)})
ROWS = CollectionSpec()


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    opened = ADAPTERS[request.param](tmp_path / "store")
    yield opened
    opened.close()


def pin(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pin/{number}"))


def unit(*numbers: float) -> np.ndarray:
    vector = np.asarray(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def fill(store: VectorStore, count: int = 10) -> None:
    """Pins whose vector turns away from (1, 0, 0, 0) as the number grows; odd ones are French."""
    store.create("pins", PINS)
    store.upsert(
        "pins",
        [
            Point(
                pin(n), {"n": n, "even": n % 2 == 0, "f": {"lang": ["en", "fr"][n % 2]}}, {"vector": unit(10, n, 0, 0)}
            )
            for n in range(count)
        ],
    )


class TestContract:
    def test_is_a_vector_store(self, store: VectorStore) -> None:
        assert isinstance(store, VectorStore)

    def test_create_may_be_repeated_but_not_changed(self, store: VectorStore) -> None:
        fill(store)
        store.create("pins", PINS)
        assert store.count("pins") == 10
        with pytest.raises(SpecMismatchError, match=r"vector \(4 dimensions, dot\), not with .*5 dimensions"):
            store.create("pins", CollectionSpec({"vector": VectorSpec(5)}))
        with pytest.raises(SpecMismatchError, match="not with no vectors"):
            store.create("pins", ROWS)
        assert store.collections() == {"pins": PINS}

    def test_dropped_collection_is_gone_and_may_come_back_with_another_spec(self, store: VectorStore) -> None:
        fill(store)
        store.drop("pins")
        store.drop("pins")
        assert store.collections() == {}
        store.create("pins", ROWS)
        assert store.count("pins") == 0

    @pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 201, "a b", "publication.json", None])
    def test_odd_names_are_refused(self, store: VectorStore, name: str) -> None:
        with pytest.raises(BadInputError, match="cannot name a collection"):
            store.create(name, ROWS)

    def test_unknown_collection_names_the_known_ones(self, store: VectorStore) -> None:
        fill(store)
        for call in (store.count, lambda n: store.get_many(n, [pin(1)]), lambda n: store.upsert(n, [])):
            with pytest.raises(CollectionMissingError, match="no collection 'pin'; there are: pins"):
                call("pin")

    def test_get_many_keeps_order_duplicates_and_gaps(self, store: VectorStore) -> None:
        fill(store)
        ids = [pin(3), pin(99), pin(0), pin(3), pin(1).upper()]
        found = store.get_many("pins", ids, with_vectors=True)
        assert [p and p.payload["n"] for p in found] == [3, None, 0, 3, 1]
        assert found[0] is not None
        assert found[0].id == pin(3)
        assert found[0].vectors["vector"].dtype == np.float32
        assert store.get_many("pins", []) == []

    def test_vectors_keep_their_bits(self, store: VectorStore) -> None:
        fill(store, 600)
        found = store.get_many("pins", [pin(n) for n in range(600)], with_vectors=True)
        expected = np.stack([unit(10, n, 0, 0) for n in range(600)])
        assert np.array_equal(layout.stack_vectors(found, 4), expected)

    def test_only_what_is_asked_for_comes_back(self, store: VectorStore) -> None:
        fill(store)
        bare = store.get_many("pins", [pin(1)], with_payload=False)[0]
        part = store.get_many("pins", [pin(1)], with_payload=["f.lang"])[0]
        assert bare == Point(pin(1))
        assert part == Point(pin(1), {"f": {"lang": "fr"}})

    def test_upsert_replaces_the_whole_point(self, store: VectorStore) -> None:
        fill(store)
        store.upsert("pins", [Point(pin(1), {"title": "new"}, {"vector": unit(0, 0, 0, 1)})])
        point = store.get_many("pins", [pin(1)], with_vectors=True)[0]
        assert point is not None
        assert point.payload == {"title": "new"}
        assert point.vectors["vector"].tolist() == [0, 0, 0, 1]
        assert store.count("pins") == 10

    def test_points_may_lack_their_vector(self, store: VectorStore) -> None:
        fill(store, 2)
        store.upsert("pins", [Point(pin(7), {"n": 7})])
        point = store.get_many("pins", [pin(7)], with_vectors=True)[0]
        assert point == Point(pin(7), {"n": 7})
        assert [h.payload["n"] for h in store.search("pins", unit(1, 0, 0, 0), 5)] == [0, 1]

    def test_search_is_nearest_first_and_filtered(self, store: VectorStore) -> None:
        fill(store)
        query = [1.0, 0, 0, 0]

        def numbers(**options: object) -> list[int]:
            return [h.payload["n"] for h in store.search("pins", query, 3, **options)]  # type: ignore[arg-type]

        assert numbers() == numbers(exact=True) == [0, 1, 2]
        assert numbers(filter=Match("f.lang", "fr")) == [1, 3, 5]
        assert numbers(filter=Match("even", True)) == [0, 2, 4]
        assert numbers(filter=Match("n", any_of=[9, 7])) == [7, 9]
        assert numbers(filter=Match("n", any_of=[])) == []
        assert numbers(filter=Match("even", any_of=[False])) == [1, 3, 5]
        assert numbers(filter=Match("n", any_of=[1, 2.0, "x", True])) == [1, 2]
        assert numbers(filter=Match("n", 4.0)) == [4]
        assert numbers(filter=Range("n", gt=3, lte=5)) == [4, 5]
        assert numbers(filter=And((Match("f.lang", "fr"), Range("n", gte=4)))) == [5, 7, 9]
        assert numbers(filter=Or((Match("n", 8), Match("n", 2)))) == [2, 8]
        assert numbers(filter=Not(Range("n", lt=6))) == [6, 7, 8]
        assert numbers(filter=Or(())) == []
        assert numbers(filter=And(())) == [0, 1, 2]

    def test_search_gives_score_payload_and_vectors(self, store: VectorStore) -> None:
        fill(store)
        hit = store.search("pins", unit(10, 4, 0, 0), 1, with_vectors=True)[0]
        assert hit.id == pin(4)
        assert hit.score == pytest.approx(1.0, abs=1e-6)
        assert np.array_equal(hit.vectors["vector"], unit(10, 4, 0, 0))
        assert store.search("pins", unit(10, 4, 0, 0), 1, with_payload=False)[0].payload == {}

    def test_delete_by_id_or_filter(self, store: VectorStore) -> None:
        fill(store)
        store.delete("pins", ids=[pin(0), pin(99)])
        store.delete("pins", filter=Match("f.lang", "fr"))
        store.delete("pins", ids=[])
        assert sorted(p.payload["n"] for p in store.scroll("pins")[0]) == [2, 4, 6, 8]
        with pytest.raises(BadInputError, match="either ids or a filter"):
            store.delete("pins")

    def test_count_with_and_without_filter(self, store: VectorStore) -> None:
        fill(store)
        assert (store.count("pins"), store.count("pins", Match("f.lang", "fr"))) == (10, 5)

    def test_scroll_visits_every_point_once_in_id_order(self, store: VectorStore) -> None:
        fill(store)
        seen, after = [], None
        for expected in (4, 4, 2):
            page, after = store.scroll("pins", limit=4, after=after)
            assert len(page) == expected
            seen += [p.id for p in page]
        assert after is None
        assert seen == sorted(pin(n) for n in range(10))
        filtered, following = store.scroll("pins", filter=Match("f.lang", "fr"), with_vectors=True)
        assert len(filtered) == 5
        assert following is None
        assert all(p.vectors["vector"].shape == (4,) for p in filtered)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (Point("pin-1", {}, {"vector": unit(1, 0, 0, 0)}), "is a UUID as text, not 'pin-1'"),
            (Point(pin(5), {}, {"vector": unit(1, 0, 0)}), r"shape \(3,\), the collection wants \(4,\)"),
            (Point(pin(5), {}, {"vector": np.float32([1, 0, math.nan, 0])}), "NaN or infinity"),
            (Point(pin(5), {}, {"vector": np.float32([1, 0, math.inf, 0])}), "NaN or infinity"),
            (Point(pin(5), {}, {"vector": [1e300, 0, 0, 0]}), "NaN or infinity"),  # type: ignore[dict-item]
            (Point(pin(5), {}, {"vector": ["a", 0, 0, 0]}), "not a list of numbers"),  # type: ignore[dict-item]
            (Point(pin(5), {}, {"text": unit(1, 0, 0, 0)}), "a vector 'text'; the collection has: vector"),
            (Point(pin(5), {"f": {"x": math.nan}}), "holds the number nan"),
            (Point(pin(5), {"f": [b"raw"]}), "holds a value of type bytes"),
            (Point(pin(5), {"f": {1: "x"}}), "holds the key 1"),
            (Point(pin(5), {"f": "\ud800"}), "lone surrogate"),
            (Point(pin(5), {"f": 1 << 64}), "beyond 64 bits"),
            (Point(pin(5), [1]), "payload of point .* is a dict, not list"),  # type: ignore[arg-type]
        ],
    )
    def test_one_bad_point_and_nothing_is_written(self, store: VectorStore, bad: Point, message: str) -> None:
        fill(store, 2)
        with pytest.raises(BadInputError, match=message):
            store.upsert("pins", [Point(pin(4), {}, {"vector": unit(1, 0, 0, 0)}), bad])
        assert store.count("pins") == 2

    def test_large_finite_vectors_are_allowed(self, store: VectorStore) -> None:
        fill(store, 1)
        store.upsert("pins", [Point(pin(1), {}, {"vector": np.float32([3e38, 3e38, 0, 0])})])
        assert store.count("pins") == 2

    @pytest.mark.parametrize(
        ("vector", "using", "limit", "message"),
        [
            ([1, 0, 0], "vector", 3, r"of the query has shape \(3,\)"),
            ([1, 0, 0, math.nan], "vector", 3, "NaN or infinity"),
            ([1, 0, 0, 0], "text", 3, "no vector 'text' to search by; it has: vector"),
            ([1, 0, 0, 0], "vector", 0, "limit is at least 1, not 0"),
        ],
    )
    def test_bad_queries(self, store: VectorStore, vector: list[float], using: str, limit: int, message: str) -> None:
        fill(store, 2)
        with pytest.raises(BadInputError, match=message):
            store.search("pins", vector, limit, using=using)

    def test_payload_only_collections_have_nothing_to_search(self, store: VectorStore) -> None:
        store.create("rows", ROWS)
        store.upsert("rows", [Point(pin(1), {"f": {"title": "Oak"}})])
        assert store.get_many("rows", [pin(1)], with_vectors=True) == [Point(pin(1), {"f": {"title": "Oak"}})]
        assert store.collections() == {"rows": ROWS}
        with pytest.raises(BadInputError, match="it has: none"):
            store.search("rows", [1.0], 1)

    def test_payload_json_keeps_its_types(self, store: VectorStore) -> None:
        payload = {
            "i": [2**63 - 1, -(2**63), 0],
            "x": [0.1, -0.0, 5e-324, 1e308, 1.0],
            "t": ["", "a\0b", "שלום 😀", "e\u0301"],
            "o": {"a.b": None, "": {}, "l": [], "yes": True},
        }
        store.create("rows", ROWS)
        store.upsert("rows", [Point(pin(1), payload)])
        found = store.get_many("rows", [pin(1)])[0]
        assert found is not None
        assert json.dumps(found.payload, sort_keys=True) == json.dumps(payload, sort_keys=True)
        assert store.count("rows", Match(layout.feature_path("a.b").replace("f.", "o."), "x")) == 0

    def test_distances(self, store: VectorStore) -> None:
        for distance, expected in (("dot", 6.0), ("cosine", 1.0), ("euclid", 1.0), ("manhattan", 1.0)):
            store.create(distance, CollectionSpec({"vector": VectorSpec(1, distance)}))  # type: ignore[arg-type]
            store.upsert(distance, [Point(pin(1), {}, {"vector": np.float32([2])})])
            assert store.search(distance, [3.0], 1)[0].score == pytest.approx(expected), distance
        with pytest.raises(BadInputError, match="not 'angle'"):
            VectorSpec(3, "angle")  # type: ignore[arg-type]
        with pytest.raises(BadInputError, match="not 0"):
            VectorSpec(0)

    def test_closing_twice_and_reopening(self, store: VectorStore, tmp_path: Path) -> None:
        fill(store)
        store.flush()
        store.close()
        store.close()
        with pytest.raises(StoreError, match="was closed"):
            store.count("pins")
        again = type(store)(tmp_path / "store")  # type: ignore[call-arg]
        assert again.count("pins") == 10
        again.close()


class TestEdgeFolders:
    def filled(self, path: Path) -> Path:
        store = EdgeStore(path)
        fill(store)
        store.close()
        return path / "pins"

    @pytest.mark.parametrize("pattern", ["edge_config.json", "segments/*/segment.json", "segments/*/**/status.dat"])
    @pytest.mark.parametrize("content", [b"", b"\x93garbage\xff"])
    def test_damaged_files_are_named(self, tmp_path: Path, pattern: str, content: bytes) -> None:
        folder = self.filled(tmp_path)
        for file in folder.glob(pattern):
            file.write_bytes(content)
        store = EdgeStore(tmp_path)
        with pytest.raises(StoreCorruptError, match=r"Move the folder away and write the collection again") as caught:
            store.count("pins")
        assert str(folder) in str(caught.value)

    def test_a_panic_of_the_engine_is_a_store_error(self, tmp_path: Path) -> None:
        folder = self.filled(tmp_path)
        for file in folder.glob("segments/*/**/status.dat"):
            file.write_bytes(b"")
        with pytest.raises(StoreCorruptError, match="pins") as caught:
            EdgeStore(tmp_path).get_many("pins", [pin(1)])
        assert not isinstance(
            caught.value.__cause__, Exception
        )  # only a BaseException, which "except Exception" misses

    def test_emptied_folder(self, tmp_path: Path) -> None:
        folder = self.filled(tmp_path)
        shutil.rmtree(folder)
        folder.mkdir()
        with pytest.raises(StoreCorruptError, match="missing or damaged"):
            EdgeStore(tmp_path).collections()

    def test_folder_in_use_by_another_process(self, tmp_path: Path) -> None:
        self.filled(tmp_path)
        script = (
            "import sys; from materialize.stores.edge import EdgeStore\n"
            "s = EdgeStore(sys.argv[1]); s.count('pins'); print('open', flush=True); sys.stdin.readline()"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"open\n"
            store = EdgeStore(tmp_path)
            with pytest.raises(StoreBusyError, match="in use by another process"):
                store.count("pins")
            child.communicate(b"\n")
        assert store.count("pins") == 10
        store.close()

    def test_a_file_where_the_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "online").write_text("no folder")
        with pytest.raises(StoreError, match="cannot be made"):
            EdgeStore(tmp_path / "online")

    def test_stores_import_neither_torch_nor_feast_nor_other_rooms(self) -> None:
        script = (
            "import sys, materialize.stores.session, materialize.stores.feast_rows\n"
            "rooms = {'torch', 'feast', 'feature_repo', 'embedders', 'serving_client', 'pinfeather'}\n"
            "assert not rooms & set(sys.modules), rooms & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# --- layout --------------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]))
int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
float32 = st.floats(width=32)
seconds = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0, fold=0)
)
VALUES: dict[str, st.SearchStrategy] = {
    "string": text,
    "bytes": st.binary(),
    "bool": st.booleans(),
    "int32": int32,
    "int64": int64,
    "float32": float32,
    "float64": st.floats(),
    "unix_timestamp": seconds,
}
typed_values = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.one_of(
        st.tuples(st.just(name), st.none() | VALUES[name]),
        st.tuples(st.just(f"{name}_list"), st.none() | st.lists(VALUES[name], max_size=5)),
    )
)
entities = st.dictionaries(
    st.text("abc_", min_size=1, max_size=3),
    st.one_of(text, int64, st.binary(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)),
    min_size=1,
    max_size=3,
)


def same(left: object, right: object) -> bool:
    """Equal in value and type, NaN and the sign of zero included."""
    return repr(left) == repr(right)


@given(typed_values)
def test_values_round_trip_through_json(typed: tuple[str, object]) -> None:
    name, value = typed
    stored = json.loads(json.dumps(layout.encode_value(value, name), allow_nan=False))
    assert same(layout.decode_value(stored, name), value)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeStore]:
    store = EdgeStore(tmp_path_factory.mktemp("rows"))
    store.create("rows", ROWS)
    yield store
    store.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(entities, st.lists(typed_values, max_size=4), int64.map(lambda n: n // 4096))
def test_rows_round_trip_through_the_engine(
    rows: EdgeStore, entity: dict, typed: list[tuple[str, object]], micros: int
) -> None:
    features = {f"feature.{n}": layout.encode_value(value, name) for n, (name, value) in enumerate(typed)}
    payload = layout.row_payload("shop", "pin_text", entity, micros, features, created_ts=micros + 1)
    identity = layout.point_id("shop", "pin_text", entity)
    rows.upsert("rows", [Point(identity, payload)])
    points = rows.get_many("rows", [identity])
    assert points[0] is not None
    assert {**points[0].payload, "f": None} == {**payload, "f": None, "key": points[0].payload["key"]}
    assert same(layout.decode_key(points[0].payload["key"]), dict(sorted(entity.items())))
    for n, (name, value) in enumerate(typed):
        assert same(layout.decode_feature(points, f"feature.{n}", name), [value])


def test_float64_keep_their_last_bit_in_the_engine(rows: EdgeStore) -> None:
    """The engine's JSON parser alone is an ulp off for about one in ten of these."""
    random = np.random.default_rng(0)
    values = (random.normal(size=2000) * 10.0 ** random.integers(-300, 300, 2000)).tolist()
    values += random.uniform(0, 1, 2000).tolist() + random.normal(0, 1e6, 2000).tolist()
    payload = {"f": {"x": layout.encode_value(values, "float64_list")}}
    rows.upsert("rows", [Point(pin(0), payload)])
    assert layout.decode_feature(rows.get_many("rows", [pin(0)]), "x", "float64_list") == [values]
    alike = sum(type(stored) is float for stored in payload["f"]["x"])
    assert alike > 2000  # most usual numbers stay plain, for filters


@given(entities, entities)
def test_point_ids_differ_exactly_where_entities_do(left: dict, right: dict) -> None:
    def key(entity: dict) -> list:
        return sorted((name, type(value).__name__, value) for name, value in entity.items())

    same_id = layout.point_id("p", "v", left) == layout.point_id("p", "v", right)
    assert same_id == (key(left) == key(right))
    assert layout.point_id("p", "v", left) == layout.point_id("p", "v", dict(reversed(left.items())))
    assert len({layout.point_id(p, v, left) for p in "ab" for v in "ab"}) == 4


def test_point_ids_never_change() -> None:
    assert layout.point_id("shop", "pin_text", {"pin_id": "p1"}) == "3644b998-c73c-5c0e-affc-e96617bf0c43"
    assert (
        layout.point_ids("shop", "v", "n", [np.int64(7)])
        == [layout.point_id("shop", "v", {"n": 7})]
        == ["3ceca96e-d267-509f-981f-0e7ef20a611f"]
    )
    for odd in ("", 'quote"', "\ud800", "é😀", 'a","s","b'):
        (one,) = layout.point_ids("shop", "v", 'k"', [odd])
        text = json.dumps(["shop", "v", [['k"', "s", odd]]], separators=(",", ":"))
        assert one == layout.point_id("shop", "v", {'k"': odd}) == str(uuid.uuid5(layout.NAMESPACE, text))
    assert layout.point_id("a", "v", {"k": "1"}) != layout.point_id("a", "v", {"k": 1})
    with pytest.raises(BadInputError, match="join key 'k' has the value None"):
        layout.point_id("a", "v", {"k": None})  # type: ignore[dict-item]


@given(st.lists(text, min_size=1, max_size=3), text, text)
def test_collection_names_are_allowed_and_do_not_collide(join_keys: list[str], project: str, view: str) -> None:
    store_names = {layout.entity_collection(project, join_keys), layout.view_collection(project, view)}
    assert len(store_names) == 2
    for name in store_names:
        assert len(name) <= 200
        assert not set(name) & set("/\\ \0")


def test_collection_names() -> None:
    assert layout.entity_collection("shop", ["query", "pin_id"]) == "shop@pin_id+query"
    assert layout.view_collection("shop", "pin_search") == "shop__pin_search"
    assert layout.view_collection("shop", "pin_search", {"pin_search": "search-a1b2"}) == "search-a1b2"
    assert layout.view_collection("shop", "other", {"pin_search": "search-a1b2"}) == "shop__other"


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("String", "string"),
        ("Array(Int64)", "int64_list"),
        ("list<string>", "string_list"),
        ("DOUBLE", "float64"),
        ("FLOAT_LIST", "float32_list"),
        ("UnixTimestamp", "unix_timestamp"),
        ("binary", "bytes"),
        ("TimeUuid", "time_uuid"),
    ],
)
def test_types_by_any_usual_name(spelling: str, expected: str) -> None:
    assert layout.canonical_type(spelling) == expected
    assert layout.canonical_type(spelling) == expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "string"),
        ("1", "int64"),
        (True, "int64"),
        (1, "bool"),
        (2**31, "int32"),
        (2**63, "int64"),
        (1.5, "int64"),
        ("x", "bytes"),
        (True, "float64"),
        (10**400, "float64"),
        ("ab", "string_list"),
        ([1, None], "int64_list"),
        (None, "varchar"),
    ],
)
def test_values_of_another_type_are_refused(value: object, name: str) -> None:
    with pytest.raises(BadInputError):
        layout.encode_value(value, name)


def test_values_as_tables_give_them() -> None:
    assert layout.encode_value(np.float32(0.1), "float32") == layout.encode_value(0.1, "float32") == 0.10000000149011612
    assert layout.encode_value(np.array([1, 2]), "int64_list") == [1, 2]
    assert layout.encode_value(3, "float64") == 3.0
    assert layout.encode_value(1e39, "float32") == {"$float": "inf"}
    moment = datetime(2026, 11, 21, 8, 30, 0, 999999, tzinfo=UTC)
    assert layout.decode_value(layout.encode_value(moment, "unix_timestamp"), "unix_timestamp") == moment.replace(
        microsecond=0
    )
    assert layout.encode_value(datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=UTC), "unix_timestamp") == 0


@given(st.datetimes(timezones=st.timezones() | st.none()))
def test_times_are_exact_to_the_microsecond(moment: datetime) -> None:
    expected = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    try:
        stored = layout.from_micros(layout.to_micros(moment))
    except OverflowError:  # a zone takes the moment out of Python's years
        return
    assert stored - expected == timedelta(0)


def test_decode_feature_of_missing_rows_and_features() -> None:
    points = [None, Point("a", {"f": {}}), Point("b", {}), Point("c", {"f": {"t": "AAE=", "x": {"$float": "nan"}}})]
    assert layout.decode_feature(points, "t", "bytes") == [None, None, None, b"\0\1"]
    assert math.isnan(layout.decode_feature(points, "x", "float32")[3])
    assert np.isnan(layout.stack_vectors([None, Point("a")], 3)).all()


def test_extras_stay_out_of_the_way() -> None:
    payload = layout.row_payload("p", "v", {"k": 1}, 5, {}, extras={"lang": "en", "none": None})
    assert payload["lang"] == "en"
    assert "none" not in payload
    with pytest.raises(BadInputError, match="may not be called 'event_ts'"):
        layout.row_payload("p", "v", {"k": 1}, 5, {}, extras={"event_ts": 1})
