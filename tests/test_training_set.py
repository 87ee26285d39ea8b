"""Training sets: nothing of a row is later than its label, and what a naive join would have told."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CountingEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from past_tables import DAY, at, caption, event, micros, pin, put, save, visit

from feature_repo.aggregates import aggregate
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history import FeatureHistory, HistoryOptions, history_lock, snapshot_time, take_snapshots
from feature_repo.history.features import EmbeddingLog
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields
from feature_repo.text import canonical_query
from pinfeather import log_queries
from pinfeather.init import init_repository
from pinfeather.label_sources import from_file, from_log, judgments
from pinfeather.training_set import (
    TrainingSetOptions,
    build_training_set,
    check_out,
    embedding_logs,
    sidecar,
)

OPTIONS = TrainingSetOptions(DEFAULT_TEMPLATE)
PAIRS = 40


def shop():
    """Forty pins, each shown twice for one query on different days and clicked by the toss of a coin."""
    random = np.random.default_rng(7)
    log = []
    for round_ in range(2):
        for number in random.permutation(PAIRS).tolist():
            moment = at(
                1 + 2 * round_ + (1 + round_) * float(random.random())
            )  # the second, or the fourth and fifth day
            actions = ("click",) if random.random() < 0.5 else ()
            log += visit("Hat ", f"p{number}", f"u{len(log)}", moment, *actions)
    # Labels and events of one microsecond, at the very time of a snapshot and right after it.
    for user, moment in (("x1", at(3)), ("x2", at(3)), ("x3", at(3, 1)), ("x4", at(2.5)), ("x5", at(2.5))):
        log += visit("hat", "p0", user, moment, "click")
    pins = [pin(f"p{number}", -20, f"hat number {number}", image_sha256=f"i{number}") for number in range(PAIRS)]
    saves = [save("p1", "winter hats", f"s{number}", -5 + number) for number in range(8)]
    captions = [caption("i1", "a hat on a chair", 2.5)]
    return {"pins": pins, "board_saves": saves, "search_log": log, "captions": captions}


@pytest.fixture(scope="module")
def sold(tmp_path_factory):
    """(paths, tables, sidecar, rows, file) of a shop's clicks."""
    paths = init_repository(tmp_path_factory.mktemp("history") / "shop")
    tables = shop()
    put(paths, **tables)
    out = tmp_path_factory.mktemp("out") / "clicks.parquet"
    note = build_training_set(paths, from_log(paths, "click"), out, OPTIONS)
    return paths, tables, note, pq.read_table(out).to_pylist(), out


# Leaks ----------------------------------------------------------------------------------------------------------------


def test_every_count_is_of_events_up_to_a_time_strictly_before_the_label(sold):
    _, tables, note, rows, _ = sold
    log = tables["search_log"]
    assert note["rows"] == len(rows) == 2 * PAIRS + 5
    for row in rows:
        label, snapshot = row["label_time"], row["snapshot_time"]
        assert snapshot < label <= snapshot + timedelta(days=1)
        before = [one for one in log if one["pin_id"] == row["pin_id"] and one["event_timestamp"] <= snapshot]
        actions = Counter(one["action"] for one in before)
        assert (row["query_pin_engagement__clicks"] or 0) == actions["click"]
        assert (row["query_pin_engagement__impressions"] or 0) == actions["impression"]
        assert row["query_pin_engagement__found"] == row["pin_engagement__found"] == bool(before)
        boards = [one for one in tables["board_saves"] if one["pin_id"] == row["pin_id"]]
        crowd = {one["user_id"] for one in boards if one["saved_at"] <= snapshot}
        assert row["pin_board_titles__board_titles"] == (["winter hats"] if len(crowd) > 1 else None)
        captioned = row["pin_id"] == "p1" and snapshot >= at(2.5)
        assert row["pin_captions__caption"] == ("a hat on a chair" if captioned else None)


def test_an_event_of_the_labels_own_microsecond_is_in_no_feature(sold):
    rows = {(row["pin_id"], row["label_time"]): row for row in sold[3]}
    other = {at(2): 0, at(3): 2}  # clicks of x4 and x5; x1 and x2 lie on the third midnight
    shown = [one for one in sold[1]["search_log"] if one["pin_id"] == "p0" and one["action"] == "click"]
    for moment, snapshot in ((at(2.5), at(2)), (at(3), at(2)), (at(3, 1), at(3))):
        row = rows["p0", moment]
        assert row["snapshot_time"] == snapshot
        early = sum(one["event_timestamp"] < at(2) for one in shown)
        assert (row["pin_engagement__clicks"] or 0) == early + other[snapshot]


def test_a_naive_join_knows_the_answer_and_ours_does_not(sold, tmp_path):
    paths, _, _, rows, _ = sold
    aggregate(paths, folder=tmp_path)
    now = {row["pin_id"]: row for row in pq.read_table(tmp_path / "query_pin_engagement.parquet").to_pylist()}
    rows = [row for row in rows if row["pin_id"] != "p0"]
    truth = [row["label"] for row in rows]
    naive = [now[row["pin_id"]]["engagement_rate"] for row in rows]
    ours = [row["query_pin_engagement__engagement_rate"] or 0.05 for row in rows]
    assert area_under_curve(truth, naive) > 0.8
    assert area_under_curve(truth, ours) < 0.65


def area_under_curve(truth, scores):
    """How often a clicked one stands above one that was not; a tie is half a win."""
    clicked, others = (np.array([s for t, s in zip(truth, scores, strict=True) if t == label]) for label in (1, 0))
    difference = clicked[:, None] - others[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def test_later_events_change_nothing(sold, tmp_path):
    paths, tables, note, rows, _ = sold
    later = {
        "pins": [
            pin("new", 20),
            *tables["pins"][1:],
            tables["pins"][0] | {"title": "edited", "event_timestamp": at(21)},
        ],
        "board_saves": [*tables["board_saves"], save("p2", "gifts", "s1", 20), save("p2", "gifts", "s2", 20)],
        "search_log": [
            *tables["search_log"],
            *visit("hat", "p3", "v1", 20, "click"),
            *visit("hat", "p3", "v2", 20, "save"),
        ],
        "captions": [*tables["captions"], caption("i2", "another hat", 20)],
    }
    put(paths, **later)
    try:
        out = tmp_path / "again.parquet"
        labels = from_log(paths, "click", until=at(15))
        options = TrainingSetOptions(DEFAULT_TEMPLATE, batch_rows=50)  # and where batches end matters to no row
        again = build_training_set(paths, labels, out, options)
        assert pq.read_table(out).to_pylist() == rows
        assert (again["history"]["made"], again["history"]["reused"]) == (0, note["history"]["made"])
        assert again["lexical"] == note["lexical"]
        assert again["left_out"] == {"label_time: outside --since and --until": 2}
    finally:
        put(paths, **tables)


def test_the_lexical_snapshot_is_older_than_the_first_label(sold):
    paths, _, note, rows, _ = sold
    as_of = datetime.fromisoformat(note["lexical"]["as_of"])
    assert as_of < min(row["label_time"] for row in rows)
    folder = paths.data / "history" / f"{as_of:%Y%m%dT%H%M%SZ}"
    tokens = pq.read_table(folder / "pin_relevance.parquet")["tokens"].to_pylist()
    assert note["lexical"]["digest"] == LexicalStatistics.fit(tokens).digest
    assert LexicalStatistics.load(paths.lexical / f"{note['lexical']['digest']}.json").documents[-1] == PAIRS


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


# Other embeddings -----------------------------------------------------------------------------------------------------


def test_an_embedding_counts_from_when_it_was_written(plain, tmp_path):
    put(plain, pins=[pin("a")])
    with history_lock(plain):
        report = take_snapshots(plain, [micros(at(4))], HistoryOptions(DAY))
    log = tmp_path / "vector=7" / "graph.parquet"  # no partition
    log.parent.mkdir()
    rows = [
        {"pin_id": "a", "vector": [1.0], "event_timestamp": at(1), "created_timestamp": at(2)},
        {"pin_id": "a", "vector": [2.0], "event_timestamp": at(3), "created_timestamp": at(9)},
    ]
    pq.write_table(pa.Table.from_pylist(rows), log)
    graph = EmbeddingLog(
        "pin_graph_embedding",
        str(log),
        ("pin_id",),
        {"embedding": "float64_list"},
        "event_timestamp",
        "created_timestamp",
        {"vector": "embedding"},
    )
    labels = pa.table(
        {
            "row": [0, 1],
            "query": ["hat", "hat"],
            "pin_id": ["a", "b"],
            "label_time": pa.array([at(4.5), at(4.5)], pa.timestamp("us", tz="UTC")),
            "snapshot_time": pa.array([at(4), at(4)], pa.timestamp("us", tz="UTC")),
        }
    )
    joined = FeatureHistory(plain, report.folders, [graph]).join(labels)
    assert joined["pin_graph_embedding__embedding"].to_pylist() == [[1.0], None]
    assert joined["pin_graph_embedding__found"].to_pylist() == [True, False]
    assert joined["masked"].to_pylist() == [None, "pin_unknown"]


def test_the_registry_says_which_embeddings_there_are(repo):
    assert list(embedding_logs(repo)[0]) == ["pin_student_embedding"]
    cache = repo.data / "definitions.json"
    kept = json.loads(cache.read_text())
    student = kept["views"]["pin_student_embedding"]
    log = repo.data / "graph.parquet"
    for name, changes in {
        "pin_graph_embedding": {"source": str(log)},
        "pin_visual_embedding": {},
        "board_embedding": {"join_keys": ["board_id"]},
        "pin_search_embedding": {"source": str(log), "created_timestamp_column": ""},
    }.items():
        kept["views"][name] = student | {"name": name, "source": "/nowhere/*.parquet"} | changes
    cache.write_text(json.dumps(kept))
    pq.write_table(pa.table({"pin_id": ["a"]}), log)
    said, logs = embedding_logs(repo)
    assert [one.view for one in logs] == ["pin_graph_embedding"]
    assert "no file yet" in said["pin_visual_embedding"]
    assert "no board_id" in said["board_embedding"]
    assert "no created_timestamp_column" in said["pin_search_embedding"]


# The command and its errors -------------------------------------------------------------------------------------------


def test_the_command_writes_the_same_bytes_and_the_sidecar(sold, pinfeather, tmp_path):
    paths, _, note, _, file = sold
    out = tmp_path / "clicks.parquet"
    code, stdout, _ = pinfeather(
        "train", "examples", "--repo", paths.root, "--out", out, "--from-log", "click", "--json"
    )
    assert code == 0
    assert out.read_bytes() == file.read_bytes()
    said = json.loads(stdout)
    assert said == json.loads(sidecar(out).read_text())
    assert {**said, "made_at": "", "out": "", "history": ""} == {**note, "made_at": "", "out": "", "history": ""}
    assert said["history"]["made"] == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--labels", "x.csv", "--from-log", "click"], "give one of them"),
        (["--since", "soon"], "--since 'soon' is no time"),
        (["--template-from", "nowhere"], "There is no space 'nowhere'"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_computed(plain, pinfeather, tmp_path, words, error):
    code, _, stderr = pinfeather("train", "examples", "--repo", plain.root, "--out", tmp_path / "o.parquet", *words)
    assert code == 2
    assert error in " ".join(stderr.split())
    assert not (plain.data / "history").exists()


def test_wrong_files_are_refused(plain, tmp_path):
    for out, error in ((tmp_path / "o.csv", r"end in \.parquet"), (tmp_path / "no" / "o.parquet", "make it first")):
        with pytest.raises(UsageError, match=error):
            check_out(out)
    with pytest.raises(UsageError, match="overwritten"):
        check_out(tmp_path / "l.parquet", tmp_path / "l.parquet")
    with pytest.raises(PinfeatherError, match="no judgments"):
        judgments(plain)
    with pytest.raises(PinfeatherError, match="does not exist"):
        from_file(tmp_path / "none.csv")
    strange_file = tmp_path / "labels.parquet"
    pq.write_table(
        pa.table({"query": ["hat"], "pin_id": [["a"]], "label": [1], "event_timestamp": [at()]}), strange_file
    )
    with pytest.raises(PinfeatherError, match="pin_id has type list"):
        from_file(strange_file)
    pq.write_table(pa.table({"query": ["hat"], "pin_id": ["a"], "event_timestamp": [at()]}), strange_file)
    with pytest.raises(PinfeatherError, match="no column level or label"):
        from_file(strange_file)
    put(plain, pins=[pin("a")])
    empty = tmp_path / "empty.csv"
    empty.write_text("query,pin_id,label,event_timestamp\nhat,,1,2026-03-05\n")
    with pytest.raises(PinfeatherError, match=r"no label in empty\.csv"):
        build_training_set(plain, from_file(empty), tmp_path / "o.parquet", OPTIONS)


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
