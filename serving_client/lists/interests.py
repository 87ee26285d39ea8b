"""What somebody is interested in: recent pins in clusters, each with the pin in its middle and a weight.

After Pal et al., "PinnerSage: Multi-Modal User Embedding Framework for Recommendations at Pinterest", KDD 2020. One
average of all recent vectors lies between the interests and near none of them; so there are several:

* **Clusters** by Ward's method up to a distance (section 3.2.1, algorithm 1): as many as the pins ask for.
* **Medoid** of each (3.2.2): the pin with the least sum of squared distances to the others. It is a pin, so it has a
  name, and one stray pin does not move it as it would move a mean.
* **Importance** of each (3.2.3): the sum over its pins of ``exp(-rate * age)``. Many pins make it great, old ones
  count less. With times, the age is in days behind the newest pin and the rate 0.01, the value the paper settled on
  (half the weight after 69 days). Without, the age is the pin's place in the list and the rate 0.05 (half after 14
  pins), which is ours. Only ratios of importance count, so the day of asking makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving_client.lists.clusters import medoid, ward_clusters

JOIN_DISTANCE = 1.6
"""Ward distance up to which pins are one interest; two single pins are joined at a cosine of 0.2 or more.

Ours, by ``python -m benchmarks.home_feed``: feeds are best from 1.5 to 1.75, and clusters recover interests well there.
"""
DAILY_RATE = 0.01
PLACE_RATE = 0.05
_DAY = np.timedelta64(1, "D")
_OLDEST = 100.0
"""Greatest exponent of an age, 27 years: far less than any weight that counts, but not 0."""


@dataclass(frozen=True)
class Cluster:
    """One interest among recent pins, by their rows."""

    medoid: int
    rows: tuple[int, ...]
    share: float
    """Its importance as a part of that of all."""


def interests(vectors: NDArray[np.floating], times: NDArray[np.datetime64] | None = None) -> list[Cluster]:
    """The interests behind recent pins, the most important first; of equals, that with the most recent pin.

    :param vectors: [n, d] unit rows, the most recent pin first. :param times: [n] when each was saved, or None.
    """
    weights = _weights(len(vectors), times)
    found = []
    for rows in ward_clusters(vectors, JOIN_DISTANCE):
        middle = int(rows[medoid(vectors[rows])])
        found.append(Cluster(middle, tuple(rows.tolist()), float(weights[rows].sum() / weights.sum())))
    return sorted(found, key=lambda cluster: (-cluster.share, cluster.rows[0]))


def newest_first(count: int, times: NDArray[np.datetime64] | None) -> NDArray[np.intp]:
    """Rows in the order of their times, the latest first; as they are where there are none."""
    if times is None:
        return np.arange(count)
    return np.argsort(-times.astype(np.int64), kind="stable")


def _weights(count: int, times: NDArray[np.datetime64] | None) -> NDArray[np.float64]:
    if times is None or not count:
        return np.exp(-PLACE_RATE * np.arange(count))
    # A weight of 0, as behind a pin of the year 9999, would never get a turn.
    return np.exp(-np.minimum(DAILY_RATE * ((times.max() - times) / _DAY), _OLDEST))


class SmoothTurns:
    """Smooth weighted round robin, as in nginx: who has a third of the weight has every third turn, not ten in a row.

    Each turn everybody gains its weight; who has the most takes it, and pays the sum of the weights.

    :param weights: [n], above 0.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self._weights = weights.copy()
        self._credit = np.zeros(len(weights))

    def next(self) -> int | None:
        """Whose turn it is; None when nobody is left."""
        if not self._weights.any():
            return None
        self._credit += self._weights
        turn = int(np.argmax(np.where(self._weights > 0, self._credit, -np.inf)))
        self._credit[turn] -= self._weights.sum()
        return turn

    def leave(self, turn: int) -> None:
        """``turn`` has nothing more to give: the others share what would have been its turns."""
        self._weights[turn] = 0
