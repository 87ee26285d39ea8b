"""Table (e): what each group of the student's features is worth, on both sets.

Run from the checkout's root (about 10 minutes on 2 cores):

    .venv/bin/python -m benchmarks.relevance.features

The head (student v1: frozen vectors of the packaged model, lexical features) is fitted anew with each group left out,
and on each group alone, on the same pairs; ``--size cpu`` takes 12,000 training pairs a set, ``full`` all of them. Both
sets have no search log, so engagement is judged on a generated catalogue by ``benchmarks.relevance.sources``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.relevance import data
from benchmarks.relevance.command import finish, parser, tell
from benchmarks.relevance.scorers import Prepared, fitted_head, judged_rows, packaged
from embedders.encoder import Encoder
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.pairs import PairSet
from embedders.relevance import TOWER_PRODUCT
from feature_repo.lexical import LEXICAL_FIELDS

PAIRS = {"cpu": 12_000, "full": None}
ALL = "all features"
FIGURES = ("ndcg@20", "auroc_4", "accuracy")


def groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Columns of each group of features; a column that says something of two groups is in both."""
    products = [name for name in names if name.startswith(TOWER_PRODUCT)]
    bm25 = [name for name in names if name.startswith("bm25_")]
    words = [name for name in names if name.startswith(("match_", "weighted_match", "phrase_"))]
    title = ["bm25_title", "match_title", "phrase_title", "cosine_and_title_match", "title_tokens", "no_title"]
    query = ["query_tokens", "query_rarity", "query_rarity_unmatched"]
    lexical = [
        *bm25,
        *words,
        "title_tokens",
        *query,
        "cosine_and_title_match",
        *(f"no_{each}" for each in LEXICAL_FIELDS),
    ]
    members: Mapping[str, Sequence[str]] = {
        "towers (cosine and products)": ["cosine", "cosine_and_title_match", "no_vector", *products],
        "tower products": products,
        "lexical (BM25, matches, query)": lexical,
        "BM25": bm25,
        "word and phrase matches": [*words, "cosine_and_title_match", "query_rarity_unmatched"],
        "title": title,
        "query (length, rarity)": query,
    }
    place = {name: column for column, name in enumerate(names)}
    return {group: sorted(place[name] for name in set(each)) for group, each in members.items()}


def table(
    splits: Sequence[tuple[PairSet, PairSet]],
    encoder: Encoder | None = None,
    pairs: int | None = None,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """``rows`` of the head with all features, without each group, and with the towers or the lexical group alone."""
    rows: list[dict[str, Any]] = []
    encoder = encoder or packaged()
    for train, judge in splits:
        train = train if pairs is None else data.of_queries(train, pairs)
        prepared = Prepared.of(train, judge, encoder)
        new = judged_rows(judge, list(_answers(prepared)), (ALL,), samples)
        tell(new, FIGURES)
        rows += [{**row, "train_pairs": len(train)} for row in new]
    return {"rows": rows}


def _answers(prepared: Prepared) -> Any:
    names, levels = prepared.train_features.names, prepared.train.require_levels()
    everything = set(range(len(names)))
    found = groups(names)
    choices = {ALL: sorted(everything)}
    choices |= {f"without {group}": sorted(everything - set(columns)) for group, columns in found.items()}
    choices |= {
        f"only {group}": found[group] for group in ("towers (cosine and products)", "lexical (BM25, matches, query)")
    }
    for name, columns in choices.items():
        yield fitted_head(name, prepared.train_features, levels, prepared.judge_features, columns)


def main() -> None:
    """Fit, judge, print, write the JSON."""
    options = parser(__doc__).parse_args()
    finish("features", options, table([data.split(name) for name in data.SETS], pairs=PAIRS[options.size]))


if __name__ == "__main__":
    main()
