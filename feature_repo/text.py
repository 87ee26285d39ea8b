"""One normaliser for every text that reaches a model, a fingerprint or a cache key."""

from __future__ import annotations

import hashlib
import re
import unicodedata

import regex

TEXT_VERSION = 2
"""Bumped when :func:`normalise` or :func:`words` change what they give."""

QUERY_CHARACTERS = 1_000
"""Characters of a canonical query at most; no model reads as many, and few people type as many."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# Format characters that nobody sees: byte order mark, soft hyphen, zero-width space, directions and the like. Joiners
# and the tags of flags stay, which say how the characters beside them are meant.
_UNSEEN = re.compile(r"[\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]")
_SPACE = re.compile(r"\s+")
# Scripts written without spaces: every character is a word of its own.
_WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
    r"|(?:(?![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])[\p{L}\p{M}\p{N}])+"
)

_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")


def normalise(text: str | None) -> str:
    """``text`` in Unicode NFC, whitespace folded to single spaces, without what nobody sees.

    Control characters and lone surrogates count as whitespace; unseen format characters, as soft hyphens and zero-width
    spaces, as nothing.
    """
    if not text:
        return ""
    if text.isascii() and text.isprintable():  # the common case, and ten times faster
        return " ".join(text.split())
    return _SPACE.sub(" ", unicodedata.normalize("NFC", _CONTROL.sub(" ", _UNSEEN.sub("", text)))).strip()


def canonical_query(text: str | None) -> str:
    """The one form of a query used as cache key, join key and model input: :func:`normalise`, then lower case.

    A letter may combine in lower case where it does not in upper case (H and U+0331), hence NFC once more. Of a longer
    query the first :data:`QUERY_CHARACTERS` are kept; the first 16 times as many are read.
    """
    if text and len(text) > QUERY_CHARACTERS:
        text = text[: 16 * QUERY_CHARACTERS]  # bounds the work on megabytes of blanks
    canonical = unicodedata.normalize("NFC", normalise(text).lower())
    return canonical if len(canonical) <= QUERY_CHARACTERS else canonical[:QUERY_CHARACTERS].rstrip()


def query_digest(text: str) -> bytes:
    """16 bytes that stand for a canonical query where its text must not be kept: BLAKE2b (RFC 7693).

    Nobody can make two queries with one digest, so none is answered with the vector of another. Whoever guesses a query
    can tell its digest: this hides texts from those who read along, not from those who try out words.
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def words(text: str) -> list[str]:
    """Words of ``text``: runs of letters, marks and digits; single characters where a script has no spaces."""
    return _WORD.findall(text)


def first_words(text: str, budget: int) -> tuple[str, bool]:
    """``text`` cut after its first ``budget`` words, and whether anything was cut."""
    if len(text) <= budget:  # no text has more words than characters
        return text, False
    if text.isascii() and len(_ASCII_WORD.findall(text)) <= budget:  # the common case, and ten times faster
        return text, False
    for number, match in enumerate(_WORD.finditer(text)):
        if number == budget:
            return text[: match.start()].rstrip(), True
    return text, False
