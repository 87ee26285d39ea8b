"""CocoIndex: an app with one component a document, memo on component and encoder, LMDB, its own SQLite target."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cocoindex as coco
from cocoindex.connectors import sqlite

from benchmarks.materialize import peers_vectors
from benchmarks.materialize.peers_documents import Document, FakeEncoder, InFolder, Row, die

NAME = "CocoIndex"
PACKAGES = ("cocoindex",)
READS_FILES = False
BATCH = 1000
_TABLE = "vectors"
_DB = coco.ContextKey[sqlite.ManagedConnection]("peers_db")
_ENCODER: list[FakeEncoder] = []
"""The one encoder of this process: module state, as an embedder is in CocoIndex's own examples."""


@dataclass
class _Stored:
    document: str
    vector: bytes
    tag: str


@coco.fn.as_async(memo=True, batching=True, max_batch_size=BATCH, version=1)
def _embed(texts: list[str]) -> list[bytes]:
    return [vector.tobytes() for vector in _ENCODER[-1].encode(texts)]


@coco.fn(memo=True, version=1)
async def _index(document: Document, table: sqlite.TableTarget[_Stored]) -> None:
    table.declare_row(row=_Stored(document.id, await _embed(document.text), document.tag))


@coco.fn
async def _main(documents: Sequence[Document]) -> None:
    schema = await sqlite.TableSchema.from_class(_Stored, primary_key=["document"])
    table = await sqlite.mount_table_target(_DB, _TABLE, schema)
    await coco.mount_each(_index, ((each.id, each) for each in documents), table)


class _DyingConnection(sqlite.ManagedConnection):
    """Kills the process once a transaction that wrote or deleted rows is committed."""

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction; see the class."""
        before = self._conn.total_changes
        with super().transaction() as con:
            yield con
        if self._conn.total_changes > before:
            die()


class System(InFolder):
    """The table and the LMDB under ``folder``."""

    def sync(self, documents: Sequence[Document], encoder: FakeEncoder, dies: str | None = None) -> dict[str, Any]:
        """Make the store equal to ``documents``; ``dies`` is ``"store"`` or ``"delete"``. Returns nothing."""
        _ENCODER.append(encoder)

        @coco.lifespan
        def lifespan(builder: coco.EnvironmentBuilder) -> Iterator[None]:
            builder.settings.db_path = self.folder / "cocoindex.lmdb"
            con = sqlite.connect(self.store, load_vec=False)
            if dies in ("store", "delete"):
                con = _DyingConnection(con._conn)
            con._conn.execute("PRAGMA journal_mode=WAL")
            con._conn.execute("PRAGMA synchronous=NORMAL")
            builder.provide(_DB, con)
            yield
            con.close()

        app = coco.App(coco.AppConfig(name="peers"), _main, documents=documents)
        app.update_blocking()
        coco.stop_blocking()
        return {}

    def stored(self) -> list[Row]:
        """Every row of the store."""
        return list(peers_vectors.stored_rows(self.store, _TABLE))

    def lose(self, document: Document) -> None:
        """Take a document's vector away behind its back."""
        peers_vectors.lose(self.store, document.id, _TABLE)

    def alter(self, document: Document, vector: bytes) -> None:
        """Put another vector in its place behind its back."""
        peers_vectors.alter(self.store, document.id, vector, _TABLE)
