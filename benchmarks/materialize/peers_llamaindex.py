"""LlamaIndex: ``IngestionPipeline`` with a persisted ``SimpleDocumentStore``, upserts and delete, over a durable store.

Every document is one node whose id is the document's, so that a node that is written twice is one row, and the
pipeline's cache of transformations is off: both are in its favour.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    TextNode,
    TransformComponent,
)
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery, VectorStoreQueryResult

from benchmarks.materialize import peers_vectors
from benchmarks.materialize.peers_documents import Document, FakeEncoder, InFolder, Row, die
from benchmarks.materialize.peers_vectors import VectorTable

NAME = "LlamaIndex"
PACKAGES = ("llama-index-core",)
READS_FILES = False
BATCH = 1000


class _OneNode(TransformComponent):
    """One node a document, named as the document."""

    def __call__(self, nodes: Sequence[BaseNode], **_: Any) -> Sequence[BaseNode]:
        return [
            TextNode(
                id_=each.id_,
                text=each.get_content(MetadataMode.NONE),
                metadata=each.metadata,
                excluded_embed_metadata_keys=each.excluded_embed_metadata_keys,
                relationships={NodeRelationship.SOURCE: each.as_related_node_info()},
            )
            for each in nodes
        ]


class _Embedding(BaseEmbedding):
    _encoder: FakeEncoder = PrivateAttr()

    def __init__(self, encoder: FakeEncoder) -> None:
        super().__init__(embed_batch_size=BATCH)
        self._encoder = encoder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class _Store(BasePydanticVectorStore):
    """The two methods that the pipeline uses."""

    stores_text: bool = False
    _table: VectorTable = PrivateAttr()

    def __init__(self, table: VectorTable) -> None:
        super().__init__()
        self._table = table

    @property
    def client(self) -> VectorTable:
        """The table."""
        return self._table

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Write nodes that have a vector."""
        self._table.upsert(
            (each.node_id, each.ref_doc_id or "", np.array(each.get_embedding(), np.float32).tobytes(), tag)
            for each in nodes
            for tag in (each.metadata["tag"],)
        )
        return [each.node_id for each in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a document."""
        self._table.delete([ref_doc_id], "document")

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        """Not asked for by the pipeline."""
        raise NotImplementedError


class System(InFolder):
    """The store and the pipeline's files under ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = folder / "pipeline"

    def sync(self, documents: Sequence[Document], encoder: FakeEncoder, dies: str | None = None) -> dict[str, Any]:
        """Make the store equal to ``documents``; ``dies`` is ``"store"`` or ``"delete"``. Returns how many were run."""
        table = VectorTable(self.store, die if dies == "store" else None, die if dies == "delete" else None)
        pipeline = IngestionPipeline(
            transformations=[_OneNode(), _Embedding(encoder)],
            docstore=SimpleDocumentStore(),
            vector_store=_Store(table),
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            disable_cache=True,
        )
        if self.files.is_dir():
            pipeline.load(str(self.files))
        nodes = pipeline.run(
            documents=[
                LlamaDocument(
                    doc_id=each.id, text=each.text, metadata={"tag": each.tag}, excluded_embed_metadata_keys=["tag"]
                )
                for each in documents
            ]
        )
        pipeline.persist(str(self.files))
        table.close()
        return {"nodes": len(nodes)}

    def stored(self) -> list[Row]:
        """Every row of the store."""
        return list(peers_vectors.stored_rows(self.store))

    def lose(self, document: Document) -> None:
        """Take a document's vector away behind its back."""
        peers_vectors.lose(self.store, document.id)

    def alter(self, document: Document, vector: bytes) -> None:
        """Put another vector in its place behind its back."""
        peers_vectors.alter(self.store, document.id, vector)
