"""Whether a bound on predicted vector drift would save re-embeddings without hurting search.

Run from the checkout's root (eight minutes on 2 cores, nearly all of it encoding; for a small run of half a minute add
``--pins 200 --rounds 2``):

    .venv/bin/python -m benchmarks.materialize.drift

Pins of judged sets are edited over rounds (``drift_history.py`` says how): boards gained, queries gained, titles
edited. Every text is encoded once by the packaged model. `exact` embeds each pin whose canonical text changed. The
policy `drift(bound)` embeds only pins whose drift, predicted without a model from the text that was embedded last and
the present one, exceeds the bound. For each predictor (``drift_policy.py``) the bound is swept. Reported are the share
of re-embeddings saved, the true cosine drift of the vectors that are stale after the last round, and nDCG@20 of ranking
each query's judged pins by cosine, `exact` minus the policy, after the last round, with a 95 % interval by paired
bootstrap over queries.

The answer is cross-judged (``drift_choice.py``): predictor and bound are chosen, and the fitted predictor is fitted,
on one half of queries and pins, and judged on the other, both ways. ``random`` skips blindly, each round anew, and
``true`` knows the drift, which takes the very embedding that is to be saved: the two ends of what a predictor can do,
and never chosen. What never embedding again loses says whether a set can tell at all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, machine, save
from benchmarks.materialize.drift_choice import MOST_LOST, RULES, WANTED, Judgment, judge
from benchmarks.materialize.drift_history import make_history
from benchmarks.materialize.drift_measure import Experiment
from benchmarks.materialize.drift_sources import DATA, SMALLEST_CATALOGUE, SOURCES
from embedders.encoder import Encoder, Vectors, as_stored, load_encoder

CURVES = ("words", "fitted", "random", "true")
Report = dict[str, Any]
Judgments = dict[str, dict[str, Judgment]]


class CachedEncoder:
    """Vectors by text; with a file they are kept for the next run with the same model."""

    def __init__(self, encoder: Encoder, path: Path | None) -> None:
        self.encoder, self.path = encoder, path
        self.known: dict[str, Vectors] = {}
        self.encoded, self.seconds = 0, 0.0
        if path is not None and path.is_file():
            with np.load(path) as kept:
                if str(kept["model"]) == encoder.fingerprint:
                    self.known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))

    def encode(self, texts: list[str]) -> Vectors:
        """Vectors as a store would hold them, float32 [n, d]."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        start = perf_counter()
        if new:
            self.known.update(zip(new, as_stored(self.encoder.encode(new)), strict=True))
            if self.path is not None:
                np.savez(
                    self.path,
                    model=np.array(self.encoder.fingerprint),
                    texts=np.array(list(self.known)),
                    vectors=np.stack(list(self.known.values())),
                )
        self.encoded, self.seconds = self.encoded + len(new), self.seconds + perf_counter() - start
        return np.stack([self.known[text] for text in texts])


def measure(experiment: Experiment, judgments: Judgments) -> Report:
    """Everything about one history."""
    history, exact = experiment.history, experiment.exact
    never = experiment.run(experiment.true_drift, np.inf)
    last = never.lost[-1]
    return {
        "pins": len(history.text_of),
        "queries": len(history.judged.queries),
        "pairs": len(history.judged.levels),
        "texts": len(history.texts),
        "changed_by_round": history.changed.mean(axis=0).tolist(),
        "changes": experiment.kinds(),
        "ndcg@20_exact_by_round": exact.mean(axis=1).tolist(),
        "never_embedding_again": experiment.figures(never, experiment.everything)
        | {
            "ndcg_lost_of_logged_queries": _mean(last[history.logged]),
            "ndcg_lost_of_other_queries": _mean(last[~history.logged]),
        },
        "rank_correlation_with_true_drift": correlations(experiment),
        "curves": curves(experiment),
        "judged": {
            rule: {
                name: judgment.report(experiment.seed, with_halves=name == "chosen") for name, judgment in names.items()
            }
            for rule, names in judgments.items()
        },
    }


def correlations(experiment: Experiment) -> dict[str, float]:
    """Spearman's rho of each predictor over the changes of the half it was not fitted to, mean of both ways."""
    found: dict[str, list[float]] = {}
    for half in (0, 1):
        rows = experiment.exact_changes & experiment.halves[1 - half].pins[experiment.changes[0]]
        truth = _ranks(experiment.true_drift[rows])
        for name, predicted in experiment.predictions(half).items():
            found.setdefault(name, []).append(float(np.corrcoef(truth, _ranks(predicted[rows]))[0, 1]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def curves(experiment: Experiment) -> dict[str, list[Report]]:
    """Figures by bound on all queries, of some predictors; the fitted one serves each half as fitted to the other."""
    own = experiment.halves[0].pins[experiment.changes[0]]
    first, second = experiment.predictions(0), experiment.predictions(1)
    out = {}
    for name in CURVES:
        predicted = np.where(own, second[name], first[name])
        swept = list(experiment.sweep(predicted, experiment.everything))
        out[name] = [
            {"bound": bound} | experiment.figures(outcome, experiment.everything) for bound, outcome in swept[::6]
        ]
    return out


def answer(sets: dict[str, Report], judgments: dict[str, Judgments], seed: int) -> Report:
    """Whether `drift` is worth shipping: 20 % saved at less than 0.001 nDCG@20 lost, in every set that ran."""
    pooled = {
        rule: {
            name: Judgment.together([found[rule][name] for found in judgments.values()]).report(seed)
            for name in next(iter(judgments.values()))[rule]
        }
        for rule in RULES
    }
    chosen = {
        rule: {name: found[rule]["chosen"].report(seed) for name, found in judgments.items()}
        | {"all_sets": pooled[rule]["chosen"]}
        for rule in RULES
    }
    never = {name: report["never_embedding_again"]["ndcg_lost_ci"] for name, report in sets.items()}
    return {
        "wanted_saved": WANTED,
        "most_ndcg_lost": MOST_LOST,
        "chosen": chosen,
        "all_sets_by_predictor": pooled,
        "set_can_tell_exact_from_never": {name: low > 0 for name, (low, _) in never.items()},
        "reached_in_every_set": all(bool(found["reached"]) for found in chosen["by_mean"].values()),
        "surely_reached_in_every_set": all(bool(found["surely_reached"]) for found in chosen["by_worst_end"].values()),
    }


def show(name: str, report: Report) -> None:
    """The figures of one set, for reading."""
    never = report["never_embedding_again"]
    print(f"\n{name}: {report['pins']:,} pins, {report['queries']} queries, {report['texts']:,} texts")
    print(f"  changed a round {np.mean(report['changed_by_round']):.1%}; by kind (changes, drift p50 / p95 / max):")
    for kind, found in report["changes"].items():
        print(f"    {kind:16}{found['changes']:6}   " + " / ".join(f"{v:.4f}" for v in found["drift"].values()))
    print(f"  nDCG@20 of exact {report['ndcg@20_exact_by_round'][-1]:.4f}; never embedding again loses {_loss(never)}")
    print(f"  {'predictor':14}{'rho':>6}" + "".join(f"{rule:>44}" for rule in RULES))
    for predictor in report["judged"][RULES[0]]:
        rho = report["rank_correlation_with_true_drift"].get(predictor)
        show_row(predictor, {rule: report["judged"][rule][predictor] for rule in RULES}, rho)


def show_row(predictor: str, found: dict[str, Report], rho: float | None = None) -> None:
    """Saved share and loss of one predictor under each rule."""
    cells = "".join(f"   saves {cell['saved']:6.1%}, loses {_loss(cell)}" for cell in found.values())
    print(f"  {predictor:14}{'' if rho is None else format(rho, '.3f'):>6}{cells}")


def main() -> None:
    """Make the histories, encode them, judge the policies, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=3000, help="pins of each set at most (default 3000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of edits (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--data", type=Path, default=DATA, help="folder with crowdflower/ and homedepot/")
    parser.add_argument("--cache", type=Path, help="file (.npz) that keeps vectors from run to run")
    parser.add_argument("--out", type=Path, default=RESULTS / "materialize_drift.json")
    options = parser.parse_args()
    if options.pins < SMALLEST_CATALOGUE or options.rounds < 1 or options.seed < 0:
        parser.error(f"--pins must be at least {SMALLEST_CATALOGUE}, --rounds at least 1, --seed at least 0")
    if options.cache and options.cache.suffix != ".npz":
        parser.error(f"--cache {options.cache} must end in .npz")
    report = machine("materialize.drift", ("torch", "numpy", "scikit-learn"))
    encoder = CachedEncoder(load_encoder(), options.cache)
    report |= {"pins": options.pins, "rounds": options.rounds, "seed": options.seed, "sets": {}, "not_run": []}
    judgments: dict[str, Judgments] = {}
    for name in options.sets:
        rng = np.random.default_rng([options.seed, 0])
        source = SOURCES[name](options.pins, options.rounds, rng, options.data)
        if source is None:
            print(f"{name}: NOT RUN, it is not in {options.data}")
            report["not_run"].append(name)
            continue
        history = make_history(source, options.rounds, options.seed)
        queries = encoder.encode(list(source.queries))
        experiment = Experiment(history, encoder.encode(list(history.texts)), queries, options.seed)
        judgments[name] = judge(experiment)
        report["sets"][name] = measure(experiment, judgments[name])
        show(name, report["sets"][name])
    report |= {"texts_encoded": encoder.encoded, "encode_seconds": round(encoder.seconds, 1)}
    report["recipe"] = encoder.encoder.recipe.to_json()
    if not judgments:
        raise SystemExit(
            f"Nothing was run: {options.data} holds none of {', '.join(options.sets)}. Add generated to --sets."
        )
    report["answer"] = answer(report["sets"], judgments, options.seed)
    print("\nall sets")
    for predictor in report["answer"]["all_sets_by_predictor"][RULES[0]]:
        show_row(predictor, {rule: report["answer"]["all_sets_by_predictor"][rule][predictor] for rule in RULES})
    verdict = {key: value for key, value in report["answer"].items() if key.endswith("every_set")}
    print(f"\n{WANTED:.0%} saved at under {MOST_LOST} nDCG@20: {verdict}")
    save("materialize_drift", _rounded(report), options.out)


def _loss(found: Report) -> str:
    low, high = found["ndcg_lost_ci"]
    return f"{found['ndcg_lost']:+.4f} [{low:+.4f}, {high:+.4f}]"


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, those of ties averaged."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[places]


def _rounded(value: Any) -> Any:
    """Numbers to 5 digits after the point, as far as the figures go."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
