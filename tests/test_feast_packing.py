"""Rows of Feast that are packed straight from their protos hold what the codec of single values makes of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from feast_shop import LOCAL, NOON, Shop, entity_key, proto
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import pin
from test_online_store_values import SCALARS, every_value, rows

from materialize.stores import layout
from materialize.stores.conditions import Match
from materialize.stores.edge import EdgeStore
from materialize.stores.errors import BadInputError
from materialize.stores.feast_packing import RowPacker, text_encoder
from materialize.stores.feast_values import declared_type, encoder
from materialize.stores.payload import LatePayload, Packing
from materialize.stores.points import CollectionSpec, Point
from materialize.stores.values import encode_value, surviving_digits

pytest_plugins = ["feast_places"]

TYPES = {name: layout.canonical_type(name) for name in SCALARS}
TYPES |= {f"{name}s": f"{kind}_list" for name, kind in TYPES.items()}
KEYS = st.text(max_size=4) | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=4) | st.booleans() | st.just(0.5)


def same_text(types: Mapping[str, str | None], entity: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Fails unless both ways of making the stored form of a row lead to the same bytes."""
    packing = Packing(layout.PACKED)
    for created in (None, 7):
        late = RowPacker("view", types).payload(entity, 5, created, values)
        features = {name: encoder(types.get(name))(value) for name, value in values.items()}
        natural = layout.row_payload("view", entity, 5, features, created)
        assert packing.pack(late) == packing.pack(natural)
        assert late.whole() == natural


def test_every_value_is_packed_as_the_codec_has_it() -> None:
    for name, (dtype, protos) in every_value().items():
        for value in protos:
            same_text({name: declared_type(dtype)}, {"pin_id": "p1"}, {name: value})
            same_text({}, {"pin_id": "p1"}, {name: value})  # a feature that the view does not declare


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["pin_id", "a %s", 'qu"ote', "é"]), KEYS, min_size=1, max_size=3), rows())
def test_any_row_is_packed_as_the_codec_has_it(entity: dict[str, Any], row: dict[str, Any]) -> None:
    same_text(TYPES, entity, row)


@pytest.mark.parametrize("kind", ["float32_list", "float64_list"])
@pytest.mark.parametrize("length", [0, 1, 32, 33, 5000])
def test_lists_of_floats_of_any_length(kind: str, length: int) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    numbers = [math.nan, math.inf, *(n / 7 for n in range(length))][:length]
    field = "float_list_val" if kind == "float32_list" else "double_list_val"
    packed: dict[str, Any] = {field: {"val": numbers}}
    value = Value(**packed)
    assert text_encoder(kind)(value) == json.dumps(encoder(kind)(value), separators=(",", ":"))


@given(st.floats())
def test_digits_survive_where_the_codec_keeps_the_number(number: float) -> None:
    digits = surviving_digits(number)
    kept = encode_value(number, "float64")
    assert digits is None or (kept == number and digits == repr(kept))
    if 1e-4 <= abs(number) < 1e16:
        assert (digits is None) == isinstance(kept, dict)


@LOCAL
def test_rows_of_one_write_may_differ_in_their_features(shop: Shop) -> None:
    from feast.types import Int64, String

    view = shop.view("mixed", {"title": String, "100%": Int64})
    features = [{"title": proto("%s %d")}, {"100%": proto(3), "title": proto("é")}, {}, {"title": proto("")}]
    keys = [entity_key(pin_id=f"p{n}") for n in range(len(features))]
    shop.write(view, *zip(keys, features, strict=True))
    assert shop.store.online_read(shop.config, view, keys) == [(NOON, row) for row in features]


@LOCAL
def test_a_feature_whose_name_is_no_unicode_is_refused_before_anything_is_written(shop: Shop) -> None:
    from feast.types import String

    view = shop.view("text", {"title": String})
    shop.apply(view)
    good, bad = {"title": proto("a")}, {"lone \ud800": proto("b")}
    with pytest.raises(BadInputError, match="no valid Unicode"):
        shop.write(view, (entity_key(pin_id="p1"), good), (entity_key(pin_id="p2"), bad))
    assert shop.collections() == {"shop@pin_id": 0}


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[EdgeStore]:
    """A store with an empty collection of rows."""
    opened = EdgeStore(tmp_path)
    opened.create("rows", layout.entity_spec())
    yield opened
    opened.close()


def test_only_what_is_written_is_packed_and_once(edge: EdgeStore) -> None:
    made: list[int] = []

    def late(number: int, event_ts: int) -> Point:
        def text() -> str:
            made.append(number)
            return f'{{"key":{{"n":{number}}},"f":{{}}}}'

        payload = LatePayload(view="v", event_ts=event_ts)
        payload.text = text
        return Point(pin(number), payload)

    edge.upsert("rows", [late(number, 5) for number in range(4)], unless_newer="event_ts")
    assert made == [0, 1, 2, 3]
    edge.upsert("rows", [late(0, 4), late(1, 5), late(2, 6), late(3, 4)], unless_newer="event_ts")
    assert made == [0, 1, 2, 3, 1, 2]
    points = edge.get_many("rows", [pin(number) for number in range(4)])
    assert [point and point.payload for point in points] == [
        {"view": "v", "event_ts": when, "key": {"n": number}, "f": {}} for number, when in enumerate([5, 5, 6, 5])
    ]


def test_late_payloads_are_made_whole_where_other_keys_are_packed(edge: EdgeStore) -> None:
    edge.create("others", CollectionSpec(packed=("f",), indexes={"key.n": "integer"}))
    late = LatePayload(view="v")
    late.text = lambda: '{"key":{"n":1},"f":{"a":2}}'
    edge.upsert("others", [Point(pin(1), late)])
    assert edge.count("others", Match("key.n", 1)) == 1
    (point,) = edge.get_many("others", [pin(1)])
    assert point is not None
    assert point.payload == {"view": "v", "key": {"n": 1}, "f": {"a": 2}}
