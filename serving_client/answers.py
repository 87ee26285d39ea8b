"""What the client answers: arrays in the order asked, with a mask of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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
    event_timestamps: NDArray[np.datetime64] | None = None
    """[n] when what each pin says became so (its newest row that the vector is of), microseconds in UTC; NaT where
    nothing was found. None for queries and boards, whose vectors are of now."""
    degraded: tuple[str, ...] = ()

    def age(self, now: datetime | None = None) -> NDArray[np.timedelta64]:
        """[n] how long ago each event was, in microseconds; NaT where that is unknown.

        :param now: the time to count from; without a zone it is UTC. Default is the present.
        """
        if self.event_timestamps is None:
            return np.full(len(self.ids), "NaT", dtype="timedelta64[us]")
        at = datetime.now(UTC) if now is None else now
        plain = at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
        return np.datetime64(plain, "us") - self.event_timestamps


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
    degraded: tuple[str, ...] = ()

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
    engagement: float | None = None
    """Its engagement prior, 0 to 1, if that was blended in: see :mod:`serving_client.search.blending`."""


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
    release: int = 0
    next_cursor: str | None = None
    """Where the next page begins; None after the last one."""


@dataclass(frozen=True)
class NearHit:
    """A pin near another one."""

    pin_id: str
    because: str
    """The pin it is near to; in a home feed the middle one of an interest."""
    similarity: float
    """Cosine of the two."""
    content: Mapping[str, Any] | None = None
    exploration: bool = False
    """Whether it is in a home feed to show something else than the most fitting."""


@dataclass(frozen=True)
class RelatedPins:
    """Pins like one pin, in the order to show them."""

    pin_id: str
    found: bool
    hits: tuple[NearHit, ...]
    space: str
    release: int = 0
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interest:
    """One of the interests behind a home feed."""

    pin_id: str
    """The recent pin in its middle."""
    pins: tuple[str, ...]
    """The recent pins that belong to it, itself among them; the most recent first."""
    share: float
    """Its importance as a part of that of all; the most important ones lead the feed."""
    dry: bool = False
    """Whether it had no more unseen pins to give, so that others got its places."""


@dataclass(frozen=True, eq=False)
class HomeFeed:
    """Pins for somebody who looked at ``recent_pins``, in the order to show them."""

    recent_pins: tuple[str, ...]
    found: NDArray[np.bool_]
    """[n] which of ``recent_pins`` have a vector and count."""
    hits: tuple[NearHit, ...]
    space: str
    release: int = 0
    interests: tuple[Interest, ...] = ()
    """All that the recent pins show, the most important first."""
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoardPin:
    """A pin that fits a board."""

    pin_id: str
    similarity: float
    """Cosine of board and pin."""
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class BoardPins:
    """Pins that fit one board, in the order to show them."""

    board: str
    """Its title."""
    found: bool
    """Whether anything is known of the board: words, or one of its pins."""
    pins: tuple[str, ...]
    """Its own pins, as given."""
    pins_found: NDArray[np.bool_]
    """[n] which of ``pins`` have a vector and count; of more than 300 the first do. All are left out of the hits."""
    hits: tuple[BoardPin, ...]
    space: str
    release: int = 0
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoardHit:
    """A board that a pin fits."""

    board: str
    """Its title."""
    position: int
    """Its place among the boards given, from 0."""
    similarity: float
    """Cosine of board and pin."""


@dataclass(frozen=True)
class BoardHits:
    """Of the boards given those that fit a pin, best first."""

    pin_id: str
    found: bool
    """Whether the pin has a vector."""
    hits: tuple[BoardHit, ...]
    space: str
    release: int = 0
    degraded: tuple[str, ...] = ()
