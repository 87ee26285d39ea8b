"""Which predictor and bound to take, chosen on one half of a history and judged on the other, both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.materialize.drift_measure import Experiment, Outcome, mean_interval
from embedders.evaluation.metrics import Floats

WANTED = 0.20
MOST_LOST = 0.001
ENDS = ("random", "true")
RULES = ("by_mean", "by_worst_end", "at_20_percent")
"""What is chosen:

``by_mean``        the largest bound that, with every lower one, loses less than 0.001 nDCG@20
``by_worst_end``   the same of the upper end of the 95 % interval of the loss
``at_20_percent``  the lowest bound that saves 20 %, whatever it loses: not picked by the loss, so not flattered by it
"""


@dataclass(frozen=True, eq=False)
class Choice:
    """A bound chosen on one half."""

    predictor: str
    bound: float
    saved: float
    """Share saved on the half where it was chosen."""
    lost: float
    """nDCG@20 lost there."""
    outcome: Outcome


@dataclass(frozen=True, eq=False)
class Judgment:
    """A policy on queries and pins that had no part in choosing it."""

    lost: Floats
    """[Q] nDCG@20 of `exact` minus the policy, after the last round."""
    embedded: int
    embedded_by_exact: int
    halves: tuple[dict[str, Any], ...] = ()
    """What was chosen on either half, and its figures on the other."""

    @classmethod
    def together(cls, judgments: Sequence[Judgment]) -> Judgment:
        """Several sets as one; every query counts the same."""
        lost = np.concatenate([one.lost for one in judgments])
        return cls(lost, sum(one.embedded for one in judgments), sum(one.embedded_by_exact for one in judgments))

    def report(self, seed: int, with_halves: bool = False) -> dict[str, Any]:
        """Saved share, loss with its interval, and whether that is what is wanted."""
        saved, lost = 1.0 - self.embedded / self.embedded_by_exact, float(self.lost.mean())
        low, high = mean_interval(self.lost, seed)
        out = {
            "saved": saved,
            "ndcg_lost": lost,
            "ndcg_lost_ci": [low, high],
            "reached": saved >= WANTED and lost < MOST_LOST,
            "surely_reached": saved >= WANTED and high < MOST_LOST,
        }
        return out | ({"halves": list(self.halves)} if with_halves else {})


def choose(experiment: Experiment, name: str, predicted: Floats, half: int) -> dict[str, Choice]:
    """What each rule takes of one predictor on one half; without a bound that will do, to embed every change."""
    out = {rule: Choice(name, -1.0, 0.0, 0.0, experiment.run(predicted, -1.0)) for rule in RULES}
    waiting = set(RULES)
    for bound, outcome in experiment.sweep(predicted, experiment.halves[half]):
        found = experiment.figures(outcome, experiment.halves[half])
        here = Choice(name, bound, found["saved"], found["ndcg_lost"], outcome)
        limits = {"by_mean": found["ndcg_lost"], "by_worst_end": found["ndcg_lost_ci"][1]}
        waiting -= {rule for rule, lost in limits.items() if lost >= MOST_LOST}
        out.update(dict.fromkeys(waiting, here))
        if found["saved"] >= WANTED:
            waiting.discard("at_20_percent")
        if not waiting:
            break
    return out


def judge(experiment: Experiment) -> dict[str, dict[str, Judgment]]:
    """By rule and predictor; under ``chosen`` also the predictor that the same half takes.

    That is the one that saves most, or at 20 % saved the one that loses least. :data:`ENDS` cannot be taken.
    """
    found: dict[str, dict[str, list[Choice]]] = {rule: {} for rule in RULES}
    for half in (0, 1):
        for name, predicted in experiment.predictions(half).items():
            for rule, choice in choose(experiment, name, predicted, half).items():
                found[rule].setdefault(name, []).append(choice)
    for rule, names in found.items():
        real = [choices for name, choices in names.items() if name not in ENDS]
        names["chosen"] = [max((choices[half] for choices in real), key=_merit(rule)) for half in (0, 1)]
    return {
        rule: {name: _judged(experiment, choices) for name, choices in names.items()} for rule, names in found.items()
    }


def _merit(rule: str) -> Callable[[Choice], float]:
    return (lambda choice: -choice.lost) if rule == "at_20_percent" else (lambda choice: choice.saved)


def _judged(experiment: Experiment, choices: list[Choice]) -> Judgment:
    halves: list[dict[str, Any]] = []
    lost = np.empty(len(experiment.query_vectors))
    for choice, other in zip(choices, reversed(experiment.halves), strict=True):
        lost[other.queries] = choice.outcome.lost[-1, other.queries]
        chosen = {"predictor": choice.predictor, "bound": choice.bound, "saved_where_chosen": choice.saved}
        halves.append(chosen | experiment.figures(choice.outcome, other))
    did, due = (sum(int(half[key]) for half in halves) for key in ("embedded", "embedded_by_exact"))
    return Judgment(lost, did, due, tuple(halves))
