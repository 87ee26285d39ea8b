"""What a writer publishes: whole or not at all, what is shared, what is removed, what a full disk or a fork costs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from store_children import RICH, SPEC, copies, digests, folders, found, pin, points, publish, rich_points

from materialize.stores.errors import StoreCorruptError, StoreError
from materialize.stores.points import CollectionSpec, Point
from materialize.stores.port import VectorStore
from materialize.stores.publication import current_writer, open_reader, open_writer

pytest_plugins = ("store_processes",)


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
        assert outer.count("pins") == 1
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
        assert copies(tmp_path) == {
            "000004/still",
            "000004/pins",
            "000005/pins",
        }  # and only what changed is copied again

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
        files = sorted(p.name for p in (tmp_path / "writer").iterdir() if p.is_file())
        assert files == [".counts", kept.name]

    def test_an_empty_folder_can_be_published(self, tmp_path: Path) -> None:
        with open_writer(tmp_path) as writer:
            assert writer.publish() == 1
        with open_reader(tmp_path) as reader:
            assert reader.collections() == {}

    def test_unchanged_collections_are_shared_and_old_ones_go(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, collection="still")
        for number in range(2, 7):
            assert publish(tmp_path, number) == number
        assert copies(tmp_path) == {"000001/still", "000005/pins", "000006/pins"}
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
        assert reader.end() == 0  # without closing it
        publish(tmp_path, 6)
        assert folders(tmp_path) == ["000005", "000006"]

    def test_the_last_reader_removes_what_nobody_reads(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        first, second = open_reader(tmp_path), open_reader(tmp_path)
        for number in (2, 3):
            publish(tmp_path, number)
        half_written = tmp_path / "publications" / "000004" / "pins"
        half_written.mkdir(parents=True)
        first.close()
        assert folders(tmp_path) == ["000001", "000002", "000003", "000004"]
        second.close()
        assert folders(tmp_path) == ["000002", "000003", "000004"]  # the last may be a writer's that is at it
        assert half_written.exists()

    def test_a_copy_that_nobody_reads_becomes_the_next_one(self, tmp_path: Path) -> None:
        def big_file(number: int) -> Path:
            (file,) = (tmp_path / "publications" / f"{number:06d}").rglob("chunk_0.mmap")
            return file

        publish(tmp_path, 1, 2)
        publish(tmp_path, 3)
        first = big_file(1).stat().st_ino
        publish(tmp_path, 4)
        assert big_file(3).stat().st_ino == first
        with open_writer(tmp_path) as writer:
            writer.delete("pins", ids=[pin(3)])
            writer.drop("pins")
            writer.create("pins", CollectionSpec())
            writer.upsert("pins", [Point(pin(5), {"n": 5})])
            assert writer.publish() == 4
        assert {p.name for p in (tmp_path / "publications" / "000004").rglob("*.mmap")} == set()
        with open_reader(tmp_path) as reader:
            assert found(reader) == [5]
            assert reader.collections() == {"pins": CollectionSpec()}

    def test_publications_equal_what_the_writer_wrote(self, tmp_path: Path) -> None:
        def engine_files(folder: Path) -> dict[str, str]:
            return {name: digest for name, digest in digests(folder).items() if name.startswith("segments")}

        with open_writer(tmp_path) as writer:
            writer.create("rich", RICH)
            for number in range(1, 7):
                writer.upsert("rich", rich_points(*range(number, 30 * number)))
                if number % 3 == 0:
                    writer.delete("rich", ids=[pin(number)])
                assert writer.publish() == number
                written = engine_files(tmp_path / "writer" / "rich")
                assert engine_files(tmp_path / "publications" / f"{number:06d}" / "rich") == written
                with open_reader(tmp_path) as reader:
                    assert found(reader, "rich") == found(writer, "rich")

    def test_a_copy_that_is_read_is_never_written_to(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1]
            collection = reader._open("pins")  # as a call does that goes on while its reader switches
            before = digests(tmp_path / "publications" / "000001" / "pins")
            for number in (2, 3, 4):
                publish(tmp_path, number)
                assert reader.refresh()
            assert digests(tmp_path / "publications" / "000001" / "pins") == before
            assert [point.payload["n"] for point in collection.scroll(None, 10, None, True, False)[0]] == [1]

    def test_a_full_disk_publishes_nothing_and_costs_nothing(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        writer = child("""
import resource
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
writer = open_writer(root); writer.upsert('pins', points(2))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
try: writer.publish()
except Exception as error: say(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
wait(); say(writer.publish())
""")
        said = writer.hear()
        assert said.startswith("StoreError Nothing was published under")
        assert "File too large" in said and "then publish again" in said
        assert folders(tmp_path) == ["000001"]
        writer.go_on()
        assert writer.hear() == "2"
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2]

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
