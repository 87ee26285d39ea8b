"""Hit rate of the query cache by its size, on real and made streams, and after a switch to another query tower.

Run from the checkout's root (two minutes on 2 cores):

    .venv/bin/python -m benchmarks.query_cache

The cache is :class:`~serving_client.queries.query_cache.QueryCache` as the client has it, asked one query at a time in
its canonical form; the encoder at its edge gives zeros in 384 dimensions and counts. Streams:

* ``log``: ten minutes of one night of a web search engine, in the order of time; a query with several clicks of one
  person is one search.
* ``counts``: a month of the same engine as counts by query, a part of it, and of clicks rather than searches. When each
  was asked is unknown: the stream is all of them in a random order (seeded), which has no trends and no sessions.
* ``generated``: the log of the generated catalogue in the order of time. Its curve is the generator's.

The two real ones need ``../shared/data/sogou_queries``. The ceiling is the share of searches whose query was asked
before: more no cache that begins empty can have, whatever its size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.machine import ROOT, machine, save
from feature_repo.text import canonical_query, query_digest
from serving_client.queries.micro_batch import Encode
from serving_client.queries.query_cache import CacheStats, QueryCache, entry_bytes

DATA = ROOT.parent / "shared" / "data" / "sogou_queries"
PICTURE = ROOT / "docs" / "plots" / "query_cache.png"
DIMENSION = 384
TOWER = "tower"
GOAL = 0.85
SEED = 7
SIZES = {
    "log": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    "counts": (4.0, 16.0, 64.0, 128.0, 256.0),
    "generated": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
}
"""Megabytes (2^20 bytes)."""
HEADS = (0, 1_000, 10_000, 50_000)
AFTER = (10_000, 100_000)
"""Searches after a switch."""
DEFAULT_MB = 64.0


class Counting:
    """Stands for the query tower."""

    def __init__(self) -> None:
        self.encoded = 0

    def __call__(self, queries: list[str]) -> NDArray[np.float16]:
        """Zeros, one row each."""
        self.encoded += len(queries)
        return np.zeros((len(queries), DIMENSION), np.float16)


def search_log(path: Path) -> list[str]:
    """Canonical queries of the log in the order of time, each person's repeats of one query left out."""
    table = pq.read_table(path, columns=["user", "query"])
    pairs = dict.fromkeys(zip(table["user"].to_pylist(), map(canonical_query, table["query"].to_pylist()), strict=True))
    return [query for _, query in pairs if query]


def counted(path: Path) -> list[str]:
    """Every counted query as often as it was counted, in a random order."""
    table = pq.read_table(path, columns=["query", "count"])
    queries = [canonical_query(query) for query in table["query"].to_pylist()]
    numbers = np.repeat(np.arange(len(queries)), table["count"].to_numpy())
    np.random.default_rng(SEED).shuffle(numbers)
    return [queries[number] for number in numbers.tolist() if queries[number]]


def generated(pins: int) -> list[str]:
    """Canonical queries of the requests of the generated log, in the order of time."""
    from pinfeather.generate import generate_catalogue

    with tempfile.TemporaryDirectory(prefix="query_cache-") as folder:
        generate_catalogue(Path(folder), pins)
        columns = ["request_id", "query", "event_timestamp"]
        table = pq.read_table(Path(folder) / "search_log", columns=columns).sort_by("event_timestamp")
    asked = dict(zip(table["request_id"].to_pylist(), table["query"].to_pylist(), strict=True))
    return [canonical_query(query) for query in asked.values()]


def replay(cache: QueryCache, stream: Sequence[str], encode: Encode) -> CacheStats:
    """What the cache counts while it is asked for each query of ``stream``."""
    before = cache.stats

    def load() -> Encode:
        return encode

    for query in stream:
        cache.vectors(TOWER, (query,), load)
    return cache.stats.since(before)


def by_size(stream: Sequence[str], megabytes: float) -> dict[str, Any]:
    """Hit rates of a cache of that size, over the whole stream and over its second half."""
    cache, encode, middle = QueryCache(round(megabytes * 2**20)), Counting(), len(stream) // 2
    first = replay(cache, stream[:middle], encode)
    second = replay(cache, stream[middle:], encode)
    misses = first.misses + second.misses
    if encode.encoded != misses:
        raise SystemExit(f"{encode.encoded} queries were encoded for {misses} misses")
    return {
        "mb": megabytes,
        "room_for": cache.max_bytes // _entry(),
        "entries": len(cache),
        "evictions": first.evictions + second.evictions,
        "hit_rate": _share(len(stream) - misses, len(stream)),
        "hit_rate_of_second_half": round(second.hit_rate, 4),
    }


def _entry() -> int:
    return entry_bytes(np.zeros(DIMENSION, np.float16))


def ceiling(stream: Sequence[str]) -> float:
    """Share of the searches whose query was asked before in ``stream``."""
    return _share(len(stream) - len(set(stream)), len(stream))


def ceiling_of_second_half(stream: Sequence[str]) -> float:
    """The same of the searches of the second half, asked before in either half."""
    middle = len(stream) // 2
    new = len(set(stream[middle:]) - set(stream[:middle]))
    return _share(len(stream) - middle - new, len(stream) - middle)


def _share(part: int, whole: int) -> float:
    return round(part / max(whole, 1), 4)


def measure(stream: Sequence[str], sizes: Sequence[float]) -> dict[str, Any]:
    """One stream under caches of several sizes."""
    rows = [by_size(stream, size) for size in sizes]
    enough = [row["mb"] for row in rows if row["hit_rate"] >= GOAL]
    late = [row["mb"] for row in rows if row["hit_rate_of_second_half"] >= GOAL]
    return {
        "searches": len(stream),
        "distinct": len(set(stream)),
        "ceiling": ceiling(stream),
        "ceiling_of_second_half": ceiling_of_second_half(stream),
        "sizes": rows,
        "smallest_mb_with_85_percent": min(enough, default=None),
        "smallest_mb_with_85_percent_in_second_half": min(late, default=None),
    }


def head_order(stream: Sequence[str]) -> list[str]:
    """Distinct queries, the most asked first, then in the order of their texts."""
    queries, counts = np.unique(np.array(stream, dtype=object), return_counts=True)
    return [str(query) for query in queries[np.argsort(-counts, kind="stable")]]


def after_switch(stream: Sequence[str]) -> list[dict[str, Any]]:
    """A new query tower in the middle of ``stream``: the hit rate of the next searches, by how many of the head of the
    first half the cache was warmed with. ``warm`` None: there was no switch.
    """
    middle = len(stream) // 2
    head = head_order(stream[:middle])
    rows = []
    for count in (*HEADS, None):
        cache = QueryCache(round(DEFAULT_MB * 2**20))
        if count is None:
            replay(cache, stream[:middle], Counting())
        else:
            digests = [query_digest(query) for query in head[:count]]
            cache.warm(TOWER, digests, np.zeros((len(digests), DIMENSION), np.float16))
        row: dict[str, Any] = {"warm": count}
        misses = done = 0
        for searches in AFTER:
            misses += replay(cache, stream[middle + done : middle + searches], Counting()).misses
            row[f"hit_rate_of_next_{searches}"] = _share(searches - misses, searches)
            done = searches
        rows.append(row)
    return rows


def draw(report: dict[str, Any], path: Path) -> None:
    """Hit rate by size, and after a switch."""
    from pinfeather.plots import BLUE, GREEN, GREY, ORANGE, STYLE, load_pyplot, save_png

    plt = load_pyplot()
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), width_ratios=(3, 2))
        for (name, found), colour in zip(report["streams"].items(), (BLUE, ORANGE, GREEN), strict=False):
            sizes = [row["mb"] for row in found["sizes"]]
            left.plot(sizes, [row["hit_rate"] for row in found["sizes"]], "o-", color=colour, label=name)
            left.axhline(found["ceiling"], color=colour, linestyle=":", linewidth=1)
        left.axhline(GOAL, color=GREY, linewidth=1)
        left.annotate("85 %", (0.25, GOAL), xytext=(0, 3), textcoords="offset points", color=GREY)
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        left.set(title="Hit rate by size; dotted: searches asked before", xlabel="MB", ylim=(0, 1))
        left.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        left.legend(frameon=False, loc="center right")
        for searches, colour, shift in zip(AFTER, (BLUE, ORANGE), (-0.2, 0.2), strict=True):
            rows = report["after_switch"]
            rates = [row[f"hit_rate_of_next_{searches}"] for row in rows]
            bars = right.bar(
                np.arange(len(rows)) + shift, rates, 0.4, color=colour, label=f"next {searches:,} searches"
            )
            right.bar_label(bars, [f"{rate:.0%}" for rate in rates], fontsize=8, color=GREY)
        names = ["no switch" if row["warm"] is None else f"{row['warm']:,}" for row in report["after_switch"]]
        right.set_xticks(range(len(names)), names)
        right.set(title="After a switch, by promote --warm N", ylim=(0, 1))
        right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        right.legend(frameon=False, loc="upper left")
        save_png(figure, path)
        plt.close(figure)


def main() -> None:
    """Reads the options, prints what was found, saves it and draws it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--data", type=Path, default=DATA, help="the folder sogou_queries; without it only the last stream"
    )
    parser.add_argument("--pins", type=int, default=20_000, help="of the generated catalogue")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    report = machine("query_cache") | {
        "entry_bytes": _entry(),
        "dimension": DIMENSION,
        "pins": options.pins,
        "seed": SEED,
        "streams": {},
    }
    streams: dict[str, list[str]] = {}
    if options.data.is_dir():
        streams["log"] = search_log(options.data / "log_sample_10k.parquet")
        streams["counts"] = counted(options.data / "query_counts.parquet")
    streams["generated"] = generated(options.pins)
    for name, stream in streams.items():
        report["streams"][name] = found = measure(stream, SIZES[name])
        print(f"{name}: {found['searches']:,} searches, {found['distinct']:,} queries, ceiling {found['ceiling']:.1%}")
        for row in found["sizes"]:
            print(f"  {row['mb']:g} MB: {row['hit_rate']:.1%}, second half {row['hit_rate_of_second_half']:.1%}")
    report["after_switch"] = after_switch(streams.get("counts", streams["generated"]))
    for row in report["after_switch"]:
        print(row)
    draw(report, options.picture)
    save("query_cache", report, options.out)


if __name__ == "__main__":
    main()
