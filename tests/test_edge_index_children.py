"""The process that indexes the vectors of a folder: however it ends, the collection is as it was, or indexed."""

from __future__ import annotations

import errno
import os
import re
import signal

import pytest
from indexed_points import COUNT, assert_right, broken_child, counts, filled
from store_children import digests

from materialize.indexing import index_space
from materialize.stores import edge, edge_index
from materialize.stores.edge_index import IndexingError
from materialize.stores.publication import open_reader, open_writer

pytest_plugins = ("store_processes", "small_indexes")
pytestmark = pytest.mark.usefixtures("small_collections")


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (f"os.kill(os.getpid(), {int(signal.SIGKILL)})", "was ended by SIGKILL, most often for lack of memory."),
        ("sys.exit('no more memory')", "no more memory"),
        ("raise OSError(28, 'No space left on device')", "No space left on device"),
    ],
)
def test_a_child_that_dies_leaves_the_collection_as_it_was(tmp_path, monkeypatch, caplog, then, said):
    with filled(tmp_path / "store") as writer:
        writer.publish()
        with monkeypatch.context() as patched:
            broken_child(tmp_path, patched, then)
            with pytest.raises(IndexingError, match=re.escape(said)):
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


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (f"os.kill(os.getpid(), {int(signal.SIGBUS)})", "was ended by SIGBUS, most often because the disk is full."),
        ("sys.stderr.write('out of luck')\nsys.stderr.flush()\nos.abort()", "was ended by SIGABRT (out of luck)."),
        ("os.kill(os.getpid(), 40)", "was ended by signal 40."),
        ("os._exit(3)", "ended with 3."),
    ],
)
def test_it_is_told_how_a_child_ended(tmp_path, monkeypatch, then, said):
    with filled(tmp_path / "store") as writer:
        broken_child(tmp_path, monkeypatch, then)
        with pytest.raises(IndexingError, match=re.escape(said)):
            writer.index("pins")


def test_a_signal_from_the_terminal_does_not_reach_the_child(tmp_path, monkeypatch):
    """It goes to all processes of the terminal's session: the run that it is meant for ends the child itself."""
    with filled(tmp_path / "store") as writer:
        broken_child(tmp_path, monkeypatch, "sys.exit(f'session {os.getsid(0)}, group {os.getpgrp()}')")
        with pytest.raises(IndexingError, match="session ") as raised:
            writer.index("pins")
        said = re.search(r"session (\d+), group (\d+)", str(raised.value))
        assert said is not None
        assert int(said[1]) != os.getsid(0)
        assert int(said[2]) != os.getpgrp()


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
