"""The small collections that the tests of the stores share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from materialize.stores.edge import EdgeReads
from materialize.stores.port import CollectionSpec, Condition, Point, VectorSpec, VectorStore
from materialize.stores.publication import open_reader, open_writer

PINS = CollectionSpec({"vector": VectorSpec(4)})
ROWS = CollectionSpec()


def pin(number: int) -> str:
    """The id of a pin."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pin/{number}"))


def unit(*numbers: float) -> np.ndarray:
    """A vector of length 1 in that direction."""
    vector = np.asarray(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def fill(store: VectorStore, count: int = 10) -> None:
    """Pins whose vector turns away from (1, 0, 0, 0) as the number grows; odd ones are French."""
    store.create("pins", PINS)
    store.upsert(
        "pins",
        [
            Point(
                pin(n), {"n": n, "even": n % 2 == 0, "f": {"lang": ["en", "fr"][n % 2]}}, {"vector": unit(10, n, 0, 0)}
            )
            for n in range(count)
        ],
    )


class PublishedStore(EdgeReads):
    """Writes as a writer that publishes each time, reads as another process would: from the newest publication."""

    def __init__(self, path: Path) -> None:
        self._writer = open_writer(path)
        self._writer.publish()
        self._reader = open_reader(path)

    def create(self, name: str, spec: CollectionSpec) -> None:
        self._write(self._writer.create, name, spec)

    def drop(self, name: str) -> None:
        self._write(self._writer.drop, name)

    def upsert(self, name: str, points: Iterable[Point], unless_newer: str | None = None) -> None:
        self._write(self._writer.upsert, name, points, unless_newer)

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        self._write(self._writer.delete, name, ids, filter)

    def collections(self) -> dict[str, CollectionSpec]:
        return self._reader.collections()

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _write(self, change: Callable[..., None], *arguments: Any) -> None:
        change(*arguments)
        self._writer.publish()
        self._reader.refresh()

    def _open(self, name: str) -> Any:
        return self._reader._open(name)


@dataclass
class Adapter:
    """How to open a store, again and again on the same data."""

    open: Callable[[], VectorStore]
    keeps: bool = True
    """Whether the data outlive the store object."""
