"""Ward's hierarchical clustering of a few hundred vectors, cut at a distance.

The distance of two single vectors is the square of their Euclidean distance; that of a union follows from those of its
parts by the formula of Lance and Williams for Ward's method, as in Pal et al., "PinnerSage: Multi-Modal User Embedding
Framework for Recommendations at Pinterest", KDD 2020, algorithm 1::

    d(i + j, k) = ((n_i + n_k) d(i, k) + (n_j + n_k) d(j, k) - n_k d(i, j)) / (n_i + n_j + n_k)

The nearest two are joined until the nearest are farther apart than the cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ward_clusters(vectors: NDArray[np.floating], cut: float) -> list[NDArray[np.intp]]:
    """The clusters, each as its rows in ascending order; the cluster of the lowest row comes first.

    Chains of nearest neighbours (Murtagh 1983) find the same joins as a search for the nearest two of all would, in a
    time that goes with n².

    :param vectors: [n, d]. :param cut: the greatest distance, a square, at which clusters are joined.
    """
    distance = _squares(np.asarray(vectors, dtype=np.float64))
    sizes = np.ones(len(distance))
    members = {row: [row] for row in range(len(distance))}
    waiting = dict.fromkeys(members)  # in order; those that may still be joined
    chain: list[int] = []
    while waiting:
        if not chain:
            chain.append(next(iter(waiting)))
        last = chain[-1]
        nearest = int(np.argmin(distance[last]))
        before = chain[-2] if len(chain) > 1 else None
        if before is not None and distance[last, before] <= distance[last, nearest]:
            nearest = before  # of equals the one that it came from, or the chain would go round
        if not distance[last, nearest] <= cut:  # joins of others come no nearer: it is done, and alone in the chain
            distance[:, last] = np.inf
            del waiting[chain.pop()]
        elif nearest == before:
            _join(distance, sizes, nearest, last)
            members[nearest] += members.pop(last)
            del waiting[last], chain[-2:]
        else:
            chain.append(nearest)
    clusters = sorted(sorted(rows) for rows in members.values())
    return [np.array(rows, dtype=np.intp) for rows in clusters]


def medoid(vectors: NDArray[np.floating]) -> int:
    """The row with the least sum of squared distances to the others; the first of equals. [n, d], n at least 1."""
    return int(np.argmin(_squares(np.asarray(vectors, dtype=np.float64), own=0.0).sum(axis=1)))


def _squares(vectors: NDArray[np.float64], own: float = np.inf) -> NDArray[np.float64]:
    """[n, n] squared distances; ``own`` from a vector to itself."""
    lengths = (vectors * vectors).sum(axis=1)
    squares = np.maximum(lengths[:, None] + lengths[None, :] - 2 * (vectors @ vectors.T), 0.0)
    np.fill_diagonal(squares, own)
    return squares


def _join(distance: NDArray[np.float64], sizes: NDArray[np.float64], into: int, other: int) -> None:
    """Make ``other`` a part of ``into``: the formula of Lance and Williams, for all clusters at once."""
    between = distance[into, other]
    joined = (sizes[into] + sizes) * distance[into] + (sizes[other] + sizes) * distance[other] - sizes * between
    joined /= sizes[into] + sizes[other] + sizes
    joined[[into, other]] = np.inf
    distance[into] = distance[:, into] = joined
    distance[other] = distance[:, other] = np.inf
    sizes[into] += sizes[other]
