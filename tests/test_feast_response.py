"""The dict that a request's rows give directly is the one that Feast makes of the response's protos."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feast_shop import LOCAL, NOON, Shop, entity_key, pinned, proto, statuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_online_store_values import SCALARS, every_value, rows

from materialize import feast_response
from materialize.feast_response import LateResponse
from materialize.stores.row_cache import StoredRow, parts_of
from materialize.stores.session import close_all

pytest_plugins = ["feast_places"]


def as_feast_gives(response: LateResponse) -> dict[str, Any]:
    """The same response's dict, made by Feast from a copy of its protos."""
    from feast.online_response import OnlineResponse

    return OnlineResponse(copy.deepcopy(response).proto, response._feature_types).to_dict()


def same(one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> bool:
    """Equal in keys and their order, values, types, signs of zero; NaN equals NaN."""
    return list(one) == list(other) and all(shown(one[name]) == shown(other[name]) for name in one)


def shown(values: list[Any]) -> list[str]:
    """Values as text, sets in an order of their own."""
    return [repr(sorted(map(repr, value)) if isinstance(value, set) else value) for value in values]


@LOCAL
@pytest.mark.parametrize("metric", ["cosine", "L2", None])
def test_every_type_is_as_feast_gives_it(shop: Shop, metric: str | None) -> None:
    from feast import types

    values = every_value()
    fields: dict[str, Any] = {name: dtype for name, (dtype, _) in values.items()}
    vector = types.Array(types.Float32)
    if metric:
        fields["vector"] = (vector, {"vector_index": True, "vector_length": 40, "vector_search_metric": metric})
    else:
        fields["vector"] = vector
    values["vector"] = (vector, [proto([float(n) + 0.1 for n in range(40)]), proto([-0.1] * 40), proto(None)])
    view = shop.view("values", fields)
    shop.apply(view)
    longest = max(len(protos) for _, protos in values.values())
    shop.write(
        view,
        *(
            (entity_key(pin_id=f"p{row}"), {name: ps[row] for name, (_, ps) in values.items() if row < len(ps)})
            for row in range(longest)
        ),
    )
    features = [f"values:{name}" for name in values]
    pins = [f"p{row}" for row in (*reversed(range(longest)), 99, 0, 0)]  # one that is not there, one thrice
    for full in (False, True):
        response = shop.ask(*features, full_feature_names=full, pin_id=pins)
        assert isinstance(response, LateResponse)
        found = response.to_dict()
        assert same(found, as_feast_gives(response))
        assert next(iter(found)) == "pin_id"
        assert len(found) == 1 + len(values)
    vectors = found["values__vector"]
    assert vectors[-1] == vectors[-2] == values["vector"][1][0].float_list_val.val
    assert vectors[-1] is not vectors[-2]


@LOCAL
def test_any_rows_are_as_feast_gives_them(shop: Shop) -> None:
    from feast import types

    fields: dict[str, Any] = {}
    for name in SCALARS:
        fields[name], fields[f"{name}s"] = getattr(types, name), types.Array(getattr(types, name))
    view = shop.view("values", fields)
    shop.apply(view)
    clock = iter(range(10**6))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(rows(), min_size=1, max_size=4), st.lists(st.integers(0, 5), min_size=1, max_size=8))
    def alike(batch: list[dict[str, Any]], asked: list[int]) -> None:
        at = NOON + timedelta(seconds=next(clock))
        shop.write(view, *((entity_key(pin_id=f"p{n}"), row) for n, row in enumerate(batch)), at=at)
        names = (name for name in fields if "Timestamp" not in name)  # Feast itself fails on far times
        response = shop.ask(*(f"values:{name}" for name in names), pin_id=[f"p{n}" for n in asked])
        assert same(response.to_dict(), as_feast_gives(response))

    alike()


def test_protos_statuses_and_times_are_there_for_whoever_asks(shop: Shop) -> None:
    from feast import types

    shop.apply(
        shop.view("counts", {"clicks": types.Int64}, ttl=timedelta(days=1)),
        shop.view("pins", pinned()),
    )
    shop.push("counts", {"pin_id": "p1", "clicks": 3}, at=NOON)
    shop.push("pins", {"pin_id": "p1", "title": "Oak", "lang": "en", "vector": [0.6, 0.8]})
    names = ("counts:clicks", "pins:title", "pins:vector")
    response = shop.ask(*names, pin_id=["p2", "p1"])
    first = response.to_dict()
    assert first["clicks"] == [None, 3]
    assert first["title"] == [None, "Oak"]
    assert sorted(response.proto.metadata.feature_names.val) == ["clicks", "pin_id", "title", "vector"]
    assert response.proto is response.proto
    assert len(response.proto.results) == 4
    assert statuses(response, "clicks") == ["NOT_FOUND", "OUTSIDE_MAX_AGE"]
    assert statuses(response, "title") == ["NOT_FOUND", "PRESENT"]
    assert same(response.to_dict(), first)
    again = shop.ask(*names, pin_id=["p2", "p1"]).to_dict(include_event_timestamps=True)
    assert again["title__ts"] == [0, int(NOON.timestamp())]
    assert shop.ask(*names, pin_id=["p1"]).to_df().to_dict("list")["clicks"] == [3]


def test_on_demand_views_see_the_protos(shop: Shop) -> None:
    from feast import Field, types
    from feast.on_demand_feature_view import on_demand_feature_view

    counts = shop.view("counts", {"clicks": types.Int64, "views": types.Int64})

    @on_demand_feature_view(
        sources=[counts], schema=[Field(name="rate", dtype=types.Float64)], mode="python", singleton=False
    )
    def rates(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"rate": [clicks / views for clicks, views in zip(inputs["clicks"], inputs["views"], strict=True)]}

    shop.apply(counts, rates)
    shop.push("counts", {"pin_id": "p1", "clicks": 3, "views": 4}, {"pin_id": "p2", "clicks": 1, "views": 2})
    assert shop.read("rates:rate", "counts:clicks", pin_id=["p2", "p1"]) == {
        "pin_id": ["p2", "p1"],
        "rate": [0.5, 0.75],
        "clicks": [1, 3],
    }


def test_a_view_without_rows_or_types_of_its_own(shop: Shop) -> None:
    from feast import types

    shop.apply(shop.view("counts", {"clicks": types.Int64, "at": types.UnixTimestamp}))
    response = shop.ask("counts:clicks", "counts:at", pin_id=["p1"])
    assert response.to_dict() == as_feast_gives(response) == {"pin_id": ["p1"], "clicks": [None], "at": [None]}
    shop.push("counts", {"pin_id": "p1", "at": NOON})
    (found,) = shop.read("counts:at", pin_id=["p1"])["at"]
    assert isinstance(found, datetime)
    assert found == NOON


def test_an_answer_keeps_no_object_of_a_row_for_the_garbage_collector(tmp_path: Path) -> None:
    from feast import types

    shop = Shop(tmp_path, path="online")
    view = shop.view("text", {"title": types.String, "sizes": types.Array(types.Float32)})
    shop.apply(view)
    pins = [f"p{number}" for number in range(200)]
    shop.write(view, *((entity_key(pin_id=pin), {"title": proto("Oak"), "sizes": proto([1.0, 2.0])}) for pin in pins))
    close_all()  # the next read is one of a publication, which keeps rows
    try:
        shop.ask("text:title", "text:sizes", pin_id=["nobody"])  # Feast's own objects
        for _ in range(2):  # rows that were never read, and kept ones
            gc.collect()
            before = len(gc.get_objects())
            response = shop.ask("text:title", "text:sizes", pin_id=pins)
            gc.collect()
            assert len(gc.get_objects()) - before < len(pins) / 2
            assert response.to_dict()["sizes"][-1] == [1.0, 2.0]
    finally:
        close_all()


def test_a_pin_that_is_asked_for_many_times_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from feast import types

    unpacked: list[str] = []

    def counted(row: StoredRow, name: str) -> tuple[dict[str, Any], Any]:
        unpacked.append(name)
        return parts_of(row, name)

    monkeypatch.setattr(feast_response, "parts_of", counted)
    shop = Shop(tmp_path, path="online")
    view = shop.view("text", {"sizes": types.Array(types.Float32)})
    shop.apply(view)
    shop.write(view, *((entity_key(pin_id=pin), {"sizes": proto([1.0, 2.0])}) for pin in ("a", "b")))
    close_all()
    try:
        sizes = shop.ask("text:sizes", pin_id=["a", "nobody", "a", "b", "a"]).to_dict()["sizes"]
    finally:
        close_all()
    assert sizes == [[1.0, 2.0], None, [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    assert sizes[0] is not sizes[2]
    assert len(unpacked) == 3
