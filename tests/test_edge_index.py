"""Indexes over the vectors of a folder: what is searched stays right, and a child that dies changes nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from indexed_points import COUNT, SPEC, assert_right, counts, filled, points
from store_children import digests, pin

from materialize.indexing import index_space
from materialize.stores import edge
from materialize.stores.edge_index import Indexing
from materialize.stores.edge_models import search_params
from materialize.stores.points import CollectionSpec, Point
from materialize.stores.publication import open_reader, open_writer

pytest_plugins = ("store_processes", "small_indexes")
pytestmark = pytest.mark.usefixtures("small_collections")


def test_an_index_is_published_and_searched(tmp_path):
    with filled(tmp_path) as writer:
        writer.publish()
        assert (counts(writer), writer.unindexed("pins")) == ((0, COUNT), COUNT)
        with open_reader(tmp_path) as reader:
            writer.index("pins")
            assert (counts(writer), writer.unindexed("pins")) == ((COUNT, 0), 0)
            assert counts(reader) == (0, COUNT)
            assert_right(reader, set(range(COUNT)))
            assert writer.publish() == 2
            assert reader.refresh()
            assert counts(reader) == (COUNT, 0)
            for store in (writer, reader):
                assert_right(store, set(range(COUNT)))


def test_small_changes_keep_the_index_and_large_ones_want_another(tmp_path, builds):
    with filled(tmp_path) as writer:
        writer.index("pins")
        writer.publish()
        writer.upsert("pins", points(3, 5, *range(COUNT, COUNT + 40)))
        writer.delete("pins", ids=[pin(0)])
        writer.publish()
        now = set(range(1, COUNT + 40))
        assert counts(writer) == (COUNT, 42)
        assert writer.unindexed("pins") == 0
        with open_reader(tmp_path) as reader:
            assert counts(reader) == (COUNT, 42)
            assert_right(reader, now)
        writer.upsert("pins", points(*range(1, 31)))  # written again, so that they leave the index
        assert writer.unindexed("pins") == counts(writer)[1] > 60
        index_space(writer, "pins")
        assert counts(writer) == (len(now), 0)
        assert_right(writer, now)
        assert len(builds) == 2
    with open_writer(tmp_path) as again:
        assert counts(again) == (len(now), 0)
        again.upsert("pins", points(7_000))  # is not taken for an older operation than those that were indexed
        assert_right(again, now | {7_000})


def test_a_collection_that_is_small_or_has_no_vectors_is_not_indexed(tmp_path, builds):
    with open_writer(tmp_path) as writer:
        for name, spec in (("pins", SPEC), ("rows", CollectionSpec(sparse=("words",)))):
            writer.create(name, spec)
        writer.upsert("pins", points(*range(100)))
        writer.upsert("rows", [Point(each.id, each.payload, {}, each.sparse) for each in points(*range(200))])
        for name in ("pins", "rows"):
            index_space(writer, name)
    assert builds == []


def test_a_collection_that_is_written_anew_is_indexed_anew(tmp_path):
    with filled(tmp_path) as writer:
        writer.index("pins")
        writer.delete("pins", ids=[pin(1)])
        writer.rewrite("pins")
        assert counts(writer) == (COUNT - 1, 0)
        assert_right(writer, set(range(COUNT)) - {1})


def test_readers_share_the_big_files_of_an_index_and_change_none(tmp_path):
    with filled(tmp_path) as writer:
        writer.index("pins")
        number = writer.publish()
    published = tmp_path / "publications" / f"{number:06d}" / "pins"
    before = digests(published)
    names = {"matrix.dat", "links_compressed.bin", "inverted_index.dat"}
    with open_reader(tmp_path) as reader:
        assert_right(reader, set(range(COUNT)))
        shared = {
            path.name for path in (tmp_path / "readers").rglob("*") if path.is_file() and path.stat().st_nlink > 1
        }
        assert names <= shared
        assert digests(published) == before
    assert digests(published) == before


def test_a_filtered_search_steps_over_what_does_not_match():
    """In a large graph the few that match are not linked with each other: without this most of them are missed."""
    assert search_params(exact=False, filtered=True).acorn.enable
    assert search_params(exact=False, filtered=True).acorn.max_selectivity == 1.0
    assert search_params(exact=False, filtered=False).acorn is None
    assert search_params(exact=True, filtered=True).exact


def test_what_is_left_of_an_index_is_indexed_anew(tmp_path):
    """A search steps over no deleted point, so the graph of a few that are left falls apart."""
    with filled(tmp_path) as writer:
        writer.index("pins")
        writer.delete("pins", ids=[pin(n) for n in range(60)])
        assert (counts(writer), writer.unindexed("pins")) == ((COUNT, 0), 0)
        writer.delete("pins", ids=[pin(n) for n in range(60, 240)])
        assert writer.unindexed("pins") == 240
        index_space(writer, "pins")
        assert (counts(writer), writer.unindexed("pins")) == ((60, 0), 0)
        assert_right(writer, set(range(240, COUNT)))


def test_who_reads_or_writes_while_an_index_is_made_is_not_refused(tmp_path, monkeypatch):
    real = edge.build_index
    with filled(tmp_path) as writer:
        former = writer._open("pins")
        begun = threading.Event()

        def build(*args):
            begun.set()
            real(*args)
            waiting.wait(20)

        waiting = threading.Event()
        monkeypatch.setattr(edge, "build_index", build)
        check, opens = edge.check_filter, []
        monkeypatch.setattr(edge, "check_filter", lambda *args: (waiting.set(), check(*args))[1])
        with ThreadPoolExecutor(2) as threads:
            indexing = threads.submit(writer.index, "pins")
            assert begun.wait(20)
            deleting = threads.submit(writer.delete, "pins", [pin(0)])  # has opened the former one when it waits
            deleting.result(60)
            indexing.result(60)
        monkeypatch.setattr(edge, "check_filter", check)
        core = writer._shared()
        now, opened = core._open("pins"), iter([former])
        assert now is not former
        monkeypatch.setattr(core, "_open", lambda name: opens.append(name) or next(opened, now))
        monkeypatch.setattr(writer, "_open", core._open)
        assert writer.size("pins") == COUNT - 1  # of the one that took its place
        assert len(opens) == 2


def test_all_else_goes_on_while_an_index_is_made(tmp_path, monkeypatch):
    """It takes minutes: others are listed, made, opened, written, published meanwhile, and only this one waits."""
    with filled(tmp_path) as writer:
        writer.create("rows", CollectionSpec())
    real = edge.build_index
    begun, done = threading.Event(), threading.Event()

    def build(*args):
        real(*args)
        begun.set()
        assert done.wait(60)

    monkeypatch.setattr(edge, "build_index", build)
    with open_writer(tmp_path) as writer, ThreadPoolExecutor(3) as threads:
        indexing = threads.submit(writer.index, "pins")
        assert begun.wait(60)
        try:

            def others() -> None:
                assert sorted(writer.collections()) == ["pins", "rows"]
                assert writer.count("rows") == 0  # opened for the first time
                writer.upsert("rows", [Point(pin(1), {"n": 1})])
                writer.create("more", CollectionSpec())
                writer.drop("more")
                assert_right(writer, set(range(COUNT)))
                assert writer.publish() == 1

            threads.submit(others).result(20)
            changes = ((writer.delete, [pin(0)]), (writer.upsert, points(7_000)))
            waiting = [threads.submit(change, "pins", what) for change, what in changes]
            with open_reader(tmp_path) as reader:
                assert_right(reader, set(range(COUNT)))
                assert reader.count("rows") == 1
            assert not any(each.done() for each in waiting)
        finally:
            done.set()
        for each in (indexing, *waiting):
            each.result(60)
        assert_right(writer, {*range(1, COUNT), 7_000})
        assert counts(writer)[0] == COUNT
        assert writer.publish() == 2


@pytest.mark.parametrize("change", ["rewrite", "drop", "index", "create"])
def test_two_changes_of_one_collection_come_one_after_the_other(tmp_path, monkeypatch, change):
    real = edge.build_index
    begun, done = threading.Event(), threading.Event()

    def build(folder, *args):
        real(folder, *args)
        begun.set()
        assert done.wait(60)
        assert folder.is_dir(), "another one built in the same folder"

    monkeypatch.setattr(edge, "build_index", build)
    more = replace(SPEC, indexes={**SPEC.indexes, "n": "integer"})
    with filled(tmp_path) as writer, ThreadPoolExecutor(2) as threads:
        indexing = threads.submit(writer.index, "pins")
        assert begun.wait(60)
        second = threads.submit(getattr(writer, change), "pins", *([more] if change == "create" else []))
        writer.collections()
        changed = second.done()
        done.set()
        assert not changed
        for each in (indexing, second):
            each.result(60)
        if change == "drop":
            assert writer.collections() == {}
        else:
            assert_right(writer, set(range(COUNT)))
            assert counts(writer) == (COUNT, 0)
            assert ("n" in writer.collections()["pins"].indexes) == (change == "create")
    with open_writer(tmp_path) as again:
        assert sorted(again.collections()) == ([] if change == "drop" else ["pins"])


class Borrowed:
    """A shard that another thread is reading from at the first two tries to close it."""

    def __init__(self, shard: Any) -> None:
        self.shard, self.tries = shard, 0

    def close(self) -> None:
        self.tries += 1
        if self.tries < 3:
            raise RuntimeError("Already borrowed")
        self.shard.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shard, name)


def test_closing_waits_for_reads_of_other_threads(tmp_path):
    with filled(tmp_path) as writer:
        collection = writer._open("pins")
        collection._shard = borrowed = Borrowed(collection._shard)
        writer.index("pins")
        assert borrowed.tries == 3
        assert_right(writer, set(range(COUNT)))


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_what_is_indexed_stays_so_until_a_fifth_has_changed(indexed, unindexed):
    due = Indexing().due(indexed, unindexed)
    assert due == (indexed + unindexed > 50_000 and 5 * unindexed > indexed)
    assert not Indexing().due(indexed, indexed // 1000)
