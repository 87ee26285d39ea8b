"""The contract of every adapter, continued: conditional writes, indexes, packed keys, sparse vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from store_samples import PINS, ROWS, fill, pin, unit

from materialize.stores import layout
from materialize.stores.errors import BadInputError, CollectionMissingError, SpecMismatchError
from materialize.stores.port import And, CollectionSpec, Match, Not, Point, Range, SparseVector, VectorSpec, VectorStore

pytest_plugins = ("store_adapters",)


# --- unless_newer --------------------------------------------------------------------------------------------------


def test_unless_newer_keeps_the_greater_number(store: VectorStore) -> None:
    moment = 1_700_000_000_000_000
    store.create("rows", ROWS)
    store.upsert("rows", [Point(pin(n), {"event_ts": moment + n, "f": "old"}) for n in range(4)])
    store.upsert("rows", [Point(pin(4), {"f": "never dated"})])
    store.upsert("rows", [Point(pin(n), {"event_ts": moment + 2, "f": "new"}) for n in range(6)], "event_ts")
    found = store.get_many("rows", [pin(n) for n in range(6)])
    assert [p and p.payload["f"] for p in found] == ["new", "new", "new", "old", "new", "new"]
    assert [p and p.payload["event_ts"] - moment for p in found] == [2, 2, 2, 3, 2, 2]


@pytest.mark.parametrize(("numbers", "left"), [((3, 1, 2), 3), ((1, 2, 3), 3), ((2, 3, 1), 3), ((5, 5), 5)])
def test_unless_newer_within_one_write(store: VectorStore, numbers: tuple[int, ...], left: int) -> None:
    store.create("rows", ROWS)
    store.upsert("rows", [Point(pin(1), {"t": n, "place": place}) for place, n in enumerate(numbers)], "t")
    (found,) = store.get_many("rows", [pin(1)])
    assert found == Point(pin(1), {"t": left, "place": len(numbers) - 1 - numbers[::-1].index(left)})


def test_unless_newer_keeps_vectors_too_and_takes_many(store: VectorStore) -> None:
    fill(store, 700)
    late = [Point(pin(n), {"n": 350}, {"vector": unit(0, 0, 0, 1)}) for n in range(700)]
    store.upsert("pins", late, unless_newer="n")
    found = layout.stack_vectors(store.get_many("pins", [pin(n) for n in range(700)], with_vectors=True), 4)
    assert (found[:351] == [0, 0, 0, 1]).all()
    assert np.array_equal(found[351:], np.stack([unit(10, n, 0, 0) for n in range(351, 700)]))


@pytest.mark.parametrize("payload", [{}, {"t": None}, {"t": 1.5}, {"t": True}, {"t": "1"}])
def test_unless_newer_wants_whole_numbers(store: VectorStore, payload: dict) -> None:
    store.create("rows", ROWS)
    with pytest.raises(BadInputError, match="whole number"):
        store.upsert("rows", [Point(pin(1), {"t": 1}), Point(pin(2), payload)], unless_newer="t")
    assert store.count("rows") == 0


# --- indexes, packed keys, sparse vectors --------------------------------------------------------------------------


def test_indexes_are_made_at_once_or_later(store: VectorStore) -> None:
    first = CollectionSpec({"vector": VectorSpec(4)}, indexes={"f.lang": "keyword"})
    store.create("pins", first)
    fill(store)
    assert store.collections()["pins"].indexes == {"f.lang": "keyword"}
    later = CollectionSpec({"vector": VectorSpec(4)}, indexes={"n": "integer", "even": "bool"})
    store.create("pins", later)
    store.create("pins", PINS)
    assert store.collections() == {"pins": first}
    assert store.collections()["pins"].indexes == {"f.lang": "keyword", "n": "integer", "even": "bool"}
    assert store.count("pins", And((Match("f.lang", "fr"), Range("n", gte=4), Match("even", False)))) == 3


PACKED = CollectionSpec(packed=("key", "f"))


def test_packed_keys_come_back_as_they_were(store: VectorStore) -> None:
    payload = {"view": "v", "key": {"pin_id": "p1"}, "f": {"x": 0.1, "t": ["é", None], "o": {}}, "n": 2**53 + 1}
    store.create("rows", PACKED)
    store.upsert("rows", [Point(pin(1), payload), Point(pin(2), {"view": "w"})])
    assert store.collections() == {"rows": PACKED}
    assert store.get_many("rows", [pin(1), pin(2)]) == [Point(pin(1), payload), Point(pin(2), {"view": "w"})]
    parts = store.get_many("rows", [pin(1)], with_payload=["f.x", "key", "n"])
    assert parts == [Point(pin(1), {"f": {"x": 0.1}, "key": {"pin_id": "p1"}, "n": 2**53 + 1})]
    assert store.get_many("rows", [pin(1)], with_payload=["view"]) == [Point(pin(1), {"view": "v"})]
    assert {p.id: p.payload for p in store.scroll("rows")[0]} == {pin(1): payload, pin(2): {"view": "w"}}
    assert store.count("rows", Match("view", "v")) == 1


def test_packed_keys_are_no_filters(store: VectorStore) -> None:
    store.create("rows", CollectionSpec({"vector": VectorSpec(2)}, packed=("key", "f")))
    inside = And((Match("view", "v"), Not(Match("f.lang", "fr"))))
    for call in (
        lambda: store.count("rows", inside),
        lambda: store.delete("rows", filter=inside),
        lambda: store.scroll("rows", filter=inside),
        lambda: store.search("rows", [1, 0], 1, filter=inside),
    ):
        with pytest.raises(BadInputError, match=r"cannot be filtered by 'f\.lang'"):
            call()
    with pytest.raises(BadInputError, match="packed"):
        store.upsert("rows", [Point(pin(1), {"key": 1})], unless_newer="key")


@pytest.mark.parametrize(
    "other", [CollectionSpec(), CollectionSpec(packed=("key",)), CollectionSpec(sparse=("text",), packed=("key", "f"))]
)
def test_packed_keys_and_sparse_vectors_are_part_of_the_spec(store: VectorStore, other: CollectionSpec) -> None:
    store.create("rows", PACKED)
    with pytest.raises(SpecMismatchError, match="The collection rows exists with"):
        store.create("rows", other)
    assert store.collections() == {"rows": PACKED}


TEXTS = CollectionSpec({"vector": VectorSpec(4)}, sparse=("text",))


def words(*indices: int, weight: float = 1.0) -> SparseVector:
    return SparseVector(np.array(indices, np.uint32), np.full(len(indices), weight, np.float32))


def write_texts(store: VectorStore) -> None:
    """Word 7 is in each of the documents 0..5, word n in document n alone; document 6 has no words."""
    store.create("texts", TEXTS)
    points = [Point(pin(n), {"n": n}, {"vector": unit(1, n, 0, 0)}, {"text": words(n, 7)}) for n in range(6)]
    store.upsert("texts", [*points, Point(pin(6), {"n": 6}, {"vector": unit(1, 6, 0, 0)})])


def test_sparse_vectors_find_what_shares_a_word(store: VectorStore) -> None:
    write_texts(store)
    found = store.search("texts", words(3, 7), 10, using="text")
    assert found[0].payload == {"n": 3}
    assert sorted(h.payload["n"] for h in found) == [0, 1, 2, 3, 4, 5]
    assert found[0].score > found[1].score
    assert [
        h.payload["n"] for h in store.search("texts", words(3, 4, 100), 10, using="text", filter=Match("n", 4))
    ] == [4]
    assert store.search("texts", words(100), 10, using="text") == []
    assert store.search("texts", words(), 10, using="text") == []
    assert store.collections() == {"texts": TEXTS}


def test_rare_words_weigh_more(store: VectorStore) -> None:
    write_texts(store)
    (rare,) = store.search("texts", words(3), 10, using="text")
    common = store.search("texts", words(7), 10, using="text")
    assert rare.score > 2 * common[0].score > 0
    assert [h.score for h in store.search("texts", words(3, weight=2.0), 1, using="text")] == [
        pytest.approx(2 * rare.score)
    ]


def test_sparse_vectors_are_written_only_and_replaced_with_their_point(store: VectorStore) -> None:
    write_texts(store)
    (point,) = store.get_many("texts", [pin(3)], with_vectors=True)
    assert point is not None
    assert (point.sparse, point.vectors.keys()) == ({}, {"vector"})
    assert store.search("texts", words(3), 1, using="text", with_vectors=True)[0].vectors.keys() == {"vector"}
    store.upsert("texts", [Point(pin(3), {"n": 3}, {"vector": unit(1, 3, 0, 0)})])
    assert store.search("texts", words(3), 10, using="text") == []
    assert [h.payload["n"] for h in store.search("texts", [1, 0, 0, 0], 1)] == [0]


def test_sparse_vectors_are_read_by_name_in_the_order_asked(store: VectorStore) -> None:
    store.create("docs", CollectionSpec({"vector": VectorSpec(4)}, sparse=("text", "words")))
    values = np.array([0.1, 2.5, 1 / 3], np.float32)
    odd = SparseVector(np.array([2**32 - 1, 3, 70_000], np.uint32), values)
    vector = {"vector": unit(1, 0, 0, 0)}
    store.upsert(
        "docs",
        [
            Point(pin(0), {}, vector, {"text": words(7), "words": odd}),
            Point(pin(1), {}, vector, {"text": words(8)}),
            *(Point(pin(n), {}, vector, {"words": words(n)}) for n in range(2, 1500)),
        ],
    )
    first, none, again, absent = store.get_sparse("docs", [pin(0), pin(1), pin(0).upper(), pin(9999)], "words")
    assert first is not None
    assert again is not None
    assert (none, absent) == (None, None)
    assert (first.indices.dtype, first.values.dtype) == (np.uint32, np.float32)
    assert first.indices.tolist() == again.indices.tolist() == [3, 70_000, 2**32 - 1]
    np.testing.assert_array_equal(first.values, values[[1, 2, 0]])
    many = store.get_sparse("docs", [pin(n) for n in range(2, 1500)], "words")
    assert [found and found.indices.tolist() for found in many] == [[n] for n in range(2, 1500)]
    assert store.get_sparse("docs", [], "words") == []
    for using, message in (("vector", "no sparse vector 'vector' to read; it has: text, words"), ("x", "'x' to read")):
        with pytest.raises(BadInputError, match=message):
            store.get_sparse("docs", [pin(0)], using)
    with pytest.raises(BadInputError, match="is a UUID as text, not '7'"):
        store.get_sparse("docs", ["7"], "words")
    with pytest.raises(CollectionMissingError):
        store.get_sparse("none", [pin(0)], "words")


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (SparseVector(np.array([1, 1], np.uint32), np.ones(2, np.float32)), "an index twice"),
        (SparseVector(np.array([1, 2], np.uint32), np.ones(1, np.float32)), "give one value an index"),
        (SparseVector(np.array([-1]), np.ones(1, np.float32)), "no whole numbers from 0"),
        (SparseVector(np.array([1], np.uint32), np.array([math.nan], np.float32)), "NaN or infinity"),
        ([1.0, 2.0], "is a SparseVector"),
    ],
)
def test_odd_sparse_vectors_are_refused(store: VectorStore, vector: SparseVector, message: str) -> None:
    write_texts(store)
    with pytest.raises(BadInputError, match=message):
        store.upsert("texts", [Point(pin(8)), Point(pin(9), {}, {}, {"text": vector})])
    assert store.count("texts") == 7
    with pytest.raises(BadInputError, match="a sparse vector 'words'; the collection has: text"):
        store.upsert("texts", [Point(pin(9), {}, {}, {"words": words(1)})])


def test_sparse_queries_name_a_sparse_vector(store: VectorStore) -> None:
    write_texts(store)
    with pytest.raises(BadInputError, match="no sparse vector 'vector' to search by; it has: text"):
        store.search("texts", words(1), 3)
    with pytest.raises(BadInputError, match="no vector 'text' to search by; it has: vector"):
        store.search("texts", [1, 0, 0, 0], 3, using="text")
    with pytest.raises(BadInputError, match="an index twice"):
        store.search("texts", SparseVector(np.array([1, 1]), np.ones(2, np.float32)), 3, using="text")
