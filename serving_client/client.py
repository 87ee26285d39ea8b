"""The client: everything a consumer asks of Pinfeather, over one repository."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from feature_repo.board_text import Board
from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from feature_repo.text import canonical_query
from materialize.spaces import Space
from materialize.stores.layout import stack_vectors
from serving_client.answers import (
    Embeddings,
    FeatureTable,
    HomeFeed,
    NearHit,
    RelatedPins,
    Scores,
    SearchHit,
    SearchResults,
)
from serving_client.features import CONTENT, read_features, read_features_through_feast
from serving_client.nearest import Pool, check_range, condition, home_feed, related
from serving_client.publications import LIVE, Publication, Publications
from serving_client.query_cache import CacheStats, QueryCache
from serving_client.scoring import Judge, read_candidates
from serving_client.towers import Towers

if TYPE_CHECKING:
    from embedders.encoder import Encoder

QUERY_CACHE_BYTES = 64 << 20
FRESH_SECONDS = 1.0
"""A request that begins so long after the last look looks for a newer publication."""

_Hit = TypeVar("_Hit", SearchHit, NearHit)
_Item = TypeVar("_Item")
Wanted = str | Sequence[str] | None
"""One value, several of which any will do, or None for all."""


class PinClient:
    """Vectors, features, five-level scores and lists of pins from one repository. Threads may share it.

    Batches go in and arrays come out, in the order asked; an unknown pin is False in ``found``, never an exception.
    Each call works on one publication from start to end; newer ones are noticed within :data:`FRESH_SECONDS`. The
    model is loaded by the first call that has to embed a text::

        with PinClient("my_repo") as client:
            for hit in client.search("green velvet sofa", limit=5).hits:
                ...

    :param repo: a folder with ``feature_store.yaml``.
    :param device: ``auto``, ``cpu`` or ``cuda``, for the query tower.
    :param query_cache_bytes: memory for query vectors; 0 keeps none.
    :param encoder: a query tower at hand; by default that of the space is loaded.
    :raises PinfeatherError: if ``repo`` is no repository. That nothing was materialized yet is said by the first call.
    """

    def __init__(
        self,
        repo: str | Path,
        *,
        device: str = "auto",
        query_cache_bytes: int = QUERY_CACHE_BYTES,
        encoder: Encoder | None = None,
    ) -> None:
        self.paths = RepoPaths.open(repo)
        self._towers = Towers(device, QueryCache(query_cache_bytes), encoder)
        self._asked: set[str] = set()
        """Spaces that somebody asked for by their own name: their models and query vectors outlive a switch."""
        self._publications = Publications(self.paths, self._switched, FRESH_SECONDS)

    def __enter__(self) -> PinClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of store and models; calls that are under way finish first."""
        self._publications.close()

    def refresh(self) -> bool:
        """Switch to the newest publication now; whether there was a newer one."""
        return self._publications.refresh()

    @property
    def query_cache(self) -> CacheStats:
        """Hits, misses and size of the query cache."""
        return self._towers.cache.stats

    def _switched(self, publication: Publication) -> None:
        self._asked.intersection_update(publication.spaces())
        served = [publication.space(name) for name in set(publication.release.names.values())]
        self._towers.keep_only([*served, *publication.opened(self._asked.copy())])

    def _space(self, publication: Publication, name: str) -> Space:
        space = publication.space(name)
        if name == space.name:
            self._asked.add(name)
        return space

    # --- vectors and features ---------------------------------------------------------------------------------------

    def embed_queries(self, queries: Sequence[str], space: str = LIVE) -> Embeddings:
        """Vectors of queries, comparable with the pins of ``space``; ``ids`` are the canonical queries.

        Found are all but the empty ones. Vectors are kept in the query cache.

        :raises UsageError: for an unknown space.
        :raises PinfeatherError: if the model is not the space's, or its folder has changed.
        """
        texts = _texts("queries", queries)
        with self._publications.current() as publication:
            named = self._space(publication, space)
        return self._towers.embed_queries(named, texts)

    def embed_boards(self, boards: Sequence[Board | str | Sequence[str]], space: str = LIVE) -> Embeddings:
        """Vectors of boards, comparable with the pins of ``space``; ``ids`` are the titles.

        They are made by the query tower: a board asks for pins as a query does, see :mod:`feature_repo.board_text`.
        Found are all but those of which nothing is known. Errors as above.

        :param boards: each a :class:`~feature_repo.board_text.Board`, its title alone, or a list of its title and the
            titles of its pins.
        """
        named_boards = [_board(board) for board in _batch("boards", boards)]
        with self._publications.current() as publication:
            named = self._space(publication, space)
        return self._towers.embed_boards(named, named_boards)

    def pin_embeddings(self, ids: Sequence[str], space: str = LIVE) -> Embeddings:
        """Vectors of pins as they are stored. Loads no model.

        :param space: ``live``, a public name such as ``pin_student_embedding``, or a physical space.
        :raises UsageError: for an unknown space.
        """
        pins = _texts("ids", ids)
        with self._publications.current() as publication:
            named = publication.space(space)
            vectors = stack_vectors(publication.vector_points(named, pins), named.dimension)
        return Embeddings(tuple(pins), vectors, ~np.isnan(vectors[:, 0]), named.name, named.model_fingerprint)

    def pin_features(self, ids: Sequence[str], service: str = CONTENT, *, slow_path: bool = False) -> FeatureTable:
        """The features of a feature service for each pin.

        :param slow_path: ask Feast's ``get_online_features`` for the same, for comparison; imports Feast (seconds).
        :raises UsageError: for an unknown service.
        """
        pins = _texts("ids", ids)
        if slow_path:
            return read_features_through_feast(self.paths, pins, service)
        with self._publications.current() as publication:
            return read_features(publication, pins, service)

    # --- relevance --------------------------------------------------------------------------------------------------

    def score(self, query: str, pin_ids: Sequence[str], explain: bool = False, scorer: str = "student") -> Scores:
        """Five-level relevance of each pin to ``query``.

        :param scorer: ``student``, ``zero-shot`` or ``bm25``; see :mod:`serving_client.scoring` for what happens if the
            release has no such part.
        :param explain: also say what each feature contributed (student only).
        :raises UsageError: for an unknown scorer.
        :raises PinfeatherError: if nothing can score, or model or bundle are not what the release names.
        """
        pins = _texts("pin_ids", pin_ids)
        text = canonical_query(query)
        with self._publications.current() as publication:
            judge = Judge.choose(publication, scorer)
            space = judge.space if judge.needs_query_vector else None
            vector = self._query_vector(judge, space, text)
            candidates = read_candidates(publication, space, pins)
            return judge.score(text, vector, candidates, explain)

    def search(
        self,
        query: str,
        limit: int = 10,
        candidates: int = 200,
        *,
        lang: Wanted = None,
        country: Wanted = None,
        scorer: str = "student",
        explain: bool = False,
        content: bool = False,
    ) -> SearchResults:
        """The best pins for ``query``: the nearest ``candidates`` by vector (at least ``limit``), scored, best first.

        Pins of equal score stand in the order of their cosine. An empty query finds nothing.

        :param lang: keep pins of this language, or of any of these; ``country`` likewise.
        :param content: give each hit its features of ``pin_content_v1``.
        :raises UsageError: for numbers below 1 or an unknown scorer; further errors as :meth:`score`.
        """
        check_range("limit", limit, 1)
        check_range("candidates", candidates, 1)
        wanted = condition({"lang": lang, "country": country})
        text = canonical_query(query)
        with self._publications.current() as publication:
            space = publication.space()
            judge = Judge.choose(publication, scorer)
            pool = Pool.of([], space.dimension)
            vector = self._query_vector(judge, space, text)
            if vector is not None:
                found = publication.reader.search(
                    space.name,
                    vector,
                    max(candidates, limit),
                    filter=wanted,
                    with_payload=["key"],
                    with_vectors=True,
                )
                pool = Pool.of(found, space.dimension)
            scores = judge.score(text, vector, read_candidates(publication, space, pool.pin_ids, pool.vectors), explain)
            hits = [_search_hit(scores, row) for row in scores.order()[:limit]]
            if content:
                hits = _with_content(publication, hits)
        return SearchResults(
            text, tuple(hits), scores.scorer, space.name, scores.bundle, len(pool.pin_ids), scores.degraded
        )

    def _query_vector(self, judge: Judge, space: Space | None, text: str) -> NDArray[np.float32] | None:
        if not text or space is None:
            return None
        embedded = self._towers.embed_queries(space, [text])
        judge.check_query_tower(embedded.model)
        return embedded.vectors[0]

    # --- lists of pins ----------------------------------------------------------------------------------------------

    def related_pins(
        self,
        pin_id: str,
        limit: int = 10,
        diversity: float = 0.3,
        *,
        lang: Wanted = None,
        country: Wanted = None,
        content: bool = False,
    ) -> RelatedPins:
        """Pins like ``pin_id``, diversified; without itself, and near-duplicates only once.

        :param diversity: 0 ranks by cosine alone, 1 by unlikeness to what stands above; the formula is in
            :mod:`serving_client.nearest`.
        :param lang: keep pins of this language, or of any of these; ``country`` likewise.
        :param content: give each hit its features of ``pin_content_v1``.
        :raises UsageError: for a limit below 1 or a diversity outside 0 to 1.
        """
        check_range("limit", limit, 1)
        check_range("diversity", diversity, 0, 1)
        wanted = condition({"lang": lang, "country": country})
        with self._publications.current() as publication:
            space = publication.space()
            source = publication.vector_points(space, [str(pin_id)], True)[0]
            if source is None:
                return RelatedPins(str(pin_id), False, (), space.name)
            hits = related(publication, space, source, limit, diversity, wanted)
            if content:
                hits = _with_content(publication, hits)
        return RelatedPins(str(pin_id), True, tuple(hits), space.name)

    def home_feed(
        self,
        recent_pins: Sequence[str],
        limit: int = 20,
        seen: Iterable[str] = (),
        diversity: float = 0.3,
        *,
        lang: Wanted = None,
        country: Wanted = None,
        content: bool = False,
    ) -> HomeFeed:
        """Pins for somebody who looked at ``recent_pins``, the most recent first.

        Each recent interest gets its share, the more recent the larger; :func:`serving_client.nearest.home_feed` says
        how. The pins in ``seen`` and the recent ones are left out. Other parameters as :meth:`related_pins`.
        """
        check_range("limit", limit, 1)
        check_range("diversity", diversity, 0, 1)
        wanted = condition({"lang": lang, "country": country})
        pins = _texts("recent_pins", recent_pins)
        hidden = frozenset(_texts("seen", seen)) | frozenset(pins)
        with self._publications.current() as publication:
            space = publication.space()
            points = publication.vector_points(space, pins, ["key", "text_fp"])
            known = {point.id: point for point in points if point is not None}
            hits = home_feed(publication, space, list(known.values()), limit, hidden, diversity, wanted)
            if content:
                hits = _with_content(publication, hits)
        found = np.array([point is not None for point in points], dtype=np.bool_)
        return HomeFeed(tuple(pins), found, tuple(hits), space.name)


def _texts(name: str, values: Iterable[str]) -> list[str]:
    """The batch as a list of texts; numbers of a column of ids count as their digits.

    :raises UsageError: if one text was given instead of a batch.
    """
    return [str(value) for value in _batch(name, values)]


def _batch(name: str, values: Iterable[_Item]) -> Iterable[_Item]:
    if isinstance(values, str | bytes):
        raise UsageError(f"{name} takes a list, not one text: give [{values!r}].")
    return values


def _board(board: Board | str | Sequence[str]) -> Board:
    """A board out of any form in which one may be given."""
    if isinstance(board, Board):
        return board
    title, *titles = [board] if isinstance(board, str) else [str(text) for text in board] or [""]
    return Board(title, tuple(titles))


def _search_hit(scores: Scores, row: int) -> SearchHit:
    return SearchHit(
        pin_id=scores.ids[row],
        score=float(scores.ranking[row]),
        similarity=float(scores.similarity[row]),
        level=int(scores.level[row]),
        expected_level=float(scores.expected_level[row]),
        probabilities=tuple(float(each) for each in scores.probabilities[row]),
        explanation=scores.explanations[row] if scores.explanations else None,
    )


def _with_content(publication: Publication, hits: Sequence[_Hit]) -> list[_Hit]:
    table = read_features(publication, [hit.pin_id for hit in hits], CONTENT)
    return [replace(hit, content=table.row(row)) for row, hit in enumerate(hits)]
