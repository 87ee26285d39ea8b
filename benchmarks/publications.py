"""Publishing from an embedded folder while another process reads: time, disk, and what readers notice.

Run from the checkout's root (about 2 minutes on 2 cores; a million points take 10 and 12 GB under ``--folder``):

    .venv/bin/python -m benchmarks.publications
    .venv/bin/python -m benchmarks.publications --points 1000000

One collection of 384-dimensional vectors and one of feature rows (10 features), ``--points`` each. The writer changes
0.1 % of both, at random, and publishes, ``--rounds`` times. The first round copies both collections as a whole; later
ones bring a copy up to date that nobody reads any more ("copied": bytes written into copies, 0 where the file system
lets files share blocks). A second process follows and answers requests all the while, one after the other: 500 rows
and their 500 vectors at random, from one view. Times of requests are told apart by what happened meanwhile: nothing
(steady), the writer copying (publishing), or the reader loading the new publication and letting the former one go
(switching). "Seen" is from the marker to the first request that reads the new publication. Bytes on disk are blocks
(the engine's files are sparse), each file counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.machine import RESULTS, ROOT, machine, save
from materialize.stores import layout
from materialize.stores.following import REFRESH_SECONDS
from materialize.stores.points import CollectionSpec, Point, VectorSpec
from materialize.stores.publication import Writer, open_writer
from materialize.stores.published import MARKER, folder
from materialize.stores.session import session

DIMENSION = 384
FEATURES = 10
REQUEST = 500
CHANGED = 0.001
SEED = 20
PACKAGES = ("numpy", "qdrant-edge-py")
VECTORS, ROWS = "pins", layout.entity_collection("bench", ["pin_id"])

Window = tuple[float, float]


def ids(view: str, pins: Iterable[int]) -> list[str]:
    """Point ids of pins by number."""
    return layout.point_ids("bench", view, "pin_id", [f"pin{pin}" for pin in pins])


def write(writer: Writer, pins: list[int], rng: np.random.Generator) -> None:
    """Vectors and feature rows of ``pins``, new ones each time."""
    vectors = rng.standard_normal((len(pins), DIMENSION), dtype=np.float32)
    values = rng.random((len(pins), FEATURES)).tolist()
    for name, view in ((VECTORS, "vectors"), (ROWS, "rows")):
        points = []
        for place, (pin, point_id) in enumerate(zip(pins, ids(view, pins), strict=True)):
            features = {f"feature_{n}": value for n, value in enumerate(values[place])} if name == ROWS else {}
            payload = layout.row_payload(view, {"pin_id": f"pin{pin}"}, time.time_ns() // 1000, features)
            points.append(Point(point_id, payload, {"vector": vectors[place]} if name == VECTORS else {}))
        writer.upsert(name, points)


def disk(path: Path) -> int:
    """Bytes on disk under ``path``."""
    found = (file.stat() for file in path.rglob("*") if file.is_file())
    return sum({stat.st_ino: stat.st_blocks * 512 for stat in found}.values())


class Counted:
    """Bytes that this process gave the file system to write into copies; the kernel counts whole folios instead."""

    def __init__(self) -> None:
        self.bytes = 0
        self._pwrite = os.pwrite
        os.pwrite = self._counting  # type: ignore[assignment]

    def _counting(self, fd: int, data: bytes, offset: int) -> int:
        self.bytes += len(data)
        return self._pwrite(fd, data, offset)


class Reader:
    """The reading process, seen from the writing one."""

    def __init__(self, root: Path, points: int) -> None:
        command = [sys.executable, "-m", "benchmarks.publications", "--reader", "--folder", str(root)]
        self._process = subprocess.Popen(
            [*command, "--points", str(points)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: TextIO = self._process.stdin
        self._out: TextIO = self._process.stdout

    def seen(self, number: int) -> float:
        """Wait until it reads publication ``number``; when that was."""
        while True:
            line = self._out.readline().split()
            if not line:
                raise SystemExit("The reading process ended too early.")
            if int(line[0]) >= number:
                return float(line[1])

    def end(self, windows: dict[str, list[Window]]) -> dict[str, Any]:
        """Its requests by what happened meanwhile."""
        report, _ = self._process.communicate(json.dumps(windows) + "\n")
        return json.loads(report.splitlines()[-1])


def read(root: Path, points: int) -> None:
    """Answer requests until the writing process says what happened when; the reading process."""
    told: list[str] = []
    threading.Thread(target=lambda: told.append(sys.stdin.readline()), daemon=True).start()
    rng = random.Random(SEED)
    requests: list[Window] = []
    number = 0
    while not told:
        wanted = rng.choices(range(points), k=REQUEST)
        row_ids, vector_ids = ids("rows", wanted), ids("vectors", wanted)
        start = time.time()
        with session(root).reading() as view:
            rows = view.get_many(ROWS, row_ids)
            vectors = view.get_many(VECTORS, vector_ids, False, True)
        requests.append((start, time.time()))
        assert None not in rows + vectors
        if view.number != number:
            number = view.number
            print(number, requests[-1][1], flush=True)
    times: dict[str, list[float]] = {"steady": [], "publishing": [], "switching": []}
    windows = {name: [tuple(window) for window in found] for name, found in json.loads(told[0]).items()}
    for request in requests[1:]:
        start, stop = request
        phases = [name for name, found in windows.items() if any(a < stop and start < b for a, b in found)]
        times[phases[-1] if phases else "steady"].append((stop - start) * 1e3)
    print(json.dumps({name: summary(found) for name, found in times.items()}), flush=True)


def summary(milliseconds: list[float]) -> dict[str, float]:
    """What a reader of the report wants to know of many times."""
    p50, p99 = np.percentile(milliseconds, [50, 99]) if milliseconds else (np.nan, np.nan)
    longest = max(milliseconds, default=np.nan)
    return {"requests": len(milliseconds), **{k: round(float(v), 1) for k, v in (("p50_ms", p50), ("p99_ms", p99))}} | {
        "longest_ms": round(float(longest), 1)
    }


def change_and_publish(
    writer: Writer, points: int, rng: np.random.Generator, counted: Counted
) -> tuple[dict[str, Any], Window]:
    """Change some rows and publish; what that took, and when."""
    write(writer, rng.choice(points, max(1, round(points * CHANGED)), replace=False).tolist(), rng)
    publications = writer.root / "publications"
    before, copied, cpu, start = disk(publications), counted.bytes, time.process_time(), time.time()
    number = writer.publish()
    marked = (folder(writer.root, number) / MARKER).stat().st_mtime
    return {
        "publish_s": round(time.time() - start, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "disk_added_mb": round((disk(publications) - before) / 1e6, 1),
        "copied_mb": round((counted.bytes - copied) / 1e6, 1),
    }, (start, marked)


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the report holds but the machine."""
    rng, points, counted = np.random.default_rng(SEED), options.points, Counted()
    with open_writer(root, purpose="benchmark") as writer:
        writer.create(VECTORS, CollectionSpec({"vector": VectorSpec(DIMENSION)}))
        writer.create(ROWS, layout.entity_spec())
        start = time.perf_counter()
        for first in range(0, points, 5000):
            write(writer, list(range(first, min(points, first + 5000))), rng)
        report: dict[str, Any] = {"points": points, "write_s": round(time.perf_counter() - start, 1)}
        start = time.perf_counter()
        number = writer.publish()
        report["first_publish_s"] = round(time.perf_counter() - start, 2)
        report["first_publish_mb"] = round(disk(root / "publications") / 1e6, 1)
        reader = Reader(root, points)
        reader.seen(number)
        time.sleep(options.steady)
        windows: dict[str, list[Window]] = {"publishing": [], "switching": []}
        report["rounds"] = []
        for _ in range(options.rounds):
            one, (begun, marked) = change_and_publish(writer, points, rng, counted)
            number += 1
            seen = reader.seen(number)
            windows["publishing"].append((begun, marked))
            windows["switching"].append((marked, seen + 2 * REFRESH_SECONDS))
            report["rounds"].append(one | {"seen_after_s": round(seen - marked, 3)})
            time.sleep(options.steady)
        report["requests"] = reader.end(windows)
        report["folder_mb"] = {part: round(disk(root / part) / 1e6, 1) for part in ("writer", "publications")}
    return report


def print_table(report: dict[str, Any]) -> None:
    """The report for a reader."""
    print(f"{report['points']} points and as many rows, written in {report['write_s']} s, {report['cpu']}")
    print(f"first publication: {report['first_publish_s']} s, {report['first_publish_mb']} MB")
    columns = ("publish_s", "cpu_s", "copied_mb", "disk_added_mb", "seen_after_s")
    print(f"{'round':12}" + "".join(f"{column:>15}" for column in columns))
    for number, one in enumerate(report["rounds"], 1):
        print(f"{number:<12}" + "".join(f"{one[column]:>15}" for column in columns))
    columns = ("requests", "p50_ms", "p99_ms", "longest_ms")
    print(f"{'':12}" + "".join(f"{column:>15}" for column in columns))
    for phase, times in report["requests"].items():
        print(f"{phase:12}" + "".join(f"{times[column]:>15}" for column in columns))


def main() -> None:
    """Measure, print the tables, write the JSON report: one entry for each number of points that was run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000, help="vectors, and rows (default 100000)")
    parser.add_argument("--rounds", type=int, default=8, help="publications after the first (default 8)")
    parser.add_argument("--steady", type=float, default=3.0, help="seconds between two publications (default 3)")
    parser.add_argument("--folder", type=Path, help="where to put the store; default a temporary folder")
    parser.add_argument("--out", type=Path, help="the JSON report; default results/publications.json")
    parser.add_argument("--reader", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        read(options.folder, options.points)
        return
    about = machine("publications", PACKAGES)
    root = Path(tempfile.mkdtemp(prefix="publications-", dir=options.folder))
    try:
        report = about | measure(root, options)
    finally:
        shutil.rmtree(root)
    print_table(report)
    out = options.out or RESULTS / "publications.json"
    former = json.loads(out.read_text())["runs"] if out.exists() else []
    runs = [run for run in former if run["points"] != report["points"]] + [report]
    save("publications", {"runs": sorted(runs, key=lambda run: run["points"])}, out)


if __name__ == "__main__":
    main()
