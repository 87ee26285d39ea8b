"""Definitions that change under stored rows, and filters at the edge of what the engine compares exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast_shop import NOON, Shop

from materialize.stores import session as sessions
from materialize.stores.errors import BadInputError
from materialize.stores.feast_text import words


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    yield Shop(tmp_path / "shop", publish_interval=0)
    sessions.close_all()


def vector() -> tuple[Any, dict[str, Any]]:
    from feast.types import Array, Float32

    return Array(Float32), {"vector_index": True, "vector_length": 2}


@pytest.mark.parametrize(
    ("old", "new", "value", "read"),
    [
        ("Int64", "String", 5, None),
        ("String", "Int64", "abc", None),
        ("Float64", "Int64", 1.5, None),
        ("String", "Bytes", "abc", None),
        ("Int64", "Int32", 2**40, None),
        ("String", "Array(String)", "abc", None),
        ("Int64", "Bool", 3, None),
        ("Int64", "Float64", 5, 5.0),
    ],
)
def test_a_value_of_the_former_type_reads_as_null(shop: Shop, old: str, new: str, value: Any, read: Any) -> None:
    from feast import types

    kinds = {name: getattr(types, name) for name in ("Int64", "Int32", "String", "Float64", "Bytes", "Bool")}
    kinds["Array(String)"] = types.Array(types.String)
    shop.apply(shop.view("v", {"n": kinds[old]}))
    shop.push("v", {"pin_id": "p", "n": value})
    shop.apply(shop.view("v", {"n": kinds[new]}))
    assert shop.read("v:n", pin_id=["p"])["n"] == [read]
    found = shop.feast.get_online_features(["v:n"], [{"pin_id": "p"}])
    assert found.proto.results[-1].values[0].WhichOneof("val") == (None if read is None else "double_val")


def put(shop: Shop, value_type: Any, dtype: Any, key: Any) -> None:
    """Define a document view under join key ``k`` and push one document."""
    from feast import Entity, FeatureView, Field, FileSource, PushSource
    from feast.types import String

    entity = Entity(name="k", join_keys=["k"], value_type=value_type)
    kind, options = vector()
    view = FeatureView(
        name="d",
        entities=[entity],
        ttl=None,
        schema=[
            Field(name="k", dtype=dtype),
            Field(name="t", dtype=String),
            Field(name="e", dtype=kind, **options),
        ],
        source=PushSource(
            name="d_push", batch_source=FileSource(name="d", path="d.parquet", timestamp_field="event_timestamp")
        ),
    )
    shop.feast.apply([entity, view])
    row = {"k": [key], "e": [[0.0, 1.0]], "t": ["x"], "event_timestamp": [NOON]}
    shop.feast.push("d_push", pd.DataFrame(row))


def search(shop: Shop, feature: str, **more: Any) -> dict[str, list]:
    query = {"query": [0.0, 1.0], "top_k": 9, **more}
    return shop.feast.retrieve_online_documents_v2(features=[feature], **query).to_dict()


def test_documents_under_keys_of_the_former_type_are_left_out(shop: Shop) -> None:
    from feast import ValueType
    from feast.types import Int64, String

    put(shop, ValueType.INT64, Int64, 1)
    put(shop, ValueType.STRING, String, "1")
    assert search(shop, "d:t")["k"] == ["1"]


def test_a_float_join_key_is_found_by_a_filter(shop: Shop) -> None:
    from feast import ValueType
    from feast.filter_models import ComparisonFilter
    from feast.types import Float32

    put(shop, ValueType.FLOAT, Float32, 0.1)
    assert search(shop, "d:t", filters=ComparisonFilter(type="eq", key="k", value=0.1))["t"] == ["x"]


def test_filters_that_cannot_be_exact_are_refused(shop: Shop) -> None:
    from feast.filter_models import ComparisonFilter
    from feast.types import Array, Float32, Int32, Int64

    shop.apply(shop.view("d", {"e": vector(), "l": Array(Float32), "i": Int64, "s": Int32}))
    numbers = [2**53, 2**53 + 1]
    shop.push("d", *[{"pin_id": f"p{n}", "e": [0.0, 1.0], "l": [1.0], "i": n, "s": 1} for n in numbers])
    for key, kind, value, words_ in (
        ("l", "eq", 1.0, "no floats"),
        ("e", "eq", 1.0, "no floats"),
        ("i", "gte", 2**53 + 1, r"beyond 2\*\*53"),
    ):
        with pytest.raises(BadInputError, match=words_):
            search(shop, "d:i", filters=ComparisonFilter(type=kind, key=key, value=value))
    assert search(shop, "d:i", filters=ComparisonFilter(type="eq", key="i", value=2**53 + 1))["i"] == [2**53 + 1]
    assert search(shop, "d:i", filters=ComparisonFilter(type="eq", key="s", value=2**40)).get("i", []) == []


def test_a_feature_that_no_path_can_name_is_refused_by_name(shop: Shop) -> None:
    from feast.types import String

    with pytest.raises(BadInputError, match="rename"):
        shop.apply(shop.view("d", {"e": vector(), "a\\b": String}))


def test_words_keep_their_vowel_signs() -> None:
    for text in ("كِتَاب", "שָׁלוֹם", "ދިވެހި", "हिन्दी"):
        assert len(words(text)) == 1
    assert words("بَيْت")[0] not in words("كِتَاب")
