"""Related pins over a large space: the index against exact search, and rows that were read ahead against cold ones.

Run from the checkout's root (a minute on 2 cores, and seven more once to make the catalogue):

    .venv/bin/python -m benchmarks.serving.related

A short run: ``--pins 2000``, which has no index. ``recall@10`` is the share of the ten nearest pins by exact search
that the index finds too; the queries are the vectors of random pins. The filters match a part of the pins each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.machine import conclude, machine
from benchmarks.serving.catalogue import catalogue_parser, repository
from feature_repo.paths import RepoPaths
from materialize.stores.port import Condition, Match, Not
from serving_client import PinClient
from serving_client.collector import settled
from serving_client.publications.publications import Publication
from serving_client.publications.read_ahead import ReadAhead

PACKAGES = ("qdrant-edge-py", "numpy")
SEED = 12
RELATED_MS = 10.0
"""What the p50 of related pins may be at most."""
RECALL = 0.95
"""Least recall@10 of the index, for each filter."""
_FILTERS: dict[str, Condition | None] = {
    "none": None,
    "lang = en": Match("lang", "en"),
    "lang = de": Match("lang", "de"),
    "not lang = en": Not(Match("lang", "en")),
    "safe": Match("safe", True),
}


def percentiles(call: Callable[[Any], Any], arguments: Sequence[Any]) -> dict[str, float]:
    """Milliseconds of ``call`` for each of ``arguments``."""
    seconds = []
    for argument in arguments:
        start = perf_counter()
        call(argument)
        seconds.append(perf_counter() - start)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def against_exact(publication: Publication, pins: Sequence[str], wanted: Condition | None) -> dict[str, Any]:
    """The index and exact search: their times, and what of the ten nearest the index finds."""
    space = publication.space()
    vectors = publication.vectors(space, pins)
    vectors = vectors[~np.isnan(vectors[:, 0])]
    found: dict[bool, list[list[str]]] = {}
    times = {}
    for exact in (False, True):
        answers: list[list[str]] = []

        def search(vector: Any, exact: bool = exact, answers: list[list[str]] = answers) -> None:
            hits = publication.reader.search(space.name, vector, 51, filter=wanted, with_payload=False, exact=exact)
            answers.append([hit.id for hit in hits[:10]])

        times[exact], found[exact] = percentiles(search, list(vectors)), answers
    shares = [len({*near} & {*best}) / len(best) for near, best in zip(found[False], found[True], strict=True) if best]
    matching = publication.reader.count(space.name, wanted) / publication.reader.count(space.name)
    recall = round(float(np.mean(shares)), 4)
    return {"matching": round(matching, 3), "recall@10": recall, "index": times[False], "exact": times[True]}


def memory_mib() -> float:
    """What this process has in memory, files that are mapped left out."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def run(paths: RepoPaths, calls: int) -> dict[str, Any]:
    """Everything that is measured."""
    import pyarrow.parquet as pq

    pins = np.array(pq.read_table(paths.raw / "pins", columns=["pin_id"])["pin_id"].to_pylist())
    drawn = np.random.default_rng(SEED).choice(pins, (4, calls)).tolist()
    with PinClient(paths.root) as client:
        client.related_pins(drawn[0][0])
        cold = percentiles(client.related_pins, drawn[0])
        ahead = ReadAhead(client._publications, 1 << 40)
        ahead.step()  # loads the collection of the rows, which is no part of what is measured
        before, start, longest, more = memory_mib(), perf_counter(), 0.0, True
        while more:
            began = perf_counter()
            more = ahead.step()
            longest = max(longest, perf_counter() - began)
        took, grown = perf_counter() - start, memory_mib() - before
        with settled():
            report = {
                "related": {"cold": cold, "read ahead": percentiles(client.related_pins, drawn[1])},
                "related, lang = en": percentiles(lambda pin: client.related_pins(pin, lang="en"), drawn[2]),
                "read_ahead": {
                    "pins": ahead.pins,
                    "seconds": round(took, 2),
                    "longest_step_ms": round(longest * 1e3, 1),
                    "bytes_a_pin": round(grown * (1 << 20) / max(ahead.pins, 1)),
                },
            }
            with client._publications.current() as publication:
                live = publication.space().name
                report["vectors"] = dict(zip(("indexed", "not_indexed"), _counts(publication, live), strict=True))
                report["search"] = {
                    name: against_exact(publication, drawn[3], wanted) for name, wanted in _FILTERS.items()
                }
    return report


def _counts(publication: Publication, name: str) -> tuple[int, int]:
    view: Any = publication.view
    counts: tuple[int, int] = view._open(name).vector_counts()
    return counts


def failures(report: dict[str, Any]) -> list[str]:
    """The bounds that were not met."""
    p50 = report["related"]["read ahead"]["p50_ms"]
    found = [f"related pins p50 {p50} ms is above {RELATED_MS:g} ms"] if p50 > RELATED_MS else []
    for name, case in report["search"].items():
        if case["recall@10"] < RECALL:
            found.append(f"filter {name}: recall@10 is {case['recall@10']}, not {RECALL}")
    return found


def table(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| filter | pins that match | recall@10 | index p50 ms | exact p50 ms |", "|---" * 5 + "|"]
    for name, case in report["search"].items():
        lines.append(
            f"| {name} | {case['matching']:.0%} | {case['recall@10']} | {case['index']['p50_ms']} "
            f"| {case['exact']['p50_ms']} |"
        )
    lines += ["", "| related pins | p50 ms | p99 ms |", "|---" * 3 + "|"]
    cases = {**report["related"], "read ahead, lang = en": report["related, lang = en"]}
    lines += [f"| {name} | {case['p50_ms']} | {case['p99_ms']} |" for name, case in cases.items()]
    ahead = report["read_ahead"]
    lines += ["", f"{ahead['pins']} pins read ahead in {ahead['seconds']} s, {ahead['bytes_a_pin']} bytes a pin."]
    return "\n".join(lines)


def main() -> None:
    """The command; ends with 1 if a bound was not met."""
    parser = catalogue_parser(__doc__)
    parser.add_argument("--calls", type=int, default=300, help="of each kind")
    parser.add_argument("--out", type=Path, help="where the report goes; by default benchmarks/results/")
    options = parser.parse_args()
    report = machine("serving.related", PACKAGES) | {"pins": options.pins, "calls": options.calls}
    report |= run(repository(options.pins, options.folder), options.calls)
    conclude("serving_related", report, failures(report), table(report), options.out)


if __name__ == "__main__":
    main()
