"""The ledger: what was written for each (key, space), so that the next run knows what changed.

Entries lie in Parquet shards sorted by the hash of the key, for the scan. A small SQLite file beside them (WAL mode)
holds the runs, the list of live shards and the journal: batches committed since the shards were last written. A batch
is in the ledger once its journal row is committed; :meth:`Ledger.fold` merges the journal into new shards and switches
to them in one transaction, so a crash at any moment leaves either the old shards with their journal or the new ones.
A *space* here is a vector space or, under ``view:<name>``, the online rows of a feature view.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.files import write_parquet

SCHEMA = pa.schema(
    [
        ("hash", pa.uint64()),  # xxh3-64 of the key: the order of the shards
        ("key", pa.string()),
        ("raw", pa.uint64()),
        ("text_fp", pa.binary(16)),  # null: the pin has no text, so no vector
        ("payload_fp", pa.uint64()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("run", pa.int64()),
    ]
)
ROWS_PER_SHARD = 1 << 18
DOUBTFUL_RAW, DOUBTFUL_TEXT = 0, bytes(16)
"""Fingerprints of an entry whose point may or may not have been written; no source row has them."""


class LedgerError(PinfeatherError):
    """The ledger cannot be read."""


def _m001_tables(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE runs (run INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, started_at TEXT NOT NULL, "
        "finished_at TEXT, status TEXT NOT NULL, counts TEXT)"
    )
    db.execute("CREATE TABLE shards (space TEXT NOT NULL, file TEXT NOT NULL, rows INTEGER NOT NULL)")
    db.execute(
        "CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, run INTEGER NOT NULL, "
        "removed INTEGER NOT NULL, entries BLOB NOT NULL)"
    )
    db.execute("CREATE TABLE engines (space TEXT PRIMARY KEY, engine TEXT NOT NULL, definition TEXT NOT NULL)")


MIGRATIONS = (_m001_tables,)
"""Numbered, append-only; never edited after a release."""


class Ledger:
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

    # Runs -------------------------------------------------------------------------------------------------------

    def start_run(self, space: str, after: int = 0) -> int:
        """Note that a run over ``space`` began; its number, greater than ``after``.

        Runs left open by a crash are marked as such.
        """
        self._db.execute("UPDATE runs SET status='crashed' WHERE status='running'")
        (last,) = self._db.execute("SELECT coalesce(max(run), 0) FROM runs").fetchone()
        number = max(int(last), after) + 1
        self._db.execute(
            "INSERT INTO runs (run, space, started_at, status) VALUES (?, ?, ?, 'running')",
            (number, space, datetime.now(UTC).isoformat()),
        )
        return number

    def finish_run(self, run: int, status: str, counts: Mapping[str, Any]) -> None:
        """Note how a run ended, with its counts."""
        self._db.execute(
            "UPDATE runs SET finished_at=?, status=?, counts=? WHERE run=?",
            (datetime.now(UTC).isoformat(), status, json.dumps(counts), run),
        )

    def tokens_per_second(self, space: str) -> float | None:
        """Rate of the last finished run of ``space`` that encoded for at least a second, or None."""
        rows = self._db.execute(
            "SELECT counts FROM runs WHERE space=? AND status='done' AND counts IS NOT NULL ORDER BY run DESC LIMIT 50",
            (space,),
        ).fetchall()
        for (text,) in rows:
            counts = json.loads(text)
            if counts.get("tokens") and counts.get("encode_seconds", 0) >= 1:
                return float(counts["tokens"] / counts["encode_seconds"])
        return None

    # Entries ----------------------------------------------------------------------------------------------------

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
            "INSERT INTO journal (space, run, removed, entries) VALUES (?, ?, ?, ?)",
            (space, run, int(removed), sink.getvalue().to_pybytes()),
        )

    def entries(self, space: str) -> pa.Table:
        """All entries of ``space``, sorted by hash and key: the shards with the journal laid over them.

        :raises LedgerError: if a shard cannot be read.
        """
        for _ in range(10):  # a run beside this reader may fold meanwhile: its old shards go
            files, journal = self._listed(space)
            shards = [shard for file in files if (shard := self._read_shard(space, file)) is not None]
            if len(shards) == len(files) or files == self._listed(space)[0]:
                break
        if not journal:
            return pa.concat_tables(shards) if shards else SCHEMA.empty_table()
        batches = [*shards, *(pa.ipc.open_stream(entries).read_all() for _, entries in journal)]
        gone = [*(False for _ in shards), *(bool(removed) for removed, _ in journal)]
        return _last_of_each(batches, gone)

    def spaces(self) -> list[str]:
        """Every space with entries."""
        rows = self._db.execute("SELECT space FROM shards UNION SELECT space FROM journal ORDER BY 1").fetchall()
        return [space for (space,) in rows]

    def fold(self, space: str) -> None:
        """Merge the journal of ``space`` into new shards and switch to them."""
        if not self._db.execute("SELECT 1 FROM journal WHERE space=? LIMIT 1", (space,)).fetchone():
            return
        (last,) = self._db.execute("SELECT max(seq) FROM journal WHERE space=?", (space,)).fetchone()
        entries = self.entries(space)
        old = [file for (file,) in self._live(space)]
        new = []
        for start in range(0, entries.num_rows, ROWS_PER_SHARD):
            shard = entries.slice(start, ROWS_PER_SHARD)
            file = f"shard-{last:09d}-{start // ROWS_PER_SHARD:05d}.parquet"
            write_parquet(self._shard_folder(space) / file, shard)
            new.append((space, file, shard.num_rows))
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM shards WHERE space=?", (space,))
        self._db.executemany("INSERT INTO shards VALUES (?, ?, ?)", new)
        self._db.execute("DELETE FROM journal WHERE space=? AND seq<=?", (space, last))
        self._db.execute("COMMIT")
        for file in set(old) - {file for _, file, _ in new}:
            (self._shard_folder(space) / file).unlink(missing_ok=True)

    def forget(self, space: str) -> None:
        """Drop every entry of ``space``, as when its feature view left the registry."""
        old = self._live(space)
        self._db.execute("BEGIN IMMEDIATE")
        for table in ("shards", "journal", "engines"):
            self._db.execute(f"DELETE FROM {table} WHERE space=?", (space,))
        self._db.execute("COMMIT")
        for (file,) in old:
            (self._shard_folder(space) / file).unlink(missing_ok=True)

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

    def _listed(self, space: str) -> tuple[list[str], list[tuple[int, bytes]]]:
        """Live shards and journal of one moment."""
        self._db.execute("BEGIN")
        files = [file for (file,) in self._live(space)]
        journal = self._db.execute(
            "SELECT removed, entries FROM journal WHERE space=? ORDER BY seq", (space,)
        ).fetchall()
        self._db.execute("COMMIT")
        return files, journal

    def _live(self, space: str) -> list[tuple[str]]:
        return self._db.execute("SELECT file FROM shards WHERE space=? ORDER BY file", (space,)).fetchall()

    def _shard(self, space: str, file: str) -> Path:
        return self._shard_folder(space) / file

    def _shard_folder(self, space: str) -> Path:
        return self._folder / space.replace(":", "--")

    def _read_shard(self, space: str, file: str) -> pa.Table | None:
        path = self._shard(space, file)
        try:
            return pq.read_table(path, schema=SCHEMA)
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError) as error:
            raise LedgerError(
                f"The ledger shard {path} cannot be read ({error}). Restore it from a backup; or delete it and run "
                "`pinfeather materialize`, which compares store and source and writes what this shard was about again."
            ) from error


def key_hashes(keys: pa.Array | pa.ChunkedArray) -> pa.Array:
    """xxh3-64 of each key."""
    hashes = (xxhash.xxh3_64_intdigest(key.encode()) for key in keys.to_pylist())
    return pa.array(np.fromiter(hashes, np.uint64, len(keys)))


def _complete(entries: pa.Table, run: int) -> pa.Table:
    entries = entries.append_column("hash", key_hashes(entries["key"]))
    entries = entries.append_column("run", pa.array(np.full(entries.num_rows, run, np.int64)))
    return entries.select(SCHEMA.names).cast(SCHEMA)


def _last_of_each(batches: Sequence[pa.Table], gone: Sequence[bool]) -> pa.Table:
    """The last row of each key over the batches in order, without those whose last batch removes them."""
    table = pa.concat_tables(batches)
    removed = np.repeat(np.array(gone, bool), [batch.num_rows for batch in batches])
    table = table.append_column("order", pa.array(np.arange(table.num_rows)))
    order = pc.sort_indices(table, [("hash", "ascending"), ("key", "ascending"), ("order", "ascending")])
    table, removed = table.take(order).drop_columns(["order"]), removed[order.to_numpy()]
    keys = table["key"].combine_chunks()
    if not len(keys):
        return table
    last = np.append(pc.not_equal(keys[:-1], keys[1:]).to_numpy(zero_copy_only=False), True)
    return table.filter(pa.array(last & ~removed))
