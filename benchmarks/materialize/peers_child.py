"""One step of the peers benchmark in this process, under the Python that has the system's packages."""

from __future__ import annotations

import argparse
import json
import os
import resource
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.machine import peak_mb
from benchmarks.materialize.peers_cases import cases, run_case
from benchmarks.materialize.peers_documents import FakeEncoder, documents

MODULES = {name: f"benchmarks.materialize.peers_{name}" for name in ("langchain", "llamaindex", "cocoindex", "ours")}
EDITED_EVERY = 1000


def prepare(module: Any, folder: Path, count: int, every: int, fresh: bool) -> dict[str, Any]:
    """Begin anew if ``fresh``; write the source where the system reads one."""
    system = module.System(folder)
    if fresh:
        system.reset()
    if module.READS_FILES:
        system.prepare(list(documents(count, every)))
    return {"versions": {package: version(package) for package in module.PACKAGES}}


def measure(module: Any, folder: Path, count: int, every: int) -> dict[str, Any]:
    """One run, timed from opening store and books to closing them; imports and the making of documents are outside."""
    system, encoder = module.System(folder), FakeEncoder()
    source = [] if module.READS_FILES else list(documents(count, every))
    before_mb = _resident_mb()
    start, before = perf_counter(), os.times()
    says = system.sync(source, encoder)
    after, wall = os.times(), perf_counter() - start
    return {
        "cpu_seconds": round(after.user + after.system - before.user - before.system, 3),
        "seconds": round(wall, 3),
        "peak_mb": peak_mb(),
        "before_mb": before_mb,
        "encoder_calls": encoder.calls,
        "encoded_texts": encoder.texts,
        "says": says,
        "load_average": round(os.getloadavg()[0], 2),
    }


def run_cases(name: str, folder: Path) -> dict[str, Any]:
    """Every case of correctness, by its name."""
    if name != "cocoindex":  # its engine starts threads when it is imported, and they do not outlive a fork
        import_module(MODULES[name])
    return {case.name: run_case(lambda: import_module(MODULES[name]).System(folder), case) for case in cases()}


def _resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20)


def main() -> None:
    """Do the step, write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", choices=sorted(MODULES), required=True)
    parser.add_argument("--step", choices=["prepare", "measure", "cases"], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--edited", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    every = EDITED_EVERY if options.edited else 0
    if options.step == "cases":
        result = run_cases(options.system, options.folder)
    elif options.step == "prepare":
        result = prepare(
            import_module(MODULES[options.system]), options.folder, options.documents, every, options.fresh
        )
    else:
        result = measure(import_module(MODULES[options.system]), options.folder, options.documents, every)
    options.result.write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    main()
