"""The one writer of a folder: who waits learns for whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from store_children import SPEC, digests, found, publish

from materialize.stores.errors import StoreBusyError, StoreError
from materialize.stores.lease import WriterLease, read_holder
from materialize.stores.publication import open_reader, open_writer

pytest_plugins = ("store_processes",)


class TestLease:
    def test_holder_is_on_record_while_held(self, tmp_path: Path) -> None:
        path = tmp_path / "writer.lock"
        with WriterLease(path, purpose="test") as lease:
            assert lease.held
            holder = read_holder(path)
            assert (holder["pid"], holder["purpose"]) == (os.getpid(), "test")
            assert {"host", "command", "since"} < holder.keys()
            with pytest.raises(StoreBusyError, match=f"process {os.getpid()} "):
                WriterLease(path, timeout=0).acquire()
        assert not lease.held
        assert read_holder(path) == {}
        with WriterLease(path, timeout=0):
            pass

    def test_unreadable_holder(self, tmp_path: Path) -> None:
        path = tmp_path / "writer.lock"
        with WriterLease(path):
            path.write_text("{half")
            with pytest.raises(StoreBusyError, match="by another process"):
                WriterLease(path, timeout=0).acquire()

    def test_lock_file_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match="cannot be opened for writing"):
            WriterLease(tmp_path / "file" / "writer.lock").acquire()


class TestWriters:
    def test_second_writer_learns_who_holds_the_folder_and_writes_nothing(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        holder = child(
            "writer = open_writer(root, purpose='nightly run'); say('open'); wait()\n"
            "writer.close(); say('done'); wait()"
        )
        assert holder.hear() == "open"
        before = digests(tmp_path)
        with pytest.raises(StoreBusyError) as caught:
            open_writer(tmp_path, lock_timeout=0.1)
        for part in (f"process {holder.process.pid} ", "nightly run", "Waited 0.1 s", "nothing was written"):
            assert part in str(caught.value)
        assert digests(tmp_path) == before
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1]
        holder.go_on()
        assert holder.hear() == "done"
        publish(tmp_path, 2)

    def test_a_waiting_writer_gets_its_turn(self, tmp_path: Path, child) -> None:
        with open_writer(tmp_path) as writer:
            writer.create("pins", SPEC)
            waiting = child(
                "say('waits'); writer = open_writer(root, 60); writer.upsert('pins', points(7)); say(writer.publish())"
            )
            assert waiting.hear() == "waits"
        assert waiting.hear() == "1"
        assert waiting.end() == 0
        with open_reader(tmp_path) as reader:
            assert found(reader) == [7]

    def test_a_killed_holder_holds_nothing(self, tmp_path: Path, child) -> None:
        holder = child("writer = open_writer(root, purpose='nightly run'); say('open'); wait()")
        assert holder.hear() == "open"
        holder.kill()
        with open_writer(tmp_path, lock_timeout=0, purpose="next"):
            assert read_holder(tmp_path / "writer.lock")["purpose"] == "next"
