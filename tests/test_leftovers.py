"""What killed processes leave: found wherever it lies, deleted once its process is gone, never while it runs."""

import os
import shutil
import socket
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from erase_shop import NOW, fill, tables, write_raw

from feature_repo.aggregates import Resources
from feature_repo.aggregates.session import Session
from feature_repo.erasures import Subjects
from feature_repo.history.tables import connected
from feature_repo.leftovers import find_leftovers, is_leftover, scratch_folder, sweep
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize.erasure.check import check
from materialize.erasure.flow import erase
from materialize.spill import spill_folder


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nregistry: data/registry.db\nprovider: local\nonline_store:\n"
        "  type: materialize.online_store.PinfeatherOnlineStore\n  path: data/online\n"
    )
    return RepoPaths(tmp_path)


@pytest.fixture(scope="module")
def dead():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def planted(file, **row):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row]), file)
    return file


def unfinished(paths, **names):
    (place,) = (place for place in check(paths, Subjects.of(**names)) if place.name == "unfinished files")
    return place


PLACES = (
    "pin_versions/.part-000001-7.parquet.{}.tmp",
    "vectors/a-space/.part-000001-0000.parquet.{}.tmp",
    "ledger/pins/.3.arrow.{}.tmp",
    "captions/fp/.a.parquet.{}.tmp",
    "history/.20260101T000000Z.{}.part/pin_text.parquet",
    "valid/.board_saves.parquet.{}.part",
    "rejected/search_log/..000000.{}.new.{}.part",
    "views/.pin_text.parquet.{}.part",
    "aggregates/.log.json.part",
    "erasures/.pending.json.{}.part",
    "samples/.october.parquet.{}.tmp",
    "labels/version/.part-000001.parquet.{}.tmp",
    ".past-HOST-{}-x1y2_z/valid/pins.parquet",
    ".spill-HOST-{}-abcdefgh/pins.parquet",
    ".join-HOST-{}-abcdefgh/data/views/pin_text.parquet",
    ".report-abcdefgh/pins.parquet",
    "ledger/.scan-HOST-{}-abcdefgh/0",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_pin_that_a_killed_process_left_is_found_and_deleted(paths, dead, place):
    write_raw(paths, "pins", tables()["pins"])
    validate(paths)
    name = place.replace("{}", str(dead)).replace("HOST", socket.gethostname())
    file = planted(paths.data / name, pin_id="p5", title="oak shelf number 5", event_timestamp=NOW)
    erase(paths, Subjects.of(pins=["p4"]))  # also what no erasure of its own is about
    assert not file.exists()
    planted(file, pin_id="p5", title="oak shelf number 5", event_timestamp=NOW)
    found = unfinished(paths, pins=["p5"])
    assert (found.found, found.where, found.fails) == (1, [name], True)
    assert "`pinfeather erase` deletes them" in found.note
    assert unfinished(paths, pins=["p6"]).found == 0
    report = erase(paths, Subjects.of(pins=["p5"]))
    assert report.leftovers == (not name.startswith(("history", "aggregates")))  # which go as a whole
    assert not any(place.fails for place in check(paths, Subjects.of(pins=["p5"])))


def test_a_file_that_nobody_can_read_is_named_as_found(paths, dead):
    cut = paths.data / "pin_versions" / f".part-1.parquet.{dead}.tmp"
    cut.parent.mkdir(parents=True)
    cut.write_bytes(b"PAR1 cut off")
    assert unfinished(paths, pins=["p1"]).found == 1


def test_users_are_found_by_their_hash_too(paths, dead):
    fill(paths, tables())
    left = paths.data / f".spill-{socket.gethostname()}-{dead}-abcdefgh"
    shutil.copytree(paths.aggregates, left, ignore=lambda _, names: [name for name in names if "parquet" not in name])
    assert unfinished(paths, users=["ann"]).found > 0
    assert unfinished(paths, users=["nobody"]).found == 0


def test_what_is_in_use_stays_and_is_named(paths, dead):
    host = f".spill-another-host-{dead}-abcdefgh/pins.parquet"
    mine = f"views/.pin_text.parquet.{os.getpid()}.part"
    for name in (host, mine):
        planted(paths.data / name, pin_id="p5")
    assert sweep(paths) == 0
    found = unfinished(paths, pins=["p5"])
    assert sorted(found.where) == sorted((host, mine))
    assert "wait, or delete them" in found.note


def test_a_number_that_was_given_out_again_protects_nothing(paths):
    """In a container each process may be number 1."""
    file = planted(paths.views / f".pin_text.parquet.{os.getpid()}.part", pin_id="p5")
    os.utime(file, (1_500_000_000, 1_500_000_000))
    assert sweep(paths) == 1
    assert not file.exists()


def test_folders_of_others_are_not_written_to(paths, dead):
    file = planted(paths.data / "mine" / f".x.parquet.{dead}.tmp", pin_id="p5")
    raw = planted(paths.raw / "pins" / f".x.parquet.{dead}.tmp", pin_id="p5")
    assert sweep(paths) == 0
    assert file.exists() and raw.exists()
    assert unfinished(paths, pins=["p5"]).where == [file.relative_to(paths.data).as_posix()]


@pytest.mark.parametrize("kind", ["spill", "past", "scan", "join"])
def test_scratch_folders_of_the_dead_go_with_the_next_one(tmp_path, dead, kind):
    host = socket.gethostname()
    gone = tmp_path / f".{kind}-{host}-{dead}-abcdefgh"
    stays = [tmp_path / f".{kind}-{host}-{os.getpid()}-abcdefgh", tmp_path / f".{kind}-other-{dead}-abcdefgh"]
    for folder in (gone, *stays):
        (folder / "deep").mkdir(parents=True)
    with scratch_folder(tmp_path, "spill") as folder:
        assert not gone.exists()
        assert all(path.exists() for path in stays)
        assert list(find_leftovers(tmp_path)) and is_leftover(folder.name)
    assert not folder.exists()


def test_every_scratch_folder_tells_its_process(paths):
    fill(paths, tables())
    with Session(paths, Resources()), connected(paths, Resources()), spill_folder(paths.data):
        names = sorted(path.name for path in paths.data.iterdir() if path.is_dir() and path.name.startswith("."))
    me = f"{socket.gethostname()}-{os.getpid()}-"
    assert [name.partition(me)[0] for name in names] == [".scan-", ".spill-", ".spill-"]


@pytest.mark.parametrize(
    "name", [".tables.lock", ".history.lock", ".parts.json", ".runs.json", "part-1.parquet", "a.tmp"]
)
def test_what_stays_is_no_leftover(name):
    assert not is_leftover(name)
