"""Contracts of the raw tables: what is accepted, what is rejected with which reason, what stops the run."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.contracts import ACTIONS, CONTRACTS
from feature_repo.errors import ContractError
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
THEN = datetime(2025, 6, 1, 8, 30, tzinfo=UTC)


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


def put(paths, table, columns, name="a"):
    folder = paths.raw / table
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def pins(count, **columns):
    return {"pin_id": [f"p{i}" for i in range(count)], "event_timestamp": [THEN] * count, **columns}


def good_pins(paths):
    put(paths, "pins", pins(1))


def valid(paths, table="pins"):
    return [row for file in paths.valid_files(table) for row in pq.read_table(file).to_pylist()]


def rejected(paths, table="pins"):
    return [row for file in paths.rejected_files(table) for row in pq.read_table(file).to_pylist()]


def bytes_as_text(values):
    """A string column whose bytes nobody checked, as a careless writer makes it."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_optional_columns_and_tables_may_be_absent(paths):
    put(paths, "pins", pins(2, title=["a", None]))
    report = validate(paths, NOW)
    assert report.total_rejected == 0
    counts = {"files": 1, "read": 1, "rows": 2, "accepted": 2, "erased": 0, "rejected": {}}
    assert report.tables["pins"].to_json() == counts
    assert valid(paths)[0] == dict.fromkeys(CONTRACTS["pins"].names) | {
        "pin_id": "p0",
        "title": "a",
        "event_timestamp": THEN,
    }
    for table, contract in CONTRACTS.items():
        (accepted,), (refused,) = paths.valid_files(table), paths.rejected_files(table)
        stored = pq.read_table(accepted)
        assert tuple(stored.column_names) == contract.names
        assert len(stored) == (2 if table == "pins" else 0)
        assert pq.read_schema(refused).names[-3:] == ["reason", "source_file", "row"]


def test_no_pins_says_where_and_how(paths):
    with pytest.raises(ContractError) as error:
        validate(paths, NOW)
    for part in (str(paths.raw / "pins"), "pinfeather generate", "pinfeather import", "copy Parquet files"):
        assert part in str(error.value)


def test_one_file_or_a_folder_of_files_but_not_both(paths):
    paths.raw.mkdir(parents=True)
    pq.write_table(pa.table(pins(1)), paths.raw / "pins.parquet")
    assert validate(paths, NOW).tables["pins"].accepted == 1
    put(paths, "pins", pins(1))
    with pytest.raises(ContractError, match="twice"):
        validate(paths, NOW)
    (paths.raw / "pins.parquet").unlink()
    put(paths, "pins", {"pin_id": ["other"], "event_timestamp": [THEN]}, name="b")
    assert [row["pin_id"] for row in valid_after(paths)] == ["p0", "other"]


def valid_after(paths):
    validate(paths, NOW)
    return valid(paths)


def test_missing_column_stops_the_run(paths):
    path = put(paths, "pins", {"id": ["p"], "event_timestamp": [THEN]})
    with pytest.raises(ContractError) as error:
        validate(paths, NOW)
    for part in (str(path), "lacks the column pin_id", "found id, event_timestamp", "expected pin_id (id, as string)"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("title", [["a list"]]),
        ("pin_id", [THEN]),
        ("event_timestamp", [1_700_000_000]),
        ("deleted_at", [True]),
        ("title", [{"en": "a"}]),
    ],
)
def test_a_type_nobody_can_understand_stops_the_run(paths, column, values):
    path = put(paths, "pins", pins(1) | {column: values})
    with pytest.raises(ContractError) as error:
        validate(paths, NOW)
    assert str(path) in str(error.value)
    assert f"column {column} has type" in str(error.value)
    assert "expected" in str(error.value)


@pytest.mark.parametrize("damage", ["text", "cut", "empty", "flipped"])
def test_an_unreadable_file_stops_the_run_and_older_results_stay(paths, damage):
    good_pins(paths)
    rng = np.random.default_rng(0)
    names = [bytes(row).hex() for row in rng.integers(0, 255, (20_000, 16), dtype=np.uint8)]
    log = {
        "request_id": names,
        "query": names,
        "user_id": names,
        "pin_id": ["p0"] * len(names),
        "action": ["click"] * len(names),
        "event_timestamp": [THEN] * len(names),
    }
    path = put(paths, "search_log", log)
    validate(paths, NOW)
    before = {file.name: file.read_bytes() for file in paths.valid.rglob("*") if file.is_file()}
    put(paths, "pins", pins(5))
    data = path.read_bytes()
    wrong = {"text": b"query,pin\n", "cut": data[: len(data) // 2], "empty": b""}
    wrong["flipped"] = data[:2000] + b"\xff" * 4000 + data[6000:]
    path.write_bytes(wrong[damage])
    with pytest.raises(ContractError) as error:
        validate(paths, NOW)
    assert str(path) in str(error.value)
    assert "columns request_id, query" in str(error.value)
    assert {
        file.name: file.read_bytes() for file in paths.valid.rglob("*") if file.is_file()
    } == before  # and no partial file beside


def test_whole_number_ids_and_every_kind_of_timestamp_are_cast(paths):
    put(paths, "pins", {"pin_id": [7, 8], "event_timestamp": pa.array([THEN] * 2, pa.timestamp("ns"))})
    put(paths, "pins", {"pin_id": [9.0, 9.5], "event_timestamp": pa.array([THEN] * 2, pa.timestamp("ms", "UTC"))}, "b")
    zone = pa.array([THEN], pa.timestamp("us", "America/New_York"))
    put(paths, "pins", {"pin_id": pa.array(["x"]).dictionary_encode(), "event_timestamp": zone}, "c")
    huge = pa.array([2**64 - 1], pa.uint64())
    put(paths, "pins", {"pin_id": huge, "event_timestamp": ["2025-06-01T10:30:00+02:00"]}, "d")
    views = pa.array(["v", ""], pa.string_view())
    put(paths, "pins", {"pin_id": views, "event_timestamp": pa.array([THEN] * 2, pa.timestamp("us", "Mars/Base"))}, "e")
    report = validate(paths, NOW)
    assert {row["pin_id"] for row in valid(paths)} == {"7", "8", "9", "x", str(2**64 - 1), "v"}
    assert {row["event_timestamp"] for row in valid(paths)} == {THEN}
    assert list(report.tables["pins"].rejected) == [
        "pin_id: not a whole number; correct the value",
        "pin_id: empty; give a value or drop the row",
    ]


def test_timestamps_as_text_fail_one_by_one(paths):
    times = ["2025-06-01 08:30:00", "2025-06-01T08:30:00Z", "yesterday", "2025-13-01", "", None, "2025-06-01"]
    put(paths, "pins", pins(7, event_timestamp=times))
    validate(paths, NOW)
    midnight = datetime(2025, 6, 1, tzinfo=UTC)
    assert [row["event_timestamp"] for row in valid(paths)] == [THEN, THEN, midnight]
    assert [(row["pin_id"], row["event_timestamp"], row["reason"].split(";")[0]) for row in rejected(paths)] == [
        ("p2", "yesterday", "event_timestamp: not a timestamp"),
        ("p3", "2025-13-01", "event_timestamp: not a timestamp"),
        ("p4", "", "event_timestamp: null"),
        ("p5", None, "event_timestamp: null"),
    ]


def test_timestamps_out_of_the_world(paths):
    times = [NOW + timedelta(hours=23), NOW + timedelta(days=2), datetime(1970, 1, 20, tzinfo=UTC), THEN]
    put(paths, "pins", pins(4, event_timestamp=times))
    far = pa.array([2**62, 1_748_766_600_000], pa.timestamp("ms"))  # past what microseconds can hold, and right
    put(paths, "pins", {"pin_id": ["far", "right"], "event_timestamp": far}, "b")
    validate(paths, NOW)
    assert [row["pin_id"] for row in valid(paths)] == ["p0", "p3", "right"]
    assert [(row["pin_id"], row["reason"]) for row in rejected(paths)] == [
        ("p1", "event_timestamp: in the future; correct the clock or the unit"),
        ("p2", "event_timestamp: before 1990; correct the unit"),
        ("far", "event_timestamp: in the future; correct the clock or the unit"),
    ]


def test_duplicate_pins_keep_the_latest(paths):
    times = [THEN, THEN + timedelta(hours=1), THEN, THEN]
    put(paths, "pins", {"pin_id": ["a", "a", "b", "b"], "title": ["old", "new", "x", "y"], "event_timestamp": times})
    put(paths, "pins", {"pin_id": ["a", "c"], "title": ["older", "z"], "event_timestamp": [THEN, THEN]}, "b")
    report = validate(paths, NOW)
    assert [(row["pin_id"], row["title"]) for row in valid(paths)] == [("a", "new"), ("b", "y"), ("c", "z")]
    lost = [(row["title"], row["source_file"], row["row"]) for row in rejected(paths)]
    assert lost == [("old", "pins/a.parquet", 0), ("x", "pins/a.parquet", 2), ("older", "pins/b.parquet", 0)]
    (reason,) = report.tables["pins"].rejected
    assert reason.startswith("pin_id: duplicate")


def test_a_rejected_copy_displaces_nothing(paths):
    late = NOW + timedelta(days=30)
    put(paths, "pins", {"pin_id": ["a", "a"], "title": ["kept", "future"], "event_timestamp": [THEN, late]})
    validate(paths, NOW)
    assert [row["title"] for row in valid(paths)] == ["kept"]


def test_ids_without_a_usable_value(paths):
    ids = ["ok", "", None, "  ", "a\x00b", "tab\there", "c1\x85", "é\u00a0", "x" * 256, "x" * 257]
    put(paths, "pins", pins(10, pin_id=ids))
    put(paths, "pins", pins(1, pin_id=["only c1\x9f"]), "b")
    validate(paths, NOW)
    assert [row["pin_id"] for row in valid(paths)] == ["ok", "é\u00a0", "x" * 256]
    reasons = [row["reason"] for row in rejected(paths)]
    assert [reason.split(";")[0] for reason in reasons] == [
        "pin_id: empty",
        "pin_id: null",
        "pin_id: empty",
        "pin_id: NUL or another control character",
        "pin_id: NUL or another control character",
        "pin_id: NUL or another control character",
        "pin_id: longer than 256 characters",
        "pin_id: NUL or another control character",
    ]
    assert rejected(paths)[3]["pin_id"] == "a\\x00b"  # readable


def test_texts_of_all_scripts_pass_untouched(paths):
    texts = ["مرحبا بالعالم", "👩‍🍳 crème brûlée", "a\x00b", "\u202eevil\u202c", "", None, "e\u0301", "字" * 20_000]
    put(paths, "pins", pins(8, title=texts, description=[None] * 8))
    assert validate(paths, NOW).total_rejected == 0
    assert [row["title"] for row in valid(paths)] == texts


def test_a_megabyte_of_title_is_rejected_and_kept(paths):
    put(paths, "pins", pins(3, title=["ok", "x" * 2**20, "字" * 20_001]))
    report = validate(paths, NOW)
    assert report.tables["pins"].rejected == {"title: longer than 20,000 characters; shorten it": 2}
    assert rejected(paths)[0]["title"] == "x" * 2**20
    assert rejected(paths)[0]["row"] == 1


def test_lone_surrogates_and_other_broken_bytes(paths):
    titles = bytes_as_text([b"fine", b"a\xed\xa0\x80b", None, b"\xff\xfe", "é".encode()])
    put(paths, "pins", pins(5, title=titles))
    put(paths, "pins", {"pin_id": bytes_as_text([b"\xed\xbf\xbf"]), "event_timestamp": [THEN]}, "b")
    raw = pa.array([b"as bytes", b"\xc3"], pa.large_binary())
    put(paths, "pins", {"pin_id": ["q0", "q1"], "title": raw, "event_timestamp": [THEN] * 2}, "c")
    report = validate(paths, NOW)
    assert [row["title"] for row in valid(paths)] == ["fine", None, "é", "as bytes"]
    assert [(row["pin_id"], row["title"]) for row in rejected(paths)] == [
        ("p1", "a\\xed\\xa0\\x80b"),
        ("p3", "\\xff\\xfe"),
        ("\\xed\\xbf\\xbf", None),
        ("q1", "\\xc3"),
    ]
    assert all("UTF-8" in reason for reason in report.tables["pins"].rejected)


def test_judgments_and_products(paths):
    good_pins(paths)
    levels = [1, 5, 0, 6, None, 3]
    queries = ["q", "q", "q", "q", "q", " \u200b\x00"]
    columns = {"query": queries, "pin_id": ["p0"] * 6, "level": levels, "event_timestamp": [THEN] * 6}
    put(paths, "judgments", columns)
    put(paths, "judgments", columns | {"level": [2.0, 2.5, float("nan"), 4, 4, 4]}, "b")
    put(paths, "judgments", columns | {"level": ["+2", "two", "4 ", "", "4", "4"]}, "c")
    images = [["a", "b"], None, []]
    put(paths, "products", pins(3, price=[1.5, -1.0, None], image_uris=images))
    broken = pa.ListArray.from_arrays([0, 1, 1, 2], bytes_as_text([b"\xff", b"ok"]))
    put(paths, "products", pins(3, pin_id=["x", "y", "z"], image_uris=broken), "b")
    report = validate(paths, NOW)
    assert [row["level"] for row in valid(paths, "judgments")] == [1, 5, 2, 4, 4, 2, 4, 4]
    assert report.tables["judgments"].rejected == {
        "query: empty; give a value or drop the row": 3,
        "level: null; give a value or drop the row": 3,
        "level: outside 1 to 5; correct the value": 2,
        "level: not a whole number; correct the value": 2,
    }
    stored = [(row["pin_id"], row["image_uris"]) for row in valid(paths, "products")]
    assert stored == [("p0", ["a", "b"]), ("p2", []), ("y", []), ("z", ["ok"])]
    assert [row["image_uris"] for row in rejected(paths, "products")] == [None, "['\\\\xff']"]


def test_numbers_where_text_belongs(paths):
    put(paths, "pins", pins(4, title=[1.5, 2.0, float("nan"), None], description=[1, 2, None, 3]))
    validate(paths, NOW)
    assert [row["title"] for row in valid(paths)] == ["1.5", "2", None, None]
    assert [row["description"] for row in valid(paths)] == ["1", "2", None, "3"]


def test_secret_is_never_guessed(paths):
    good_pins(paths)
    saves = {"board_id": ["b"], "board_title": ["t"], "pin_id": ["p0"], "user_id": ["u"], "saved_at": [THEN]}
    put(paths, "board_saves", saves)
    put(
        paths,
        "board_saves",
        {name: values * 3 for name, values in saves.items()} | {"secret": [True, None, False]},
        "b",
    )
    put(paths, "board_saves", {name: values * 3 for name, values in saves.items()} | {"secret": ["Yes", "?", "0"]}, "c")
    report = validate(paths, NOW)
    assert [row["secret"] for row in valid(paths, "board_saves")] == [False, True, False, True, False]
    assert report.tables["board_saves"].rejected == {
        "secret: null; give a value or drop the row": 1,
        "secret: neither true nor false; correct the value": 1,
    }


def test_progress_and_many_batches(paths, monkeypatch):
    monkeypatch.setattr("feature_repo.raw_files.BATCH_ROWS", 7)
    ids = [f"p{i % 40}" for i in range(50)]
    titles = ["x" * (20_001 if i % 10 == 3 else 1) for i in range(50)]
    put(paths, "pins", pins(50, pin_id=ids, title=titles))
    seen = []
    report = validate(paths, NOW, progress=lambda table, rows: seen.append((table, rows)))
    assert seen[-1] == ("pins", 50)
    assert len(seen) == 8
    assert report.tables["pins"].accepted == len(valid(paths)) == 36
    assert sorted(row["row"] for row in rejected(paths)) == [*range(10), 13, 23, 33, 43]


texts = st.sampled_from(["word", "", " ", "é", "n\x00l", None, "x" * 20_001])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_number_written_as_text_is_finite(paths, kind):
    good_pins(paths)
    written = ["1e400", "-1e400", "inf", "nan", "1e308", " 2.5 ", "", None]
    log = {name: ["x"] * len(written) for name in ("request_id", "query", "user_id", "pin_id")} | {
        "action": ["click"] * len(written),
        "event_timestamp": [THEN] * len(written),
    }
    put(paths, "search_log", log | {"dwell_s": pa.array(written, kind)})
    validate(paths, NOW)
    assert [row["dwell_s"] for row in valid(paths, "search_log")] == [1e308, 2.5, None, None]
    reasons = [row["reason"] for row in rejected(paths, "search_log")]
    assert reasons == ["dwell_s: infinite; correct the value"] * 2 + ["dwell_s: not a number; correct the value"] * 2


ids = st.sampled_from(["a", "b1", "", None, "\x07", "x" * 257])
log_row = st.fixed_dictionaries(
    {
        "request_id": ids,
        "query": texts,
        "lang": texts,
        "user_id": ids,
        "pin_id": ids,
        "position": st.sampled_from([0, 3, -1, None]),
        "action": st.sampled_from([*ACTIONS, "Click", "", None]),
        "dwell_s": st.sampled_from([0.0, 3.5, -0.1, None, float("nan"), float("inf")]),
        "event_timestamp": st.sampled_from([THEN, NOW + timedelta(days=9), datetime(1980, 1, 1, tzinfo=UTC), None]),
    }
)


def fits(row):
    """The contract of the search log, row by row in plain Python."""
    return (
        all(
            row[name] and row[name].isprintable() and len(row[name]) <= 256
            for name in ("request_id", "user_id", "pin_id")
        )
        and (row["query"] or "").strip() != ""
        and all(len(row[name] or "") <= 20_000 for name in ("query", "lang"))
        and (row["position"] is None or row["position"] >= 0)
        and row["action"] in ACTIONS
        and (row["dwell_s"] is None or not (row["dwell_s"] < 0 or row["dwell_s"] == float("inf")))
        and row["event_timestamp"] == THEN
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(log_row, max_size=12))
def test_rows_are_split_as_a_plain_reading_of_the_contract_would(paths, rows):
    good_pins(paths)
    types = {"position": pa.int32(), "dwell_s": pa.float64(), "event_timestamp": pa.timestamp("us", "UTC")}
    names = [name for name in CONTRACTS["search_log"].names if name != "country"]
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    folder = paths.raw / "search_log"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "a.parquet")
    report = validate(paths, NOW).tables["search_log"]
    assert [row["row"] for row in rejected(paths, "search_log")] == [i for i, row in enumerate(rows) if not fits(row)]
    assert report.accepted == len(valid(paths, "search_log")) == sum(map(fits, rows))
    assert report.rows == len(rows) == report.accepted + report.total_rejected


def test_topics_of_pins_weigh_one_unless_they_say_so(paths):
    good_pins(paths)
    rows = {"pin_id": ["p0"] * 3, "topic": ["hats", "", "shoes"], "event_timestamp": [THEN] * 3}
    put(paths, "pin_topics", rows)
    put(paths, "pin_topics", rows | {"topic": ["a", "b", "c"], "weight": [0.5, -1, None]}, "b")
    report = validate(paths, NOW).tables["pin_topics"]
    found = [(row["topic"], row["weight"]) for row in valid(paths, "pin_topics")]
    assert found == [("hats", 1.0), ("shoes", 1.0), ("a", 0.5)]
    assert report.rejected == {
        "topic: empty; give a value or drop the row": 1,
        "weight: outside 0 or more; correct the value": 1,
        "weight: null; give a value or drop the row": 1,
    }
