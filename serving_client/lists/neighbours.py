"""The pins near one vector: read until a diversified list is full, or nothing more is near."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from materialize.spaces import Space
from materialize.stores.columns import Arrays, Kind, read_columns
from materialize.stores.port import DEFAULT_VECTOR, Condition, Hit, Point
from serving_client.lists.diversity import PAYLOAD, Diversifier, Pool, pin_of
from serving_client.publications.publications import Publication
from serving_client.stages import stage

MOST_CANDIDATES = 2_000
"""Of the nearest pins besides those that are left out, so many are looked at at most."""
_WIDER = 4


@dataclass(frozen=True)
class LeftOut:
    """Pins that are not to be shown, and with them what is nearly the same."""

    pin_ids: Collection[str]
    vectors: NDArray[np.float32]
    """[m, d] of those that have one."""
    texts: Sequence[str | None]
    """Text fingerprints, as far as they are known."""


def near(
    publication: Publication, space: Space, vector: NDArray[np.float32], size: int, wanted: Condition | None
) -> list[Hit]:
    """The ``size`` pins of ``space`` nearest to ``vector``, with what a :class:`Pool` reads."""
    with stage("store"):
        return publication.reader.search(
            space.name, vector, size, filter=wanted, with_payload=PAYLOAD, with_vectors=True
        )


def vector_and_text(
    publication: Publication, space: Space, pin_id: str
) -> tuple[NDArray[np.float32], str | None] | None:
    """The vector of a pin and its text fingerprint; None for an unknown pin."""
    with stage("store"):
        if not publication.keeps_rows:
            point = publication.vector_points(space, [pin_id], PAYLOAD)[0]
            return None if point is None else (point.vectors[DEFAULT_VECTOR], point.payload.get("text_fp"))
        vector = publication.vectors(space, [pin_id])[0]
        if np.isnan(vector).any():
            return None
        found = read_columns(publication.reader, space.name, PIN_BY_POINT, publication.point_ids(space, [pin_id]))
        return vector, found["text"][0]


def near_pool(
    publication: Publication,
    space: Space,
    vector: NDArray[np.float32],
    size: int,
    wanted: Condition | None,
    left_out: Collection[str],
) -> tuple[Pool, bool]:
    """The pins of :func:`near` that were not left out, by what is kept between requests; whether there may be more."""
    with stage("store"):
        names, texts = _nearest(publication, space, vector, size, wanted)
        shown = [row for row, name in enumerate(names) if name is not None and name not in left_out]
        pin_ids = [names[row] for row in shown]
        vectors = publication.vectors(space, pin_ids)
    there = ~np.isnan(vectors).any(axis=1)  # one that a server deleted since the search
    rows = np.flatnonzero(there).tolist()
    return Pool([pin_ids[row] for row in rows], vectors[there], [texts[shown[row]] for row in rows]), len(names) == size


def _nearest(
    publication: Publication, space: Space, vector: NDArray[np.float32], size: int, wanted: Condition | None
) -> tuple[list[Any], list[str | None]]:
    """Ids and text fingerprints of the nearest pins."""
    if publication.keeps_rows:  # a search that reads no payloads takes half the time
        hits = publication.reader.search(space.name, vector, size, filter=wanted, with_payload=False)
        found = read_columns(publication.reader, space.name, PIN_BY_POINT, [hit.id for hit in hits])
        return found["pin"].tolist(), found["text"].tolist()
    hits = publication.reader.search(space.name, vector, size, filter=wanted, with_payload=PAYLOAD)
    return [pin_of(hit) for hit in hits], [hit.payload.get("text_fp") for hit in hits]


def _pins_and_texts(points: Sequence[Point | None]) -> Arrays:
    pins = [None if point is None else pin_of(point) for point in points]
    texts = [None if point is None else point.payload.get("text_fp") for point in points]
    return {
        "pin": np.fromiter(pins, dtype=object, count=len(pins)),
        "text": np.fromiter(texts, dtype=object, count=len(texts)),
    }


PIN_BY_POINT = Kind("pins by their points", list, PAYLOAD, False, _pins_and_texts)
"""``pin`` and ``text``, its text fingerprint, of points of a space by the id of the point; None where there is none."""


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
    most = max(MOST_CANDIDATES, limit) + len(left_out.pin_ids)
    while True:
        size = min(size, most)
        pool, more = near_pool(publication, space, vector, size, wanted, left_out.pin_ids)
        with stage("lists"):
            similar = pool.vectors @ vector
            diversifier = Diversifier(pool, diversity)
            diversifier.fold(left_out.vectors, left_out.texts)
            rows = [row for row in (diversifier.take(similar) for _ in range(limit)) if row is not None]
        if len(rows) == limit or not more or size >= most:
            return [(pool.pin_ids[row], float(similar[row])) for row in rows]
        size *= _WIDER
