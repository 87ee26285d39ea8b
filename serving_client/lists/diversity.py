"""Candidates made into a list to look at: near-duplicates folded, and the rest diversified.

Maximal marginal relevance (Carbonell and Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998): the next
pin is the one with the greatest

    (1 - diversity) * relevance - diversity * (greatest cosine with a pin already chosen)

where the second term is 0 for the first pin. A pin whose text equals that of a chosen one, or whose cosine with it is
above :data:`DUPLICATE`, is folded into it: it is not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from materialize.stores.layout import decode_key, stack_vectors
from materialize.stores.port import Hit, Point

DUPLICATE = 0.98
"""Cosine above which two pins count as one."""
_AT_ONCE = 1024
"""Pins that are not to be shown and are compared at a time: a board may have thousands."""
PAYLOAD = ("key", "text_fp")
"""What a :class:`Pool` reads of a point besides its vector."""


@dataclass(frozen=True)
class Pool:
    """Candidates with what diversifying needs of them."""

    pin_ids: list[str]
    vectors: NDArray[np.float32]
    """[n, d]"""
    texts: list[str | None]
    """n text fingerprints."""

    @classmethod
    def of(cls, points: Sequence[Hit | Point], dimension: int) -> Pool:
        """The pool of ``points`` of a space, in their order."""
        return cls(
            [pin_of(point) for point in points],
            stack_vectors(points, dimension),
            [point.payload.get("text_fp") for point in points],
        )


def pin_of(point: Hit | Point) -> str:
    """The pin whose vector a point of a space holds."""
    key = point.payload["key"]
    pin_id = key["pin_id"]
    return pin_id if type(pin_id) is str else str(decode_key(key)["pin_id"])


class Diversifier:
    """Takes pins out of a pool one by one, by maximal marginal relevance; folds near-duplicates of what was taken."""

    def __init__(self, pool: Pool, diversity: float) -> None:
        self._pool = pool
        self._diversity = diversity
        self._open = np.ones(len(pool.pin_ids), dtype=np.bool_)
        self._nearest = np.zeros(len(pool.pin_ids), dtype=np.float64)
        self._any_taken = False
        self._numbers: dict[str, int] = {}
        self._texts = np.array([self._number(text) for text in pool.texts], dtype=np.int64)

    @property
    def open(self) -> NDArray[np.bool_]:
        """[n] rows that can still be taken."""
        return self._open.copy()

    def fold(self, vectors: NDArray[np.float32], texts: Sequence[str | None]) -> None:
        """Leave out what is nearly the same as pins that are not to be shown themselves.

        :param vectors: [m, d] of those pins. :param texts: their text fingerprints, as far as they are known.
        """
        for start in range(0, len(vectors), _AT_ONCE):
            self._open &= (self._pool.vectors @ vectors[start : start + _AT_ONCE].T).max(axis=1) <= DUPLICATE
        self._open &= ~np.isin(self._texts, [self._numbers.get(text, -1) if text else -1 for text in texts])

    def take(self, relevance: NDArray[np.floating], among: NDArray[np.bool_] | None = None) -> int | None:
        """The next row, or None if no open one is left.

        :param relevance: [n]. :param among: [n] rows to choose from; all where None.
        """
        choice = self._open if among is None else self._open & among
        if not choice.any():
            return None
        marginal = (1 - self._diversity) * relevance - self._diversity * self._nearest
        row = int(np.argmax(np.where(choice, marginal, -np.inf)))
        self.take_row(row)
        return row

    def take_row(self, row: int) -> None:
        """Take a row that is open: what comes next is to differ from it."""
        similar = self._pool.vectors @ self._pool.vectors[row]
        self._nearest = np.maximum(self._nearest, similar) if self._any_taken else similar.astype(np.float64)
        self._any_taken = True
        self._open &= similar <= DUPLICATE
        self._open &= self._texts != self._texts[row]
        self._open[row] = False

    def _number(self, text: str | None) -> int:
        """A number for a text: comparing numbers costs a hundredth of comparing texts. Pins without one all differ."""
        if text is None:
            text = f" {len(self._numbers)}"  # no fingerprint begins with a space
        return self._numbers.setdefault(text, len(self._numbers))
