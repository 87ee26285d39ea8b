"""``data/reports``: what runs noted for the report, and the reports so far; files appear whole.

``<stage>.json``                    what the last run of a stage counted, for now ``aggregate``
``features-<time>.json``            one report each, the last :data:`KEPT`
``features-<time>.pins.parquet``    of the last report only: 64-bit hashes of the pin ids, to count new and gone ones
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.aggregates.session import literal, parquet
from feature_repo.paths import RepoPaths

if TYPE_CHECKING:
    import duckdb

KEPT = 50
"""Reports that stay; older ones go."""


def note_run(paths: RepoPaths, stage: str, counts: Mapping[str, Any]) -> None:
    """Keep what the last run of ``stage`` counted, as plain JSON data."""
    _write(paths.reports / f"{stage}.json", counts)


def noted(paths: RepoPaths, stage: str) -> dict[str, Any] | None:
    """What the last run of ``stage`` counted; None if none was noted or the note is damaged."""
    return _read(paths.reports / f"{stage}.json")


def last_report(paths: RepoPaths) -> dict[str, Any] | None:
    """The last report that can be read, None before the first."""
    for path in reversed(_reports(paths)):
        if report := _read(path):
            return report
    return None


def pins_since(con: duckdb.DuckDBPyConnection, paths: RepoPaths, report: Mapping[str, Any]) -> dict[str, int] | None:
    """``new`` and ``gone`` pins of ``measured`` since ``report``; None where its pins are not kept."""
    path = _pins(paths, report["made_at"])
    if not path.is_file():
        return None
    former = parquet([path])
    sides = {
        "new": f"measured ANTI JOIN {former} AS f USING (pin)",
        "gone": f"{former} AS f ANTI JOIN measured USING (pin)",
    }
    return {
        name: int((con.execute(f"SELECT count(*) FROM {sql}").fetchone() or (0,))[0]) for name, sql in sides.items()
    }


def keep_report(con: duckdb.DuckDBPyConnection, paths: RepoPaths, report: Mapping[str, Any]) -> Path:
    """Write the report and the pins that it is about; gives the report's file."""
    path = _pins(paths, report["made_at"])
    part = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    con.execute(f"COPY (SELECT pin FROM measured ORDER BY pin) TO {literal(part)} (FORMAT parquet, COMPRESSION zstd)")
    os.replace(part, path)
    written = _write(paths.reports / f"features-{_stamp(report['made_at'])}.json", report)
    for other in paths.reports.glob("features-*.pins.parquet"):
        if other != path:
            other.unlink(missing_ok=True)
    for old in _reports(paths)[:-KEPT]:
        old.unlink(missing_ok=True)
    return written


def forget_pins(paths: RepoPaths) -> None:
    """Drop the hashes of pin ids; the next report cannot say how many pins are new or gone."""
    for path in paths.reports.glob("features-*.pins.parquet"):
        path.unlink(missing_ok=True)


def _reports(paths: RepoPaths) -> list[Path]:
    return sorted(paths.reports.glob("features-*.json"))


def _pins(paths: RepoPaths, made_at: str) -> Path:
    return paths.reports / f"features-{_stamp(made_at)}.pins.parquet"


def _stamp(made_at: str) -> str:
    return f"{datetime.fromisoformat(made_at):%Y%m%dT%H%M%S%f}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _write(path: Path, data: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path
