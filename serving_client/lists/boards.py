"""Boards: pins that fit a board, and which of somebody's boards fit a pin.

The vector of a board is made of what it is called and of what is on it:

* ``words``: its text (title and titles of pins, :mod:`feature_repo.board_text`) through the query tower;
* ``pins``: the unit mean of the medoids of its pins, each medoid weighing as many pins as its cluster has (clusters and
  medoids as in :mod:`serving_client.lists.interests`): a pin that is unlike the others counts as one, and no pin that
  was saved by mistake pulls the others.

Both are unit vectors; the board's is the unit vector of their sum, or the one that there is. Without pins a board has
exactly the vector of :meth:`~serving_client.client.PinClient.embed_boards`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.board_text import Board
from feature_repo.errors import PinfeatherError, UsageError
from materialize.spaces import Space
from materialize.stores.port import DEFAULT_VECTOR, Condition
from serving_client.answers import BoardHit, BoardHits, BoardPin, BoardPins, Embeddings
from serving_client.arguments import MOST_LISTED, check_limit, check_range
from serving_client.degraded import note, reason
from serving_client.filters import check_fields
from serving_client.lists.diversity import PAYLOAD, Pool
from serving_client.lists.interests import interests
from serving_client.lists.neighbours import LeftOut, diversified
from serving_client.publications.publications import Publication
from serving_client.stages import DeadlineError, stage

BOARD_PINS = 300
"""So many pins of a board count for its vector; all, and what is nearly the same, are left out of what fits it."""

Vector = NDArray[np.float32]
Embed = Callable[[Sequence[Board]], Embeddings]
"""Boards through the query tower."""


@dataclass(frozen=True)
class BoardWish:
    """What is asked of the pins for a board; checked when made.

    :raises UsageError: for a number out of its range.
    """

    board: Board
    pins: tuple[str, ...]
    """Ids of its pins, the most recent first."""
    limit: int
    diversity: float
    wanted: Condition | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)
        check_range("diversity", self.diversity, 0, 1)


def board_pins(publication: Publication, space: Space, wish: BoardWish, embed: Embed) -> BoardPins:
    """Pins that fit a board; its own and what is nearly the same as these are left out.

    :raises UsageError: if the pins of ``space`` cannot be filtered so.
    :raises PinfeatherError: if the query tower cannot be loaded and no pin of the board has a vector.
    """
    wanted = check_fields(publication, space, wish.wanted)
    distinct = list(dict.fromkeys(wish.pins))
    with stage("store"):
        read = publication.vector_points(space, distinct[:BOARD_PINS], PAYLOAD)
        further = publication.vectors(space, distinct[BOARD_PINS:])
    points = dict(zip(distinct, read, strict=False))
    further = further[~np.isnan(further[:, 0])]
    pool = Pool.of([point for point in read if point is not None], space.dimension)
    words = _words(wish.board, embed, without_pins=not pool.pin_ids)
    with stage("lists"):
        vector = board_vector(words, pool.vectors)
    hits: list[tuple[str, float]] = []
    if vector is not None:
        # The same text has the same vector, so of the further pins no texts are needed.
        left_out = LeftOut(frozenset(distinct), np.concatenate([pool.vectors, further]), pool.texts)
        hits = diversified(publication, space, vector, left_out, wish.limit, wish.diversity, wanted)
    return BoardPins(
        wish.board.title,
        vector is not None,
        wish.pins,
        np.array([points.get(pin_id) is not None for pin_id in wish.pins], dtype=np.bool_),
        tuple(BoardPin(pin_id, similar) for pin_id, similar in hits),
        space.name,
        publication.release.number,
    )


def boards_for_pin(
    publication: Publication, space: Space, pin_id: str, boards: Sequence[Board], limit: int, embed: Embed
) -> BoardHits:
    """Those of ``boards`` that fit a pin best, by cosine; of equals the first given. Those without words are left out.

    :raises UsageError: for a limit out of range, or too many boards.
    """
    check_limit(limit)
    if len(boards) > MOST_LISTED:
        raise UsageError(f"boards are {len(boards)}: give up to {MOST_LISTED} at a time.")
    with stage("store"):
        point = publication.vector_points(space, [pin_id])[0]
    if point is None or not boards:
        return BoardHits(pin_id, point is not None, (), space.name, publication.release.number)
    embedded = embed(boards)
    with stage("lists"):
        similar = np.where(embedded.found, embedded.vectors @ point.vectors[DEFAULT_VECTOR], -np.inf)
        best = np.argsort(-similar, kind="stable")[: min(limit, int(embedded.found.sum()))].tolist()
    hits = tuple(BoardHit(boards[row].title, row, float(similar[row])) for row in best)
    return BoardHits(pin_id, True, hits, space.name, publication.release.number)


def board_vector(words: Vector | None, pins: Vector) -> Vector | None:
    """The unit vector [d] of a board, None where nothing is known of it; the module says how.

    :param words: [d] of its text. :param pins: [n, d] of its pins, the most recent first.
    """
    parts = [] if words is None else [words]
    if len(pins):
        clusters = interests(pins)
        middle = sum(len(cluster.rows) * pins[cluster.medoid].astype(np.float64) for cluster in clusters)
        parts += _unit(np.asarray(middle))
    if len(parts) < 2:
        return parts[0] if parts else None
    return next(iter(_unit(parts[0] + parts[1])), None)


def _unit(vector: NDArray[np.floating]) -> list[Vector]:
    """``vector`` at unit length; nothing of one that has none."""
    length = float(np.linalg.norm(vector))
    return [(vector / length).astype(np.float32)] if length > 0 else []


def _words(board: Board, embed: Embed, without_pins: bool) -> Vector | None:
    try:
        embedded = embed([board])
    except PinfeatherError as error:
        if without_pins or isinstance(error, DeadlineError):
            raise
        note(reason("no_embedding", f"{error} The board's own pins decided."))
        return None
    return embedded.vectors[0] if embedded.found[0] else None
