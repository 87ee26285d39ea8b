"""Filtered searches that look at the nearest of all points first: the same answers, whatever matches, ties included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_edge import HasIdCondition
from store_samples import pin

from materialize.stores import edge_search
from materialize.stores.edge import EdgeStore
from materialize.stores.port import (
    And,
    CollectionSpec,
    Condition,
    DistanceName,
    Hit,
    Match,
    Not,
    Or,
    Point,
    Range,
    VectorSpec,
)

COUNT = 400
"""Enough for a first look at 100."""
METRICS: tuple[DistanceName, ...] = ("dot", "euclid")
chance = random.Random(7)
# Whole numbers between -2 and 2: many points are equally near, and scores are exact.
VECTORS = np.array([[chance.randint(-2, 2) for _ in range(3)] for _ in range(COUNT)], np.float32)
PAYLOADS = [
    {
        "lang": chance.choice(["en", "de", "fr", "pt"]),
        "n": n % 50,
        "loose": n % 3,
        **({"rare": 1} if n % 80 == 0 else {}),
    }
    for n in range(COUNT)
]
IDS = [pin(n) for n in range(COUNT)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeStore]:
    """The points by each metric; every eighth has no vector."""
    opened = EdgeStore(tmp_path_factory.mktemp("search"))
    for metric in METRICS:
        indexes = {"lang": "keyword", "n": "integer", "rare": "integer"}
        opened.create(metric, CollectionSpec({"vector": VectorSpec(3, metric)}, indexes=indexes))  # type: ignore[arg-type]
        opened.upsert(
            metric,
            [Point(IDS[n], PAYLOADS[n], {"vector": VECTORS[n]} if n % 8 else {}) for n in range(COUNT)],
        )
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the nearest of all first, however few points there are."""
    monkeypatch.setattr(edge_search, "FEWEST", 0)
    monkeypatch.setattr(edge_search, "_DEAR", 0.0)


leaves = (
    st.builds(Match, st.just("lang"), st.sampled_from(["en", "de", "fr", "no"]))
    | st.builds(lambda chosen: Match("lang", any_of=chosen), st.lists(st.sampled_from(["en", "de"]), min_size=1))
    | st.builds(lambda low, high: Range("n", gte=low, lt=high), st.integers(0, 50), st.integers(0, 50))
    | st.builds(lambda most: Range("loose", lte=most), st.integers(-1, 2))
    | st.just(Match("rare", 1))
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=4,
)


def holds(condition: Condition, payload: dict[str, object]) -> bool:
    match condition:
        case And(parts):
            return all(holds(part, payload) for part in parts)
        case Or(parts):
            return any(holds(part, payload) for part in parts)
        case Not(inner):
            return not holds(inner, payload)
        case Match(key, value, any_of):
            return key in payload and payload[key] in ([value] if any_of is None else any_of)
        case Range(key):
            number = payload.get(key)
            return (
                isinstance(number, int)
                and number >= (condition.gte if condition.gte is not None else number)
                and number <= (condition.lte if condition.lte is not None else number)
                and number < (condition.lt if condition.lt is not None else number + 1)
            )


def nearest(metric: str, query: np.ndarray, condition: Condition) -> list[float]:
    """Scores of all points that match, nearest first."""
    matching = [n for n in range(COUNT) if n % 8 and holds(condition, PAYLOADS[n])]
    if metric == "dot":
        return sorted((float(VECTORS[n] @ query) for n in matching), reverse=True)
    return sorted(float(np.sqrt(((VECTORS[n] - query) ** 2).sum(), dtype=np.float32)) for n in matching)


@settings(deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    query=st.lists(st.integers(-3, 3), min_size=3, max_size=3),
    limit=st.integers(1, 40),
    condition=conditions,
)
def test_the_answer_is_that_of_all_points_compared(
    store: EdgeStore, metric: DistanceName, query: list[int], limit: int, condition: Condition
) -> None:
    vector = np.array(query, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_search, "_LEAST", 1)
        patch.setattr(edge_search, "_SPARE", 1)  # about half of the first looks do not find enough
        hits = store.search(metric, vector, limit, filter=condition, exact=True)
        assert store.search(metric, vector, limit, filter=condition, exact=True) == hits  # which of equals, too
    expected = nearest(metric, vector, condition)[:limit]
    assert [hit.score for hit in hits] == pytest.approx(expected, rel=1e-6)
    assert len({hit.id for hit in hits}) == len(hits)
    assert all(holds(condition, hit.payload) for hit in hits)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Limits and filters of the engine's searches, where the nearest of all points are looked at first."""
    seen: list[tuple[int, str]] = []

    def counting(ask: edge_search.Ask, limit: int, first: int, condition: Condition) -> list[object]:
        def asking(most: int, matching: Any, bare: bool) -> Any:
            among = matching is not None and any(isinstance(part, HasIdCondition) for part in matching.must or ())
            seen.append((most, "all" if matching is None else "some" if among else "filter"))
            return ask(most, matching, bare)

        return honest(asking, limit, first, condition)  # type: ignore[return-value]

    honest = edge_search.nearest_matching
    monkeypatch.setattr("materialize.stores.edge_collection.nearest_matching", counting)
    return seen


def find(store: EdgeStore, condition: Condition, limit: int = 5) -> list[Hit]:
    return store.search("dot", np.array([1, 2, 0.5], np.float32), limit, filter=condition)


def test_what_is_near_enough_compares_all_vectors_once(store: EdgeStore, asked: list[tuple[int, str]]) -> None:
    assert len(find(store, Not(Match("lang", "en")))) == 5
    assert asked == [(100, "all"), (100, "some"), (5, "some")]


def test_too_few_that_match_takes_the_engine_s_own_way(store: EdgeStore, asked: list[tuple[int, str]]) -> None:
    far = Range("loose", gt=5)  # no index says that there are none
    assert find(store, far, limit=1) == []
    assert asked == [(100, "all"), (100, "some"), (1, "filter")]


def test_of_equally_near_ones_the_same_are_found_each_time(store: EdgeStore, asked: list[tuple[int, str]]) -> None:
    zero = np.zeros(3, np.float32)  # all are as near
    hits = store.search("dot", zero, 5, filter=Not(Match("lang", "en")))
    assert [hit.score for hit in hits] == [0.0] * 5
    for _ in range(5):
        assert store.search("dot", zero, 5, filter=Not(Match("lang", "en"))) == hits
    assert asked == [(100, "all"), (100, "some"), (5, "some")] * 6


@pytest.mark.parametrize(
    "condition",
    [Match("rare", 1), Match("lang", "en"), And((Match("rare", 1), Not(Match("lang", "en"))))],
    ids=["few", "a quarter", "few of two conditions"],
)
def test_what_an_index_narrows_down_is_left_to_the_engine(
    store: EdgeStore, asked: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, condition: Condition
) -> None:
    monkeypatch.setattr(edge_search, "_DEAR", 0.7)
    matching = sum(holds(condition, PAYLOADS[n]) for n in range(COUNT) if n % 8)
    assert len(find(store, condition)) == min(5, matching)
    assert asked == []


def test_small_collections_and_large_limits_are_left_to_the_engine(
    store: EdgeStore, asked: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    often = partial(find, store, Not(Match("lang", "en")))
    assert len(often(limit=100)) == 100  # nearly everything would have to be looked at
    monkeypatch.setattr(edge_search, "FEWEST", COUNT + 1)
    assert len(often()) == 5
    assert asked == []


def test_points_that_change_between_the_steps_are_made_up_for() -> None:
    asked: list[tuple[int, bool]] = []

    def ask(limit: int, matching: Any, bare: bool) -> Any:
        asked.append((limit, bare))
        few = len(asked) == 3  # of those that were chosen one is gone by now
        return [engine_hit(n) for n in range(limit - few)]

    class engine_hit:  # noqa: N801 - what the engine gives, as far as it is looked at
        def __init__(self, number: int) -> None:
            self.id = IDS[number]

    hits = edge_search.nearest_matching(ask, 5, 100, Match("lang", "en"))
    assert [str(hit.id) for hit in hits] == IDS[:5]
    assert asked == [(100, True), (100, True), (5, False), (5, False)]
