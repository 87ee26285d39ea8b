"""What a run of a captioner did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class CaptionCounts:
    """Counts of one run; where not said otherwise, of distinct images."""

    captioner: str
    fingerprint: str
    images: int = 0
    """Of the pins that are there, or of those that were asked for."""
    new: int = 0
    reused: int = 0
    captioned: int = 0
    remaining: int = 0
    """Of all pins: neither captioned by this captioner nor refused."""
    dropped: int = 0
    """Captions of images that no pin has any more, of all captioners."""
    judged_anew: int = 0
    """Older captions that have another flag since the rules changed."""
    without_hash: int = 0
    """Pins that name an image and no hash of it."""
    flags: Counter[str] = field(default_factory=Counter)
    """Reason to captions of this run that stay out of the pin text."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Reason to images that were refused in this run."""
    unknown: tuple[str, ...] = ()
    in_use: str | None = None
    """Name of the captioner whose captions count after the run."""
    interrupted: bool = False
    seconds: float = 0.0
    loop_seconds: float = 0.0
    """From the loaded model to the last written caption."""
    model_seconds: float = 0.0

    @property
    def flagged(self) -> int:
        """Captions of this run that stay out of the pin text."""
        return self.flags.total()

    @property
    def rejected(self) -> int:
        """Images that were refused in this run."""
        return self.reasons.total()

    @property
    def outside_model_share(self) -> float | None:
        """Share of the loop's seconds in which the model did not work; None if it never did."""
        if not self.model_seconds or not self.loop_seconds:
            return None
        return max(0.0, 1 - self.model_seconds / self.loop_seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather caption --json``."""
        share = self.outside_model_share
        return {
            "captioner": self.captioner,
            "fingerprint": self.fingerprint,
            "images": self.images,
            "new": self.new,
            "reused": self.reused,
            "captioned": self.captioned,
            "flagged": self.flagged,
            "flags": dict(self.flags.most_common()),
            "rejected": self.rejected,
            "reasons": dict(self.reasons.most_common()),
            "remaining": self.remaining,
            "dropped": self.dropped,
            "judged_anew": self.judged_anew,
            "without_hash": self.without_hash,
            "unknown": list(self.unknown),
            "in_use": self.in_use,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "model_seconds": round(self.model_seconds, 3),
            "outside_model_share": None if share is None else round(share, 4),
        }
