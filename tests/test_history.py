"""Snapshots of the past: what they hold, when they are taken again, and whose text they remember."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from past_tables import DAY, at, caption, event, micros, pin, put, save, visit

from feature_repo.aggregates import VIEW_SCHEMAS, aggregate
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history import (
    HistoryOptions,
    forget_history,
    history_lock,
    remember_pins,
    snapshot_time,
    snapshot_times,
    take_snapshots,
)
from feature_repo.history.grid import interval
from feature_repo.history.snapshots import NAMELESS
from feature_repo.history.versions import version_parts
from feature_repo.paths import RepoPaths

DAILY = HistoryOptions(DAY)


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


def take(paths, *days, options=DAILY):
    """Snapshots of the midnights after ``days``."""
    with history_lock(paths):
        return take_snapshots(paths, [micros(at(day)) for day in days], options)


def rows(folder, view):
    return pq.read_table(folder / f"{view}.parquet").to_pylist()


def world():
    """Tables over ten days in which every kind of row occurs."""
    return {
        "pins": [
            pin("a", -30, "red hat", image_sha256="i1", link_title="hats"),
            pin("b", 2.5, "blue hat"),
            pin("c", -30, "old scarf", deleted_at=at(4.5)),
        ],
        "board_saves": [
            save("a", "winter hats", "u1", 1.2),
            save("a", "winter hats", "u2", 1.4, removed_at=at(5.5)),
            save("c", "scarves", "u1", 1.1),
            save("c", "scarves", "u2", 3.1),
        ],
        "search_log": [
            *visit("hat", "a", "u1", 0.5, "click"),
            *visit("hat", "a", "u2", 2.5, "click", "save"),
            *visit("hat", "b", "u3", 3.5),
            *visit("scarf", "c", "u1", 3.5, "save"),
            *visit("scarf", "c", "u2", 3.6, "click"),
            event("hat", "b", "u9", at(6)),
        ],
        "captions": [caption("i1", "a hat on a chair", 3.3)],
    }


def cut(tables, moment):
    """The tables as they were delivered up to ``moment``; pins as if none had been edited since."""
    times = {"pins": "event_timestamp", "board_saves": "saved_at"}
    kept = {}
    for name, found in tables.items():
        time = times.get(name, "event_timestamp")
        kept[name] = [dict(row) for row in found if row[time] <= moment]
        for row in kept[name]:
            for later in ("removed_at", "deleted_at"):
                if row.get(later) and row[later] > moment:
                    row[later] = None
    return kept


# The grid -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4 * 10**15), st.integers(1, 30))
def test_a_snapshot_lies_strictly_before_its_label_and_no_later_one_does(moment, days):
    every = interval(days)
    found = snapshot_time(moment, every)
    assert found < moment <= found + every
    assert found % every == 0
    assert snapshot_times(np.array([moment]), every).tolist() == [found]


def test_a_grid_of_no_days_is_refused():
    with pytest.raises(UsageError, match="1 to 3650 days"):
        interval(0)


# As of ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=3, deadline=None, phases=[Phase.generate])  # shrinking would take minutes
@given(day=st.integers(0, 8), data=st.data())
def test_a_snapshot_equals_the_aggregates_of_the_tables_of_its_time(tmp_path_factory, day, data):
    """Over today's tables, pins edited since included, where the versions of then were remembered."""
    now, then = (RepoPaths(tmp_path_factory.mktemp(name)) for name in ("now", "then"))
    tables = world()
    jitter = st.timedeltas(timedelta(0), timedelta(days=9))
    for row in tables["search_log"]:
        row["event_timestamp"] = at() + data.draw(jitter)
    moment = at(day)
    past = cut(tables, moment)
    put(now, **past)
    remember_pins(now)
    edited = data.draw(st.sets(st.sampled_from(["a", "b"])))
    for row in tables["pins"]:
        if row["pin_id"] in edited and row["event_timestamp"] <= moment:
            row |= {"title": "edited", "image_sha256": None, "event_timestamp": at(9)}
    put(now, **tables)
    put(then, **past)
    aggregate(then, as_of=moment, folder=then.views)
    report = take(now, day)
    folder = report.folders[micros(moment)]
    for view in VIEW_SCHEMAS:
        assert (folder / f"{view}.parquet").read_bytes() == (then.views / f"{view}.parquet").read_bytes(), view


def test_an_edited_pin_keeps_its_engagement_and_loses_the_text_that_nobody_kept(paths):
    tables = world()
    put(paths, **tables)
    tables["pins"][0] |= {"title": "a new title", "event_timestamp": at(8)}
    put(paths, **tables)
    folder = take(paths, 3).folders[micros(at(3))]
    texts = {row["pin_id"]: row["title"] for row in rows(folder, "pin_text")}
    clicks = {row["pin_id"]: row["clicks"] for row in rows(folder, "pin_engagement")}
    assert texts == {"a": None, "b": "blue hat", "c": "old scarf"}
    assert clicks["a"] == 2
    assert pq.read_table(folder / NAMELESS)["pin_id"].to_pylist() == ["a"]


def test_link_texts_count_from_when_their_page_was_read(paths):
    put(paths, pins=[pin("a", 0, link_title="The walnut chair was recalled", link_fetched_at=at(3.5))])
    found = [rows(folder, "pin_link_text") for _, folder in sorted(take(paths, 3, 4).folders.items())]
    assert [[(row["link_title"], row["event_timestamp"]) for row in day] for day in found] == [
        [],
        [("The walnut chair was recalled", at(3.5))],
    ]


def test_no_snapshot_before_the_first_row_of_all_tables(paths):
    put(paths, **world())
    report = take(paths, -400, 1)
    assert list(report.folders) == [micros(at(1))]
    assert (report.made, report.before_data) == (1, 1)


# When a snapshot is taken again ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A repository with the world and its snapshots of some days."""
    paths = RepoPaths(tmp_path_factory.mktemp("base") / "repo")
    put(paths, **world())
    take(paths, *BASE)
    return paths


BASE = (1, 4, 5, 6, 7)


@pytest.fixture
def changed(base, paths):
    """(made, reused) of snapshots of ``BASE`` after a change of the world's tables."""

    def run(change, *days, options=DAILY):
        shutil.copytree(base.root, paths.root, dirs_exist_ok=True)
        tables = world()
        change(tables)
        put(paths, **tables)
        report = take(paths, *days, options=options)
        assert report.made + report.reused == len(days)
        return report.made, report.reused

    return run


def test_the_same_tables_written_anew_cost_nothing(paths, changed):
    assert changed(lambda tables: None, *BASE) == (0, 5)


def test_later_rows_change_no_earlier_snapshot(paths, changed):
    def more(tables):
        tables["search_log"] += visit("hat", "a", "u7", 6.5, "save")
        tables["board_saves"].append(save("a", "gifts", "u7", 6.6))
        tables["captions"].append(caption("i1", "another hat", 6.7))
        tables["pins"].append(pin("d", 6.8))
        tables["pin_topics"] = [{"pin_id": "a", "topic": "hats", "weight": 1.0, "event_timestamp": at(6.9)}]

    assert changed(more, 1, 5, 6, 7) == (1, 3)


def test_a_row_that_came_late_is_in_every_snapshot_after_it(paths, changed):
    def late(tables):
        tables["search_log"] += visit("hat", "a", "u7", 4.5, "save")

    assert changed(late, 4, 5) == (1, 1)
    counts = [
        sum(row["saves"] for row in rows(paths.data / "history" / f"2026030{day + 1}T000000Z", "pin_engagement"))
        for day in (4, 5)
    ]
    assert counts == [2, 2]  # c was deleted on the fourth day


def test_a_row_of_the_very_time_of_a_snapshot_is_in_it(paths, changed):
    def edge(tables):
        tables["search_log"].append(event("hat", "a", "u7", at(4)))

    assert changed(edge, 1, 4) == (1, 1)


def test_a_removal_counts_from_its_own_time(paths, changed):
    def removed(tables):
        tables["board_saves"][0]["removed_at"] = at(5.2)

    assert changed(removed, 5, 6) == (1, 1)


def test_an_edit_that_was_remembered_changes_no_earlier_snapshot(paths, changed):
    def edited(tables):
        tables["pins"][0] |= {"title": "a new title", "event_timestamp": at(6.5)}

    assert changed(edited, 6, 7) == (1, 1)
    folder = paths.data / "history" / "20260307T000000Z"
    assert "red hat" in {row["title"] for row in rows(folder, "pin_text")}


@pytest.mark.slow
def test_other_options_and_other_screening_rules_take_every_snapshot_again(paths, changed):
    assert changed(lambda tables: None, 1, options=HistoryOptions(DAY, min_users=1)) == (1, 0)
    assert take(paths, 1, options=HistoryOptions(DAY, min_users=1)).reused == 1
    (paths.root / "screening.yaml").write_text("limits:\n  max_visits_a_day: 5\n")
    assert take(paths, 1, options=HistoryOptions(DAY, min_users=1)).made == 1


def test_a_snapshot_has_the_captioner_of_its_time(paths, changed):
    def captioned(tables):
        note = {"fingerprint": "c0ffee", "name": "blip", "since": at(5.5).isoformat()}
        paths.captions.mkdir()
        (paths.captions / "current.json").write_text(json.dumps({"captioners": [note]}))

    assert changed(captioned, 5, 6) == (1, 1)


def test_another_interval_shares_the_snapshots_of_the_same_times(changed):
    assert changed(lambda tables: None, 5, 7, options=HistoryOptions(2 * DAY)) == (0, 2)


@pytest.mark.slow
def test_a_damaged_snapshot_is_taken_again(paths, changed):
    def damaged(tables):
        (paths.data / "history" / "20260302T000000Z" / "pin_text.parquet").unlink()
        (paths.data / "history" / "20260305T000000Z" / "snapshot.json").write_text("{")

    assert changed(damaged, *BASE) == (2, 3)


def test_two_processes_do_not_meet_in_the_history(paths):
    put(paths, **world())
    with history_lock(paths), pytest.raises(PinfeatherError, match="Another process"), history_lock(paths):
        pass


# Versions -------------------------------------------------------------------------------------------------------------


def test_a_version_is_noted_once(paths):
    put(paths, pins=[pin("a"), pin("b")])
    assert remember_pins(paths).new == 2
    assert remember_pins(paths).new == 0
    put(paths, pins=[pin("a", title="other", event_timestamp=at(1)), pin("b")])
    assert remember_pins(paths).new == 1
    assert len(version_parts(paths)) == 2


def test_a_pin_that_is_gone_or_deleted_loses_its_past(paths):
    put(paths, pins=[pin("a"), pin("b"), pin("c")])
    remember_pins(paths)
    put(paths, pins=[pin("a"), pin("b", deleted_at=at(3), event_timestamp=at(3))])
    assert remember_pins(paths).forgotten == 2
    assert [row["pin_id"] for part in version_parts(paths) for row in pq.read_table(part).to_pylist()] == ["a"]


def reject(paths, *rows):
    """Rejected rows of pins, as texts, as `validate` writes them."""
    paths.rejected.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), paths.rejected / "pins.parquet")


def test_a_pin_whose_row_was_rejected_keeps_its_past_unless_that_says_deleted(paths):
    put(paths, pins=[pin("a"), pin("b"), pin("c")])
    remember_pins(paths)
    put(paths, pins=[pin("a")])
    broken = {"event_timestamp": at(1).isoformat(), "reason": "created_at: in the future"}
    reject(
        paths, {"pin_id": "b", "deleted_at": None} | broken, {"pin_id": "c", "deleted_at": at(1).isoformat()} | broken
    )
    assert remember_pins(paths).forgotten == 1
    assert [row["pin_id"] for part in version_parts(paths) for row in pq.read_table(part).to_pylist()] == ["a", "b"]


def past(paths, *days):
    """The title of pin ``a`` at the midnights after ``days``; None for a text that is not known."""
    folders = take(paths, *days).folders
    return [{row["pin_id"]: row["title"] for row in rows(folders[micros(at(day))], "pin_text")}["a"] for day in days]


def test_a_text_that_changed_without_a_later_time_holds_from_when_it_was_seen(paths):
    put(paths, pins=[pin("a", 0, "first", created_at=at(-50))])
    assert remember_pins(paths, now=at(2)).new == 1
    put(paths, pins=[pin("a", 0, "second", created_at=at(-50))])
    assert remember_pins(paths, now=at(4.5)).new == 1
    assert remember_pins(paths, now=at(6)).new == 0
    put(paths, pins=[pin("a", 3, "third", created_at=at(-50))])  # its time lies before the second was seen
    remember_pins(paths, now=at(7.5))
    put(paths, pins=[pin("a", 8.5, "fourth", created_at=at(-50))])
    remember_pins(paths, now=at(10.5))
    assert past(paths, -1, 4, 7, 8, 9) == [None, "first", "second", "third", "fourth"]


def test_a_text_that_goes_back_to_what_it_was_does_so_from_then_on(paths):
    for title, seen in (("first", 1), ("second", 2.5), ("first", 4.5)):
        put(paths, pins=[pin("a", 0, title)])
        assert remember_pins(paths, now=at(seen)).new == 1
    assert past(paths, 2, 3, 5) == ["first", "second", "first"]


def test_an_address_that_is_signed_anew_is_no_edit(paths):
    for number in range(2):
        put(paths, pins=[pin("a", image_uri=f"https://cdn.example/a?signed={number}")])
        assert remember_pins(paths).new == 1 - number


def test_a_delivery_that_lost_many_pins_is_doubted(paths, caplog):
    put(paths, pins=[pin(f"p{number}") for number in range(20)])
    remember_pins(paths)
    put(paths, pins=[pin("p0")])
    assert remember_pins(paths).forgotten == 0
    assert "19 of 20 pins are gone" in caplog.text


def test_what_is_forgotten_is_in_no_snapshot_and_no_version(paths):
    put(paths, **world())
    take(paths, 1)
    forget_history(paths, pins=["a"])
    assert not (paths.data / "history").exists()
    names = {row["pin_id"] for part in version_parts(paths) for row in pq.read_table(part).to_pylist()}
    assert names == {"b"}  # c is deleted, so no version was noted


def test_times_are_exact(paths):
    far = datetime(2031, 5, 5, 5, 5, 5, 123457, tzinfo=UTC)
    put(paths, pins=[pin("a", event_timestamp=far, created_at=far)])
    every = DAY
    moment = snapshot_time(micros(far), every)
    with history_lock(paths):
        report = take_snapshots(paths, [moment, moment + every], DAILY)
    assert list(report.folders) == [moment + every]
