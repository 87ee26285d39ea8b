"""What the embedded adapter makes of payloads: packed keys, parts of payloads, indexes, and its file beside Edge's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as engine
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import fill, pin, unit

from materialize.stores.edge import EdgeStore
from materialize.stores.edge_collection import EdgeCollection
from materialize.stores.edge_files import SIDE_FILE
from materialize.stores.errors import BadInputError, StoreCorruptError
from materialize.stores.payload import PACKED_KEY, Packing, parse_path, path_of, select, selection
from materialize.stores.port import CollectionSpec, Match, Point, Range, SparseVector, VectorSpec
from materialize.stores.publication import open_reader, open_writer

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
# Floats that the engine's own JSON keeps: what is packed keeps all of them, see test_packed_floats_keep_every_bit.
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.integers(-999, 999).map(float) | text
keys = st.sampled_from(["a", "b", "c d", "é", "x.y", "", PACKED_KEY]) | text.filter(
    lambda key: not {'"', "\\"} & {*key}
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
payloads = st.dictionaries(keys, values, max_size=5)
steps = st.lists(keys.map(path_of) | keys.map(lambda key: f"{path_of(key)}[]"), min_size=1, max_size=3)
paths = st.lists(steps.map(".".join) | keys.map(lambda key: f"{path_of(key)}[0]"), max_size=4)


def same(left: object, right: object) -> bool:
    """Equal in value and type; the order of keys does not count."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeStore]:
    """The collection "plain", and "packed" with half of the keys above packed."""
    opened = EdgeStore(tmp_path_factory.mktemp("payloads"))
    opened.create("plain", CollectionSpec({"vector": VectorSpec(2)}))
    opened.create("packed", CollectionSpec({"vector": VectorSpec(2)}, packed=("a", "c d", "x.y", "")))
    yield opened
    opened.close()


@settings(deadline=None)
@given(payloads, paths)
def test_packed_payloads_read_as_if_they_were_not(store: EdgeStore, payload: dict, wanted: list[str]) -> None:
    point = Point(pin(1), payload, {"vector": unit(1, 0)})
    for name in ("plain", "packed"):
        store.upsert(name, [point])
    for fields in (True, False, wanted):
        (plain,), (packed,) = (store.get_many(name, [pin(1)], fields) for name in ("plain", "packed"))
        assert plain is not None
        assert packed is not None
        assert same(packed.payload, plain.payload)
        assert same(store.scroll("packed", with_payload=fields)[0][0].payload, plain.payload)
        assert same(store.search("packed", [1, 0], 1, with_payload=fields)[0].payload, plain.payload)
    assert same(select(payload, selection(wanted)), store.get_many("plain", [pin(1)], wanted)[0].payload)  # type: ignore[union-attr]


def test_packed_keys_are_one_text_in_the_engine(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path)
    store.create("rows", CollectionSpec(packed=("key", "f")))
    store.upsert("rows", [Point(pin(1), {"view": "v", "key": {"k": 1}, "f": {"t": "é"}}), Point(pin(2), {"view": "w"})])
    store.close()
    shard = engine.EdgeShard.load(str(tmp_path / "rows"))
    stored = {str(record.id): record.payload for record in shard.retrieve([pin(1), pin(2)], True, False)}
    shard.close()
    assert stored == {pin(1): {"view": "v", PACKED_KEY: '{"key":{"k":1},"f":{"t":"é"}}'}, pin(2): {"view": "w"}}


def test_packed_floats_keep_every_bit(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path)
    store.create("rows", CollectionSpec(packed=("f",)))
    random = np.random.default_rng(0)
    numbers = (random.normal(size=2000) * 10.0 ** random.integers(-300, 300, 2000)).tolist()
    store.upsert("rows", [Point(pin(1), {"f": numbers})])
    (found,) = store.get_many("rows", [pin(1)])
    assert found is not None
    assert found.payload["f"] == numbers
    store.close()


@given(payloads, st.lists(keys, max_size=4))
def test_packing_changes_nothing_that_it_is_given(payload: dict, packed: list[str]) -> None:
    before = json.dumps(payload)
    packing = Packing(packed)
    assert same(packing.unpack(dict(packing.pack(payload))), payload)
    assert json.dumps(payload) == before


@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", "a b", "a[", "a[x]", "[0]", 'a."b', "a.é\u0301", '"\\"', "a[-1]", 5]
)
def test_what_is_no_path_is_refused_before_anything_is_read(store: EdgeStore, path: Any) -> None:
    for name in ("plain", "packed"):
        with pytest.raises(BadInputError, match="is no payload path"):
            store.get_many(name, [pin(1)], with_payload=["a", path])
    with pytest.raises(BadInputError, match="not the text 'event_ts'"):
        store.get_many("plain", [pin(1)], with_payload="event_ts")


def test_paths() -> None:
    assert parse_path('f."my title"[].x-y_1')[:2] == ("f", "my title")
    assert path_of("f", "my title", "é") == 'f."my title".é'
    assert selection(["f.a", "f", "f.b"]) == selection(["f"]) == {"f": None}


def test_a_filter_on_a_quoted_packed_key_is_refused_too(store: EdgeStore) -> None:
    for key in ('"c d"', "a[].b", '"x.y".z', '""'):
        with pytest.raises(BadInputError, match="stored for reading only"):
            store.count("packed", Match(key, 1))


# --- indexes and files ---------------------------------------------------------------------------------------------


def indexed_paths(folder: Path) -> dict[str, str]:
    shard = engine.EdgeShard.load(str(folder))
    found = {path: str(info.data_type) for path, info in shard.info().payload_schema.items()}
    shard.close()
    return found


def test_indexes_are_the_engine_s_and_one_of_another_kind_is_replaced(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path)
    vectors = {"vector": VectorSpec(4)}
    store.create("pins", CollectionSpec(vectors, indexes={"f.lang": "keyword", "n": "keyword"}))
    fill(store)
    store.create("pins", CollectionSpec(vectors, indexes={"n": "integer", "even": "bool"}))
    assert store.count("pins", Range("n", gte=4)) == 6
    store.close()
    found = indexed_paths(tmp_path / "pins")
    assert sorted(found) == ["even", "f.lang", "n"]
    assert "Integer" in found["n"]
    again = EdgeStore(tmp_path)
    assert again.collections()["pins"].indexes == {"f.lang": "keyword", "n": "integer", "even": "bool"}
    assert [h.payload["n"] for h in again.search("pins", [1, 0, 0, 0], 2, filter=Match("f.lang", "fr"))] == [1, 3]
    again.close()


def test_specs_that_no_store_could_keep() -> None:
    for arguments, message in (
        ({"vectors": {"v": VectorSpec(2)}, "sparse": ("v",)}, "declared as both"),
        ({"indexes": {"n": "number"}}, "keyword, integer, float, bool, not 'number'"),
        ({"packed": ("f",), "indexes": {"f.lang": "keyword"}}, "f is packed"),
    ):
        with pytest.raises(BadInputError, match=message):
            CollectionSpec(**arguments)  # type: ignore[arg-type]
    spec = CollectionSpec({"v": VectorSpec(2)}, ("b", "a"), ("y", "x"), {"n": "float"})
    assert spec == CollectionSpec({"v": VectorSpec(2)}, ("a", "b"), ("x", "y"))
    assert CollectionSpec.from_json(json.loads(json.dumps(spec.to_json()))).to_json() == spec.to_json()


@pytest.mark.parametrize("content", ["", "[]", '{"packed": 5}', '{"packed": ["f"], "indexes": {"n": "odd"}}', "\udcff"])
def test_a_damaged_file_of_ours_is_named(tmp_path: Path, content: str) -> None:
    store = EdgeStore(tmp_path)
    store.create("rows", CollectionSpec(packed=("f",)))
    store.close()
    side = tmp_path / "rows" / SIDE_FILE
    side.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StoreCorruptError, match=f"its {SIDE_FILE} is missing or damaged"):
        EdgeStore(tmp_path).count("rows")
    side.unlink()
    with EdgeStoreClosing(tmp_path) as plain:
        assert plain.collections() == {"rows": CollectionSpec()}


class EdgeStoreClosing(EdgeStore):
    def __enter__(self) -> EdgeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_sparse_vectors_of_any_name_are_told_from_the_placeholder(tmp_path: Path) -> None:
    for name, spec in {"rows": CollectionSpec(), "words": CollectionSpec(sparse=("none",))}.items():
        EdgeCollection.create(tmp_path / name, spec).close()
        assert EdgeCollection(tmp_path / name).spec == spec


def test_readers_share_a_publication_with_indexes_and_words_and_leave_it_as_it_is(tmp_path: Path) -> None:
    """A reader links the engine's big files rather than copying them: loading must not write to any."""
    spec = CollectionSpec({"vector": VectorSpec(4)}, ("text",), ("key",), {"n": "integer", "f.lang": "keyword"})
    with open_writer(tmp_path) as writer:
        writer.create("pins", spec)
        words = SparseVector(np.array([7, 9], np.uint32), np.ones(2, np.float32))
        writer.upsert(
            "pins",
            [
                Point(
                    pin(n),
                    {"n": n, "key": {"k": n}, "f": {"lang": "fr"}},
                    {"vector": unit(1, n, 0, 0)},
                    {"text": words},
                )
                for n in range(300)
            ],
        )
        writer.publish()
    before = digests(tmp_path / "publications")
    with open_reader(tmp_path) as one, open_reader(tmp_path) as other:
        for reader in (one, other):
            assert reader.collections() == {"pins": spec}
            assert reader.collections()["pins"].indexes == spec.indexes
            assert reader.count("pins", Range("n", lt=10)) == 10
            (hit,) = reader.search("pins", words, 1, using="text", filter=Match("n", 4))
            assert hit.payload == {"n": 4, "key": {"k": 4}, "f": {"lang": "fr"}}
    assert digests(tmp_path / "publications") == before


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


LONG = "aB3+/=" * 50


@pytest.mark.parametrize(
    "features",
    [
        {"vector": {"$f32": LONG}},
        {"n": 1, 'ti"tle\n': {"$f64": LONG}, "last": [0.1, "é"]},
        {"one": {"$f32": LONG}, "other": {"$f32": LONG[1:]}},
        {"vector": {'$"f32': LONG}},
        {"vector": {"$f32": f'{LONG}"}}, "x": "'}},
        {"vector": {"$f32": f"{LONG}\n"}},
        {"vector": {"$f32": f"{LONG}é"}},
        {"vector": {"$f32": LONG, "n": 1}},
    ],
)
def test_packed_texts_of_long_numbers_are_json(features: dict[str, Any]) -> None:
    packing = Packing(("f", "key"))
    for payload in ({"view": "v", "f": features, "key": {"k": 1}}, {"f": features}):
        stored = packing.pack(payload)
        assert json.loads(stored[PACKED_KEY]) == {key: payload[key] for key in payload if key != "view"}
        assert packing.unpack(stored) == payload


@pytest.mark.parametrize("number", [5, -5, 2**53 + 1, -(2**53) - 1, 2**62 + 1, 2**63 - 2])
def test_newer_points_are_left_alone_to_the_last_bit(tmp_path: Path, number: int) -> None:
    store = EdgeStore(tmp_path)
    store.create("rows", CollectionSpec())
    store.upsert("rows", [Point(pin(n), {"at": number, "by": "first"}) for n in range(4)])
    later = [Point(pin(n), {"at": number + n - 1, "by": "second"}) for n in range(4)]
    store.upsert("rows", later, unless_newer="at")
    points = store.get_many("rows", [pin(n) for n in range(4)])
    assert [point and point.payload["by"] for point in points] == ["first", "second", "second", "second"]
    store.close()
