"""Sessions on a folder: short writes, reads that follow the publications, forks, and the end of a process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_children import SPEC, folders, found, pin, points, publish, shadows

from materialize.stores import following
from materialize.stores.errors import BadInputError, NoPublicationError, StoreError
from materialize.stores.following import Follower
from materialize.stores.place import Place
from materialize.stores.port import VectorStore
from materialize.stores.publication import current_writer, open_reader, open_writer
from materialize.stores.session import close_all, session

pytest_plugins = ("store_processes",)


@pytest.fixture(autouse=True)
def ended(tmp_path: Path) -> Iterator[None]:
    yield
    close_all()
    assert not followers()


def write(root: Path, number: int, interval: float = 3600) -> None:
    with session(root).writing("test", 0, interval) as writer:
        writer.create("pins", SPEC)
        writer.upsert("pins", points(number))


def read(root: Path) -> list[int]:
    with session(root).reading() as store:
        return found(store)


def followers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "publication follower"]


class TestSessions:
    def test_one_a_folder_and_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        one = session("online")
        assert session(Place(path="online")) is one
        assert session(Place(path=str(tmp_path / "online"), namespace="feast", root="repo")) is one
        assert one.place.path == str(tmp_path / "online")
        assert session(Place(path="online", cache_bytes=0)) is not one
        assert session(tmp_path) is not one
        close_all()
        assert session("online") is not one

    def test_a_place_is_a_path_or_a_url(self) -> None:
        with pytest.raises(BadInputError, match="both"):
            Place(path="here", url="http://there")
        with pytest.raises(BadInputError, match="neither"):
            Place()

    def test_a_file_where_the_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreError, match="Not a directory"), session(tmp_path / "file").reading():
            pass

    def test_nothing_written_yet(self, tmp_path: Path) -> None:
        place = session(tmp_path)
        assert place.number() == 0
        with pytest.raises(NoPublicationError), place.reading():
            pass
        publish(tmp_path, 1)
        assert place.number() == 1
        assert read(tmp_path) == [1]

    def test_publishes_once_per_interval_and_reads_its_own_writes(self, tmp_path: Path) -> None:
        write(tmp_path, 1)
        assert current_writer(tmp_path) is None  # published at once: the lease is free again
        for number in (2, 3):
            write(tmp_path, number)
        with open_reader(tmp_path) as other:
            assert (other.number, found(other)) == (1, [1])
            assert read(tmp_path) == [1, 2, 3]
            session(tmp_path).publish()
            assert read(tmp_path) == [1, 2, 3]
            other.refresh()
            assert (other.number, found(other)) == (2, [1, 2, 3])
        assert current_writer(tmp_path) is None

    def test_own_writes_are_a_view_too(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, release={"of": 1})
        with open_writer(tmp_path) as writer, session(tmp_path).reading() as view:
            assert isinstance(view, VectorStore)
            writer.upsert("pins", points(2))
            writer.publish({"of": 2})
            assert (view.number, view.release, list(view.collections())) == (1, {"of": 1}, ["pins"])
            assert found(view) == [1, 2]
            with pytest.raises(StoreError, match="cannot write"):
                view.delete("pins", ids=[pin(1)])
            view.close()
        with session(tmp_path).reading() as view:
            assert (view.number, view.release, found(view)) == (2, {"of": 2}, [1, 2])

    def test_what_waits_is_published_by_itself(self, tmp_path: Path, child) -> None:
        writer = child("""
for n in (1, 2):
    with session(root).writing('test', 0, 0.2 if n == 2 else 0) as writer:
        writer.create('pins', SPEC)
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
for n in (1, 2):
    with session(root).writing('test', 0, 3600) as writer:
        writer.create('pins', SPEC)
        writer.upsert('pins', points(n))
""")
        assert writer.end() == 0
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2]

    def test_leaves_publishing_to_a_longer_writer_in_the_process(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        with open_writer(tmp_path) as materializer:
            materializer.upsert("pins", points(2))
            write(tmp_path, 3, interval=0)
            assert materializer.number == 1
            assert read(tmp_path) == [1, 2, 3]
            assert materializer.publish() == 2
        assert read(tmp_path) == [1, 2, 3]
        session(tmp_path).publish()
        assert current_writer(tmp_path) is None

    def test_sees_a_publication_of_its_own_process_at_once(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        assert read(tmp_path) == [1]
        publish(tmp_path, 2)
        assert read(tmp_path) == [1, 2]

    def test_a_failed_write_gives_the_lease_back(self, tmp_path: Path) -> None:
        with (
            pytest.raises(StoreError, match="no collection"),
            session(tmp_path).writing("test", 0) as writer,
        ):
            writer.upsert("pins", points(1))
        assert current_writer(tmp_path) is None
        with pytest.raises(NoPublicationError):
            read(tmp_path)

    def test_a_view_is_one_publication(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            publish(tmp_path, 1, collection=name, release={"of": 1})
        with session(tmp_path).reading() as view:
            assert found(view, "a") == [1]
            for name in ("a", "b"):
                publish(tmp_path, 2, collection=name, release={"of": 2})
            assert (view.number, view.release, found(view, "a"), found(view, "b")) == (2, {"of": 1}, [1], [1])
            with session(tmp_path).reading() as newer:  # its own process's publication, at once
                assert (newer.number, newer.release) == (4, {"of": 2})
                assert (found(newer, "a"), found(newer, "b")) == ([1, 2], [1, 2])

    def test_closing_leaves_a_block_what_it_reads(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        with session(tmp_path).reading() as view:
            session(tmp_path).close()
            assert found(view) == [1]
            assert shadows(tmp_path) == ["000001-pins"]
        del view
        assert shadows(tmp_path) == []

    def test_decoded_rows_are_kept_while_their_collection_is(self, tmp_path: Path) -> None:
        def vector(place: Place) -> object:
            with session(place).reading() as view:
                (point,) = view.get_many("pins", [pin(1)], with_vectors=True)
                assert point is not None
                return point.vectors["vector"]  # one array for all reads that find it kept

        publish(tmp_path, 1)
        cached, bare = Place(path=str(tmp_path)), Place(path=str(tmp_path), cache_bytes=0)
        before = vector(cached)
        publish(tmp_path, 1, collection="other")
        assert vector(cached) is before
        assert vector(bare) is not vector(bare)
        publish(tmp_path, 2)
        assert vector(cached) is not before


class TestFollowing:
    def test_another_process_is_followed_without_a_request_that_loads(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        reader = child("""
import threading
loaded = []
shadow = readers.shadow_tree
def noting(source, target): loaded.append(threading.current_thread().name); shadow(source, target)
readers.shadow_tree = noting
number = 0
while number < 3:
    with session(root).reading() as view:
        if view.number != number:
            number = view.number
            say(number, found(view), loaded)
wait(); say(sorted(t.name for t in threading.enumerate()))
""")
        assert reader.hear() == "1 [1] ['MainThread']"
        publish(tmp_path, 2)
        assert reader.hear() == "2 [1, 2] ['MainThread', 'publication follower']"
        publish(tmp_path, 3)
        assert reader.hear() == "3 [1, 2, 3] ['MainThread', 'publication follower', 'publication follower']"
        reader.go_on()
        assert reader.hear() == "['MainThread', 'publication follower']"
        assert reader.end() == 0  # which it does although the follower was never told to stop
        assert list((tmp_path / "readers").iterdir()) == []

    def test_a_forked_child_follows_for_itself(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        reader = child("""
import threading
place = session(root)
def look(name):
    with place.reading() as view:
        say(name, found(view), sum(t.name == 'publication follower' for t in threading.enumerate()))
look('parent')
pid = os.fork()
name = 'parent' if pid else 'child'
if pid:
    wait(); os.waitpid(pid, 0)
else:
    say(name, sum(t.name == 'publication follower' for t in threading.enumerate()))
    writer = open_writer(root); writer.upsert('pins', points(2)); writer.publish(); writer.close()
look(name)
if not pid:
    place.close(); sys.exit()
""")
        assert reader.hear() == "parent [1] 1"
        assert reader.hear() == "child 0"
        assert reader.hear() == "child [1, 2] 1"
        reader.go_on()
        assert reader.hear() in ("parent [1] 1", "parent [1, 2] 1")
        assert reader.end() == 0
        assert list((tmp_path / "readers").iterdir()) == []

    def test_a_request_looks_only_if_nobody_has_for_long(
        self, tmp_path: Path, child, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path, 1)
        follower = Follower(tmp_path, 0)
        follower.close()  # ends its thread, as if the process were frozen
        other = child("writer = open_writer(root); writer.upsert('pins', points(2)); say(writer.publish())")
        assert other.hear() == "2"
        monkeypatch.setattr(following, "STALE_SECONDS", float("inf"))
        assert follower.snapshot().number == 1
        monkeypatch.setattr(following, "STALE_SECONDS", -1.0)
        with follower._looking:  # another thread is loading
            assert follower.snapshot().number == 1
        assert follower.snapshot().number == 2

    def test_a_damaged_publication_is_logged_once_and_the_former_one_serves(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        publish(tmp_path, 1)
        follower = Follower(tmp_path, 0)
        follower.close()
        broken = tmp_path / "publications" / "000002"
        broken.mkdir()
        (broken / "publication.json").write_text("{")
        for _ in range(3):
            follower.look()
            assert found(follower.snapshot()) == [1]
        (logged,) = caplog.messages
        assert logged.startswith(f"publication 1 of {tmp_path} goes on serving: The marker {broken}")
        assert caplog.records[0].levelno == logging.WARNING
        (broken / "publication.json").unlink()
        publish(tmp_path, 2)
        follower.look()
        assert found(follower.snapshot()) == [1, 2]
        (tmp_path / "publications" / "000004").mkdir()
        (tmp_path / "publications" / "000004" / "publication.json").write_text("[")
        follower.look()
        assert len(caplog.messages) == 2

    def test_a_publication_that_was_let_go_is_removed_although_nobody_writes(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        follower = Follower(tmp_path, 0)
        follower.close()
        request = follower.snapshot()
        for number in (2, 3):
            publish(tmp_path, number)
        follower.look()
        follower.look()
        assert folders(tmp_path) == ["000001", "000002", "000003"]
        assert found(request) == [1]
        del request
        follower.look()
        assert folders(tmp_path) == ["000002", "000003"]

    def test_closing_ends_the_thread(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        assert read(tmp_path) == [1]
        assert len(followers()) == 1
        session(tmp_path).close()
        session(tmp_path).close()
        assert not followers()
        assert read(tmp_path) == [1]
        assert len(followers()) == 1
