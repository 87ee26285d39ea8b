"""Drift of a pin's vector as it can be predicted without a model, and the policy that embeds beyond a bound on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation.metrics import Floats, Ints
from feature_repo.lexical.tokens import tokenize
from feature_repo.pin_text import DEFAULT_TEMPLATE, FIELDS, PinFields, PinTextTemplate

Weights = dict[str, float]
_FIELD_TEMPLATES = tuple((rule.name, PinTextTemplate(1, (rule,))) for rule in DEFAULT_TEMPLATE.rules)
RIDGE = 1e-3

PREDICTORS = ("words", "idf_words", "distinct_idf", "by_field", "position", "idf_position")
"""Shares of a text that changed, 0 (nothing) to 1 (everything):

``words``         1 - weighted Jaccard of the two texts' words, each word once for each time it occurs
``idf_words``     the same, each word weighed by its idf in a snapshot of round 0
``distinct_idf``  the same over distinct words: a word that the text has already counts nothing
``by_field``      words that differ field by field, over the words of the longer field
``position``      as ``words``, the word at place p of the text weighing 1 / log2(2 + p)
``idf_position``  both weights
"""
COLUMNS = (*PREDICTORS, *(f"idf_{name}" for name in FIELDS), "shortness")
"""Inputs of the fitted predictor: the shares above, each field's part of ``idf_words``, 1 / sqrt(words)."""


def tokens_of(fields: PinFields) -> tuple[list[str], ...]:
    """Tokens of each field as the canonical text has them, markers and budgets included, in the order of the text."""
    return tuple(tokenize(template.render(fields).text) for _, template in _FIELD_TEMPLATES)


def inverse_frequencies(documents: Sequence[tuple[list[str], ...]]) -> tuple[Weights, float]:
    """ln(1 + (N - df + 0.5) / (df + 0.5)) of each token over N documents, and that of a token nobody has."""
    counts = Counter(token for document in documents for token in {each for field in document for each in field})
    total = len(documents)
    idf = {token: float(np.log1p((total - count + 0.5) / (count + 0.5))) for token, count in counts.items()}
    return idf, float(np.log1p((total + 0.5) / 0.5))


def changed_share(old: dict[str, float], new: dict[str, float]) -> float:
    """1 - weighted Jaccard: 1 - sum of the lesser weights / sum of the greater ones; 0 for two empty bags."""
    tokens = [*old, *(token for token in new if token not in old)]  # a set's order, and so the sum, changes by process
    greater = sum(max(old.get(token, 0.0), new.get(token, 0.0)) for token in tokens)
    lesser = sum(min(old.get(token, 0.0), new.get(token, 0.0)) for token in tokens)
    return 1.0 - lesser / greater if greater else 0.0


def changed_shares(
    old: tuple[list[str], ...], new: tuple[list[str], ...], idf: Weights, unseen: float
) -> NDArray[np.float64]:
    """:data:`COLUMNS` of one change, [len(COLUMNS)]."""

    def rarity(token: str) -> float:
        return idf.get(token, unseen)

    def flat(document: tuple[list[str], ...]) -> list[str]:
        return [token for field in document for token in field]

    def bag(tokens: list[str], weigh: Callable[[int, str], float]) -> dict[str, float]:
        out: dict[str, float] = {}
        for place, token in enumerate(tokens):
            out[token] = out.get(token, 0.0) + weigh(place, token)
        return out

    def both(weigh: Callable[[int, str], float]) -> float:
        return changed_share(bag(flat(old), weigh), bag(flat(new), weigh))

    distinct = [dict.fromkeys(flat(each)) for each in (old, new)]
    length = sum(max(len(one), len(other)) for one, other in zip(old, new, strict=True))
    moved = [
        (Counter(one) - Counter(other), Counter(other) - Counter(one)) for one, other in zip(old, new, strict=True)
    ]
    mass = max(sum(map(rarity, flat(old))), sum(map(rarity, flat(new)))) or 1.0
    fields = [max(sum(rarity(token) * n for token, n in side.items()) for side in sides) / mass for sides in moved]
    return np.array(
        [
            both(lambda place, token: 1.0),
            both(lambda place, token: rarity(token)),
            changed_share(*({token: rarity(token) for token in each} for each in distinct)),
            sum(max(gone.total(), come.total()) for gone, come in moved) / max(1, length),
            both(lambda place, token: 1 / np.log2(2 + place)),
            both(lambda place, token: rarity(token) / np.log2(2 + place)),
            *fields,
            1 / np.sqrt(max(1, len(flat(old)))),
        ]
    )


@dataclass(frozen=True, eq=False)
class FittedDrift:
    """Cosine drift from :data:`COLUMNS`: ridge regression on the angle, then isotonic regression to the drift."""

    weights: Floats
    isotonic: Callable[[Floats], Floats]

    @classmethod
    def fit(cls, columns: Floats, drift: Floats) -> FittedDrift:
        """:param columns: [n, C]. :param drift: [n] true cosine drift, 0 to 2."""
        from sklearn.isotonic import IsotonicRegression

        inputs = _inputs(columns)
        # A share s of changed text turns the vector by an angle of about s; its cosine falls with the square.
        angle = np.arccos(np.clip(1.0 - drift, -1.0, 1.0))
        weights = np.linalg.solve(
            inputs.T @ inputs + RIDGE * len(inputs) * np.diag([0.0] + [1.0] * (inputs.shape[1] - 1)), inputs.T @ angle
        )
        isotonic = IsotonicRegression(out_of_bounds="clip").fit(inputs @ weights, drift)
        return cls(weights, isotonic.predict)

    def predict(self, columns: Floats) -> Floats:
        """[n] cosine drift; steps of the isotonic regression are told apart by the angle, far below its resolution."""
        angle = _inputs(columns) @ self.weights
        return np.asarray(self.isotonic(angle) + 1e-6 * angle)


def _inputs(columns: Floats) -> Floats:
    shares = columns[:, :-1]
    return np.hstack([np.ones((len(columns), 1)), columns, np.sqrt(np.maximum(shares, 0.0))])


def held_rounds(differs: NDArray[np.bool_], predicted: Floats, bound: float) -> Ints:
    """Which round's text each vector is of, [P, R + 1], when a pin is embedded only beyond a bound.

    In each round a pin is embedded anew if its text differs from the one it was embedded from and the drift predicted
    from that text, not from the text of the round before, exceeds ``bound``. So small edits add up.

    :param differs: [P, R + 1, R + 1] whether the texts of two rounds differ.
    :param predicted: [P, R + 1, R + 1] drift from an earlier round (second axis) to a later one (third).
    :param bound: in the unit of ``predicted``; below 0 every change is embedded, which is the policy `exact`.
    """
    pins, rounds = differs.shape[:2]
    everyone = np.arange(pins)
    held = np.zeros((pins, rounds), np.int64)
    for now in range(1, rounds):
        last = held[:, now - 1]
        due = differs[everyone, last, now] & (predicted[everyone, last, now] > bound)
        held[:, now] = np.where(due, now, last)
    return held


def embedded(held: Ints) -> NDArray[np.bool_]:
    """[P, R] whether a pin was embedded in each round after the first."""
    return held[:, 1:] != held[:, :-1]
