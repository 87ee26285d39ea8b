"""Boards for :mod:`benchmarks.board_titles`: real titles, real people where there are any, generic titles planted.

There is no public set of boards with titles, so both catalogues are made of public parts; what is drawn is drawn with a
seed, and stated here:

* ``movies`` (ml-latest-small): items are movies with a tag. A user's tag is a board title (real people, words and
  times). Genres are the broad titles that are hard to tell from generic ones: each of the 610 people who rated movies
  keeps boards for 30 % of the genres. Half of all ratings are also a save to one of the person's generic boards.
* ``books`` (goodbooks-10k): items are the 3,000 most rated books. A shelf name belongs to a book if it has words of
  four letters or more and all of them are in its title, original title or authors (the real table of shelves is not in
  the set). A book has 2 + 14,000 / (rank + 120) savers among 4,000 people; 55 % of the saves go to a generic board of
  the saver's one to four, the rest to one of the book's shelves, the first ones more often (Pareto, exponent 0.7).

A person's generic boards are drawn from the thirty below by Zipf's law with exponent 1, as typed by that person: bare,
in capitals, hyphened, or with an emoji.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from feature_repo.text import words

GENERIC = (
    "to-read", "favorites", "my stuff", "currently reading", "owned", "wish list", "misc", "my favorites", "random",
    "saved for later", "stuff", "inspiration", "ideas", "things i love", "to buy", "my board", "my collection",
    "must have", "other", "cool stuff", "everything", "want", "love it", "my pins", "just because", "good stuff",
    "things to try", "default", "all the things", "quick saves",
)  # fmt: skip
UNLISTED = (
    "kesken", "sekalaista", "blandat", "vypadá dobře", "lmfao", "zzz", "oooh shiny", "brain dump", "note to self",
)  # fmt: skip
"""Generic titles that no packaged word list knows: what is left to the counts."""
_FIRST, _SPAN = 1_451_606_400, 5 * 365 * 86_400  # five years from 2016-01-01 on
_MARKS = (" 📚", " ❤️", "!!", " ✨", "…")


class Save(NamedTuple):
    """One save: item, title as typed, person, seconds since 1970."""

    item: str
    title: str
    user: str
    at: int


class Catalogue(NamedTuple):
    """Saves, and what to call an item."""

    saves: list[Save]
    names: dict[str, str]


def movies(folder: Path, generic: tuple[str, ...] = GENERIC) -> Catalogue:
    """Movies with tags, genres and generic boards."""
    draw = random.Random("movies")
    rows = {row["movieId"]: row for row in pq.read_table(folder / "movies.parquet").to_pylist()}
    saves = [
        Save(f"m{row['movieId']}", row["tag"], f"u{row['userId']}", row["timestamp"])
        for row in pq.read_table(folder / "tags.parquet").to_pylist()
    ]
    tagged = {save.item for save in saves}
    boards = _People(draw, generic)
    kept: dict[tuple[str, str], bool] = {}
    for row in pq.read_table(folder / "ratings.parquet").to_pylist():
        item, user, at = f"m{row['movieId']}", f"u{row['userId']}", row["timestamp"]
        if item not in tagged:
            continue
        if draw.random() < 0.5:
            saves.append(Save(item, boards.generic(user), user, at))
        for genre in rows[row["movieId"]]["genres"].split("|"):
            if genre[0] != "(" and kept.setdefault((user, genre), draw.random() < 0.3):
                saves.append(Save(item, genre, user, at))
    return Catalogue(saves, {f"m{number}": row["title"] for number, row in rows.items()})


def books(folder: Path, generic: tuple[str, ...] = GENERIC) -> Catalogue:
    """Books with the shelf names that their title and authors explain, and generic boards."""
    draw = random.Random("books")
    by_word = defaultdict(list)
    for name in pq.read_table(folder / "tags.parquet")["tag_name"].to_pylist():
        said = frozenset(word for word in words(name.casefold()) if len(word) > 3)
        if said:
            by_word[min(said)].append((name, said))
    boards = _People(draw, generic)
    saves, names = [], {}
    columns = ["book_id", "title", "original_title", "authors", "ratings_count"]
    rows = pq.read_table(folder / "books.parquet", columns=columns).sort_by([("ratings_count", "descending")])
    for rank, row in enumerate(rows.slice(0, 3_000).to_pylist()):
        known = set(words(f"{row['title']} {row['original_title']} {row['authors']}".casefold()))
        shelves = [name for word in sorted(known) for name, said in by_word[word] if said <= known]
        draw.shuffle(shelves)
        item = f"b{row['book_id']}"
        names[item] = f"{row['title']} ({row['authors']})"
        for _ in range(2 + 14_000 // (rank + 120)):
            user, at = f"u{draw.randrange(4_000)}", _FIRST + draw.randrange(_SPAN)
            if draw.random() < 0.55 or not shelves:
                saves.append(Save(item, boards.generic(user), user, at))
            else:
                place = min(int(draw.paretovariate(0.7)) - 1, len(shelves) - 1)
                saves.append(Save(item, shelves[place], user, at))
    return Catalogue(saves, names)


class _People:
    """Everybody's generic boards, drawn when they are first asked for."""

    def __init__(self, draw: random.Random, generic: tuple[str, ...]) -> None:
        self._draw = draw
        self._titles = generic
        self._weights = [1 / rank for rank in range(1, len(generic) + 1)]
        self._boards: dict[str, list[str]] = {}

    def generic(self, user: str) -> str:
        """One of the user's generic boards, always spelled the same."""
        if user not in self._boards:
            chosen = self._draw.choices(self._titles, self._weights, k=self._draw.randint(1, 4))
            self._boards[user] = [self._typed(title) for title in chosen]
        return self._draw.choice(self._boards[user])

    def _typed(self, title: str) -> str:
        forms = (title, title.title(), title.upper(), title.replace(" ", "-"), title + self._draw.choice(_MARKS))
        return self._draw.choice(forms)
