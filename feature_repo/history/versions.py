"""What the pins said in the past: every row of ``pins`` that was seen, kept when a later edit replaces it.

``pins`` has one row for each pin, so an edit takes the old text with it. :func:`remember_pins` copies rows that are
not as they were to ``data/pin_versions/part-*.parquet``; a past time then reads the version that held at it.

A version holds from its ``event_timestamp`` on, if that is later than the start of the version before it. Else nobody
knows when the row was changed: it holds from when it was seen, so that no later text gets into the past.

A pin that is gone from the table or deleted loses its versions: what was taken down is not kept for training. One whose
row `validate` rejected keeps them, for its row will be repaired.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.aggregates import Resources
from feature_repo.aggregates.session import literal, microseconds
from feature_repo.contracts import CONTRACTS
from feature_repo.history.tables import connected, count, files_sql, pins_sql
from feature_repo.paths import RepoPaths
from feature_repo.rejected import rejected_sql

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

MOST_GONE = 0.2
"""If more than this share of 20 or more known pins is gone, the delivery is doubted and nothing is forgotten."""

STARTS = "starts"
"""Column of a version: the microsecond from which on it holds. Later versions of a pin have later ones."""

_UNREAD = ("image_uri",)
"""Columns that are in no view: an address that is signed anew with each delivery is no edit."""


@dataclass(frozen=True)
class Remembered:
    """What :func:`remember_pins` did: rows that were new, pins whose versions were removed."""

    new: int
    forgotten: int


def version_parts(paths: RepoPaths) -> list[Path]:
    """The files of pin versions, oldest first."""
    return sorted((paths.data / "pin_versions").glob("part-*.parquet"))


def remember_pins(paths: RepoPaths, resources: Resources | None = None, now: datetime | None = None) -> Remembered:
    """Note the rows of the valid pins that are new; twice is once. Run it after each `validate` to lose no edit.

    :param now: when the rows are seen; without a zone it is UTC. Default: now.
    :raises ContractError: if there are no valid pins.
    """
    seen = microseconds(now or datetime.now(UTC))
    with connected(paths, resources or Resources()) as con:
        forgotten = _forget_gone(con, paths)
        return Remembered(_append(con, paths, seen), forgotten)


def _append(con: duckdb.DuckDBPyConnection, paths: RepoPaths, seen: int) -> int:
    """Writes one part of the rows that differ from the last version of their pin."""
    parts = version_parts(paths)
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE last AS
            SELECT pin_id, {_digest(con, files_sql(parts))} AS digest, {STARTS} FROM {files_sql(parts)}
            QUALIFY row_number() OVER (PARTITION BY pin_id ORDER BY {STARTS} DESC) = 1"""
        if parts
        else f"CREATE OR REPLACE TEMP TABLE last AS SELECT ''::VARCHAR AS pin_id, 0::UBIGINT AS digest, 0 AS {STARTS}"
    )
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE fresh AS
            SELECT p.*, CASE WHEN l.{STARTS} IS NULL OR epoch_us(event_timestamp) > l.{STARTS}
                             THEN epoch_us(event_timestamp) ELSE greatest({seen}, l.{STARTS} + 1) END AS {STARTS}
            FROM (SELECT *, {_digest(con, pins_sql(paths))} AS digest FROM {pins_sql(paths)}) p
              LEFT JOIN last l USING (pin_id)
            WHERE p.deleted_at IS NULL AND l.digest IS DISTINCT FROM p.digest"""
    )
    rows = count(con, "SELECT count(*) FROM fresh")
    if rows:
        number = int(parts[-1].stem.split("-")[1]) + 1 if parts else 1
        name = f"part-{number:06d}-{os.getpid()}.parquet"  # two processes at once both keep theirs
        _write(con, "SELECT * EXCLUDE (digest) FROM fresh ORDER BY pin_id", paths.data / "pin_versions" / name)
    con.execute("DROP TABLE fresh; DROP TABLE last")
    return rows


def _digest(con: duckdb.DuckDBPyConnection, source: str) -> str:
    """SQL of a hash of all that is read of a row of pins; a column that ``source`` lacks is null."""
    there = {name for name, *_ in con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    names = (column.name for column in CONTRACTS["pins"].columns if column.name not in _UNREAD)
    return f"hash({', '.join(name if name in there else 'NULL' for name in names)})"


def _forget_gone(con: duckdb.DuckDBPyConnection, paths: RepoPaths) -> int:
    """Takes pins that are gone or deleted out of every part; not those whose row was rejected."""
    parts = version_parts(paths)
    if not parts:
        return 0
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE known AS SELECT DISTINCT pin_id FROM {files_sql(parts)};
            CREATE OR REPLACE TEMP TABLE gone AS SELECT pin_id FROM known
            ANTI JOIN (SELECT pin_id FROM {pins_sql(paths)} WHERE deleted_at IS NULL) there USING (pin_id)
            ANTI JOIN (SELECT pin_id FROM ({rejected_sql(paths)}) WHERE deleted_at IS NULL) broken USING (pin_id)"""
    )
    known, gone = (count(con, f"SELECT count(*) FROM {table}") for table in ("known", "gone"))
    if known >= 20 and gone > MOST_GONE * known:
        logger.warning(
            "%d of %d pins are gone from the pins table: past texts are kept until less than %d %% are. If it is "
            "right, remove %s.", gone, known, MOST_GONE * 100, paths.data / "pin_versions",
        )  # fmt: skip
        return 0
    if gone:
        remove_versions(con, parts)
    return gone


def remove_versions(con: duckdb.DuckDBPyConnection, parts: list[Path]) -> None:
    """Rewrites every part that has a pin of the table ``gone``, without it."""
    for part in parts:
        if count(con, f"SELECT count(*) FROM {files_sql([part])} SEMI JOIN gone USING (pin_id)"):
            _write(con, f"SELECT * FROM {files_sql([part])} ANTI JOIN gone USING (pin_id) ORDER BY pin_id", part)


def _write(con: duckdb.DuckDBPyConnection, sql: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    con.execute(f"COPY ({sql}) TO {literal(part)} (FORMAT parquet, COMPRESSION zstd)")
    os.replace(part, path)


def write_pins_as_of(con: duckdb.DuckDBPyConnection, paths: RepoPaths, as_of: int, out: Path) -> None:
    """Writes the pins table of the time ``as_of`` (microseconds) to ``out``, and table ``nameless``.

    Of each pin that is in the table today, the latest version that had started by then; today's row where there is no
    version, and as a later one where the pin is deleted. A pin that was there by then (``created_at``) but has only
    later versions gets a row without any text, so that what people did with it still counts; such pins are in
    ``nameless``. A deletion counts by its own time, whichever version says so.
    """
    parts = version_parts(paths)
    today = f"SELECT *, epoch_us(event_timestamp) AS {STARTS}, 0 AS rank FROM {pins_sql(paths)}"
    versions = f"""SELECT *, 1 AS rank FROM {files_sql(parts)} UNION ALL BY NAME
        {today} WHERE deleted_at IS NOT NULL OR pin_id NOT IN (SELECT pin_id FROM {files_sql(parts)})"""
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE latest AS
              SELECT * EXCLUDE (rank, {STARTS}) FROM ({versions if parts else today}) WHERE {STARTS} <= {as_of}
              QUALIFY row_number() OVER (PARTITION BY pin_id ORDER BY {STARTS} DESC, rank DESC) = 1;
            CREATE OR REPLACE TEMP TABLE nameless AS
              SELECT pin_id, created_at, created_at AS event_timestamp, deleted_at
              FROM {pins_sql(paths)} ANTI JOIN latest USING (pin_id) WHERE epoch_us(created_at) <= {as_of};
            COPY (
              SELECT l.* REPLACE (least(l.deleted_at, now.deleted_at) AS deleted_at)
              FROM latest l JOIN (SELECT pin_id, deleted_at FROM {pins_sql(paths)}) now USING (pin_id)
              UNION ALL BY NAME SELECT * FROM nameless ORDER BY pin_id
            ) TO {literal(out)} (FORMAT parquet, COMPRESSION zstd)"""
    )
    con.execute("DROP TABLE latest")


def stamp_parts(paths: RepoPaths) -> list[Path]:
    """Files that :func:`write_pins_as_of` reads."""
    return [*paths.valid_files("pins"), *version_parts(paths)]
