"""What killed writers and readers leave behind, and several of them at once, with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_children import copies, folders, found, publish, shadows

from materialize.stores.points import CollectionSpec
from materialize.stores.publication import open_reader, open_writer

pytest_plugins = ("store_processes",)


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
        writer.kill()
        with open_reader(tmp_path) as reader:
            assert found(reader) == [0]
        with open_writer(tmp_path, lock_timeout=0) as again:
            assert again.count("pins") >= int(written) + 1  # nothing that was acknowledged is lost
            assert again.publish() == 2  # although this writer changed nothing itself
        with open_reader(tmp_path) as reader:
            assert reader.count("pins") >= int(written) + 1

    def test_a_killed_writers_changes_are_published_by_the_next(self, tmp_path: Path, child) -> None:
        writer = child("""
writer = open_writer(root)
writer.create('pins', CollectionSpec()); writer.upsert('pins', [Point(pin(1), {'n': 1})]); writer.publish()
writer.upsert('pins', [Point(pin(2), {'n': 2})]); writer.delete('pins', ids=[pin(1)]); die()
""")
        assert writer.died()
        with open_writer(tmp_path, lock_timeout=0) as again:
            again.publish()  # touches no collection
        with open_reader(tmp_path) as reader:
            assert found(reader) == [2]

    @pytest.mark.parametrize("earlier", [1, 2], ids=["new copy", "old copy reused"])
    @pytest.mark.parametrize("file", [1, 5, 9])
    def test_killed_while_copying(self, tmp_path: Path, child, earlier: int, file: int) -> None:
        for number in range(earlier):
            publish(tmp_path, number)
        before = list(range(earlier))
        writer = child(f"""
copy, copied = files.copy_sparse, []
def dying(source, target, durable=True):
    copy(source, target, durable); copied.append(target)
    if len(copied) == {file}: die()
files.copy_sparse = dying
writer = open_writer(root); writer.upsert('pins', points(7)); writer.publish()
""")
        assert writer.died()
        with open_reader(tmp_path) as reader:
            assert (reader.number, found(reader)) == (earlier, before)
            assert publish(tmp_path, 8) == earlier + 1
            assert reader.refresh()
            assert found(reader) == [*before, 7, 8]
        publish(tmp_path, 9)
        assert len(copies(tmp_path)) == 2

    @pytest.mark.parametrize("step", ["rename", "unlink"])
    def test_killed_while_taking_over_an_old_copy(self, tmp_path: Path, child, step: str) -> None:
        for number in (1, 2):
            publish(tmp_path, number)
        writer = child(f"""
from pathlib import Path
writer = open_writer(root); writer.upsert('pins', points(3)); writer.flush()
if '{step}' == 'rename': os.rename = die
else:
    unlink = Path.unlink
    def dying(path, missing_ok=False):
        if path.name == '.pins.lock': die()
        unlink(path, missing_ok)
    Path.unlink = dying
writer.publish()
""")
        assert writer.died()
        assert not (tmp_path / "publications" / "000001" / "publication.json").exists()  # it is no longer whole
        with open_reader(tmp_path) as reader:
            assert (reader.number, found(reader)) == (2, [1, 2])
        assert publish(tmp_path, 4) == 3
        with open_reader(tmp_path) as reader:
            assert found(reader) == [1, 2, 3, 4]
        assert folders(tmp_path) == ["000002", "000003"]

    def test_killed_before_the_marker(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 0)
        writer = child("""
durably = published.write_durably
def dying(path, text):
    if path.name == 'publication.json': die()
    durably(path, text)
published.write_durably = dying
writer = open_writer(root); writer.upsert('pins', points(1)); writer.publish()
""")
        assert writer.died()
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
durably = published.write_durably
def dying(path, text):
    durably(path, text)
    if path.name == 'publication.json': die()
published.write_durably = dying
writer = open_writer(root); writer.upsert('pins', points(1)); writer.publish()
""")
        assert writer.died()
        with open_reader(tmp_path) as reader:
            assert (reader.number, found(reader)) == (2, [0, 1])
            assert publish(tmp_path) == 3  # copied once more rather than once too few
            reader.refresh()
            assert found(reader) == [0, 1]

    @pytest.mark.parametrize("removed", [0, 1])
    def test_killed_while_removing_old_publications(self, tmp_path: Path, child, removed: int) -> None:
        for name in ("pins", "more"):
            publish(tmp_path, 1, collection=name)
        reader = child("reader = open_reader(root); say(reader.number); wait()")
        assert reader.hear() == "2"
        for number in (2, 3, 4):
            for name in ("pins", "more"):
                publish(tmp_path, number, collection=name)
        assert {"000001/pins", "000002/more"} < copies(tmp_path)
        reader.kill()
        writer = child(f"""
rmtree, gone = published.shutil.rmtree, []
def dying(path, **options):
    if path.name in ('pins', 'more'):
        if len(gone) == {removed}: die()
        gone.append(path)
    rmtree(path, **options)
published.shutil.rmtree = dying
open_writer(root)
""")
        assert writer.died()
        with open_reader(tmp_path) as after:
            assert (found(after), found(after, "more")) == ([1, 2, 3, 4], [1, 2, 3, 4])
        assert publish(tmp_path, 5) == 9
        assert copies(tmp_path) == {"000007/pins", "000008/more", "000009/pins"}

    @pytest.mark.parametrize(
        "step",
        ["edge_collection.engine.EdgeConfig = die", "os.rename = die", "edge_collection.read_spec = die"],
        ids=["folder made", "shard made", "renamed"],
    )
    def test_killed_while_making_a_collection(self, tmp_path: Path, child, step: str) -> None:
        publish(tmp_path, 0)
        writer = child(f"""
from materialize.stores import edge_collection
{step}
open_writer(root).create('more', CollectionSpec())
""")
        assert writer.died()
        with open_writer(tmp_path, lock_timeout=0) as again:
            again.create("more", CollectionSpec())
            assert again.count("more") == 0
            assert again.publish() == 2
        with open_reader(tmp_path) as reader:
            assert sorted(reader.collections()) == ["more", "pins"]


class TestKilledReader:
    def test_the_next_writer_and_the_next_reader_clean_up(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        script = "reader = open_reader(root); say(found(reader)); wait()"
        killed, alive = child(script), child(script)
        assert killed.hear() == alive.hear() == "[1]"
        for number in (2, 3):
            publish(tmp_path, number)
        assert folders(tmp_path) == ["000001", "000002", "000003"]
        killed.kill()
        with open_reader(tmp_path):  # sweeps what the killed one had, and not what the other has
            assert shadows(tmp_path) == ["000001-pins"]
        alive.kill()
        with open_writer(tmp_path, lock_timeout=0):
            assert folders(tmp_path) == ["000002", "000003"]
            assert shadows(tmp_path) == []

    @pytest.mark.parametrize("step", ["files._make_private = die", "files.fcntl.flock = dying"])
    def test_killed_before_its_folder_was_locked(self, tmp_path: Path, child, step: str) -> None:
        publish(tmp_path, 1)
        reader = child(f"""
flock = files.fcntl.flock
def dying(fd, how):
    if os.path.basename(os.readlink(f'/proc/self/fd/{{fd}}')) == '.lock': die()
    flock(fd, how)
{step}
open_reader(root)
""")
        assert reader.died()
        (left,) = (tmp_path / "readers").iterdir()
        open_reader(tmp_path).close()
        assert not left.exists()

    def test_killed_while_loading(self, tmp_path: Path, child) -> None:
        publish(tmp_path, 1)
        reader = child("readers.EdgeCollection.__init__ = die; open_reader(root).count('pins')")
        assert reader.died()
        assert shadows(tmp_path) == ["000001-pins"]
        with open_reader(tmp_path) as again:
            assert found(again) == [1]
            assert len(shadows(tmp_path)) == 1


@pytest.mark.parametrize("seen", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_two_readers_and_a_writer_in_three_processes_never_see_a_mixture(tmp_path: Path, child, seen: int) -> None:
    """Every publication holds as many points in ``a`` as in ``b``, and its release says how many."""
    publish(tmp_path, collection="a")
    publish(tmp_path, collection="b", release={"points": 0})
    reading = f"""
following.REFRESH_SECONDS = 0.01
seen, kept = set(), []
def check(view):
    expected = list(range(1, view.release['points'] + 1))
    assert found(view, 'a') == found(view, 'b') == expected, (view.number, found(view, 'a'), found(view, 'b'))
wait()
while len(seen) < {seen}:
    with session(root).reading() as view:
        check(view)
        if view.number not in seen: kept.append(view)
        for former in kept: check(former)
        seen.add(view.number)
    del kept[:-3]
say('no mixture')
"""
    readers = [child(reading), child(reading)]
    writer = child("""
import select
wait()
writer = open_writer(root)
for n in range(1, 1000):
    writer.upsert('a', points(n)); writer.upsert('b', points(n)); writer.publish({'points': n})
    if select.select([sys.stdin], [], [], 0)[0]: break
""")
    for process in (*readers, writer):
        process.go_on()
    assert [reader.hear() for reader in readers] == ["no mixture"] * 2
    assert [process.end() for process in (*readers, writer)] == [0, 0, 0]
    with open_writer(tmp_path, lock_timeout=0):
        assert len(copies(tmp_path)) == 4
