"""Texts that the encoder cannot take: found by halving the batch that failed, set aside, so that the rest goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedders.encoder import Encoder, as_stored
from feature_repo.errors import PinfeatherError

GIVE_UP_AFTER = 10
"""Texts that fail one after the other, with none encoded in between, before the encoder itself is doubted."""

_HARMLESS = "a pin"
"""Encoded to tell a broken encoder from poison where nothing else was encoded."""

UNIT_TOLERANCE = 2e-3
"""How far the squared length of a stored vector may be from 1: float16 rounding of 384 dimensions stays below."""


class EncoderFailedError(PinfeatherError):
    """The encoder fails on every text: nothing of it is the texts' fault."""


def is_unit(vector: npt.NDArray[np.float32]) -> bool:
    """Whether a stored vector [dimension] is finite and of unit length."""
    return bool(np.isfinite(vector).all()) and abs(float(vector @ vector) - 1) <= UNIT_TOLERANCE


@dataclass
class CarefulEncoding:
    """Encodes the texts of one run; a batch that fails is halved until the texts that fail alone are known.

    A text counts as poison where the encoder raises on it alone, or gives a vector that is not finite or has no length.
    """

    calls: int = 0
    """Calls of the encoder, those that failed included."""
    encoded: int = 0
    """Texts that got a vector."""
    streak: dict[bytes, str] = field(default_factory=dict)
    """Texts that failed since the encoder was last seen to work, with the reason."""

    def encode(
        self, encoder: Encoder, texts: Mapping[bytes, str]
    ) -> tuple[dict[bytes, npt.NDArray[np.float32]], dict[bytes, str]]:
        """Vectors as they are stored, and the reasons of the poison, both by text fingerprint.

        :raises EncoderFailedError: if :data:`GIVE_UP_AFTER` texts failed in a row, or all that were tried in the run,
            and a harmless text fails too. What is in :attr:`streak` is then to be believed of no text.
        """
        vectors: dict[bytes, npt.NDArray[np.float32]] = {}
        poison: dict[bytes, str] = {}
        waiting = [list(texts)] if texts else []
        while waiting:
            fps = waiting.pop()
            try:
                rows = self._call(encoder, [texts[fp] for fp in fps])
            except Exception as error:  # whatever a model, a driver or an allocator raises
                if len(fps) > 1:
                    half = len(fps) // 2
                    waiting += [fps[half:], fps[:half]]
                else:
                    self._failed(fps[0], f"{type(error).__name__}: {error}", poison)
                    self._doubt(encoder, 1)
                continue
            for fp, row in zip(fps, rows, strict=True):
                if not is_unit(row):
                    length = float(np.linalg.norm(row))
                    self._failed(fp, f"a vector of length {length:g}, which is not 1", poison)
                    continue
                vectors[fp] = row
                self.encoded += 1
                self.streak.clear()
            self._doubt(encoder, len(fps))
        if self.streak and not self.encoded:
            self._probe(encoder, 1, "every text failed")
        return vectors, poison

    def _call(self, encoder: Encoder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls += 1
        rows = as_stored(encoder.encode(texts))
        if rows.shape != (len(texts), encoder.dimension):
            raise ValueError(f"{rows.shape} is not the shape of {len(texts)} vectors of {encoder.dimension} numbers")
        return rows

    def _failed(self, fp: bytes, reason: str, poison: dict[bytes, str]) -> None:
        poison[fp] = self.streak[fp] = " ".join(reason.split())[:500]

    def _doubt(self, encoder: Encoder, size: int) -> None:
        if len(self.streak) >= GIVE_UP_AFTER:
            self._probe(encoder, size, f"{len(self.streak)} texts failed one after the other")

    def _probe(self, encoder: Encoder, size: int, failed: str) -> None:
        """Whether the encoder takes a harmless text, in a batch of ``size`` as the one that failed."""
        broken = self._broken(f"{failed}, a harmless one too")
        try:
            rows = self._call(encoder, [_HARMLESS] * size)
        except Exception as error:
            raise broken from error
        if not all(is_unit(row) for row in rows):
            raise broken
        self.streak.clear()

    def _broken(self, what: str) -> EncoderFailedError:
        reason = next(reversed(self.streak.values()), "unknown")
        return EncoderFailedError(
            f"The encoder does not work: {what} (the last with {reason}). No pin was quarantined for it; batches that "
            "were committed stay. Free memory or the device, try another --device or --precision, then run again."
        )
