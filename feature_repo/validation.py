"""Raw tables checked row by row: good rows to ``data/valid``, the others to ``data/rejected`` with the reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.columns import arrow_type, cast, has_control, invalid_utf8, plain, understood
from feature_repo.contracts import CONTRACTS, TableContract
from feature_repo.errors import ContractError
from feature_repo.paths import RepoPaths

BATCH_ROWS = 131_072

Progress = Callable[[str, int], None]
"""Called with the table and the rows checked so far."""

_SOURCE = "source_file"
_ROW = "row"


@dataclass(frozen=True)
class TableReport:
    """What became of one raw table."""

    table: str
    files: int
    rows: int
    accepted: int
    rejected: dict[str, int]
    """Rejected rows by reason, most frequent first."""

    @property
    def total_rejected(self) -> int:
        """Rejected rows of this table."""
        return sum(self.rejected.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather validate --json``."""
        return {"files": self.files, "rows": self.rows, "accepted": self.accepted, "rejected": self.rejected}


@dataclass(frozen=True)
class ValidationReport:
    """What became of every raw table, in the order of ``CONTRACTS``."""

    tables: dict[str, TableReport]

    @property
    def total_rejected(self) -> int:
        """Rejected rows of all tables."""
        return sum(table.total_rejected for table in self.tables.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather validate --json``."""
        tables = {name: table.to_json() for name, table in self.tables.items()}
        return {"tables": tables, "total_rejected": self.total_rejected}


def validate(paths: RepoPaths, now: datetime | None = None, progress: Progress | None = None) -> ValidationReport:
    """Reads ``data/raw``, writes ``data/valid/<table>.parquet`` and ``data/rejected/<table>.parquet``.

    A row that breaks its contract is rejected with a reason and the run goes on. Nothing replaces older results before
    every table was read to its end.

    :param now: bounds timestamps; without a zone it is UTC.
    :raises ContractError: for a file that cannot be read, a required column that is missing, a column whose type cannot
        be understood, or no ``pins`` at all.
    """
    now = now or datetime.now(UTC)
    now = now if now.tzinfo else now.replace(tzinfo=UTC)
    runs: list[_TableRun] = []
    try:
        for contract in CONTRACTS.values():
            runs.append(_TableRun(paths, contract, now))
            runs[-1].read(progress)
        for run in runs:
            run.commit()
    finally:
        for run in runs:
            run.discard()
    return ValidationReport({run.contract.name: run.report() for run in runs})


class _TableRun:
    """One pass over the files of one table."""

    def __init__(self, paths: RepoPaths, contract: TableContract, now: datetime) -> None:
        self.contract = contract
        self.now = now
        self.raw = paths.raw
        self.files = _find_files(paths, contract)
        self.rows = 0
        self.accepted = 0
        self.reasons: Counter[str] = Counter()
        fields = [pa.field(column.name, arrow_type(column.kind)) for column in contract.columns]
        self.schema = pa.schema(fields)
        texts = [pa.field(name, pa.string()) for name in (*contract.names, "reason", _SOURCE)]
        self.valid = _Writer(paths.valid / f"{contract.name}.parquet", self.schema)
        self.rejected = _Writer(paths.rejected / f"{contract.name}.parquet", pa.schema([*texts, (_ROW, pa.int64())]))
        self.held: list[pa.Table] = []

    def read(self, progress: Progress | None) -> None:
        """Every file, batch by batch; a snapshot table is held until its duplicates are known."""
        for path in self.files:
            source, row = path.relative_to(self.raw).as_posix(), 0
            for batch in _batches(path, self.contract):
                self._check(batch, source, row)
                row += len(batch)
                self.rows += len(batch)
                if progress:
                    progress(self.contract.name, self.rows)
        if self.held:
            self._write_latest(pa.concat_tables(self.held))

    def _check(self, batch: pa.RecordBatch, source: str, first_row: int) -> None:
        batch = pa.RecordBatch.from_arrays([plain(column) for column in batch.columns], batch.schema.names)
        found = _Codes(len(batch))
        columns = {}
        for column in self.contract.columns:
            if column.name not in batch.schema.names:
                columns[column.name] = pa.repeat(pa.scalar(column.default, arrow_type(column.kind)), len(batch))
                continue
            result = cast(batch[column.name], column, self.now)
            columns[column.name] = result.values
            for rows, reason in result.problems:
                found.add(rows, reason)
        table = pa.table(columns, schema=self.schema)
        bad = np.flatnonzero(found.codes)
        if len(bad):
            raw = pa.Table.from_batches([batch]).take(pa.array(bad))
            self._reject(raw, found.texts(bad), [source] * len(bad), bad + first_row)
            table = table.filter(pa.array(found.codes == 0))
        if self.contract.unique is None:
            self._accept(table)
        else:
            rows = pa.array(np.flatnonzero(found.codes == 0) + first_row)
            sources = pa.array([source]).dictionary_encode().take(pa.array(np.zeros(len(table), dtype=np.int64)))
            self.held.append(table.append_column(_SOURCE, sources).append_column(_ROW, rows))

    def _write_latest(self, table: pa.Table) -> None:
        """Of each id the row with the latest time, the last one among equals; the order of the input stays."""
        key, time = self.contract.unique or "", self.contract.latest_by
        table = table.unify_dictionaries()
        older = _older_copies(table[key], table[time])
        if older.any():
            lost = table.filter(pa.array(older))
            reason = f"{key}: duplicate, a row with the same or a later {time} was kept; deliver one row per {key}"
            self._reject(lost, [reason] * len(lost), lost[_SOURCE].to_pylist(), lost[_ROW].to_numpy())
            table = table.filter(pa.array(~older))
        self._accept(table.select(self.contract.names))

    def _accept(self, table: pa.Table) -> None:
        self.accepted += len(table)
        self.valid.write(table)

    def _reject(self, raw: pa.Table, reasons: list[str], sources: list[str], rows: npt.NDArray[np.int64]) -> None:
        self.reasons.update(reasons)
        columns = [
            _readable(raw[name]) if name in raw.column_names else pa.nulls(len(raw), pa.string())
            for name in self.contract.names
        ]
        self.rejected.write(pa.Table.from_arrays([*columns, reasons, sources, rows], schema=self.rejected.schema))

    def commit(self) -> None:
        """Puts both results in place."""
        self.valid.commit()
        self.rejected.commit()

    def discard(self) -> None:
        """Removes what was not committed."""
        self.valid.discard()
        self.rejected.discard()

    def report(self) -> TableReport:
        """The counts of this run."""
        return TableReport(
            self.contract.name, len(self.files), self.rows, self.accepted, dict(self.reasons.most_common())
        )


class _Codes:
    """The first reason found for each row of a batch; 0 is none."""

    def __init__(self, rows: int) -> None:
        self.codes: npt.NDArray[np.int32] = np.zeros(rows, dtype=np.int32)
        self._reasons: list[str] = [""]

    def add(self, rows: npt.NDArray[np.bool_], reason: str) -> None:
        self._reasons.append(reason)
        self.codes[rows & (self.codes == 0)] = len(self._reasons) - 1

    def texts(self, rows: npt.NDArray[np.int64]) -> list[str]:
        return [self._reasons[code] for code in self.codes[rows].tolist()]


class _Writer:
    """A Parquet file that appears under its name all at once."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(self._part, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        if self._writer and len(table):
            self._writer.write_table(table)

    def commit(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None
            os.replace(self._part, self.path)

    def discard(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None
            self._part.unlink(missing_ok=True)


def _find_files(paths: RepoPaths, contract: TableContract) -> list[Path]:
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


def _batches(path: Path, contract: TableContract) -> Iterator[pa.RecordBatch]:
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


def _older_copies(keys: pa.ChunkedArray, times: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Rows that another row of the same key replaces."""
    older = np.zeros(len(keys), dtype=np.bool_)
    if pc.count_distinct(keys).as_py() == len(keys):
        return older
    codes = pc.dictionary_encode(keys.combine_chunks()).indices.to_numpy()
    order = np.lexsort((np.arange(len(keys)), times.cast(pa.int64()).to_numpy(), codes))
    followed = codes[order][1:] == codes[order][:-1]
    older[order[:-1][followed]] = True
    return older


def _readable(column: pa.ChunkedArray) -> pa.Array:
    """Raw values as text; bytes that are no UTF-8 and control characters are escaped with backslashes."""
    array = plain(column.combine_chunks())
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        return pa.array([_readable_list(value) for value in array], pa.string())
    if pa.types.is_timestamp(array.type) and array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))  # the zone's name may be unknown here
    if not pa.types.is_string(array.type):
        return array.cast(pa.string())
    if invalid_utf8(array) is None and has_control(array) is None:
        return array
    return pa.array([_escape(value) for value in array.view(pa.binary()).to_pylist()], pa.string())


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A, 0x0D)}


def _escape(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace").translate(_ESCAPES)


def _readable_list(value: pa.Scalar) -> str | None:
    if not value.is_valid:
        return None
    items = value.values
    return str(_readable(pa.chunked_array([items])).to_pylist() if len(items) else [])
