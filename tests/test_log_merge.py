"""A search log that grows file by file: merged, it gives what a full count gives, byte for byte."""

import json
import os
import re
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_recompute import expected_log

from feature_repo.aggregates import VIEW_SCHEMAS, aggregate, forget_state, relevance
from feature_repo.aggregates.log.state import State
from feature_repo.aggregates.session import Resources, Session
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.paths import PARTS, RepoPaths
from feature_repo.screening import Screening
from pinfeather.commands.repo import aggregate_command

START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 10
LOG_VIEWS = ("pin_engagement", "pin_engaged_queries", "query_stats", "query_pin_engagement")
LIMITS = "limits:\n  max_visits_a_day: 3\n  early_seconds: 3600\n"


def hours(number):
    return START + timedelta(hours=number)


def schema(table):
    return pa.schema([(column.name, arrow_type(column.kind)) for column in CONTRACTS[table].columns])


def put(paths, table, rows):
    paths.valid.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(table)), paths.valid / f"{table}.parquet")


def put_log(paths, files):
    """Valid files of the log by name, as ``validate`` leaves them; those that are there already stay."""
    folder = paths.valid / "search_log"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        if not (folder / name).exists():
            pq.write_table(pa.Table.from_pylist(rows, schema=schema("search_log")), folder / name)
    (folder / PARTS).write_text(json.dumps({"parts": [{"file": name} for name in sorted(files)]}))


def event(at, query="oak", pin_id="p1", user="ann", action="click", request=None, dwell=None, lang=None):
    return {
        "request_id": request or f"{user}/{query}/{at}",
        "query": query,
        "lang": lang,
        "user_id": user,
        "pin_id": pin_id,
        "action": action,
        "dwell_s": dwell,
        "event_timestamp": hours(at),
    }


def pin(name, **more):
    return {"pin_id": name, "title": f"Pin {name}", "event_timestamp": hours(-9000), **more}


def topic(name, word, weight, at=-5000):
    return {"pin_id": name, "topic": word, "weight": weight, "event_timestamp": hours(at)}


TOPICS = [topic("p1", "wood", 3.0), topic("p1", "home", 1.0), topic("p2", "home", 0.5), topic("p2", "old", 1.0, -6000)]


@pytest.fixture
def paths(tmp_path):
    return start(tmp_path)


def start(root):
    paths = RepoPaths(root)
    (root / "screening.yaml").write_text(LIMITS)
    for table in ("board_saves", "captions"):
        put(paths, table, [])
    put(paths, "pins", [pin("p1"), pin("p2")])
    put(paths, "pin_topics", TOPICS)
    return paths


def run(paths, at, **options):
    return aggregate(paths, **({"as_of": hours(at), "window_days": WINDOW} | options))


def sources(folder):
    return {view: (folder / f"{view}.parquet").read_bytes() for view in VIEW_SCHEMAS}


def rows(paths, view):
    return pq.read_table(paths.views / f"{view}.parquet").to_pylist()


def check_equals_full(paths, report, **options):
    """The views in place are those of a full count beside them, and so are the counts of the report."""
    folder = paths.root / "full"
    full = aggregate(paths, as_of=report.as_of, window_days=WINDOW, folder=folder, **options)
    assert full.log == "full"
    for view, data in sources(folder).items():
        assert (paths.views / f"{view}.parquet").read_bytes() == data, view
    assert (report.views, report.left_out, report.screened) == (full.views, full.left_out, full.screened)


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


def few(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few(3)
@given(history=steps, min_users=st.integers(1, 2))
def test_merges_equal_a_full_count_and_a_recompute(tmp_path_factory, history, min_users):
    play(tmp_path_factory.mktemp("history"), history, min_users)


@pytest.mark.slow
@few(100)
@given(history=steps, min_users=st.integers(1, 2))
def test_many_merges_equal_a_full_count_and_a_recompute(tmp_path_factory, history, min_users):
    play(tmp_path_factory.mktemp("history"), history, min_users)


# What a merge does and does not do ----------------------------------------------------------------------------------


def two_days(paths):
    """A first day that is counted, and a second one that is there."""
    first = [event(at, user=user) for user in ("ann", "bob") for at in range(2)]
    put_log(paths, {"a.parquet": first})
    assert run(paths, 24).log == "full"
    put_log(paths, {"a.parquet": first, "b.parquet": [event(30, user="cid"), event(31, query="lamp", user="ann")]})


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


# What counts ---------------------------------------------------------------------------------------------------------


def test_a_user_day_with_too_many_visits_counts_for_nothing_also_after_it_was_counted(paths):
    quiet = [event(0, user=user, query="lamp") for user in ("ann", "bob")]
    early = [event(1, user="bot", query=f"oak {number}") for number in range(2)] + [event(5, "lamp", user="bot")]
    put_log(paths, {"a.parquet": [*quiet, *early]})
    assert run(paths, 24, min_users=1).screened.get("search_log", {}) == {}
    assert [row["query"] for row in rows(paths, "query_stats")] == ["lamp", "oak 0", "oak 1"]
    put_log(paths, {"a.parquet": [], "b.parquet": [event(2, user="bot", query="oak 9")]})
    report = run(paths, 48, min_users=1)
    assert report.log == "merged"
    assert report.screened["search_log"] == {"too many visits of a user in a day": 4}
    (row,) = rows(paths, "query_stats")
    assert (row["query"], row["users"], row["event_timestamp"]) == (
        "lamp",
        2,
        hours(0),
    )  # its latest visit was the bot's
    check_equals_full(paths, report, min_users=1)


def test_events_before_the_pin_and_refused_queries_are_left_out_and_counted(paths):
    put(paths, "pins", [pin("p1", created_at=hours(10)), pin("p2")])
    log = [event(8, user="ann"), event(9, user="ann"), event(9, pin_id="p2", user="bob")]
    log += [event(12, user=user, query="call +1 212 555 0100", request=user) for user in ("ann", "bob")]
    put_log(paths, {"a.parquet": log})
    report = run(paths, 24, min_users=1)
    assert report.screened["search_log"] == {"before the pin was created": 1, "phone number": 2}
    assert [row["impressions"] for row in rows(paths, "query_stats")] == [2]


def test_of_a_persons_visits_to_a_pin_after_a_query_the_best_of_a_day_counts(paths):
    spam = [event(0, query="spam", user=user, request=f"{user}{n}") for user in ("ann", "bob") for n in range(3)]
    fair = [event(hour, query="fair", user=user) for user in ("cid", "dan") for hour in (0, 24)]
    put_log(paths, {"a.parquet": [*spam, *fair]})
    run(paths, 48)
    assert rows(paths, "pin_engaged_queries")[0]["engaged_queries"] == ["fair", "spam"]
    assert {row["query"]: row["clicks"] for row in rows(paths, "query_stats")} == {"fair": 4, "spam": 6}


def test_interests_are_shares_of_engaged_visits_by_the_topics_of_pins(paths):
    log = [event(0, user=user, pin_id=name) for user in ("ann", "bob") for name in ("p1", "p2")]
    log += [event(1, user="ann", pin_id="p2", action="impression")]
    put_log(paths, {"a.parquet": log})
    report = run(paths, 24)
    (row,) = rows(paths, "query_stats")
    assert row["interests"] == [
        "home",
        "wood",
    ]  # p1 is three parts wood, p2 all home: what was delivered before is past
    assert row["interest_shares"] == pytest.approx([0.625, 0.375], abs=1e-5)
    put(paths, "pin_topics", [*TOPICS, topic("p2", "wood", 1.0, at=20)])
    check_equals_full(paths, run(paths, 24))
    (row,) = rows(paths, "query_stats")
    assert row["interests"] == ["wood", "home"]
    assert row["interest_shares"] == pytest.approx([0.875, 0.125], abs=1e-5)
    assert row["event_timestamp"] == hours(20)
    put(paths, "pin_topics", [topic("p1", "wood", 1.0), topic("p1", "dust", 1e-9)])
    run(paths, 24)
    (row,) = rows(paths, "query_stats")
    assert (row["interests"], row["interest_shares"]) == (["wood"], [1.0])  # a share of nothing is no interest
    (paths.valid / "pin_topics.parquet").unlink()
    run(paths, 24)
    (row,) = rows(paths, "query_stats")
    assert (row["interests"], row["interest_shares"]) == ([], [])
    assert report.views["query_stats"] == 1


@pytest.mark.slow
def test_another_window_and_fewer_people_are_merged_too(paths):
    two_days(paths)
    for options in ({"window_days": 1}, {"window_days": 300}, {"min_users": 1}):
        assert run(paths, 60, **options).log == "merged"
        there = sources(paths.views)
        run(paths, 60, folder=paths.root / "full", **options)
        assert sources(paths.root / "full") == there, options


def test_pins_that_go_and_come_back_and_late_rows_of_known_visits(paths):
    two_days(paths)
    run(paths, 48)
    put(paths, "pins", [pin("p1", deleted_at=hours(40)), pin("p2")])
    gone = run(paths, 48)
    assert gone.views["query_stats"] == 0
    assert gone.left_out["search_log"] == 6
    put(paths, "pins", [pin("p1"), pin("p2")])
    late = [event(3, user="ann", action="save", request="ann/oak/0"), event(4, user="ann", request="ann/oak/0")]
    files = {path.name: [] for path in (paths.valid / "search_log").glob("*.parquet")}
    put_log(paths, files | {"c.parquet": late})
    back = run(paths, 48)
    assert (gone.log, back.log, back.log_files) == ("merged", "merged", 1)
    (row,) = rows(paths, "query_stats")
    assert [row[name] for name in ("searches", "impressions", "clicks", "saves", "users")] == [5, 5, 5, 1, 3]
    check_equals_full(paths, back)


def test_a_pair_that_leaves_a_query_that_stays_is_patched_out(paths):
    old = [event(0, pin_id="p2", user=user) for user in ("ann", "bob")]
    asked = ["oak", *(f"oak {number}" for number in range(12))]
    new = [event(200, query, user=f"{user} {query}") for query in asked for user in ("ann", "bob")]
    put_log(paths, {"a.parquet": [*old, *new]})
    assert run(paths, 230).views["query_pin_engagement"] == 14
    report = run(paths, 250)
    kept = {role: pq.read_table(next(paths.aggregates.glob(f"{role}-*.parquet"))) for role in ("pairs", "pair_patch")}
    assert (kept["pairs"].num_rows, kept["pair_patch"]["impressions"].to_pylist()) == (14, [0])
    assert (report.log, report.views["query_pin_engagement"]) == ("merged", 13)
    check_equals_full(paths, report)


def test_the_command_says_what_was_merged_and_what_was_left_out(paths):
    (paths.root / "feature_store.yaml").touch()
    put_log(paths, {"a.parquet": [event(0), event(1, query="call +1 212 555 0100"), event(2, pin_id="ghost")]})
    call = CliRunner().invoke
    first = call(aggregate_command, ["--repo", str(paths.root)])
    assert "Search log: 1 files read, counted in full: nothing of this version was kept." in first.stderr
    assert re.search(r"search_log +│ later, or no such pin +│ +1", first.stdout)
    assert re.search(r"search_log +│ phone number +│ +1", first.stdout)
    found = json.loads(call(aggregate_command, ["--repo", str(paths.root), "--json"]).stdout)
    assert (found["log"], found["log_reason"], found["log_files"]) == ("merged", None, 0)
    assert found["screened"]["search_log"] == {"phone number": 1}
    found = json.loads(call(aggregate_command, ["--repo", str(paths.root), "--json", "--full"]).stdout)
    assert (found["log"], found["log_reason"]) == ("full", "as asked")


def test_all_ids_together_may_be_longer_than_32_bits_count(paths):
    put_log(paths, {"a.parquet": []})
    with Session(paths, Resources()) as session:
        found = session.texts("SELECT 'p' || number FROM range(3) numbers(number) ORDER BY number")
    assert (found.type, found.to_pylist()) == (pa.large_string(), ["p0", "p1", "p2"])
