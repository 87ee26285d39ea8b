"""What becomes of single values and rows of the raw tables: cast, refused one by one, the latest kept."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from raw_tables import NOW, THEN, good_pins, pins, put, rejected, valid

from feature_repo.paths import RepoPaths
from feature_repo.validation import validate


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


def bytes_as_text(values):
    """A string column whose bytes nobody checked, as a careless writer makes it."""
    return pa.array(values, pa.binary()).view(pa.string())


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
