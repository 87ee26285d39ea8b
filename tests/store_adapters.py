"""Every adapter of the store port, for tests that run on each: ask for ``store``, or ``adapter`` to open it twice.

"server-fake" is the server adapter over HTTP against tests/fake_qdrant.py, which is no Qdrant: it shows that requests
and answers fit together, not what a server does. "server" is a real one and runs where there is one (conftest.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_qdrant import FakeQdrant
from store_samples import Adapter, PublishedStore

from materialize.stores.edge import EdgeStore
from materialize.stores.place import Place
from materialize.stores.port import VectorStore
from materialize.stores.server import ServerStore


def edge(path: Path) -> Iterator[Adapter]:
    yield Adapter(lambda: EdgeStore(path))


def edge_reader(path: Path) -> Iterator[Adapter]:
    yield Adapter(lambda: PublishedStore(path))


def memory(path: Path) -> Iterator[Adapter]:
    yield Adapter(lambda: ServerStore.open(Place(path=":memory:")), keeps=False)


def server_fake(path: Path) -> Iterator[Adapter]:
    fake = FakeQdrant()
    yield Adapter(lambda: ServerStore.open(Place(url=fake.url)))
    fake.close()


ADAPTERS = {"edge": edge, "edge-reader": edge_reader, "memory": memory, "server-fake": server_fake}


@pytest.fixture(params=[*ADAPTERS, "server"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapter]:
    if request.param != "server":
        yield from ADAPTERS[request.param](tmp_path / "store")
        return
    place = request.getfixturevalue("qdrant_server")
    yield Adapter(lambda: ServerStore.open(place()))


@pytest.fixture
def store(adapter: Adapter) -> Iterator[VectorStore]:
    opened = adapter.open()
    yield opened
    opened.close()
