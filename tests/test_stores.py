"""The layout of rows, and what corrupt or foreign folders of embedded collections do."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import ROWS, fill, pin

from materialize.stores import layout
from materialize.stores.edge import EdgeStore
from materialize.stores.errors import BadInputError, StoreBusyError, StoreCorruptError, StoreError
from materialize.stores.port import Point

ROOT = Path(__file__).resolve().parents[1]


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
    store.create("packed", layout.entity_spec())
    yield store
    store.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(entities, st.lists(typed_values, max_size=4), int64.map(lambda n: n // 4096))
def test_rows_round_trip_through_the_engine(
    rows: EdgeStore, entity: dict, typed: list[tuple[str, object]], micros: int
) -> None:
    features = {f"feature.{n}": layout.encode_value(value, name) for n, (name, value) in enumerate(typed)}
    payload = layout.row_payload("pin_text", entity, micros, features, created_ts=micros + 1)
    identity = layout.point_id("shop", "pin_text", entity)
    for collection in ("rows", "packed"):
        rows.upsert(collection, [Point(identity, payload)])
        points = rows.get_many(collection, [identity])
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
    payload = {"f": {f"x{n}": layout.encode_value(value, "float64") for n, value in enumerate(values)}}
    rows.upsert("rows", [Point(pin(0), payload)])
    found = rows.get_many("rows", [pin(0)])
    assert [layout.decode_feature(found, f"x{n}", "float64") for n in range(6000)] == [[value] for value in values]
    alike = sum(type(stored) is float for stored in payload["f"].values())
    assert alike > 2000  # most usual numbers stay plain, for filters


@pytest.mark.parametrize(("kind", "tag"), [("float32_list", "$f32"), ("float64_list", "$f64")])
def test_long_lists_of_floats_are_bytes(rows: EdgeStore, kind: str, tag: str) -> None:
    dtype = np.float32 if kind == "float32_list" else np.float64
    numbers = np.random.default_rng(0).normal(size=384).astype(dtype)
    odd = [*numbers.tolist()[:30], math.nan, -math.inf, -0.0, 5e-324, 1e39, 7]
    for given_as in (numbers, numbers.tolist(), tuple(numbers.tolist()), list(numbers), odd):
        with np.errstate(over="ignore"):
            expected = np.asarray(given_as, dtype=np.float64).astype(dtype)
        stored = layout.encode_value(given_as, kind)
        rows.upsert("rows", [Point(pin(0), {"f": {"v": stored}})])
        (read,) = layout.decode_feature(rows.get_many("rows", [pin(0)]), "v", kind)
        assert repr(read) == repr(expected.tolist())
        assert layout.decode_numbers(stored, kind).tobytes() == expected.tobytes()
    assert list(layout.encode_value(numbers, kind)) == [tag]
    assert layout.encode_value(numbers[:32], kind) == layout.encode_value(numbers[:32].tolist(), kind)
    assert len(layout.encode_value(numbers[:32], kind)) == 32  # short ones stay numbers, which filters may look at
    assert layout.decode_numbers([0.5, 1], kind).tolist() == [0.5, 1.0]
    for wrong in ([True] * 40, [None] * 40, ["1"] * 40, [10**400] * 40):
        with pytest.raises(BadInputError, match=r"is no float"):
            layout.encode_value(wrong, kind)


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
    assert layout.entity_spec().packed == layout.PACKED
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


@given(st.lists(st.none() | float32, max_size=6), st.sampled_from(["float32", "float64"]))
def test_features_of_many_rows_are_decoded_as_each_alone(values: list[float | None], kind: str) -> None:
    stored = [layout.encode_value(value, kind) for value in values]
    points = [None, *(Point("", {"f": {"x": value}}) for value in stored), Point("", {"f": {"x": 3}})]
    expected = [None, *(layout.decode_value(value, kind) for value in stored), 3.0]
    assert same(layout.decode_feature(points, "x", kind), expected)


def test_extras_stay_out_of_the_way() -> None:
    payload = layout.row_payload("v", {"k": 1}, 5, {}, extras={"lang": "en", "none": None})
    assert payload["lang"] == "en"
    assert "none" not in payload
    with pytest.raises(BadInputError, match="may not be called 'event_ts'"):
        layout.row_payload("v", {"k": 1}, 5, {}, extras={"event_ts": 1})
