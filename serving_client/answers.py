"""What the client answers: arrays in the order asked, with a mask of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of one space. Only vectors of the same ``space`` may meet in a product."""

    ids: tuple[str, ...]
    """n pin ids, canonical queries or board titles, in the order asked, duplicates included."""
    vectors: NDArray[np.float32]
    """[n, d] unit rows; NaN where nothing was found."""
    found: NDArray[np.bool_]
    """[n]"""
    space: str
    """Physical name of the space."""
    model: str
    """Fingerprint of the tower that made the vectors."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The features of a service, one row per pin asked for."""

    ids: tuple[str, ...]
    service: str
    found: NDArray[np.bool_]
    """[n] True where at least one of the views has a row of the pin."""
    columns: Mapping[str, list[Any]]
    """``view__feature`` (Feast's full feature names) to n values; None where the row or the value is missing."""
    event_timestamps: Mapping[str, NDArray[np.datetime64]]
    """View to the event timestamps of its n rows, microseconds in UTC; NaT where it has no row of the pin."""

    def row(self, index: int) -> dict[str, Any]:
        """The features of one pin, by column."""
        return {name: values[index] for name, values in self.columns.items()}


@dataclass(frozen=True)
class PinExplanation:
    """Why a pin got its expected level: the contributions and the bias sum to ``expected level - baseline``."""

    contributions: Mapping[str, float]
    """Feature to what it added, in levels; positive raises."""
    bias: float
    baseline: float
    """What the head says of a pin of which it is told nothing, in levels."""

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The features that moved the level most, with their contributions."""
        ordered = sorted(self.contributions.items(), key=lambda item: -abs(item[1]))
        return ordered[:count]


@dataclass(frozen=True, eq=False)
class Scores:
    """Five-level relevance of one query and n pins, in the order of the pins."""

    query: str
    """The canonical query."""
    ids: tuple[str, ...]
    found: NDArray[np.bool_]
    """[n] True where the store has a vector or a relevance row of the pin; what is False has no score."""
    ranking: NDArray[np.float64]
    """[n] what ranks, higher is better, NaN where there is none: expected level, cosine or BM25, by ``scorer``."""
    probabilities: NDArray[np.float64]
    """[n, 5] of level 1 to 5; NaN unless the student scored."""
    expected_level: NDArray[np.float64]
    """[n] mean level under the probabilities; NaN unless the student scored."""
    level: NDArray[np.int64]
    """[n] the expected level rounded (halves up), 1 (irrelevant) to 5 (perfect); 0 where none. So levels never
    contradict the order of the pins; the most probable level, which ``evaluate`` counts as accuracy, may."""
    scorer: str
    """Who scored: ``student``, ``zero-shot`` or ``bm25``."""
    space: str | None
    """The space whose vectors were read; None where none was."""
    bundle: str | None
    """The student's bundle; None unless the student scored."""
    similarity: NDArray[np.float32]
    """[n] cosine of query and pin; NaN where unknown."""
    explanations: tuple[PinExplanation | None, ...] | None = None
    """n explanations where asked for and the student scored; None for a pin that was not found."""
    degraded: tuple[str, ...] = ()
    """What was not as asked for, in words; empty where all was well."""

    def order(self) -> list[int]:
        """Rows from best to worst; equal scores keep their order, rows without a score are left out."""
        order = np.argsort(-self.ranking, kind="stable")
        return [int(row) for row in order if not np.isnan(self.ranking[row])]


@dataclass(frozen=True)
class SearchHit:
    """One pin of a search."""

    pin_id: str
    score: float
    """What ranked it; see :attr:`Scores.ranking`."""
    similarity: float
    level: int
    """1 to 5; 0 unless the student scored."""
    expected_level: float
    probabilities: tuple[float, ...]
    explanation: PinExplanation | None = None
    content: Mapping[str, Any] | None = None
    """Its features of ``pin_content_v1``, if asked for."""


@dataclass(frozen=True)
class SearchResults:
    """Pins for a query, best first."""

    query: str
    hits: tuple[SearchHit, ...]
    scorer: str
    space: str
    bundle: str | None
    candidates: int
    """How many pins were scored."""
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True)
class NearHit:
    """A pin near another one."""

    pin_id: str
    because: str
    """The pin it is near to."""
    similarity: float
    """Cosine of the two."""
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RelatedPins:
    """Pins like one pin, in the order to show them."""

    pin_id: str
    found: bool
    hits: tuple[NearHit, ...]
    space: str


@dataclass(frozen=True, eq=False)
class HomeFeed:
    """Pins for somebody who looked at ``recent_pins``, in the order to show them."""

    recent_pins: tuple[str, ...]
    found: NDArray[np.bool_]
    """[n] which of ``recent_pins`` have a vector."""
    hits: tuple[NearHit, ...] = field(default=())
    space: str = ""
