"""A run indexes a large space after it has published what is new."""

from __future__ import annotations

import pytest
from indexed_points import broken_child

from materialize.audit import audit
from materialize.run import RunOptions, materialize
from materialize.stores import edge
from materialize.stores.publication import open_reader

pytest_plugins = ("small_indexes",)
pytestmark = pytest.mark.usefixtures("small_collections")


def test_a_run_indexes_a_large_space_once_and_says_so(catalogue, encoder, builds):
    for number in range(120):
        catalogue.put(f"p{number}", f"oak sofa {number}")
    catalogue.save()
    told: list[str] = []
    first = materialize(catalogue.paths, RunOptions(encoder=encoder, tell=told.append))
    assert [words for words in told if words.startswith("Indexing 120 vectors of ")]
    assert first.stages["index"] > 0
    catalogue.put("p5", "green lamp")
    catalogue.save()
    second = materialize(catalogue.paths, RunOptions(encoder=encoder))
    assert second.upserted == 1
    assert [folder.name for folder in builds] == [f".{first.space}.rewritten"]
    with open_reader(catalogue.paths.online) as reader:
        assert reader._open(first.space).vector_counts() == (120, 1)
        assert reader.count(first.space) == 120
    assert audit(catalogue.paths).clean


def test_a_run_whose_space_cannot_be_indexed_ends_well(catalogue, encoder, tmp_path, monkeypatch):
    for number in range(120):
        catalogue.put(f"p{number}", f"oak sofa {number}")
    catalogue.save()
    broken_child(tmp_path, monkeypatch, "sys.exit('no more memory')")
    told: list[str] = []
    counts = materialize(catalogue.paths, RunOptions(encoder=encoder, tell=told.append))
    assert counts.upserted == 120
    assert "no more memory" in told[-1]
    assert told[-1].endswith("read every vector until a later run indexes them.")
    with open_reader(catalogue.paths.online) as reader:
        assert reader._open(counts.space).vector_counts() == (0, 120)
    assert audit(catalogue.paths).clean


def test_what_is_new_or_taken_down_does_not_wait_for_the_index(catalogue, encoder, monkeypatch):
    for number in range(90):
        catalogue.put(f"p{number}", f"oak sofa {number}")
    catalogue.save()
    space = materialize(catalogue.paths, RunOptions(encoder=encoder)).space
    seen = []
    real = edge.build_index

    def build(*args):
        with open_reader(catalogue.paths.online) as reader:
            seen.append(reader.count(space))
        real(*args)

    monkeypatch.setattr(edge, "build_index", build)
    del catalogue.pins["p0"]
    for number in range(90, 120):
        catalogue.put(f"p{number}", f"oak sofa {number}")
    catalogue.save()
    materialize(catalogue.paths, RunOptions(encoder=encoder))
    assert seen == [119]
    with open_reader(catalogue.paths.online) as reader:
        assert reader._open(space).vector_counts() == (119, 0)
