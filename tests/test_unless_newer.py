"""An index that says what is newest saves the look at single rows, and changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as engine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from store_samples import pin

from materialize.stores.edge import EdgeStore
from materialize.stores.points import CollectionSpec, Point

NUMBERS = st.integers(-3, 3) | st.sampled_from([-(2**63), 2**53 + 1, 2**62, 2**63 - 1])
ODD = st.sampled_from([None, "9", 9.5, [1, 9], True, 2**63])
IDS = st.integers(0, 4)
STEPS = st.lists(
    st.tuples(st.just("newer"), st.lists(st.tuples(IDS, NUMBERS), max_size=4))
    | st.tuples(st.just("any"), st.lists(st.tuples(IDS, NUMBERS | ODD), max_size=3))
    | st.tuples(st.just("delete"), st.lists(IDS, min_size=1, max_size=3))
    | st.tuples(st.just("reopen"), st.just([])),
    max_size=8,
)


@settings(deadline=None, max_examples=40)
@example([("newer", [(0, t)]) for t in (1, 1, 3, 2)])
@example([("newer", [(0, 1)]), ("newer", [(0, 1)]), ("any", [(0, 3)]), ("newer", [(0, 2)])])
@given(STEPS)
def test_with_an_index_as_without(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("newer")
    store = EdgeStore(folder)
    store.create("indexed", CollectionSpec(indexes={"t": "integer"}))
    store.create("plain", CollectionSpec())
    for turn, (step, rows) in enumerate(steps):
        if step == "reopen":
            store.close()
            store = EdgeStore(folder)
        for name in ("indexed", "plain"):
            if step == "delete":
                store.delete(name, ids=[pin(number) for number in rows])
            elif step != "reopen":
                points = [Point(pin(number), {"t": t, "turn": turn}) for number, t in rows]
                store.upsert(name, points, unless_newer="t" if step == "newer" else None)
    indexed, plain = (store.get_many(name, [pin(number) for number in range(5)]) for name in ("indexed", "plain"))
    store.close()
    assert [point and point.payload for point in indexed] == [point and point.payload for point in plain]


def test_rows_in_the_order_of_time_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    condition = engine.HasIdCondition

    def counted(ids: Any) -> Any:
        looks.append(len(ids))
        return condition(ids)

    monkeypatch.setattr(engine, "HasIdCondition", counted)
    for turn in range(2):  # a folder that is opened again knows it from its index
        store = EdgeStore(tmp_path)
        store.create("rows", CollectionSpec(indexes={"t": "integer"}))
        for t in (5, 5, 7):
            store.upsert("rows", [Point(pin(n), {"t": t + 2 * turn, "n": n}) for n in range(3)], unless_newer="t")
        assert looks == []
        store.close()
    store = EdgeStore(tmp_path)
    store.upsert("rows", [Point(pin(0), {"t": 8}), Point(pin(1), {"t": 9})], unless_newer="t")
    assert looks == [2]
    assert [point and point.payload for point in store.get_many("rows", [pin(0), pin(1)])] == [
        {"t": 9, "n": 0},
        {"t": 9},
    ]
    store.close()
