"""Tokens of texts, and the blobs that they are stored in."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lexical_pins import blob, pins, texts_of

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import (
    LEXICAL_FIELDS,
    LEXICAL_VERSION,
    LexicalBlobError,
    LexicalStatistics,
    LexicalVersionError,
    decode_blobs,
    encode_blob,
    lexical_features,
    phrase_match,
    query_ids,
    text_match,
    token_id,
    tokenize,
)
from feature_repo.text import words

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
