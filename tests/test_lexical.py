"""Tokens, blobs, statistics and BM25: equal to rank-bm25 where it is the reference, and robust where it is not."""

import hashlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import (
    FEATURE_NAMES,
    LEXICAL_FIELDS,
    LEXICAL_VERSION,
    LexicalBlobError,
    LexicalStatistics,
    LexicalStatisticsError,
    LexicalVersionError,
    bm25_ranking,
    bm25_scores,
    decode_blobs,
    encode_blob,
    lexical_features,
    phrase_match,
    query_ids,
    statistics,
    text_match,
    token_id,
    tokenize,
)
from feature_repo.text import words

WORDS = ("oak", "table", "lamp", "rug", "green", "sofa")
documents = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


def pin(title=None, description=None, caption=None, link_title=None, link_description=None, boards=(), queries=()):
    return SimpleNamespace(
        title=title,
        description=description,
        caption=caption,
        link_title=link_title,
        link_description=link_description,
        board_titles=tuple(boards),
        engaged_queries=tuple(queries),
    )


def blob(title=None, **fields):
    return encode_blob(pin(title, **fields))


def texts_of(fields):
    """The text of each lexical field, by the contract."""
    link = " ".join(text for text in (fields.link_title, fields.link_description) if text)
    return (
        fields.title or "",
        fields.description or "",
        fields.caption or "",
        link,
        " ".join(fields.board_titles),
        " ".join(fields.engaged_queries),
    )


texts = st.none() | st.text(max_size=40) | documents
pins = st.builds(
    pin,
    title=texts,
    description=texts,
    caption=texts,
    link_title=texts,
    link_description=texts,
    boards=st.lists(st.text(max_size=12) | documents, max_size=3),
    queries=st.lists(documents, max_size=3),
)


# --- tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (None, []),
        ("", []),
        (" \x00!? -- ", []),
        ("Mid-century OAK_table, 2m", ["mid", "century", "oak", "table", "2m"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("ﬁne ① Ｆｕｌｌｗｉｄｔｈ", ["fine", "1", "fullwidth"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("绿色沙发 sofa", ["绿", "色", "沙", "发", "sofa"]),
        ("かわいい", ["か", "わ", "い", "い"]),
        ("חדר שינה", ["חדר", "שינה"]),
        ("a\ud800b 🪴", ["a", "b"]),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens


@given(st.text(st.characters(max_codepoint=127)))
def test_the_quick_path_for_ascii_cuts_words_like_everything_else(text):
    assert tokenize(text) == words(text.lower())


@given(st.text())
def test_letter_case_never_matters(text):
    assert tokenize(text) == tokenize(text.casefold()) == tokenize(" ".join(tokenize(text)))


def test_ids_are_32_bits_of_a_hash_and_queries_keep_repeats_and_order():
    assert query_ids("Rug oak rug").tolist() == [token_id("rug"), token_id("oak"), token_id("rug")]
    assert query_ids(None).tolist() == []
    assert len(query_ids("rug " * 1000)) == 64
    assert all(0 <= token_id(str(number)) < 2**32 for number in range(100))


# --- blobs


def test_blobs_of_this_version_never_change():
    """If this fails, blobs already stored mean something else now: bump LEXICAL_VERSION, then pin the new digest."""
    sample = blob(
        "Mid-century Oak table",
        description="Straße ﬁne 绿色",
        link_title="shop",
        link_description="now",
        boards=["Rugs", "Living room"],
        queries=["oak table"],
    )
    assert (LEXICAL_VERSION, hashlib.sha256(sample).hexdigest()[:16]) == (2, "88ddbe4a31aad807")


@given(st.lists(st.none() | pins, max_size=5))
def test_round_trip(candidates):
    tokens = decode_blobs([None if fields is None else encode_blob(fields) for fields in candidates])
    assert tokens.lengths.shape == (len(candidates), len(LEXICAL_FIELDS))
    for row, fields in enumerate(candidates):
        for column, text in enumerate(texts_of(fields) if fields else [""] * 6):
            expected = [token_id(token) for token in tokenize(text)]
            assert tokens.ids[tokens.segments == row * 6 + column].tolist() == expected
            assert tokens.lengths[row, column] == len(expected)
            assert tokens.missing[row, column] == (not expected)


def test_fields_can_be_left_out_and_come_in_the_order_asked():
    both = [blob("oak table", description="rug", queries=["lamp"]), blob(description="sofa")]
    tokens = decode_blobs(both, ["queries", "title"])
    assert tokens.fields == ("queries", "title")
    assert tokens.lengths.tolist() == [[1, 2], [0, 0]]
    assert text_match(query_ids("lamp oak"), tokens)[0].tolist() == [0.5, 0.5]
    assert phrase_match(query_ids("oak table"), tokens)[0].tolist() == [0, 1]
    with pytest.raises(UsageError, match="boards"):
        decode_blobs(both, ["title", "colour"])
    with pytest.raises(UsageError, match="once"):
        decode_blobs(both, ["title", "title"])
    with pytest.raises(UsageError, match="one or more"):
        decode_blobs(both, [])


def test_a_field_is_cut_at_its_cap_and_a_megabyte_title_is_no_trouble():
    tokens = decode_blobs([blob("oak " * 300_000, description="ﬁ" * 1_000_000, caption="绿" * 1_000_000)])
    assert tokens.lengths[0].tolist() == [512, 1, 512, 0, 0, 0]


@given(fields=pins, cut=st.integers(min_value=0))
def test_a_truncated_blob_is_named(fields, cut):
    whole = encode_blob(fields)
    with pytest.raises(LexicalBlobError, match="row 1: ") as caught:
        decode_blobs([None, whole[: cut % len(whole)], whole])
    assert caught.value.rows == (1,)


@given(st.lists(st.none() | st.binary(max_size=64) | st.binary(max_size=40).map(lambda tail: b"\1\6PL" + tail)))
def test_garbage_gives_our_error_or_a_consistent_decoding(blobs):
    try:
        tokens = decode_blobs(blobs)
    except (LexicalBlobError, LexicalVersionError) as error:
        assert error.rows
        assert all(blobs[row] is not None for row in error.rows)
    else:
        assert tokens.lengths.sum() == len(tokens.ids) == len(tokens.segments)


def test_a_blob_with_more_or_longer_fields_than_can_be_is_refused():
    with pytest.raises(LexicalBlobError, match=r"row 1: .*differs from its header"):
        decode_blobs([blob("oak"), blob("oak") + b"\0\0\0\0"])
    counts = np.array([513, 0, 0, 0, 0, 0], dtype="<u2").tobytes()
    with pytest.raises(LexicalBlobError, match=r"row 0: .*differs from its header"):
        decode_blobs([blob("oak")[:4] + counts + bytes(4 * 513)])


def test_every_bad_row_is_named_so_that_the_rest_can_be_scored():
    blobs = [blob("oak"), b"??" * 20, blob("rug"), b"??" * 20]
    with pytest.raises(LexicalBlobError, match=r"rows 1, 3: .*pass None") as caught:
        lexical_features("oak", blobs, LexicalStatistics.fit([]))
    kept = [None if row in caught.value.rows else value for row, value in enumerate(blobs)]
    assert decode_blobs(kept).lengths[:, 0].tolist() == [1, 0, 1, 0]
    with pytest.raises(LexicalBlobError, match=r"row 1: .*not float"):
        decode_blobs([blob("oak"), float("nan")])
    with pytest.raises(LexicalBlobError, match=r"rows 0, 1, 2 and 7 more: 0 bytes"):
        decode_blobs([b""] * 10)


def test_a_blob_of_another_version_is_refused():
    newer = bytes([LEXICAL_VERSION + 1]) + blob("oak")[1:]
    with pytest.raises(
        LexicalVersionError, match="row 2: lexical blob of version 3, this Pinfeather reads 2"
    ) as caught:
        decode_blobs([blob("oak"), None, newer])
    assert caught.value.rows == (2,)
    assert isinstance(caught.value, PinfeatherError)


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


@settings(max_examples=200)
@given(st.lists(pins, min_size=1, max_size=8), documents)
def test_okapi_mode_equals_rank_bm25(corpus, query):
    assert_equals_rank_bm25(corpus, query)


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


# --- statistics snapshots


def test_statistics_count_documents_that_have_the_field():
    fitted = LexicalStatistics.fit([blob("oak oak", caption="rug"), blob("oak"), blob(caption="oak"), None, blob()])
    named = dict(zip((*LEXICAL_FIELDS, "all"), zip(fitted.documents, fitted.tokens, strict=True), strict=True))
    assert named["title"] == (2, 3)
    assert named["caption"] == (2, 2)
    assert named["all"] == (3, 5)
    oak = fitted.document_frequency[fitted.vocabulary == token_id("oak")][0]
    assert oak[[0, 2, 6]].tolist() == [2, 1, 3]


@given(st.lists(st.none() | pins, max_size=9))
def test_statistics_do_not_depend_on_how_many_blobs_are_counted_at_once(candidates):
    blobs = [None if fields is None else encode_blob(fields) for fields in candidates]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_CHUNK", 2)
        assert LexicalStatistics.fit(iter(blobs)).digest == LexicalStatistics.fit(blobs).digest


def test_a_bad_blob_far_into_the_catalogue_is_named_by_its_row(monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK", 2)
    with pytest.raises(LexicalBlobError, match="row 4: ") as caught:
        LexicalStatistics.fit([blob("oak")] * 4 + [b"x"])
    assert caught.value.rows == (4,)


@given(candidates=st.lists(pins, max_size=5))
def test_save_and_load(tmp_path_factory, candidates):
    folder = tmp_path_factory.mktemp("lexical")
    fitted = LexicalStatistics.fit([encode_blob(fields) for fields in candidates])
    digest = fitted.save(folder / "new")
    assert [path.name for path in (folder / "new").iterdir()] == [f"{digest}.json"]
    loaded = LexicalStatistics.load(folder / "new" / f"{digest}.json")
    assert loaded.digest == fitted.digest == loaded.save(folder)
    assert (folder / f"{digest}.json").read_bytes() == (folder / "new" / f"{digest}.json").read_bytes()
    for name in ("documents", "tokens", "vocabulary", "document_frequency"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))


def test_digest_of_a_known_catalogue_never_changes():
    assert (
        LexicalStatistics.fit([blob("oak table"), blob("rug", boards=["oak"])]).digest
        == "601bd62b8e3e26ec2910afb2763b5b98"
    )


def test_a_damaged_snapshot_is_refused(tmp_path):
    digest = LexicalStatistics.fit([blob("oak table"), blob("rug")]).save(tmp_path)
    path = tmp_path / f"{digest}.json"
    good = path.read_text()
    other = LexicalStatistics.fit([blob("sofa lamp"), blob("rug")]).save(tmp_path)
    other_arrays = json.loads((tmp_path / f"{other}.json").read_text())["arrays"]
    arrays = json.loads(good)["arrays"]
    for bad in (
        "",
        good[: len(good) // 2],
        "[]",
        "{}",
        good.replace(arrays, arrays[:-8]),
        good.replace(arrays, other_arrays),
        good.replace('"terms": 3', '"terms": 2'),
        good.replace('"terms": 3', '"terms": 900000000'),
        good.replace('"terms": 3', '"terms": -1'),
        good.replace('"boards"', '"shelves"'),
    ):
        path.write_text(bad)
        with pytest.raises(LexicalStatisticsError, match=r"lexical fit"):
            LexicalStatistics.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LexicalStatisticsError, match=str(path)):
        LexicalStatistics.load(path)
    with pytest.raises(LexicalStatisticsError, match="no-such-file"):
        LexicalStatistics.load(tmp_path / "no-such-file.json")


def test_a_snapshot_of_another_version_is_refused(tmp_path):
    blobs = [blob("oak")]
    fitted = LexicalStatistics.fit(blobs)
    other = LexicalStatistics(
        fitted.documents, fitted.tokens, fitted.vocabulary, fitted.document_frequency, lexical_version=7
    )
    with pytest.raises(LexicalVersionError, match="version 7, this Pinfeather reads 2"):
        LexicalStatistics.load(tmp_path / f"{other.save(tmp_path)}.json")
    with pytest.raises(LexicalVersionError, match="lexical fit") as caught:
        lexical_features("oak", blobs, other)
    assert caught.value.rows == ()
