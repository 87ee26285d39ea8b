"""Training sets: nothing of a row is later than its label, and what a naive join would have told."""

import json
from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from past_tables import DAY, at, caption, micros, pin, put, save, visit

from feature_repo.aggregates import aggregate
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history import FeatureHistory, HistoryOptions, history_lock, take_snapshots
from feature_repo.history.features import EmbeddingLog
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import DEFAULT_TEMPLATE
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


# Labels of the log ----------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path):
    return init_repository(tmp_path / "repo")


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
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_out(tmp_path / "folder.parquet")
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
