"""The judged pairs of a repository, with the features that serving would read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from embedders.evaluation.pairs import PairSet
from embedders.evaluation.slices import AGES, POPULARITY, band, languages
from embedders.targets import mean_targets, soft_targets
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields
from feature_repo.text import canonical_query
from materialize import vector_log
from materialize.releases import current_release
from materialize.scan import TEXT_COLUMNS, connect
from pinfeather.catalogue_rows import pins_sql

_DAY = 86_400 * 10**6
_COLUMNS = {
    **TEXT_COLUMNS,
    **{name: ("pin_relevance", name) for name in ("tokens", "click_rate", "save_rate")},
    "impressions": ("pin_engagement", "impressions"),
    "created_at": ("pin_text", "created_at"),
}


class NoJudgmentsError(PinfeatherError):
    """Nobody has judged a pin that is in the catalogue."""


def judged_pairs(paths: RepoPaths, space: str | None = None) -> PairSet:
    """Every (query, pin) that people judged, at the median of its levels (halves up), in query and pin order.

    Pins that are no longer in the catalogue are left out, and queries with them that have no other. The slices are the
    language of the query (as judged, else guessed), the impressions of the pin, and its age when it was last judged.

    :param space: its vector log gives the vectors; default is the live one.
    :raises NoJudgmentsError: without judgments.
    :raises PinfeatherError: before the first `materialize`.
    """
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"Nothing was materialized in {paths.root} yet: run `pinfeather materialize` first.")
    there = (paths.valid / "judgments.parquet").is_file()
    judgments, rows = _read(paths) if there else ([], {})
    levels, spoken, judged_at = _by_pair(judgments)
    if not levels:
        raise NoJudgmentsError(
            f"No judged pin of {paths.root} is in the catalogue: put rows (query, pin_id, level ...) into "
            f"{paths.raw / 'judgments'}, then `pinfeather validate` and `pinfeather aggregate`."
        )
    pins = {pin_id: number for number, pin_id in enumerate(sorted(rows))}
    pairs = sorted(levels)
    queries = tuple(query for query, _ in pairs)
    born = [rows[pin_id]["born"] for _, pin_id in pairs]
    ages = [None if at is None else (judged_at[pair] - at) / _DAY for pair, at in zip(pairs, born, strict=True)]
    return PairSet(
        name=paths.root.name,
        queries=queries,
        pins=tuple(PinFields.from_row(rows[pin_id]) for pin_id in pins),
        pin_of=np.array([pins[pin_id] for _, pin_id in pairs], np.int64),
        levels=np.array([int(np.floor(np.median(levels[pair]) + 0.5)) for pair in pairs], np.int64),
        targets=_targets(judgments, pairs),
        blobs=tuple(rows[pin_id]["tokens"] for pin_id in pins),
        pin_vectors=pin_vectors(paths, space or release.live_space, list(pins)),
        click_rate=pin_column(rows, pins, "click_rate"),
        save_rate=pin_column(rows, pins, "save_rate"),
        source=f"judgments of {paths.root.name}",
        pin_ids=tuple(pins),
        slices={
            "lang": languages(queries, [spoken.get(query) for query in queries]),
            "popularity": [band(rows[pin_id]["impressions"] or 0, POPULARITY) for _, pin_id in pairs],
            "age": [band(age, AGES) for age in ages],
        },
    )


def left_out(paths: RepoPaths) -> tuple[int, int]:
    """Judgments of pins that are not in the catalogue, and queries that have no others."""
    if not (paths.valid / "judgments.parquet").is_file():
        return 0, 0
    judgments, pins = (_quoted(path) for path in (paths.valid / "judgments.parquet", paths.views / "pin_text.parquet"))
    with connect() as con:
        gone, kept = (
            con.execute(f"SELECT query FROM {judgments} {kind} JOIN {pins} USING (pin_id)").fetchall()
            for kind in ("ANTI", "SEMI")
        )
    here = {canonical_query(query) for (query,) in kept}
    return len(gone), len({canonical_query(query) for (query,) in gone} - here)


def _targets(judgments: Iterable[tuple[Any, ...]], pairs: list[tuple[str, str]]) -> np.ndarray:
    """[n, 5] what training aims at: the mean over the judgments of each pair, each as sure as its raters agreed."""
    numbers = {pair: number for number, pair in enumerate(pairs)}
    of = [numbers.get((canonical_query(row[0]), row[1]), -1) for row in judgments]
    kept = [(number, row) for number, row in zip(of, judgments, strict=True) if number >= 0]
    levels = np.array([row[2] for _, row in kept], np.int64)
    means, variances = (np.array([row[at] for _, row in kept], np.float64) for at in (5, 6))
    return mean_targets(soft_targets(levels, means, variances), np.array([number for number, _ in kept]), len(pairs))


def _by_pair(
    judgments: Iterable[tuple[Any, ...]],
) -> tuple[dict[tuple[str, str], list[int]], dict[str, str], dict[tuple[str, str], int]]:
    """Levels by (canonical query, pin), the language that most judgments of a query name, and the last time by pair."""
    levels: dict[tuple[str, str], list[int]] = {}
    named: dict[str, Counter[str]] = {}
    last: dict[tuple[str, str], int] = {}
    for query, pin_id, level, lang, when, *_ in judgments:
        if text := canonical_query(query):
            levels.setdefault((text, pin_id), []).append(level)
            last[text, pin_id] = max(when, last.get((text, pin_id), when))
            if lang:
                named.setdefault(text, Counter())[lang] += 1
    return levels, {query: min(found, key=lambda lang: (-found[lang], lang)) for query, found in named.items()}, last


def _read(paths: RepoPaths) -> tuple[list[tuple[Any, ...]], dict[str, dict[str, Any]]]:
    """Judgments (query, pin, level, language, microseconds, raters' mean, variance), and features of judged pins."""
    judgments, pins = (_quoted(path) for path in (paths.valid / "judgments.parquet", paths.views / "pin_text.parquet"))
    with connect() as con:
        there = con.execute(f"SELECT * FROM {judgments} LIMIT 0").fetch_arrow_table().column_names
        # validated before these columns were allowed?
        raters = ", ".join(name if name in there else "NULL" for name in ("level_mean", "level_variance"))
        judged = con.execute(
            f"SELECT query, pin_id, level, lang, epoch_us(event_timestamp), {raters} FROM {judgments} "
            f"SEMI JOIN {pins} USING (pin_id)"
        ).fetchall()
        reader = con.execute(
            f"SELECT * EXCLUDE (created_at), epoch_us(created_at) AS born FROM ({pins_sql(paths, _COLUMNS)}) "
            f"SEMI JOIN {judgments} USING (pin_id)"
        ).fetch_arrow_table()
    return judged, {row["pin_id"]: row for row in reader.to_pylist()}


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def pin_vectors(paths: RepoPaths, space: str, pins: list[str]) -> np.ndarray:
    """[n, d] vectors of a space's log, NaN where it has none of a pin."""
    pin_ids, vectors, _ = vector_log.read_live(paths, space)
    places = {pin_id: row for row, pin_id in enumerate(pin_ids)}
    matrix = np.full((len(pins), vectors.shape[1]), np.nan, np.float32)
    for row, pin_id in enumerate(pins):
        if pin_id in places:
            matrix[row] = vectors[places[pin_id]]
    return matrix


def pin_column(rows: dict[str, dict[str, Any]], pins: dict[str, int], name: str) -> np.ndarray:
    """[n] a scalar of pins by their rows, NaN where it is missing."""
    return np.array([np.nan if rows[pin][name] is None else rows[pin][name] for pin in pins], np.float64)
