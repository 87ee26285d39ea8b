"""Case-folded words, fast where the text is plain."""

from __future__ import annotations

import re

from feature_repo.text import words

_ASCII_WORD = re.compile(r"[a-z0-9]+")


def folded_words(text: str) -> list[str]:
    """:func:`feature_repo.text.words` of the case-folded text."""
    folded = text.casefold()
    return _ASCII_WORD.findall(folded) if folded.isascii() else words(folded)  # the first is several times faster
