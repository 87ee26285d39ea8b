"""An edit history of judged pins: boards gained, queries gained, titles edited, round by round.

Where a set has boards and a log of its own (the generated catalogue) these are aggregated as of the end of each week.
Where it has none they are drawn, from its own titles and queries, in these proportions:

* A pin has an activity, log-normal (sigma 1), that multiplies both of its rates, and an age before the first round,
  exponential with a mean of :data:`AGE` rounds: some have full lists, some are new. With one age for all of 30 rounds,
  tried first, never embedding again cost CrowdFlower nothing, and no policy could be told from another. One draw stands
  for enough people (``--min-users`` of ``aggregate``); a title or query drawn again changes its rank, not the text.
* Board titles: 40 % two or three words of a title that is good (level 4 or 5) for a query the pin is good for, 35 % a
  query in title case, 15 % a word of the title with a word such as "ideas", 10 % a title that says nothing ("Wish
  list"). The ten best by the score of :mod:`feature_repo.aggregates.boards`.
* Engaged queries: 70 % a query the pin is judged for, kept with the click rate of its level
  (:data:`pinfeather.generate.searches.CLICK_RATE`); else one that shares a word with the title, sooner a rare one. A
  third are varied as people vary them: a word of the title before it, words in another order, a plural. The twenty
  most frequent.
* **Half of the judged queries never enter a board or the log**: what is judged is then not only what was typed before.
* Titles: :data:`TITLE_EDITS` of the pins a round, each edit one of a word dropped, a word replaced by one of a similar
  pin's title, a suffix added, or, where a title was misspelt (one in twelve is), the typo fixed. This holds for the
  generated catalogue too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from benchmarks.materialize.drift_sources import Judged
from embedders.evaluation.metrics import RELEVANT_LEVEL, Ints
from feature_repo.aggregates.boards import CROWD_WEIGHT, KEPT_TITLES
from feature_repo.aggregates.queries import KEPT_QUERIES
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields
from feature_repo.text import words
from pinfeather.generate.searches import CLICK_RATE

T = TypeVar("T")

AGE = 12
BOARDS_A_ROUND, QUERIES_A_ROUND, TITLE_EDITS = 0.10, 0.15, 0.04
MISSPELT = 1 / 12
OWN_QUERY, VARIED = 0.7, 1 / 3
ENDINGS = ("ideas", "inspiration", "to buy", "for home", "gifts", "wishlist")
GENERIC = ("Wish list", "Favorites", "My stuff", "To buy", "Someday", "Love this", "Gift ideas", "For the home")
SUFFIXES = ("- Free Shipping", "(Set of 2)", "- New", "| Best Price", "- Clearance", "(Gift Boxed)", "- 2 Pack")


@dataclass(frozen=True, eq=False)
class History:
    """P pins over R rounds; round 0 is the state that was embedded in full."""

    judged: Judged
    fields: tuple[PinFields, ...]
    """U distinct states, no two of the same text."""
    texts: tuple[str, ...]
    """U canonical texts."""
    text_of: Ints
    """[P, R + 1] number of each pin's text after each round."""
    logged: NDArray[np.bool_]
    """[Q] whether the query is among the engaged queries of any pin."""

    @cached_property
    def changed(self) -> NDArray[np.bool_]:
        """[P, R] where a round changed the text: what `exact` embeds again."""
        return self.text_of[:, 1:] != self.text_of[:, :-1]


def make_history(judged: Judged, rounds: int, seed: int) -> History:
    """The history of a set's pins, a function of its arguments."""
    rng = np.random.default_rng([seed, 1])
    draw = Drawing(judged, rng)
    states = judged.weekly or _drawn(draw, rounds)
    titled = _titles(draw, [[pin.title or "" for pin in state] for state in states])
    numbers: dict[str, int] = {}
    fields: list[PinFields] = []
    seen: dict[PinFields, int] = {}
    text_of = np.empty((len(judged.pins), rounds + 1), np.int64)
    asked: set[str] = set()
    for number, state in enumerate(states):
        for pin, known in enumerate(state):
            now = replace(known, title=titled[number][pin] or None)
            if now not in seen:
                text = DEFAULT_TEMPLATE.render(now).text
                if text not in numbers:
                    numbers[text] = len(fields)
                    fields.append(now)
                seen[now] = numbers[text]
                asked.update(now.engaged_queries)
            text_of[pin, number] = seen[now]
    logged = np.array([query in asked for query in judged.queries])
    return History(judged, tuple(fields), tuple(numbers), text_of, logged)


class Drawing:
    """Board titles, queries and title edits of a judged set, drawn from its own words."""

    def __init__(self, judged: Judged, rng: np.random.Generator) -> None:
        self.judged, self.rng = judged, rng
        self.title_words = [
            [word for word in words(pin.title or "") if word.isalpha() and len(word) > 2] for pin in judged.pins
        ]
        self.own: list[list[tuple[int, int]]] = [[] for _ in judged.pins]
        self.good: list[list[int]] = [[] for _ in judged.queries]
        self.by_word: dict[str, list[int]] = {}
        for query, pin, level in zip(judged.query_of, judged.pin_of, judged.levels, strict=True):
            self.own[pin].append((int(query), int(level)))
            if level >= RELEVANT_LEVEL:
                self.good[query].append(int(pin))
        typed = [xxhash.xxh3_64_intdigest(query.encode()) % 2 == 0 for query in judged.queries]
        self.typed = typed
        for number, query in enumerate(judged.queries):
            for word in set(words(query)) if typed[number] else ():
                if len(word) > 3:
                    self.by_word.setdefault(word, []).append(number)

    def query(self, pin: int) -> str:
        """A query that led people to the pin; empty if nobody came."""
        text = self._typed_query(pin)
        if text and self.rng.random() < VARIED:
            text = self._varied(text, self.title_words[pin])
        return text

    def board(self, pin: int) -> str:
        """The title of a board that the pin was saved to."""
        kind = self.rng.random()
        if kind < 0.4:
            found = self._phrase(self.title_words[self._similar(pin)])
        elif kind < 0.75:
            found = self._typed_query(pin).title()
        elif kind < 0.9 and self.title_words[pin]:
            found = f"{self._pick(self.title_words[pin])} {self._pick(ENDINGS)}".capitalize()
        else:
            found = ""
        return found or self._pick(GENERIC)

    def edited(self, title: str, pin: int, correct: str) -> str:
        """``title`` after one edit; ``correct`` is what a fixed typo gives."""
        parts = title.split()
        kinds = ["suffix"] + ["drop", "replace"] * (len(parts) > 2) + ["fix"] * (title != correct)
        kind = self._pick(kinds)
        place = int(self.rng.integers(max(1, len(parts))))
        if kind == "fix":
            return correct
        if kind == "drop":
            return " ".join(parts[:place] + parts[place + 1 :])
        other = self.title_words[self._similar(pin)]
        if kind == "replace" and other:
            return " ".join([*parts[:place], self._pick(other), *parts[place + 1 :]])
        return f"{title} {self._pick(SUFFIXES)}"

    def misspelt(self, title: str) -> str:
        """``title`` with two neighbouring letters of its longest word exchanged."""
        long = max(title.split(), key=len, default="")
        if len(long) < 4:
            return title
        place = int(self.rng.integers(1, len(long) - 2))
        return title.replace(long, long[:place] + long[place + 1] + long[place] + long[place + 2 :], 1)

    def _typed_query(self, pin: int) -> str:
        """A query of the typed half, judged for the pin and clicked, or one that shares a word with its title."""
        own = [each for each in self.own[pin] if self.typed[each[0]]]
        if own and self.rng.random() < OWN_QUERY:
            query, level = self._pick(own)
            if self.rng.random() < CLICK_RATE[level - 1] / CLICK_RATE[-1]:
                return self.judged.queries[query]
        near = [found for word in self.title_words[pin] if (found := self.by_word.get(word.lower()))]
        if not near:
            return ""
        rarity = np.array([1 / len(found) for found in near])
        return self.judged.queries[self._pick(near[int(self.rng.choice(len(near), p=rarity / rarity.sum()))])]

    def _similar(self, pin: int) -> int:
        """A pin that is good for a query this one is good for; itself if there is none."""
        good = [query for query, level in self.own[pin] if level >= RELEVANT_LEVEL]
        return self._pick(self.good[self._pick(good)]) if good else pin

    def _phrase(self, title: list[str]) -> str:
        length = int(self.rng.integers(2, 4))
        start = int(self.rng.integers(max(1, len(title) - length + 1)))
        return " ".join(title[start : start + length])

    def _varied(self, query: str, title: list[str]) -> str:
        parts = query.split()
        kind = self.rng.integers(3)
        if kind == 0 and title:
            return f"{self._pick(title).lower()} {query}"
        if kind == 1 and len(parts) > 1:
            return " ".join([*parts[1:], parts[0]])
        return query.removesuffix("s") if query.endswith("s") else query + "s"

    def _pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.integers(len(items)))]


def _drawn(draw: Drawing, rounds: int) -> list[list[PinFields]]:
    """States of the pins after each round, titles untouched."""
    pins, rng = draw.judged.pins, draw.rng
    activity, age = rng.lognormal(0.0, 1.0, len(pins)), rng.exponential(AGE, len(pins))
    boards: list[Counter[str]] = [Counter() for _ in pins]
    queries: list[Counter[str]] = [Counter() for _ in pins]
    states: list[list[PinFields]] = []
    for number in range(rounds + 1):
        lived = age if number == 0 else 1.0
        for pin, (saves, visits) in enumerate(
            zip(
                rng.poisson(BOARDS_A_ROUND * lived * activity),
                rng.poisson(QUERIES_A_ROUND * lived * activity),
                strict=True,
            )
        ):
            boards[pin].update(draw.board(pin) for _ in range(saves))
            queries[pin].update(text for _ in range(visits) if (text := draw.query(pin)))
        if number == 0:  # the prevalence of words hardly moves in a few rounds
            found = Counter(word for titles in boards for word in {each for t in titles for each in words(t.lower())})
            rarity = {word: float(np.log((count + 1) / (len(pins) + 1))) for word, count in found.items()}
        states.append(
            [
                replace(pin, board_titles=_top_boards(saved, rarity, len(pins)), engaged_queries=_top_queries(asked))
                for pin, saved, asked in zip(pins, boards, queries, strict=True)
            ]
        )
    return states


def _top_boards(saved: Counter[str], rarity: dict[str, float], pins: int) -> tuple[str, ...]:
    def score(title: str) -> tuple[float, int, int, str]:
        found = [rarity.get(word, -float(np.log(pins + 1))) for word in words(title.lower())]
        prevalence = sum(found) / len(found) if found else 0.0
        return prevalence - CROWD_WEIGHT * float(np.log(saved[title])), -len(found), -len(title), title

    return tuple(sorted(saved, key=score)[:KEPT_TITLES])


def _top_queries(asked: Counter[str]) -> tuple[str, ...]:
    return tuple(sorted(asked, key=lambda query: (-asked[query], query))[:KEPT_QUERIES])


def _titles(draw: Drawing, states: list[list[str]]) -> list[list[str]]:
    """Titles after each round: some misspelt from the start, some edited in each round."""
    correct = states[0]
    now = [draw.misspelt(title) if draw.rng.random() < MISSPELT else title for title in correct]
    out = [list(now)]
    for _ in states[1:]:
        for pin in np.flatnonzero(draw.rng.random(len(now)) < TITLE_EDITS).tolist():
            if now[pin]:
                now[pin] = draw.edited(now[pin], pin, correct[pin])
        out.append(list(now))
    return out
