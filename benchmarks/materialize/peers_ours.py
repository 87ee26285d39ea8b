"""Pinfeather: ``materialize`` over a Feast repository, source files read from disk, on the real Edge store."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401 - a run imports duckdb and yaml, and pyarrow pandas, late; imports are outside the clock
import numpy as np
import numpy.typing as npt
import pandas as pd  # noqa: F401
import pyarrow as pa
import pyarrow.parquet as pq
import yaml  # noqa: F401

from benchmarks.materialize.peers_documents import DIMENSION, Document, FakeEncoder, Row, die
from embedders.encoder import Encoder
from embedders.model_folder import ModelFolder
from embedders.recipe import EncodingRecipe
from feature_repo.aggregates import aggregate
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize import vector_log
from materialize.definitions import load_definitions
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.run import RunOptions, materialize
from materialize.stores.layout import point_id
from materialize.stores.port import DEFAULT_VECTOR
from materialize.stores.publication import open_reader, open_writer

NAME = "Pinfeather"
PACKAGES = ("qdrant-edge-py", "duckdb", "pyarrow", "feast")
READS_FILES = True
_WHEN = datetime(2026, 10, 1, tzinfo=UTC)
_PAGE = 1000


class _Encoder:
    """The fake encoder in the packaged model's place."""

    dimension = DIMENSION

    def __init__(self, encoder: FakeEncoder) -> None:
        self._encoder = encoder
        self.recipe = EncodingRecipe("cpu", "fp32", 1, 1024, reason="a fake that counts")

    @cached_property
    def fingerprint(self) -> str:
        """The packaged model's, read when a run encodes: it costs reading the weights."""
        folder = ModelFolder.open("packaged")
        if folder.dimension != DIMENSION:
            raise ValueError(f"The packaged model has {folder.dimension} dimensions, the fake {DIMENSION}.")
        return folder.fingerprint()

    def encode(self, texts: Sequence[str], progress: Any = None) -> npt.NDArray[np.float32]:
        """One unit vector a text."""
        return self._encoder.encode(texts)


class System:
    """A repository of its own under ``folder``, applied by Feast once."""

    def __init__(self, folder: Path) -> None:
        self.paths, self._applied = RepoPaths(folder / "repo"), folder / "applied"

    def reset(self) -> None:
        """Begin anew: the applied definitions, no data, no store."""
        from pinfeather.apply import apply_definitions
        from pinfeather.init import init_repository

        root = self.paths.root
        if not self._applied.is_dir():
            apply_definitions(init_repository(root))
            shutil.copytree(root, self._applied, symlinks=True, ignore=shutil.ignore_patterns("online"))
        shutil.rmtree(root)
        shutil.copytree(self._applied, root, symlinks=True)

    def prepare(self, documents: Sequence[Document]) -> None:
        """Write the pins' table and bring the sources of the feature views up to date."""
        folder = self.paths.raw / "pins"
        folder.mkdir(parents=True, exist_ok=True)
        ids, texts, tags = (list(column) for column in zip(*documents, strict=True))
        when, blank = pa.array([_WHEN] * len(ids), pa.timestamp("us", "UTC")), pa.nulls(len(ids), pa.string())
        columns = {"pin_id": ids, "title": blank, "description": texts, "lang": tags, "country": ["US"] * len(ids)}
        pq.write_table(pa.table({**columns, "created_at": when, "event_timestamp": when}), folder / "part-0.parquet")
        validate(self.paths)
        aggregate(self.paths)

    def sync(self, documents: Sequence[Document], encoder: FakeEncoder, dies: str | None = None) -> dict[str, Any]:
        """Run ``materialize`` on what :meth:`prepare` wrote; ``dies`` is ``"store"`` or ``"delete"``. Gives counts."""
        if dies == "store":  # after the store's flush, before the log and the ledger
            vector_log.append = lambda *_, **__: die()
        if dies == "delete":
            vector_log.purge = lambda *_, **__: die()
        fake: Encoder = _Encoder(encoder)  # type: ignore[assignment]  # mypy takes a cached_property for read-only
        return materialize(self.paths, RunOptions(encoder=fake)).to_json()

    def stored(self) -> list[Row]:
        """Every row of the live space as a reader sees it."""
        rows, after, space = [], None, self._space()
        with open_reader(self.paths.online) as store:
            while True:
                points, after = store.scroll(
                    space,
                    limit=_PAGE,
                    after=after,
                    with_payload=["key", "lang"],
                    with_vectors=True,
                )
                rows += [
                    Row(point.payload["key"]["pin_id"], point.vectors[DEFAULT_VECTOR], point.payload["lang"])
                    for point in points
                ]
                if after is None:
                    return rows

    def lose(self, document: Document) -> None:
        """Take a document's vector away behind its back."""
        with open_writer(self.paths.online) as store:
            store.delete(self._space(), ids=[self._point_id(document)])
            store.publish(store.release)

    def alter(self, document: Document, vector: bytes) -> None:
        """Put another vector in its place behind its back."""
        other = {DEFAULT_VECTOR: np.frombuffer(vector, np.float32)}
        with open_writer(self.paths.online) as store:
            points = store.get_many(self._space(), [self._point_id(document)], with_vectors=True)
            store.upsert(self._space(), [replace(point, vectors=other) for point in points if point])
            store.publish(store.release)

    def _space(self) -> str:
        release = current_release(self.paths)
        if release is None or release.live_space is None:
            raise RuntimeError(f"{self.paths.root} has published nothing yet: run sync first.")
        return release.live_space

    def _point_id(self, document: Document) -> str:
        return point_id(load_definitions(self.paths).project, LIVE_EMBEDDING, {"pin_id": document.id})
