"""What changed between two reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SMALLEST_SHARE = 1e-4
"""Shares below this count as this, so that an empty class gives no infinite index."""

_EDGES = (1, 2, 4, 8, 16, 32, 64)


def stability_index(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Population stability index of two distributions given as counts by class; 0 for equal shares.

    PSI = sum over classes of (q - p) ln(q / p), with p and q the shares before and now (Siddiqi, "Credit Risk
    Scorecards", 2006). By custom, below 0.1 is stable, above 0.25 another population.
    """
    total = 0.0
    sums = sum(before.values()) or 1, sum(now.values()) or 1
    for name in {*before, *now}:
        p, q = (max(side.get(name, 0) / whole, SMALLEST_SHARE) for side, whole in zip((before, now), sums, strict=True))
        total += (q - p) * math.log(q / p)
    return total


def chance_index(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The stability index to expect of two random samples of one population: (classes - 1) (1 / n + 1 / m).

    From its chi-square distribution (Yurdakul, "Statistical properties of the population stability index", 2018).
    """
    n, m = sum(before.values()), sum(now.values())
    if not n or not m:
        return math.inf
    classes = len({name for side in (before, now) for name, count in side.items() if count})
    return (classes - 1) * (1 / n + 1 / m)


def length_classes(histogram: Sequence[int]) -> dict[str, int]:
    """Pins by length class, doubling: 1, 2, 3-4, 5-8 ... 65 and more words."""
    found: dict[str, int] = {}
    for words, count in enumerate(histogram, start=1):
        name = next((f"up to {edge}" for edge in _EDGES if words <= edge), f"over {_EDGES[-1]}")
        found[name] = found.get(name, 0) + count
    return found


def distributions(figures: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """The distributions of a report that are watched for drift, as counts by class."""
    groups = {"language": "coverage_by_language", "pin age": "coverage_by_age"}
    found = {name: {label: row["pins"] for label, row in figures[key].items()} for name, key in groups.items()}
    for field, length in figures["lengths"].items():
        found[f"words of {field.replace('_', ' ')}"] = length_classes(length["histogram"])
    return found


def changes(before: Mapping[str, Any], now: Mapping[str, Any], pins: Mapping[str, int] | None) -> dict[str, Any]:
    """The change from the figures of one report to those of the next.

    Keys: ``since`` (time of the former report), ``pins`` (``before``, ``now``, ``new``, ``gone``; the last two None
    where the former pins are not known), ``coverage`` and ``duplicates`` (difference of shares), ``freshness``
    (difference of median ages in days), ``drift`` (by distribution: ``psi``, and ``chance``, what two samples of one
    population would show).
    """
    was, there = distributions(before), distributions(now)
    unknown = {"new": None, "gone": None}
    return {
        "since": before["as_of"],
        "pins": {"before": before["pins"], "now": now["pins"], **(pins or unknown)},
        "coverage": {name: share - before["coverage"].get(name, 0.0) for name, share in now["coverage"].items()},
        "duplicates": {
            name: row["share"] - before["duplicates"][name]["share"] for name, row in now["duplicates"].items()
        },
        "freshness": {
            view: row["p50"] - before["freshness"][view]["p50"]
            for view, row in now["freshness"].items()
            if view in before["freshness"]
        },
        "drift": {
            name: {"psi": stability_index(was[name], there[name]), "chance": chance_index(was[name], there[name])}
            for name in there
            if sum(was[name].values()) and sum(there[name].values())
        },
    }
