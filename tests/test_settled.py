"""Scans that leave out files which are as they were noted answer what a scan that reads everything answers."""

import shutil

import pyarrow.parquet as pq
import pytest
from conftest import CountingEncoder
from scan_world import NONE, SPACE, World, make_small
from settled_world import FILES, answers, left_out, rewrite, ripe, write, youngest

from materialize import file_states, scan, settled, sources
from materialize.audit import audit
from materialize.file_states import FileClock, source_files
from materialize.ledger import Ledger
from materialize.pin_rows import PinRows
from materialize.plan_spaces import plan_spaces
from materialize.run import RunOptions, materialize


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A ledger that has every row of four views of two files each."""
    make_small(monkeypatch)
    world = World(tmp_path)
    pins = {f"pin {n}": {"title": f"hat {n}", "caption": "felt", "board_titles": ["b"]} for n in range(12)}
    world.pins({**pins, "bare": {}, "linked": {"title": "cap", "link_title": "shop"}}, files=FILES)
    ripe(world)
    write(world, 1)
    return world


def test_a_run_leaves_behind_that_nothing_is_to_be_done(world, monkeypatch):
    assert left_out(world) == (8, 8)
    monkeypatch.setattr(sources, "HashedView", None)  # a pass would fail
    assert answers(world)[0]["pins"][2] == (14, 14, 14, 1, 0)


def test_everything_is_read_where_it_is_asked_for(world):
    assert left_out(world, rescan=True) == (0, 8)
    assert left_out(world) == (8, 8)


def test_a_scan_that_finds_nothing_notes_that_too(world):
    for view in world.views.values():
        for path in source_files(view.source):
            rewrite(path)
    assert left_out(world) == (0, 8)
    assert left_out(world) == (8, 8)


def test_only_the_views_with_other_files_are_read(world):
    (path, _) = source_files(world.views["pin_captions"].source)
    rewrite(path, lambda rows: [{**rows[0], "caption": "tweed"}, *rows[1:]])
    ripe(world)
    for pins_first in (True, False):
        found, counts = answers(world, pins_first=pins_first)
        assert counts == (8, 6)
        assert found == answers(world, noting=False)[0]
        assert (len(found["pins"][0]), len(found["pin_captions"][0]), found["pin_text"][0]) == (1, 1, {})
    write(world, 2)
    assert left_out(world) == (8, 8)


def test_what_a_file_loses_or_gains_is_found(world):
    first, second = source_files(world.views["pin_text"].source)
    kept = first.read_bytes()
    first.unlink()
    assert left_out(world, pins_first=True) == (6, 7)
    first.with_name("9.parquet").write_bytes(kept)
    assert left_out(world) == (8, 8)
    second.unlink()
    assert len(answers(world)[0]["pins"][1]) == 7


def test_copies_are_told_by_their_bytes_and_then_by_their_looks(world, monkeypatch):
    for view in world.views.values():
        for path in source_files(view.source):
            shutil.copy(path, path.with_name(f"copy-{path.name}"))
            path.unlink()
    ripe(world)
    with monkeypatch.context() as patched:
        patched.setattr(sources, "HashedView", None)  # a pass would fail
        assert answers(world)[1] == (8, 8)
        patched.setattr(file_states, "_hashed", None)
        assert answers(world)[1] == (8, 8)
    assert left_out(world, rescan=True) == (0, 8)


def test_neither_a_restored_time_nor_an_equal_size_deceives(world):
    (path, _) = source_files(world.views["pin_text"].source)
    rewrite(path)
    assert left_out(world) == (6, 8)
    times = path.stat().st_mtime_ns
    assert rewrite(path, lambda rows: [{**rows[0], "title": rows[0]["title"].replace("hat", "cap")}, *rows[1:]])
    assert path.stat().st_mtime_ns == times
    ripe(world)
    assert len(answers(world)[0]["pins"][0]) == 1


def test_a_file_as_young_as_the_scan_is_not_believed(world, monkeypatch):
    for path in source_files(world.views["pin_text"].source):
        rewrite(path)
    last = youngest(world)
    monkeypatch.setattr(sources, "file_clock", lambda folder: FileClock(last, folder.stat().st_dev))
    for _ in range(2):
        assert answers(world)[1] == (8, 6)
    monkeypatch.setattr(sources, "file_clock", lambda folder: FileClock(last + 1, folder.stat().st_dev))
    assert [answers(world)[1] for _ in range(2)] == [(8, 6), (8, 8)]


def test_a_file_that_changes_while_it_is_read_is_not_noted(world, monkeypatch):
    (path, _) = source_files(world.views["pin_text"].source)
    rewrite(path)
    ripe(world)
    compare = scan.compare

    def and_then(*given, **how):
        found = compare(*given, **how)
        rewrite(path, lambda rows: [{**rows[0], "title": "late"}, *rows[1:]])
        return found

    with monkeypatch.context() as patched:
        patched.setattr(scan, "compare", and_then)
        answers(world)
    assert answers(world)[1] == (8, 6)
    assert len(answers(world)[0]["pins"][0]) == 1


def test_a_file_that_is_hashed_and_then_another_is_not_noted(world, monkeypatch):
    """Its bytes were those of an edit, and what was read then was as it had been written."""
    (path, _) = source_files(world.views["pin_text"].source)
    rewrite(path)
    left_out(world)
    written = path.read_bytes()
    rewrite(path, lambda rows: [{**rows[0], "title": rows[0]["title"].replace("hat", "cap")}, *rows[1:]])
    edited = path.read_bytes()
    ripe(world)
    read = sources.HashedView
    with monkeypatch.context() as patched:
        patched.setattr(sources, "HashedView", lambda *given: path.write_bytes(written) and read(*given))
        assert not answers(world)[0]["pins"][0]
    path.write_bytes(edited)
    ripe(world)
    assert len(answers(world)[0]["pins"][0]) == 1


@pytest.mark.parametrize("left", [{"pin 0"}, {"pin 1"}, {"pin 0", "pin 1", "pin 2"}])
def test_a_run_that_leaves_something_out_notes_nothing_of_it(world, left):
    """As with a limit: of a changed pin, of one that is gone."""
    (path, _) = source_files(world.views["pin_text"].source)
    first = pq.read_table(path)["pin_id"].to_pylist()[:3]
    rewrite(path, lambda rows: [{**rows[0], "title": "fez"}, *rows[2:]])
    left = frozenset(first[int(pin[-1])] for pin in left)
    ripe(world)
    write(world, 2, leave=left)
    found = answers(world)
    assert found[0] == answers(world, noting=False)[0]
    changed = {first[0]} & left
    assert found[0]["pins"][0].keys() == changed
    assert found[0]["pins"][1] == sorted({first[1]} & left)
    write(world, 3)
    assert left_out(world) == (8, 8)


def test_a_view_that_was_written_without_the_space_tells_nothing_of_it(world):
    """What differs from the ledger's rows is then not what differs from the rows that the space has."""
    (path, _) = source_files(world.views["pin_captions"].source)
    rewrite(path, lambda rows: [{**rows[0], "caption": "tweed"}, *rows[1:]])
    ripe(world)
    write(world, 2, pins=False)
    assert left_out(world) == (0, 8)
    rewrite(path, lambda rows: [rows[0], {**rows[1], "caption": "silk"}, *rows[2:]])
    assert left_out(world) == (0, 8)
    assert len(answers(world)[0]["pins"][0]) == 2


@pytest.mark.parametrize("what", ["copied", "doubted", "engine", "definition", "held"])
def test_a_note_about_something_else_is_not_believed(world, what, monkeypatch):
    """Another ledger, journal, engine, definition or set of pins held."""
    held = NONE
    if what == "copied":
        shutil.copytree(world.paths.ledger, world.folder / "aside")
        shutil.rmtree(world.paths.ledger)
        shutil.copytree(world.folder / "aside", world.paths.ledger)
    elif what == "doubted":
        with Ledger(world.paths) as ledger:
            for space in ledger.spaces():
                ledger.doubt(space, 2, ["pin 3"])
    elif what == "engine":
        monkeypatch.setattr(scan, "raw_engine", lambda: "another")
        monkeypatch.setattr(settled, "raw_engine", lambda: "another")
    elif what == "definition":
        for name, view in world.views.items():
            world.views[name] = type(view)(**{**vars(view), "tags": {"other": "yes"}})
    else:
        held = frozenset({"pin 3"})
    assert left_out(world, held=held) == (0, 8)


@pytest.mark.parametrize(
    "steps", [pytest.param(n, marks=() if n in (1, 2, 4, 9) else pytest.mark.slow) for n in range(1, 30)]
)
def test_a_run_that_dies_anywhere_leaves_no_wrong_note(world, steps):
    for name in ("pin_text", "pin_captions"):
        (path, _) = source_files(world.views[name].source)
        feature = "title" if name == "pin_text" else "caption"
        rewrite(path, lambda rows, feature=feature: [{**rows[0], feature: "tweed"}, *rows[2:]])
    ripe(world)
    write(world, 2, steps=steps)
    left_out(world)
    write(world, 3)
    assert left_out(world) == (8, 8)


def test_pins_held_are_looked_at_whatever_the_note_says(world):
    """Their entries have no row; a row that comes back is found, also one that is as it was written."""
    held = frozenset({"pin 1", "pin 2", "never seen"})
    paths = source_files(world.views["pin_text"].source)
    whole = [path.read_bytes() for path in paths]
    for path in paths:
        rewrite(path, lambda rows: [row for row in rows if row["pin_id"] not in held])
    assert left_out(world, held=held, pins_first=True) == (0, 8)
    assert left_out(world, held=held) == (8, 8)
    for path, content in zip(paths, whole, strict=True):
        path.write_bytes(content)
    assert left_out(world, held=held, pins_first=True) == (6, 8)
    assert answers(world, held=held)[0]["pins"][2] == (14, 14, 14, 1, 1)


def test_many_candidates_are_compared_with_all_the_others(world, monkeypatch):
    monkeypatch.setattr(scan, "FEW", 1)
    (path, _) = source_files(world.views["pin_captions"].source)
    rewrite(path, lambda rows: [{**row, "caption": "tweed"} for row in rows])
    assert left_out(world, pins_first=True) == (0, 8)


def test_what_a_real_run_and_plan_say_of_it(catalogue):
    for n in range(5):
        catalogue.put(f"p{n}", f"hat {n}")
    catalogue.save()
    first = materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    planned = plan_spaces(catalogue.paths)
    assert (first.new, first.files_unchanged, planned.unchanged) == (5, 0, 5)
    assert planned.files == planned.files_unchanged == first.files > 4
    assert plan_spaces(catalogue.paths, rescan=True).files_unchanged == 0
    again = materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    assert (again.unchanged, again.files_unchanged) == (5, again.files)
    read = materialize(catalogue.paths, RunOptions(encoder=CountingEncoder(), rescan=True))
    assert (read.unchanged, read.files_unchanged) == (5, 0)


def test_an_audit_reads_the_files_whatever_was_noted(catalogue, monkeypatch):
    catalogue.put("p1", "hat").save()
    materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    passed = []
    make = sources.Session._pass
    monkeypatch.setattr(sources.Session, "_pass", lambda *given: passed.append(given[2].name) or make(*given))
    assert audit(catalogue.paths).clean
    assert "pin_text" in passed


def with_tweed(world):
    (path, _) = source_files(world.views["pin_captions"].source)
    rewrite(path, lambda rows: [{**rows[0], "caption": "tweed"}, *rows[1:]])
    ripe(world)


def test_a_plan_beside_a_run_leaves_nothing_out(world, monkeypatch):
    with_tweed(world)
    fetch = PinRows.fetch_few

    def beside(self, keys):
        fetch(self, keys)
        with Ledger(world.paths) as other:  # it is about to write a batch
            other.doubt(SPACE.name, 2, [f"pin {n}" for n in range(6)])

    with monkeypatch.context() as patch:
        patch.setattr(PinRows, "fetch_few", beside)
        found = answers(world, pins_first=True)[0]["pins"]
    assert found == answers(world, noting=False)[0]["pins"]
    assert len(found[0]) >= 6


def test_a_note_that_reading_everything_proves_wrong_is_dropped(world, monkeypatch):
    with_tweed(world)
    monkeypatch.setattr(settled.Settled, "moved", lambda self: [])  # as if a file could change and look the same
    assert answers(world)[0]["pins"][0] == {}
    assert len(answers(world, rescan=True)[0]["pins"][0]) == 1
    assert len(answers(world)[0]["pins"][0]) == 1
