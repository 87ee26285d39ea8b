"""A search log that grows file by file: merged, it gives what a full count gives, byte for byte."""

import json
import os
from datetime import timedelta
from itertools import permutations

import pytest
from conftest import examples, random_examples
from growing_log import TOPICS, WINDOW, check_equals_full, event, hours, pin, put, put_log, rows, run, sources, start
from hypothesis import strategies as st
from log_recompute import expected_log

from feature_repo.aggregates import forget_state, relevance
from feature_repo.aggregates.log.state import State
from feature_repo.screening import Screening

LOG_VIEWS = ("pin_engagement", "pin_engaged_queries", "query_stats", "query_pin_engagement")


@pytest.fixture
def paths(tmp_path):
    return start(tmp_path)


# Random histories ----------------------------------------------------------------------------------------------------

events = st.builds(
    event,
    at=st.integers(-72, 24),
    query=st.sampled_from(["oak table", "Oak  Table ", "lamp", "call me +1 212 555 0100", "\x00"]),
    pin_id=st.sampled_from(["p1", "p2", "p3", "ghost"]),
    user=st.sampled_from(["ann", "bob", "cid"]),
    action=st.sampled_from(["impression", "click", "long_click", "save"]),
    request=st.sampled_from(["r1", "r2", "r3", None]),
    dwell=st.sampled_from([None, 2.0, 10.5]),
    lang=st.sampled_from([None, "de", "en"]),
)
pins = st.fixed_dictionaries(
    {
        name: st.fixed_dictionaries(
            {
                "created_at": st.sampled_from([None, hours(-60), hours(12), hours(200)]),
                "deleted_at": st.sampled_from([None, None, hours(0), hours(200)]),
            }
        )
        for name in ("p1", "p2", "p3")
    }
)
steps = st.lists(
    st.fixed_dictionaries(
        {
            "later": st.integers(0, 200),
            "files": st.lists(st.lists(events, max_size=12), max_size=2),
            "pins": st.none() | pins,
        }
    ),
    min_size=2,
    max_size=4,
)


def play(root, history, min_users):
    """Every step is merged, and equals a full count and the recompute row by row."""
    paths = start(root)
    files, log, now = {}, [], 0
    known = {name: pin(name) for name in ("p1", "p2", "p3")}
    put_log(paths, {"0.parquet": []})
    files["0.parquet"] = []
    for number, step in enumerate(history):
        now += step["later"]
        if step["pins"]:
            known = {name: pin(name) | more for name, more in step["pins"].items()}
        put(paths, "pins", list(known.values()))
        for part in step["files"]:
            moved = [row | {"event_timestamp": row["event_timestamp"] + timedelta(hours=now)} for row in part]
            files[f"{len(files)}.parquet"] = moved
            log += moved
        put_log(paths, files)
        report = run(paths, now + 24, min_users=min_users)
        assert report.log == ("merged" if number else "full")
        check_equals_full(paths, report, min_users=min_users)
        moment = hours(now + 24)
        there = {name: one for name, one in known.items() if not one.get("deleted_at") or one["deleted_at"] > moment}
        tables = {"search_log": log, "pin_topics": TOPICS}
        found, screened = expected_log(tables, there, min_users, moment, WINDOW, Screening.load(root))
        assert report.screened.get("search_log", {}) == screened
        for view in LOG_VIEWS:
            order = [[row.get("query", ""), row.get("pin_id", "")] for row in found[view]]
            wanted = [row for _, row in sorted(zip(order, found[view], strict=True), key=lambda pair: pair[0])]
            assert rows(paths, view) == wanted, view


@examples(3, 100)
def test_merges_equal_a_full_count_and_a_recompute(tmp_path_factory, examples):
    @random_examples(examples, steps, st.integers(1, 2))
    def check(history, min_users):
        play(tmp_path_factory.mktemp("history"), history, min_users)

    check()


# What a merge does and does not do ----------------------------------------------------------------------------------


def two_days(paths):
    """A first day that is counted, and a second one that is there."""
    first = [event(at, user=user) for user in ("ann", "bob") for at in range(2)]
    put_log(paths, {"a.parquet": first})
    assert run(paths, 24).log == "full"
    put_log(paths, {"a.parquet": first, "b.parquet": [event(30, user="cid"), event(31, query="lamp", user="ann")]})


def test_the_latest_visit_that_turns_out_to_be_a_machines_gives_its_time_to_the_one_before(paths):
    first = [event(0, user="bob"), event(48, user="ann")]
    put_log(paths, {"a.parquet": first})
    run(paths, 96, min_users=1)
    assert [row["event_timestamp"] for row in rows(paths, "query_pin_engagement")] == [hours(48)]
    more = [event(at, query="lamp", pin_id="p2", user="ann") for at in (49, 50, 51)]  # with that one, too many a day
    put_log(paths, {"a.parquet": first, "b.parquet": more})
    report = run(paths, 96, min_users=1)
    assert report.log == "merged"
    assert [row["event_timestamp"] for row in rows(paths, "query_pin_engagement")] == [hours(0)]
    check_equals_full(paths, report, min_users=1)


def test_of_languages_that_are_as_frequent_the_first_by_name_is_told(paths):
    orders = list(permutations(("en", "de", "fr")))
    log = [
        event(number, query=f"oak {number}", user=f"{lang}{number}", lang=lang)
        for number, order in enumerate(orders)
        for lang in order
    ]
    put_log(paths, {"a.parquet": log})
    run(paths, 24)
    assert [row["lang"] for row in rows(paths, "query_stats")] == ["de"] * len(orders)


def test_a_merge_reads_only_the_new_file_and_nothing_new_reads_none(paths):
    two_days(paths)
    old = paths.valid / "search_log" / "a.parquet"
    stat, data = old.stat(), old.read_bytes()
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    old.write_bytes(bytes(len(data) - footer) + data[-footer:])  # no row of it can be read any more
    os.utime(old, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    report = run(paths, 48)
    assert (report.log, report.log_reason, report.log_files) == ("merged", None, 1)
    assert [row["searches"] for row in rows(paths, "query_stats")] == [5]
    old.write_bytes(data)
    os.utime(old, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = run(paths, 48)
    assert (again.log, again.log_files) == ("merged", 0)
    check_equals_full(paths, again)


def test_a_merge_looks_at_no_visit_of_days_that_nothing_came_to(paths):
    two_days(paths)
    (old,) = paths.aggregates.glob("visits-*.parquet")
    data = old.read_bytes()
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    old.write_bytes(bytes(len(data) - footer) + data[-footer:])  # people, requests, best visits: told without it
    report = run(paths, 48)
    assert report.log == "merged"
    check_equals_full(paths, report)


def test_other_files_or_rules_are_counted_in_full(paths):
    two_days(paths)
    changed = "a.parquet is not the file that was counted"
    (paths.valid / "search_log" / "a.parquet").unlink()
    put_log(paths, {"a.parquet": [event(5)], "b.parquet": []})
    assert run(paths, 48).log_reason == changed
    put_log(paths, {"b.parquet": []})
    assert run(paths, 48).log_reason == changed
    (paths.root / "screening.yaml").write_text("limits:\n  max_visits_a_day: 1\n")
    report = run(paths, 48)
    assert (report.log, report.log_reason) == ("full", "other screening rules")
    check_equals_full(paths, report)
    assert run(paths, 48).log == "merged"


def test_a_state_that_is_not_whole_or_of_another_version_is_none(paths):
    two_days(paths)
    note = paths.aggregates / "state.json"
    text = note.read_text()

    def known():
        state = State(paths.aggregates)
        state.close()
        return state.facts is not None

    assert known()
    for other in (text[:-9], "[]", json.dumps(json.loads(text) | {"version": "0"}), '{"version": "1"}'):
        note.write_text(other)
        assert not known()
    note.write_text(text)
    assert known()
    next(paths.aggregates.glob("pairs-*.parquet")).unlink()
    assert not known()
    assert run(paths, 48).log_reason == "nothing of this version was kept"
    forget_state(paths)
    assert not paths.aggregates.exists()


def test_full_counts_all_and_a_past_time_or_another_folder_leaves_the_state(paths):
    two_days(paths)
    note = (paths.aggregates / "state.json").read_bytes()
    assert run(paths, 10).log_reason == "as of a time before the latest event"
    past = sources(paths.views)
    assert run(paths, 48, folder=paths.root / "other").log_reason == "into a folder of its own"
    assert (paths.aggregates / "state.json").read_bytes() == note
    assert run(paths, 48).log == "merged"
    report = run(paths, 48, full=True)
    assert (report.log, report.log_reason, report.log_files) == ("full", "as asked", 2)
    run(paths, 10, folder=paths.root / "past")
    assert sources(paths.root / "past") == past


def test_a_run_beside_another_counts_for_itself(paths):
    two_days(paths)
    held = State(paths.aggregates)
    report = run(paths, 48)
    assert (report.log, report.log_reason) == ("full", "another aggregate is at work")
    held.close()
    assert run(paths, 48).log == "merged"


def test_a_merge_that_dies_leaves_state_and_sources(paths, monkeypatch):
    two_days(paths)
    before = sources(paths.views)
    note = (paths.aggregates / "state.json").read_bytes()
    write = State.write

    def dying_at(role):
        def die(self, session, written, sql):
            if written == role:
                raise KeyboardInterrupt
            return write(self, session, written, sql)

        return die

    for role in ("visits", "pairs", "digests"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(State, "write", dying_at(role))
            run(paths, 48)
        assert (paths.aggregates / "state.json").read_bytes() == note
        assert sources(paths.views) == before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", dying_replace(os.replace))
        run(paths, 48)
    assert (paths.aggregates / "state.json").read_bytes() == note  # the sources are the new ones already
    report = run(paths, 48)
    assert report.log == "merged"
    check_equals_full(paths, report)
    named = json.loads((paths.aggregates / "state.json").read_text())["tables"].values()
    assert {path.name for path in paths.aggregates.glob("*.parquet")} == {name for names in named for name in names}


def dying_replace(replace):
    def switch(source, target):
        if str(target).endswith("state.json"):
            raise KeyboardInterrupt
        replace(source, target)

    return switch


def test_tokens_are_made_only_of_pins_whose_texts_changed(paths, monkeypatch):
    made = []
    encode = relevance.encode_blob
    monkeypatch.setattr(relevance, "encode_blob", lambda fields: made.append(fields.title) or encode(fields))
    two_days(paths)
    assert sorted(made) == ["Pin p1", "Pin p2"]
    made.clear()
    put(paths, "pins", [pin("p1"), pin("p2", description="of oak"), pin("p3")])
    report = run(paths, 48)
    assert sorted(made) == ["Pin p2", "Pin p3"]
    check_equals_full(paths, report)
    made.clear()
    (paths.views / "pin_relevance.parquet").touch()  # not the source that the digests are of
    run(paths, 48)
    assert len(made) == 3


@pytest.mark.slow
def test_many_small_merges_leave_few_files(paths):
    files = {"00.parquet": [event(0)]}
    put_log(paths, files)
    for number in range(1, 6):
        run(paths, 24 * number)
        files[f"{number:02}.parquet"] = [event(24 * number - 1, user=f"u{number}")]
        put_log(paths, files)
    report = run(paths, 24 * 6)
    assert report.log == "merged"
    assert len(list(paths.aggregates.glob("visits-*.parquet"))) <= 3
    check_equals_full(paths, report)
