"""The search log is validated file by file: a day costs a day, and a kill shows the old files or the new."""

import os
import stat
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_tables import NOW, THEN, good_pins, put, rejected, valid

from feature_repo.contracts import CONTRACTS
from feature_repo.erasures import Subjects, record
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.raw_files import read_batches
from feature_repo.validation import validate


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


def log(count=1, **columns):
    ids = [f"u{number}" for number in range(count)]
    return {
        "request_id": ids,
        "query": ["hat"] * count,
        "user_id": ids,
        "pin_id": ["p0"] * count,
        "action": ["click"] * count,
        "event_timestamp": [THEN] * count,
        **columns,
    }


def test_a_days_log_costs_a_day(paths, monkeypatch):
    good_pins(paths)
    for day in ("monday", "tuesday"):
        put(paths, "search_log", log(3, position=[0, -1, 2]), day)
    read = []
    monkeypatch.setattr(
        "feature_repo.raw_rows.read_batches",
        lambda path, contract: read.append(path.name) or read_batches(path, contract),
    )
    first = validate(paths, NOW).tables["search_log"]
    files = paths.valid_files("search_log")
    contents = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    assert read == ["a.parquet", "monday.parquet", "tuesday.parquet"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (paths.valid / "search_log").iterdir()}
    assert len(modes) == 1  # whoever may read the rows may read which of them count
    assert [file.name.rpartition("-")[0] for file in files] == ["monday", "tuesday"]

    read.clear()
    put(paths, "search_log", log(1), "wednesday")
    report = validate(paths, NOW).tables["search_log"]
    assert read == ["a.parquet", "wednesday.parquet"]
    assert (report.files, report.read, report.rows, report.accepted) == (3, 1, 7, 5)
    assert report.rejected == first.rejected == {"position: outside 0 or more; correct the value": 2}
    kept = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in paths.valid_files("search_log")}
    assert contents.items() <= kept.items()

    read.clear()
    put(paths, "search_log", log(2), "monday")
    (paths.raw / "search_log" / "tuesday.parquet").unlink()
    report = validate(paths, NOW).tables["search_log"]
    assert read == ["a.parquet", "monday.parquet"]
    assert (report.files, report.rows, report.accepted, report.rejected) == (2, 3, 3, {})
    assert len(valid(paths, "search_log")) == 3
    assert rejected(paths, "search_log") == []
    assert len(list((paths.valid / "search_log").glob("*.parquet"))) == 2  # and nothing of what was there before


@pytest.mark.parametrize("change", ["contract", "valid file lost", "rejected file lost"])
def test_a_raw_file_is_read_again_where_its_result_is_not_to_be_had(paths, change, monkeypatch):
    good_pins(paths)
    put(paths, "search_log", log(2))
    validate(paths, NOW)
    if change == "contract":
        monkeypatch.setattr("feature_repo.raw_parts.PARTS_VERSION", 0)
    else:
        (found,) = paths.valid_files("search_log") if change[0] == "v" else paths.rejected_files("search_log")
        found.unlink()
    assert validate(paths, NOW).tables["search_log"].read == 1
    assert len(valid(paths, "search_log")) == 2
    assert validate(paths, NOW).tables["search_log"].read == 0


def test_a_row_ahead_of_the_clock_is_looked_at_again(paths):
    good_pins(paths)
    put(paths, "search_log", log(3, event_timestamp=[THEN, NOW + timedelta(days=3), NOW + timedelta(days=9)]))
    names = []
    for days, accepted, read in ((0, 1, 1), (1, 1, 1), (3, 2, 1), (9, 3, 1), (10, 3, 0)):
        report = validate(paths, NOW + timedelta(days=days)).tables["search_log"]
        assert (report.accepted, report.read) == (accepted, read)
        names.append(paths.valid_files("search_log")[0].name)
    assert names[0] == names[1]  # the same rows, the same name
    assert len(set(names)) == 3


def test_an_empty_log_has_an_empty_file(paths):
    good_pins(paths)
    validate(paths, NOW)
    (empty,) = paths.valid_files("search_log")
    assert pq.read_schema(empty).names == list(CONTRACTS["search_log"].names)
    put(paths, "search_log", log(2))
    validate(paths, NOW)
    assert len(valid(paths, "search_log")) == 2
    assert not empty.exists()


def test_what_an_older_layout_left_is_read_until_it_is_replaced(paths):
    good_pins(paths)
    for folder in (paths.valid, paths.rejected):
        folder.mkdir(parents=True)
        pq.write_table(pa.table(log(2)), folder / "search_log.parquet")
    assert paths.valid_files("search_log") == [paths.valid / "search_log.parquet"]
    put(paths, "search_log", log(1))
    validate(paths, NOW)
    assert [file.parent.name for file in paths.valid_files("search_log")] == ["search_log"]
    assert not (paths.valid / "search_log.parquet").exists()
    assert not (paths.rejected / "search_log.parquet").exists()


def test_a_note_of_parts_that_cannot_be_read_says_what_to_do(paths):
    good_pins(paths)
    validate(paths, NOW)
    (paths.valid / "search_log" / ".parts.json").write_text("{")
    with pytest.raises(PinfeatherError, match="Delete the folder"):
        validate(paths, NOW)
    (paths.valid / "search_log" / ".parts.json").write_text('{"parts": [{"file": "a.parquet"}]}')
    with pytest.raises(PinfeatherError, match="Delete the folder"):
        validate(paths, NOW)


@pytest.mark.parametrize("call", range(1, 14))
def test_a_kill_while_files_are_put_in_place_shows_the_old_parts_or_the_new(paths, call):
    """The table's files are switched at once, whatever is killed; the next run ends it."""
    good_pins(paths)
    put(paths, "search_log", log(2), "a")
    validate(paths, NOW)
    before = valid(paths, "search_log")
    put(paths, "search_log", log(3), "a")
    put(paths, "search_log", log(1), "b")
    calls = 0

    def killed(*words):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return plain(*words)

    plain, os.replace = os.replace, killed
    try:
        validate(paths, NOW)
        done = True
    except KeyboardInterrupt:
        done = False
    finally:
        os.replace = plain
    assert len(valid(paths, "search_log")) in ((4,) if done else (len(before), 4))
    validate(paths, NOW)
    assert len(valid(paths, "search_log")) == 4


def test_nothing_is_replaced_where_something_was_erased_meanwhile(paths, monkeypatch):
    good_pins(paths)
    put(paths, "search_log", log(2))

    def erase_meanwhile(table, rows):
        if table == "search_log":
            record(paths, Subjects.of(users=["u0"]))

    with pytest.raises(PinfeatherError, match="Run it again"):
        validate(paths, NOW, progress=erase_meanwhile)
    assert paths.valid_files("pins") == []
    assert validate(paths, NOW).tables["search_log"].erased == 1
