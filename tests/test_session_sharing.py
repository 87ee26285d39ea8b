"""Writers, readers and forks of one process that get in each other's way: nothing written is lost from view."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from store_children import SPEC, found, points

from materialize.stores.publication import current_writer, open_reader, open_writer
from materialize.stores.session import session

pytest_plugins = ("store_processes",)


def write(root: Path, *numbers: int, interval: float = 0, patience: float = 0) -> None:
    with session(root).writing("test", patience, interval) as writer:
        writer.create("pins", SPEC)
        writer.upsert("pins", points(*numbers))


def published(root: Path) -> list[int]:
    with open_reader(root) as reader:
        return found(reader)


def test_a_read_that_outlasts_a_write_does_not_keep_it_from_being_published(tmp_path: Path) -> None:
    write(tmp_path, 1)
    inside, go_on = threading.Event(), threading.Event()

    def read() -> None:
        with session(tmp_path).reading() as view:
            assert found(view) == [1]
            inside.set()
            go_on.wait()
            assert found(view) == [1, 2]

    reader = threading.Thread(target=read)
    with session(tmp_path).writing("test") as writer:
        reader.start()
        inside.wait()
        writer.upsert("pins", points(2))
    assert published(tmp_path) == [1, 2]
    with session(tmp_path).reading() as view:
        assert found(view) == [1, 2]
    go_on.set()
    reader.join()
    assert current_writer(tmp_path) is None
    write(tmp_path, 3)
    assert published(tmp_path) == [1, 2, 3]


def test_a_writer_that_fails_does_not_keep_others_from_publishing(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(RuntimeError, match="mine"), session(tmp_path).writing("fails"):
        writer = threading.Thread(target=write, args=(tmp_path, 2))
        writer.start()
        writer.join()
        raise RuntimeError("mine")
    assert published(tmp_path) == [1, 2]


def test_a_write_beside_a_run_is_published_by_the_run_or_after_it(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with open_writer(tmp_path) as run:
        write(tmp_path, 2)
        assert published(tmp_path) == [1]
        run.upsert("pins", points(3))
        run.publish()
        assert published(tmp_path) == [1, 2, 3]
        write(tmp_path, 4)
    session(tmp_path).publish()
    assert published(tmp_path) == [1, 2, 3, 4]
    assert current_writer(tmp_path) is None


@pytest.mark.parametrize("waiting", [True, False])
def test_a_fork_keeps_no_lock(tmp_path: Path, waiting: bool) -> None:
    write(tmp_path, 1, interval=3600)
    write(tmp_path, 2, interval=3600)  # waits for its publication, or for the run that is under way
    run = None if waiting else open_writer(tmp_path)
    hold, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(let_go)
        os.read(hold, 1)
        os._exit(0)
    try:
        os.close(hold)
        if run is None:
            assert published(tmp_path) == [1, 2]
        else:
            run.close()
            session(tmp_path).publish()
        write(tmp_path, 3)
        assert published(tmp_path) == [1, 2, 3]
    finally:
        os.close(let_go)
        os.waitpid(child, 0)


def test_a_process_that_writes_all_the_time_lets_others_write(tmp_path: Path, child) -> None:
    write(tmp_path, 1)
    other = child(
        """
for n in (1001, 1002):
    with session(root).writing("other", 60) as writer:
        writer.upsert("pins", points(n))
    say("wrote", n)
"""
    )
    n = 1
    while other.process.poll() is None:
        n += 1
        write(tmp_path, n, interval=0.2, patience=60)
    assert [other.hear(), other.hear()] == ["wrote 1001", "wrote 1002"]
    session(tmp_path).publish()
    assert {1001, 1002} <= set(published(tmp_path))
