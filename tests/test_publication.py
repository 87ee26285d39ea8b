"""Publications: what readers see, what is shared, copied, reused and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_children import RICH, SPEC, copies, digests, found, pin, points, publish, rich_points, shadows

from materialize.stores.conditions import Match
from materialize.stores.errors import NoPublicationError, StoreCorruptError, StoreError
from materialize.stores.port import VectorStore
from materialize.stores.publication import open_reader, open_writer

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
            (kept,) = reader.get_many("still", [pin(1)], with_vectors=True)
            (changed,) = reader.get_many("pins", [pin(1)], with_vectors=True)
            assert kept is not None and changed is not None
            publish(tmp_path, 1, 2)
            publish(tmp_path, 1, 2, collection="never")
            assert reader.refresh()
            assert shadows(tmp_path) == ["000001-still", "000004-pins"]  # pins before anybody asks
            (again,) = reader.get_many("still", [pin(1)], with_vectors=True)
            assert again is not None and again.vectors["vector"] is kept.vectors["vector"]  # from the cache
            (fresh,) = reader.get_many("pins", [pin(1)], with_vectors=True)
            assert fresh is not None and fresh.vectors["vector"] is not changed.vectors["vector"]

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
