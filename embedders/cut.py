"""An encoder cut to the first components of its vectors: a smaller space out of the same model."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xxhash

from embedders.encoder import Encoder, Progress, Vectors
from feature_repo.errors import UsageError

CUT_VERSION = 1
"""Bumped by hand when cutting changes; part of the fingerprint."""


def cut_fingerprint(fingerprint: str, dimension: int) -> str:
    """Fingerprint of the tower that gives the first ``dimension`` components of another one's unit vectors."""
    parts = {"version": CUT_VERSION, "of": fingerprint, "first": dimension}
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


class CutEncoder:
    """Vectors of ``encoder``, their first ``dimension`` components scaled back to unit length.

    A model that was trained for it (Matryoshka) loses little; any other one loses what the components left out told.

    :raises UsageError: if the encoder has no more than ``dimension`` components.
    """

    def __init__(self, encoder: Encoder, dimension: int) -> None:
        check_cut(dimension, encoder.dimension)
        self.dimension = dimension
        self.fingerprint = cut_fingerprint(encoder.fingerprint, dimension)
        self.recipe = encoder.recipe
        self._whole = encoder

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Unit vectors, float32 [n, dimension], in the order of ``texts``; zeros where the first components are."""
        cut = self._whole.encode(texts, progress)[:, : self.dimension]
        lengths = np.linalg.norm(cut, axis=1, keepdims=True)
        return np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)


def check_cut(dimension: int, whole: int) -> None:
    """Refuse a cut that is none.

    :raises UsageError: if ``dimension`` is not between 1 and ``whole`` - 1.
    """
    if not 1 <= dimension < whole:
        raise UsageError(
            f"Dimension {dimension} is not between 1 and {whole - 1}: the model's vectors have {whole} components, and "
            "a cut keeps the first of them."
        )
