"""The contract of a captioner, and the settings that decide what it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from feature_repo.errors import PinfeatherError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_TOKENS = 512
MAX_SEED = (1 << 64) - 1
"""What a generator of random numbers takes."""


class CaptionerError(PinfeatherError):
    """A captioner cannot be found or loaded, or its model fails whatever it is given."""


@runtime_checkable
class Captioner(Protocol):
    """Images to captions.

    ``name`` is written beside every caption. ``fingerprint`` says of everything that decides a caption: two captioners
    of one fingerprint write the same captions. ``model_seconds`` counts the seconds spent inside the model so far.
    """

    name: str
    fingerprint: str
    model_seconds: float

    def caption(self, images: Sequence[Image]) -> list[str]:
        """One caption an image, in the order of ``images``."""
        ...


@runtime_checkable
class PreparingCaptioner(Captioner, Protocol):
    """A captioner whose work on the processor can be done ahead, in another thread, while its model is busy.

    ``caption(images)`` is ``generate(prepare(images))``.
    """

    def prepare(self, images: Sequence[Image]) -> Any:
        """What :meth:`generate` takes; several threads may call it."""
        ...

    def generate(self, prepared: Any) -> list[str]:
        """One caption an image, in their order; one thread calls it."""
        ...


@dataclass(frozen=True)
class CaptionSettings:
    """What decides a caption besides the model; all of it is part of the captioner's fingerprint.

    ``prompt``: None takes none for BLIP and BLIP-2, where it is the beginning of the sentence, and
    ``embedders.captions.model.CHAT_PROMPT`` for chat models. ``beams`` above 1 is beam search, ``top_p`` nucleus
    sampling among the likeliest tokens of this total probability, drawn by ``seed``; neither is greedy search.

    :raises UsageError: if a number is out of its range, or beams and nucleus are both asked for.
    """

    prompt: str | None = None
    beams: int = 1
    top_p: float | None = None
    max_tokens: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, most in (("beams", self.beams, 32), ("max_tokens", self.max_tokens, MAX_TOKENS)):
            if not 1 <= value <= most:
                raise UsageError(f"{name} is {value}: give a whole number from 1 to {most}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed is {self.seed}: give a whole number from 0 to {MAX_SEED}.")
        if self.top_p is not None and not (math.isfinite(self.top_p) and 0 < self.top_p <= 1):
            raise UsageError(f"top_p is {self.top_p}: give a share above 0 and up to 1, such as 0.9.")
        if self.top_p is not None and self.beams > 1:
            raise UsageError(f"beams {self.beams} and top_p {self.top_p} exclude each other: give one of the two.")

    def to_json(self) -> dict[str, Any]:
        """What enters the fingerprint; a seed that nothing is drawn by does not."""
        drawn = self.top_p is not None
        return {
            "prompt": self.prompt,
            "beams": self.beams,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed if drawn else None,
        }
