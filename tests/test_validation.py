"""Contracts of the raw tables: what is accepted, what is rejected with which reason, what stops the run."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_tables import NOW, THEN, good_pins, pins, put, rejected, valid
from test_validation_rows import bytes_as_text

from feature_repo.contracts import ACTIONS, CONTRACTS
from feature_repo.errors import ContractError
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


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
