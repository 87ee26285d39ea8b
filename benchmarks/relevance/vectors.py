"""An encoder that remembers: the tables share most of their texts, and encoding is most of their time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

from benchmarks.machine import ROOT
from embedders.encoder import Encoder, Progress, Vectors, as_stored

WORK = ROOT / "build" / "relevance"
"""Vectors, teachers and students of the tables; nothing of it is committed."""
CHUNK = 8_192
"""Texts that are encoded before the file is written again."""


class RememberedEncoder:
    """As ``encoder``, but a text that was encoded before, in this run or an earlier one, is read back.

    Vectors are kept as they would be stored (float16), one file a model.
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None) -> None:
        self.dimension, self.fingerprint, self.recipe = encoder.dimension, encoder.fingerprint, encoder.recipe
        self._encoder = encoder
        self._path = (folder or WORK / "vectors") / f"{encoder.fingerprint[:24]}.npz"
        self._known: dict[bytes, np.ndarray] = {}
        if self._path.is_file():
            with np.load(self._path) as kept:
                self._known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Unit vectors, float32 [n, dimension], in the order of ``texts``; see :class:`embedders.encoder.Encoder`."""
        keys = [xxhash.xxh3_128_hexdigest(text.encode()).encode() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        for start in range(0, len(new), CHUNK):  # so that a run that is ended keeps what it has
            some = list(new)[start : start + CHUNK]
            vectors = as_stored(self._encoder.encode([new[key] for key in some], progress)).astype(np.float16)
            self._known.update(zip(some, vectors, strict=True))
            self._save()
        return np.array([self._known[key] for key in keys], dtype=np.float32).reshape(len(keys), self.dimension)

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_name(f".{os.getpid()}.npz")
        np.savez(unfinished, keys=np.array(list(self._known)), vectors=np.array(list(self._known.values())))
        os.replace(unfinished, self._path)
