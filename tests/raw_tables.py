"""Raw tables as a test writes them, and what validation made of them."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
THEN = datetime(2025, 6, 1, 8, 30, tzinfo=UTC)


def put(paths, table, columns, name="a"):
    folder = paths.raw / table
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def pins(count, **columns):
    return {"pin_id": [f"p{i}" for i in range(count)], "event_timestamp": [THEN] * count, **columns}


def good_pins(paths):
    put(paths, "pins", pins(1))


def valid(paths, table="pins"):
    return [row for file in paths.valid_files(table) for row in pq.read_table(file).to_pylist()]


def rejected(paths, table="pins"):
    return [row for file in paths.rejected_files(table) for row in pq.read_table(file).to_pylist()]
