"""The service under load: a second process sends requests at fixed times, whether or not those before are answered.

Run from the checkout's root (about four minutes on 2 cores, and five more once to make the catalogue):

    .venv/bin/python -m benchmarks.serving.http

A short run: ``--seconds 10``. ``score`` asks for the scores of 100 random pins to a query that is in the cache;
``score, 15 % new`` does so, but 15 of 100 queries were never asked before; ``related`` asks for pins like a random one.
The load begins when the service has read ahead the rows of all pins that it keeps. Latencies count from the scheduled
time of each request (:mod:`benchmarks.serving.load`). Service and load share the cores of one machine, and talk over
its loopback interface only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import conclude, machine
from benchmarks.serving.catalogue import catalogue_parser, repository
from benchmarks.serving.service import CHECKOUT, Service, serving
from feature_repo.paths import RepoPaths
from feature_repo.text import canonical_query

PACKAGES = ("fastapi", "uvicorn", "qdrant-edge-py", "numpy")
SEED = 11
CANDIDATES = 100
QUERIES = 500
"""Distinct queries that are in the cache."""
NEW = 0.15
WARM_SECONDS = 3.0
P99_MS = 100.0
"""What a p99 may be at most."""
READ_AHEAD_SECONDS = 2.0
"""A service that has read no further row for so long is done with it."""
GROWTH = 1.1
"""What the memory at the end may be of that at the beginning, of the whole run."""


class Requests:
    """Bodies of requests, drawn from the whole catalogue."""

    def __init__(self, paths: RepoPaths) -> None:
        import pyarrow.parquet as pq

        self.pins: list[str] = pq.read_table(paths.raw / "pins", columns=["pin_id"])["pin_id"].to_pylist()
        log = pq.read_table(paths.raw / "search_log", columns=["query"])["query"].to_pylist()
        self.queries = list(dict.fromkeys(canonical_query(query) for query in log))[:QUERIES]
        self._rng = np.random.default_rng(SEED)
        self._unseen = 0

    def score(self, count: int, new: float = 0.0) -> Iterator[dict[str, Any]]:
        """Requests for scores; a share ``new`` of the queries is asked once only."""
        for _ in range(count):
            query = self.queries[self._rng.integers(len(self.queries))]
            if self._rng.random() < new:
                self._unseen += 1
                query = f"{query} {self._unseen}"
            chosen = self._rng.choice(len(self.pins), CANDIDATES, replace=False)
            yield {"query": query, "pin_ids": [self.pins[row] for row in chosen]}

    def related(self, count: int) -> Iterator[dict[str, Any]]:
        """Requests for related pins."""
        for row in self._rng.integers(len(self.pins), size=count):
            yield {"pin_id": self.pins[row], "limit": 10}


def wait_for_rows(service: Service) -> int:
    """Wait until the service has read ahead what it will; how many pins that are."""
    pins, before = 0, -1
    while pins > before:
        before = pins
        time.sleep(READ_AHEAD_SECONDS)
        with urllib.request.urlopen(f"{service.url}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        pins = int(float(next(line for line in lines if line.startswith("pinfeather_read_ahead_pins ")).split()[1]))
    return pins


def load(service: Service, path: str, bodies: Iterator[dict[str, Any]], rate: float, seconds: float) -> dict[str, Any]:
    """What a second process saw of the service under these requests."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(body) + "\n" for body in bodies)
        file.flush()
        before, cpu = service.memory_mib(), service.cpu_seconds()
        schedule = ["--rate", str(rate), "--seconds", str(seconds)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving.load", service.url + path, file.name, *schedule],
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            check=True,
        )
    report: dict[str, Any] = json.loads(done.stdout)
    report["service_cpu_ms_a_request"] = round((service.cpu_seconds() - cpu) / report["requests"] * 1e3, 2)
    return report | {"memory_mib": [before, service.memory_mib()]}


def run(paths: RepoPaths, seconds: float) -> dict[str, Any]:
    """All cases against one service, one after the other."""
    requests = Requests(paths)
    with serving(paths.root) as service:
        ahead = wait_for_rows(service)
        for start in range(0, len(requests.queries), 100):
            service.post("/v1/embed-queries", {"queries": requests.queries[start : start + 100]})
        load(service, "/v1/score", requests.score(int(50 * WARM_SECONDS)), 50, WARM_SECONDS)
        load(service, "/v1/related-pins", requests.related(int(50 * WARM_SECONDS)), 50, WARM_SECONDS)
        cases = {
            "score": ("/v1/score", requests.score(round(150 * seconds)), 150),
            "related": ("/v1/related-pins", requests.related(round(200 * seconds)), 200),
            "score, 15 % new": ("/v1/score", requests.score(round(150 * seconds), NEW), 150),
        }
        begin = service.memory_mib()
        results = {name: load(service, *case, seconds) for name, case in cases.items()}
        end = service.memory_mib()
    return {"seconds": seconds, "read_ahead_pins": ahead, "cases": results, "memory_mib": [begin, end]}


def failures(report: dict[str, Any]) -> list[str]:
    """The bounds that were not met."""
    begin, end = report["memory_mib"]
    found = [] if end <= GROWTH * begin else [f"memory grew from {begin} to {end} MiB"]
    for name, case in report["cases"].items():
        if case["errors"]:
            found.append(f"{name}: {case['errors']} errors {case['outcomes']}")
        if case["p99_ms"] > P99_MS:
            found.append(f"{name}: p99 {case['p99_ms']} ms is above {P99_MS:g} ms")
    return found


def table(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| requests | a second | errors | p50 ms | p99 ms | max ms | MiB before, after |", "|---" * 7 + "|"]
    for name, case in report["cases"].items():
        before, after = case["memory_mib"]
        lines.append(
            f"| {name} | {case['rate']:g} | {case['errors']} | {case['p50_ms']} | {case['p99_ms']} | {case['max_ms']} "
            f"| {before:.0f}, {after:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command; ends with 1 if a bound was not met."""
    parser = catalogue_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each case")
    parser.add_argument("--out", type=Path, help="where the report goes; by default benchmarks/results/")
    options = parser.parse_args()
    report = machine("serving.http", PACKAGES)
    report |= {"pins": options.pins} | run(repository(options.pins, options.folder), options.seconds)
    conclude("serving_http", report, failures(report), table(report), options.out)


if __name__ == "__main__":
    main()
