"""Rows of Parquet files that name something: by the names of their columns, or by the hash that the aggregates keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.session import parquet
from feature_repo.erasures import BLANKED, SUBJECT_COLUMNS, Erasures, Subject, Subjects
from feature_repo.leftovers import find_leftovers, is_leftover
from feature_repo.paths import RepoPaths
from materialize.erasure.online import QUERY_LISTS, lists_query

NAMING = {**SUBJECT_COLUMNS, **{column: Subject.USER for columns in BLANKED.values() for column in columns}}
"""Columns that hold one name each."""
_HASHED_USER = "u"


def files_under(folder: Path, pattern: str = "*.parquet") -> list[Path]:
    """Files that are in place; links and what is unfinished are left out."""
    found = (path for path in folder.rglob(pattern) if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if not any(map(is_leftover, path.relative_to(folder).parts)))


def naming_rows(file: Path, looked: Erasures, *, escaped: bool = False) -> int:
    """How many rows of a file name something of ``looked``.

    :param escaped: the file holds rejected rows, whose control characters are spelled out.
    :raises OSError, pyarrow.ArrowException: if it cannot be read.
    """
    with pq.ParquetFile(file) as opened:
        names = opened.schema_arrow.names
        wanted = [name for name in (*NAMING, *QUERY_LISTS) if name in names]
        if not wanted:
            return 0
        return sum(naming_in(batch, looked, escaped=escaped) for batch in opened.iter_batches(columns=wanted))


def naming_in(batch: pa.RecordBatch, looked: Erasures, *, escaped: bool = False) -> int:
    """The same of one batch of these columns; each distinct value is looked at once."""
    hit = np.zeros(len(batch), dtype=np.bool_)
    for name in batch.schema.names:
        column = batch[name]
        if name in QUERY_LISTS:
            hit |= np.array([lists_query(looked, value) for value in column.to_pylist()], dtype=np.bool_)
        elif pa.types.is_string(column.type):  # else a number that stands for a name inside the aggregates
            hit |= looked.rows(NAMING[name], pa.chunked_array([column]), readable=escaped)
    return int(hit.sum())


def hashed_users(file: Path, subjects: Subjects) -> int:
    """Rows that have a user as the lower half of the MD5 of the id, as the state of the log does.

    :raises OSError, pyarrow.ArrowException: if it cannot be read.
    """
    import duckdb

    if not subjects.users or _HASHED_USER not in pq.read_schema(file).names:
        return 0
    with duckdb.connect() as con:
        found = con.execute(
            f"SELECT count(*) FROM {parquet([file])} "
            f"WHERE {_HASHED_USER} IN (SELECT md5_number_lower(unnest(?::VARCHAR[])))",
            [sorted(subjects.users)],
        ).fetchone()
    return int(found[0]) if found else 0


def unfinished(paths: RepoPaths, subjects: Subjects, looked: Erasures) -> list[tuple[Path, int, bool]]:
    """(file, what it has, whether its process may run) of every file of ``data`` that is not in place and has any.

    Of a Parquet file these are rows; whatever cannot be read as one counts as one, since nobody can say what is in it.
    The raw tables are the user's, and the store drops what a killed writer left when it is opened.
    """
    found = []
    for left in find_leftovers(paths.data, [paths.raw, paths.data / "online"]):
        for file in left.files():
            count = _unfinished_rows(file, subjects, looked, escaped=file.is_relative_to(paths.rejected))
            if count:
                found.append((file, count, left.in_use))
    return found


def _unfinished_rows(file: Path, subjects: Subjects, looked: Erasures, *, escaped: bool) -> int:
    try:
        with pq.ParquetFile(file) as opened:
            if "image_sha256" in (names := opened.schema_arrow.names) and "pin_id" not in names:
                return opened.metadata.num_rows if subjects.pins else 0  # captions; whose is not told
        return naming_rows(file, looked, escaped=escaped) + hashed_users(file, subjects)
    except FileNotFoundError:  # its process has just ended it
        return 0
    except (pa.ArrowException, OSError):
        return 1
