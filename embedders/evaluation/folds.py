"""Query-disjoint folds: what a model is judged on shares no query with what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash

from embedders.evaluation.metrics import Ints
from feature_repo.errors import PinfeatherError
from feature_repo.text import canonical_query, words


def fold_key(query: str) -> str:
    """What decides the fold: sorted distinct words of the canonical query, each without one final ``s``.

    Re-orderings and plurals of one query so stay on one side; misspellings may cross.
    """
    found = words(canonical_query(query))
    stems = {word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found}
    return " ".join(sorted(stems)) if stems else canonical_query(query)


def query_folds(queries: Sequence[str], folds: int = 5, seed: int = 0) -> Ints:
    """The fold, 0..folds-1, of each query: a hash of its key alone, so it never depends on the other queries.

    :raises PinfeatherError: for fewer than two folds.
    """
    if folds < 2:
        raise PinfeatherError(f"Got {folds} folds: at least 2 are needed to judge on queries that were not trained on.")
    distinct = {query: xxhash.xxh3_64_intdigest(fold_key(query).encode(), seed) % folds for query in set(queries)}
    return np.array([distinct[query] for query in queries], dtype=np.int64)


def query_groups(queries: Sequence[str]) -> tuple[list[str], Ints]:
    """Distinct canonical queries in order of first sight, and the number of each row's query."""
    numbers: dict[str, int] = {}
    canonical = {query: canonical_query(query) for query in set(queries)}
    groups = np.array([numbers.setdefault(canonical[query], len(numbers)) for query in queries], dtype=np.int64)
    return list(numbers), groups
