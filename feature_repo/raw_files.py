"""Raw tables as files: found, read batch by batch with their schema checked, and results written all at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.columns import arrow_type, has_control, invalid_utf8, plain, understood
from feature_repo.contracts import TableContract
from feature_repo.errors import ContractError
from feature_repo.paths import RepoPaths

BATCH_ROWS = 131_072
SOURCE, ROW = "source_file", "row"
"""Columns of a rejected row: the raw file it is from, relative to ``data/raw``, and its place there from 0."""


def stored_schema(contract: TableContract) -> pa.Schema:
    """The schema of accepted rows."""
    return pa.schema([(column.name, arrow_type(column.kind)) for column in contract.columns])


def rejected_schema(contract: TableContract) -> pa.Schema:
    """The schema of rejected rows: everything as text, then reason, :data:`SOURCE` and :data:`ROW`."""
    texts = [(name, pa.string()) for name in (*contract.names, "reason", SOURCE)]
    return pa.schema([*texts, (ROW, pa.int64())])


class Writer:
    """A Parquet file that appears under its name all at once."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(self._part, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Add rows; they show with :meth:`commit`."""
        if self._writer and len(table):
            self._writer.write_table(table)

    def close(self) -> None:
        """End the file, which is not in place yet: many may wait without being open."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def commit(self) -> None:
        """Put the file in place."""
        self.close()
        os.replace(self._part, self.path)

    def discard(self) -> None:
        """Remove what was not committed."""
        self.close()
        self._part.unlink(missing_ok=True)


def find_files(paths: RepoPaths, contract: TableContract) -> list[Path]:
    """The Parquet files of a table; none is fine unless the table is required."""
    folder, single = paths.raw / contract.name, paths.raw / f"{contract.name}.parquet"
    files = sorted(path for path in folder.glob("*.parquet") if path.name[0] not in "._")
    if files and single.is_file():
        raise ContractError(
            f"Table {contract.name} is there twice: {single} and {len(files)} files in {folder}. Remove one of them."
        )
    if single.is_file():
        return [single]
    if not files and contract.required:
        raise ContractError(
            f"No {contract.name}: neither {folder / '*.parquet'} nor {single} exists. Make a catalogue with "
            f"`pinfeather generate`, convert one with `pinfeather import`, or copy Parquet files into {folder}."
        )
    return files


def read_batches(path: Path, contract: TableContract) -> Iterator[pa.RecordBatch]:
    """The contract's columns of one file.

    :raises ContractError: if the file cannot be read to its end, or its schema breaks the contract.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = _check_schema(path, file.schema_arrow, contract)
            yield from file.iter_batches(BATCH_ROWS, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ContractError(
            f"{path} cannot be read as Parquet ({str(error).strip()}). Expected a Parquet file with the columns "
            f"{', '.join(contract.names)} of table {contract.name}: write it anew, or take it out of the folder."
        ) from error


def _check_schema(path: Path, schema: pa.Schema, contract: TableContract) -> list[str]:
    """Names of the contract's columns that the file has."""
    names = []
    for column in contract.columns:
        count = schema.names.count(column.name)
        if count == 0 and not column.required:
            continue
        expected = f"expected {column.name} ({column.kind}, as {arrow_type(column.kind)})"
        if count == 0:
            raise ContractError(
                f"{path} lacks the column {column.name}: found {', '.join(schema.names) or 'no columns'}; {expected}. "
                f"Add or rename the column; {contract.name} needs "
                f"{', '.join(c.name for c in contract.columns if c.required)}."
            )
        if count > 1:
            raise ContractError(f"{path} has the column {column.name} {count} times: keep one of them.")
        if not understood(column.kind, found := schema.field(column.name).type):
            raise ContractError(f"{path}: column {column.name} has type {found}; {expected}. Cast it before writing.")
        names.append(column.name)
    return names


def readable(column: pa.ChunkedArray) -> pa.Array:
    """Raw values as text; bytes that are no UTF-8 and control characters are escaped with backslashes."""
    array = plain(column.combine_chunks())
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        return pa.array([_readable_list(value) for value in array], pa.string())
    if pa.types.is_timestamp(array.type) and array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))  # the zone's name may be unknown here
    if pa.types.is_floating(array.type):
        return _readable_floats(array.cast(pa.float64()))
    if not pa.types.is_string(array.type):
        return array.cast(pa.string())
    if invalid_utf8(array) is None and has_control(array) is None:
        return array
    return pa.array([_escape(value) for value in array.view(pa.binary()).to_pylist()], pa.string())


def _readable_floats(array: pa.Array) -> pa.Array:
    """Whole numbers as ids are stored: pandas turns integer ids with a gap into floats."""
    whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), 2.0**63))
    integers = pc.if_else(whole, array, pa.scalar(None, array.type)).cast(pa.int64(), safe=False)
    return pc.coalesce(integers.cast(pa.string()), array.cast(pa.string()))


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A, 0x0D)}


def _escape(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace").translate(_ESCAPES)


def _readable_list(value: pa.Scalar) -> str | None:
    if not value.is_valid:
        return None
    items = value.values
    return str(readable(pa.chunked_array([items])).to_pylist() if len(items) else [])
