"""The words of documents as sparse vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materialize.stores.feast_text import AVERAGE_WORDS, K1, document_vector, query_vector, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Étagère №5 — OAK_shelf", ["étagère", "no5", "oak_shelf"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("木の棚 oak 棚", ["木", "の", "棚", "oak", "棚"]),
        ("ชั้น", ["ช", "ั", "้", "น"]),
        ("हिन्दी में।", ["हिन्दी", "में"]),
        ("한국어 선반", ["한국어", "선반"]),
        ("cafe\u0301 ﬁne", ["café", "fine"]),
        ("  —…!? ", []),
        ("", []),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


def weight(tf: int, length: int) -> float:
    return tf * (K1 + 1) / (tf + K1 * (0.25 + 0.75 * length / AVERAGE_WORDS))


def test_weights_saturate_and_fall_with_length() -> None:
    vector = document_vector(["oak oak shelf", "Oak board"])
    alone = query_vector("oak")
    assert vector is not None
    assert alone is not None
    by_index = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
    assert by_index[int(alone.indices[0])] == pytest.approx(weight(3, 5))
    assert sorted(by_index.values()) == pytest.approx(sorted([weight(3, 5), weight(1, 5), weight(1, 5)]))
    assert list(vector.indices) == sorted(set(vector.indices.tolist()))
    assert (vector.indices.dtype, vector.values.dtype) == (np.uint32, np.float32)
    assert weight(1, 5) > weight(1, 500)
    assert weight(100, 5) < K1 + 1


def test_queries_count_their_words_and_nothing_is_nothing() -> None:
    query = query_vector("oak oak")
    assert query is not None
    assert query.values.tolist() == [2.0]
    assert query_vector("?!") is None
    assert document_vector(["", " — "]) is None
    assert document_vector([]) is None


@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_plain_texts_have_the_words_that_any_text_has(text: str) -> None:
    assert words(text) == [word for word in words(f"{text} é") if word != "é"]
