"""LangChain: ``index()`` with ``SQLRecordManager`` in SQLite, cleanup ``full``, over a durable vector store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document as LangDocument
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_core.vectorstores import VectorStore

from benchmarks.materialize import peers_vectors
from benchmarks.materialize.peers_documents import Document, FakeEncoder, InFolder, Row, die
from benchmarks.materialize.peers_vectors import VectorTable

NAME = "LangChain"
PACKAGES = ("langchain-core", "langchain-classic", "SQLAlchemy")
READS_FILES = False
BATCH = 1000


class _Embeddings(Embeddings):
    def __init__(self, encoder: FakeEncoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector a text."""
        vectors: list[list[float]] = self.encoder.encode(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """A vector."""
        return self.embed_documents([text])[0]


class _Store(VectorStore):
    """The two methods that ``index()`` uses."""

    def __init__(self, table: VectorTable, embedding: Embeddings) -> None:
        self._table, self._embedding = table, embedding

    def add_documents(self, documents: list[LangDocument], **options: Any) -> list[str]:
        """Encode and write."""
        ids: list[str] = options["ids"]
        vectors = np.array(self._embedding.embed_documents([each.page_content for each in documents]), np.float32)
        self._table.upsert(
            (key, each.metadata["id"], vector.tobytes(), each.metadata["tag"])
            for key, each, vector in zip(ids, documents, vectors, strict=True)
        )
        return ids

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Delete by id."""
        self._table.delete(ids or [])
        return True

    def similarity_search(self, query: str, k: int = 4, **_: Any) -> list[LangDocument]:
        """Not asked for by ``index()``."""
        raise NotImplementedError

    @classmethod
    def from_texts(cls, *_: Any, **__: Any) -> _Store:
        """Not asked for by ``index()``."""
        raise NotImplementedError


class System(InFolder):
    """The store and the record manager under ``folder``."""

    def sync(self, documents: Sequence[Document], encoder: FakeEncoder, dies: str | None = None) -> dict[str, Any]:
        """Make the store equal to ``documents``; ``dies`` is ``"store"`` or ``"delete"``. Returns LangChain's words."""
        table = VectorTable(self.store, die if dies == "store" else None, die if dies == "delete" else None)
        records = SQLRecordManager("peers", db_url=f"sqlite:///{self.folder / 'records.db'}")
        records.create_schema()
        done = index(
            (LangDocument(page_content=each.text, metadata={"id": each.id, "tag": each.tag}) for each in documents),
            records,
            _Store(table, _Embeddings(encoder)),
            batch_size=BATCH,
            cleanup="full",
            key_encoder="blake2b",
        )
        table.close()
        return dict(done)

    def stored(self) -> list[Row]:
        """Every row of the store."""
        return list(peers_vectors.stored_rows(self.store))

    def lose(self, document: Document) -> None:
        """Take a document's vector away behind its back."""
        peers_vectors.lose(self.store, document.id)

    def alter(self, document: Document, vector: bytes) -> None:
        """Put another vector in its place behind its back."""
        peers_vectors.alter(self.store, document.id, vector)
