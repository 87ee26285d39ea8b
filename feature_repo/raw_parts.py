"""A table that is validated file by file: one immutable result for each raw file, so that a day's file costs a day.

``valid/<table>/<stem>-<digest>.parquet`` and the same name under ``rejected/``. The digest is of everything that the
content depends on: name, size, time and last bytes of the raw file, the contract, the erasures, and how many rows lay
ahead of the clock. A note in the folder (:data:`feature_repo.paths.PARTS`) says which files count; it is written last.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from feature_repo.contracts import EARLIEST_YEAR, FUTURE_DAYS, TableContract
from feature_repo.erasures import SUBJECT_COLUMNS, ErasureFilter, write_durably
from feature_repo.errors import PinfeatherError
from feature_repo.paths import PARTS, RepoPaths, read_parts
from feature_repo.raw_files import BATCH_ROWS, Writer, find_files, rejected_schema, stored_schema
from feature_repo.raw_rows import Progress, RowRun

PARTS_VERSION = 2
"""Bumped when the same raw file gives other rows than before, for a reason that no contract shows."""
_TAIL_BYTES = 1 << 16
"""Where a Parquet file says what is in it: two files of one size and time differ there."""
_STEM = 100
_EMPTY = "empty"


@dataclass(frozen=True)
class Part:
    """What is noted of one raw file."""

    file: str
    """Name of both results."""
    key: str
    """Digest of the raw file and the contract."""
    erasures: str
    """Fingerprint of the list of erasures that was applied."""
    rows: int
    accepted: int
    erased: int
    future: int
    rejected: dict[str, int]

    @property
    def name(self) -> str:
        """The file name that belongs to the other fields."""
        stem, _, _ = self.file.rpartition("-")
        return part_name(stem, self.key, self.erasures, self.future)


def part_name(stem: str, key: str, erasures: str, future: int) -> str:
    """Name of the results of a raw file: the same name, the same content."""
    digest = xxhash.xxh3_64_hexdigest(f"{key}/{erasures}/{future}".encode())
    return f"{stem}-{digest}.parquet"


def known_parts(paths: RepoPaths, table: str) -> list[Part]:
    """The parts that count, as they are noted.

    :raises PinfeatherError: if the note cannot be read.
    """
    folder = paths.valid / table
    try:
        return [Part(**part) for part in read_parts(folder) or []]
    except TypeError as error:
        raise PinfeatherError(
            f"{folder / PARTS} is not of this version ({error}). Delete the folder {folder}, then run `pinfeather "
            "validate`, which reads every raw file of the table again."
        ) from error


class PartedRun:
    """One pass over a table: reads what is new, filters what was erased since, keeps the rest."""

    def __init__(self, paths: RepoPaths, contract: TableContract, now: datetime, erased: ErasureFilter) -> None:
        self.contract, self._now, self._erased = contract, now, erased
        self._paths = paths
        self._valid, self._rejected = paths.valid / contract.name, paths.rejected / contract.name
        self.files = find_files(paths, contract)
        self.read_files = 0
        self._parts: list[Part] = []
        self._runs: list[tuple[RowRun, str]] = []
        self._rewrites: list[PartRewrite] = []

    def read(self, progress: Progress | None) -> None:
        """Every raw file that was not validated as it is now."""
        known = {part.key: part for part in known_parts(self._paths, self.contract.name)}
        for number, file in enumerate(self.files):
            key = raw_key(file, file.relative_to(self._paths.raw).as_posix(), self.contract)
            part = known.get(key)
            if part is None or not self._usable(part):
                part = self._read_file(number, file, key, progress)
            elif part.erasures != self._erased.erasures.fingerprint:
                part = self._filter(part)
            self._parts.append(part)
        if not self.files:
            self._parts.append(self._write_empty())

    def _usable(self, part: Part) -> bool:
        known = part.erasures in self._erased.erasures.past_fingerprints
        there = (self._valid / part.file).is_file() and (self._rejected / part.file).is_file()
        return known and there and not part.future

    def _read_file(self, number: int, file: Path, key: str, progress: Progress | None) -> Part:
        waiting = f".{number:06d}.{os.getpid()}.new"
        run = RowRun(
            self.contract,
            self._now,
            self._erased,
            self._paths.raw,
            [file],
            self._valid / waiting,
            self._rejected / waiting,
        )
        self._runs.append((run, ""))
        run.read(progress)
        run.close()
        self.read_files += 1
        erasures = self._erased.erasures.fingerprint
        stem = file.stem.encode()[:_STEM].decode(errors="ignore")
        name = part_name(stem, key, erasures, run.future)
        self._runs[-1] = (run, name)
        counts = dict(run.reasons.most_common())
        return Part(name, key, erasures, run.rows, run.accepted, run.erased, run.future, counts)

    def _write_empty(self) -> Part:
        """So that a table without a raw file has a file, too."""
        contract = _contract_digest(self.contract)
        waiting = f".{_EMPTY}.{os.getpid()}.new"
        run = RowRun(
            self.contract, self._now, self._erased, self._paths.raw, [], self._valid / waiting, self._rejected / waiting
        )
        run.close()
        name = part_name(_EMPTY, contract, "", 0)
        self._runs.append((run, name))
        return Part(name, contract, "", 0, 0, 0, 0, {})

    def _filter(self, part: Part) -> Part:
        rewrite = PartRewrite(self._paths, self.contract, part, self._erased)
        self._rewrites.append(rewrite)
        return rewrite.part

    @property
    def rows(self) -> int:
        """Rows of all raw files."""
        return sum(part.rows for part in self._parts)

    @property
    def accepted(self) -> int:
        """Accepted rows of all raw files."""
        return sum(part.accepted for part in self._parts)

    @property
    def erased(self) -> int:
        """Rows of all raw files that an erasure left out."""
        return sum(part.erased for part in self._parts)

    @property
    def reasons(self) -> Counter[str]:
        """Rejected rows of all raw files by reason."""
        return sum((Counter(part.rejected) for part in self._parts), Counter())

    def commit(self) -> None:
        """Puts the new results beside the old ones, switches to them, removes what is not needed any more."""
        for run, name in self._runs:
            for writer, folder in ((run.valid, self._valid), (run.rejected, self._rejected)):
                writer.path = folder / name
            run.commit()
        for rewrite in self._rewrites:
            rewrite.commit()
        note_parts(self._paths, self.contract.name, self._parts)

    def discard(self) -> None:
        """Removes what was not committed."""
        for run, _ in self._runs:
            run.discard()
        for rewrite in self._rewrites:
            rewrite.discard()


class PartRewrite:
    """The results of one raw file without what was erased since they were written; the raw file is not read."""

    def __init__(self, paths: RepoPaths, contract: TableContract, part: Part, erased: ErasureFilter) -> None:
        """Reads both results, and writes what stays, where not all does, until :meth:`commit`."""
        now = erased.erasures.fingerprint
        if part.erasures not in erased.erasures.past_fingerprints:  # lacks rows of a name that was forgotten since
            now = f"{part.erasures.partition('+')[0]}+{now}"
        renamed = replace(part, erasures=now)
        name, table = renamed.name, contract.name
        accepted = _Filtered(paths.valid / table / part.file, name, stored_schema(contract), table, erased)
        rejected = _Filtered(
            paths.rejected / table / part.file, name, rejected_schema(contract), table, erased, readable=True
        )
        self._files = (accepted, rejected)
        self.erased = accepted.left_out + rejected.left_out
        """Rows that leave."""
        self.part = replace(
            renamed,
            file=name,
            accepted=part.accepted - accepted.left_out,
            erased=part.erased + self.erased,
            rejected=dict((Counter(part.rejected) - rejected.reasons).most_common()),
        )

    def commit(self) -> None:
        """Puts both files beside the old ones."""
        for file in self._files:
            file.commit()

    def discard(self) -> None:
        """Removes what was not committed."""
        for file in self._files:
            file.discard()


class _Filtered:
    """One result under its new name: the same file where nothing leaves it."""

    def __init__(
        self, source: Path, name: str, schema: pa.Schema, table: str, erased: ErasureFilter, *, readable: bool = False
    ) -> None:
        self._source, self._target = source, source.with_name(name)
        self._writer: Writer | None = None
        self.left_out = 0
        self.reasons: Counter[str] = Counter()
        columns = [column for column in SUBJECT_COLUMNS if column in schema.names]
        with pq.ParquetFile(source) as file:
            if not any(
                erased.leaves(table, pa.Table.from_batches([batch]), readable=readable) is not None
                for batch in file.iter_batches(BATCH_ROWS, columns=columns)
            ):
                return
            self._writer = Writer(self._target, schema)
            for batch in file.iter_batches(BATCH_ROWS):
                rows = pa.Table.from_batches([batch])
                leaves = erased.leaves(table, rows, readable=readable)
                if leaves is not None:
                    gone = pa.array(leaves)
                    self.left_out += int(leaves.sum())
                    if "reason" in rows.column_names:
                        self.reasons.update(rows["reason"].filter(gone).to_pylist())
                    rows = rows.filter(pc.invert(gone))
                self._writer.write(rows)
            self._writer.close()

    def commit(self) -> None:
        if self._writer:
            self._writer.commit()
        elif self._target != self._source:
            self._target.unlink(missing_ok=True)
            os.link(self._source, self._target)

    def discard(self) -> None:
        if self._writer:
            self._writer.discard()


def note_parts(paths: RepoPaths, table: str, parts: list[Part]) -> None:
    """Let ``parts`` be those that count, in one write; then remove the others, and what an older layout left."""
    valid, rejected = paths.valid / table, paths.rejected / table
    write_durably(valid / PARTS, json.dumps({"parts": [asdict(part) for part in parts]}, indent=1).encode())
    names = {part.file for part in parts}
    for folder in (valid, rejected):
        for path in folder.glob("*.parquet"):
            if path.name not in names:
                path.unlink(missing_ok=True)
        folder.with_name(f"{table}.parquet").unlink(missing_ok=True)


def raw_key(file: Path, name: str, contract: TableContract) -> str:
    """What the rows of a raw file depend on, but for the clock and the erasures, as 32 hexadecimal characters."""
    found = file.stat()
    with file.open("rb") as handle:
        handle.seek(max(0, found.st_size - _TAIL_BYTES))
        tail = xxhash.xxh3_64_hexdigest(handle.read())
    known = [name, found.st_size, found.st_mtime_ns, tail, _contract_digest(contract)]
    return xxhash.xxh3_128_hexdigest(json.dumps(known).encode())


def _contract_digest(contract: TableContract) -> str:
    return xxhash.xxh3_64_hexdigest(f"{contract!r} {EARLIEST_YEAR} {FUTURE_DAYS} {PARTS_VERSION}".encode())
