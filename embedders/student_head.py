"""The student's head as it is trained for serving and for every fold that judges it: one recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedders.encoder import Progress, Vectors
from embedders.evaluation.metrics import Ints
from embedders.evaluation.pairs import PairSet
from embedders.recipe import EncodingRecipe
from embedders.student import RelevanceHead, train_head
from embedders.training import PairFeatures, pair_features
from feature_repo.errors import UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import DEFAULT_TEMPLATE

NEW_PIN = ("boards", "queries", "engagement")
"""Sources that a pin does not have on its first day."""
WORDLESS = ("title", "description", *NEW_PIN)
DROPOUT = 0.2
SEEN_PENALTY = 1e5
"""Penalty on the products of towers that were trained on the very pairs. Queries held back are no test of it: the
towers have seen them too, so the weakest penalty would always win."""


@dataclass(frozen=True, eq=False)
class HeadTrainer:
    """Pairs with targets and their features; :meth:`fit` makes a head of some of them.

    A share ``dropout`` of the pairs is seen once more: half of it without :data:`NEW_PIN`, a quarter without vectors, a
    quarter without any word. So a pin that lacks them scores by what it has, and the head has seen their marks.

    :raises UsageError: for a share outside 0..1.
    """

    pairs: PairSet
    features: PairFeatures
    statistics: LexicalStatistics
    without: Sequence[str] = ()
    """Sources that are off in ``features``."""
    dropout: float = DROPOUT
    seed: int = 0
    product_penalty: float | None = None
    """On the tower products, see :func:`embedders.student.train_head`; None: queries held back choose it."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout <= 1:
            raise UsageError(
                f"The share of pairs with missing features is {self.dropout}, which is not between 0 and 1."
            )

    def fit(self, rows: NDArray[np.bool_] | Ints | None = None) -> RelevanceHead:
        """A head of the pairs ``rows`` (a mask [n] or numbers), of all by default.

        :raises PinfeatherError: if the pairs have neither targets nor levels.
        """
        features, targets = self.features, self.pairs.require_targets()
        chosen = np.arange(len(self.pairs)) if rows is None else np.arange(len(self.pairs))[rows]
        drawn = np.random.default_rng(self.seed).permutation(chosen)[: int(self.dropout * len(chosen))]
        parts = np.split(np.sort(drawn), [len(drawn) // 2, len(drawn) * 3 // 4])
        masked = [
            self._masked(part, off) for part, off in zip(parts, (NEW_PIN, None, WORDLESS), strict=True) if len(part)
        ]
        again = np.concatenate([chosen, *(part for part in parts if len(part))])
        return train_head(
            np.concatenate([features.matrix[chosen], *masked]),
            targets[again],
            features.names,
            features.groups[again],
            self.seed,
            product_penalty=self.product_penalty,
        )

    def _masked(self, rows: Ints, off: Sequence[str] | None) -> NDArray[np.float32]:
        """Features of ``rows`` without the sources ``off``; None: without vectors."""
        vectors = self.features.pin_vectors if off is not None else np.full_like(self.features.pin_vectors, np.nan)
        some = replace(self.pairs, pin_vectors=vectors).subset(rows)
        known = _KnownVectors(self.features.query_vectors, vectors.shape[1])
        return pair_features(
            some, known, DEFAULT_TEMPLATE, self.statistics, without=tuple(dict.fromkeys([*self.without, *(off or ())]))
        ).matrix


class _KnownVectors:
    """Vectors of queries that were encoded already, as an encoder."""

    def __init__(self, vectors: Mapping[str, NDArray[np.float32]], dimension: int) -> None:
        self._vectors, self.dimension, self.fingerprint = vectors, dimension, ""
        self.recipe = EncodingRecipe("cpu", "fp32", 1, 1, "none")

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Unit vectors [n, d]."""
        return np.array([self._vectors[text] for text in texts], np.float32).reshape(len(texts), self.dimension)
