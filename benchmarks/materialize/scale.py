"""How long and in how much memory `plan` finds what changed among millions of pins.

Run from the checkout's root; ten million pins need 8 GB of disk and about twenty minutes, most of them to make the
catalogue and to fill the ledger. ``--pins 1000000`` is a tenth of both, thirty million three times:

    .venv/bin/python -m benchmarks.materialize.scale --pins 1000000 10000000

Scope: the scan of `plan`, that is four feature views and the pins of one space against the ledger, from the first file
that is opened to the last count, in a process of its own that may use two processors. Imports are not in it. The ledger
was filled by a COUNTING ENCODER (it counts texts and makes no vector) and a NULL STORE (it acknowledges everything and
keeps nothing). In between the files are read once, so they come out of the page cache as far as they fit.

An unchanged catalogue is scanned four times: with ``--rescan``, as by the first command ever; then with the files that
were noted by that, none of which is read again; then with copies of them, whose bytes tell; then with all files
written anew, the same rows in other bytes, which are all read. Edits are scanned with the other views' files as they
were noted, and with all files written anew.

The decode floor is what the same engine needs to decode every column of the four views and do nothing with them, in the
same run; ``share of floor`` is its seconds by the scan's. Every figure is the best of ``--rounds``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine, peak_mb, save
from benchmarks.materialize.catalogue import FILES, SHARES, Catalogue, Edit, changed_copy, exchange, rewrite
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE
from materialize.ledger import Ledger
from materialize.plan import Counts, Kind, count_features, open_pin_scan, pin_changes
from materialize.points import ledger_entries
from materialize.reconcile import space_definition, view_definition, view_space
from materialize.scan import FeatureScan, connect, raw_engine
from materialize.spaces import Space

PROCESSORS = 2
EDIT = Edit(step=1000)
SPACE = Space(
    "scale-t1", 384, "packaged", "none", ("none",), DEFAULT_TEMPLATE.without("engaged_queries"), {"device": "none"}
)
NONE = frozenset[str]()
BUDGET_SECONDS, BUDGET_MB = 25, 1000


class CountingEncoder:
    """Counts the texts it is given; makes no vector."""

    def __init__(self) -> None:
        self.texts = 0

    def encode(self, texts: list[str]) -> None:
        """Count ``texts``."""
        self.texts += len(texts)


class NullStore:
    """Acknowledges points and keeps none."""

    def __init__(self) -> None:
        self.points = 0

    def upsert(self, points: int) -> None:
        """Acknowledge so many points."""
        self.points += points


def fill(catalogue: Catalogue, paths: RepoPaths) -> dict[str, Any]:
    """Write every pin and feature row into a new ledger, as a first run does, without vectors and store."""
    encoder, store = CountingEncoder(), NullStore()
    definitions = catalogue.definitions()
    with Ledger(paths) as ledger, connect(paths.ledger) as con:
        for view in definitions.feature_views():
            space = view_space(view)
            run = ledger.start_run(space)
            for batch in FeatureScan(con, view, ledger.of(space), NONE).changes():
                store.upsert(batch.num_rows)
                ledger.write(space, run, _row_entries(batch))
            ledger.set_engine(space, raw_engine(), view_definition(definitions.project, view))
            ledger.fold(space)
        run = ledger.start_run(SPACE.name)
        for changes in pin_changes(open_pin_scan(con, definitions, SPACE, ledger, NONE), SPACE):
            encoder.encode([change.text for change in changes if change.text_fp])
            store.upsert(len(changes))
            ledger.write(SPACE.name, run, ledger_entries(changes))
        ledger.set_engine(SPACE.name, raw_engine(), space_definition(definitions.project))
        ledger.fold(SPACE.name)
    return {"counted_texts": encoder.texts, "acknowledged_points": store.points}


def _row_entries(batch: pa.RecordBatch) -> pa.Table:
    rows = batch.num_rows
    blank = {"text_fp": pa.nulls(rows, pa.binary(16)), "payload_fp": pa.nulls(rows, pa.uint64())}
    return pa.table({**{name: batch[name] for name in ("key", "raw", "event_timestamp")}, **blank})


def scan(catalogue: Catalogue, paths: RepoPaths, *, rescan: bool = False) -> dict[str, Any]:
    """What `plan` counts; the pins that changed, by kind, beside it."""
    definitions = catalogue.definitions()
    counts = Counts(SPACE.name)
    with Ledger(paths) as ledger, connect(paths.ledger, noting=True, rescan=rescan) as con:
        count_features(con, definitions, ledger, NONE, counts)
        pins = open_pin_scan(con, definitions, SPACE, ledger, NONE)
        found: dict[str, list[str]] = {}
        for changes in pin_changes(pins, SPACE):
            for change in changes:
                found.setdefault(str(change.kind), []).append(change.pin_id)
        files = dict(zip(("files", "files_unchanged"), con.file_counts(), strict=True))
    return {"pins": pins.rows, "unchanged": pins.unchanged, "gone": len(pins.gone), "rows": counts.features} | {
        **files,
        "found": {kind: sorted(ids) for kind, ids in found.items()},
    }


def rescanned(catalogue: Catalogue, paths: RepoPaths) -> dict[str, Any]:
    """A scan with ``--rescan``, which reads everything as the first one after an upgrade does; it must find nothing."""
    return unchanged(catalogue, paths, rescan=True)


def unchanged(catalogue: Catalogue, paths: RepoPaths, *, rescan: bool = False) -> dict[str, Any]:
    """A scan that must find nothing."""
    found = scan(catalogue, paths, rescan=rescan)
    rows = sum(view["changed"] + view["gone"] for view in found["rows"].values())
    if found.pop("found") or found["unchanged"] != catalogue.pins or found["gone"] or rows:
        raise SystemExit(f"The unchanged catalogue was found to differ: {found}")
    return found


def edited(catalogue: Catalogue, paths: RepoPaths) -> dict[str, Any]:
    """A scan that must find the edited pins, and these only."""
    found = scan(catalogue, paths)
    expected = {str(Kind.CHANGED): sorted(catalogue.edited(EDIT))}
    rows = {name: view["changed"] for name, view in found["rows"].items() if view["changed"]}
    if found["found"] != expected or found["gone"] or rows != {"pin_text": len(expected[str(Kind.CHANGED)])}:
        raise SystemExit("The set of changed pins is not the set of edited ones.")
    return {**found, "found": {kind: len(ids) for kind, ids in found["found"].items()}, "changed_set_exact": True}


def floor_duckdb(catalogue: Catalogue, paths: RepoPaths) -> dict[str, Any]:
    """Decode every column of the four views in DuckDB, with the settings of a scan."""
    with connect(paths.root) as con:
        for view in SHARES:
            con.execute(f"SELECT count(COLUMNS(*)) FROM '{catalogue.folder / view}/*.parquet'").fetchall()
    return {}


def floor_pyarrow(catalogue: Catalogue, paths: RepoPaths) -> dict[str, Any]:
    """Decode every column of the four views in pyarrow, on its own threads."""
    pa.set_cpu_count(PROCESSORS)
    for view in SHARES:
        for path in sorted((catalogue.folder / view).glob("*.parquet")):
            for _ in pq.ParquetFile(path).iter_batches(1 << 16):
                pass
    return {}


STEPS: dict[str, Callable[[Catalogue, RepoPaths], dict[str, Any]]] = {
    step.__name__: step for step in (fill, floor_duckdb, floor_pyarrow, rescanned, unchanged, edited)
}


def child(step: str, folder: Path, pins: int, repo: Path) -> None:
    """One step in this process; its result and what it took as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSORS])
    catalogue, paths = Catalogue(folder, pins), RepoPaths(repo)
    start, before = perf_counter(), os.times()
    result = STEPS[step](catalogue, paths)
    after = os.times()
    result |= {
        "seconds": round(perf_counter() - start, 2),
        "cpu_seconds": round(after.user + after.system - before.user - before.system, 2),
        "peak_mb": peak_mb(),
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result))


def run(
    step: str,
    catalogue: Catalogue,
    repo: Path,
    rounds: int = 1,
    *,
    rewrites: str = "none",
    files_unchanged: int | None = None,
) -> dict[str, Any]:
    """The fastest of ``rounds`` processes that do ``step``, with the highest of their peaks.

    :param rewrites: before each, replace all files by copies, which are the ``same`` or have ``other`` bytes.
    :param files_unchanged: so many files must have been taken as unchanged.
    """
    words = [sys.executable, "-m", "benchmarks.materialize.scale", "--step", step, "--dir", str(repo)]
    found = []
    for _ in range(rounds):
        if rewrites != "none":
            rewrite(catalogue, other_bytes=rewrites == "other")
        done = subprocess.run(
            [*words, "--catalogue", str(catalogue.folder), "--pins", str(catalogue.pins)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout))
        if files_unchanged is not None and found[-1]["files_unchanged"] != files_unchanged:
            raise SystemExit(f"{found[-1]['files_unchanged']} files were taken as unchanged, not {files_unchanged}.")
        print(f"  {step:14}{ {name: found[-1][name] for name in ('seconds', 'cpu_seconds', 'peak_mb')} }", flush=True)
    best = min(found, key=lambda each: float(each["seconds"]))
    return {**best, "peak_mb": max(each["peak_mb"] for each in found), "all_seconds": [one["seconds"] for one in found]}


def ledger_bytes(repo: Path, pins: int) -> dict[str, Any]:
    """Bytes a pin of the space's shards, as stored and before compression, by column."""
    stored: dict[str, float] = {}
    plain: dict[str, float] = {}
    for path in (RepoPaths(repo).ledger / SPACE.name).glob("*.parquet"):
        with pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                for place in range(file.metadata.num_columns):
                    column = file.metadata.row_group(group).column(place)
                    name = column.path_in_schema
                    stored[name] = stored.get(name, 0) + column.total_compressed_size / pins
                    plain[name] = plain.get(name, 0) + column.total_uncompressed_size / pins
    return {
        "stored": {name: round(size, 2) for name, size in stored.items()},
        "encoded_uncompressed": {name: round(size, 2) for name, size in plain.items()},
        "stored_total": round(sum(stored.values()), 1),
        "stored_total_without_key": round(sum(stored.values()) - stored["key"], 1),
    }


def measure(pins: int, folder: Path, rounds: int) -> dict[str, Any]:
    """Every figure at ``pins`` pins."""
    print(f"{pins:,} pins", flush=True)
    catalogue, repo = Catalogue(folder / f"catalogue-{pins}", pins), folder / f"repo-{pins}"
    repo.mkdir(exist_ok=True)
    if not catalogue.folder.is_dir():
        start = perf_counter()
        catalogue.write()
        print(f"  catalogue     {perf_counter() - start:.0f} s", flush=True)
    kept = repo / "fill.json"
    filled = json.loads(kept.read_text()) if kept.is_file() else run("fill", catalogue, repo)
    kept.write_text(json.dumps(filled))
    every = len(SHARES) * FILES
    figures: dict[str, Any] = {
        "catalogue_mb": round(catalogue.size() / 1e6),
        "fill (counting encoder, null store)": filled,
        "ledger_bytes_a_pin": ledger_bytes(repo, pins),
        "decode_floor_duckdb": run("floor_duckdb", catalogue, repo, rounds),
        "decode_floor_pyarrow": run("floor_pyarrow", catalogue, repo, rounds),
        "unchanged, all files read": run("rescanned", catalogue, repo, rounds, files_unchanged=0),
        "unchanged, same files": run("unchanged", catalogue, repo, rounds, files_unchanged=every),
        "unchanged, files copied": run("unchanged", catalogue, repo, rounds, rewrites="same", files_unchanged=every),
        "unchanged, files written anew": run("unchanged", catalogue, repo, rounds, rewrites="other", files_unchanged=0),
    }
    after = changed_copy(catalogue, folder / f"edited-{pins}", EDIT)
    exchange(catalogue, after)
    try:
        one = run("edited", catalogue, repo, rounds, files_unchanged=every - FILES)
        figures["changed 0.1 %, in one view's files"] = one
        anew = run("edited", catalogue, repo, rounds, rewrites="other", files_unchanged=0)
        figures["changed 0.1 %, all files written anew"] = anew
    finally:
        exchange(catalogue, after)
    scanned = figures["unchanged, all files read"]
    return figures | {
        "share_of_floor": round(figures["decode_floor_duckdb"]["seconds"] / scanned["seconds"], 3),
        "share_of_floor_cpu": round(figures["decode_floor_duckdb"]["cpu_seconds"] / scanned["cpu_seconds"], 3),
        "million_pins_a_second": round(pins / 1e6 / scanned["seconds"], 3),
    }


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="keep catalogue and ledger here, and use them again")
    parser.add_argument("--out", type=Path, help="the JSON report; default results/materialize_scale.json")
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--catalogue", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        child(options.step, options.catalogue, options.pins[0], options.dir)
        return
    report = machine("materialize.scale", ("duckdb", "pyarrow", "numpy"))
    report["sizes"] = {}
    for pins in options.pins:
        with nullcontext(options.dir) if options.dir else tempfile.TemporaryDirectory() as folder:
            report["sizes"][str(pins)] = figures = measure(pins, Path(folder), options.rounds)
        for step in (name for name in figures if name.startswith(("unchanged", "changed"))):
            took = figures[step]
            print(
                f"  {step:30}{took['seconds']:8.1f} s{took['peak_mb']:7} MB"
                f"   (at 10,000,000 pins: within {BUDGET_SECONDS} s, {BUDGET_MB} MB)"
            )
        print(f"  share of the decode floor: {figures['share_of_floor']:.0%}")
        save("materialize_scale", report, options.out)


if __name__ == "__main__":
    main()
