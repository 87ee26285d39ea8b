"""Vectors of a training set's texts, each distinct text encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

    from embedders.encoder import Encoder


class TextVectors:
    """Remembers the vector of every text that was asked for: 2 bytes a dimension and distinct text."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._places: dict[str, int] = {}
        self._blocks: list[npt.NDArray[np.float16]] = []
        self._calls = 0
        self._pins: set[str] = set()
        self._queries: set[str] = set()

    def pins(self, texts: Sequence[str | None]) -> pa.Array:
        """The unit vector of each text, a list of float16; null where there is no text."""
        self._pins.update(text for text in texts if text is not None)
        return self._vectors(texts)

    def queries(self, texts: Sequence[str]) -> pa.Array:
        """The same of queries."""
        self._queries.update(texts)
        return self._vectors(texts)

    def to_json(self) -> dict[str, Any]:
        """Model, recipe, and what was encoded."""
        return {
            "model_fingerprint": self._encoder.fingerprint,
            "dimension": self._encoder.dimension,
            "device": self._encoder.recipe.device,
            "precision": self._encoder.recipe.precision,
            "pin_texts": len(self._pins),
            "queries": len(self._queries),
            "encoded_texts": len(self._places),
            "encoder_calls": self._calls,
        }

    def _vectors(self, texts: Sequence[str | None]) -> pa.Array:
        import pyarrow as pa

        fresh = [text for text in dict.fromkeys(texts) if text is not None and text not in self._places]
        if fresh:
            self._blocks.append(self._encoder.encode(fresh).astype(np.float16))
            self._calls += 1
            for text in fresh:
                self._places[text] = len(self._places)
        known = np.concatenate(self._blocks) if self._blocks else np.empty((0, self._encoder.dimension), np.float16)
        self._blocks = [known]
        rows = [self._places[text] for text in texts if text is not None]
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([0 if text is None else self._encoder.dimension for text in texts], out=offsets[1:])
        missing = pa.array([text is None for text in texts], pa.bool_())
        values = pa.array(known[rows].reshape(-1))
        return pa.LargeListArray.from_arrays(pa.array(offsets), values, mask=missing)
