"""One contract for every adapter of the store port: collections, points, filters, searches.

See store_adapters.py for what runs. gRPC is run nowhere here: only its conversions are (test_server_store.py).
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from store_samples import PINS, ROWS, Adapter, fill, pin, unit

from materialize.stores import layout
from materialize.stores.errors import BadInputError, CollectionMissingError, SpecMismatchError, StoreError
from materialize.stores.port import And, CollectionSpec, Match, Not, Or, Point, Range, VectorSpec, VectorStore

pytest_plugins = ("store_adapters",)


def test_is_a_vector_store(store: VectorStore) -> None:
    assert isinstance(store, VectorStore)


def test_create_may_be_repeated_but_not_changed(store: VectorStore) -> None:
    fill(store)
    store.create("pins", PINS)
    assert store.count("pins") == 10
    with pytest.raises(SpecMismatchError, match=r"vector \(4 dimensions, dot\), not with .*5 dimensions"):
        store.create("pins", CollectionSpec({"vector": VectorSpec(5)}))
    with pytest.raises(SpecMismatchError, match="not with no vectors"):
        store.create("pins", ROWS)
    assert store.collections() == {"pins": PINS}


def test_dropped_collection_is_gone_and_may_come_back_with_another_spec(store: VectorStore) -> None:
    fill(store)
    store.drop("pins")
    store.drop("pins")
    assert store.collections() == {}
    store.create("pins", ROWS)
    assert store.count("pins") == 0


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 201, "a b", "publication.json", None])
def test_odd_names_are_refused(store: VectorStore, name: str) -> None:
    with pytest.raises(BadInputError, match="cannot name a collection"):
        store.create(name, ROWS)


def test_unknown_collection_names_the_known_ones(store: VectorStore) -> None:
    fill(store)
    for call in (store.count, lambda n: store.get_many(n, [pin(1)]), lambda n: store.upsert(n, [])):
        with pytest.raises(CollectionMissingError, match="no collection 'pin'; there are: pins"):
            call("pin")


def test_get_many_keeps_order_duplicates_and_gaps(store: VectorStore) -> None:
    fill(store)
    ids = [pin(3), pin(99), pin(0), pin(3), pin(1).upper()]
    found = store.get_many("pins", ids, with_vectors=True)
    assert [p and p.payload["n"] for p in found] == [3, None, 0, 3, 1]
    assert found[0] is not None
    assert found[0].id == pin(3)
    assert found[0].vectors["vector"].dtype == np.float32
    assert store.get_many("pins", []) == []


def test_vectors_keep_their_bits(store: VectorStore) -> None:
    fill(store, 600)
    found = store.get_many("pins", [pin(n) for n in range(600)], with_vectors=True)
    expected = np.stack([unit(10, n, 0, 0) for n in range(600)])
    assert np.array_equal(layout.stack_vectors(found, 4), expected)


def test_only_what_is_asked_for_comes_back(store: VectorStore) -> None:
    fill(store)
    bare = store.get_many("pins", [pin(1)], with_payload=False)[0]
    part = store.get_many("pins", [pin(1)], with_payload=["f.lang"])[0]
    assert bare == Point(pin(1))
    assert part == Point(pin(1), {"f": {"lang": "fr"}})


def test_upsert_replaces_the_whole_point(store: VectorStore) -> None:
    fill(store)
    store.upsert("pins", [Point(pin(1), {"title": "new"}, {"vector": unit(0, 0, 0, 1)})])
    point = store.get_many("pins", [pin(1)], with_vectors=True)[0]
    assert point is not None
    assert point.payload == {"title": "new"}
    assert point.vectors["vector"].tolist() == [0, 0, 0, 1]
    assert store.count("pins") == 10


def test_points_may_lack_their_vector(store: VectorStore) -> None:
    fill(store, 2)
    store.upsert("pins", [Point(pin(7), {"n": 7})])
    point = store.get_many("pins", [pin(7)], with_vectors=True)[0]
    assert point == Point(pin(7), {"n": 7})
    assert [h.payload["n"] for h in store.search("pins", unit(1, 0, 0, 0), 5)] == [0, 1]


def test_search_is_nearest_first_and_filtered(store: VectorStore) -> None:
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


def test_search_gives_score_payload_and_vectors(store: VectorStore) -> None:
    fill(store)
    hit = store.search("pins", unit(10, 4, 0, 0), 1, with_vectors=True)[0]
    assert hit.id == pin(4)
    assert hit.score == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(hit.vectors["vector"], unit(10, 4, 0, 0))
    assert store.search("pins", unit(10, 4, 0, 0), 1, with_payload=False)[0].payload == {}


def test_delete_by_id_or_filter(store: VectorStore) -> None:
    fill(store)
    store.delete("pins", ids=[pin(0), pin(99)])
    store.delete("pins", filter=Match("f.lang", "fr"))
    store.delete("pins", ids=[])
    assert sorted(p.payload["n"] for p in store.scroll("pins")[0]) == [2, 4, 6, 8]
    with pytest.raises(BadInputError, match="either ids or a filter"):
        store.delete("pins")


def test_count_with_and_without_filter(store: VectorStore) -> None:
    fill(store)
    assert (store.count("pins"), store.count("pins", Match("f.lang", "fr"))) == (10, 5)


def test_scroll_visits_every_point_once_in_id_order(store: VectorStore) -> None:
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
def test_one_bad_point_and_nothing_is_written(store: VectorStore, bad: Point, message: str) -> None:
    fill(store, 2)
    with pytest.raises(BadInputError, match=message):
        store.upsert("pins", [Point(pin(4), {}, {"vector": unit(1, 0, 0, 0)}), bad])
    assert store.count("pins") == 2


def test_large_finite_vectors_are_allowed(store: VectorStore) -> None:
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
def test_bad_queries(store: VectorStore, vector: list[float], using: str, limit: int, message: str) -> None:
    fill(store, 2)
    with pytest.raises(BadInputError, match=message):
        store.search("pins", vector, limit, using=using)


def test_payload_only_collections_have_nothing_to_search(store: VectorStore) -> None:
    store.create("rows", ROWS)
    store.upsert("rows", [Point(pin(1), {"f": {"title": "Oak"}})])
    assert store.get_many("rows", [pin(1)], with_vectors=True) == [Point(pin(1), {"f": {"title": "Oak"}})]
    assert store.collections() == {"rows": ROWS}
    with pytest.raises(BadInputError, match="it has: none"):
        store.search("rows", [1.0], 1)


def test_payload_json_keeps_its_types(store: VectorStore) -> None:
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


def test_distances(store: VectorStore) -> None:
    for distance, expected in (("dot", 6.0), ("cosine", 1.0), ("euclid", 1.0), ("manhattan", 1.0)):
        store.create(distance, CollectionSpec({"vector": VectorSpec(1, distance)}))  # type: ignore[arg-type]
        store.upsert(distance, [Point(pin(1), {}, {"vector": np.float32([2])})])
        assert store.search(distance, [3.0], 1)[0].score == pytest.approx(expected), distance
    with pytest.raises(BadInputError, match="not 'angle'"):
        VectorSpec(3, "angle")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="not 0"):
        VectorSpec(0)


def test_with_payload_takes_paths_or_none_of_it(store: VectorStore) -> None:
    fill(store)
    assert store.get_many("pins", [pin(2)], with_payload=["n", "f.none"]) == [Point(pin(2), {"n": 2, "f": {}})]
    assert store.get_many("pins", [pin(2)], with_payload=[]) == [Point(pin(2))]
    assert store.scroll("pins", limit=1, with_payload=["f"])[0][0].payload.keys() == {"f"}
    hit = store.search("pins", [1.0, 0, 0, 0], 1, with_payload=["even"])[0]
    assert hit.payload == {"even": True}
    for wrong in ("n", ["f..lang"]):
        with pytest.raises(BadInputError):
            store.get_many("pins", [pin(2)], with_payload=wrong)


def test_the_last_of_several_points_with_one_id_is_left(store: VectorStore) -> None:
    fill(store, 1)
    store.upsert("pins", [Point(pin(5), {"n": n}, {"vector": unit(1, n, 0, 0)}) for n in (1, 3, 2)])
    assert store.get_many("pins", [pin(5)]) == [Point(pin(5), {"n": 2})]
    assert store.count("pins") == 2


@pytest.mark.parametrize("name", ["my%20shop__pins", "shop@pin_id+query", "a~b.c-d", "7"])
def test_names_are_kept_to_the_letter(store: VectorStore, name: str) -> None:
    store.create(name, ROWS)
    store.upsert(name, [Point(pin(1), {"n": 1})])
    assert store.collections() == {name: ROWS}
    assert store.get_many(name, [pin(1)]) == [Point(pin(1), {"n": 1})]
    store.drop(name)
    assert store.collections() == {}


def test_wrong_pages_and_ids_are_refused(store: VectorStore) -> None:
    fill(store, 2)
    with pytest.raises(BadInputError, match="limit is at least 1, not 0"):
        store.scroll("pins", limit=0)
    for call in (
        lambda: store.scroll("pins", after="p1"),
        lambda: store.get_many("pins", [pin(1), "p1"]),
        lambda: store.delete("pins", ids=[pin(1), "p1"]),
    ):
        with pytest.raises(BadInputError, match="is a UUID as text, not 'p1'"):
            call()
    with pytest.raises(BadInputError, match="made of Match, Range, And, Or and Not"):
        store.count("pins", "n = 1")  # type: ignore[arg-type]
    assert store.count("pins") == 2


def test_a_filter_may_match_all_or_nothing(store: VectorStore) -> None:
    fill(store)
    store.delete("pins", filter=Or(()))
    store.delete("pins", filter=Match("n", any_of=[]))
    assert store.count("pins", And(())) == 10
    assert store.count("pins", Not(Match("absent", 1))) == 10
    store.delete("pins", filter=And(()))
    assert store.count("pins") == 0
    assert store.scroll("pins") == ([], None)
    assert store.search("pins", [1.0, 0, 0, 0], 3) == []


def test_closing_twice_and_reopening(adapter: Adapter) -> None:
    store = adapter.open()
    fill(store)
    store.flush()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.count("pins")
    if adapter.keeps:
        again = adapter.open()
        assert again.count("pins") == 10
        assert again.collections() == {"pins": PINS}
        again.close()
