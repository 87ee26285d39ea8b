"""Rows of one raw table checked against their contract: good ones to one file, the others to another, with reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.columns import arrow_type, cast, plain
from feature_repo.contracts import TableContract
from feature_repo.erasures import ErasureFilter
from feature_repo.raw_files import ROW, SOURCE, Writer, read_batches, readable, rejected_schema, stored_schema

Progress = Callable[[str, int], None]
"""Called with the table and the rows checked so far."""

FUTURE = "in the future"
"""In the reason of a row that lies ahead of the clock, and so may be accepted later."""


class RowRun:
    """One pass over raw files into one file of accepted and one of rejected rows."""

    def __init__(
        self,
        contract: TableContract,
        now: datetime,
        erased: ErasureFilter,
        raw: Path,
        files: Sequence[Path],
        valid: Path,
        rejected: Path,
    ) -> None:
        """:param raw: the folder that rejected rows name their file relative to."""
        self.contract, self.now, self._erased = contract, now, erased
        self._raw, self.files = raw, files
        self.rows = self.accepted = self.erased = 0
        self.reasons: Counter[str] = Counter()
        self.schema = stored_schema(contract)
        self.valid = Writer(valid, self.schema)
        self.rejected = Writer(rejected, rejected_schema(contract))
        self._held: list[pa.Table] = []

    @property
    def read_files(self) -> int:
        """Files that this pass reads: all of them."""
        return len(self.files)

    def read(self, progress: Progress | None) -> None:
        """Every file, batch by batch; a snapshot table is held until its duplicates are known."""
        for path in self.files:
            source, row = path.relative_to(self._raw).as_posix(), 0
            for batch in read_batches(path, self.contract):
                self._check(batch, source, row)
                row += len(batch)
                self.rows += len(batch)
                if progress:
                    progress(self.contract.name, self.rows)
        if self._held:
            self._write_latest(pa.concat_tables(self._held))

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
            self._held.append(table.append_column(SOURCE, sources).append_column(ROW, rows))

    def _write_latest(self, table: pa.Table) -> None:
        """Of each id the row with the latest time, the last one among equals; the order of the input stays."""
        key, time = self.contract.unique or "", self.contract.latest_by
        table = table.unify_dictionaries()
        older = _older_copies(table[key], table[time])
        if older.any():
            lost = table.filter(pa.array(older))
            reason = f"{key}: duplicate, a row with the same or a later {time} was kept; deliver one row per {key}"
            self._reject(lost, [reason] * len(lost), lost[SOURCE].to_pylist(), lost[ROW].to_numpy())
            table = table.filter(pa.array(~older))
        self._accept(table.select(self.contract.names))

    def _accept(self, table: pa.Table) -> None:
        table = self._without_erased(table)
        self.accepted += len(table)
        self.valid.write(table)

    def _reject(self, raw: pa.Table, reasons: list[str], sources: list[str], rows: npt.NDArray[np.int64]) -> None:
        columns = [
            readable(raw[name]) if name in raw.column_names else pa.nulls(len(raw), pa.string())
            for name in self.contract.names
        ]
        table = pa.Table.from_arrays([*columns, reasons, sources, rows], schema=self.rejected.schema)
        table = self._without_erased(table, readable=True)
        self.reasons.update(table["reason"].to_pylist())
        self.rejected.write(table)

    def _without_erased(self, table: pa.Table, *, readable: bool = False) -> pa.Table:
        leaves = self._erased.leaves(self.contract.name, table, readable=readable)
        blanked = self._erased.blank(self.contract.name, table, readable=readable)
        table = table if blanked is None else blanked
        if leaves is None:
            return table
        self.erased += int(leaves.sum())
        return table.filter(pa.array(~leaves))

    @property
    def future(self) -> int:
        """Rejected rows that lie ahead of the clock."""
        return sum(count for reason, count in self.reasons.items() if FUTURE in reason)

    def close(self) -> None:
        """Ends both files, which are not in place yet."""
        self.valid.close()
        self.rejected.close()

    def commit(self) -> None:
        """Puts both results in place."""
        self.valid.commit()
        self.rejected.commit()

    def discard(self) -> None:
        """Removes what was not committed."""
        self.valid.discard()
        self.rejected.discard()


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
