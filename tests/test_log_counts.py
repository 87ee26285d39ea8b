"""What a search log counts, whether merged or counted in full."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from growing_log import TOPICS, check_equals_full, event, hours, pin, put, put_log, rows, run, sources, start, topic
from test_log_merge import two_days

from feature_repo.aggregates.session import Resources, Session
from pinfeather.commands.repo import aggregate_command


@pytest.fixture
def paths(tmp_path):
    return start(tmp_path)


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
