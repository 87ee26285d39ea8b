"""The judged sets whose pins `drift.py` edits: two of real shoppers, and the generated catalogue."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.machine import ROOT
from embedders.evaluation.metrics import NDCG_CUTOFF, Ints
from feature_repo.aggregates import aggregate
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields
from feature_repo.text import canonical_query
from feature_repo.validation import validate
from pinfeather.generate import NOW, generate_catalogue
from pinfeather.importers.crowdflower import import_crowdflower

DATA = ROOT.parent / "shared" / "data"
WEEK = timedelta(days=7)
SMALLEST_CATALOGUE = 100


@dataclass(frozen=True, eq=False)
class Judged:
    """n judged pairs of Q queries and P pins. Every query has at most 20 pins, all of which nDCG@20 ranks."""

    name: str
    queries: tuple[str, ...]
    """Q canonical queries."""
    query_of: Ints
    """[n] query number of each pair."""
    pin_of: Ints
    """[n] pin number of each pair."""
    levels: Ints
    """[n] 1 to 5."""
    pins: tuple[PinFields, ...]
    """P pins: title and description."""
    weekly: tuple[tuple[PinFields, ...], ...] = ()
    """What the set's own log and boards made of the pins, [rounds + 1][P]; empty where it has none."""


Row = tuple[str, str, int]
"""Canonical query, pin id, level."""


def crowdflower(pins: int, rounds: int, rng: np.random.Generator, data: Path) -> Judged | None:
    """Shopping queries with titles and descriptions; None where the set is not at hand."""
    path = data / "crowdflower" / "dev_pairs.parquet"
    if not path.is_file():
        return None
    with tempfile.TemporaryDirectory() as folder:
        import_crowdflower(path, Path(folder))
        rows = pq.read_table(Path(folder) / "judgments").select(["query", "pin_id", "level"]).to_pylist()
        texts = pq.read_table(Path(folder) / "pins").select(["pin_id", "title", "description"]).to_pylist()
    fields = {row["pin_id"]: PinFields.from_row(row) for row in texts}
    return _judged("crowdflower", [_row(row) for row in rows], fields, pins, rng)


def homedepot(pins: int, rounds: int, rng: np.random.Generator, data: Path) -> Judged | None:
    """Home improvement: many short queries, titles only; None where the set is not at hand."""
    path = data / "homedepot" / "dev_pairs.parquet"
    if not path.is_file():
        return None
    columns = ["query", "item_id", "title", "level5"]
    rows = [row | {"pin_id": str(row["item_id"]), "level": row["level5"]} for row in _rows(path, columns)]
    fields = {row["pin_id"]: PinFields(title=row["title"]) for row in rows}
    return _judged("homedepot", [_row(row) for row in rows], fields, pins, rng)


def generated(pins: int, rounds: int, rng: np.random.Generator, data: Path) -> Judged:
    """The project's own catalogue, its boards and log aggregated as of the end of each of the last weeks."""
    with tempfile.TemporaryDirectory() as folder:
        paths = RepoPaths(Path(folder))
        generate_catalogue(paths.raw, max(pins, SMALLEST_CATALOGUE), int(rng.integers(1 << 31)))
        validate(paths, NOW)
        weeks = []
        for week in range(rounds + 1):
            aggregate(paths, NOW - (rounds - week) * WEEK)
            weeks.append(_fields_of_views(paths))
        rows = [_row(row) for row in _rows(paths.valid / "judgments.parquet", ["query", "pin_id", "level"])]
    kept = sorted(set.intersection(*map(set, weeks)))  # pins that are younger have no history
    judged = _judged("generated", rows, {pin: weeks[0][pin] for pin in kept}, pins, rng, everything=True)
    return Judged(**{**judged.__dict__, "weekly": tuple(tuple(week[pin] for pin in kept) for week in weeks)})


SOURCES: dict[str, Callable[[int, int, np.random.Generator, Path], Judged | None]] = {
    "crowdflower": crowdflower,
    "homedepot": homedepot,
    "generated": generated,
}


def _rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    return pq.read_table(path, columns=columns).to_pylist()


def _row(row: dict[str, Any]) -> Row:
    return canonical_query(row["query"]), row["pin_id"], int(row["level"])


def _fields_of_views(paths: RepoPaths) -> dict[str, PinFields]:
    """Every pin of the views as they are now."""
    known: dict[str, dict[str, Any]] = {}
    for view in ("pin_text", "pin_captions", "pin_link_text", "pin_board_titles", "pin_engaged_queries"):
        for row in pq.read_table(paths.views / f"{view}.parquet").to_pylist():
            if view == "pin_text" or row["pin_id"] in known:
                known.setdefault(row["pin_id"], {}).update(row)
    return {pin: PinFields.from_row(row) for pin, row in known.items()}


def _judged(
    name: str,
    rows: list[Row],
    fields: dict[str, PinFields],
    pins: int,
    rng: np.random.Generator,
    everything: bool = False,
) -> Judged:
    """Whole queries in random order until there are ``pins`` pins; ``everything`` keeps every pin of ``fields``."""
    levels: dict[str, dict[str, list[int]]] = {}
    for query, pin, level in rows:
        if query and pin in fields:
            levels.setdefault(query, {}).setdefault(pin, []).append(level)
    numbers = {pin: number for number, pin in enumerate(fields)} if everything else {}
    queries: list[str] = []
    pairs: list[tuple[int, int, int]] = []
    for place in rng.permutation(len(levels)):
        query = list(levels)[place]
        own = list(levels[query])
        chosen = [own[each] for each in rng.permutation(len(own))[:NDCG_CUTOFF]]
        if not everything and queries and len(numbers.keys() | set(chosen)) > pins:
            break
        for pin in chosen:
            level = int(np.floor(np.median(levels[query][pin]) + 0.5))
            pairs.append((len(queries), numbers.setdefault(pin, len(numbers)), level))
        queries.append(query)
    query_of, pin_of, level_of = np.array(pairs, np.int64).T
    return Judged(name, tuple(queries), query_of, pin_of, level_of, tuple(fields[pin] for pin in numbers))
