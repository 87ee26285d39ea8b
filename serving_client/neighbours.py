"""The pins near one vector: read until a diversified list is full, or nothing more is near."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from materialize.spaces import Space
from materialize.stores.port import Condition, Hit
from serving_client.diversity import PAYLOAD, Diversifier, Pool, pin_of
from serving_client.publications import Publication
from serving_client.stages import stage

MOST_CANDIDATES = 2_000
"""Pins beyond so many of the nearest are not looked at, however many of these are left out."""
_WIDER = 4


@dataclass(frozen=True)
class LeftOut:
    """Pins that are not to be shown, and with them what is nearly the same."""

    pin_ids: Collection[str]
    vectors: NDArray[np.float32]
    """[m, d] of those that have one."""
    texts: Sequence[str | None]
    """Their m text fingerprints."""


def near(
    publication: Publication,
    space: Space,
    vector: NDArray[np.float32],
    size: int,
    wanted: Condition | None,
    with_vectors: bool = True,
) -> list[Hit]:
    """The ``size`` pins of ``space`` nearest to ``vector``, with what a :class:`Pool` reads."""
    with stage("store"):
        return publication.reader.search(
            space.name, vector, size, filter=wanted, with_payload=PAYLOAD, with_vectors=with_vectors
        )


def near_pool(publication: Publication, space: Space, hits: Sequence[Hit], left_out: Collection[str]) -> Pool:
    """The pins of ``hits`` that were not left out, with their vectors as they are kept between requests."""
    shown = [hit for hit in hits if pin_of(hit) not in left_out]
    pin_ids = [pin_of(hit) for hit in shown]
    with stage("store"):
        vectors = publication.vectors(space, pin_ids)
    there = ~np.isnan(vectors).any(axis=1)  # one that a server deleted since the search
    rows = np.flatnonzero(there).tolist()
    texts = [shown[row].payload.get("text_fp") for row in rows]
    return Pool([pin_ids[row] for row in rows], vectors[there], texts)


def diversified(
    publication: Publication,
    space: Space,
    vector: NDArray[np.float32],
    left_out: LeftOut,
    limit: int,
    diversity: float,
    wanted: Condition | None,
) -> list[tuple[str, float]]:
    """Up to ``limit`` pins near ``vector`` as (pin id, cosine), in the order to show them."""
    size = 4 * limit + 10 + len(left_out.pin_ids)
    while True:
        size = min(size, max(MOST_CANDIDATES, limit))
        hits = near(publication, space, vector, size, wanted, with_vectors=False)
        pool = near_pool(publication, space, hits, left_out.pin_ids)
        with stage("lists"):
            similar = pool.vectors @ vector
            diversifier = Diversifier(pool, diversity)
            diversifier.fold(left_out.vectors, left_out.texts)
            rows = [row for row in (diversifier.take(similar) for _ in range(limit)) if row is not None]
        if len(rows) == limit or len(hits) < size or size >= MOST_CANDIDATES:
            return [(pool.pin_ids[row], float(similar[row])) for row in rows]
        size *= _WIDER
