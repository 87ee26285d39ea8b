"""Candidates of a search: the nearest by vector and the best by words, fused.

Reciprocal rank fusion (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009): a pin gets the sum of 1 / (60 + its place) over the lists that it stands in, places
counted from 1. So a pin that is good in both goes before one that is excellent in one, and no list's scores need to be
comparable with the other's. The first so many of the fused list are scored (the early cut).

The words are those of :mod:`materialize.words`. A word that no pin has finds nothing, so a query without any known word
goes by vector alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import UsageError
from materialize.spaces import Space
from materialize.stores.layout import decode_key
from materialize.stores.port import DEFAULT_VECTOR, Condition, SparseVector
from materialize.words import WORDS, query_words
from serving_client.degraded import reason
from serving_client.publications.publications import Publication
from serving_client.stages import stage

Retrieval = Literal["hybrid", "vector", "lexical"]
RETRIEVALS: tuple[Retrieval, ...] = get_args(Retrieval)

FUSION = 60
"""The constant of the formula, as in the paper: the larger, the less the first places count above the next ones."""


def has_words(publication: Publication, space: Space) -> bool:
    """Whether the points of ``space`` hold words; those of a space that was made before they did, do not."""
    spec = publication.reader.collections().get(space.name)
    return spec is not None and WORDS in spec.sparse


def without_words(space: Space, retrieval: str) -> str:
    """The reason why a hybrid search goes by vector alone.

    :raises UsageError: if the caller wants nothing but words.
    """
    why = f"space {space.name} was made before pins were found by words (`pinfeather spaces create` makes one that can)"
    if retrieval == "lexical":
        raise UsageError(f"{why[0].upper()}{why[1:]}; ask with retrieval='vector', or leave it out.")
    return reason("no_lexical", f"{why}; found by vector alone")


def retrieve(
    publication: Publication,
    space: Space,
    vector: NDArray[np.float32] | None,
    words: str | None,
    depth: int,
    wanted: Condition | None,
) -> list[str]:
    """The ids of at most ``depth`` pins, the most promising first.

    :param vector: of the query, [d]; None to go by words alone.
    :param words: the canonical query; None to go by vector alone.
    :param wanted: what the pins must be like.
    """
    by_words = query_words(words) if words else None
    with stage("store"):
        lists = []
        if vector is not None:
            lists.append(_pins(publication, space, vector, DEFAULT_VECTOR, depth, wanted))
        if by_words is not None:
            lists.append(_pins(publication, space, by_words, WORDS, depth, wanted))
    return fused(lists)[:depth]


def fused(lists: Sequence[Sequence[str]]) -> list[str]:
    """Lists of pins made into one by reciprocal rank, each pin once; equal ones in the order of their ids."""
    if len(lists) == 1:
        return list(lists[0])
    sums: dict[str, float] = {}
    for pins in lists:
        for place, pin_id in enumerate(pins, 1):
            sums[pin_id] = sums.get(pin_id, 0.0) + 1 / (FUSION + place)
    return sorted(sums, key=lambda pin_id: (-sums[pin_id], pin_id))


def _pins(
    publication: Publication,
    space: Space,
    query: NDArray[np.float32] | SparseVector,
    using: str,
    depth: int,
    wanted: Condition | None,
) -> list[str]:
    hits = publication.reader.search(space.name, query, depth, using, filter=wanted, with_payload=["key"])
    return [str(decode_key(hit.payload["key"])["pin_id"]) for hit in hits]
