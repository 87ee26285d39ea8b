"""Searching all vectors of an Edge collection with a filter: the nearest of all points first where that is quicker.

The engine looks at the payload of every point that a filter may match before it compares any vectors. Unless an index
leaves few points to look at, that takes longer than comparing all vectors: several times as long for many filters of
two conditions, and much longer still where there is no index. So the nearest of all points are found first, and those
of them that match are the nearest that match, if they are enough. If not, the engine searches as it always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import qdrant_edge as engine

from .conditions import And, Condition, Match, Or, Range, filter_keys
from .edge_models import to_filter
from .points import IndexKind

Ask = Callable[[int, engine.Filter | None, bool], list[engine.ScoredPoint]]
"""Searches for so many points that match, with what the search asks for of each, or with ids and scores only."""

FEWEST = 50_000
"""Points below which any search is quick, and two steps take longer than one."""
MOST = 5_000
"""Points that are looked at first at most; more take longer than they save."""
_LEAST = 100
_SPARE = 4
"""So many times the points are looked at that would be enough if the filter matched as many everywhere."""
_DEAR = 0.7
"""What a filter costs that is left to the engine. Comparing all vectors is 1; a point takes about as long to look at in
the indexes as to compare."""
_UNINDEXED = 50.0
"""So many times as long it takes to read its payload."""
_UNKNOWN_SHARE = 1 / 16
"""Of a filter without index nobody knows how many points match."""


def first_look(
    shard: engine.EdgeShard, indexes: Mapping[str, IndexKind], limit: int, condition: Condition | None
) -> int | None:
    """How many of the nearest points to look at first, None where the engine's own way is as quick.

    :param indexes: the collection's payload indexes.
    """
    if condition is None:
        return None
    points = shard.info().points_count
    if points < FEWEST:
        return None

    def share(part: Condition) -> float:
        counting = engine.CountRequest(exact=False, filter=to_filter(part))  # from the indexes: takes 0.1 ms
        return min(shard.count(counting) / points, 1.0)

    matching = share(condition)
    indexed = filter_keys(condition) <= indexes.keys()
    if matching + (1 if indexed else _UNINDEXED) * _looked_at(condition, indexes, share) < _DEAR:
        return None
    if not indexed:
        matching = min(matching, _UNKNOWN_SHARE)
    first = max(_LEAST, int(_SPARE * limit / matching)) if matching else points
    return first if first <= min(MOST, points // 2) else None


def _looked_at(condition: Condition, indexes: Mapping[str, IndexKind], share: Callable[[Condition], float]) -> float:
    """The share of the points whose payload the engine looks at: those that an index leaves."""
    match condition:
        case And(conditions):
            return min((_looked_at(each, indexes, share) for each in conditions), default=1.0)
        case Or(conditions):
            return min(1.0, sum(_looked_at(each, indexes, share) for each in conditions))
        case Match() | Range() if condition.key in indexes:
            return share(condition)
        case _:
            return 1.0


def nearest_matching(ask: Ask, limit: int, first: int, condition: Condition) -> list[engine.ScoredPoint]:
    """The nearest points that match, as near as those that ``ask`` gives for the filter alone.

    :param first: how many of the nearest of all points to look at; see :func:`first_look`.
    """
    matching: Any = to_filter(condition)
    near = ask(first, None, True)
    places = {str(hit.id): place for place, hit in enumerate(near)}
    # As one query of two steps the engine would apply the filter to both of them.
    found = ask(first, engine.Filter(must=[_one_of(places), matching]), True)
    # Of equally near ones a search gives now these, now those first: all of them in the order of the first do not.
    chosen = sorted(found, key=lambda hit: places[str(hit.id)])[:limit]
    if len(chosen) < limit and len(near) == first:
        return ask(limit, matching, False)
    hits = ask(limit, engine.Filter(must=[_one_of(str(hit.id) for hit in chosen), matching]), False)
    if len(hits) < len(chosen):  # some were deleted or changed meanwhile
        return ask(limit, matching, False)
    return sorted(hits, key=lambda hit: places[str(hit.id)])


def _one_of(ids: Iterable[str]) -> Any:
    wanted: Any = set(ids)
    return engine.HasIdCondition(wanted)
