"""The quality gate: which captions stay out of the pin text, and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import xxhash

from feature_repo.screening import Purpose, Screening, other_language
from feature_repo.text import TEXT_VERSION, normalise, words

GATE_VERSION = 2
"""Bumped when the gate judges a caption otherwise."""

MIN_WORDS, MAX_WORDS = 2, 80
_RUN = 3
"""So many times the same word in a row, or the same four words anywhere, is a model that got stuck."""
_LEAST_VARIED = 0.4
"""Share of distinct words below which a caption of eight words or more says the same over and over."""
_LONG = 8

_SUBJECT = r"i(?:'m|’m| am)?\s+(?:really |very |so )?"
_REFUSALS = re.compile(
    rf"\b(?:{_SUBJECT}(?:sorry|apologi[sz]e|unable|not able|afraid)\b"
    r"|i\s+(?:can(?:not|'t|’t| not)|could not|couldn['’]t|do not|don['’]t|won['’]t|will not)\s+"
    r"(?:\w+\s+)?(?:see|view|describe|identify|help|assist|provide|process|comply|fulfill?|tell|determine|answer|have)\b"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model|assistant|text-based)\b"
    r"|(?:please|kindly) (?:provide|upload|share|attach)\b"
    r"|no image (?:was |has been |is )?(?:provided|attached|uploaded|visible))",
    re.IGNORECASE,
)
# What a tokenizer writes and nobody says: special tokens, placeholders of images, parts of words.
_MARKS = re.compile(
    r"</?\|?[a-z_]{1,24}\|?/?>|\[(?:unused\d+|unk|sep|cls|pad|mask|dec|enc)\]|(?<!\S)##\w", re.IGNORECASE
)


@dataclass(frozen=True)
class QualityGate:
    """The gate of one repository. ``language`` is the ISO 639-1 code that captions are expected in; None takes any."""

    screening: Screening
    language: str | None = "en"

    @cached_property
    def fingerprint(self) -> str:
        """xxh3-64 (hex) of everything that an answer depends on; where it changes, captions are judged again."""
        parts = [GATE_VERSION, TEXT_VERSION, self.screening.fingerprint, self.language]
        return xxhash.xxh3_64_hexdigest(json.dumps(parts).encode())

    def reason(self, caption: str) -> str | None:
        """Why the caption stays out of the pin text, or None if it is good: the first of these that is true.

        ``empty`` (no letter or digit), ``refused`` (the model answers instead of describing), ``special tokens``,
        ``repetitive``, ``too short``, ``too long``, ``language xx`` (if the gate's language is one that
        a guess can tell), and what screening finds (a mail address, ...).
        """
        text = normalise(caption)
        said = words(text.lower())
        if not said:
            return "empty"
        if _REFUSALS.search(text):
            return "refused"
        if _MARKS.search(text):
            return "special tokens"
        if _repetitive(said):
            return "repetitive"
        if not MIN_WORDS <= len(said) <= MAX_WORDS:
            return "too short" if len(said) < MIN_WORDS else "too long"
        if other := other_language(text, self.language):
            return f"language {other}"
        return self.screening.reason(text, Purpose.CAPTION)


def _repetitive(said: list[str]) -> bool:
    in_a_row = 1
    for before, word in pairwise(said):
        in_a_row = in_a_row + 1 if word == before else 1
        if in_a_row >= _RUN:
            return True
    fours = Counter(zip(said, said[1:], said[2:], said[3:], strict=False))
    if fours and max(fours.values()) >= _RUN:
        return True
    return len(said) >= _LONG and len(set(said)) < _LEAST_VARIED * len(said)
