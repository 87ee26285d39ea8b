"""What every view shares: its Parquet source, timestamps, owner and tags."""

from __future__ import annotations

from pathlib import Path

from feast import FileSource
from feast.data_format import ParquetFormat

OWNER = "pinfeather"


def parquet_source(name: str, path: Path | str, description: str) -> FileSource:
    """A Parquet source with the two timestamps of every view.

    ``path`` must be absolute: Feast's DuckDB store resolves a relative one against the working directory.
    """
    return FileSource(
        name=f"{name}_source",
        path=str(path),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        description=description,
        owner=OWNER,
    )


def tags(kind: str, **more: str) -> dict[str, str]:
    """Tags of a view: its kind (content, engagement, model, embedding) and what else a reader filters by."""
    return {"kind": kind, **more}
