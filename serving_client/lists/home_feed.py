"""The home feed: new pins for somebody's interests, each getting its share.

Recent pins become interests with an importance (:mod:`serving_client.lists.interests`). The :data:`LEADING` most
important are asked for the pins near their medoids, and take turns in proportion to their importance: so an older
interest still gets its share, which an average of all vectors would not give it. A turn gives the best pin by maximal
marginal relevance over everything chosen so far (:mod:`serving_client.lists.diversity`); seen pins, recent pins and
what is nearly the same as a recent one are left out.

**Exploration** is the share of places that go elsewhere: to an interest drawn from the leading ones and
:data:`EXPLORED` others, all alike whatever their importance, and there to a pin drawn from the farther half of those
found. With a share of 0.1 these are the 5th, 15th, 25th place and so on. The draws are seeded with the recent pins (and
``seed``): the same request gives the same feed, and a feed changes with what somebody does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from materialize.spaces import Space
from materialize.stores.port import Condition, Hit, Point
from serving_client.answers import HomeFeed, Interest, NearHit
from serving_client.arguments import check_limit, check_range
from serving_client.degraded import UnavailableError, note, reason
from serving_client.filters import check_fields
from serving_client.lists.diversity import PAYLOAD, Diversifier, Pool, pin_of
from serving_client.lists.interests import Cluster, SmoothTurns, interests, newest_first
from serving_client.lists.neighbours import near
from serving_client.publications.publications import Publication
from serving_client.stages import stage

RECENT_PINS = 300
"""Of the recent pins, so many of the newest make the interests; all are left out of the feed."""
LEADING = 5
"""Interests that take turns."""
EXPLORED = 2
"""Further interests, drawn from the others, that exploration may lead to."""
MOST_CANDIDATES = 2_000
"""Pins beyond so many of the nearest to an interest are not looked at, however many of these were seen."""
_FIRST_LOOK = 20
_WIDER = 8


@dataclass(frozen=True)
class FeedWish:
    """What is asked of a feed; checked when made.

    :raises UsageError: for a number out of its range.
    """

    recent: tuple[str, ...]
    """Pin ids, the most recent first unless there are times."""
    limit: int
    seen: frozenset[str]
    diversity: float
    exploration: float
    wanted: Condition | None = None
    times: NDArray[np.datetime64] | None = None
    """[n] of the recent pins."""
    seed: int | str | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)
        check_range("diversity", self.diversity, 0, 1)
        check_range("exploration", self.exploration, 0, 1)

    @cached_property
    def hidden(self) -> frozenset[str]:
        """Pins that are not to be shown."""
        return self.seen.union(self.recent)

    @property
    def exploring_places(self) -> int:
        """How many places go to exploration."""
        return int(self.limit * self.exploration + 0.5)

    def explores(self, place: int) -> bool:
        """Whether a place, counted from 0, goes to exploration."""
        return int((place + 1) * self.exploration + 0.5) > int(place * self.exploration + 0.5)


def home_feed(publication: Publication, space: Space, wish: FeedWish) -> HomeFeed:
    """The feed for ``wish``; empty if no recent pin has a vector.

    :raises UsageError: if the pins of ``space`` cannot be filtered so.
    """
    check_fields(publication, space, wish.wanted)
    order = newest_first(len(wish.recent), wish.times)
    newest = dict.fromkeys(wish.recent[row] for row in order)  # each once
    asked = list(newest)[:RECENT_PINS]
    with stage("store"):
        points = dict(zip(asked, publication.vector_points(space, asked, PAYLOAD), strict=True))
    recent = [point for point in points.values() if point is not None]
    with stage("lists"):
        pool = Pool.of(recent, space.dimension)
        clusters = interests(pool.vectors, _times_of(pool, wish))
        drawing = random.Random("\n".join((str(wish.seed), *asked)).encode("utf-8", "surrogatepass"))
        others = clusters[LEADING:] if wish.exploring_places else []
        further = drawing.sample(others, min(EXPLORED, len(others)))
    sources = _read(publication, space, wish, pool, [*clusters[:LEADING], *further])
    hits = _fill_from(publication, space, wish, pool, sources, drawing)
    return HomeFeed(
        wish.recent,
        np.array([points.get(pin_id) is not None for pin_id in wish.recent], dtype=np.bool_),
        tuple(hits),
        space.name,
        publication.release.number,
        tuple(_interest(cluster, pool, sources) for cluster in clusters),
    )


class _Source:
    """The unseen pins near the medoid of an interest, the nearest first."""

    def __init__(self, cluster: Cluster, vector: NDArray[np.float32], size: int, leading: bool) -> None:
        self.cluster = cluster
        self.vector = vector
        self.leading = leading
        self.size = size
        """How many of the nearest were looked at, or are to be."""
        self.found: list[Hit | Point] = []
        self.more = True
        """Whether there are pins beyond these that may be looked at."""
        self.dry = False
        """Whether it had nothing to give when it was its turn."""

    def keep(self, hits: Sequence[Hit], hidden: frozenset[str]) -> None:
        """Take in what a look at the nearest found."""
        self.found = [hit for hit in hits if pin_of(hit) not in hidden]
        self.more = len(hits) == self.size < MOST_CANDIDATES

    def look_further(self, publication: Publication, space: Space, wish: FeedWish) -> None:
        """Look at more of the nearest, but read the vectors of those only that may be shown."""
        self.size = min(_WIDER * self.size, MOST_CANDIDATES)
        distinct: dict[str, str] = {}
        try:
            with stage("store"):
                hits = publication.reader.search(
                    space.name, self.vector, self.size, filter=wish.wanted, with_payload=PAYLOAD
                )
                for hit in hits:
                    if pin_of(hit) not in wish.hidden:
                        distinct.setdefault(hit.payload.get("text_fp") or hit.id, hit.id)
                points = publication.reader.get_many(space.name, list(distinct.values()), PAYLOAD, True)
        except UnavailableError as error:
            note(reason(error.code, f"{error} One interest gave fewer pins than its share."))
            self.more = False
            return
        self.found = [point for point in points if point is not None]
        self.more = len(hits) == self.size < MOST_CANDIDATES


def _read(
    publication: Publication, space: Space, wish: FeedWish, pool: Pool, clusters: Sequence[Cluster]
) -> list[_Source]:
    """What each interest has to give at first.

    :raises UnavailableError: if the store gives nothing of any.
    """
    sources: list[_Source] = []
    for number, cluster in enumerate(clusters):
        whole = sum(each.share for each in clusters[:LEADING])
        share = math.ceil(wish.limit * cluster.share / whole) if number < LEADING else wish.exploring_places
        size = min(2 * share + _FIRST_LOOK, MOST_CANDIDATES)
        source = _Source(cluster, pool.vectors[cluster.medoid], size, number < LEADING)
        try:
            source.keep(near(publication, space, source.vector, size, wish.wanted), wish.hidden)
        except UnavailableError as error:
            if not sources:
                raise
            note(reason(error.code, f"{error} Only {number} of {len(clusters)} interests are in the feed."))
            break
        sources.append(source)
    return sources


def _fill_from(
    publication: Publication, space: Space, wish: FeedWish, recent: Pool, sources: list[_Source], drawing: random.Random
) -> list[NearHit]:
    """The feed, made anew with more pins of those interests that ran dry, until there are no more."""
    state = drawing.getstate()
    while True:
        with stage("lists"):
            drawing.setstate(state)
            hits = _Filling(wish, recent, sources, drawing).hits()
        wider = [source for source in sources if source.dry and source.more]
        if not wider:
            return hits
        for source in wider:
            source.look_further(publication, space, wish)


class _Filling:
    """One filling of the places of a feed with what the sources have."""

    def __init__(self, wish: FeedWish, recent: Pool, sources: Sequence[_Source], drawing: random.Random) -> None:
        points = {point.id: point for source in sources for point in source.found}
        place = {point_id: row for row, point_id in enumerate(points)}
        self._wish = wish
        self._recent = recent
        self._sources = sources
        self._drawing = drawing
        self._pool = Pool.of(list(points.values()), recent.vectors.shape[1])
        self._rows = [np.array([place[point.id] for point in source.found], dtype=np.intp) for source in sources]
        self._diversifier = Diversifier(self._pool, wish.diversity)
        self._diversifier.fold(recent.vectors, recent.texts)
        vectors = np.stack([source.vector for source in sources]) if sources else self._pool.vectors[:0]
        self._similar = vectors @ self._pool.vectors.T

    def hits(self) -> list[NearHit]:
        """The pins in the order to show them; notes which sources ran dry."""
        leading = [number for number, source in enumerate(self._sources) if source.leading]
        turns = SmoothTurns(np.array([self._sources[number].cluster.share for number in leading]))
        for source in self._sources:
            source.dry = False
        hits: list[NearHit] = []
        while len(hits) < self._wish.limit:
            hit = self._explored() if self._wish.explores(len(hits)) else None
            hit = hit or self._next(turns)
            if hit is None:
                break
            hits.append(hit)
        return hits

    def _next(self, turns: SmoothTurns) -> NearHit | None:
        while (number := turns.next()) is not None:
            among = np.zeros(len(self._pool.pin_ids), dtype=np.bool_)
            among[self._rows[number]] = True
            row = self._diversifier.take(self._similar[number], among)
            if row is not None:
                return self._hit(number, row, False)
            self._sources[number].dry = True
            turns.leave(number)
        return None

    def _explored(self) -> NearHit | None:
        for number in self._drawing.sample(range(len(self._sources)), len(self._sources)):
            rows = self._rows[number]
            far = rows[len(rows) // 2 :]
            choice = far[self._diversifier.open[far]].tolist()
            if choice:
                row = self._drawing.choice(choice)
                self._diversifier.take_row(row)
                return self._hit(number, row, True)
        return None

    def _hit(self, number: int, row: int, exploration: bool) -> NearHit:
        because = self._recent.pin_ids[self._sources[number].cluster.medoid]
        return NearHit(self._pool.pin_ids[row], because, float(self._similar[number, row]), exploration=exploration)


def _times_of(recent: Pool, wish: FeedWish) -> NDArray[np.datetime64] | None:
    """When each of the recent pins was saved last."""
    if wish.times is None:
        return None
    latest: dict[str, np.datetime64] = {}
    for pin_id, time in zip(wish.recent, wish.times, strict=True):
        latest[pin_id] = max(time, latest.get(pin_id, time))
    return np.array([latest[pin_id] for pin_id in recent.pin_ids], dtype="datetime64[us]")


def _interest(cluster: Cluster, recent: Pool, sources: Sequence[_Source]) -> Interest:
    dry = any(source.dry for source in sources if source.cluster is cluster)
    pins = tuple(recent.pin_ids[row] for row in cluster.rows)
    return Interest(recent.pin_ids[cluster.medoid], pins, cluster.share, dry)
