"""What is kept of the search log between two aggregates: immutable Parquet files, and one note that says which count.

``data/aggregates/state.json`` is written last, all at once; a run that is killed leaves the state as it was, and files
that no note names are removed by the next run. Requests and users are in it as 64 bits of MD5 of their ids: two of n
users share a number with probability n^2 / 2^65 (1 in 370,000 for ten million); they would count as one person.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from feature_repo.aggregates.session import Session, literal, parquet
from feature_repo.lexical.tokens import LEXICAL_VERSION
from feature_repo.paths import RepoPaths
from feature_repo.text import TEXT_VERSION

STATE_VERSION = f"3.{TEXT_VERSION}.{LEXICAL_VERSION}"
"""Bumped when the files change their meaning, or the same log would give others."""

NOTE = "state.json"
_FILE_ROWS = 8_000_000
"""Files that grew together to more rows are joined no further."""


@dataclass
class Facts:
    """What the note says beside the names of the files."""

    screening: str
    """Fingerprint of the screening rules."""
    since: int
    """Start of the window."""
    latest: int
    """Latest event of the log; both in microseconds."""
    rows: int
    """Rows of the valid log."""
    files: list[list[Any]]
    """Name, size and time of change of each valid file."""
    sums: dict[str, int] = field(default_factory=dict)
    """Rows by what became of them."""
    topics: list[Any] | None = None
    """What the kept interests depend on beside the log."""
    relevance: list[int] | None = None
    """Size and time of change of the ``pin_relevance`` source that the digests belong to."""


class State:
    """The kept files by role, and those of the run at hand, which :meth:`commit` puts in their place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / ".lock").open("w")
        self.locked = _locked(self._lock.fileno())
        self.facts: Facts | None = None
        self.kept: dict[str, list[Path]] = {}
        self.files: dict[str, list[Path]] = {}
        self._generation = 0
        self._written = 0
        if self.locked:
            self._read()

    def _read(self) -> None:
        try:
            note = json.loads((self.folder / NOTE).read_text(encoding="utf-8"))
            if note["version"] != STATE_VERSION:
                return
            kept = {role: [self.folder / name for name in names] for role, names in note["tables"].items()}
            facts, generation = Facts(**note["facts"]), int(note["generation"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # not there, or not understood: everything is computed anew
        if all(path.is_file() for paths in kept.values() for path in paths):
            self.kept, self.facts, self._generation = kept, facts, generation

    def write(self, session: Session, role: str, sql: str) -> Path:
        """One more file of ``role`` with the rows of ``sql``."""
        self._written += 1
        path = self.folder / f"{role}-{self._generation + 1:06d}-{os.getpid()}-{self._written}.parquet"
        session.con.execute(f"COPY ({sql}) TO {literal(path)} (FORMAT parquet, COMPRESSION lz4_raw)")
        self.files.setdefault(role, []).append(path)
        return path

    def replace(self, session: Session, role: str, sql: str) -> None:
        """One file of ``role`` instead of all."""
        self.files[role] = []
        self.write(session, role, sql)

    def keep(self, *roles: str) -> None:
        """The kept files of these roles go on to count."""
        for role in roles:
            self.files[role] = [*self.kept[role], *self.files.get(role, [])]

    def now(self, role: str, more: str = "") -> str:
        """SQL that reads the files of ``role`` as this run leaves them."""
        return parquet(self.files[role], more)

    def rows(self, role: str) -> int:
        """Rows in the files of ``role`` as this run leaves them."""
        return sum(pq.read_metadata(path).num_rows for path in self.files[role])

    def before(self, role: str) -> str:
        """SQL that reads the files of ``role`` as the last run left them."""
        return parquet(self.kept[role])

    def compact(self, session: Session, role: str, join: Callable[[str], str] = "SELECT * FROM {}".format) -> None:
        """Joins the last files while the one before is less than twice as long: n merges leave log n files.

        :param join: gives the SQL of what files come to together.
        """
        found = [(path, pq.read_metadata(path).num_rows) for path in self.files[role]]
        found = [(path, rows) for path, rows in found if rows] or found[:1]
        files, rows = [path for path, _ in found], [count for _, count in found]
        self.files[role] = files
        first = len(files) - 1
        total = rows[first] if files else 0
        while first > 0 and rows[first - 1] < 2 * total and rows[first - 1] + total <= _FILE_ROWS:
            first -= 1
            total += rows[first]
        if first < len(files) - 1:
            self.files[role] = files[:first]
            self.write(session, role, join(parquet(files[first:])))

    def commit(self, facts: Facts) -> None:
        """Makes the files of this run the state, and removes all others."""
        note = {
            "version": STATE_VERSION,
            "generation": self._generation + 1,
            "tables": {role: [path.name for path in paths] for role, paths in self.files.items()},
            "facts": asdict(facts),
        }
        part = self.folder / f".{NOTE}.part"
        part.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.folder / NOTE)
        counted = {path.name for paths in self.files.values() for path in paths}
        for path in self.folder.glob("*.parquet"):
            if path.name not in counted:
                path.unlink()

    def close(self) -> None:
        """Lets the next run in."""
        self._lock.close()


def forget_state(paths: RepoPaths) -> None:
    """Removes what is kept of the search log, so that the next aggregate reads all of it."""
    (paths.aggregates / NOTE).unlink(missing_ok=True)  # first: a folder half removed is no state
    shutil.rmtree(paths.aggregates, ignore_errors=True)


def identities(files: list[Path]) -> list[list[Any]]:
    """What tells whether a file is still the one that was read."""
    return [[path.name, (stat := path.stat()).st_size, stat.st_mtime_ns] for path in files]


def identity(path: Path) -> list[int] | None:
    """Size and time of change of a file; None if it is not there."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def plain(facts: Mapping[str, int]) -> dict[str, int]:
    """Counts without the zeros, in the order of their names."""
    return {name: count for name, count in sorted(facts.items()) if count}


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
