"""Answers come back from JSON and Arrow as they were."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from test_clients import assert_same

from feature_repo.errors import PinfeatherError
from serving_client.answers import Embeddings, FeatureTable, PinExplanation, Scores, SearchResults
from serving_client.http.schemas import schema_of
from serving_client.http.wire import from_arrow, from_json, to_arrow, to_bytes

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
times = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
plain = st.one_of(st.none(), texts, st.integers(), st.booleans(), times, st.binary(max_size=4))
values = plain | st.lists(times, max_size=2)


def floats(width):
    return st.floats(width=width, allow_infinity=False)


@st.composite
def embeddings(draw):
    n, d = draw(st.integers(0, 4)), draw(st.integers(1, 5))
    found = draw(hnp.arrays(np.bool_, n))
    vectors = draw(hnp.arrays(np.float32, (n, d), elements=st.floats(-1, 1, width=32)))
    vectors[~found] = np.nan
    micros = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 10**15))).astype("datetime64[us]")
    micros[~found] = np.datetime64("NaT")
    ids = tuple(draw(st.lists(texts, min_size=n, max_size=n)))
    return Embeddings(ids, vectors, found, draw(texts), draw(texts), draw(st.sampled_from([None, micros])))


@given(embeddings())
def test_vectors_by_arrow(answer):
    assert_same(answer, from_arrow(to_arrow(answer)))


@given(embeddings().filter(lambda answer: len(answer.ids)))
def test_vectors_by_json(answer):
    assert_same(answer, from_json(Embeddings, json.loads(to_bytes(answer))))


@given(st.dictionaries(texts, values, max_size=4), st.integers(0, 2))
def test_features_of_any_type(row, n):
    stamps = {"view": np.array(["2026-05-01T12:00:00.5", "NaT"][:n], dtype="datetime64[us]")}
    columns = {name: [value] * n for name, value in row.items()}
    table = FeatureTable(("a", "b")[:n], "service", np.ones(n, dtype=np.bool_), columns, stamps)
    assert_same(table, from_json(FeatureTable, json.loads(to_bytes(table))))


@given(st.integers(0, 3).flatmap(lambda n: st.tuples(st.just(n), hnp.arrays(np.float64, (n, 5), elements=floats(64)))))
def test_scores(drawn):
    n, probabilities = drawn
    explanation = PinExplanation({"cosine": 0.25, "bm25": -1.5}, 0.5, 2.0)
    scores = Scores(
        "sofa",
        tuple("abc"[:n]),
        np.zeros(n, dtype=np.bool_),
        np.full(n, np.nan),
        probabilities,
        np.linspace(1, 5, n),
        np.arange(n),
        "student",
        None,
        "bundle",
        np.full(n, 0.1, dtype=np.float32),
        explanations=(explanation, None, explanation)[:n],
        degraded=("no_space: none",),
    )
    assert_same(scores, from_json(Scores, json.loads(to_bytes(scores))))


@dataclass(frozen=True)
class Odd:
    age: timedelta
    pair: tuple[int, str]
    either: int | str | None
    vector: NDArray[np.float32]
    content: dict[str, Any]
    more: int = 7


def test_a_newer_service_may_say_more_and_an_older_one_less():
    odd = Odd(timedelta(seconds=1.5), (1, "a"), None, np.array([0.5, np.inf], np.float32), {"x": float("nan")})
    data = json.loads(to_bytes(odd))
    assert data["vector"] == [0.5, None]
    assert data["content"] == {"x": None}
    del data["more"]
    back = from_json(Odd, data | {"novelty": 1})
    assert (back.age, back.pair, back.either, back.more) == (odd.age, odd.pair, None, 7)
    assert schema_of(Odd)["properties"]["age"]["type"] == "number"


def test_every_text_is_ascii_on_the_way_also_half_a_character():
    for text in ("sofa", "\u2028 ☃ 🪴", "\ud800", '\x00\x1b"'):
        written = to_bytes({text: [text, None, 0.1, float("inf"), 10**30]})
        assert written.isascii()
        assert json.loads(written) == {text: [text, None, 0.1, None, 10**30]}


def test_what_is_no_answer_says_so():
    for wrong in ({}, [], None, {"query": "sofa"}, {"hits": [1]}):
        with pytest.raises(PinfeatherError, match="SearchResults"):
            from_json(SearchResults, wrong)
    for data in (b"", b"nonsense"):
        with pytest.raises(PinfeatherError, match="no Arrow stream"):
            from_arrow(data)
    with pytest.raises(TypeError, match="object has no form"):
        to_bytes({"a": object()})
