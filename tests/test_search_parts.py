"""The parts of a search that need no repository: fusion, blending, cursors, filters, the words of a pin."""

import base64
import json
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.aggregates import engagement
from feature_repo.errors import UsageError
from feature_repo.lexical import encode_blob, token_id
from feature_repo.pin_text import PinFields
from feature_repo.text import QUERY_CHARACTERS, canonical_query
from materialize.stores.feast_text import document_vector
from materialize.stores.port import And, Match, Range
from materialize.words import pin_words, query_words
from serving_client.filters import filter_of
from serving_client.search.blending import ORDINARY_CLICKS, ORDINARY_SAVES, blended, engagement_prior
from serving_client.search.cursors import Cursor, digest_of, place_of
from serving_client.search.retrieval import fused

LEVELS = st.floats(1, 5)


# --- fusion ---


def test_reciprocal_ranks_add_up():
    both = fused([["a", "b", "c"], ["c", "d"]])
    assert both == ["c", "a", "b", "d"]  # 1/61 + 1/63; 1/61; 1/62; 1/62
    assert fused([["b", "a"]]) == ["b", "a"]
    assert fused([["b", "a"], ["a", "b"]]) == ["a", "b"]  # of equals the lower id, whichever list comes first
    assert fused([]) == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), min_size=2, max_size=3))
def test_fusion_keeps_every_pin_once_and_likes_those_that_are_better_everywhere(lists):
    merged = fused(lists)
    assert sorted(merged) == sorted({pin for each in lists for pin in each})
    for better in merged:
        for worse in merged:
            if all(better in each and (worse not in each or each.index(better) < each.index(worse)) for each in lists):
                assert merged.index(better) < merged.index(worse)


# --- blending ---


def test_the_prior_knows_the_ordinary_pin():
    ordinary = (engagement.PRIOR_CLICKS, engagement.PRIOR_SAVES)
    assert [rate / engagement.PRIOR_IMPRESSIONS for rate in ordinary] == [ORDINARY_CLICKS, ORDINARY_SAVES]
    clicks, saves = np.array([0.05, np.nan, 0.1, 0, 1]), np.array([0.02, np.nan, 0.04, 0, 1])
    assert np.allclose(engagement_prior(clicks, saves), [0.5, 0.5, 2 / 3, 0, 35 / 36])


@given(
    st.lists(st.tuples(LEVELS, st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    st.floats(0, 1e6),
    LEVELS,
)
def test_no_pin_below_the_floor_passes_one_above_it(pins, weight, floor):
    expected, clicks, saves = (np.array(column) for column in zip(*pins, strict=True))
    prior = engagement_prior(clicks, saves)
    scores = blended(expected, prior, weight, floor)
    assert ((prior >= 0) & (prior < 1)).all()
    below = expected < floor
    if below.any() and not below.all():
        assert scores[below].max() < scores[~below].min()
    assert (scores[below] == expected[below]).all()
    assert (scores >= expected).all()
    assert (scores <= expected + weight).all()


# --- cursors ---

CURSOR = Cursor(7, digest_of(("shop", "sofa")), "student", 10, place_of(3.25, 0.5, "p1"))
PLACES = st.builds(place_of, st.floats(-5, 5), st.one_of(st.floats(-1, 1), st.just(float("nan"))), st.text(max_size=8))


@given(PLACES, st.integers(0, 2**40), st.integers(0, 10_000), st.sampled_from(["student", "bm25"]))
def test_a_cursor_comes_back_as_it_was(place, publication, shown, scorer):
    cursor = Cursor(publication, "abc", scorer, shown, place)
    assert Cursor.decode(cursor.encode(), "abc") == cursor
    assert cursor.encode().replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "body",
    [
        '[1,Infinity,"r","student",1,1,1,"p"]',
        '[1,1,"r","student",Infinity,1,1,"p"]',
        '[1,1,"r","student",-5,1,1,"p"]',
        "[" * 2900,
    ],
)
def test_a_forged_cursor_is_refused(body):
    """Anybody can compute the digest in front of it."""
    raw = xxhash.xxh3_64_digest(body.encode()) + body.encode()
    with pytest.raises(UsageError, match="cannot be read"):
        Cursor.decode(base64.urlsafe_b64encode(raw).decode().rstrip("="), "r")


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_damaged_cursor_is_refused(at, flip):
    text = bytearray(CURSOR.encode().encode())
    text[at % len(text)] ^= flip
    if text.decode("latin-1") != CURSOR.encode():
        with pytest.raises(UsageError, match="cursor"):
            Cursor.decode(text.decode("latin-1"), CURSOR.request)


@pytest.mark.parametrize("text", ["", "=", "sofa", "ü", "A" * 5000, 7, None, CURSOR.encode()[:-4], CURSOR.encode() * 2])
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(UsageError, match="cannot be read"):
        Cursor.decode(text, CURSOR.request)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=8)))
def test_a_forged_cursor_is_refused_or_is_a_cursor(body):
    content = json.dumps(body).encode()
    text = base64.urlsafe_b64encode(xxhash.xxh3_64_digest(content) + content).decode()
    with pytest.raises(UsageError):
        Cursor.decode(text, "never")


def test_a_cursor_of_another_search_is_refused():
    with pytest.raises(UsageError, match="another search"):
        Cursor.decode(CURSOR.encode(), digest_of(("shop", "lamp")))


def test_the_next_page_begins_after_the_last_pin_whatever_the_last_bits_of_its_score():
    cursor = Cursor(1, "r", "student", 2, place_of(3.5, 0.5, "p2"))
    places = [place_of(4, 0.9, "p1"), place_of(3.5 - 1e-9, 0.5 - 1e-7, "p2"), place_of(3, 0.4, "p3")]
    assert cursor.start(places, "student", 1) == 2
    assert cursor.start(places, "student", 2) == 1  # another publication: below that score


@given(st.lists(PLACES, unique_by=lambda place: place[2], max_size=30), st.integers(1, 7), st.integers(1, 2))
def test_pages_of_one_order_show_everything_once(places, limit, publication):
    places, shown, cursor = sorted(places), [], None
    while True:
        start = cursor.start(places, "student", publication) if cursor else 0
        page = places[start : start + limit]
        shown += page
        if start + len(page) >= len(places):
            break
        text = Cursor(1, "r", "student", start + len(page), page[-1]).encode()
        cursor = Cursor.decode(text, "r")
    assert shown == places


# --- filters ---


def test_filters_are_conditions_of_the_store():
    assert filter_of() is None
    micros = 1_767_225_600_000_000
    parts = (Match("lang", any_of=["de"]), Match("country", any_of=["US", "GB"]), Range("created_at", gte=micros))
    asked = filter_of(lang="de", country=("US", "GB"), created_after="2026-01-01", safe=False)
    assert asked == And((*parts, Match("safe", False)))
    for same in (
        datetime(2026, 1, 1),
        datetime(2026, 1, 1, tzinfo=UTC),
        date(2026, 1, 1),
        pd.Timestamp("2026-01-01"),
        "2026-01-01T01:00:00+01:00",
        " 2026-01-01T00:00:00Z ",
    ):
        assert filter_of(created_after=same) == And((Range("created_at", gte=micros),)), same


@pytest.mark.parametrize(
    "wrong",
    [
        {"lang": []},
        {"lang": ""},
        {"lang": 5},
        {"lang": ["en", None]},
        {"lang": float("nan")},
        {"country": ["US", float("nan")]},
        {"country": "U\x00S"},
        {"country": ["x"] * 101},
        {"created_after": "yesterday"},
        {"created_after": float("nan")},
        {"created_after": pd.NaT},
        {"created_after": 1_767_225_600},
        {"created_after": "0001-01-01T00:00:00+10:00"},
        {"safe": "yes"},
        {"safe": 1},
        {"safe": float("nan")},
    ],
)
def test_a_wrong_filter_is_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        filter_of(**wrong)


@given(st.none() | st.text() | st.floats() | st.integers() | st.lists(st.none() | st.text() | st.floats()))
def test_no_filter_breaks(value):
    for name in ("lang", "country", "created_after", "safe"):
        try:
            filter_of(**{name: value})
        except UsageError as error:
            assert len(str(error)) < 100_000


# --- words ---


def test_the_words_of_a_pin_weigh_as_those_of_a_document():
    fields = PinFields(title="Oak shelf, oak", board_titles=("Shelf ideas",), engaged_queries=("oak",))
    found = pin_words(encode_blob(fields))
    weights = dict(zip(found.indices.tolist(), found.values.tolist(), strict=True))
    assert sorted(weights) == sorted(token_id(word) for word in ("oak", "shelf", "ideas"))
    reference = document_vector(["oak shelf oak", "shelf ideas", "oak"])
    assert np.allclose(sorted(weights.values()), sorted(reference.values))
    assert weights[token_id("oak")] > weights[token_id("shelf")] > weights[token_id("ideas")]
    assert pin_words(encode_blob(PinFields(title="!!"))) is None


def test_the_words_of_a_query_are_counted():
    found = query_words("oak Oak shelf")
    assert dict(zip(found.indices.tolist(), found.values.tolist(), strict=True)) == {
        token_id("oak"): 2,
        token_id("shelf"): 1,
    }
    assert query_words("--- !") is None


# --- the canonical query is bounded ---


@given(st.text() | st.builds(lambda text, count: text * count, st.text(max_size=20), st.integers(0, 3_000)))
def test_a_canonical_query_is_short_and_stays_as_it_is(text):
    canonical = canonical_query(text)
    assert len(canonical) <= QUERY_CHARACTERS
    assert canonical_query(canonical) == canonical


def test_a_query_keeps_its_beginning():
    assert canonical_query("Oak " * 50_000) == ("oak " * 250).rstrip()
    assert canonical_query("x" * 1_000) == "x" * 1_000
    assert canonical_query("\x00\x07" * 50_000 + "sofa") == ""
    assert canonical_query("İ" * 1_000) == canonical_query("İ" * 1_000)[:1_000]
