"""Valid and rejected tables without what was erased; the raw tables belong to the user's pipeline and stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.contracts import CONTRACTS, TableContract
from feature_repo.erasures import BLANKED, SUBJECT_COLUMNS, ErasureFilter, Erasures, Subject, borne
from feature_repo.paths import RepoPaths
from feature_repo.raw_files import BATCH_ROWS, Writer, rejected_schema, stored_schema
from feature_repo.raw_parts import PartRewrite, known_parts, note_parts
from feature_repo.validation import PARTED

_IMAGE_TABLES = ("pins", "products")


@dataclass(frozen=True)
class Traces:
    """What an erasure touches beyond the rows that leave."""

    pins: frozenset[str] = frozenset()
    """Pins that keep their own row and may have words from a row that leaves: saved on a board, or engaged with."""
    images: frozenset[str] = frozenset()
    """Images of the pins that leave."""


def find_traces(paths: RepoPaths, erasures: Erasures) -> Traces:
    """What the rows that ``erasures`` takes away were about, as the tables have them now."""
    touched: set[str] = set()
    images: set[str] = set()
    erased = ErasureFilter(erasures)
    for file in paths.valid_files("board_saves"):
        for rows in _leaving(file, "board_saves", erased, ["user_id", "pin_id"]):
            touched.update(rows["pin_id"].to_pylist())
    for file in paths.valid_files("search_log"):
        for rows in _leaving(file, "search_log", erased, ["user_id", "pin_id", "query", "action"]):
            engaged = rows.filter(pc.not_equal(rows["action"], "impression"))
            touched.update(engaged["pin_id"].to_pylist())
    for rows in leaving(paths, erased):
        images.update(image for image in rows["image_sha256"].to_pylist() if image)
    return Traces(frozenset(touched), frozenset(images))


def leaving(paths: RepoPaths, erased: ErasureFilter) -> Iterator[pa.Table]:
    """Rows of erased pins, rejected ones too; read to its end, ``erased`` knows the images of the pins that stay."""
    for table in _IMAGE_TABLES:
        for file in paths.valid_files(table):
            yield from _leaving(file, table, erased, ["pin_id", "image_sha256"])
        for file in paths.rejected_files(table):
            yield from _leaving(file, table, erased, ["pin_id", "image_sha256"], readable=True)


def _leaving(
    file: Path, table: str, erased: ErasureFilter, columns: list[str], *, readable: bool = False
) -> Iterator[pa.Table]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(BATCH_ROWS, columns=columns):
            rows = pa.Table.from_batches([batch])
            leaves = erased.leaves(table, rows, readable=readable)
            if leaves is not None:
                yield rows.filter(pa.array(leaves))


def unborne(paths: RepoPaths, names: Iterable[tuple[Subject, str]]) -> dict[str, list[str]]:
    """Those of ``names`` that no valid or rejected row bears, by what they are."""
    missed = set(names)
    for contract in CONTRACTS.values():
        naming = [name for name in (*SUBJECT_COLUMNS, *BLANKED.get(contract.name, ())) if name in contract.names]
        for files, readable in ((paths.valid_files, False), (paths.rejected_files, True)):
            for file in files(contract.name) if naming else []:
                with pq.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(BATCH_ROWS, columns=naming):
                        if not missed:
                            return {}
                        for name in naming:
                            kind = SUBJECT_COLUMNS.get(name, Subject.USER)
                            missed -= borne(kind, batch[name], missed, readable=readable)
    found: dict[str, list[str]] = {}
    for kind, name in sorted(missed):
        found.setdefault(kind.value, []).append(name)
    return found


def rewrite_tables(paths: RepoPaths, erasures: Erasures) -> dict[str, int]:
    """Take what the list has out of every valid and rejected table; rows that left, by table, where any did.

    The caller holds :func:`~feature_repo.erasures.tables_locked`. Everything is written before anything is replaced.
    """
    erased = ErasureFilter(erasures)
    left: dict[str, int] = {}
    with ExitStack() as stack:
        commits = []
        for contract in CONTRACTS.values():
            rewrite = _PartsRewrite if contract.name in PARTED else _TableRewrite
            one = rewrite(paths, contract, erased)
            stack.callback(one.discard)
            commits.append(one)
            if one.left_out:
                left[contract.name] = one.left_out
        for one in commits:
            one.commit()
    return left


def erase_captions(paths: RepoPaths, erasures: Erasures) -> int:
    """Take captions made here out that only erased pins had the image of; how many.

    The caller holds :func:`~feature_repo.erasures.tables_locked` and the lease of the captions; the valid tables are
    rewritten.
    """
    erased = ErasureFilter(erasures)
    for _ in leaving(paths, erased):
        pass
    gone = 0
    for file in sorted(paths.captions.rglob("*.parquet")):
        table = pq.read_table(file)
        leaves = erased.leaves("captions", table)
        if leaves is not None:
            writer = Writer(file, table.schema)
            writer.write(table.filter(pa.array(~leaves)))
            writer.commit()
            gone += int(leaves.sum())
    return gone


class _TableRewrite:
    """Both files of a table."""

    def __init__(self, paths: RepoPaths, contract: TableContract, erased: ErasureFilter) -> None:
        self.left_out = 0
        self._writers: list[Writer] = []
        for files, schema, readable in (
            (paths.valid_files(contract.name), stored_schema(contract), False),
            (paths.rejected_files(contract.name), rejected_schema(contract), True),
        ):
            for file in files:
                self._rewrite(file, schema, contract.name, erased, readable)

    def _rewrite(self, file: Path, schema: pa.Schema, table: str, erased: ErasureFilter, readable: bool) -> None:
        writer = Writer(file, schema)
        left_out, changed = 0, False
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(BATCH_ROWS):
                rows = pa.Table.from_batches([batch])
                leaves = erased.leaves(table, rows, readable=readable)
                blanked = erased.blank(table, rows, readable=readable)
                rows, changed = (rows, changed) if blanked is None else (blanked, True)
                if leaves is not None:
                    left_out += int(leaves.sum())
                    rows = rows.filter(pa.array(~leaves))
                writer.write(rows)
        writer.close()
        if left_out or changed:
            self._writers.append(writer)
            self.left_out += left_out
        else:
            writer.discard()

    def commit(self) -> None:
        """Puts the files in place that lost rows or names."""
        for writer in self._writers:
            writer.commit()

    def discard(self) -> None:
        """Removes what was not committed."""
        for writer in self._writers:
            writer.discard()


class _PartsRewrite:
    """All files of a table that is validated file by file."""

    def __init__(self, paths: RepoPaths, contract: TableContract, erased: ErasureFilter) -> None:
        self._paths, self._table = paths, contract.name
        self._parts = known_parts(paths, contract.name)
        behind = [part for part in self._parts if part.rows and part.erasures != erased.erasures.fingerprint]
        self._rewrites = {part.file: PartRewrite(paths, contract, part, erased) for part in behind}
        self.left_out = sum(rewrite.erased for rewrite in self._rewrites.values())

    def commit(self) -> None:
        """Switches to the files without the rows that left."""
        for rewrite in self._rewrites.values():
            rewrite.commit()
        if self._rewrites:
            parts = [self._rewrites[part.file].part if part.file in self._rewrites else part for part in self._parts]
            note_parts(self._paths, self._table, parts)

    def discard(self) -> None:
        """Removes what was not committed."""
        for rewrite in self._rewrites.values():
            rewrite.discard()
