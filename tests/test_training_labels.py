"""Labels of a training set: of a file, of the log, of judgments; and the rows that they become."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CountingEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from past_tables import DAY, at, event, micros, pin, put, visit

from feature_repo.errors import UsageError
from feature_repo.history import snapshot_time
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields
from feature_repo.text import canonical_query
from pinfeather import log_queries
from pinfeather.init import init_repository
from pinfeather.label_sources import from_file, from_log, judgments
from pinfeather.training_set import (
    TrainingSetOptions,
    build_training_set,
)

# Labels of a file -----------------------------------------------------------------------------------------------------


def strange():
    """Pins in every state that a label can meet them in."""
    return {
        "pins": [
            pin("a", -20, "red hat", link_title="All hats"),
            pin("gone", -20, deleted_at=at(2)),
            pin("young", 4.5),
            pin("edited", -20, "new words", event_timestamp=at(8)),
            pin("wordless", -20, title=" "),
        ],
        "search_log": [*visit("hat", "edited", "u1", 1, "click"), *visit("hat", "a", "u2", 1, "click")],
    }


LABELS = """query,pin_id,level,event_timestamp,note
 Red  HAT,a,5,2026-03-04T02:00:00+02:00,the third of March and midnight in UTC
red hat,a,5,2026-03-04T00:00:00Z,the same label
red hat,a,4,2026-03-04T00:00:00Z,another opinion
hat,gone,3,2026-03-03,on the day it was deleted
hat,gone,3,2026-03-04,after it
hat,young,3,2026-03-05T13:00:00,on the day it was born
hat,young,3,2026-03-06T13:00:00,later
hat,edited,2,2026-03-05,before the edit
hat,nobody,1,2026-03-05,no such pin
hat,wordless,1,2026-03-05,no text
hat,a,2,2026-01-05,before anything
hat,a,7,2026-03-05,no level
hat,a,2,2099-03-05,in the future
,a,2,2026-03-05,no query
hat,a,2,yesterday,no time
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(sidecar, rows, encoder) of labels from a CSV file, with vectors."""
    paths = init_repository(tmp_path_factory.mktemp("labels") / "shop")
    put(paths, **strange())
    file = tmp_path_factory.mktemp("in") / "labels.csv"
    file.write_text(LABELS)
    out, encoder = file.with_name("train.parquet"), CountingEncoder()
    labels = from_file(file)
    note = build_training_set(paths, labels, out, TrainingSetOptions(DEFAULT_TEMPLATE, encoder=encoder))
    return note, pq.read_table(out).to_pylist(), encoder


def test_labels_of_strange_pins_are_masked_with_their_reason(judged):
    note, rows, _ = judged
    masked = {(row["pin_id"], row["label_time"]): row["masked"] for row in rows}
    assert masked == {
        ("a", at(3)): None,
        ("gone", at(2)): None,  # the snapshot before it is of the day when the pin was there
        ("gone", at(3)): "pin_deleted",
        ("young", at(4) + timedelta(hours=13)): "pin_unborn",
        ("young", at(5) + timedelta(hours=13)): None,
        ("edited", at(4)): "text_unknown",
        ("nobody", at(4)): "pin_unknown",
        ("wordless", at(4)): None,
        ("a", datetime(2026, 1, 5, tzinfo=UTC)): "before_data",
    }
    assert sum(note["masked"].values()) == 5
    for row in rows:
        if row["masked"]:
            assert row["pin_text"] is None and row["pin_relevance__tokens"] is None and row["pin_text__title"] is None
    edited = next(row for row in rows if row["pin_id"] == "edited")
    assert edited["pin_engagement__clicks"] == 1  # what people did with it is known
    early = next(row for row in rows if row["masked"] == "before_data")
    assert early["snapshot_time"] is None
    assert {value for name, value in early.items() if "__" in name} == {None}


def test_rows_that_are_no_label_are_counted(judged):
    note, rows, _ = judged
    assert note["rows"] == len(rows) == 10
    assert {reason.split(":")[0]: count for reason, count in note["left_out"].items()} == {
        "repeated": 1,
        "level": 1,
        "query": 1,
        "event_timestamp": 1,
    } | {"event_timestamp": 1}
    assert sum(note["left_out"].values()) == 5


def test_the_pin_text_is_that_of_the_template_and_the_time(judged):
    row = next(row for row in judged[1] if row["pin_id"] == "a" and row["masked"] is None)
    rendered = DEFAULT_TEMPLATE.render(PinFields(title="red hat", link_title=row["pin_link_text__link_title"]))
    assert (row["query"], row["pin_text"], row["pin_text_fingerprint"]) == (
        "red hat",
        rendered.text,
        rendered.fingerprint,
    )


def test_each_distinct_text_is_encoded_once(judged):
    note, rows, encoder = judged
    texts = {row["pin_text"] for row in rows} - {None}
    wanted = texts | {row["query"] for row in rows}
    assert sorted(encoder.texts) == sorted(wanted)
    assert note["vectors"]["encoder_calls"] == len(encoder.calls) == 2
    assert note["vectors"]["encoded_texts"] == len(wanted)
    known = dict(zip(encoder.texts, CountingEncoder().encode(encoder.texts).astype(np.float16), strict=True))
    for row in rows:
        np.testing.assert_array_equal(np.array(row["query_vector"], np.float16), known[row["query"]])
        if row["pin_text"] is None:
            assert row["pin_vector"] is None
        else:
            np.testing.assert_array_equal(np.array(row["pin_vector"], np.float16), known[row["pin_text"]])


# Labels of the log ----------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path):
    return init_repository(tmp_path / "repo")


def test_a_label_from_the_log_has_the_time_of_its_request(plain):
    log = [
        event("hat", "a", "u", at(1), request="r"),
        event("HAT", "b", "u", at(1, 5), request="r"),
        event("hat", "b", "u", at(1.5), "long_click", request="r"),
        event("hat", "b", "u", at(1.6), "save", request="r"),
        event("hat", "b", "other", at(1.7), request="r"),
        event("mail me at jane.roe@example.com", "b", "u", at(2)),
    ]
    put(plain, pins=[pin("a"), pin("b")], search_log=log)
    clicks = from_log(plain, "click")
    found = [(row["pin_id"], row["label"], row["label_time"]) for row in clicks.table.to_pylist()]
    assert found == [("a", 0.0, at(1)), ("b", 1.0, at(1)), ("b", 0.0, at(1.7))]
    assert list(clicks.left_out.values()) == [1]
    assert [row["label"] for row in from_log(plain, "save").table.to_pylist()] == [0.0, 1.0, 0.0]
    with pytest.raises(UsageError, match="allowed are click, save"):
        from_log(plain, "impression")


def test_a_user_day_of_a_machine_gives_no_labels(plain):
    (plain.root / "screening.yaml").write_text("limits:\n  max_visits_a_day: 3\n")
    log = [event("hat", f"p{number}", "bot", at(1, number)) for number in range(4)]
    put(plain, pins=[pin("a")], search_log=[*log, event("hat", "a", "u", at(1))])
    labels = from_log(plain, "click")
    assert len(labels.table) == 1
    assert labels.left_out["user_id: more visits in a day than a person makes"] == 4
    late = from_log(plain, "click", since=at(1, 2))  # the whole of a day counts, wherever the labels begin
    assert len(late.table) == 0
    assert late.left_out["user_id: more visits in a day than a person makes"] == 2


def test_of_a_window_only_its_queries_are_looked_at(plain, monkeypatch):
    looked = []

    def counting(text):
        looked.append(text)
        return canonical_query(text)

    monkeypatch.setattr(log_queries, "canonical_query", counting)
    monkeypatch.setattr(log_queries, "_TEXTS", 2)
    log = [row for number in range(9) for row in visit(f"hat {number}", "a", "u", number, "click")]
    log += [event("call +1 212 555 0100", "a", "u", at(4.5)), event("call +1 212 555 0101", "a", "u", at(7))]
    log.append(event("hat 2", "b", "u", at(3.5), request=f"u/hat 2/{at(2)}"))  # of a request before the window
    put(plain, pins=[pin("a")], search_log=log)
    labels = from_log(plain, "click", since=at(3), until=at(6))
    assert [row["query"] for row in labels.table.to_pylist()] == ["hat 3", "hat 4", "hat 5"]
    assert set(looked) == {"hat 2", "hat 3", "hat 4", "hat 5", "call +1 212 555 0100"}
    assert labels.left_out == {"label_time: outside --since and --until": 8, "query: phone number": 1}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    log=st.lists(
        st.builds(
            event,
            st.sampled_from(["hat", "HAT", "scarf", "call +1 212 555 0100"]),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["u", "v"]),
            st.integers(0, 7).map(lambda quarter: quarter / 4),
            st.sampled_from(["impression", "click"]),
            st.sampled_from(["r", "s", "t"]),
        ),
        min_size=8,
        max_size=16,
    ),
    window=st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted),
)
def test_the_labels_of_a_window_are_those_of_the_whole_log_in_it(plain, log, window):
    (plain.root / "screening.yaml").write_text("limits:\n  max_visits_a_day: 2\n")
    put(plain, pins=[pin("a")], search_log=log)
    since, until = (at(quarter / 4) for quarter in window)
    found = from_log(plain, "click", since, until)
    assert found.table.equals(from_log(plain, "click").between(since, until).table)


def test_judgments_are_labels_with_their_own_time(plain):
    rows = [
        {"query": "Hat", "pin_id": "a", "level": level, "annotator": name, "event_timestamp": at(day)}
        for level, name, day in ((5, "x", 1), (5, "y", 1), (4, "z", 1), (5, "x", 2))
    ]
    put(plain, pins=[pin("a")], judgments=rows)
    labels = judgments(plain)
    assert [(row["query"], row["level"], row["label_time"]) for row in labels.table.to_pylist()] == [
        ("hat", 4, at(1)),
        ("hat", 5, at(1)),
        ("hat", 5, at(2)),
    ]
    assert sum(labels.left_out.values()) == 1
    within = labels.between(at(1), at(2))
    assert [row["level"] for row in within.table.to_pylist()] == [4, 5]
    assert within.left_out["label_time: outside --since and --until"] == 1
    assert snapshot_time(micros(at(2)), DAY) == micros(at(1))


def test_labels_with_tabs_and_ids_that_look_like_numbers(tmp_path):
    file = tmp_path / "labels.tsv"
    file.write_text("query\tpin_id\tlevel\tevent_timestamp\nhat\t007\t5\t2026-03-04\nhat, red\t7\t4\t2026-03-04\n")
    rows = from_file(file).table.to_pylist()
    assert {(row["query"], row["pin_id"]): row["level"] for row in rows} == {("hat", "007"): 5, ("hat, red", "7"): 4}
