"""A search from query to page: candidates, five-level scores, blending, order, one page.

Order: by score (:mod:`serving_client.search.blending` where engagement is blended in), then by cosine, then by pin id.
A search goes ``candidates`` pins deep: that many are scored, and pages follow one another until they are all shown.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError
from feature_repo.text import canonical_query
from materialize.spaces import Space
from materialize.stores.port import Condition
from serving_client.answers import Scores, SearchHit, SearchResults
from serving_client.degraded import UnavailableError, reason
from serving_client.filters import check_fields
from serving_client.lookups.content import with_content
from serving_client.publications.publications import Publication
from serving_client.relevance.candidates import Candidates, read_candidates
from serving_client.relevance.scoring import Embed, Judge
from serving_client.search.blending import DEFAULT_FLOOR, blended, engagement_prior
from serving_client.search.cursors import Cursor, Place, digest_of, place_of
from serving_client.search.retrieval import RETRIEVALS, has_words, retrieve, without_words

MOST_CANDIDATES = 10_000
"""A search goes so deep at most, and a page is so long at most."""


@dataclass(frozen=True)
class SearchWish:
    """What is asked of a search; see :meth:`serving_client.client.PinClient.search`."""

    query: str
    limit: int
    candidates: int
    wanted: Condition | None
    scorer: str
    explain: bool
    content: bool
    retrieval: str
    engagement_weight: float
    floor: float
    cursor: str | None
    space: str
    """As the caller names it."""

    @classmethod
    def of(
        cls,
        query: str,
        limit: int,
        candidates: int,
        wanted: Condition | None,
        *,
        scorer: str,
        explain: bool,
        content: bool,
        retrieval: str,
        engagement_weight: float,
        floor: float | None,
        cursor: str | None,
        space: str,
    ) -> SearchWish:
        """The wish, its query canonical.

        :raises UsageError: for a number out of its range, something that is no number, or an unknown ``retrieval``.
        """
        for name, value in (("query", query), ("space", space)):
            if not isinstance(value, str):
                raise UsageError(f"{name} is a text, not {type(value).__name__}.")
        if retrieval not in RETRIEVALS:
            raise UsageError(f"There is no retrieval {retrieval!r}; there are: {', '.join(RETRIEVALS)}.")
        weight = _number("engagement_weight", engagement_weight, 0, float("inf"))
        if weight and scorer != "student":
            raise UsageError(
                f"engagement_weight is blended with expected levels, which {scorer!r} does not give: ask for the "
                "scorer 'student', or leave it 0."
            )
        return cls(
            query=canonical_query(query),
            limit=_whole("limit", limit),
            candidates=_whole("candidates", candidates),
            wanted=wanted,
            scorer=scorer,
            explain=explain,
            content=content,
            retrieval=retrieval,
            engagement_weight=weight,
            floor=DEFAULT_FLOOR if floor is None else _number("floor", floor, 1, 5),
            cursor=cursor,
            space=space,
        )

    @property
    def depth(self) -> int:
        """How many candidates are scored at most."""
        return max(self.candidates, self.limit)

    def digest(self, project: str) -> str:
        """Of everything that decides which pins come in which order; how long a page is does not."""
        order = (self.scorer, self.retrieval, self.engagement_weight, self.floor)
        return digest_of((project, self.space, self.query, self.wanted, self.depth, *order))


def search(publication: Publication, space: Space, wish: SearchWish, embed: Embed) -> SearchResults:
    """The page of pins that is wished.

    :param embed: a batch of queries to a space into their vectors.
    :raises UsageError: for an unknown scorer, a filter that ``space`` cannot serve, or a cursor of another search.
    :raises UnavailableError: if nothing can find or score.
    """
    wanted = check_fields(publication, space, wish.wanted)
    digest = wish.digest(publication.project)
    cursor = None if wish.cursor is None else Cursor.decode(wish.cursor, digest)
    judge = Judge.choose(publication, wish.scorer, space)
    words = has_words(publication, space)
    extra = [] if words or wish.retrieval == "vector" else [without_words(space, wish.retrieval)]
    vector = judge.query_vector(publication, wish.query, embed, searching=wish.retrieval != "lexical")
    near = None if wish.retrieval == "lexical" else vector
    if wish.query and near is None and not words:
        raise UnavailableError(
            f"Nothing can be found in space {space.name}: {'; '.join([*judge.degraded, *extra])}.", "no_embedding"
        )
    by_words = words and (near is None or wish.retrieval != "vector")
    pins: list[str] = []
    if wish.query:
        pins = retrieve(publication, space, near, wish.query if by_words else None, wish.depth, wanted)
    candidates = _candidates(publication, judge, space if near is not None else None, pins)
    scores = judge.score(wish.query, vector, candidates, False)
    ranking, prior = _ranking(wish, scores, candidates, extra)
    rows = sorted(_scored(ranking), key=lambda row: _place(scores, ranking, row))
    start = _start(publication, cursor, [_place(scores, ranking, row) for row in rows], scores.scorer, extra)
    page = rows[start : start + wish.limit]
    hits = [_hit(scores, ranking, prior, row) for row in page]
    if wish.explain and scores.scorer == "student":
        hits = _explained(publication, judge, wish.query, vector, hits)
    following = None
    if start + len(page) < len(rows):
        first = cursor.publication if cursor else publication.number
        last = _place(scores, ranking, page[-1])
        following = Cursor(first, digest, scores.scorer, start + len(page), last).encode()
    found = SearchResults(
        query=wish.query,
        hits=tuple(hits),
        scorer=scores.scorer,
        space=space.name,
        bundle=scores.bundle,
        candidates=len(pins),
        degraded=tuple(dict.fromkeys((*scores.degraded, *extra))),
        release=publication.release.number,
        next_cursor=following,
    )
    return with_content(publication, found) if wish.content else found


def _candidates(publication: Publication, judge: Judge, space: Space | None, pins: list[str]) -> Candidates:
    """What is known of the pins; bm25, which needs no vectors, gets those of ``space`` to tell similarities."""
    if judge.needs_query_vector:
        return judge.candidates(publication, pins)
    return read_candidates(publication, space, pins)


def _ranking(
    wish: SearchWish, scores: Scores, candidates: Candidates, extra: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """What ranks n candidates, and their engagement prior where it was blended in."""
    if not wish.engagement_weight:
        return scores.ranking, None
    if scores.scorer != "student":
        extra.append(reason("no_student", "engagement was not blended in, for want of expected levels"))
        return scores.ranking, None
    prior = engagement_prior(candidates.click_rate, candidates.save_rate)
    return blended(scores.expected_level, prior, wish.engagement_weight, wish.floor), prior


def _start(publication: Publication, cursor: Cursor | None, places: list[Place], scorer: str, extra: list[str]) -> int:
    """The row at which the page begins; that the pages are not of one piece goes into ``extra``."""
    if cursor is None:
        return 0
    if cursor.publication != publication.number:
        changed = f"publication {publication.number} serves now, and the first page was of {cursor.publication}"
        extra.append(reason("stale", f"{changed}; pins may come twice or be missed"))
    elif cursor.scorer != scorer:
        extra.append(reason("stale", f"scored by {scorer} now, and by {cursor.scorer} before; pins may come twice"))
    return cursor.start(places, scorer, publication.number)


def _scored(ranking: NDArray[np.float64]) -> list[int]:
    return np.flatnonzero(~np.isnan(ranking)).tolist()


def _place(scores: Scores, ranking: NDArray[np.float64], row: int) -> Place:
    return place_of(float(ranking[row]), float(scores.similarity[row]), scores.ids[row])


def _hit(scores: Scores, ranking: NDArray[np.float64], prior: NDArray[np.float64] | None, row: int) -> SearchHit:
    return SearchHit(
        pin_id=scores.ids[row],
        score=float(ranking[row]),
        similarity=float(scores.similarity[row]),
        level=int(scores.level[row]),
        expected_level=float(scores.expected_level[row]),
        probabilities=tuple(float(each) for each in scores.probabilities[row]),
        engagement=None if prior is None else float(prior[row]),
    )


def _explained(
    publication: Publication, judge: Judge, query: str, vector: NDArray[np.float32] | None, hits: list[SearchHit]
) -> list[SearchHit]:
    """The hits with what each feature contributed: of a page alone, as explaining costs more than scoring."""
    candidates = judge.candidates(publication, [hit.pin_id for hit in hits])
    explanations = judge.score(query, vector, candidates, True).explanations or (None,) * len(hits)
    return [replace(hit, explanation=each) for hit, each in zip(hits, explanations, strict=True)]


def _whole(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}, but must be a whole number from 1 to {MOST_CANDIDATES}.") from None
    if not 1 <= number <= MOST_CANDIDATES:
        raise UsageError(f"{name} is {number}, but must be at least 1 and at most {MOST_CANDIDATES}.")
    return number


def _number(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} is {value!r}, but must be a number.") from None
    if not (low <= number <= high and np.isfinite(number)):
        allowed = f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        raise UsageError(f"{name} is {number}, but must be {allowed}.")
    return number
