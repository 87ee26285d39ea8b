"""Snapshots: the source of every view as of a time, under ``data/history/<time>``.

A snapshot is taken again only when rows up to its time, the screening rules or the options have changed. The folder may
be removed at any time: it costs computing.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.aggregates import VIEW_SCHEMAS, Resources, aggregate
from feature_repo.aggregates.link_gate import LINK_GATE_VERSION
from feature_repo.aggregates.session import literal
from feature_repo.history.inputs import Inputs, digest, read_inputs, stamp, table_sum
from feature_repo.history.lock import history_lock
from feature_repo.history.tables import PastPaths, connected
from feature_repo.history.versions import remember_pins, remove_versions, version_parts, write_pins_as_of
from feature_repo.leftovers import scratch_folder
from feature_repo.lexical import LEXICAL_VERSION
from feature_repo.paths import RepoPaths
from feature_repo.screening import Screening
from feature_repo.text import TEXT_VERSION

if TYPE_CHECKING:
    import duckdb

HISTORY_VERSION = 2
"""Bumped when the same rows would give another snapshot, as when an aggregate is computed otherwise."""

MANIFEST = "snapshot.json"
NAMELESS = "nameless.parquet"
"""Pins of a snapshot whose text of that time is not known."""

Progress = Callable[[int, int], None]
"""Called with the snapshots done and in all."""


@dataclass(frozen=True)
class HistoryOptions:
    """What snapshots depend on besides the tables; ``every`` is the step of the grid in microseconds."""

    every: int
    min_users: int = 2
    window_days: int = 730


@dataclass
class HistoryReport:
    """Which snapshots there are now, and what they cost."""

    folders: dict[int, Path] = field(default_factory=dict)
    """By time, microseconds. A time before the earliest row of all tables has none: nothing was known."""
    made: int = 0
    reused: int = 0
    before_data: int = 0
    """Times that lie before the earliest row."""
    seconds: float = 0.0
    megabytes: float = 0.0
    """Size on disk of the snapshots that were asked for."""

    def to_json(self) -> dict[str, Any]:
        """Plain data: counts and costs."""
        return {
            "made": self.made,
            "reused": self.reused,
            "before_data": self.before_data,
            "seconds": round(self.seconds, 3),
            "megabytes": round(self.megabytes, 1),
        }


def take_snapshots(
    paths: RepoPaths,
    times: Iterable[int],
    options: HistoryOptions,
    progress: Progress | None = None,
    resources: Resources | None = None,
) -> HistoryReport:
    """Snapshots of all ``times`` (microseconds, of the grid), those that are still good as they are.

    The caller holds :func:`history_lock`.

    :raises ContractError: if valid tables are missing.
    :raises UsageError: for options that :func:`aggregate` refuses.
    """
    started = time.perf_counter()
    resources = resources or Resources()
    wanted = sorted(set(times))
    report = HistoryReport()
    remember_pins(paths, resources)
    with connected(paths, resources) as con:
        taker = _Taker(con, paths, options, resources)
        for number, moment in enumerate(wanted, start=1):
            taker.take(moment, report)
            if progress:
                progress(number, len(wanted))
    size = sum(file.stat().st_size for folder in report.folders.values() for file in folder.iterdir())
    report.megabytes = size / 1e6
    report.seconds = time.perf_counter() - started
    return report


class _Taker:
    """Takes or keeps one snapshot after the other; the tables are read for their fingerprint at most once."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, paths: RepoPaths, options: HistoryOptions, resources: Resources
    ) -> None:
        self._con, self._paths, self._options, self._resources = con, paths, options, resources
        self._stamp = stamp(paths)
        self._made_with = _made_with(con, paths, options)
        self._inputs: Inputs | None = None

    def take(self, moment: int, report: HistoryReport) -> None:
        """The snapshot of ``moment``, noted in ``report``."""
        folder = snapshot_folder(self._paths, moment)
        manifest = _read_manifest(folder)
        same_options = manifest.get("made_with") == self._made_with
        if same_options and manifest.get("stamp") == self._stamp:
            report.folders[moment] = folder
            report.reused += 1
            return
        self._inputs = self._inputs or read_inputs(self._con, self._paths, self._options.every)
        if self._inputs.first is None or moment < self._inputs.first:
            report.before_data += 1
            return
        with scratch_folder(self._paths.data, "past") as scratch:
            past = self._past(scratch, moment)
            rows = {**self._inputs.as_of(moment), "pins": table_sum(self._con, past.valid / "pins.parquet")}
            note = {"as_of": moment, "made_with": self._made_with, "inputs": digest(rows), "stamp": self._stamp}
            if same_options and manifest.get("inputs") == note["inputs"]:
                _write_manifest(folder, note)
                report.reused += 1
            else:
                self._compute(past, folder, moment, note)
                report.made += 1
            report.folders[moment] = folder

    def _past(self, scratch: Path, moment: int) -> PastPaths:
        """The repository with the pins of then; every other table is cut off by ``aggregate`` itself."""
        valid = scratch / "valid"
        valid.mkdir()
        for entry in self._paths.valid.iterdir():
            if entry.name != "pins.parquet":
                (valid / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
        write_pins_as_of(self._con, self._paths, moment, valid / "pins.parquet")
        return PastPaths(self._paths.root, valid)

    def _compute(self, past: PastPaths, folder: Path, moment: int, note: dict[str, Any]) -> None:
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            aggregate(
                past,
                as_of=as_datetime(moment),
                min_users=self._options.min_users,
                window_days=self._options.window_days,
                resources=self._resources,
                folder=part,
            )
            self._con.execute(f"COPY (SELECT pin_id FROM nameless) TO {literal(part / NAMELESS)} (FORMAT parquet)")
            _write_manifest(part, note)  # last: a folder that has one is whole
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def snapshot_folder(paths: RepoPaths, moment: int) -> Path:
    """Where the snapshot of ``moment`` (microseconds) lies."""
    return paths.data / "history" / f"{as_datetime(moment):%Y%m%dT%H%M%SZ}"


def as_datetime(moment: int) -> datetime:
    """Microseconds since 1970 as a UTC time, exact."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)


def forget_history(paths: RepoPaths, pins: Iterable[str] = ()) -> None:
    """Remove every snapshot, and all versions of ``pins``: what was erased is in no past either.

    Snapshots are taken anew when they are needed. The versions of other pins stay.
    """
    with history_lock(paths):
        shutil.rmtree(paths.data / "history", ignore_errors=True)
        names, parts = sorted(set(pins)), version_parts(paths)
        if names and parts:
            with connected(paths, Resources()) as con:
                con.execute("CREATE TEMP TABLE gone AS SELECT unnest(?) AS pin_id", [names])
                remove_versions(con, parts)


def _made_with(con: duckdb.DuckDBPyConnection, paths: RepoPaths, options: HistoryOptions) -> str:
    """Everything but the rows that a snapshot, or its fingerprint, depends on."""
    engine = con.execute("SELECT version()").fetchone()
    schemas = {view: str(schema) for view, schema in VIEW_SCHEMAS.items()}
    versions = [HISTORY_VERSION, LEXICAL_VERSION, TEXT_VERSION, LINK_GATE_VERSION, schemas, engine]
    return digest([versions, options.min_users, options.window_days, Screening.load(paths.root).fingerprint])


def _read_manifest(folder: Path) -> dict[str, Any]:
    """What a whole snapshot says of itself; empty for none, and for a damaged one, which is taken again."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = all((folder / f"{view}.parquet").is_file() for view in VIEW_SCHEMAS)
        return manifest if whole and isinstance(manifest, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_manifest(folder: Path, note: dict[str, Any]) -> None:
    part = folder / f".{MANIFEST}.{os.getpid()}.tmp"
    part.write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, folder / MANIFEST)
