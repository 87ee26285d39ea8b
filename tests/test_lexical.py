"""Scores by words: BM25 beside rank-bm25 and by hand, matches, features."""

import math

import numpy as np
import pytest
from conftest import examples, random_examples
from hypothesis import given
from hypothesis import strategies as st
from lexical_pins import blob, documents, pin, pins, texts_of
from rank_bm25 import BM25Okapi

from feature_repo.errors import UsageError
from feature_repo.lexical import (
    FEATURE_NAMES,
    LEXICAL_FIELDS,
    LexicalStatistics,
    bm25_ranking,
    bm25_scores,
    decode_blobs,
    encode_blob,
    lexical_features,
    phrase_match,
    query_ids,
    text_match,
    tokenize,
)

# --- BM25 beside rank-bm25


def assert_equals_rank_bm25(corpus, query):
    """``corpus`` of PinFields: per field, ours in okapi mode equals rank-bm25 over the pins that have the field."""
    blobs = [encode_blob(fields) for fields in corpus]
    scores = bm25_scores(query_ids(query), decode_blobs(blobs), LexicalStatistics.fit(blobs), "okapi")
    for column in range(len(LEXICAL_FIELDS)):
        tokens = [tokenize(texts_of(fields)[column]) for fields in corpus]
        present = [row for row, words in enumerate(tokens) if words]
        assert np.flatnonzero(~np.isnan(scores[:, column])).tolist() == present
        if present:
            expected = BM25Okapi([tokens[row] for row in present]).get_scores(tokenize(query))
            np.testing.assert_allclose(scores[present, column], expected, rtol=0, atol=1e-6)


@examples(40, 400)
def test_okapi_mode_equals_rank_bm25(examples):
    random_examples(examples, st.lists(pins, min_size=1, max_size=8), documents)(assert_equals_rank_bm25)()


@pytest.mark.parametrize(
    ("titles", "query"),
    [
        (["oak rug", "oak", "oak sofa lamp"], "oak"),  # in all documents: epsilon of the mean
        (["oak rug", "oak", "oak sofa lamp", "rug"], "oak rug rug"),  # negative, exactly half (0), twice in the query
        (["oak rug", "lamp"], "sofa"),  # in no document
        (["oak rug", "lamp"], ""),
        (["绿色沙发", "绿茶", "sofa"], "绿色"),
        (["rug " * 700, "oak", "sofa lamp"], "rug"),  # capped on our side
    ],
)
def test_okapi_corner_cases(titles, query):
    assert_equals_rank_bm25([pin(" ".join(tokenize(title)[:512])) for title in titles], query)


def test_okapi_mode_on_real_pairs(shared_data):
    path = shared_data / "crowdflower" / "dev_pairs.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    import pyarrow.parquet as pq

    rows = pq.read_table(path, columns=["query", "title", "description_text"]).slice(0, 300).to_pylist()
    corpus = [pin(row["title"], description=(row["description_text"] or "")[:800]) for row in rows]
    for row in rows[:5]:
        assert_equals_rank_bm25(corpus, row["query"])


@given(st.lists(st.lists(st.integers(0, 30).map(str), max_size=20).map(" ".join), min_size=1, max_size=6))
def test_long_queries_are_scored_like_short_ones(titles):
    long_query = " ".join(str(number) for number in range(5, 30))
    assert_equals_rank_bm25([pin(title) for title in titles], long_query)


# --- BM25 and matches of our own


def test_tokens_that_came_after_the_statistics():
    """A pin newer than the snapshot: rank-bm25 gives an unknown word nothing, Lucene takes it for the rarest."""
    fitted = LexicalStatistics.fit([blob("oak rug"), blob("lamp"), blob("sofa")])
    tokens = decode_blobs([blob("hammock oak", description="oak")])
    for word in ("hammock", "zebra", "aardvark", "swing"):
        assert bm25_scores(query_ids(word), tokens, fitted, "okapi")[0, 0] == 0
    assert bm25_scores(query_ids("oak"), tokens, fitted, "okapi")[0, 1] == 0  # known, but in no description
    scores = bm25_scores(query_ids("hammock"), tokens, fitted)
    assert scores[0, 0] == pytest.approx(math.log(1 + 3.5 / 0.5) / (1 + 1.2 * (0.25 + 0.75 * 2 / (4 / 3))))
    assert scores[0, 0] > bm25_scores(query_ids("oak"), tokens, fitted)[0, 0]


def test_lucene_scores_by_hand():
    blobs = [blob("oak oak rug"), blob("oak"), blob("sofa lamp"), blob(description="oak")]
    fitted = LexicalStatistics.fit(blobs)
    scores = bm25_scores(query_ids("oak sofa"), decode_blobs(blobs), fitted)
    oak, sofa, average = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5), 6 / 3  # the fourth pin has no title
    expected = [
        oak * 2 / (2 + 1.2 * (0.25 + 0.75 * 3 / average)),
        oak * 1 / (1 + 1.2 * (0.25 + 0.75 * 1 / average)),
        sofa * 1 / (1 + 1.2 * (0.25 + 0.75 * 2 / average)),
    ]
    np.testing.assert_allclose(scores[:3, 0], expected, rtol=1e-12)
    assert math.isnan(scores[3, 0])
    twice = bm25_scores(query_ids("oak sofa oak sofa"), decode_blobs(blobs), fitted)
    np.testing.assert_allclose(twice[:3, 0], 2 * scores[:3, 0])


@given(st.lists(st.none() | pins, min_size=1, max_size=8), documents, st.randoms())
def test_order_of_candidates_and_query_words_does_not_matter(candidates, query, random):
    blobs = [None if fields is None else encode_blob(fields) for fields in candidates]
    order, shuffled = random.sample(range(len(blobs)), len(blobs)), query.split()
    random.shuffle(shuffled)
    fitted = LexicalStatistics.fit(blobs)
    assert LexicalStatistics.fit([blobs[row] for row in order]).digest == fitted.digest
    for variant in ("lucene", "okapi"):
        scores = bm25_scores(query_ids(query), decode_blobs(blobs), fitted, variant)
        moved = bm25_scores(query_ids(" ".join(shuffled)), decode_blobs([blobs[row] for row in order]), fitted, variant)
        np.testing.assert_allclose(moved, scores[order], rtol=1e-9)


@given(pins, pins, documents)
def test_a_pins_score_does_not_depend_on_its_neighbours(one, other, query):
    fitted = LexicalStatistics.fit([encode_blob(one), encode_blob(other), blob("oak table")])
    alone, _ = lexical_features(query, [encode_blob(one)], fitted)
    among, _ = lexical_features(query, [encode_blob(other), None, encode_blob(one)], fitted)
    np.testing.assert_array_equal(alone[0], among[2])


def test_text_match_counts_distinct_tokens_and_phrase_match_whole_queries():
    tokens = decode_blobs([blob("green oak table", description="oak green table"), blob("table", boards=["oak"]), None])
    match = text_match(query_ids("oak table oak lamp"), tokens)
    np.testing.assert_allclose(match[0, :2], [2 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(match[1, [0, 4]], [1 / 3, 1 / 3], rtol=1e-6)
    assert np.isnan(match[2]).all()
    phrase = phrase_match(query_ids("oak table"), tokens)
    assert phrase[0, :2].tolist() == [1, 0]
    assert phrase[1, [0, 4]].tolist() == [0, 0]  # never across fields
    assert np.isnan(phrase[2]).all()
    assert phrase_match(query_ids("table " * 50), tokens)[0, 0] == 0


def test_phrase_match_does_not_run_on_into_the_next_candidate():
    tokens = decode_blobs([blob("green oak"), blob("table")])
    assert phrase_match(query_ids("oak table"), tokens)[:, 0].tolist() == [0, 0]


def test_empty_corpus_empty_query_and_no_candidates():
    nothing = LexicalStatistics.fit([])
    one = decode_blobs([blob("oak")])
    assert bm25_scores(query_ids("oak"), one, nothing, "okapi")[0, 0] == 0
    assert math.isfinite(bm25_scores(query_ids("oak"), one, nothing)[0, 0])
    assert bm25_scores(query_ids(""), one, nothing)[0, 0] == 0
    assert text_match(query_ids("?!"), one)[0, 0] == 0
    assert phrase_match(query_ids("?!"), one)[0, 0] == 0
    for query in ("", "oak"):
        assert lexical_features(query, [], nothing)[0].shape == (0, len(FEATURE_NAMES))
        assert np.isfinite(lexical_features(query, [blob("oak")], nothing)[0][0, 0])
    with pytest.raises(UsageError, match="lucene and okapi"):
        bm25_scores(query_ids("oak"), one, nothing, "plus")


# --- features


def test_features_say_what_their_names_say():
    blobs = [
        blob("oak table", queries=["oak table", "rug"]),
        blob("lamp", description="a table of oak"),
        blob("sofa"),
        None,
        blob("!!!"),
    ]
    matrix, names = lexical_features("Oak Table", blobs, LexicalStatistics.fit(blobs))
    assert names == FEATURE_NAMES
    assert matrix.dtype == np.float32
    rows = [dict(zip(names, row.tolist(), strict=True)) for row in matrix]
    assert rows[0]["match_title"] == rows[0]["match_queries"] == rows[0]["phrase_title"] == rows[0]["phrase_any"] == 1
    assert rows[1]["match_all"] == rows[1]["match_description"] == rows[1]["weighted_match_all"] == 1
    assert rows[1]["phrase_any"] == rows[1]["bm25_title"] == 0
    assert rows[2]["match_all"] == rows[2]["bm25_all"] == rows[2]["bm25_all_share"] == 0
    assert 0 < rows[1]["bm25_all_share"] < rows[0]["bm25_all_share"] < 1
    assert math.isnan(rows[0]["bm25_caption"]) and math.isnan(rows[2]["match_description"])
    for empty in (rows[3], rows[4]):
        assert {name for name, value in empty.items() if not math.isnan(value)} == {"query_tokens", "query_rarity"}
    assert rows[0]["title_tokens"] == pytest.approx(math.log(3))
    assert bm25_ranking("oak table", blobs, LexicalStatistics.fit(blobs)).argsort()[::-1][:2].tolist() == [0, 1]
    assert bm25_ranking("oak table", blobs, LexicalStatistics.fit(blobs))[3:].tolist() == [0, 0]


@given(st.lists(st.none() | pins, max_size=6), documents)
def test_features_stay_in_their_ranges(candidates, query):
    blobs = [None if fields is None else encode_blob(fields) for fields in candidates]
    matrix, names = lexical_features(query, blobs, LexicalStatistics.fit(blobs))
    assert not np.isinf(matrix).any()
    assert (matrix[~np.isnan(matrix)] >= 0).all()
    shares = [place for place, name in enumerate(names) if name.startswith(("match", "weighted", "phrase"))]
    assert (np.nan_to_num(matrix[:, [*shares, names.index("bm25_all_share")]]) <= 1 + 1e-6).all()
