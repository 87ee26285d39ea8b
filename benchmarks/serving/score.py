"""Scores in milliseconds: 500 and 100 candidates beside the naive way, a new query, related pins, features.

Run from the checkout's root (about two minutes on 2 cores, and five more once to make the catalogue):

    .venv/bin/python -m benchmarks.serving.score

A small run: ``--pins 2000 --requests 40``. One process, one thread, and all ways take turns request by request. Every
request asks for other pins, drawn from the whole catalogue, with a query of its search log. ``first`` is a client that
has read nothing yet (most pins of a request are then read from the store's files), ``kept`` one that has read every pin
once; for features that is a part of the catalogue. The collector is settled as in the service (see
:mod:`serving_client.collector`) but where ``unsettled`` is said. The naive way is :mod:`benchmarks.serving.naive`: the
same rows through Feast's ``get_online_features``, rank-bm25 for each field, a head in torch. ``new query`` is what a
query costs that is not in the cache, beside the same request with the query cached; the packaged model encodes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.machine import machine, peak_mb, save
from benchmarks.serving.catalogue import catalogue_parser, repository
from benchmarks.serving.naive import NaiveScorer
from embedders.bundle import StudentBundle
from feature_repo.paths import RepoPaths
from feature_repo.text import canonical_query
from materialize.releases import current_release
from serving_client import PinClient
from serving_client.collector import settled

PACKAGES = ("feast", "rank-bm25", "torch", "qdrant-edge-py", "numpy")
SIZES = (500, 100)
SEED = 7
SERVICE = "pin_content_v1"
QUERIES = 200
FEATURE_PINS = 4_000
"""Pins whose features are asked for."""
ROUNDS = 4
NAIVE_EVERY = 8
"""One request in so many is answered the naive way, too."""
BOUNDS = {
    "score 500, kept": (8.0, 25.0),
    "score 100, kept": (3.0, None),
    "new query, extra": (6.0, None),
    "related pins": (10.0, None),
    "features of 100 pins, kept": (3.0, None),
}
"""Milliseconds that p50 and p99 may take."""

Times = dict[str, list[float]]


class World:
    """What the requests are drawn from."""

    def __init__(self, paths: RepoPaths, requests: int) -> None:
        import pyarrow.parquet as pq

        self.paths, self.requests = paths, requests
        self.pins: list[str] = pq.read_table(paths.raw / "pins", columns=["pin_id"])["pin_id"].to_pylist()
        log = pq.read_table(paths.raw / "search_log", columns=["query"])["query"].to_pylist()
        self.queries = list(dict.fromkeys(canonical_query(query) for query in log[: 50 * QUERIES]))[:QUERIES]
        self.fresh = list(dict.fromkeys(canonical_query(query) for query in log[50 * QUERIES :]))
        self.fresh = [query for query in self.fresh if query not in set(self.queries)]

    def draw(self, size: int, count: int, seed: int, among: int | None = None) -> Iterator[tuple[str, list[str]]]:
        """Queries with ``size`` random pins each, of the first ``among``."""
        rng = np.random.default_rng([SEED, seed])
        for _ in range(count):
            chosen = rng.choice(min(among or len(self.pins), len(self.pins)), size, replace=False)
            yield self.queries[rng.integers(len(self.queries))], [self.pins[row] for row in chosen]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50_ms": round(float(p50) * 1e3, 2), "p99_ms": round(float(p99) * 1e3, 2), "requests": len(seconds)}


def timed(call: Callable[..., Any], *arguments: Any, **named: Any) -> float:
    """Seconds of one call."""
    start = perf_counter()
    call(*arguments, **named)
    return perf_counter() - start


def keep_everything(client: PinClient, world: World) -> None:
    """Read every pin once and embed every query, as a service has after a while."""
    client.embed_queries(world.queries)
    for start in range(0, len(world.pins), 1000):
        client.score(world.queries[0], world.pins[start : start + 1000])


def first_reads(world: World, size: int, count: int) -> list[float]:
    """Requests of a client that has read nothing but what they read themselves."""
    with PinClient(world.paths.root, device="cpu") as client:
        client.embed_queries(world.queries)
        client.score(world.queries[0], world.pins[:10])
        return [timed(client.score, query, pins) for query, pins in world.draw(size, count, size)]


def measure_scores(client: PinClient, naive: NaiveScorer, world: World, report: dict[str, Any]) -> None:
    """Scores of both ways, request by request."""
    vectors = dict(zip(world.queries, client.embed_queries(world.queries).vectors, strict=True))
    for size in SIZES:
        times: Times = {"kept": [], "kept, explained": [], "naive": []}
        naive.seconds = dict.fromkeys(naive.seconds, 0.0)
        for number, (query, pins) in enumerate(world.draw(size, world.requests, size + 1)):
            times["kept"].append(timed(client.score, query, pins))
            if number % NAIVE_EVERY == 0:
                times["kept, explained"].append(timed(client.score, query, pins, explain=True))
                times["naive"].append(timed(naive.score, query, vectors[query], pins))
        report |= {f"score {size}, {way}": milliseconds(seconds) for way, seconds in times.items()}
        count = len(times["naive"])
        report[f"score {size}, naive"]["parts_ms"] = {
            part: round(1e3 * seconds / count, 2) for part, seconds in naive.seconds.items()
        }


def measure_collector(client: PinClient, world: World, report: dict[str, Any]) -> None:
    """The collector as it is and settled, in turns."""
    times: Times = {"score 500, kept, unsettled": [], "score 500, kept, settled": []}
    for turn in range(ROUNDS):
        for way, seconds in times.items():
            with settled() if way.endswith(", settled") else nullcontext():
                drawn = world.draw(500, world.requests // ROUNDS, 10 + turn)
                seconds += [timed(client.score, *request) for request in drawn]
    report |= {name: milliseconds(seconds) for name, seconds in times.items()}


def measure_rest(client: PinClient, naive: NaiveScorer, world: World, report: dict[str, Any]) -> None:
    """New queries, related pins, features."""
    times: Times = {"new query": [], "the same, cached": []}
    drawn = world.draw(100, min(world.requests, len(world.fresh)), 3)
    for query, (_, pins) in zip(world.fresh, drawn, strict=False):
        for seconds in times.values():
            seconds.append(timed(client.score, query, pins))
    report |= {name: milliseconds(seconds) for name, seconds in times.items()}
    extra = np.array(times["new query"]) - np.array(times["the same, cached"])
    report["new query, extra"] = milliseconds(extra.tolist())
    related = [pins[0] for _, pins in world.draw(1, world.requests, 4)]
    report["related pins"] = milliseconds([timed(client.related_pins, pin) for pin in related])
    measure_features(client, naive, world, report)


def measure_features(client: PinClient, naive: NaiveScorer, world: World, report: dict[str, Any]) -> None:
    """Features of 100 pins, straight and through Feast; both have read the pins before, but for ``first``."""
    columns = client.pin_features(world.pins[:1], SERVICE).columns
    names = [column.replace("__", ":") for column in columns]
    known = world.pins[:FEATURE_PINS]
    first = [
        timed(client.pin_features, known[start : start + 100], SERVICE) for start in range(0, len(known) - 99, 100)
    ]
    for start in range(0, len(known), 1000):
        naive.features(names, known[start : start + 1000])
    times: Times = {"features of 100 pins, first": first, "features of 100 pins, kept": []}
    times["features of 100 pins, Feast"] = []
    for number, (_, pins) in enumerate(world.draw(100, world.requests, 5, FEATURE_PINS)):
        times["features of 100 pins, kept"].append(timed(client.pin_features, pins, SERVICE))
        if number % NAIVE_EVERY == 0:
            times["features of 100 pins, Feast"].append(timed(naive.features, names, pins))
    report |= {name: milliseconds(seconds) | {"features": len(names)} for name, seconds in times.items()}


def print_table(report: dict[str, Any]) -> None:
    """The figures as Markdown, with the bounds and the ratios to the naive way."""
    print(f"{report['pins']:,} pins, {report['requests']} requests, {report['cpu']}\n")
    print("| | p50 ms | p99 ms | bound p50, p99 | times the naive way |\n|---|---|---|---|---|")
    for name, figures in report["figures"].items():
        bounds = ", ".join("-" if each is None else f"{each:g}" for each in BOUNDS.get(name, ())) or ""
        ratio = report["ratios"].get(name, "")
        print(f"| {name} | {figures['p50_ms']} | {figures['p99_ms']} | {bounds} | {ratio} |")


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """How many times as long the naive way takes, by p50."""
    beside = {f"score {size}, {way}": f"score {size}, naive" for size in SIZES for way in ("first", "kept")}
    beside["features of 100 pins, kept"] = "features of 100 pins, Feast"
    return {name: round(figures[other]["p50_ms"] / figures[name]["p50_ms"], 1) for name, other in beside.items()}


def main() -> None:
    """Measure, print the table, write the JSON report."""
    parser = catalogue_parser(__doc__)
    parser.add_argument("--requests", type=int, default=400, help="requests of each kind (default 400)")
    parser.add_argument("--out", type=Path, help="the JSON report; default results/serving_score.json")
    options = parser.parse_args()
    report = machine("serving.score", PACKAGES)
    paths = repository(options.pins, options.folder)
    world = World(paths, options.requests)
    release = current_release(paths)
    assert release is not None
    assert release.bundle is not None
    naive = NaiveScorer(paths, StudentBundle.load(paths.bundles / release.bundle))
    figures: dict[str, Any] = {}
    for size in SIZES:
        figures[f"score {size}, first"] = milliseconds(first_reads(world, size, max(10, options.requests // 10)))
    with PinClient(paths.root, device="cpu") as client:
        report["keep_everything_s"] = round(timed(keep_everything, client, world), 1)
        measure_collector(client, world, figures)
        with settled():
            measure_scores(client, naive, world, figures)
            measure_rest(client, naive, world, figures)
    report |= {"pins": options.pins, "requests": options.requests, "figures": figures, "ratios": ratios(figures)}
    report["peak_memory_mb"] = peak_mb()
    print_table(report)
    save("serving_score", report, options.out)


if __name__ == "__main__":
    main()
