"""Raw tables checked row by row: good rows to ``data/valid``, the others to ``data/rejected`` with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feature_repo.contracts import CONTRACTS, TableContract
from feature_repo.erasures import ErasureFilter, Erasures, unless_erased
from feature_repo.paths import RepoPaths
from feature_repo.raw_files import find_files
from feature_repo.raw_parts import PartedRun
from feature_repo.raw_rows import Progress, RowRun

PARTED = frozenset({"search_log"})
"""Tables that grow by a file a day: validated file by file."""


@dataclass(frozen=True)
class TableReport:
    """What became of one raw table."""

    table: str
    files: int
    read: int
    """Files that were read now; the others are as they were the last time."""
    rows: int
    accepted: int
    erased: int
    """Rows that an erasure left out; they are neither accepted nor rejected."""
    rejected: dict[str, int]
    """Rejected rows by reason, most frequent first."""

    @property
    def total_rejected(self) -> int:
        """Rejected rows of this table."""
        return sum(self.rejected.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather validate --json``."""
        names = ("files", "read", "rows", "accepted", "erased", "rejected")
        return {name: getattr(self, name) for name in names}


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
    """Reads ``data/raw``, writes the files that ``paths.valid_files`` and ``paths.rejected_files`` name.

    A row that breaks its contract is rejected with a reason and the run goes on; one that was erased
    (:mod:`feature_repo.erasures`) is left out. Nothing replaces older results before every table was read to its end.
    Of the tables in :data:`PARTED` a raw file that was read before and is as it was is not read again.

    :param now: bounds timestamps; without a zone it is UTC.
    :raises ContractError: for a file that cannot be read, a required column that is missing, a column whose type cannot
        be understood, or no ``pins`` at all.
    :raises PinfeatherError: if the list of erasures cannot be read, or something was erased while this ran.
    """
    now = now or datetime.now(UTC)
    now = now if now.tzinfo else now.replace(tzinfo=UTC)
    erased = ErasureFilter(Erasures.load(paths))
    runs: list[RowRun | PartedRun] = []
    try:
        for contract in CONTRACTS.values():
            runs.append(_run(paths, contract, now, erased))
            runs[-1].read(progress)
        with unless_erased(paths, erased.erasures):
            for run in runs:
                run.commit()
    finally:
        for run in runs:
            run.discard()
    return ValidationReport({run.contract.name: _report(run) for run in runs})


def _run(paths: RepoPaths, contract: TableContract, now: datetime, erased: ErasureFilter) -> RowRun | PartedRun:
    if contract.name in PARTED:
        return PartedRun(paths, contract, now, erased)
    name = f"{contract.name}.parquet"
    files = find_files(paths, contract)
    return RowRun(contract, now, erased, paths.raw, files, paths.valid / name, paths.rejected / name)


def _report(run: RowRun | PartedRun) -> TableReport:
    reasons: Counter[str] = run.reasons
    return TableReport(
        run.contract.name,
        len(run.files),
        run.read_files,
        run.rows,
        run.accepted,
        run.erased,
        dict(reasons.most_common()),
    )
