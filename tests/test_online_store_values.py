"""Every value and every key that Feast has comes back exactly as it was written."""

from __future__ import annotations

import base64
import math
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast_shop import LOCAL, NOON, Shop, entity_key, proto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from materialize.stores.errors import BadInputError
from materialize.stores.feast_values import decoder, encoder

pytest_plugins = ["feast_places"]

ODD = (0.0, -0.0, math.pi, 1e-300, 0.1, 1e22, math.inf, -math.inf, math.nan, 123456789.12345679, 5e-324)
ODD32 = [float(np.float32(x)) for x in (*ODD[:-2], 1e-45, 3.4028235e38)]
UUID = "5f0c9a52-6c0e-5d0b-9a55-3d6a4f7c1e21"
SCALARS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "String": ("string_val", ("", "é\0😀", "null", "\ufeff \u2028", '{"$float": "1"}')),
    "Bytes": ("bytes_val", (b"", bytes(range(256)))),
    "Bool": ("bool_val", (True, False)),
    "Int32": ("int32_val", (0, -(2**31), 2**31 - 1)),
    "Int64": ("int64_val", (0, -(2**63), 2**63 - 1, 2**53 + 1)),
    "Float32": ("float_val", tuple(ODD32)),
    "Float64": ("double_val", ODD),
    "UnixTimestamp": ("unix_timestamp_val", (0, -1, 1_700_000_000, -(2**63))),
    "Json": ("json_val", ('{"a": [1, null]}', "")),
    "Uuid": ("uuid_val", (UUID,)),
    "TimeUuid": ("time_uuid_val", (UUID,)),
    "Decimal": ("decimal_val", ("1.50", "NaN", "-1E+400")),
}


def every_value() -> dict[str, tuple[Any, list[Any]]]:
    """Feature -> its Feast type and value protos of it; between them they use every field of ``Value``."""
    from feast import types
    from feast.protos.feast.types.Value_pb2 import Value

    known: dict[str, tuple[Any, list[Any]]] = {}
    for name, (field, values) in SCALARS.items():
        dtype = getattr(types, name)
        known[name] = (dtype, [Value(**{field: value}) for value in values])
        in_list = field.replace("_val", "_list_val")
        lists = [Value(**{in_list: {"val": some}}) for some in ([], list(values), [values[0]] * 3)]
        known[f"{name}s"] = (types.Array(dtype), lists)
        if name != "Json":
            in_set = field.replace("_val", "_set_val")
            known[f"{name}Set"] = (types.Set(dtype), [Value(**{in_set: {"val": some}}) for some in ([], list(values))])
    nested = Value(map_val={"val": {"deep": Value(float_val=math.nan)}})
    map_value = Value(map_val={"val": {"a": Value(int64_val=1), "none": Value(), "é": nested}})
    entry = {"key": {"int64_key": 2**60}, "value": Value(bytes_val=b"\xff")}
    struct = types.Struct({"name": types.String, "size": types.Int64})
    some = {"val": [Value(string_val="a"), Value()]}
    known |= {
        "Map": (types.Map, [Value(map_val={}), map_value]),
        "Maps": (types.Array(types.Map), [Value(map_list_val={"val": [map_value.map_val]})]),
        "Struct": (struct, [Value(struct_val={"val": {"name": Value(string_val="x"), "size": Value(int64_val=2)}})]),
        "Structs": (types.Array(struct), [Value(struct_list_val={"val": [map_value.map_val]})]),
        "ScalarMap": (types.ScalarMap, [Value(scalar_map_val={"val": [entry]})]),
        "Nested": (types.Array(types.Array(types.Int64)), [Value(list_val=some), Value(list_val={})]),
        "NestedSet": (types.Array(types.Set(types.String)), [Value(set_val=some)]),
        "Zoned": (types.ZonedTimestamp, [Value(zoned_timestamp_val={"unix_timestamp": -5, "zone": "Asia/Kolkata"})]),
        "Image": (types.ImageBytes, [Value(bytes_val=b"\x89PNG")]),
        "Mismatch": (types.Int64, [Value(string_val="declared as a number"), Value(int32_val=1)]),
        "MismatchedList": (types.Array(types.Float32), [Value(double_list_val={"val": [0.1]})]),
        "Null": (types.String, [Value(), Value(null_val=0), Value(string_val="")]),
        "feature with spaces, dots. and é": (types.Int64, [Value(int64_val=4)]),
    }
    return known


def same(one: Any, other: Any) -> bool:
    """Whether two rows of protos are the same bytes; a NaN equals itself here."""
    return {n: v.SerializeToString(deterministic=True) for n, v in one.items()} == {
        n: v.SerializeToString(deterministic=True) for n, v in other.items()
    }


def test_every_field_of_value_is_among_them() -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    used = {proto.WhichOneof("val") for _, protos in every_value().values() for proto in protos}
    assert {field.name for field in Value.DESCRIPTOR.fields} - used == set()


@pytest.mark.parametrize("document", [False, True], ids=["in a shared collection", "beside a vector"])
def test_every_value_comes_back(shop: Shop, document: bool) -> None:
    from feast import types

    values = every_value()
    fields = {name: dtype for name, (dtype, _) in values.items()}
    if document:
        fields["vector"] = (types.Array(types.Float32), {"vector_index": True, "vector_search_metric": "cosine"})
        values["vector"] = (types.Array(types.Float32), [proto([3.0, 4.0]), proto([0.1, -7.0])])
    view = shop.view("values", fields)
    longest = max(len(protos) for _, protos in values.values())
    rows = [{name: protos[row] for name, (_, protos) in values.items() if row < len(protos)} for row in range(longest)]
    keys = [entity_key(pin_id=f"p{row}") for row in range(longest)]
    shop.write(view, *zip(keys, rows, strict=True))
    read = shop.store.online_read(shop.config, view, keys)
    for row, (when, features) in zip(rows, read, strict=True):
        assert when == NOON
        assert same(features, row)
    asked = shop.store.online_read(shop.config, view, keys[:1], ["Int64", "feature with spaces, dots. and é"])
    assert same(asked[0][1], {name: rows[0][name] for name in ("Int64", "feature with spaces, dots. and é")})


def test_composite_keys_of_every_type(shop: Shop) -> None:
    """Keys are apart by kind and by join key; int32 and int64 are one kind, as are the two floats."""
    from feast import types
    from feast.protos.feast.types.Value_pb2 import Value

    view = shop.view("values", {"n": types.Int64}, keys=("query", "pin_id"))
    kinds = {
        "a": proto("a"),
        "text 1": proto("1"),
        "": proto(""),
        "number": proto(1),
        "large": proto(2**63 - 1),
        "bytes": proto(b"a"),
        "no bytes": proto(b""),
        "true": proto(True),
        "float": proto(1.5),
        "uuid": Value(uuid_val=UUID),
        "odd": proto('é"\\\0😀'),
        "small": Value(int32_val=7),
        "time": Value(unix_timestamp_val=1_700_000_000),
    }
    keys = [entity_key(query=one, pin_id=two) for one in kinds.values() for two in kinds.values()]
    shop.write(view, *((key, {"n": proto(place)}) for place, key in enumerate(keys)))
    read = shop.store.online_read(shop.config, view, keys)
    assert [features["n"].int64_val for _, features in read] == list(range(len(keys)))
    turned = [entity_key(pin_id=key.entity_values[1], query=key.entity_values[0]) for key in keys]
    assert shop.store.online_read(shop.config, view, turned) == read
    assert shop.collections() == {"shop@pin_id+query": len(keys)}


def numbers(dtype: str) -> st.SearchStrategy[float]:
    return st.just(math.nan) | st.floats(width=32 if dtype == "Float32" else 64, allow_nan=False)  # a NaN is a NaN


def some(dtype: str) -> st.SearchStrategy[Any]:
    """Plain values of a scalar type."""
    return {
        "String": st.text(),
        "Bytes": st.binary(max_size=20),
        "Bool": st.booleans(),
        "Int32": st.integers(-(2**31), 2**31 - 1),
        "Int64": st.integers(-(2**63), 2**63 - 1),
        "UnixTimestamp": st.integers(-(2**62), 2**62),
        "Json": st.text(max_size=10),
        "Decimal": st.decimals().map(str),
        "Uuid": st.uuids().map(str),
        "TimeUuid": st.uuids().map(str),
    }.get(dtype, numbers(dtype))


@st.composite
def rows(draw: Any) -> dict[str, Any]:
    """A row of a view with a scalar and a list of every type; some features are missing, some null."""
    from feast.protos.feast.types.Value_pb2 import Value

    row = {}
    for name in draw(st.sets(st.sampled_from([*SCALARS, *(f"{name}s" for name in SCALARS)]), min_size=1, max_size=6)):
        scalar = name.removesuffix("s") if name not in SCALARS else name
        field, _ = SCALARS[scalar]
        if draw(st.integers(0, 9)) == 0:
            row[name] = Value()
        elif name in SCALARS:
            row[name] = Value(**{field: draw(some(scalar))})
        else:
            values = draw(st.lists(some(scalar), max_size=4))
            row[name] = Value(**{field.replace("_val", "_list_val"): {"val": values}})
    return row


parts = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=8), st.booleans())


@LOCAL
def test_any_rows_come_back_under_any_keys(shop: Shop) -> None:
    from feast import types

    fields: dict[str, Any] = {}
    for name in SCALARS:
        fields[name], fields[f"{name}s"] = getattr(types, name), types.Array(getattr(types, name))
    view = shop.view("values", fields, keys=("query", "pin_id"))
    clock = iter(range(10**6))

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(parts, parts, rows()), min_size=1, max_size=5))
    def comes_back(batch: list[tuple[Any, Any, dict[str, Any]]]) -> None:
        at = NOON + timedelta(seconds=next(clock))
        data = [(entity_key(query=one, pin_id=two), row) for one, two, row in batch]
        shop.write(view, *data, at=at)
        last = {key.SerializeToString(deterministic=True): row for key, row in data}
        read = shop.store.online_read(shop.config, view, [key for key, _ in data])
        for (key, _), (when, features) in zip(data, read, strict=True):
            assert when == at
            assert same(features, last[key.SerializeToString(deterministic=True)])

    comes_back()


def test_numeric_lists_are_no_vectors_unless_declared(shop: Shop) -> None:
    from feast.types import Array, Float32, Float64, Int64

    shop.apply(shop.view("lists", {"floats": Array(Float32), "doubles": Array(Float64), "ints": Array(Int64)}))
    rows = [
        {"pin_id": "p1", "floats": [0.5, 0.25], "doubles": [0.1], "ints": [1, 2, 3]},
        {"pin_id": "p2", "floats": [1.5], "doubles": [], "ints": [2**62]},
    ]
    shop.push("lists", *rows)
    read = shop.read("lists:floats", "lists:doubles", "lists:ints", pin_id=["p1", "p2"])
    assert read == {name: [row[name] for row in rows] for name in ("pin_id", "floats", "doubles", "ints")}
    assert shop.collections() == {"shop@pin_id": 2}
    assert shop.specs()["shop@pin_id"].vectors == {}


@pytest.mark.parametrize("metric", ["cosine", "L2", "dot", "L1", None])
def test_vectors_come_back_exactly_whatever_the_metric(shop: Shop, metric: str | None) -> None:
    from feast.types import Array, Float32, Float64

    declared = {"vector_index": True, "vector_search_metric": metric}
    shop.apply(
        shop.view("single", {"vector": (Array(Float32), declared)}),
        shop.view("double", {"wide": (Array(Float64), declared)}),
    )
    rows = [[3.0, 4.0], [0.1, -7.0]]
    for name, feature in (("single", "vector"), ("double", "wide")):
        shop.push(name, *({"pin_id": f"p{n}", feature: row} for n, row in enumerate(rows)))
    shop.push("single", {"pin_id": "none", "vector": []})
    read = shop.read("single:vector", "double:wide", pin_id=["p0", "p1", "none", "nobody"])
    assert read["vector"] == [[3.0, 4.0], [float(np.float32(0.1)), -7.0], [], None]
    assert read["wide"] == [*rows, None, None]


def test_plain_python_through_feast(shop: Shop) -> None:
    """From a data frame and back to Python: what a user of Feast sees."""
    from datetime import UTC, datetime

    from feast import types

    columns = {
        "text": (types.String, "é 😀"),
        "blob": (types.Bytes, b"\0\xff"),
        "flag": (types.Bool, True),
        "when": (types.UnixTimestamp, datetime(2020, 2, 29, 1, 2, 3, tzinfo=UTC)),
        "texts": (types.Array(types.String), ["a", ""]),
        "flags": (types.Array(types.Bool), [True, False]),
        "map": (types.Map, {"a": "1", "b": "2"}),
        "none": (types.Float64, None),
        "nan": (types.Float64, math.nan),
    }
    shop.apply(shop.view("plain", {name: dtype for name, (dtype, _) in columns.items()}))
    shop.push("plain", {"pin_id": "p1", **{name: value for name, (_, value) in columns.items()}})
    read = shop.read(*(f"plain:{name}" for name in columns), pin_id=["p1"])
    for name, (_, value) in columns.items():
        (got,) = read[name]
        assert got == value or (pd.isna(value) and (got is None or math.isnan(got))), name


def test_text_that_is_no_unicode_is_refused(shop: Shop) -> None:
    """A proto cannot hold it; nor may a payload."""
    from feast import types

    with pytest.raises((UnicodeEncodeError, ValueError)):
        proto("lone \ud800")
    shop.apply(shop.view("text", {"title": types.String}))
    with pytest.raises((UnicodeEncodeError, ValueError)):
        shop.push("text", {"pin_id": "p1", "title": "lone \ud800"})
    assert shop.collections() == {"shop@pin_id": 0}


def test_what_no_type_declares_is_kept_as_a_proto() -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    value = Value(string_val="a")
    stored = encoder(None)(value)
    assert base64.b64decode(stored["$feast"]) == value.SerializeToString()
    assert decoder(None)(stored) == decoder("int64")(stored) == value
    with pytest.raises(BadInputError, match="no declared type"):
        decoder(None)("a")
