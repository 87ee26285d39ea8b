"""Does finding candidates by words beside vectors help? Vector, lexical and hybrid retrieval on real judgments.

Run from the checkout's root (a few minutes on 2 cores once the vectors are there):

    .venv/bin/python -m benchmarks.retrieval --queries 500

Every query looks for its pins among all pins of its set, in one space of the embedded store, with the engine, the
words, the fusion and the depth that a search has. A pin is relevant from level 4 on; pins that nobody judged for the
query count as irrelevant. Recall@200 is the share of a query's relevant pins among the first 200, the candidates that
get scored; nDCG@20 (gains 0, 1, 3, 7, 15) is of the retrieval's own order, before anything is scored. The judged pins
of both sets were found by engines that match words, which favours the lexical side. Intervals are 95 %, over queries.
Vectors are those of the packaged model, kept in build/.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine, save
from benchmarks.relevance.data import SETS, load
from benchmarks.relevance.vectors import RememberedEncoder
from embedders.encoder import load_encoder
from embedders.evaluation.intervals import interval, query_draws
from embedders.evaluation.pairs import PairSet
from feature_repo.lexical import encode_blob
from feature_repo.pin_text import DEFAULT_TEMPLATE
from feature_repo.text import canonical_query
from materialize.points import space_spec
from materialize.spaces import Space
from materialize.stores.edge import EdgeStore
from materialize.stores.layout import point_id
from materialize.stores.port import Point
from materialize.words import WORDS, pin_words, query_words
from serving_client.search.retrieval import RETRIEVALS, fused

DEPTH, CUT, RELEVANT = 200, 20, 4
GAINS = np.array([0, 0, 1, 3, 7, 15])
"""By level; 0 is that of a pin that nobody judged."""
SPACE = Space("retrieval", 384, "packaged", "", ("",), DEFAULT_TEMPLATE, {}, words=True)

Figures = dict[str, list[float]]


def judged(pairs: PairSet, limit: int, seed: int) -> dict[str, dict[int, int]]:
    """Canonical query to pin to level, of at most ``limit`` queries that have a relevant pin."""
    found: dict[str, dict[int, int]] = {}
    assert pairs.levels is not None
    for query, pin, level in zip(pairs.queries, pairs.pin_of.tolist(), pairs.levels.tolist(), strict=True):
        of_query = found.setdefault(canonical_query(query), {})
        of_query[pin] = max(level, of_query.get(pin, 0))
    names = sorted(query for query, levels in found.items() if query and max(levels.values()) >= RELEVANT)
    chosen = np.random.default_rng(seed).permutation(len(names))[:limit]
    return {names[place]: found[names[place]] for place in sorted(chosen.tolist())}


def fill(store: EdgeStore, pairs: PairSet, vectors: NDArray[np.float32]) -> dict[str, int]:
    """Write every pin of the set with vector and words; point id to number of the pin."""
    store.create(SPACE.name, space_spec(SPACE))
    points = []
    for number, (fields, vector) in enumerate(zip(pairs.pins, vectors, strict=True)):
        words = pin_words(encode_blob(fields))
        name = point_id(pairs.name, "pins", {"pin_id": str(number)})
        points.append(Point(name, {}, {"vector": vector}, {WORDS: words} if words else {}))
    store.upsert(SPACE.name, points)
    return {point.id: number for number, point in enumerate(points)}


def found_by(store: EdgeStore, query: str, vector: NDArray[np.float32]) -> Mapping[str, list[str]]:
    """Retrieval to the ids that it finds, best first."""
    near = [hit.id for hit in store.search(SPACE.name, vector, DEPTH, with_payload=False)]
    words = query_words(query)
    by_words = store.search(SPACE.name, words, DEPTH, WORDS, with_payload=False) if words else []
    lexical = [hit.id for hit in by_words]
    return {"hybrid": fused([near, lexical])[:DEPTH], "vector": near, "lexical": lexical}


def figures_of(found: Sequence[int], levels: Mapping[int, int]) -> tuple[float, float, float]:
    """Recall@200, recall@20 and nDCG@20 of one query; ``found`` are pins, ``levels`` those that were judged."""
    relevant = {pin for pin, level in levels.items() if level >= RELEVANT}
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    gains = GAINS[[levels.get(pin, 0) for pin in found[:CUT]]]
    ideal = np.sort(GAINS[list(levels.values())])[::-1][:CUT]
    ndcg = (gains * discounts[: len(gains)]).sum() / (ideal * discounts[: len(ideal)]).sum()
    share = len(relevant.intersection(found[:DEPTH])) / len(relevant)
    return share, len(relevant.intersection(found[:CUT])) / min(len(relevant), CUT), float(ndcg)


NAMES = (f"recall@{DEPTH}", f"recall@{CUT}", f"ndcg@{CUT}")


def measure(name: str, limit: int, seed: int, encoder: RememberedEncoder) -> dict[str, Any]:
    """The figures of one set."""
    pairs = load(name)
    queries = judged(pairs, limit, seed)
    texts = [DEFAULT_TEMPLATE.render(fields).text for fields in pairs.pins]
    vectors, asked = encoder.encode(texts), encoder.encode(list(queries))
    values: dict[str, Figures] = {each: {figure: [] for figure in NAMES} for each in RETRIEVALS}
    with tempfile.TemporaryDirectory() as folder:
        store = EdgeStore(Path(folder))
        numbers = fill(store, pairs, vectors)
        began = time.perf_counter()
        for (query, levels), vector in zip(queries.items(), asked, strict=True):
            for each, ids in found_by(store, query, vector).items():
                for figure, value in zip(NAMES, figures_of([numbers[id_] for id_ in ids], levels), strict=True):
                    values[each][figure].append(value)
        seconds = time.perf_counter() - began
        store.close()
    draws = query_draws(len(queries))
    rows = {each: {figure: summary(np.array(got), draws) for figure, got in of.items()} for each, of in values.items()}
    gains = {
        f"hybrid - {each}": {
            figure: summary(np.array(values["hybrid"][figure]) - np.array(values[each][figure]), draws)
            for figure in NAMES
        }
        for each in ("vector", "lexical")
    }
    size = {"pins": len(pairs.pins), "queries": len(queries), "search_seconds": round(seconds, 1)}
    return {"dataset": name, **size, "retrieval": rows, "differences": gains}


def summary(values: NDArray[np.float64], draws: NDArray[Any]) -> dict[str, Any]:
    """Mean over queries and its 95 % interval."""
    low, high = interval(draws @ values / len(values)) or (float("nan"), float("nan"))
    return {"mean": round(float(values.mean()), 4), "ci": [round(low, 4), round(high, 4)]}


def markdown(report: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a table."""
    lines = [f"| set | retrieval | {' | '.join(NAMES)} |", f"|---|---|{'---|' * len(NAMES)}"]
    for one in report:
        for each, figures in {**one["retrieval"], **one["differences"]}.items():
            cells = [f"{got['mean']:.3f} [{got['ci'][0]:.3f}, {got['ci'][1]:.3f}]" for got in figures.values()]
            lines.append(f"| {one['dataset']} | {each} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the sets, print the table in Markdown, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--queries", type=int, default=500, help="at most so many of each set, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    encoder = RememberedEncoder(load_encoder("packaged"))
    figures = [measure(name, options.queries, options.seed, encoder) for name in options.sets]
    print(markdown(figures))
    save("retrieval", machine("retrieval", ("numpy", "qdrant-edge-py", "torch")) | {"figures": figures})


if __name__ == "__main__":
    main()
