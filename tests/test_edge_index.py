"""Indexes over the vectors of a folder: what is searched stays right, and a child that dies changes nothing."""

from __future__ import annotations

import errno
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_indexes import broken_child
from store_children import digests, pin

from materialize.indexing import index_space
from materialize.stores import edge, edge_index
from materialize.stores.edge_index import Indexing, IndexingError
from materialize.stores.edge_models import search_params
from materialize.stores.points import CollectionSpec, Point, SparseVector, VectorSpec
from materialize.stores.port import Match
from materialize.stores.publication import Writer, open_reader, open_writer

pytest_plugins = ("store_processes", "small_indexes")
pytestmark = pytest.mark.usefixtures("small_collections")

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


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (f"os.kill(os.getpid(), {int(signal.SIGKILL)})", "ended with -9"),
        ("sys.exit('no more memory')", "no more memory"),
        ("raise OSError(28, 'No space left on device')", "No space left on device"),
    ],
)
def test_a_child_that_dies_leaves_the_collection_as_it_was(tmp_path, monkeypatch, caplog, then, said):
    with filled(tmp_path / "store") as writer:
        writer.publish()
        with monkeypatch.context() as patched:
            broken_child(tmp_path, patched, then)
            with pytest.raises(IndexingError, match=said):
                writer.index("pins")
            told: list[str] = []
            index_space(writer, "pins", told.append)  # a run says so and goes on
            assert told[0] == f"Indexing {COUNT} vectors of pins for faster searches: minutes for every 100,000."
            assert said in told[1]
            assert said in caplog.text
            writer.rewrite("pins")  # has no index then, and all points
            assert counts(writer) == (0, COUNT)
        assert_right(writer, set(range(COUNT)))
        writer.index("pins")
        assert counts(writer) == (COUNT, 0)
        assert sorted(os.listdir(tmp_path / "store" / "writer")) == [".dirty", ".published", "pins"]


def test_indexing_changes_no_file_before_it_is_done(tmp_path, monkeypatch):
    with filled(tmp_path / "store") as writer:
        writer.flush()
        before = digests(tmp_path / "store" / "writer" / "pins")
        broken_child(tmp_path, monkeypatch, "sys.exit(1)")
        with pytest.raises(IndexingError):
            writer.index("pins")
        assert digests(tmp_path / "store" / "writer" / "pins") == before


def test_a_run_that_is_stopped_ends_the_child(tmp_path, monkeypatch):
    with filled(tmp_path / "store") as writer:
        broken_child(
            tmp_path, monkeypatch, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
        )
        asked: list[bool] = []

        def stop() -> bool:
            asked.append((tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
            return asked[-1]

        with pytest.raises(IndexingError, match="asked to stop"):
            writer.index("pins", stop)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
        assert_right(writer, set(range(COUNT)))


def test_a_child_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(edge_index, "PATIENCE", 0.0)
    monkeypatch.setattr(edge_index, "PATIENCE_A_POINT", 0.0)
    with filled(tmp_path / "store") as writer:
        broken_child(tmp_path, monkeypatch, "time.sleep(600)")
        with pytest.raises(IndexingError, match="took too long"):
            writer.index("pins")


@pytest.mark.parametrize("rename", [1, 2])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_writer_killed_as_the_index_is_put_in_place(tmp_path, child, rename, after):
    """Each rename that puts it there is a place to die at; the next writer has all points, indexed or not."""
    with filled(tmp_path) as writer:
        writer.publish()
    killed = child(f"""
from materialize.stores import edge_index
edge_index.INDEXING = edge_index.Indexing(points=100)
writer = open_writer(root)
real, seen = os.rename, []
def dying(source, target):
    seen.append(target)
    if len(seen) == {rename} and not {after}: die()
    real(source, target)
    if len(seen) == {rename}: die()
os.rename = dying
writer.index('pins')
""")
    assert killed.died()
    with open_writer(tmp_path, lock_timeout=0) as again:
        assert_right(again, set(range(COUNT)))
        again.publish()
        assert sum(counts(again)) == COUNT
    with open_reader(tmp_path) as reader:
        assert_right(reader, set(range(COUNT)))
        assert sum(counts(reader)) == COUNT


def test_a_child_ends_with_its_parent(tmp_path, child):
    """Else it would go on for minutes in a folder that the next writer removes."""
    with filled(tmp_path) as writer:
        writer.publish()
    script = tmp_path / "child.py"
    real = edge_index.INDEXER.read_text()
    script.write_text(
        real.replace(
            "    import qdrant_edge\n",
            f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    signal.pause()\n",
        )
    )
    parent = child(f"""
from materialize.stores import edge_index
edge_index.INDEXING = edge_index.Indexing(points=100)
edge_index.INDEXER = {str(script)!r}
writer = open_writer(root)
writer.index('pins', stop=lambda: os.path.exists({str(tmp_path / "pid")!r}) and die())
""")
    assert parent.died()
    pid = int((tmp_path / "pid").read_text())
    handle = None
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([handle], [], [], 20)[0], "the child outlived its parent by 20 seconds"
    os.close(handle)


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


def test_a_full_disk_leaves_the_collection_as_it_was(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    with filled(tmp_path) as writer:
        for module, name in ((edge, "copy_tree"), (edge_index, "write_durably"), (edge_index.subprocess, "Popen")):
            told: list[str] = []
            with monkeypatch.context() as patched:
                patched.setattr(module, name, full)
                index_space(writer, "pins", told.append)
            assert "not indexed: No space left on device." in told[1]
        with monkeypatch.context() as patched:
            patched.setattr(edge_index, "write_durably", full)
            writer.rewrite("pins")
        assert counts(writer) == (0, COUNT)
        assert_right(writer, set(range(COUNT)))
        writer.publish()
        assert sorted(os.listdir(tmp_path / "writer")) == [".dirty", ".published", "pins"]


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
