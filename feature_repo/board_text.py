"""What a board says to a model: the only place where a board becomes a text.

A board asks for pins, as a query does, so its text has the form of a query and goes through the query tower. Vectors of
queries and pins were trained to be near each other; two vectors of the pin tower were not. So a board called
"Living Room" without pins has the vector of the query "living room", and shares its place in the cache.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from feature_repo.text import canonical_query, first_words

BOARD_WORDS = 32
"""Words of a board's text: what a query tower was trained to read is short."""
_JOINER = ", "


@dataclass(frozen=True, slots=True)
class Board:
    """A board: its title, and titles of pins on it, which may repeat."""

    title: str = ""
    pin_titles: tuple[str, ...] = ()


def board_text(board: Board) -> str:
    """Canonical title, then the titles of its pins, each once, the most common first, up to :data:`BOARD_WORDS` words.

    Titles that are equally common stand in the order of their text, so the order of the pins decides nothing. Empty
    where nothing is known.
    """
    own = canonical_query(board.title)
    common = Counter(text for text in map(canonical_query, board.pin_titles) if text and text != own)
    ordered = sorted(common, key=lambda text: (-common[text], text))
    text, cut = first_words(_JOINER.join(text for text in (own, *ordered) if text), BOARD_WORDS)
    return text.rstrip(_JOINER) if cut else text
