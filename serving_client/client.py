"""The client: everything a consumer asks of Pinfeather, over one repository."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from feature_repo.board_text import Board
from feature_repo.text import canonical_query
from serving_client.answers import (
    BoardHits,
    BoardPins,
    Embeddings,
    FeatureTable,
    HomeFeed,
    RelatedPins,
    Scores,
    SearchResults,
)
from serving_client.arguments import board_of, listed, moments, text_list
from serving_client.degraded import noted
from serving_client.filters import CreatedAfter, Wanted, filter_of
from serving_client.lists.boards import BoardWish, board_pins, boards_for_pin
from serving_client.lists.home_feed import FeedWish, home_feed
from serving_client.lists.related import RelatedWish, related_pins
from serving_client.lookups.content import with_content
from serving_client.lookups.features import CONTENT, read_features, read_features_through_feast
from serving_client.lookups.query_features import QUERY_STATS, read_query_features
from serving_client.lookups.vectors import pin_vectors
from serving_client.opened import OpenedRepository
from serving_client.publications.publications import LIVE
from serving_client.relevance.scoring import Judge
from serving_client.search.searching import SearchWish, search
from serving_client.status import Status, status_of


class PinClient(OpenedRepository):
    """Vectors, features, five-level scores and lists of pins from one repository. Threads may share it.

    Batches go in and arrays come out, in the order asked; an unknown pin is False in ``found``, never an exception.
    Each call works on one publication from start to end; newer ones are noticed within a second. The model is loaded by
    the first call that has to embed a text::

        with PinClient("my_repo") as client:
            for hit in client.search("green velvet sofa", limit=5).hits:
                ...

    :param repo: a folder with ``feature_store.yaml``.
    :param device: ``auto``, ``cpu`` or ``cuda``, for the query tower.
    :param query_cache_bytes: memory for query vectors; 0 keeps none.
    :param encoder: a query tower at hand; by default that of the space is loaded.
    :param read_ahead_bytes: see :meth:`read_ahead`; 0 reads nothing before it is asked for.
    :raises PinfeatherError: if ``repo`` is no repository. That nothing was materialized yet is said by the first call.
    """

    def status(self) -> Status:
        """What serves now, how old it is, who can score, and what is amiss; also where nothing can be served."""
        return status_of(self._publications, self.query_cache)

    # --- vectors and features ---------------------------------------------------------------------------------------

    @noted
    def embed_queries(self, queries: Sequence[str], space: str = LIVE) -> Embeddings:
        """Vectors of queries, comparable with the pins of ``space``; ``ids`` are the canonical queries.

        Found are all but the empty ones. Vectors are kept in the query cache.

        :raises UsageError: for an unknown space.
        :raises PinfeatherError: if the model is not the space's, or its folder has changed.
        """
        texts = text_list("queries", queries)
        with self._publications.current() as publication:
            return self._towers.embed_queries(self._space(publication, space), texts)

    def evict_queries(self, queries: Sequence[str]) -> int:
        """Let go of the vectors of ``queries``, in any spelling of the same canonical form; how many queries these are.

        Whether a vector was kept is not told: it would say whether somebody else has asked that query. What is being
        embedded just now is answered and not kept. It works on this process alone and until one of them is asked
        again; to erase a query for good, use ``pinfeather erase --query``.
        """
        distinct = set(map(canonical_query, text_list("queries", queries))) - {""}
        self._towers.cache.evict(distinct)
        return len(distinct)

    @noted
    def embed_boards(self, boards: Sequence[Board | str | Sequence[str]], space: str = LIVE) -> Embeddings:
        """Vectors of boards, comparable with the pins of ``space``; ``ids`` are the titles.

        They are made by the query tower: a board asks for pins as a query does, see :mod:`feature_repo.board_text`.
        Found are all but those of which nothing is known. Errors as above.

        :param boards: each a :class:`~feature_repo.board_text.Board`, its title alone, or a list of its title and the
            titles of its pins.
        """
        named_boards = [board_of(board) for board in listed("boards", boards)]
        with self._publications.current() as publication:
            return self._towers.embed_boards(self._space(publication, space), named_boards)

    @noted
    def pin_embeddings(self, ids: Sequence[str], space: str = LIVE) -> Embeddings:
        """Vectors of pins as they are stored, and when what each says became so. Loads no model.

        :param space: ``live``, a public name such as ``pin_student_embedding``, or a physical space.
        :raises UsageError: for an unknown space.
        """
        pins = text_list("ids", ids)
        with self._publications.current() as publication:
            return pin_vectors(publication, publication.space(space), pins)

    @noted
    def pin_features(self, ids: Sequence[str], service: str = CONTENT, *, slow_path: bool = False) -> FeatureTable:
        """The features of a feature service for each pin.

        :param slow_path: ask Feast's ``get_online_features`` for the same, for comparison; imports Feast (seconds).
        :raises UsageError: for an unknown service.
        """
        pins = text_list("ids", ids)
        if slow_path:
            return read_features_through_feast(self.paths, pins, service)
        with self._publications.current() as publication:
            return read_features(publication, pins, service)

    @noted
    def query_features(self, queries: Sequence[str], service: str = QUERY_STATS) -> FeatureTable:
        """The features of a feature service for each query, by its canonical form.

        :raises UsageError: for an unknown service, or one that is not keyed by query alone.
        """
        texts = text_list("queries", queries)
        with self._publications.current() as publication:
            return read_query_features(publication, texts, service)

    # --- relevance --------------------------------------------------------------------------------------------------

    @noted
    def score(
        self,
        query: str,
        pin_ids: Sequence[str],
        explain: bool = False,
        scorer: str = "student",
        space: str = LIVE,
    ) -> Scores:
        """Five-level relevance of each pin to ``query``.

        :param scorer: ``student``, ``zero-shot`` or ``bm25``; for a release without such a part see
            :mod:`serving_client.relevance.scoring`.
        :param explain: also say what each feature contributed (student only).
        :param space: whose vectors count: ``live``, a public name, or a physical space.
        :raises UsageError: for an unknown scorer or space.
        :raises UnavailableError: if nothing can score.
        """
        pins = text_list("pin_ids", pin_ids)
        text = canonical_query(query)
        with self._publications.current() as publication:
            judge = Judge.choose(publication, scorer, None if space == LIVE else self._space(publication, space))
            vector = judge.query_vector(publication, text, self._towers.embed_queries)
            candidates = judge.candidates(publication, pins)
            return judge.score(text, vector, candidates, explain)

    @noted
    def search(
        self,
        query: str,
        limit: int = 10,
        candidates: int = 200,
        *,
        lang: Wanted = None,
        country: Wanted = None,
        created_after: CreatedAfter = None,
        safe: bool | None = None,
        scorer: str = "student",
        explain: bool = False,
        content: bool = False,
        retrieval: str = "hybrid",
        engagement_weight: float = 0.0,
        floor: float | None = None,
        cursor: str | None = None,
        space: str = LIVE,
    ) -> SearchResults:
        """The best pins for ``query``: ``candidates`` found (at least ``limit``), scored, best first.

        Pins of equal score stand in the order of their cosine. An empty query finds nothing.

        :param lang: this and the next three filter the pins, see :mod:`serving_client.filters`.
        :param content: give each hit its features of ``pin_content_v1``.
        :param retrieval: ``hybrid`` finds candidates by vector and by words, ``vector`` or ``lexical`` by one of them.
        :param engagement_weight: how many levels engagement may add; 0 ranks by relevance alone. The formula is in
            :mod:`serving_client.search.blending` (student only).
        :param floor: expected level that a pin needs for that, 1 to 5; default is 3.
        :param cursor: ``next_cursor`` of the page before, everything else being the same; None for the first page.
        :param space: ``live``, a public name, or a physical space.
        :raises UsageError: for a number out of range, an unknown scorer, retrieval or space, a wrong filter, or one
            that the space cannot serve, a damaged cursor or one of another search.
        :raises UnavailableError: if nothing can find or score.
        """
        wish = SearchWish.of(
            query,
            limit,
            candidates,
            filter_of(lang=lang, country=country, created_after=created_after, safe=safe),
            scorer=scorer,
            explain=explain,
            content=content,
            retrieval=retrieval,
            engagement_weight=engagement_weight,
            floor=floor,
            cursor=cursor,
            space=space,
        )
        with self._publications.current() as publication:
            return search(publication, self._space(publication, space), wish, self._towers.embed_queries)

    # --- lists of pins ----------------------------------------------------------------------------------------------

    @noted
    def related_pins(
        self,
        pin_id: str,
        limit: int = 10,
        diversity: float = 0.3,
        *,
        lang: Wanted = None,
        country: Wanted = None,
        created_after: CreatedAfter = None,
        safe: bool | None = None,
        content: bool = False,
        space: str = LIVE,
    ) -> RelatedPins:
        """Pins like ``pin_id``, diversified; without itself, and near-duplicates only once.

        :param diversity: 0 ranks by cosine alone, 1 by unlikeness to what stands above; the formula is in
            :mod:`serving_client.lists.diversity`.
        :param lang: this and the next three filter the pins, see :mod:`serving_client.filters`.
        :param content: give each hit its features of ``pin_content_v1``.
        :param space: ``live``, a public name, or a physical space.
        :raises UsageError: for a limit below 1, a diversity outside 0 to 1, a wrong filter, an unknown space.
        """
        wanted = filter_of(lang=lang, country=country, created_after=created_after, safe=safe)
        wish = RelatedWish(str(pin_id), limit, diversity, wanted)
        with self._publications.current() as publication:
            related = related_pins(publication, publication.space(space), wish)
            return with_content(publication, related) if content else related

    @noted
    def home_feed(
        self,
        recent_pins: Sequence[str],
        limit: int = 20,
        seen: Iterable[str] = (),
        diversity: float = 0.3,
        *,
        lang: Wanted = None,
        country: Wanted = None,
        created_after: CreatedAfter = None,
        safe: bool | None = None,
        content: bool = False,
        exploration: float = 0.1,
        saved_at: Sequence[datetime | str] | None = None,
        seed: int | str | None = None,
        space: str = LIVE,
    ) -> HomeFeed:
        """Pins for somebody who looked at ``recent_pins``, the most recent first.

        Each interest among them gets its share; :mod:`serving_client.lists.home_feed` says how. The pins in ``seen``
        (any number) and the recent ones are left out. Other parameters as :meth:`related_pins`.

        :param exploration: share of the places that go to less important interests and less near pins.
        :param saved_at: when each recent pin was saved; then they may stand in any order, and older ones count less by
            their age rather than by their place.
        :param seed: the same request gives the same feed; another seed, such as the date, other explored pins.
        :raises UsageError: also for an exploration outside 0 to 1, or times that are not one a pin.
        """
        pins = tuple(text_list("recent_pins", recent_pins))
        wish = FeedWish(
            pins,
            limit,
            frozenset(text_list("seen", seen)),
            diversity,
            exploration,
            filter_of(lang=lang, country=country, created_after=created_after, safe=safe),
            None if saved_at is None else moments("saved_at", saved_at, len(pins)),
            seed,
        )
        with self._publications.current() as publication:
            feed = home_feed(publication, publication.space(space), wish)
            return with_content(publication, feed) if content else feed

    @noted
    def board_pins(
        self,
        board: Board | str | Sequence[str],
        limit: int = 20,
        diversity: float = 0.3,
        *,
        pins: Sequence[str] = (),
        lang: Wanted = None,
        country: Wanted = None,
        created_after: CreatedAfter = None,
        safe: bool | None = None,
        content: bool = False,
        space: str = LIVE,
    ) -> BoardPins:
        """Pins that fit a board, diversified; without its own, and near-duplicates only once.

        :param board: as in :meth:`embed_boards`; its title may be empty where ``pins`` are given.
        :param pins: ids of its pins, the most recent first. They count for its vector (how:
            :mod:`serving_client.lists.boards`) and are left out. Other parameters as :meth:`related_pins`.
        :raises PinfeatherError: if the query tower cannot be loaded and none of ``pins`` has a vector.
        """
        wanted = filter_of(lang=lang, country=country, created_after=created_after, safe=safe)
        wish = BoardWish(board_of(board), tuple(text_list("pins", pins)), limit, diversity, wanted)
        with self._publications.current() as publication:
            named = self._space(publication, space)
            fitting = board_pins(publication, named, wish, partial(self._towers.embed_boards, named))
            return with_content(publication, fitting) if content else fitting

    @noted
    def boards_for_pin(
        self,
        pin_id: str,
        boards: Sequence[Board | str | Sequence[str]],
        limit: int = 10,
        *,
        space: str = LIVE,
    ) -> BoardHits:
        """Which of ``boards``, such as somebody's own, a pin fits, best first; those without any word are left out.

        :param boards: as in :meth:`embed_boards`; their vectors are kept in the query cache.
        :raises UsageError: for a limit below 1 or an unknown space; further errors as :meth:`embed_boards`.
        """
        given = [board_of(board) for board in listed("boards", boards)]
        with self._publications.current() as publication:
            named = self._space(publication, space)
            embed = partial(self._towers.embed_boards, named)
            return boards_for_pin(publication, named, str(pin_id), given, limit, embed)
