"""Pins of which only rows are left that `validate` rejected: they are not gone, their last delivery was broken."""

from __future__ import annotations

import pyarrow.parquet as pq

from feature_repo.aggregates.session import parquet
from feature_repo.paths import RepoPaths

NEVER = "SELECT NULL::VARCHAR AS pin_id, NULL::TIMESTAMPTZ AS deleted_at WHERE false"
"""SQL of no pin at all."""


def rejected_sql(paths: RepoPaths) -> str:
    """SQL of the pins of the snapshot that only have rows that `validate` rejected: ``pin_id, deleted_at``.

    Of several rows the latest counts. ``deleted_at`` is null where it is no time, or one that has not come.
    """
    rejected, valid = paths.rejected / "pins.parquet", paths.valid / "pins.parquet"
    if not rejected.is_file():
        return NEVER
    names = pq.read_schema(rejected).names
    deleted = "TRY_CAST(deleted_at AS TIMESTAMPTZ)" if "deleted_at" in names else "NULL::TIMESTAMPTZ"
    latest = "TRY_CAST(event_timestamp AS TIMESTAMPTZ) DESC NULLS LAST, " if "event_timestamp" in names else ""
    accepted = f"AND pin_id NOT IN (SELECT pin_id FROM {parquet([valid])})" if valid.is_file() else ""
    return (
        f"SELECT pin_id::VARCHAR AS pin_id, CASE WHEN {deleted} <= now() THEN {deleted} END AS deleted_at "
        f"FROM {parquet([rejected])} WHERE pin_id <> '' {accepted} "
        f"QUALIFY row_number() OVER (PARTITION BY pin_id ORDER BY {latest}{deleted} DESC NULLS LAST) = 1"
    )
