"""Filters of document searches through Feast: on features and join keys, what is refused, what is indexed."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from feast_shop import LOCAL, Shop, pinned
from test_online_store_documents import find

from materialize.stores.errors import BadInputError

pytest_plugins = ["feast_places"]


def scalars(shop: Shop) -> Any:
    from feast import types

    schema = {
        **pinned(),
        "n": types.Int64,
        "small": types.Int32,
        "rate": types.Float64,
        "score": types.Float32,
        "live": types.Bool,
        "when": types.UnixTimestamp,
        "tags": types.Array(types.String),
        "blob": types.Bytes,
        "extra": types.Map,
        "od.d né": types.String,
    }
    return shop.view("docs", schema, keys=("query", "number"))


ROWS: list[dict[str, Any]] = [
    {"number": 1, "lang": "en", "n": 5, "rate": math.pi, "score": 0.1, "live": True, "tags": ["a", "b"]},
    {"number": 2, "lang": "fr", "n": -(2**40), "rate": 1e-300, "score": -2.5, "live": False, "tags": []},
    {"number": 3, "lang": "fr", "n": 0, "rate": 5.0, "score": 7.0, "live": True, "tags": ["b"], "od.d né": "x"},
    {"number": 4, "lang": None, "n": None, "rate": math.inf, "score": math.nan, "live": None, "tags": None},
]
MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
FILTERS: list[tuple[str, str, Any, str]] = [
    ("eq", "lang", "fr", "23"),
    ("ne", "lang", "fr", "14"),
    ("in", "lang", ["en", "de"], "1"),
    ("in", "lang", [], ""),
    ("nin", "lang", ["en", "de"], "234"),
    ("eq", "n", 5, "1"),
    ("eq", "n", 5.0, "1"),
    ("eq", "n", 5.5, ""),
    ("eq", "n", 2**80, ""),
    ("gt", "n", -1, "13"),
    ("gte", "n", 0, "13"),
    ("lt", "n", 0, "2"),
    ("lte", "n", 5, "123"),
    ("in", "n", [0, 5], "13"),
    ("eq", "small", 7, "1234"),
    ("eq", "rate", math.pi, "1"),
    ("eq", "rate", 1e-300, "2"),
    ("eq", "rate", 5, "3"),
    ("eq", "rate", math.inf, "4"),
    ("gte", "rate", math.pi, "13"),
    ("gt", "rate", math.pi, "3"),
    ("lt", "rate", 4, "12"),
    ("eq", "score", 0.1, "1"),
    ("gt", "score", 0.1, "3"),
    ("gte", "score", 0.1, "13"),
    ("eq", "live", True, "13"),
    ("eq", "live", False, "2"),
    ("eq", "when", MOMENT, "1234"),
    ("eq", "when", int(MOMENT.timestamp()), "1234"),
    ("eq", "when", MOMENT.replace(microsecond=5), ""),
    ("gt", "when", datetime(2024, 1, 1), "1234"),
    ("lt", "when", datetime(2024, 1, 1, tzinfo=UTC), ""),
    ("eq", "tags", "b", "13"),
    ("in", "tags", ["a"], "1"),
    ("eq", "blob", b"\0\xff", "1234"),
    ("eq", "od.d né", "x", "3"),
    ("eq", "number", 2, "2"),
    ("in", "number", [1, 4, 9], "14"),
    ("gt", "number", 2, "34"),
    ("nin", "number", [1, 2], "34"),
    ("eq", "query", "q", "1234"),
    ("ne", "query", "q", ""),
]


class TestFilters:
    def test_on_features_and_join_keys(self, shop: Shop) -> None:
        from feast.filter_models import ComparisonFilter, CompoundFilter

        shop.apply(scalars(shop))
        same = {"query": "q", "vector": [1.0, 0.0], "small": 7, "when": MOMENT, "blob": b"\0\xff", "title": "oak"}
        shop.push("docs", *({**same, **row} for row in ROWS))

        def numbers(filters: Any, **query: Any) -> str:
            found = find(shop, filters=filters, **(query or {"query": [1.0, 0.0]}))
            return "".join(map(str, sorted(found.get("number", []))))

        for kind, key, value, wanted in FILTERS:
            assert numbers(ComparisonFilter(type=kind, key=key, value=value)) == wanted, (kind, key, value)

        french = ComparisonFilter(type="eq", key="lang", value="fr")
        low = ComparisonFilter(type="lt", key="rate", value=4.0)
        second = ComparisonFilter(type="eq", key="number", value=2)
        both = CompoundFilter(type="and", filters=[french, low])
        assert numbers(both) == "2"
        assert numbers(CompoundFilter(type="or", filters=[french, low])) == "123"
        assert numbers(CompoundFilter(type="or", filters=[CompoundFilter(type="and", filters=[both, second])])) == "2"
        for empty in ("and", "or"):
            assert numbers(CompoundFilter(type=empty, filters=[])) == "1234"
        assert numbers({"type": "and", "filters": [french.model_dump(), low.model_dump()]}) == "2"  # as over HTTP

        assert numbers(french, query_string="oak") == "23"
        assert numbers(french, query=[1.0, 0.0], query_string="oak") == "23"
        assert numbers(low, query=[0.0, 1.0], query_string="oak", top_k=1) in ("1", "2")
        rows = shop.store.retrieve_online_documents_v2(
            shop.config, scalars(shop), ["n"], [1.0, 0.0], 9, "cosine", filters=french
        )
        assert [key.entity_values[0].int64_val for _, key, _ in rows] == [2, 3]  # another metric

    @pytest.mark.parametrize("kind", ["memory"])
    @pytest.mark.parametrize(
        ("filters", "words"),
        [
            (("eq", "nothing", 1), r"cannot be filtered by 'nothing'.*title.*nor a join key \(query, number\)"),
            (("eq", "extra", "a"), r"'extra': values of its type are stored as a whole"),
            (("gt", "lang", "a"), r"gt on docs\.lang compares numbers and times only"),
            (("gt", "live", True), r"gt on docs\.live compares numbers"),
            (("gte", "n", "5"), r"docs\.n compares with '5'; give a whole number"),
            (("gt", "rate", math.nan), r"docs\.rate compares with nan; give a number"),
            (("lt", "rate", math.inf), r"docs\.rate compares with inf; give a number"),
            (("eq", "lang", 5), r"docs\.lang compares with 5; give a text"),
            (("eq", "n", "5"), r"docs\.n compares with '5'; give a whole number"),
            (("eq", "n", True), r"docs\.n compares with True"),
            (("eq", "live", 1), r"docs\.live compares with 1; give true or false"),
            (("eq", "when", "2024-01-01"), r"docs\.when compares with '2024-01-01'; give a datetime"),
            (("eq", "number", "2"), r"docs\.number compares with '2'; give a whole number"),
            (("in", "lang", "en"), r"docs\.lang is `in` or `nin`; give it a list, not 'en'"),
        ],
    )
    def test_refused(self, shop: Shop, filters: tuple[str, str, Any], words: str) -> None:
        from feast.filter_models import ComparisonFilter

        shop.apply(scalars(shop))
        kind, key, value = filters
        with pytest.raises(BadInputError, match=words):
            find(shop, query=[1.0, 0.0], filters=ComparisonFilter(type=kind, key=key, value=value))

    @LOCAL
    def test_everything_that_filters_look_at_is_indexed(self, shop: Shop) -> None:
        shop.apply(scalars(shop))
        assert shop.specs()["shop__docs"].indexes == {
            "event_ts": "integer",  # by which writing leaves newer rows alone
            "f.title": "keyword",
            "f.lang": "keyword",
            "f.n": "integer",
            "f.small": "integer",
            "f.rate": "float",
            "f.rate.n": "float",
            "f.score": "float",
            "f.live": "bool",
            "f.when": "integer",
            'f."od.d né"': "keyword",
            "key.query": "keyword",
            "key.number": "integer",
        }
