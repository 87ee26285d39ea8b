"""Our Feast online store on an embedded folder beside Feast's own on SQLite, and the store's own reads and searches.

Run from the checkout's root (about 4 minutes on 2 cores):

    .venv/bin/python -m benchmarks.online_store

A small run: ``--rows 2000 --requests 10 --passes 1 --vectors 5000 --rounds 1``. One feature view of 10 features, the
last a vector of 384 numbers; the same rows for both stores, which take turns. Writes are Feast's own call with rows as
protos, ours with its publications, the best of ``--rounds`` into new stores. ``pins`` has ``vector_index``, so our
store can search it by vector, by words and by filters on every feature; ``listed`` is the same without, as which
Feast's store on SQLite keeps both. Reads are of ``pins``, each request for other random entities, each store read by a
process that does nothing else, a hundred requests at a time: ``first`` has never read any of them, ``again`` has.
Python's garbage collector runs as it does everywhere: now and then it stops a request to go over all objects of the
process, and ``with_full_collection`` says in how many. ``arrays`` is what a service does instead of asking Feast:
``read_columns``, an array per feature and one float32 matrix. ``engine`` writes its own points without any of our code,
what nothing could undercut: of one packed text, of a vector too, or as a row of ``listed`` lies in it, with its two
indexes. Searches are exact, 10 nearest of ``--vectors``, with payloads; all features but ``title`` have an index.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import marshal
import multiprocessing
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine, save
from benchmarks.online_shop import DIMENSION, SEED, STORES, TYPES, WORDS, Shop, make_rows, unit_vectors

PACKAGES = ("feast", "qdrant-edge-py", "protobuf", "numpy")
SIZES = (1, 100, 500)
BLOCK = 100
"""Requests of one store before it is the other's turn."""
PLAIN_ROW = "a plain row as we store it"
TITLES = (" ".join(WORDS[:5]), " ".join(WORDS[5:10]))


def milliseconds(times: list[float]) -> dict[str, float]:
    """p50 and p99 of seconds."""
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50_ms": round(float(p50) * 1e3, 2), "p99_ms": round(float(p99) * 1e3, 2)}


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    call()
    return perf_counter() - start


def requests(count: int, size: int, pins: int, seed: int) -> Iterator[list[str]]:
    """``count`` requests of random pins, fewer where no pin would be left that was not asked for."""
    count = min(count, pins // size)
    order = np.random.default_rng(seed).permutation(pins)[: count * size]
    for chosen in order.reshape(-1, size):
        yield [f"pin-{number}" for number in chosen]


def measure_writes(root: Path, rows: list[Any], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Shop]]:
    """Rows per second into new stores, and the stores of the last round."""
    from materialize.stores.session import close_all

    report: dict[str, Any] = {}
    shops: dict[str, Shop] = {}
    for turn in range(options.rounds):
        for kind in STORES:
            shop = shops[kind] = Shop(root / f"{kind}{turn}", kind)
            for name in shop.views:
                best = report.setdefault(name, {}).setdefault(kind, {})
                for what in ("new", "again"):
                    rate = shop.write(name, rows, options.batch)
                    best[what] = max(best.get(what, 0), round(rate))
        close_all()
        if turn + 1 < options.rounds:
            for shop in shops.values():
                shutil.rmtree(shop.online.parent)
    return report, shops


def measure_engine(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Rows per second of the engine's own points: making them and its call that writes them."""
    import qdrant_edge as engine

    from materialize.stores.edge_models import to_index
    from materialize.stores.layout import ROW_INDEXES

    vectors = unit_vectors(options.rows)
    packed = [base64.b64encode(vector).decode() + 150 * "x" for vector in vectors]  # ten features, one a vector
    dense = vectors.tolist()
    ids = [str(uuid.UUID(int=number + 1)) for number in range(options.rows)]
    config = engine.EdgeConfig(vectors={"vector": engine.EdgeVectorParams(DIMENSION, engine.Distance.Cosine)})

    def point(name: str, n: int) -> engine.Point:
        more: dict[str, Any] = {"view": "listed", "event_ts": 1_790_000_000_000_000} if name == PLAIN_ROW else {}
        return engine.Point(ids[n], {"vector": dense[n]} if name.endswith("vector") else {}, {**more, "f": packed[n]})

    def write(name: str, shard: engine.EdgeShard) -> None:
        for first in range(0, options.rows, 500):
            points = [point(name, n) for n in range(first, min(first + 500, options.rows))]
            shard.update(engine.UpdateOperation.upsert_points(points))

    report: dict[str, Any] = {}
    for name in ("one packed text", "one packed text and a vector", PLAIN_ROW):
        path = folder / name
        path.mkdir(parents=True)
        shard = engine.EdgeShard.create(str(path), config)
        for field, kind in ROW_INDEXES.items() if name == PLAIN_ROW else ():
            shard.update(to_index(field, kind))
        report[name] = {what: round(options.rows / timed(partial(write, name, shard))) for what in ("new", "again")}
        shard.close()
    return report


class Taken(NamedTuple):
    """One request."""

    seconds: float
    collected: bool
    """Whether Python's garbage collector went over all objects in it."""
    digest: str


class Reading:
    """A process that reads from one store and nothing else, as a service does: its garbage is its own."""

    def __init__(self, root: Path, kind: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=answer_reads, args=(theirs, root, kind), daemon=True)
        self._process.start()
        theirs.close()

    def open(self) -> None:
        """Begin as a new reader: nothing decoded yet."""
        self._pipe.send(None)
        self._pipe.recv()

    def read(self, asked: list[list[str]], check: bool = False) -> list[Taken]:
        """What each request took, one after the other.

        :param check: with a hash of each answer, which takes what the processor remembered of the reads.
        """
        self._pipe.send((asked, check))
        taken: list[Taken] = self._pipe.recv()
        return taken

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def answer_reads(pipe: Any, root: Path, kind: str) -> None:
    """The process of :class:`Reading`."""
    from materialize.stores.session import close_all

    shop = Shop(root, kind)
    full: list[float] = []
    gc.callbacks.append(lambda phase, about: full.append(0) if about["generation"] == 2 and phase == "start" else None)
    with suppress(EOFError):
        while True:
            wanted = pipe.recv()
            if wanted is None:
                close_all()
                shop.read(["pin-0"])
                pipe.send(None)
                continue
            asked, check = wanted
            taken = []
            for pins in asked:
                full.clear()
                start = perf_counter()
                answer = shop.read(pins)
                seconds, collected = perf_counter() - start, bool(full)
                values = marshal.dumps(sorted(answer.items()), 2) if check else b""  # later versions are not the same
                del answer
                taken.append(Taken(seconds, collected, hashlib.sha256(values).hexdigest()))
            pipe.send(taken)


def measure_reads(shops: dict[str, Shop], options: argparse.Namespace) -> dict[str, Any]:
    """``get_online_features(...).to_dict()`` of both stores, each in a process of its own, taking turns."""
    report: dict[str, Any] = {}
    for size in SIZES:
        readings = {kind: Reading(shop.root, kind) for kind, shop in shops.items()}
        taken: dict[str, list[Taken]] = {kind: [] for kind in ("sqlite", "ours first", "ours again")}
        for turn in range(options.passes):
            for reading in readings.values():
                reading.open()
            asked = list(requests(options.requests, size, options.rows, seed=size + turn))
            for kind in ("ours first", "ours again"):
                for start in range(0, len(asked), BLOCK):
                    taken["sqlite"] += readings["sqlite"].read(asked[start : start + BLOCK])
                    taken[kind] += readings["ours"].read(asked[start : start + BLOCK])
        for reading in readings.values():
            reading.open()
        for _ in ("first", "again"):
            theirs, ours = (reading.read(asked, check=True) for reading in readings.values())
            if [one.digest for one in theirs] != [one.digest for one in ours]:
                raise SystemExit(f"The stores disagree on requests for {size} pins.")
        for reading in readings.values():
            reading.close()
        report[str(size)] = {
            kind: {
                **milliseconds([one.seconds for one in each]),
                "requests": len(each),
                "with_full_collection": sum(one.collected for one in each),
            }
            for kind, each in taken.items()
        }
    return report


def arrays_kind() -> Any:
    """The ten features as a service reads them: an array each, the vectors as float32 [pins, 384]."""
    from materialize.stores import layout
    from materialize.stores.columns import Kind, event_times

    def decoded(points: Any) -> dict[str, Any]:
        features = {name: layout.decode_feature(points, name, kind) for name, kind in list(TYPES.items())[:-1]}
        arrays: dict[str, Any] = {name: np.fromiter(each, object, len(points)) for name, each in features.items()}
        return arrays | {"vector": layout.stack_vectors(points, DIMENSION), "event_ts": event_times(points)}

    return Kind(
        "pins as arrays",
        lambda pins: layout.point_ids("bench", "pins", "pin_id", pins),
        ["f", "event_ts"],
        True,
        decoded,
    )


def measure_arrays(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The direct read of arrays from the newest publication."""
    from materialize.stores import layout
    from materialize.stores.columns import read_columns
    from materialize.stores.publication import open_reader

    name, kind = layout.view_collection("bench", "pins"), arrays_kind()
    report: dict[str, Any] = {}
    for size in SIZES:
        times: dict[str, list[float]] = {"first": [], "again": []}
        with open_reader(folder, cache_bytes=options.cache_mb << 20) as reader:
            read_columns(reader, name, kind, ["pin-0"])
            for pins in requests(options.requests, size, options.rows, seed=size):
                for seconds in times.values():
                    seconds.append(timed(partial(read_columns, reader, name, kind, pins)))
        report[str(size)] = {kind: milliseconds(seconds) for kind, seconds in times.items()}
    return report


def measure_search(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Exact search with and without filters over payload indexes."""
    from materialize.stores.edge import EdgeStore
    from materialize.stores.port import And, CollectionSpec, Match, Not, Or, Point, Range, VectorSpec

    vectors, queries = unit_vectors(options.vectors), unit_vectors(options.requests + 3, SEED + 1)
    store = EdgeStore(folder)
    indexes: Any = {"f.lang": "keyword", "f.clicks": "integer"}
    store.create("pins", CollectionSpec({"vector": VectorSpec(DIMENSION)}, indexes=indexes))
    ids = np.random.default_rng(SEED).bytes(16 * options.vectors).hex()
    seconds = 0.0
    for first in range(0, options.vectors, 10_000):
        points = [
            Point(
                ids[32 * n : 32 * n + 32],
                {"f": {"lang": ("en", "de", "fr", "pt")[n % 4], "clicks": n % 1000, "title": TITLES[n // 4 % 2]}},
                {"vector": vectors[n]},
            )
            for n in range(first, min(first + 10_000, options.vectors))
        ]
        seconds += timed(lambda points=points: store.upsert("pins", points))
    filters = {
        "no filter": None,
        "lang = en (25 %)": Match("f.lang", "en"),
        "clicks < 100 (10 %)": Range("f.clicks", lt=100),
        "lang in de, fr and clicks >= 500 (25 %)": And(
            (Match("f.lang", any_of=["de", "fr"]), Range("f.clicks", gte=500))
        ),
        "lang != en (75 %)": Not(Match("f.lang", "en")),
        "lang = en or clicks >= 500 (62 %)": Or((Match("f.lang", "en"), Range("f.clicks", gte=500))),
        "lang != en and clicks >= 100 (67 %)": And((Not(Match("f.lang", "en")), Range("f.clicks", gte=100))),
        "title = a text, no index (50 %)": Match("f.title", TITLES[0]),
    }
    times: dict[str, list[float]] = {name: [] for name in filters}
    for query in queries:
        for name, condition in filters.items():
            search = lambda query=query, condition=condition: store.search(  # noqa: E731
                "pins", query, 10, filter=condition, exact=True
            )
            times[name].append(timed(search))
    store.close()
    shutil.rmtree(folder)
    report = {name: milliseconds(taken[3:]) for name, taken in times.items()}
    return {"vectors": options.vectors, "written_rows_per_s": round(options.vectors / seconds), **report}


def print_tables(report: dict[str, Any]) -> None:
    """The report for a reader."""
    print(f"{report['rows']} rows, {report['requests']} requests, {report['cpu']}")
    for name, kinds in report["writes_rows_per_s"].items():
        for kind, rates in kinds.items():
            print(f"write {name:8}{kind:12}" + "".join(f"{what:>8} {rate:>7} rows/s" for what, rate in rates.items()))
    for part in ("get_online_features", "arrays"):
        for size, kinds in report[part].items():
            for kind, times in kinds.items():
                full = (
                    f", {times['with_full_collection']} of {times['requests']} collect" if "requests" in times else ""
                )
                print(f"{part:20}{size:>5} {kind:14}p50 {times['p50_ms']:>8}  p99 {times['p99_ms']:>8} ms{full}")
    for name, times in report["search"].items():
        if isinstance(times, dict):
            print(f"search {name:45}p50 {times['p50_ms']:>8}  p99 {times['p99_ms']:>8} ms")


def main() -> None:
    """Measure, print the tables, write the JSON report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the view (default 20000)")
    parser.add_argument("--batch", type=int, default=20_000, help="rows of one write (default 20000)")
    parser.add_argument(
        "--requests",
        type=int,
        default=200,
        help="requests of each kind and size in a pass, if there are rows for them (default 200)",
    )
    parser.add_argument(
        "--passes", type=int, default=5, help="times that new readers are asked all of them (default 5)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is written (default 3)")
    parser.add_argument("--vectors", type=int, default=100_000, help="vectors that are searched (default 100000)")
    parser.add_argument(
        "--cache-mb", type=int, default=256, help="what the reader of arrays keeps (default 256, ours too)"
    )
    parser.add_argument("--out", type=Path, help="the JSON report; default results/online_store.json")
    options = parser.parse_args()
    report = machine("online_store", PACKAGES)
    report |= {
        "rows": options.rows,
        "requests": options.requests,
        "passes": options.passes,
        "rounds": options.rounds,
        "batch": options.batch,
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = make_rows(options.rows)
        gc.freeze()  # the rows themselves are the benchmark's: both stores without their share of the collector
        report["writes_rows_per_s"], shops = measure_writes(root, rows, options)
        del rows
        report["writes_rows_per_s"]["engine"] = measure_engine(root / "engine", options)
        report["get_online_features"] = measure_reads(shops, options)
        report["arrays"] = measure_arrays(shops["ours"].online, options)
        report["search"] = measure_search(root / "search", options)
    print_tables(report)
    save("online_store", report, options.out)


if __name__ == "__main__":
    main()
