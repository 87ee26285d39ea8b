"""Tokens of pins and queries: NFKC case-folded words, as 32-bit ids.

An id is the low half of xxh3-64 over the token's UTF-8 bytes, so no vocabulary has to travel with the blobs. Two of
V distinct tokens share an id in about V^2 / 2^33 cases: 0.3 pairs expected among 50,000 tokens, 116 among a million.
A query token falls on an id of an unrelated token with probability V / 2^32: 1 in 86,000 with 50,000 tokens, 1 in
4,300 with a million. Such a pin gets one wrong match; nothing else breaks.

There is no stemming and no stop list: the catalogue has many languages and BM25's document frequencies weigh words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

from feature_repo.text import normalise, words

LEXICAL_VERSION = 2
"""Bumped by hand whenever one text could give other ids or blobs: tokenizer, hash, caps, field order, layout."""

FIELD_TOKENS = 512
"""Tokens kept of one field of one pin, from its start."""

QUERY_TOKENS = 64
"""Tokens kept of one query, from its start."""

_FIELD_CHARACTERS = 32 * FIELD_TOKENS  # bounds the work on a 1 MB title
_ASCII_WORD = re.compile(r"[a-z0-9]+")  # equals feature_repo.text.words on lower-case ASCII, several times faster


def tokenize(text: str | None) -> list[str]:
    """Tokens of ``text`` in order: words in NFKC, case folded; single characters where a script has no spaces.

    Only the first 16,384 characters are read.
    """
    if not text:
        return []
    text = text[:_FIELD_CHARACTERS]
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    # Case folding can undo NFKC, hence the second pass (Unicode's NFKC_Casefold does the same).
    folded = unicodedata.normalize("NFKC", normalise(text)).casefold()
    return words(unicodedata.normalize("NFKC", folded))


@lru_cache(maxsize=1 << 18)
def token_id(token: str) -> int:
    """The 32-bit id of a token from :func:`tokenize`; recent tokens are cached."""
    return xxhash.xxh3_64_intdigest(token.encode()) & 0xFFFFFFFF


def query_ids(query: str | None) -> npt.NDArray[np.uint32]:
    """Token ids of a query in its order, repeats kept, at most :data:`QUERY_TOKENS`."""
    return np.array([token_id(token) for token in tokenize(query)[:QUERY_TOKENS]], dtype=np.uint32)
