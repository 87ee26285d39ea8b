"""Searching documents through Feast: by vector, by words, by both, with filters."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
from feast_shop import LOCAL, NOON, Shop, entity_key, pinned, proto

from materialize.stores import layout
from materialize.stores.errors import StoreError

pytest_plugins = ["feast_places"]

DOCS = {
    "b": ([3.0, 4.0], "Oak shelf for books", "en"),
    "a": ([0.0, 2.0], "Oak table", "en"),
    "d": ([-1.0, 0.0], "Étagère en chêne", "fr"),
    "c": ([1.5, 1.0], "A shelf, a shelf, a shelf", "en"),
}
QUERY = [0.0, 1.0]


def view(shop: Shop, **options: Any) -> Any:
    return shop.view("docs", pinned(**options))


def put(shop: Shop, **options: Any) -> Shop:
    shop.apply(view(shop, **options))
    rows = [{"pin_id": pin, "vector": v, "title": t, "lang": lang} for pin, (v, t, lang) in DOCS.items()]
    shop.push("docs", *rows)
    return shop


def find(shop: Shop, *features: str, top_k: int = 10, **query: Any) -> dict[str, list[Any]]:
    refs = [f"docs:{feature}" for feature in features or ("title",)]
    return shop.feast.retrieve_online_documents_v2(refs, top_k, **query).to_dict()


def by_pin(found: dict[str, list[Any]], column: str) -> dict[str, Any]:
    return dict(zip(found["pin_id"], found[column], strict=True))


def expected(metric: str | None, query: list[float] = QUERY) -> dict[str, float]:
    """The distance of each document, worked out by hand."""
    rows = {pin: np.array(vector) for pin, (vector, _, _) in DOCS.items()}
    q = np.array(query)
    formula = {
        "cosine": lambda v: 1 - v @ q / np.linalg.norm(v) / np.linalg.norm(q),
        "dot": lambda v: -v @ q,
        "L2": lambda v: np.linalg.norm(v - q),
        "L1": lambda v: np.abs(v - q).sum(),
    }[metric or "L2"]
    return {pin: float(formula(row)) for pin, row in rows.items()}


class TestByVector:
    @pytest.mark.parametrize("metric", ["cosine", "dot", "L2", "L1", None])
    def test_distances_of_every_metric(self, shop: Shop, metric: str | None) -> None:
        """Lower is nearer; and rows are whole although Feast pairs them by the order of their keys."""
        put(shop, vector_search_metric=metric)
        wanted = expected(metric)
        found = find(shop, "vector", "title", query=QUERY)
        assert by_pin(found, "distance") == pytest.approx(wanted, abs=1e-5)
        assert by_pin(found, "title") == {pin: title for pin, (_, title, _) in DOCS.items()}
        assert by_pin(found, "vector") == {pin: vector for pin, (vector, _, _) in DOCS.items()}
        two = find(shop, query=QUERY, top_k=2)
        assert sorted(two["pin_id"]) == sorted(sorted(wanted, key=wanted.__getitem__)[:2])
        assert "vector" not in two

    @pytest.mark.parametrize("kind", ["memory"])
    def test_what_feast_makes_of_the_distances(self, shop: Shop) -> None:
        """feast.utils._distance_to_score turns them into scores that are higher where nearer, for every metric."""
        from feast.utils import _distance_to_score

        for metric in ("cosine", "dot", "inner_product", "ip", "L2", "L1"):
            name = f"docs_{metric}"
            shop.apply(shop.view(name, pinned(vector_search_metric=metric)))
            shop.push(name, *({"pin_id": pin, "vector": v, "title": t} for pin, (v, t, _) in DOCS.items()))
            found = shop.feast.retrieve_online_documents_v2([f"{name}:title"], 10, [3.0, 4.0]).to_dict()
            scores = {pin: _distance_to_score(far, metric) for pin, far in by_pin(found, "distance").items()}
            ranked = sorted(scores, key=scores.__getitem__, reverse=True)
            assert ranked[0] == "b", metric
            assert ranked[-1] == "d", metric

    def test_version_1(self, shop: Shop) -> None:
        put(shop, vector_search_metric="cosine")
        ask = shop.feast.retrieve_online_documents
        found = ask(QUERY, 3, ["docs:vector", "docs:pin_id"], distance_metric="cosine").to_dict()
        assert found == {"pin_id": ["a", "b", "c"], "vector": [DOCS[pin][0] for pin in "abc"]}  # nearest first
        rows = shop.store.retrieve_online_documents(
            shop.config, shop.feast.get_feature_view("docs"), ["title", "vector"], QUERY, 2, None
        )
        (when, key, title, vector, distance), *_ = rows
        assert (when, key) == (NOON, entity_key(pin_id="a"))
        assert (title, vector) == (proto("Oak table"), proto([0.0, 2.0]))
        assert distance.float_val == pytest.approx(0)
        with pytest.raises(ValueError, match="Requested_features must be specified"):
            shop.store.retrieve_online_documents(shop.config, view(shop), [], QUERY, 2)

    @pytest.mark.parametrize("made", ["cosine", "L2", "dot"])
    def test_another_metric_than_the_collections_is_exact_and_warned_of(self, shop: Shop, made: str, caplog) -> None:
        table = view(shop, vector_search_metric=made)
        put(shop, vector_search_metric=made)
        for metric in {"cosine", "L2", "dot", "L1"} - {made}:
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                rows = shop.store.retrieve_online_documents_v2(shop.config, table, ["vector"], [1.0, 3.0], 3, metric)
            wanted = expected(metric, [1.0, 3.0])
            got = {key.entity_values[0].string_val: features["distance"].float_val for _, key, features in rows}
            nearest = sorted(wanted, key=wanted.__getitem__)[:3]
            assert got == pytest.approx({pin: wanted[pin] for pin in nearest}, abs=1e-5)
            assert all(
                features["vector"] == proto(DOCS[key.entity_values[0].string_val][0]) for _, key, features in rows
            )
            assert "so every vector is read" in caplog.text
        caplog.clear()
        shop.store.retrieve_online_documents_v2(shop.config, table, ["vector"], [1.0, 3.0], 3, made.upper())
        assert caplog.text == ""

    @LOCAL
    def test_composite_and_numeric_keys_stay_with_their_rows(self, shop: Shop) -> None:
        """Numbers in their order (2 before 10), several join keys in the order of their names."""
        schema = pinned()
        pairs = shop.view("pairs", schema, keys=("query", "number"))
        shop.apply(pairs)
        rows = [
            {"query": query, "number": number, "vector": [1.0, 10.0 * number], "title": f"{query} {number}"}
            for query in ("z", "a", "m")
            for number in (10, 2, -3)
        ]
        shop.push("pairs", *rows)
        found = shop.feast.retrieve_online_documents_v2(["pairs:title"], 7, [1.0, 100.0]).to_dict()
        assert found["title"] == [
            f"{query} {number}" for query, number in zip(found["query"], found["number"], strict=True)
        ]
        assert len(found["title"]) == 7
        assert found["number"] == sorted(found["number"])

    def test_fewer_documents_than_asked_for_and_none(self, shop: Shop) -> None:
        from feast.types import Array, Float32

        shop.apply(view(shop), shop.view("free", {"vector": (Array(Float32), {"vector_index": True})}))
        for name in ("docs", "free"):
            ask = shop.feast.retrieve_online_documents_v2
            assert ask([f"{name}:vector"], 3, [1.0, 0.0]).to_dict() == {"vector": [], "distance": []}
        put(shop)
        shop.write(view(shop), (entity_key(pin_id="e"), {"title": proto("No vector at all")}))
        assert sorted(find(shop, query=QUERY, top_k=99)["pin_id"]) == ["a", "b", "c", "d"]
        assert find(shop, query_string="no vector")["pin_id"] == ["e"]

    @LOCAL
    @pytest.mark.parametrize("number", ["Float64", "Int64", "Int32"])
    def test_vectors_of_other_numbers(self, shop: Shop, number: str) -> None:
        from feast import types

        dtype = types.Array(getattr(types, number))
        table = shop.view("docs", {**pinned(), "vector": (dtype, {"vector_index": True, "vector_length": 40})})
        shop.apply(table)
        zero, *some = (float(n) if number == "Float64" else n for n in (0, 0, 1, 2))
        rows = [{"pin_id": f"p{n}", "vector": [x] + [zero] * 39, "title": "oak"} for n, x in enumerate(some)]
        shop.push("docs", *rows)
        for query in ({"query_string": "oak"}, {}):
            found = find(shop, "vector", query=[5.0] + [0.0] * 39, **query)
            assert by_pin(found, "distance") == {"p0": 5.0, "p1": 4.0, "p2": 3.0}
            assert by_pin(found, "vector")["p2"] == [2] + [0] * 39
        rows = shop.store.retrieve_online_documents_v2(shop.config, table, ["title"], [1.0] * 40, 9, "dot")
        assert [features["distance"].float_val for _, _, features in rows] == [0.0, -1.0, -2.0]

    def test_rows_say_when_they_happened(self, shop: Shop) -> None:
        put(shop)
        rows = shop.store.retrieve_online_documents_v2(shop.config, view(shop), ["title"], QUERY, 9)
        assert {when for when, _, _ in rows} == {NOON}


class TestByWords:
    def test_ranks(self, shop: Shop) -> None:
        put(shop)
        found = find(shop, "title", "lang", query_string="SHELF?")
        ranks = by_pin(found, "text_rank")
        assert sorted(ranks) == ["b", "c"]
        assert ranks["c"] > ranks["b"]  # three times in it
        assert all(0 < rank < 1 for rank in ranks.values())
        assert by_pin(found, "lang") == {"b": "en", "c": "en"}
        assert found["distance"] == [None, None]
        rare = by_pin(find(shop, query_string="oak table"), "text_rank")
        assert rare["a"] > rare["b"]  # has both words
        assert by_pin(find(shop, query_string="étagère"), "title") == {"d": "Étagère en chêne"}
        assert len(find(shop, query_string="shelf oak chêne", top_k=2)["pin_id"]) == 2
        for nothing in ("unheard of", "?!"):
            assert find(shop, query_string=nothing) == {"title": [], "distance": [], "text_rank": []}

    def test_words_follow_the_row(self, shop: Shop) -> None:
        put(shop)
        shop.push("docs", {"pin_id": "b", "vector": [1.0, 0.0], "title": "Pine board", "lang": "shelf"})
        assert sorted(by_pin(find(shop, query_string="shelf"), "text_rank")) == ["b", "c"]  # in another field now
        assert find(shop, query_string="oak")["pin_id"] == ["a"]
        shop.push("docs", {"pin_id": "b", "vector": [1.0, 0.0], "title": None, "lang": None})
        assert find(shop, query_string="shelf")["pin_id"] == ["c"]


class TestByBoth:
    def test_reciprocal_ranks(self, shop: Shop) -> None:
        """1 / (60 + place), summed over the two searches."""
        put(shop)
        words = by_pin(find(shop, query_string="oak shelf"), "text_rank")
        places = [sorted(expected("L2"), key=expected("L2").__getitem__), sorted(words, key=words.__getitem__)[::-1]]
        fused: dict[str, float] = {}
        for ranking in places:
            for place, pin in enumerate(ranking, 1):
                fused[pin] = fused.get(pin, 0) + 1 / (60 + place)
        assert set(fused) == set(DOCS)
        for top_k in (1, 2, 3, 4):
            best = sorted(fused, key=lambda pin: (-fused[pin], layout.point_id("shop", "docs", {"pin_id": pin})))
            found = find(shop, "title", "vector", query=QUERY, query_string="oak shelf", top_k=top_k)
            assert sorted(found["pin_id"]) == sorted(best[:top_k])
            assert by_pin(found, "distance") == pytest.approx({p: expected("L2")[p] for p in best[:top_k]}, abs=1e-5)
            assert by_pin(found, "text_rank") == pytest.approx({p: words.get(p, 0.0) for p in best[:top_k]})
            assert by_pin(found, "title") == {pin: DOCS[pin][1] for pin in best[:top_k]}

    @pytest.mark.parametrize("metric", ["cosine", "L2"])
    def test_what_only_the_words_found_has_its_distance_too(self, shop: Shop, metric: str) -> None:
        shop.apply(view(shop, vector_search_metric=metric))
        near = [{"pin_id": f"n{n:03}", "vector": [0.0, 1.0 + n / 1e3], "title": "near"} for n in range(120)]
        far = {"pin_id": "far", "vector": [5.0, -12.0], "title": "the needle"}
        shop.push("docs", *near, far, {"pin_id": "none", "vector": None, "title": "a needle"})
        found = find(shop, query=QUERY, query_string="needle", top_k=10)
        assert {"far", "none"} < set(found["pin_id"])
        distance = by_pin(found, "distance")
        assert distance["far"] == pytest.approx({"cosine": 1 + 12 / 13, "L2": math.hypot(5, 13)}[metric], abs=1e-5)
        assert distance["none"] is None
        assert sum(rank > 0 for rank in found["text_rank"]) == 2


@pytest.mark.parametrize("kind", ["memory"])
class TestRefused:
    def test_in_words(self, shop: Shop) -> None:
        from feast.types import Array, Float32, Int64

        bare = shop.view("bare", {"vector": (Array(Float32), {"vector_index": True, "vector_length": 2}), "n": Int64})
        plain = shop.view("plain", {"n": Int64})
        put(shop)
        shop.apply(bare, plain, shop.view("off", pinned(), online=False))
        ask = shop.feast.retrieve_online_documents_v2
        for refs, query, words in (
            (["plain:n"], {"query": QUERY}, r"plain has no vector feature \(vector_index=True\)"),
            (["plain:n"], {"query_string": "oak"}, r"plain has no vector feature"),
            (["bare:n"], {"query_string": "oak"}, r"bare has no feature of type String"),
            (["docs:title"], {"query": [1.0, 2.0, 3.0]}, r"shape \(3,\)"),
            (["docs:title"], {"query": [1.0, 2.0, 3.0], "query_string": "oak"}, r"shape \(3,\)"),
            (["docs:title"], {"query": [math.nan, 1.0]}, r"NaN"),
            (["off:title"], {"query": QUERY}, r"off has online=False"),
        ):
            with pytest.raises(StoreError, match=words):
                ask(refs, 3, **query)
        for top_k in (0, -1):
            with pytest.raises(StoreError, match="top_k is at least 1"):
                ask(["docs:title"], top_k, QUERY, "oak")
        with pytest.raises(ValueError, match="distance_metric is 'wrong'; allowed are cosine, "):
            shop.feast.retrieve_online_documents(QUERY, 2, ["docs:vector"], distance_metric="wrong")
        with pytest.raises(StoreError, match="Give a vector"):
            shop.store.retrieve_online_documents_v2(shop.config, view(shop), ["title"], None, 2)


@LOCAL
def test_feasts_openai_search(shop: Shop, monkeypatch) -> None:
    """Feast embeds the words itself there; filters come as JSON."""
    import asyncio

    put(shop, vector_search_metric="cosine")

    class Embedder:
        async def aembed(self, texts: list[str]) -> list[list[float]]:
            return [QUERY for _ in texts]

    monkeypatch.setattr(type(shop.feast), "embedding_provider", Embedder())
    english = {"type": "and", "filters": [{"type": "eq", "key": "lang", "value": "en"}]}
    page = asyncio.run(shop.feast.openai_search("docs", "a board", max_num_results=2, filters=english))
    scores = {item["attributes"]["title"]: item["score"] for item in page["data"]}
    assert scores == pytest.approx({"Oak table": 1.0, "Oak shelf for books": 0.8}, abs=1e-6)
