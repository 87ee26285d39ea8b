"""The judged pairs of a repository, with the features that serving would read."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields
from feature_repo.text import canonical_query
from materialize import vector_log
from materialize.releases import current_release
from materialize.scan import TEXT_COLUMNS, connect, quote


class NoJudgmentsError(PinfeatherError):
    """Nobody has judged a pin that is in the catalogue."""


def judged_pairs(paths: RepoPaths, space: str | None = None) -> PairSet:
    """Every (query, pin) that people judged, at the median of its levels (halves up), in query and pin order.

    Pins that are no longer in the catalogue are left out.

    :param space: its vector log gives the vectors; default is the live one.
    :raises NoJudgmentsError: without judgments.
    :raises PinfeatherError: before the first `materialize`.
    """
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"Nothing was materialized in {paths.root} yet: run `pinfeather materialize` first.")
    there = (paths.valid / "judgments.parquet").is_file()
    levels, rows = _read(paths) if there else ({}, {})
    if not levels:
        raise NoJudgmentsError(
            f"No judged pin of {paths.root} is in the catalogue: put rows (query, pin_id, level ...) into "
            f"{paths.raw / 'judgments'}, then `pinfeather validate` and `pinfeather aggregate`."
        )
    pins = {pin_id: number for number, pin_id in enumerate(sorted(rows))}
    pairs = sorted(levels)
    return PairSet(
        name=paths.root.name,
        queries=tuple(query for query, _ in pairs),
        pins=tuple(PinFields.from_row(rows[pin_id]) for pin_id in pins),
        pin_of=np.array([pins[pin_id] for _, pin_id in pairs], np.int64),
        levels=np.array([int(np.floor(np.median(levels[pair]) + 0.5)) for pair in pairs], np.int64),
        blobs=tuple(rows[pin_id]["tokens"] for pin_id in pins),
        pin_vectors=_vectors(paths, space or release.live_space, list(pins)),
        click_rate=_column(rows, pins, "click_rate"),
        save_rate=_column(rows, pins, "save_rate"),
        source=f"judgments of {paths.root.name}",
    )


def _read(paths: RepoPaths) -> tuple[dict[tuple[str, str], list[int]], dict[str, dict[str, Any]]]:
    """Levels by (canonical query, pin), and the features of each judged pin."""

    def file(name: str) -> str:
        return "'" + str(paths.views / f"{name}.parquet").replace("'", "''") + "'"

    judgments = "'" + str(paths.valid / "judgments.parquet").replace("'", "''") + "'"
    views = sorted({view for view, _ in TEXT_COLUMNS.values()} - {"pin_text"})
    columns = ", ".join(
        f"{quote(view)}.{quote(feature)} AS {quote(name)}" for name, (view, feature) in TEXT_COLUMNS.items()
    )
    joins = " ".join(f"LEFT JOIN {file(view)} AS {quote(view)} USING (pin_id)" for view in (*views, "pin_relevance"))
    with connect() as con:
        judged = con.execute(
            f"SELECT query, pin_id, level FROM {judgments} SEMI JOIN {file('pin_text')} USING (pin_id)"
        ).fetchall()
        reader = con.execute(
            f"SELECT pin_id, {columns}, tokens, click_rate, save_rate FROM {file('pin_text')} AS pin_text {joins} "
            f"SEMI JOIN {judgments} USING (pin_id)"
        ).fetch_arrow_table()
    levels: dict[tuple[str, str], list[int]] = {}
    for query, pin_id, level in judged:
        if text := canonical_query(query):
            levels.setdefault((text, pin_id), []).append(level)
    return levels, {row["pin_id"]: row for row in reader.to_pylist()}


def _vectors(paths: RepoPaths, space: str, pins: list[str]) -> np.ndarray:
    pin_ids, vectors, _ = vector_log.read_live(paths, space)
    places = {pin_id: row for row, pin_id in enumerate(pin_ids)}
    matrix = np.full((len(pins), vectors.shape[1]), np.nan, np.float32)
    for row, pin_id in enumerate(pins):
        if pin_id in places:
            matrix[row] = vectors[places[pin_id]]
    return matrix


def _column(rows: dict[str, dict[str, Any]], pins: dict[str, int], name: str) -> np.ndarray:
    return np.array([np.nan if rows[pin][name] is None else rows[pin][name] for pin in pins], np.float64)
