"""What a policy saves and loses on one history: re-embeddings, drift of stale vectors, nDCG@20."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.materialize.drift_history import History
from benchmarks.materialize.drift_policy import (
    COLUMNS,
    PREDICTORS,
    FittedDrift,
    changed_shares,
    embedded,
    held_rounds,
    inverse_frequencies,
    tokens_of,
)
from embedders.evaluation.folds import query_folds
from embedders.evaluation.intervals import interval, query_draws
from embedders.evaluation.metrics import Floats, Ints, ndcg_by_query
from feature_repo.pin_text import FIELDS

STEPS = 50
"""Bounds tried of each predictor: quantiles of what it says of the history's changes, and 0."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one policy did to a history of P pins, R rounds, Q queries."""

    held: Ints
    """[P, R + 1] the round whose text each vector is of."""
    lost: Floats
    """[R, Q] nDCG@20 of `exact` minus that of the policy, after each round."""


@dataclass(frozen=True, eq=False)
class Share:
    """A part of the queries and pins: masks [Q] and [P]."""

    queries: NDArray[np.bool_]
    pins: NDArray[np.bool_]


@dataclass(eq=False)
class Experiment:
    """A history with its vectors, and all that does not depend on a policy."""

    history: History
    vectors: Floats
    """[U, d] unit vectors of the history's texts."""
    query_vectors: Floats
    """[Q, d]"""
    seed: int = 0
    halves: tuple[Share, Share] = field(init=False)

    def __post_init__(self) -> None:
        judged, pins = self.history.judged, len(self.history.text_of)
        fold = query_folds(judged.queries, 2)
        pin_fold = np.arange(pins) % 2  # of pins that nobody judged
        pin_fold[judged.pin_of] = fold[judged.query_of]
        self.halves = (Share(fold == 0, pin_fold == 0), Share(fold == 1, pin_fold == 1))

    @cached_property
    def everything(self) -> Share:
        """All queries and pins."""
        return Share(np.ones(len(self.query_vectors), bool), np.ones(len(self.history.text_of), bool))

    @cached_property
    def differs(self) -> NDArray[np.bool_]:
        """[P, R + 1, R + 1]: an earlier and a later round whose texts differ."""
        text_of = self.history.text_of
        later = np.triu(np.ones((text_of.shape[1],) * 2, bool), 1)
        return (text_of[:, :, None] != text_of[:, None, :]) & later

    @cached_property
    def changes(self) -> tuple[Ints, Ints, Ints]:
        """Pins, earlier and later rounds of every entry of :attr:`differs`, [N] each."""
        pin, before, after = np.nonzero(self.differs)
        return pin, before, after

    @cached_property
    def true_drift(self) -> Floats:
        """[N] 1 - cosine of the two vectors."""
        pin, before, after = self.changes
        one, other = (self.vectors[self.history.text_of[pin, each]] for each in (before, after))
        return np.maximum(0.0, 1.0 - np.einsum("nd,nd->n", one, other).astype(np.float64))

    @cached_property
    def columns(self) -> Floats:
        """[N, C] changed shares of every change."""
        tokens = [tokens_of(fields) for fields in self.history.fields]
        idf, unseen = inverse_frequencies([tokens[text] for text in self.history.text_of[:, 0]])
        known: dict[tuple[int, int], Floats] = {}
        out = np.empty((len(self.true_drift), len(COLUMNS)))
        for row, (pin, before, after) in enumerate(zip(*self.changes, strict=True)):
            old, new = (int(self.history.text_of[pin, each]) for each in (before, after))
            if (old, new) not in known:
                known[old, new] = changed_shares(tokens[old], tokens[new], idf, unseen)
            out[row] = known[old, new]
        return out

    @cached_property
    def exact_changes(self) -> NDArray[np.bool_]:
        """[N] the changes from one round to the next: what `exact` embeds."""
        _, before, after = self.changes
        return after == before + 1

    @cached_property
    def _scores(self) -> Floats:
        """[n, R + 1] cosine of each judged pair under the text of each round."""
        judged = self.history.judged
        asked = self.query_vectors[judged.query_of]
        texts = self.history.text_of[judged.pin_of]
        return np.stack([np.einsum("nd,nd->n", asked, self.vectors[each]) for each in texts.T], axis=1)

    def ndcg(self, held: Ints) -> Floats:
        """[R + 1, Q] nDCG@20 after each round if the vectors are of the rounds ``held`` [P, R + 1]."""
        judged = self.history.judged
        rows = np.arange(len(judged.pin_of))
        return np.stack(
            [ndcg_by_query(judged.levels, self._scores[rows, now[judged.pin_of]], judged.query_of) for now in held.T]
        )

    @cached_property
    def exact(self) -> Floats:
        """[R + 1, Q] nDCG@20 of the policy `exact`."""
        pins, rounds = self.history.text_of.shape
        return self.ndcg(np.broadcast_to(np.arange(rounds), (pins, rounds)))

    def predictions(self, half: int) -> dict[str, Floats]:
        """[N] predicted drift by predictor; what is fitted is fitted to the pins of ``half`` alone.

        Beside them the two ends: ``random`` knows nothing, ``true`` is what embedding would say.
        """
        fit = self.halves[half].pins[self.changes[0]]
        fitted = FittedDrift.fit(self.columns[fit], self.true_drift[fit]).predict(self.columns)
        plain = {name: self.columns[:, place] for place, name in enumerate(PREDICTORS)}
        random = np.random.default_rng([self.seed, 2]).random(len(self.true_drift))
        return plain | {"fitted": fitted, "random": random, "true": self.true_drift}

    def run(self, predicted: Floats, bound: float) -> Outcome:
        """The policy with ``predicted`` [N] and ``bound`` over the whole history."""
        spread = np.zeros(self.differs.shape)
        spread[self.changes] = predicted
        held = held_rounds(self.differs, spread, bound)
        return Outcome(held, (self.exact - self.ndcg(held))[1:])

    def sweep(self, predicted: Floats, share: Share) -> Iterator[tuple[float, Outcome]]:
        """Rising bounds and their outcomes, until nothing is embedded any more."""
        of_share = predicted[self.exact_changes & share.pins[self.changes[0]]]
        for bound in np.unique([0.0, *np.quantile(of_share, np.linspace(0.0, 1.0, STEPS))]):
            yield float(bound), self.run(predicted, float(bound))

    def figures(self, outcome: Outcome, share: Share) -> dict[str, Any]:
        """Saved share, drift of stale vectors and nDCG@20 lost after the last round, in a part of the history."""
        did, due = (each[share.pins] for each in (embedded(outcome.held), self.history.changed))
        lost = outcome.lost[:, share.queries]
        drift = self._stale_drift(outcome)[share.pins]
        stale = drift[~np.isnan(drift)]
        return {
            "saved": 1.0 - did.sum() / due.sum(),
            "saved_in_last_round": 1.0 - did[:, -1].sum() / due[:, -1].sum(),
            "embedded": int(did.sum()),
            "embedded_by_exact": int(due.sum()),
            "stale_pins": len(stale) / int(share.pins.sum()),
            "stale_drift": quantiles(stale),
            "ndcg_lost": float(lost[-1].mean()),
            "ndcg_lost_ci": mean_interval(lost[-1], self.seed),
            "ndcg_lost_mean_of_rounds": float(lost.mean()),
        }

    def _stale_drift(self, outcome: Outcome) -> Floats:
        """[P] true drift of each vector after the last round; NaN where it is of the present text."""
        texts = self.history.text_of
        everyone = np.arange(len(texts))
        now, held = texts[:, -1], texts[everyone, outcome.held[:, -1]]
        drift = np.maximum(0.0, 1.0 - np.einsum("pd,pd->p", self.vectors[now], self.vectors[held]).astype(np.float64))
        return np.where(now == held, np.nan, drift)

    def kinds(self) -> dict[str, Any]:
        """By the fields that a round changed: how often, and the true drift."""
        fields, (pin, before, after) = self.history.fields, self.changes
        found: dict[str, list[float]] = {}
        for row in np.flatnonzero(self.exact_changes):
            old, new = (fields[self.history.text_of[pin[row], each[row]]] for each in (before, after))
            parts = [name for name in FIELDS if getattr(old, name) != getattr(new, name)]
            found.setdefault(parts[0] if len(parts) == 1 else "several", []).append(float(self.true_drift[row]))
        return {
            kind: {"changes": len(drift), "drift": quantiles(np.array(drift))} for kind, drift in sorted(found.items())
        }


def mean_interval(lost: Floats, seed: int) -> list[float]:
    """95 % interval of the mean of a difference by query [Q], by resampling queries."""
    return interval(query_draws(len(lost), seed=seed) @ lost / len(lost)) or [float("nan")] * 2


def quantiles(values: Floats) -> dict[str, float] | None:
    """p50, p95 and maximum; None of nothing."""
    if not len(values):
        return None
    return {"p50": float(np.median(values)), "p95": float(np.quantile(values, 0.95)), "max": float(values.max())}
