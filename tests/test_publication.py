"""One writer, many readers: publications, the writer lease and what is left after a kill, with real processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from materialize.stores import session as sessions
from materialize.stores.errors import NoPublicationError, StoreBusyError, StoreCorruptError, StoreError
from materialize.stores.lease import WriterLease, read_holder
from materialize.stores.port import CollectionSpec, Point, VectorSpec, VectorStore
from materialize.stores.publication import current_writer, open_reader, open_writer

CODE = Path(__file__).resolve().parents[1]
SPEC = CollectionSpec({"vector": VectorSpec(2)})
PRELUDE = """
import os, signal, sys, uuid
from materialize.stores.port import CollectionSpec, Point, VectorSpec
from materialize.stores.publication import open_reader, open_writer
root = sys.argv[1]
def pin(n): return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pin/{n}"))
def points(*numbers): return [Point(pin(n), {"n": n}, {"vector": [1.0, n]}) for n in numbers]
def say(*words): print(*words, flush=True)
def wait(): sys.stdin.readline()
"""


class Child:
    """A Python process that runs a script on a store folder and talks over its pipes."""

    def __init__(self, script: str, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, str(root)],
            cwd=CODE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.communicate("\n" * 9)
        return self.process.returncode


@pytest.fixture
def child(tmp_path: Path) -> Iterator:
    children = []

    def start(script: str) -> Child:
        children.append(Child(script, tmp_path))
        return children[-1]

    yield start
    for started in children:
        started.process.kill()
        started.process.communicate()


def pin(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pin/{number}"))


def points(*numbers: int) -> list[Point]:
    return [Point(pin(n), {"n": n}, {"vector": [1.0, n]}) for n in numbers]  # type: ignore[dict-item]


def publish(root: Path, *numbers: int, collection: str = "pins", release: dict | None = None) -> int:
    with open_writer(root) as writer:
        writer.create(collection, SPEC)
        writer.upsert(collection, points(*numbers))
        return writer.publish(release)


def found(store: VectorStore, collection: str = "pins") -> list[int]:
    return sorted(p.payload["n"] for p in store.scroll(collection)[0])


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def folders(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "publications").iterdir())


class TestReading:
    def test_nothing_published_yet(self, tmp_path: Path) -> None:
        with pytest.raises(NoPublicationError, match=r"no publication under .* yet: write and publish first"):
            open_reader(tmp_path)
        with open_writer(tmp_path) as writer:
            writer.create("pins", SPEC)
            with pytest.raises(NoPublicationError):
                open_reader(tmp_path)

    def test_reader_sees_what_was_published_and_switches_when_told(self, tmp_path: Path) -> None:
        assert publish(tmp_path, 1, 2, release={"names": {"v": "pins"}}) == 1
        with open_reader(tmp_path) as reader:
            assert isinstance(reader, VectorStore)
            assert (reader.number, reader.release) == (1, {"names": {"v": "pins"}})
            assert reader.collections() == {"pins": SPEC}
            assert reader.refresh() is False
            assert publish(tmp_path, 3, 4) == 2
            assert found(reader) == [1, 2]
            assert reader.refresh() is True
            assert found(reader) == [1, 2, 3, 4]
            assert (reader.number, reader.release) == (2, {"names": {"v": "pins"}})
            assert [h.payload["n"] for h in reader.search("pins", [0, 1], 2)] == [4, 3]

    def test_all_collections_switch_together(self, tmp_path: Path) -> None:
        with open_writer(tmp_path) as writer:
            for name in ("a", "b"):
                writer.create(name, SPEC)
                writer.upsert(name, points(1))
            writer.publish()
            reader = open_reader(tmp_path)
            assert found(reader, "a") == [1]
            writer.upsert("a", points(2))
            writer.upsert("b", points(2))
            writer.publish()
            assert (found(reader, "a"), found(reader, "b")) == ([1], [1])  # b was not even loaded before
            reader.refresh()
            assert (found(reader, "a"), found(reader, "b")) == ([1, 2], [1, 2])
            writer.drop("a")
            writer.publish()
            reader.refresh()
            assert list(reader.collections()) == ["b"]
            with pytest.raises(StoreError, match="no collection 'a'; there are: b"):
                reader.count("a")
            reader.close()

    def test_a_reader_never_writes(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, 2)
        before = digests(tmp_path / "publications")
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2]
            for write in (
                lambda: reader.upsert("pins", points(3)),
                lambda: reader.delete("pins", ids=[pin(1)]),
                lambda: reader.create("new", SPEC),
                lambda: reader.drop("pins"),
            ):
                with pytest.raises(StoreError, match="cannot write; use open_writer"):
                    write()
            assert len(list((tmp_path / "readers").iterdir())) == 1
            assert not list(tmp_path.glob("readers/**/wal"))  # 64 MB a collection that nobody would use
        assert digests(tmp_path / "publications") == before
        assert list((tmp_path / "readers").iterdir()) == []
        reader.close()
        with pytest.raises(StoreError, match="was closed"):
            reader.count("pins")

    def test_readers_in_other_processes_see_the_next_publication(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        script = """
reader = open_reader(root)
while True:
    say(reader.number, sorted(p.payload["n"] for p in reader.scroll("pins")[0]))
    wait(); reader.refresh()
"""
        first, second = child(script), child(script)
        assert first.hear() == second.hear() == "1 [1]"
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1]
            publish(tmp_path, 2)
            first.go_on()
            second.go_on()
            assert first.hear() == second.hear() == "2 [1, 2]"
            assert found(reader) == [1]

    def test_reader_without_a_place_beside_the_data(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        (tmp_path / "readers").write_text("not a folder")
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1]

    @pytest.mark.parametrize("content", [b"", b"\x93garbage\xff" * 100])
    def test_damaged_publication(self, tmp_path: Path, content: bytes) -> None:
        publish(tmp_path, 1)
        for file in (tmp_path / "publications").rglob("segment.json"):
            file.write_bytes(content)
        with open_reader(tmp_path) as reader, pytest.raises(StoreCorruptError, match="cannot be read"):
            reader.count("pins")

    def test_damaged_marker(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        publish(tmp_path, 2)
        (tmp_path / "publications" / "000002" / "publication.json").write_text('{"number": 2')
        with pytest.raises(StoreCorruptError, match=r"000002/publication.json cannot be read .* Remove the folder"):
            open_reader(tmp_path)

    def test_publication_without_its_collection(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        (tmp_path / "publications" / "000001" / ".pins.lock").unlink()
        with pytest.raises(StoreCorruptError, match="lacks a collection"):
            open_reader(tmp_path)

    def test_copies_of_killed_readers_are_swept(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        killed = child("reader = open_reader(root); reader.count('pins'); say('open'); wait()")
        assert killed.hear() == "open"
        (left,) = (tmp_path / "readers").iterdir()
        os.utime(left, (0, 0))
        open_reader(tmp_path).close()
        assert left.exists()  # old, but its owner lives
        killed.process.kill()
        killed.process.wait()
        open_reader(tmp_path).close()
        assert not left.exists()


class TestWriting:
    def test_writer_reads_its_own_writes(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        with open_writer(tmp_path) as writer:
            writer.upsert("pins", points(2))
            assert found(writer) == [1, 2]
            assert (writer.number, isinstance(writer, VectorStore)) == (1, True)

    def test_one_process_shares_one_writer(self, tmp_path: Path) -> None:
        outer = open_writer(tmp_path)
        inner = open_writer(tmp_path, lock_timeout=0)
        inner.create("pins", SPEC)
        inner.upsert("pins", points(1))
        assert (outer.count("pins"), outer.handles) == (1, 2)
        inner.close()
        inner.close()
        with pytest.raises(StoreError, match="was closed"):
            inner.count("pins")
        assert outer.count("pins") == 1
        watching = current_writer(tmp_path)
        assert watching is not None
        watching.close()
        outer.close()
        assert current_writer(tmp_path) is None

    def test_publishing_without_a_change_makes_nothing(self, tmp_path: Path) -> None:
        assert publish(tmp_path, 1, release={"number": 1}) == 1
        with open_writer(tmp_path) as writer:
            assert writer.publish() == 1
            assert writer.publish({"number": 1}) == 1
            assert writer.publish({"number": 2}) == 2
            assert writer.release == {"number": 2}
            with pytest.raises(StoreError, match="release is made of JSON"):
                writer.publish({"number": object()})
        assert folders(tmp_path) == ["000001", "000002"]

    def test_going_back_a_publication_and_publishing_again_shows_everything(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, collection="still")
        publish(tmp_path, 1)
        assert publish(tmp_path, 2) == 3
        with open_reader(tmp_path) as old:
            assert (old.number, found(old)) == (3, [1, 2])
            shutil.rmtree(tmp_path / "publications" / "000003")  # what the error of a damaged marker advises
            with open_reader(tmp_path) as reader:
                assert (reader.number, found(reader)) == (2, [1])
                with open_writer(tmp_path) as writer:
                    assert writer.publish() == 4  # a number of its own: who has read 3 must see a newer one
                    assert writer.publish() == 4
                assert reader.refresh()
                assert old.refresh()
                assert (reader.number, found(reader), found(old), found(old, "still")) == (4, [1, 2], [1, 2], [1])
        assert publish(tmp_path, 3) == 5
        copies = {p.parent.name + "/" + p.name for p in (tmp_path / "publications").glob("*/*") if p.is_dir()}
        assert copies == {"000004/still", "000004/pins", "000005/pins"}  # and only what changed is copied again

    def test_going_back_while_the_writer_is_open(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        with open_writer(tmp_path) as writer:
            writer.upsert("pins", points(2))
            assert writer.publish() == 2
            shutil.rmtree(tmp_path / "publications" / "000002")
            assert writer.publish() == 3
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2]

    def test_a_copy_that_others_refer_to_and_is_gone_is_made_again(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, collection="still")
        publish(tmp_path, 1)
        shutil.rmtree(tmp_path / "publications" / "000001")
        with pytest.raises(StoreCorruptError, match=r"lacks a collection.* Publish again"):
            open_reader(tmp_path)
        assert publish(tmp_path) == 3
        with open_reader(tmp_path) as reader:
            assert (found(reader), found(reader, "still")) == ([1], [1])

    @pytest.mark.parametrize("record", [None, "", "two", "-"])
    def test_without_a_record_of_the_last_number_everything_is_copied_once(
        self, tmp_path: Path, record: str | None
    ) -> None:
        publish(tmp_path, 1)
        (tmp_path / "writer" / "..published.new").touch()  # of a writer that was killed while it kept the number
        (kept,) = (p for p in (tmp_path / "writer").iterdir() if p.name == ".published")
        kept.unlink() if record is None else kept.write_text(record)
        assert publish(tmp_path) == 2
        assert publish(tmp_path) == 2
        assert [p.name for p in (tmp_path / "writer").iterdir() if p.is_file()] == [kept.name]

    def test_an_empty_folder_can_be_published(self, tmp_path: Path) -> None:
        with open_writer(tmp_path) as writer:
            assert writer.publish() == 1
        with open_reader(tmp_path) as reader:
            assert reader.collections() == {}

    def test_unchanged_collections_are_shared_and_old_ones_go(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, collection="still")
        for number in range(2, 7):
            assert publish(tmp_path, number) == number
        kept = {p.parent.name + "/" + p.name for p in (tmp_path / "publications").glob("*/*") if p.is_dir()}
        assert kept == {"000001/still", "000005/pins", "000006/pins"}
        with open_reader(tmp_path) as reader:
            assert (found(reader, "still"), found(reader)) == ([1], [2, 3, 4, 5, 6])

    def test_what_a_reader_uses_stays_until_it_is_closed(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        reader = child("reader = open_reader(root); say(reader.number); wait(); say(reader.count('pins')); wait()")
        assert reader.hear() == "1"
        for number in range(2, 6):
            publish(tmp_path, number)
        assert folders(tmp_path) == ["000001", "000004", "000005"]
        reader.go_on()
        assert reader.hear() == "1"  # loaded only now
        assert reader.end() == 0
        publish(tmp_path, 6)
        assert folders(tmp_path) == ["000005", "000006"]

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

    def test_forked_child_must_open_for_itself(self, tmp_path: Path, child) -> None:
        forking = child("""
writer = open_writer(root); writer.create('pins', CollectionSpec({'vector': VectorSpec(2)})); writer.publish()
reader = open_reader(root); reader.count('pins')
def refused(call, words):
    try: call()
    except Exception as error: return words in str(error)
    return False
pid = os.fork()
if not pid:
    os._exit(not all((
        refused(lambda: writer.count('pins'), 'before a fork'),
        refused(lambda: reader.count('pins'), 'before a fork'),
        refused(lambda: open_writer(root, 0), 'is being written by'),
    )))
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), writer.count('pins'), reader.count('pins'))
""")
        assert forking.hear() == "0 0 0"


class TestKilled:
    def test_killed_while_writing(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 0)
        writer = child("""
writer = open_writer(root)
for n in range(1, 100000, 10):
    writer.upsert('pins', points(*range(n, n + 10))); say(n + 9)
""")
        while int(written := writer.hear()) < 200:
            pass
        writer.process.send_signal(signal.SIGKILL)
        writer.process.wait()
        with open_reader(tmp_path) as reader:
            assert found(reader) == [0]
        with open_writer(tmp_path, lock_timeout=0) as again:
            assert again.count("pins") >= int(written) + 1  # nothing that was acknowledged is lost
            assert again.publish() == 2  # although this writer changed nothing itself
        with open_reader(tmp_path) as reader:
            assert reader.count("pins") >= int(written) + 1

    def test_killed_before_the_marker(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 0)
        writer = child("""
from materialize.stores import published
durably = published.write_durably
def dying(path, text):
    if path.name == 'publication.json': os.kill(os.getpid(), signal.SIGKILL)
    durably(path, text)
published.write_durably = dying
writer = open_writer(root); writer.upsert('pins', points(1)); writer.publish()
""")
        assert writer.process.wait() == -signal.SIGKILL
        assert (tmp_path / "publications" / "000002" / "pins").is_dir()
        with open_reader(tmp_path) as reader:
            assert (reader.number, found(reader)) == (1, [0])
            open_writer(tmp_path, lock_timeout=0).close()
            assert folders(tmp_path) == ["000001"]
            assert publish(tmp_path, 2) == 2
            reader.refresh()
            assert found(reader) == [0, 1, 2]

    def test_killed_after_the_marker(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 0)
        writer = child("""
from materialize.stores import published
durably = published.write_durably
def dying(path, text):
    durably(path, text)
    if path.name == 'publication.json': os.kill(os.getpid(), signal.SIGKILL)
published.write_durably = dying
writer = open_writer(root); writer.upsert('pins', points(1)); writer.publish()
""")
        assert writer.process.wait() == -signal.SIGKILL
        with open_reader(tmp_path) as reader:
            assert (reader.number, found(reader)) == (2, [0, 1])
            assert publish(tmp_path) == 3  # copied once more rather than once too few
            reader.refresh()
            assert found(reader) == [0, 1]

    @pytest.mark.parametrize(
        "step",
        ["edge_collection.engine.EdgeConfig = die", "os.rename = die", "edge_collection.read_spec = die"],
        ids=["folder made", "shard made", "renamed"],
    )
    def test_killed_while_making_a_collection(self, tmp_path: Path, child, step: str) -> None:
        publish(tmp_path, 0)
        writer = child(f"""
from materialize.stores import edge_collection
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
{step}
open_writer(root).create('more', CollectionSpec())
""")
        assert writer.process.wait() == -signal.SIGKILL
        with open_writer(tmp_path, lock_timeout=0) as again:
            again.create("more", CollectionSpec())
            assert again.count("more") == 0
            assert again.publish() == 2
        with open_reader(tmp_path) as reader:
            assert sorted(reader.collections()) == ["more", "pins"]


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


class TestSession:
    @pytest.fixture(autouse=True)
    def ended(self) -> Iterator[None]:
        yield
        sessions.close_all()

    def write(self, root: Path, number: int, interval: float = 3600) -> None:
        with sessions.session(root).writing(0, interval, "test") as writer:
            writer.create("pins", SPEC)
            writer.upsert("pins", points(number))

    def read(self, root: Path) -> list[int]:
        with sessions.session(root).reading() as store:
            return found(store)

    def test_publishes_once_per_interval_and_reads_its_own_writes(self, tmp_path: Path) -> None:
        self.write(tmp_path, 1)
        assert current_writer(tmp_path) is None  # published at once: the lease is free again
        for number in (2, 3):
            self.write(tmp_path, number)
        with open_reader(tmp_path) as other:
            assert (other.number, found(other)) == (1, [1])
            assert self.read(tmp_path) == [1, 2, 3]
            sessions.session(tmp_path).publish()
            assert self.read(tmp_path) == [1, 2, 3]
            other.refresh()
            assert (other.number, found(other)) == (2, [1, 2, 3])
        assert current_writer(tmp_path) is None

    def test_what_waits_is_published_by_itself(self, tmp_path: Path, child) -> None:
        writer = child("""
from materialize.stores.session import session
for n in (1, 2):
    with session(root).writing(0, 0.2 if n == 2 else 0, 'test') as writer:
        writer.create('pins', CollectionSpec({'vector': VectorSpec(2)}))
        writer.upsert('pins', points(n))
timer = session(root)._timer
if timer: timer.join()
say('done'); wait()
""")
        assert writer.hear() == "done"
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2]
        publish(tmp_path, 3)  # the lease is free

    def test_last_write_of_a_process_is_published_at_exit(self, tmp_path: Path, child) -> None:
        writer = child("""
from materialize.stores.session import session
for n in (1, 2):
    with session(root).writing(0, 3600, 'test') as writer:
        writer.create('pins', CollectionSpec({'vector': VectorSpec(2)}))
        writer.upsert('pins', points(n))
""")
        assert writer.end() == 0
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2]

    def test_leaves_publishing_to_a_longer_writer_in_the_process(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        with open_writer(tmp_path) as materializer:
            materializer.upsert("pins", points(2))
            self.write(tmp_path, 3, interval=0)
            assert materializer.number == 1
            assert self.read(tmp_path) == [1, 2, 3]
            assert materializer.publish() == 2
        assert self.read(tmp_path) == [1, 2, 3]

    def test_sees_a_publication_of_its_own_process_at_once(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        assert self.read(tmp_path) == [1]
        publish(tmp_path, 2)
        assert self.read(tmp_path) == [1, 2]

    def test_a_failed_write_gives_the_lease_back(self, tmp_path: Path) -> None:
        with (
            pytest.raises(StoreError, match="no collection"),
            sessions.session(tmp_path).writing(0, 0, "test") as writer,
        ):
            writer.upsert("pins", points(1))
        assert current_writer(tmp_path) is None
        with pytest.raises(NoPublicationError):
            self.read(tmp_path)


def test_what_a_killed_writer_left_is_published_by_the_next(tmp_path):
    script = f"""
        import os, signal
        from materialize.stores.port import CollectionSpec, Point
        from materialize.stores.publication import open_writer
        one, two = ("00000000-0000-0000-0000-00000000000" + digit for digit in "12")
        with open_writer({str(tmp_path)!r}) as writer:
            writer.create("c", CollectionSpec())
            writer.upsert("c", [Point(one, {{"n": 1}})])
            writer.publish()
            writer.upsert("c", [Point(two, {{"n": 2}})])
            writer.delete("c", ids=[one])
            os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert done.returncode == -9
    with open_writer(tmp_path) as writer:
        writer.publish()  # touches no collection
    with open_reader(tmp_path) as reader:
        points, _ = reader.scroll("c")
        assert [point.payload["n"] for point in points] == [2]
