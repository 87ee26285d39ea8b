"""Source of ``query_pin_engagement``, by far the longest: two sorted streams of numbers become one, then get texts.

What is kept of the pairs is in the order of the source already, whatever queries and pins come to it, so only the patch
of the last days is sorted. All this is done beside the other stages, without DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.arrays import column, numbers
from feature_repo.aggregates.engagement import PRIOR_CLICKS, PRIOR_ENGAGED, PRIOR_SAVES, rates
from feature_repo.aggregates.log import Log
from feature_repo.aggregates.session import BATCH_ROWS, Session, literal
from feature_repo.errors import PinfeatherError

VIEW = "query_pin_engagement"
_NUMBERS = ("impressions", "clicks", "long_clicks", "saves", "engaged", "t")

Integers = npt.NDArray[np.int64]
Rows = tuple[Integers, ...]
"""The key (place of the query * 2^32 + place of the pin), then ``_NUMBERS``; all of one length."""


def write_pairs(session: Session, log: Log) -> None:
    """Starts to write ``query_pin_engagement``, of the tables ``asked`` and ``seen``."""
    queries = session.texts("SELECT query FROM asked ORDER BY place")
    pins = session.texts("SELECT pin_id FROM seen ORDER BY place")
    place = _places(session, "asked", "q"), _places(session, "seen", "p")
    patch = session.scratch / "pair_patch.parquet"
    session.con.execute(
        f"""COPY (SELECT q, p, {", ".join(_NUMBERS)} FROM {log.state.now("pair_patch")}
                    JOIN (SELECT q, place AS a FROM asked) USING (q) JOIN (SELECT p, place AS s FROM seen) USING (p)
                  ORDER BY a, s) TO {literal(patch)} (FORMAT parquet, COMPRESSION lz4_raw)"""
    )
    base, changed = (_read(files, *place) for files in (log.state.files["pairs"], [patch]))

    def named(rows: Rows) -> list[pa.Array]:
        key, impressions, clicks, long_clicks, saves, engaged, t = rows
        smoothed = [
            rates(engaged, PRIOR_ENGAGED, impressions),
            rates(clicks, PRIOR_CLICKS, impressions),
            rates(saves, PRIOR_SAVES, impressions),
        ]
        counts: list[npt.NDArray[Any]] = [impressions, clicks, long_clicks, saves, *smoothed, t]
        return [queries.take(column(key >> 32)), pins.take(column(key & 0xFFFFFFFF)), *map(column, counts)]

    rows = even(merged(base, changed), BATCH_ROWS)
    session.encode(VIEW, map(named, rows), compression="lz4", beside=True)


def _places(session: Session, table: str, key: str) -> Integers:
    """By number of the dictionary the place from 0 in a table; -1 for what is not in it."""
    found = session.con.execute(f"SELECT {key}, place - 1 AS place FROM {table}").arrow()
    keys, place = (numbers(found[name].combine_chunks()) for name in (key, "place"))
    places = np.full(int(keys.max(initial=-1)) + 2, -1, np.int64)  # the last one is that of all beyond
    places[keys] = place
    return places


def _read(files: Iterable[Path], query_place: Integers, pin_place: Integers) -> Iterator[Rows]:
    """The rows of sorted files whose query and pin have a place."""
    last = -1
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=["q", "p", *_NUMBERS]):
                q, p, *counts = map(numbers, batch.columns)
                a, s = query_place.take(q, mode="clip"), pin_place.take(p, mode="clip")
                there = np.flatnonzero((a >= 0) & (s >= 0))
                if not len(there):
                    continue
                key = (a[there] << 32) | s[there]
                if key[0] <= last or (np.diff(key) <= 0).any():
                    raise PinfeatherError(
                        f"{path} is not in the order it was written in: run `pinfeather aggregate --full`, which "
                        "counts the search log anew."
                    )
                last = int(key[-1])
                yield (key, *(values[there] for values in counts))


def merged(base: Iterator[Rows], patch: Iterator[Rows]) -> Iterator[Rows]:
    """The rows of both in the order of their keys; a row of the patch stands for that of the base, with none for none.

    :param base, patch: in ascending order of keys, across and within their items.
    """
    waiting: list[Rows] = []
    for rows in base:
        mine: list[Rows] = []
        while True:
            if not waiting and (more := next(patch, None)) is not None:
                waiting.append(more)
            if not waiting:
                break
            (held,) = waiting
            end = int(np.searchsorted(held[0], rows[0][-1], side="right"))
            mine.append(_cut(held, slice(end)))
            waiting = [_cut(held, slice(end, None))] if end < len(held[0]) else []
            if waiting:
                break
        yield _woven(rows, mine)
    for held in (*waiting, *patch):
        yield _cut(held, held[1] > 0)


def _woven(base: Rows, parts: list[Rows]) -> Rows:
    patch = _joined(parts) if parts else _cut(base, slice(0))
    if not len(patch[0]):
        return base
    near = patch[0].take(np.searchsorted(patch[0], base[0]), mode="clip")
    both = _joined([_cut(base, near != base[0]), _cut(patch, patch[1] > 0)])
    order = np.argsort(both[0], kind="stable")  # two sorted runs: one pass
    return tuple(column[order] for column in both)


def even(parts: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """The same rows, so many at a time, so that equal rows give equal files."""
    waiting: list[Rows] = []
    for part in parts:
        waiting.append(part)
        while sum(len(one[0]) for one in waiting) >= rows:
            whole = _joined(waiting)
            yield _cut(whole, slice(rows))
            waiting = [_cut(whole, slice(rows, None))]
    if waiting and len((rest := _joined(waiting))[0]):
        yield rest


def _cut(rows: Rows, which: slice | npt.NDArray[np.bool_]) -> Rows:
    return tuple(column[which] for column in rows)


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
