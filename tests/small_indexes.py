"""Indexes over the vectors of collections of some hundred points."""

from __future__ import annotations

from pathlib import Path

import pytest

from materialize.stores import edge, edge_index
from materialize.stores.edge_index import Indexing

SMALL = Indexing(points=100, m=4, full_scan_kb=1)


@pytest.fixture
def small_collections(monkeypatch):
    """Collections of more than a hundred points are large here, and searched through their graph."""
    monkeypatch.setattr(edge_index, "INDEXING", SMALL)


@pytest.fixture
def builds(monkeypatch) -> list[Path]:
    """The folder of every index that is built."""
    built = []
    real = edge.build_index

    def build(folder, *args):
        built.append(folder)
        real(folder, *args)

    monkeypatch.setattr(edge, "build_index", build)
    return built
