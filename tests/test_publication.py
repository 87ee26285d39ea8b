"""Publications: what readers see, what is shared, copied, reused and removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from store_children import RICH, SPEC, copies, digests, folders, found, pin, points, publish, rich_points, shadows

from materialize.stores.conditions import Match
from materialize.stores.errors import NoPublicationError, StoreCorruptError, StoreError
from materialize.stores.points import CollectionSpec, Point
from materialize.stores.port import VectorStore
from materialize.stores.publication import current_writer, open_reader, open_writer

pytest_plugins = ("store_processes",)


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
        with open_writer(tmp_path) as writer:
            writer.create("rich", RICH)
            writer.upsert("rich", rich_points(*range(100)))
            writer.delete("rich", filter=Match("word", "w2"))
        publish(tmp_path, 1, 2)
        before = digests(tmp_path / "publications")
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2]
            assert reader.count("rich", Match("n", any_of=[3, 4, 5])) == 2
            words = rich_points(7)[0].sparse["text"]
            assert [hit.payload["f"] for hit in reader.search("rich", words, 1, using="text")] == [{"x": 7}]
            assert len(reader.search("rich", [0, 1], 50, filter=Match("word", "w1"))) == 33
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

    def test_a_snapshot_is_one_publication_whatever_its_reader_does(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            publish(tmp_path, 1, collection=name, release={"of": 1})
        with open_reader(tmp_path) as reader:
            snapshot = reader.snapshot()
            assert isinstance(snapshot, VectorStore)
            assert found(snapshot, "a") == [1]
            for number in (2, 3, 4):
                for name in ("a", "b"):
                    publish(tmp_path, number, collection=name, release={"of": number})
                assert reader.refresh()
            assert (found(snapshot, "a"), found(snapshot, "b")) == ([1], [1])  # b is loaded only now
            assert (snapshot.number, snapshot.release) == (2, {"of": 1})
            assert (found(reader, "a"), found(reader, "b")) == ([1, 2, 3, 4], [1, 2, 3, 4])
            with pytest.raises(StoreError, match="cannot write"):
                snapshot.upsert("a", points(5))
            assert {"000001/a", "000002/b"} < copies(tmp_path)
            del snapshot
        assert copies(tmp_path) == {"000007/a", "000006/b", "000008/b"}

    def test_only_what_changed_is_loaded_at_a_switch(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, collection="still")
        publish(tmp_path, 1, collection="never")
        publish(tmp_path, 1)
        with open_reader(tmp_path, cache_bytes=1 << 20) as reader:
            (kept,) = reader.get_many("still", [pin(1)])
            (changed,) = reader.get_many("pins", [pin(1)])
            assert kept is not None and changed is not None
            publish(tmp_path, 1, 2)
            publish(tmp_path, 1, 2, collection="never")
            assert reader.refresh()
            assert shadows(tmp_path) == ["000001-still", "000004-pins"]  # pins before anybody asks
            (again,) = reader.get_many("still", [pin(1)])
            assert again is not None and again.payload is kept.payload  # from the cache
            (fresh,) = reader.get_many("pins", [pin(1)])
            assert fresh is not None and fresh.payload is not changed.payload

    def test_what_takes_the_place_of_a_loaded_collection_in_the_release_is_loaded_with_it(self, tmp_path: Path) -> None:
        publish(tmp_path, 1, collection="old")
        publish(tmp_path, 1, collection="other", release={"names": {"live": "old", "else": "other"}})
        with open_reader(tmp_path) as reader:
            assert found(reader, "old") == [1]
            publish(tmp_path, 1, collection="idle")
            publish(tmp_path, 1, collection="new", release={"names": {"live": "new", "else": "idle"}})
            assert reader.refresh()
            assert shadows(tmp_path) == ["000001-old", "000004-new"]

    def test_a_damaged_collection_keeps_the_reader_where_it_is(self, tmp_path: Path) -> None:
        publish(tmp_path, 1)
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1]
            publish(tmp_path, 2)
            for file in (tmp_path / "publications" / "000002").rglob("segment.json"):
                file.write_bytes(b"")
            with pytest.raises(StoreCorruptError):
                reader.refresh()
            assert (reader.number, found(reader)) == (1, [1])
            assert publish(tmp_path, 3) == 3
            assert reader.refresh()
            assert found(reader) == [1, 2, 3]


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
