"""Points whose vectors are indexed: a collection of them, what must hold of it, and a child that fails to index it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from store_children import pin

from materialize.stores import edge_index
from materialize.stores.points import CollectionSpec, Point, SparseVector, VectorSpec
from materialize.stores.port import Match
from materialize.stores.publication import Writer, open_writer

SPEC = CollectionSpec({"vector": VectorSpec(16, half=True)}, sparse=("words",), indexes={"lang": "keyword"})
COUNT = 300


def points(*numbers: int) -> list[Point]:
    """Points whose vector, words and language follow from their number."""
    return [
        Point(
            pin(n),
            {"n": n, "lang": "de" if n % 4 == 0 else "en"},
            {"vector": np.random.default_rng(n).standard_normal(16).astype(np.float16).astype(np.float32)},
            {"words": SparseVector(np.array([n % 7, 100 + n], np.uint32), np.ones(2, np.float32))},
        )
        for n in numbers
    ]


def nearest(store, number: int, **options) -> list[int]:
    vector = np.random.default_rng(10_000 + number).standard_normal(16).astype(np.float32)
    return [hit.payload["n"] for hit in store.search("pins", vector, 10, **options)]


def assert_right(store, numbers: set[int]) -> None:
    """The store holds these points and finds them by vector, with and without a filter, and by words."""
    assert store.count("pins") == len(numbers)
    assert {point.payload["n"] for point in store.scroll("pins", limit=10_000)[0]} == numbers
    for number in range(5):
        for wanted in (None, Match("lang", "de")):
            exact = nearest(store, number, filter=wanted, exact=True)
            assert len(set(nearest(store, number, filter=wanted)) & set(exact)) >= 9
    some = max(numbers)
    word = SparseVector(np.array([100 + some], np.uint32), np.ones(1, np.float32))
    assert [hit.payload["n"] for hit in store.search("pins", word, 5, using="words")] == [some]


def filled(root: Path) -> Writer:
    writer = open_writer(root)
    writer.create("pins", SPEC)
    writer.upsert("pins", points(*range(COUNT)))
    return writer


def counts(store) -> tuple[int, int]:
    return store._open("pins").vector_counts()


def broken_child(tmp_path: Path, monkeypatch, then: str) -> None:
    """The child spoils the folder that it was given; then it does ``then``."""
    script = tmp_path / "child.py"
    script.write_text(f"import os, shutil, sys, time\nshutil.rmtree(sys.argv[1] + '/segments')\n{then}\n")
    monkeypatch.setattr(edge_index, "INDEXER", script)
