"""Nearest pins made into a list to look at: near-duplicates folded, and the rest diversified.

Maximal marginal relevance (Carbonell and Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998): the next
pin is the one with the greatest

    (1 - diversity) * relevance - diversity * (greatest cosine with a pin already chosen)

where the second term is 0 for the first pin. A pin whose text equals that of a chosen one, or whose cosine with it is
above :data:`DUPLICATE`, is folded into it: it is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError
from materialize.spaces import Space
from materialize.stores.layout import decode_key, stack_vectors
from materialize.stores.port import And, Condition, Hit, Match, Point
from serving_client.answers import NearHit
from serving_client.publications import Publication

DUPLICATE = 0.98
"""Cosine above which two pins count as one."""
RECENT_PINS = 10
"""Of the recent pins that are found, so many lead the home feed."""
DECAY = 0.8
"""Weight of a recent pin in terms of the next more recent one."""
_PAYLOAD = ("key", "text_fp")
_MOST_CANDIDATES = 2_000

Filters = Mapping[str, str | Sequence[str] | None]


def condition(filters: Filters) -> Condition | None:
    """The store's filter: each named payload field equals the value, or one of the values; None does not filter."""
    matches: list[Condition] = []
    for name, wanted in filters.items():
        if wanted is not None:
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            matches.append(Match(name, any_of=values))
    return And(tuple(matches)) if matches else None


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Refuse a number outside low..high.

    :raises UsageError: if it is, or is not finite.
    """
    if not (np.isfinite(value) and low <= value <= high):
        allowed = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        raise UsageError(f"{name} is {value}, but must be {allowed}.")


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
    return str(decode_key(point.payload["key"])["pin_id"])


class Diversifier:
    """Takes pins out of a pool one by one, by maximal marginal relevance; folds near-duplicates of what was taken."""

    def __init__(self, pool: Pool, diversity: float) -> None:
        self._pool = pool
        self._diversity = diversity
        self._open = np.ones(len(pool.pin_ids), dtype=np.bool_)
        self._nearest = np.zeros(len(pool.pin_ids), dtype=np.float64)
        self._any_taken = False

    def fold(self, vector: NDArray[np.float32], text: str | None) -> None:
        """Leave out what is nearly the same as a pin that is not to be shown itself."""
        self._close(self._pool.vectors @ vector, text)

    def take(self, relevance: NDArray[np.floating], among: NDArray[np.bool_] | None = None) -> int | None:
        """The next row, or None if no open one is left.

        :param relevance: [n]. :param among: [n] rows to choose from; all where None.
        """
        choice = self._open if among is None else self._open & among
        if not choice.any():
            return None
        marginal = (1 - self._diversity) * relevance - self._diversity * self._nearest
        row = int(np.argmax(np.where(choice, marginal, -np.inf)))
        similar = self._pool.vectors @ self._pool.vectors[row]
        self._nearest = np.maximum(self._nearest, similar) if self._any_taken else similar.astype(np.float64)
        self._any_taken = True
        self._close(similar, self._pool.texts[row])
        self._open[row] = False
        return row

    def _close(self, similar: NDArray[np.floating], text: str | None) -> None:
        self._open &= similar <= DUPLICATE
        if text is not None:
            self._open &= np.array([other != text for other in self._pool.texts], dtype=np.bool_)


def related(
    publication: Publication, space: Space, source: Point, limit: int, diversity: float, wanted: Condition | None
) -> list[NearHit]:
    """Pins like ``source``, which itself and whose near-duplicates are left out."""
    pool_size = 4 * limit + 10
    vector = source.vectors["vector"]
    pin_id = pin_of(source)
    while True:
        hits = publication.reader.search(
            space.name, vector, pool_size, filter=wanted, with_payload=_PAYLOAD, with_vectors=True
        )
        pool = Pool.of(hits, space.dimension)
        similar = pool.vectors @ vector
        diversifier = Diversifier(pool, diversity)
        diversifier.fold(vector, source.payload.get("text_fp"))  # itself among them
        rows = [row for row in (diversifier.take(similar) for _ in range(limit)) if row is not None]
        if len(rows) == limit or len(hits) < pool_size or pool_size >= _MOST_CANDIDATES:
            return [NearHit(pool.pin_ids[row], pin_id, float(similar[row])) for row in rows]
        pool_size = min(4 * pool_size, _MOST_CANDIDATES)


def home_feed(
    publication: Publication,
    space: Space,
    recent: Sequence[Point],
    limit: int,
    seen: frozenset[str],
    diversity: float,
    wanted: Condition | None,
) -> list[NearHit]:
    """Pins near the recent ones, by weighted round robin: each turn one recent pin gives its next best pin.

    The recent pins, most recent first, weigh 1, 0.8, 0.64, ... (:data:`DECAY`). Each turn every one gains its weight,
    the one with the most gives a pin and pays the sum of the weights (smooth weighted round robin, as in nginx): so an
    older interest still gets its share, which an average of all vectors would not give it. What it gives is the best by
    maximal marginal relevance over everything chosen so far. Seen pins, recent pins and near-duplicates of the latter
    are left out.
    """
    recent = recent[:RECENT_PINS]
    hidden = seen | {pin_of(point) for point in recent}
    share = -(-limit // max(len(recent), 1))
    pool_size = min(2 * share + 20 + len(seen), _MOST_CANDIDATES)
    while True:
        found = [
            publication.reader.search(
                space.name,
                point.vectors["vector"],
                pool_size,
                filter=wanted,
                with_payload=_PAYLOAD,
                with_vectors=True,
            )
            for point in recent
        ]
        chosen, dry = _round_robin(found, recent, space.dimension, limit, hidden, diversity)
        exhausted = all(len(hits) < pool_size for hits in found)
        if not dry or exhausted or pool_size >= _MOST_CANDIDATES:
            return chosen
        pool_size = min(4 * pool_size, _MOST_CANDIDATES)


def _round_robin(
    found: Sequence[Sequence[Hit]],
    recent: Sequence[Point],
    dimension: int,
    limit: int,
    hidden: frozenset[str],
    diversity: float,
) -> tuple[list[NearHit], bool]:
    """The pins chosen out of what was found, and whether an interest ran out of pins before its turns were over."""
    distinct = {hit.id: hit for hits in found for hit in hits if pin_of(hit) not in hidden}
    pool = Pool.of(list(distinct.values()), dimension)
    place = {point_id: row for row, point_id in enumerate(distinct)}
    sources = stack_vectors(recent, dimension)
    similar = sources @ pool.vectors.T
    diversifier = Diversifier(pool, diversity)
    among = np.zeros(similar.shape, dtype=np.bool_)
    for number, (point, hits) in enumerate(zip(recent, found, strict=True)):
        diversifier.fold(sources[number], point.payload.get("text_fp"))
        among[number, [place[hit.id] for hit in hits if hit.id in place]] = True
    weights = DECAY ** np.arange(len(recent), dtype=np.float64)
    credit = np.zeros(len(recent))
    chosen: list[NearHit] = []
    while len(chosen) < limit and weights.any():
        credit += weights
        turn = int(np.argmax(np.where(weights > 0, credit, -np.inf)))
        row = diversifier.take(similar[turn], among[turn])
        if row is None:
            weights[turn] = 0  # its share goes to the others
            continue
        credit[turn] -= weights.sum()
        chosen.append(NearHit(pool.pin_ids[row], pin_of(recent[turn]), float(similar[turn, row])))
    return chosen, not weights.all()
