"""How the ledger's tables came to be: numbered steps, append-only, never edited after a release."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from materialize.hashes import HASH, key_hashes
from materialize.ledger_notes import m002_quarantine, m004_settled
from materialize.shards import SCHEMA, LedgerError

_PIECE = 1 << 16


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


def _m003_md5_shards(db: sqlite3.Connection) -> None:
    """Keys by MD5 instead of xxh3-64, shards by prefix: what there was becomes journal, which the next run folds."""
    folder = Path(db.execute("PRAGMA database_list").fetchone()[2]).parent
    db.execute("ALTER TABLE shards RENAME TO old_shards")
    db.execute("ALTER TABLE journal RENAME TO old_journal")
    db.execute(
        "CREATE TABLE shards (space TEXT NOT NULL, bits INTEGER NOT NULL, prefix INTEGER NOT NULL, file TEXT NOT NULL, "
        "rows INTEGER NOT NULL, vectors INTEGER NOT NULL, doubtful INTEGER NOT NULL, unmatched INTEGER NOT NULL, "
        "PRIMARY KEY (space, bits, prefix))"
    )
    db.execute(
        "CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, run INTEGER NOT NULL, "
        "removed INTEGER NOT NULL, entries BLOB NOT NULL, rows INTEGER NOT NULL)"
    )
    shards = db.execute("SELECT space, file FROM old_shards ORDER BY space, file").fetchall()
    for space, file in shards:
        try:
            for entries in _old_shard(folder / space.replace(":", "--") / file):
                _into_journal(db, space, 0, 0, entries)
        except FileNotFoundError:  # lost: without its engine the space counts as incomplete, and is made good
            db.execute("DELETE FROM engines WHERE space=?", (space,))
    for (seq,) in db.execute("SELECT seq FROM old_journal ORDER BY seq").fetchall():
        space, run, removed, blob = db.execute(
            "SELECT space, run, removed, entries FROM old_journal WHERE seq=?", (seq,)
        ).fetchone()
        _into_journal(db, space, run, removed, pa.ipc.open_stream(blob).read_all())
    db.execute("DROP TABLE old_shards")
    db.execute("DROP TABLE old_journal")


def _old_shard(path: Path) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_PIECE):
                yield pa.Table.from_batches([batch])
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise LedgerError(
            f"The ledger shard {path} cannot be read ({error}). Restore it from a backup; or delete it and run "
            "`pinfeather materialize`, which compares store and source and writes what this shard was about again."
        ) from error


def _into_journal(db: sqlite3.Connection, space: str, run: int, removed: int, entries: pa.Table) -> None:
    hashes = pa.chunked_array([key_hashes(entries["key"].to_pylist())], HASH)
    entries = entries.set_column(entries.column_names.index("hash"), "hash", hashes)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(entries.select(SCHEMA.names).cast(SCHEMA))
    db.execute(
        "INSERT INTO journal (space, run, removed, entries, rows) VALUES (?, ?, ?, ?, ?)",
        (space, run, removed, sink.getvalue().to_pybytes(), entries.num_rows),
    )


MIGRATIONS = (_m001_tables, m002_quarantine, _m003_md5_shards, m004_settled)
