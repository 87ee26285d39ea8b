"""How many pairs each stratum of a sample gives: by rule, never more than there are, at least one of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RULES = {"equal": 0.0, "sqrt": 0.5, "proportional": 1.0}
"""Power of a group's size that its share goes by."""
DIMENSIONS = ("lang", "band", "freshness", "level")
"""What strata tell apart, in the order of splitting: band is inside a language, and so on."""

_HALVINGS = 200


@dataclass(frozen=True)
class Stratum:
    """Cells that are sampled as one."""

    key: tuple[str | None, ...]
    """A value a dimension; None where its values were not told apart, for want of room."""
    cells: tuple[tuple[str, ...], ...]
    """The combinations of values that belong to it."""
    size: int
    take: int
    """1 to ``size``."""


def allocate(sizes: Sequence[int], count: int, rule: str) -> list[int]:
    """Shares of ``count`` for groups of these sizes, in their order; their sum is ``count``, or all there are.

    A share goes by the power of the rule, but is at least 1 and at most the size; what a full group cannot take goes to
    the others in the same proportion. Fractions are rounded by the largest remainder.

    :param sizes: each at least 1.
    :param count: at least the number of groups.
    """
    total = min(count, sum(sizes))
    wishes = [size ** RULES[rule] for size in sizes]

    def shares(scale: float) -> list[float]:
        return [min(max(scale * wish, 1.0), float(size)) for wish, size in zip(wishes, sizes, strict=True)]

    low, high = 0.0, float(max(sizes))
    for _ in range(_HALVINGS):  # the sum grows with the scale; the largest scale that is not too large is wanted
        middle = (low + high) / 2
        if math.fsum(shares(middle)) <= total:
            low = middle
        else:
            high = middle
    found = shares(low)
    taken = [int(share) for share in found]
    while (left := total - sum(taken)) > 0:
        open_groups = [number for number, size in enumerate(sizes) if taken[number] < size]
        open_groups.sort(key=lambda number: (taken[number] - found[number], number))
        for number in open_groups[:left]:
            taken[number] += 1
    return taken


def split(cells: Mapping[tuple[str, ...], int], count: int, rules: Sequence[str]) -> list[Stratum]:
    """Strata over cells, dimension by dimension, each group by the rule of its dimension.

    A group that gets fewer pairs than it has values in the next dimension is not split further, so that no pair has a
    chance of zero. Everything is in the order of the values.

    :param cells: size of each combination of values, one value a rule.
    :param count: pairs wanted, at least 1 unless there are no cells.
    """
    return _split(dict(sorted(cells.items())), count, rules, ()) if cells else []


def _split(
    cells: dict[tuple[str, ...], int], count: int, rules: Sequence[str], prefix: tuple[str, ...]
) -> list[Stratum]:
    depth = len(prefix)
    groups: dict[str, dict[tuple[str, ...], int]] = {}
    if depth < len(rules):
        for cell, size in cells.items():
            groups.setdefault(cell[depth], {})[cell] = size
    if not groups or len(groups) > count:
        key = (*prefix, *[None] * (len(rules) - depth))
        size = sum(cells.values())
        return [Stratum(key, tuple(cells), size, min(count, size))]
    takes = allocate([sum(group.values()) for group in groups.values()], count, rules[depth])
    return [
        stratum
        for (value, group), take in zip(groups.items(), takes, strict=True)
        for stratum in _split(group, take, rules, (*prefix, value))
    ]
