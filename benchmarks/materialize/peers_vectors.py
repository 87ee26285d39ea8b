"""A durable vector store for the peers: one SQLite table, every write committed before it is acknowledged.

The peers' own in-memory stores lose everything when a process dies, and their servers cannot be had everywhere; what a
peer does with a store is the same with any that keeps what it acknowledged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.materialize.peers_documents import Row


class VectorTable:
    """Rows by the key that a peer gives them, each of one document; ``after_write`` and ``after_delete`` are hooks."""

    def __init__(
        self, path: Path, after_write: Callable[[], None] | None = None, after_delete: Callable[[], None] | None = None
    ) -> None:
        self._con = sqlite3.connect(path)
        self._after = after_write, after_delete
        self._con.execute("PRAGMA journal_mode=WAL")
        self._con.execute("PRAGMA synchronous=NORMAL")
        with self._con:
            self._con.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, document TEXT, vector BLOB, tag TEXT)"
            )
            self._con.execute("CREATE INDEX IF NOT EXISTS by_document ON vectors (document)")

    def upsert(self, rows: Iterable[tuple[str, str, bytes, str]]) -> None:
        """Write (key, document id, float32 bytes, tag) over what is there under the key."""
        with self._con:
            self._con.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
        if self._after[0]:
            self._after[0]()

    def delete(self, keys: Iterable[str], column: str = "key") -> None:
        """Delete the rows with these keys, or documents if ``column`` is ``"document"``."""
        with self._con:
            changed = self._con.executemany(f"DELETE FROM vectors WHERE {column} = ?", [(key,) for key in keys])
        if self._after[1] and changed.rowcount:
            self._after[1]()

    def close(self) -> None:
        """Close the file."""
        self._con.close()


def stored_rows(path: Path, table: str = "vectors") -> Iterator[Row]:
    """Every row of the table, read from outside."""
    con = sqlite3.connect(path)
    try:
        for document, vector, tag in con.execute(f"SELECT document, vector, tag FROM {table}").fetchall():
            yield Row(document, np.frombuffer(vector, np.float32), tag)
    finally:
        con.close()


def lose(path: Path, document: str, table: str = "vectors") -> None:
    """Take a document's vector away behind the indexer's back."""
    con = sqlite3.connect(path)
    with con:
        con.execute(f"DELETE FROM {table} WHERE document = ?", (document,))
    con.close()


def alter(path: Path, document: str, vector: bytes, table: str = "vectors") -> None:
    """Put another vector in a document's place behind the indexer's back."""
    con = sqlite3.connect(path)
    with con:
        con.execute(f"UPDATE {table} SET vector = ? WHERE document = ?", (vector, document))
    con.close()
