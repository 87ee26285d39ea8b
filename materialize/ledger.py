"""The ledger: what was written for each (key, space), so that the next run knows what changed.

Entries lie in Parquet shards by the hash of the key, for the scan (:mod:`materialize.shards`). A small SQLite file
beside them (WAL mode) holds the runs, the list of live shards and the journal: batches committed since the shards were
last written. A batch is in the ledger once its journal row is committed; :meth:`Ledger.fold` merges the journal into
the shards that it touches and switches to the new ones in one transaction, so a crash at any moment leaves either the
old shards with their journal or the new ones.
A *space* here is a vector space or, under ``view:<name>``, the online rows of a feature view.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.paths import RepoPaths
from materialize.files import write_parquet
from materialize.hashes import arrow, bits_for, halves, key_hashes
from materialize.ledger_migrations import MIGRATIONS
from materialize.ledger_notes import LedgerNotes
from materialize.shards import (
    DOUBTFUL_RAW,
    DOUBTFUL_TEXT,
    REMOVED,
    SCHEMA,
    LedgerError,
    Result,
    Shard,
    ShardReader,
    ShardReplacedError,
    Summary,
)
from materialize.spill import Partitions, spill_folder

__all__ = ["DOUBTFUL_RAW", "DOUBTFUL_TEXT", "MIGRATIONS", "SCHEMA", "Ledger", "LedgerError", "Summary"]

ROWS_PER_SHARD = 1 << 18
"""A shard with more is split; so one has half as many at least, unless pins left."""
_PER_BUCKET = 1 << 17
_READERS = 10
_VACUUM_BYTES = 64 << 20


class Ledger(LedgerNotes):
    """Entries, runs and journal of one repository. One writer at a time: its caller holds the writer lease."""

    def __init__(self, paths: RepoPaths) -> None:
        """Open or make the ledger under ``paths.ledger``.

        :raises LedgerError: if the SQLite file cannot be read or was made by a newer Pinfeather.
        """
        self._folder = paths.ledger
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self._folder / "ledger.db", isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._migrate()
        except LedgerError:
            self._db.close()
            raise
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{self._folder / 'ledger.db'} cannot be used now ({error}): try again.") from error
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{self._folder / 'ledger.db'} cannot be read ({error}). Move the folder {self._folder} away and run "
                "`pinfeather materialize`: every pin is then encoded again, and nothing else is lost."
            ) from error

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"{self._folder} was written by a newer Pinfeather (ledger version {version}, this one knows "
                f"{len(MIGRATIONS)}): upgrade Pinfeather."
            )
        while version < len(MIGRATIONS):
            self._db.execute("BEGIN IMMEDIATE")  # another process may be doing the same
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version < len(MIGRATIONS):
                MIGRATIONS[version](self._db)
                version += 1
                self._db.execute(f"PRAGMA user_version={version}")
            self._db.execute("COMMIT")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the SQLite file."""
        self._db.close()

    def write(self, space: str, run: int, entries: pa.Table) -> None:
        """Commit one batch of entries (columns of :data:`SCHEMA` without ``hash`` and ``run``)."""
        if entries.num_rows:
            self._append(space, run, _complete(entries, run), removed=False)

    def doubt(self, space: str, run: int, keys: Sequence[str], event_timestamps: Sequence[Any] | None = None) -> None:
        """Commit, before the store is touched, that ``keys`` may change there.

        Until :meth:`write` or :meth:`remove` follows, their entries match no source row: a run that was killed in
        between is made good by the next one, whatever the source holds by then.
        """
        if not keys:
            return
        rows = len(keys)
        entries = {
            "key": pa.array(keys, pa.string()),
            "raw": pa.array([DOUBTFUL_RAW] * rows, pa.uint64()),
            "text_fp": pa.array([DOUBTFUL_TEXT] * rows, pa.binary(16)),
            "payload_fp": pa.array([0] * rows, pa.uint64()),
            "event_timestamp": pa.array(event_timestamps or [None] * rows, SCHEMA.field("event_timestamp").type),
        }
        self._append(space, run, _complete(pa.table(entries), run), removed=False)

    def remove(self, space: str, run: int, keys: Sequence[str]) -> None:
        """Commit that ``keys`` are no longer in ``space``."""
        if not keys:
            return
        blank = {
            name: pa.nulls(len(keys), SCHEMA.field(name).type) for name in SCHEMA.names if name not in ("hash", "run")
        }
        self._append(space, run, _complete(pa.table({**blank, "key": pa.array(keys, pa.string())}), run), removed=True)

    def _append(self, space: str, run: int, entries: pa.Table, *, removed: bool) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, SCHEMA) as writer:
            writer.write_table(entries)
        self._db.execute(
            "INSERT INTO journal (space, run, removed, entries, rows) VALUES (?, ?, ?, ?, ?)",
            (space, run, int(removed), sink.getvalue().to_pybytes(), entries.num_rows),
        )

    def of(self, space: str) -> SpaceEntries:
        """The entries of ``space``, to be read bucket by bucket."""
        return SpaceEntries(self, space)

    def entries(self, space: str) -> pa.Table:
        """All entries of ``space`` in memory, sorted by hash: the shards with the journal laid over them.

        :raises LedgerError: if a shard cannot be read.
        """
        return self.of(space).read(lambda reader: reader.part(0, 0, SCHEMA.names))

    def pages(self, space: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of all entries of ``space`` as of one moment, in bounded memory, sorted by hash.

        :raises LedgerError: if a shard cannot be read, or was replaced by a run beside this reader.
        """
        with self.reader(space) as reader:
            for prefix in range(1 << reader.bits):
                try:
                    yield reader.part(reader.bits, prefix, columns)
                except ShardReplacedError:
                    raise _busy(space) from None

    def summary(self, space: str) -> Summary:
        """Counts over the entries of ``space``, without reading shards where no journal lies over them."""
        return self.of(space).read(lambda reader: reader.summary())

    def spaces(self) -> list[str]:
        """Every space with entries."""
        rows = self._db.execute(
            "SELECT space FROM shards WHERE file<>'' UNION SELECT space FROM journal ORDER BY 1"
        ).fetchall()
        return [space for (space,) in rows]

    def fold(self, space: str) -> None:
        """Merge the journal of ``space`` into new shards in place of those that it touches, and switch to them."""
        if not self._db.execute("SELECT 1 FROM journal WHERE space=? LIMIT 1", (space,)).fetchone():
            return
        (last,) = self._db.execute("SELECT max(seq) FROM journal WHERE space=?", (space,)).fetchone()
        old, new = [], []
        with self.reader(space) as reader:
            for shard in reader.shards or [Shard(0, 0, "", Summary())]:
                pending = reader.pending(shard.bits, shard.prefix)
                if not pending and not reader.lost(shard):
                    continue
                old.append(shard)
                rows = shard.counts.rows + pending
                if ROWS_PER_SHARD < rows <= 4 * ROWS_PER_SHARD:  # most of the journal may be about entries it has
                    rows = reader.part(shard.bits, shard.prefix, ["hash"]).num_rows
                more = bits_for(rows, ROWS_PER_SHARD)
                for prefix in range(shard.prefix << more, (shard.prefix + 1) << more):
                    entries = reader.part(shard.bits + more, prefix, SCHEMA.names)
                    new.append(self._write_shard(space, last, shard.bits + more, prefix, entries))
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "DELETE FROM shards WHERE space=? AND bits=? AND prefix=?",
            [(space, shard.bits, shard.prefix) for shard in old],
        )
        self._db.executemany(
            "INSERT INTO shards (space, bits, prefix, file, rows, vectors, doubtful, unmatched) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(space, shard.bits, shard.prefix, shard.file, *_numbers(shard.counts)) for shard in new],
        )
        self._db.execute("DELETE FROM journal WHERE space=? AND seq<=?", (space, last))
        self._db.execute("COMMIT")
        self._sweep(space)

    def _write_shard(self, space: str, last: int, bits: int, prefix: int, entries: pa.Table) -> Shard:
        file = ""
        if entries.num_rows:
            file = f"shard-{last:09d}-{bits:02d}-{prefix:04x}.parquet"
            write_parquet(self._shard(space, file), entries, repeating=["event_timestamp", "run"])
        return Shard(bits, prefix, file, Summary.of(entries))

    def _sweep(self, space: str) -> None:
        """Remove files that no fold needs any more, and give the room of a long journal back."""
        live = {file for (file,) in self._live(space)}
        for path in self._shard_folder(space).glob("*shard-*"):
            if path.name not in live:
                path.unlink(missing_ok=True)
        (free,), (size,) = (self._db.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size"))
        if free * size > _VACUUM_BYTES:
            try:
                self._db.execute("VACUUM")
            except sqlite3.OperationalError:  # somebody reads: the next fold does it
                return

    def forget(self, space: str) -> None:
        """Drop every entry and quarantined text of ``space``, as when its feature view left the registry."""
        old = self._live(space)
        self._db.execute("BEGIN IMMEDIATE")
        for table in ("shards", "journal", "engines", "quarantine", "settled"):
            self._db.execute(f"DELETE FROM {table} WHERE space=?", (space,))
        self._db.execute("COMMIT")
        for (file,) in old:
            self._shard(space, file).unlink(missing_ok=True)

    def engine(self, space: str) -> str | None:
        """Engine and version that made the raw fingerprints of ``space``."""
        row = self._db.execute("SELECT engine FROM engines WHERE space=?", (space,)).fetchone()
        return row[0] if row else None

    def definition(self, space: str) -> str | None:
        """What ``space`` was defined as when it was written last: names and types that its points depend on."""
        row = self._db.execute("SELECT definition FROM engines WHERE space=?", (space,)).fetchone()
        return row[0] if row else None

    def set_engine(self, space: str, engine: str, definition: str = "") -> None:
        """Note which engine and version made the raw fingerprints of ``space``, and its definition."""
        self._db.execute("INSERT OR REPLACE INTO engines VALUES (?, ?, ?)", (space, engine, definition))

    def incomplete(self, space: str) -> bool:
        """True where this ledger cannot vouch for all of ``space``: it was never written, or a shard is lost."""
        files = [file for (file,) in self._live(space)]
        lost = [file for file in files if not self._shard(space, file).is_file()]
        return bool(lost) or self.engine(space) is None

    @contextmanager
    def reader(self, space: str) -> Iterator[ShardReader]:
        """The entries of ``space`` as of now; what a fold beside it replaces meanwhile cannot be read any more."""
        with spill_folder(self._folder) as folder:
            self._spill = folder
            shards, journal = self._listed(space)
            live = lambda file: (file,) in self._live(space)  # noqa: E731
            yield ShardReader(self._shard_folder(space), shards, journal, live)

    def _listed(self, space: str) -> tuple[list[Shard], Partitions]:
        """Live shards and journal of one moment."""
        self._db.execute("BEGIN")
        try:
            shards = self._db.execute(
                "SELECT bits, prefix, file, rows, vectors, doubtful, unmatched FROM shards WHERE space=? "
                "ORDER BY CAST(prefix AS REAL) / (1 << bits)",
                (space,),
            ).fetchall()
            (rows,) = self._db.execute("SELECT coalesce(sum(rows), 0) FROM journal WHERE space=?", (space,)).fetchone()
            # As fine as the shards at least, so that it can be told which of them the journal touches.
            bits = max([bits_for(rows, _PER_BUCKET), *(shard[0] for shard in shards)])
            journal = Partitions(self._spill, bits)
            batches = self._db.execute("SELECT removed, entries FROM journal WHERE space=? ORDER BY seq", (space,))
            for removed, entries in batches:
                table = pa.ipc.open_stream(entries).read_all()
                gone = arrow(np.full(table.num_rows, bool(removed)))
                journal.add(table.append_column(REMOVED, gone), halves(table["hash"])[0])
        finally:
            self._db.execute("COMMIT")
        return [Shard(bits, prefix, file, Summary(*counts)) for bits, prefix, file, *counts in shards], journal

    def _live(self, space: str) -> list[tuple[str]]:
        return self._db.execute("SELECT file FROM shards WHERE space=? AND file<>'' ORDER BY file", (space,)).fetchall()

    def _shard(self, space: str, file: str) -> Path:
        return self._shard_folder(space) / file

    def _shard_folder(self, space: str) -> Path:
        return self._folder / space.replace(":", "--")


class SpaceEntries:
    """The entries of one space of a ledger."""

    def __init__(self, ledger: Ledger, space: str) -> None:
        self.ledger, self.space = ledger, space

    def read(self, work: Callable[[ShardReader], Result]) -> Result:
        """What ``work`` gives for a reader of one moment; it is called again if a fold ended that moment.

        :raises LedgerError: if a shard cannot be read, or folds do not end.
        """
        for _ in range(_READERS):
            with self.ledger.reader(self.space) as reader:
                try:
                    return work(reader)
                except ShardReplacedError:
                    continue
        raise _busy(self.space)


def _busy(space: str) -> LedgerError:
    return LedgerError(f"Runs that write the ledger of {space} replaced what was being read of it: try again.")


def _numbers(counts: Summary) -> tuple[int, int, int, int]:
    return counts.rows, counts.vectors, counts.doubtful, counts.unmatched


def _complete(entries: pa.Table, run: int) -> pa.Table:
    entries = entries.append_column("hash", key_hashes(entries["key"].to_pylist()))
    entries = entries.append_column("run", arrow(np.full(entries.num_rows, run, np.int64)))
    return entries.select(SCHEMA.names).cast(SCHEMA)
