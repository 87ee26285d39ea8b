"""Encoders that a training of towers begins with: base vectors through a projection, and none at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.encoder import Encoder
from embedders.recipe import EncodingRecipe


class Projected:
    """An encoder's vectors through a projection."""

    def __init__(self, encoder: Encoder, projection: NDArray[np.float32]) -> None:
        self._encoder, self._projection = encoder, projection
        self.dimension, self.fingerprint, self.recipe = len(projection), encoder.fingerprint, encoder.recipe

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors [n, dimension]."""
        out = vectors @ self._projection.T
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)

    def encode(self, texts: Sequence[str], progress: Any = None) -> NDArray[np.float32]:
        """As :meth:`embedders.encoder.Encoder.encode`."""
        return self.project(self._encoder.encode(texts, progress))


class Silent:
    """Where only the features of words are asked for: vectors of one component that say nothing."""

    def __init__(self, recipe: EncodingRecipe) -> None:
        self.dimension, self.fingerprint, self.recipe = 1, "", recipe

    def encode(self, texts: Sequence[str], progress: Any = None) -> NDArray[np.float32]:
        """NaN."""
        return np.full((len(texts), 1), np.nan, np.float32)
