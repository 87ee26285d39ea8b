"""The words of a document as a sparse vector, so that an engine with IDF ranks by BM25.

A word's weight is ``tf (k1 + 1) / (tf + k1 (1 - b + b length / average))``; its rarity is the engine's share (Qdrant's
IDF modifier). The average length is fixed: if it followed the documents, every write would change all weights.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import regex
import xxhash

from .points import SparseVector

_Counts = Any
"""A number, or an array of numbers."""

K1 = 1.2
B = 0.75
AVERAGE_WORDS = 64
"""Words of a document whose weights are neither raised nor lowered for its length."""

# Thai, Lao, Myanmar, Khmer, kana, Chinese characters: written without spaces, so each character counts as a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Marks, such as accents and vowel signs, stand inside words although they are no letters.
_ASCII_WORD = re.compile(r"\w+")  # finds the same there, several times as fast
_WORD = regex.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[\w\p{{M}}])+")


def words(text: str) -> list[str]:
    """The words of a text in order, case and presentation forms folded.

    >>> words("Étagère №5 — 木の棚")
    ['étagère', 'no5', '木', 'の', '棚']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def document_vector(texts: Iterable[str]) -> SparseVector | None:
    """The weights of a document's words, its fields taken together; None if there is none."""
    found = [word for text in texts for word in words(text)]
    return _vector({word: saturated(tf, len(found)) for word, tf in Counter(found).items()})


def saturated(counts: _Counts, length: int) -> _Counts:
    """The weights of words that stand ``counts`` times in a document of ``length`` words."""
    longer = K1 * (1 - B + B * length / AVERAGE_WORDS)
    return counts * (K1 + 1) / (counts + longer)


def query_vector(text: str) -> SparseVector | None:
    """The words of a query, each as often as it occurs; None if there is none."""
    return _vector(Counter(words(text)))


def _vector(weights: dict[str, float] | Counter[str]) -> SparseVector | None:
    by_index: dict[int, float] = {}
    for word, weight in weights.items():
        index = _index(word)
        by_index[index] = by_index.get(index, 0.0) + weight  # two words may share an index, which is rare
    if not by_index:
        return None
    indices = sorted(by_index)
    return SparseVector(np.array(indices, np.uint32), np.array([by_index[i] for i in indices], np.float32))


@lru_cache(maxsize=1 << 16)
def _index(word: str) -> int:
    return xxhash.xxh32_intdigest(word.encode())
