"""The rules at work: whether a text is left out, and the short reason that is counted."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import regex
import xxhash

from feature_repo.screening.folding import folded_words
from feature_repo.screening.languages import guess_language, language_code
from feature_repo.screening.limits import Limits, Purpose
from feature_repo.screening.patterns import TRIGGERS, Pattern
from feature_repo.screening.rules import Rules, load_rules
from feature_repo.text import TEXT_VERSION

SCREENING_VERSION = 2
"""Bumped when the same rules would judge a text otherwise."""

_LETTER = regex.compile(r"\p{L}")
_SAYS = regex.compile(r"[\p{L}\p{N}\p{So}]")
# Titles of pages: parts between bars, dashes with spaces around them, dots in the middle; and sentences.
_SEGMENT = regex.compile(r"\s*(?:[|·•»«>–—]|\s-\s|[.!?…。！？](?=\s|$))+\s*")
_SEARCHED_CHARACTERS = 20_000
_SHORT_CHARACTERS = 200
"""In a text up to this long any segment that is an error page refuses it, in a longer one the first."""
_DIGIT = regex.compile(r"[^\P{Nd}0-9]")
"""A digit of another script: patterns see it as that of ASCII."""


@dataclass(frozen=True)
class Screening:
    """The rules of one repository. Everything is a function of the text: no order, no clock, no chance."""

    rules: Rules = field(default_factory=Rules)

    @classmethod
    def load(cls, root: Path) -> Screening:
        """The rules of the repository in ``root``: ``screening.yaml`` where there is one, else the packaged ones.

        :raises PinfeatherError: if that file is wrong; the message says where and what is allowed.
        """
        return cls(load_rules(root))

    @property
    def limits(self) -> Limits:
        """The numbers."""
        return self.rules.limits

    @cached_property
    def fingerprint(self) -> str:
        """xxh3-64 (hex) of everything an answer depends on."""
        rules = self.rules
        patterns = [[one.name, one.expression, [*one.purposes], one.usual] for one in rules.patterns]
        lists = [sorted(rules.profanity.items()), rules.error_pages, rules.boilerplate, rules.generic_words]
        parts = [SCREENING_VERSION, TEXT_VERSION, vars(rules.limits), patterns, lists]
        return xxhash.xxh3_64_hexdigest(json.dumps(parts, sort_keys=True).encode())

    def reason(self, text: str, purpose: Purpose, lang: str | None = None) -> str | None:
        """Why a normalised text is left out, or None if it may stay.

        :param lang: language of the text where it is known; else it is guessed where a word's meaning hangs on it.
        :raises PinfeatherError: if a pattern of ``screening.yaml`` takes too long.
        """
        if purpose is Purpose.BOARD_TITLE and len(text) > self.limits.max_title_characters:
            return "too long"
        if purpose is Purpose.QUERY and len(text) > self.limits.max_query_characters:
            return "too long"
        text = text[:_SEARCHED_CHARACTERS]
        if found := self._pattern(text, purpose):
            return found
        if not (_SAYS if purpose in (Purpose.QUERY, Purpose.LINK) else _LETTER).search(text):
            return "no letters"
        said = folded_words(text)
        if self._profane(text, said, lang):
            return "profanity"
        return self._empty_page(text, said) if purpose is Purpose.LINK else None

    def segments(self, text: str) -> list[str]:
        """The parts of the title of a page, "Oak table | Etsy" as two; none for a text too long to be a title."""
        return [part for part in _SEGMENT.split(text) if part] if len(text) <= _SHORT_CHARACTERS else []

    def generic(self, said: list[str]) -> bool:
        """Whether a title of these case-folded words says nothing of what is on the board."""
        return bool(said) and (self._generic_words.issuperset(said) or self._generic_titles.holds(said))

    @cached_property
    def _generic_words(self) -> frozenset[str]:
        entries = map(folded_words, self.rules.generic_words)
        return frozenset(said[0] for said in entries if len(said) == 1)

    @cached_property
    def _generic_titles(self) -> _Phrases:
        return _Phrases(self.rules.generic_words)

    def _pattern(self, text: str, purpose: Purpose) -> str | None:
        folded = text if text.isascii() else unicodedata.normalize("NFKC", text)  # full-width digits and signs
        usual, own = self._patterns_by_purpose[purpose]
        triggered = TRIGGERS.search(folded)  # any digit is one
        if triggered and not folded.isascii():
            folded = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), folded)
        for patterns in (usual if triggered else (), own):
            for pattern in patterns:
                if pattern.found(folded):
                    return pattern.name
        return None

    @cached_property
    def _patterns_by_purpose(self) -> dict[Purpose, tuple[list[Pattern], list[Pattern]]]:
        found = {}
        for purpose in Purpose:
            mine = [pattern for pattern in self.rules.patterns if purpose in pattern.purposes]
            found[purpose] = ([one for one in mine if one.usual], [one for one in mine if not one.usual])
        return found

    def _profane(self, text: str, said: list[str], lang: str | None) -> bool:
        starts = self._profanity
        if starts.keys().isdisjoint(said):
            return False
        local = set()
        for place, word in enumerate(said):
            for tail, where in starts.get(word, ()):
                if tuple(said[place + 1 : place + 1 + len(tail)]) == tail:
                    if where is None:
                        return True
                    local.add(where)
        return bool(local) and (language_code(lang) or guess_language(text)) in local

    @cached_property
    def _profanity(self) -> dict[str, list[tuple[tuple[str, ...], str | None]]]:
        """By first word: the words after it, and the only language that the entry counts in, if there is one."""
        starts: dict[str, list[tuple[tuple[str, ...], str | None]]] = {}
        for lang, entries in self.rules.profanity.items():
            for entry in entries:
                first, *tail = folded_words(entry)
                starts.setdefault(first, []).append((tuple(tail), lang if entry.startswith("~") else None))
        return starts

    def _empty_page(self, text: str, said: list[str]) -> str | None:
        """``error page`` or ``boilerplate`` for the texts of pages that say nothing of their subject."""
        short = len(text) <= _SHORT_CHARACTERS
        wanted = self._page_words
        if wanted.isdisjoint(said) if short else not said or said[0] not in wanted:
            return None
        parts = _SEGMENT.split(text, maxsplit=0 if short else 2)  # the first may be empty
        segments = [part for one in parts if (part := folded_words(one))]
        checked = segments if short else segments[:1]
        if any(self._error_pages.holds(part) for part in checked):
            return "error page"
        empty = checked and (self._boilerplate.begins(checked[0]) or all(map(self._boilerplate.holds, checked)))
        return "boilerplate" if empty else None

    @cached_property
    def _page_words(self) -> frozenset[str]:
        """The words that a segment without a subject begins with."""
        return self._error_pages.first_words | self._boilerplate.first_words

    @cached_property
    def _error_pages(self) -> _Phrases:
        return _Phrases(self.rules.error_pages)

    @cached_property
    def _boilerplate(self) -> _Phrases:
        return _Phrases(self.rules.boilerplate)


class _Phrases:
    """Phrases as sequences of words; one that ends in ``*`` stands for everything that begins with it."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[list[str], bool]]] = {}
        for entry in entries:
            said = folded_words(entry)
            self._by_first.setdefault(said[0], []).append((said, entry.rstrip().endswith("*")))
        self.first_words = frozenset(self._by_first)

    def holds(self, said: list[str]) -> bool:
        """Whether the words are one of the phrases, or begin with one that allows it."""
        return self.begins(said) or any(phrase == said for phrase, _ in self._by_first.get(said[0], ()))

    def begins(self, said: list[str]) -> bool:
        """Whether the words begin with a phrase that allows more words after it."""
        return any(more and said[: len(phrase)] == phrase for phrase, more in self._by_first.get(said[0], ()))
