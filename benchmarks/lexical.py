"""BM25 and text match beside rank-bm25, on one core.

Run from the checkout's root (10 seconds on 2 cores; ``--catalogue 5000 --rounds 20`` for a quick look):

    .venv/bin/python -m benchmarks.lexical

The text is the CrowdFlower pairs in ``../shared/data`` if they are there, else made up. A pin has a title, a
description, a link, up to 10 board titles and up to 20 engaged queries, all of real pairs. The statistics are of the
whole catalogue. Each round takes one query and 500 candidates, its own judged pins among them; ours gets the 500
blobs and the tokens of the query, rank-bm25 its whole index of each field and the numbers of the candidates. Both
score the same 5 fields, in one process bound to one core. Scope of "ours": decoded tokens to scores, as in the
target; decoding and the complete feature matrix (6 fields) are timed beside it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from rank_bm25 import BM25Okapi

from benchmarks.machine import ROOT, machine, save
from feature_repo.lexical import (
    CandidateTokens,
    LexicalStatistics,
    bm25_scores,
    decode_blobs,
    encode_blob,
    lexical_features,
    query_ids,
    text_match,
    tokenize,
)
from feature_repo.pin_text import PinFields

PAIRS = ROOT.parent / "shared" / "data" / "crowdflower" / "dev_pairs.parquet"
FIELDS = ("title", "description", "link", "boards", "queries")
SEED = 20


@dataclass
class Texts:
    """Pairs of text the catalogue is made of; ``group`` says which query a row belongs to."""

    source: str
    queries: list[str]
    group: npt.NDArray[np.int64]
    titles: list[str]
    descriptions: list[str | None]


def crowdflower() -> Texts:
    """The public pairs, as in the shared data."""
    import pyarrow.parquet as pq

    table = pq.read_table(PAIRS, columns=["query", "title", "description_text"])
    queries, group = np.unique(table["query"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    descriptions = [text or None for text in table["description_text"].to_pylist()]
    return Texts("CrowdFlower dev_pairs", queries.tolist(), group, table["title"].to_pylist(), descriptions)


def synthetic() -> Texts:
    """Made-up words by a Zipf law, in the sizes of the real pairs."""
    rng = np.random.default_rng(SEED)
    vocabulary = np.array([f"word{number}" for number in range(20_000)])

    def text(length: int) -> str:
        return " ".join(vocabulary[np.minimum(rng.zipf(1.3, length), len(vocabulary)) - 1])

    queries, rows = [text(int(rng.integers(1, 6))) for _ in range(200)], 8_000
    descriptions = [text(int(rng.integers(5, 150))) if rng.random() > 0.24 else None for _ in range(rows)]
    titles = [text(int(rng.integers(3, 15))) for _ in range(rows)]
    return Texts("synthetic", queries, rng.integers(0, len(queries), rows), titles, descriptions)


def catalogue(texts: Texts, size: int) -> tuple[list[PinFields], npt.NDArray[np.int64]]:
    """``size`` pins, and the query group of each; the rows repeat with other boards and queries beyond their number."""
    rng = np.random.default_rng(SEED)
    groups = texts.group[np.arange(size) % len(texts.titles)]
    pins = []
    for number in range(size):
        row = number % len(texts.titles)
        boards = rng.integers(0, len(texts.queries), rng.integers(0, 11))
        engaged = rng.integers(0, len(texts.queries), rng.integers(0, 21))
        pins.append(
            PinFields(
                title=texts.titles[row],
                description=texts.descriptions[row],
                caption=None,
                link_title=texts.titles[int(rng.integers(len(texts.titles)))] if rng.random() < 0.7 else None,
                link_description=None,
                board_titles=tuple(texts.queries[board] for board in boards),
                engaged_queries=tuple(texts.queries[query] for query in engaged),
            )
        )
    return pins, groups


def field_texts(pin: PinFields) -> dict[str, str]:
    """The text of each benchmarked field, as the blob joins it."""
    return {
        "title": pin.title or "",
        "description": pin.description or "",
        "link": pin.link_title or "",
        "boards": " ".join(pin.board_titles),
        "queries": " ".join(pin.engaged_queries),
    }


class RankBM25:
    """rank-bm25 over the pins that have a field, one index a field."""

    def __init__(self, pins: list[PinFields]) -> None:
        tokens = [{name: tokenize(text)[:512] for name, text in field_texts(pin).items()} for pin in pins]
        self.place: dict[str, dict[int, int]] = {}
        self.index = {}
        for name in FIELDS:
            rows = [row for row, pin in enumerate(tokens) if pin[name]]
            self.place[name] = {row: place for place, row in enumerate(rows)}
            self.index[name] = BM25Okapi([tokens[row][name] for row in rows])

    def places(self, rows: npt.NDArray[np.int64]) -> dict[str, list[int]]:
        """Document numbers of the candidates in each index, those without the field left out."""
        return {name: [self.place[name][row] for row in rows.tolist() if row in self.place[name]] for name in FIELDS}

    def scores(self, query: list[str], places: dict[str, list[int]]) -> list[list[float]]:
        """Scores per field over the candidates that have it."""
        return [self.index[name].get_batch_scores(query, places[name]) for name in FIELDS]


class Clock:
    """Times calls by name, in milliseconds."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def call(self, name: str, function: Callable[..., Any], *given: Any) -> Any:
        """The result of ``function(*given)``, timed once."""
        start = perf_counter()
        result = function(*given)
        self.times.setdefault(name, []).append(1e3 * (perf_counter() - start))
        return result

    def table(self) -> dict[str, dict[str, float]]:
        """Median and 99th percentile of each name."""
        return {
            name: {"p50_ms": round(float(np.median(ms)), 4), "p99_ms": round(float(np.quantile(ms, 0.99)), 4)}
            for name, ms in self.times.items()
        }


def compare(
    texts: Texts,
    groups: npt.NDArray[np.int64],
    blobs: list[bytes],
    statistics: LexicalStatistics,
    peer: RankBM25,
    rounds: int,
) -> tuple[Clock, float, float]:
    """Times, greatest difference from rank-bm25, and mean tokens of a query."""
    rng, clock, worst, lengths = np.random.default_rng(SEED), Clock(), 0.0, [0]
    for number in range(-3, rounds):  # three rounds to warm up
        if number == 0:
            clock, lengths = Clock(), []
        group = int(rng.integers(len(texts.queries)))
        query, words = texts.queries[group], tokenize(texts.queries[group])
        own = np.flatnonzero(groups == group)[:250]
        others = rng.choice(len(blobs), 500 + len(own), replace=False)
        rows = np.concatenate([own, others[~np.isin(others, own)]])[:500]
        chosen, places = [blobs[row] for row in rows], peer.places(rows)
        lengths.append(len(words))
        ids = clock.call("tokenize the query", query_ids, query)
        tokens = clock.call("decode 500 blobs", decode_blobs, chosen, FIELDS)
        clock.call("BM25 (lucene)", bm25_scores, ids, tokens, statistics)
        clock.call("text match", text_match, ids, tokens)
        clock.call("BM25 (lucene) + text match", both_scores, ids, tokens, statistics)
        scores = clock.call("BM25 (okapi)", bm25_scores, ids, tokens, statistics, "okapi")
        clock.call("lexical_features, blobs to matrix", lexical_features, query, chosen, statistics)
        expected = clock.call("rank-bm25", peer.scores, words, places)
        for column, theirs in enumerate(expected):
            ours = scores[:, column][~np.isnan(scores[:, column])]
            worst = max(worst, float(np.abs(ours - theirs).max()))
    return clock, worst, float(np.mean(lengths))


def both_scores(
    ids: npt.NDArray[np.uint32], tokens: CandidateTokens, statistics: LexicalStatistics
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """What the target of 1 ms is about."""
    return bm25_scores(ids, tokens, statistics), text_match(ids, tokens)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=int, default=20_000, help="pins in the catalogue (at least 1000)")
    parser.add_argument("--rounds", type=int, default=200, help="queries timed")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default results/lexical.json")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    texts = crowdflower() if PAIRS.is_file() else synthetic()
    pins, groups = catalogue(texts, max(options.catalogue, 1000))
    start = perf_counter()
    blobs = [encode_blob(pin) for pin in pins]
    encode_seconds, start = perf_counter() - start, perf_counter()
    statistics = LexicalStatistics.fit(blobs)
    fit_seconds = perf_counter() - start
    clock, worst, query_length = compare(texts, groups, blobs, statistics, RankBM25(pins), options.rounds)

    table = clock.table()
    both, peer = table["BM25 (lucene) + text match"], table["rank-bm25"]
    report = {
        **machine("lexical", ("numpy", "rank-bm25")),
        "text": texts.source,
        "catalogue": len(pins),
        "candidates": 500,
        "fields": FIELDS,
        "rounds": options.rounds,
        "seed": SEED,
        "tokens_per_query": round(query_length, 2),
        "tokens_per_pin": round(int(statistics.tokens[-1]) / len(pins), 1),
        "vocabulary": len(statistics.vocabulary),
        "times": table,
        "rank_bm25_over_ours_p50": round(peer["p50_ms"] / table["BM25 (okapi)"]["p50_ms"], 1),
        "rank_bm25_over_ours_with_match_p50": round(peer["p50_ms"] / both["p50_ms"], 1),
        "max_abs_difference_okapi": worst,
        "encode_microseconds_per_pin": round(1e6 * encode_seconds / len(pins), 1),
        "fit_seconds": round(fit_seconds, 2),
        "fit_seconds_per_100k_pins": round(1e5 * fit_seconds / len(pins), 2),
    }
    print(f"500 candidates x 5 fields, {texts.source}, catalogue of {len(pins):,} pins, {options.rounds} queries")
    for name, row in table.items():
        print(f"{name:36} p50 {row['p50_ms']:8.3f} ms   p99 {row['p99_ms']:8.3f} ms")
    print(f"rank-bm25 / ours (okapi) {report['rank_bm25_over_ours_p50']} x; greatest difference {worst:.1e}")
    print(f"encode {report['encode_microseconds_per_pin']} us a pin; fit {fit_seconds:.2f} s for {len(pins):,} pins")
    save("lexical", report, options.out)


if __name__ == "__main__":
    main()
