"""Samples and a teacher's labels without what was erased: they name queries and pins, and people only indirectly.

Of a user no row says who asked a query. So a query leaves with its pairs if only erased people asked it: if the search
log bears it in rows that leave with a user, and neither the log nor the judgments do in one that stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.columns import as_mask
from feature_repo.erasures import Erasures, Subject
from feature_repo.errors import PinfeatherError
from feature_repo.leftovers import is_leftover
from feature_repo.paths import RepoPaths
from feature_repo.raw_files import BATCH_ROWS, Writer
from feature_repo.text import canonical_query

_Lists = Sequence[Erasures]


def erase_pairs(paths: RepoPaths, lists: _Lists) -> dict[str, int]:
    """Take what the lists have out of ``samples`` and ``labels``; rows that left, by folder, where any did.

    The caller holds :func:`~feature_repo.erasures.tables_locked`, and calls this while the tables still have the rows
    that are to leave: they tell who asked what. Killed, it can be repeated.
    """
    folders = {"samples": paths.samples, "labels": paths.labels}
    files = {name: sorted(_files(folder)) for name, folder in folders.items()}
    if not any(files.values()):
        return {}
    alone = pa.array(sorted(queries_of_nobody_else(paths, lists)), pa.string())
    left = {name: sum(_rewrite(file, lists, alone) for file in found) for name, found in files.items()}
    return {name: rows for name, rows in left.items() if rows}


def queries_of_nobody_else(paths: RepoPaths, lists: _Lists) -> set[str]:
    """Canonical queries that only users of the lists asked, as the valid tables have it now."""
    found: set[str] = set()
    if any(subject is Subject.USER for erasures in lists for subject, _ in erasures.entries):
        for rows in _rows(paths, "search_log", ["query", "user_id"]):
            found |= _queries(rows, _listed(lists, Subject.USER, rows["user_id"]))
    if found:
        for rows in _rows(paths, "search_log", ["query", "user_id"]):
            found -= _queries(rows, ~_listed(lists, Subject.USER, rows["user_id"]))
        for rows in _rows(paths, "judgments", ["query"]):
            found -= _queries(rows, np.ones(len(rows), np.bool_))
    return found


def _rows(paths: RepoPaths, table: str, columns: list[str]) -> Iterator[pa.Table]:
    for file in paths.valid_files(table):
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(BATCH_ROWS, columns=columns):
                yield pa.Table.from_batches([batch])


def _queries(rows: pa.Table, wanted: npt.NDArray[np.bool_]) -> set[str]:
    return set(map(canonical_query, rows["query"].filter(pa.array(wanted)).unique().to_pylist()))


def _listed(lists: _Lists, subject: Subject, names: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(names), np.bool_)
    for erasures in lists:
        found |= erasures.rows(subject, names)
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.parquet") if not is_leftover(path.name))


def _unreadable(file: Path, why: str) -> str:
    return (
        f"{file} cannot be read ({why}), so nobody knows whom it names. Delete it (samples are drawn "
        "and labels are made again) and repeat the erasure."
    )


def _rewrite(file: Path, lists: _Lists, alone: pa.Array) -> int:
    """Rows that left ``file``, which is written anew only if any do."""

    def leaving(rows: pa.Table) -> npt.NDArray[np.bool_]:
        found = as_mask(pc.is_in(rows["query"], alone).combine_chunks())
        found = found | _listed(lists, Subject.QUERY, rows["query"])
        return found | _listed(lists, Subject.PIN, rows["pin_id"])

    try:
        names = pq.read_schema(file).names
    except (OSError, pa.ArrowException) as error:
        raise PinfeatherError(_unreadable(file, str(error))) from error
    if missing := {"query", "pin_id"} - set(names):
        raise PinfeatherError(_unreadable(file, f"no column {sorted(missing)[0]}"))
    with pq.ParquetFile(file) as opened:
        narrow = opened.iter_batches(BATCH_ROWS, columns=["query", "pin_id"])
        left = sum(int(leaving(pa.Table.from_batches([batch])).sum()) for batch in narrow)
        if not left:
            return 0
        writer = Writer(file, opened.schema_arrow)
        for batch in opened.iter_batches(BATCH_ROWS):
            rows = pa.Table.from_batches([batch])
            writer.write(rows.filter(pa.array(~leaving(rows))))
    writer.commit()
    return left
