"""Which row of a key counts, keys of other types and of several columns, and files that do not fit."""

import os
import subprocess
import sys
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scan_world import NOW, World, make_small
from test_scan import catalogue

from feature_repo.errors import PinfeatherError
from materialize import passes
from materialize.definitions import ViewDefinition
from materialize.scan import connect, view_source


@pytest.fixture
def small(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_the_latest_row_of_a_key_wins_whatever_the_order(world, small):
    later, latest = NOW + timedelta(seconds=1), NOW + timedelta(seconds=2)
    rows = [
        {"pin_id": f"p{n}", "title": title, "event_timestamp": event, "created_timestamp": created}
        for n in range(5)
        for title, event, created in [
            ("old", NOW, latest),
            ("no", later, NOW),
            ("yes", later, later),
            ("null", later, None),
        ]
    ]
    world.save("pin_text", rows)
    found, _ = world.rows("pin_text", write=True)
    assert {row["title"] for row in found.values()} == {"yes"}
    assert {row["event_timestamp"] for row in found.values()} == {later}
    world.save("pin_text", rows[::-1], files=3)
    assert world.rows("pin_text") == ({}, [])


def test_among_equal_times_the_same_row_wins_in_any_order(world):
    rows = [{"pin_id": "a", "title": title} for title in ("one", "two", "three")]
    world.save("pin_text", rows)
    world.rows("pin_text", write=True)
    world.save("pin_text", rows[::-1], files=2)
    assert world.rows("pin_text") == ({}, [])


def test_a_key_with_many_rows_is_read_in_pieces(world, monkeypatch):
    monkeypatch.setattr(passes, "BUCKET_ROWS", 1)
    monkeypatch.setattr(passes, "_STREAM_ROWS", 2)
    rows = [{"pin_id": "a", "title": f"{n}", "event_timestamp": NOW + timedelta(seconds=n % 50)} for n in range(100)]
    world.save("pin_text", rows)
    found, _ = world.rows("pin_text", write=True)
    assert found["a"]["title"] in ("49", "99")
    assert world.rows("pin_text") == ({}, [])


def test_rows_without_key_or_time_are_no_rows(world):
    world.save("pin_text", [{"pin_id": None, "title": "a"}, {"pin_id": "b", "event_timestamp": None}, {"pin_id": "c"}])
    assert list(world.rows("pin_text")[0]) == ["c"]
    world.save("pin_captions", []).save("pin_board_titles", []).save("pin_link_text", [])
    assert set(world.scan()[0]) == {"c"}


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.date32()])
def test_join_keys_of_other_types_are_json(tmp_path, kind, small):
    world = World(tmp_path, {"counts": {"title": "string"}}, keys=("number",), key_type=kind)
    world.save("counts", [{"number": n, "title": f"{n}"} for n in range(10)])
    found, _ = world.rows("counts", write=True)
    assert len(found) == 10
    if kind != pa.date32():
        assert "[7]" in found
        with connect() as con:
            assert view_source(con, world.views["counts"]).entity("[7]") == {"number": 7}
    world.save("counts", [{"number": n, "title": f"{n + n // 9}"} for n in range(1, 10)], files=2)
    changed_rows, gone = world.rows("counts")
    assert (len(changed_rows), len(gone)) == (1, 1)


def test_composite_keys(tmp_path, small):
    world = World(tmp_path, {"pairs": {"title": "string"}}, keys=("query", "pin_id"))
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ('"', ","), ("é", "\u2028")]
    world.save("pairs", [{"query": query, "pin_id": pin, "title": "x"} for query, pin in pairs])
    found, _ = world.rows("pairs", write=True)
    assert '["a","bc"]' in found
    assert len(found) == 5
    assert world.rows("pairs") == ({}, [])
    world.save("pairs", [{"query": query, "pin_id": pin, "title": "x"} for query, pin in pairs[1:]])
    assert world.rows("pairs", held=frozenset(["bc"])) == ({}, ['["a","bc"]'])


def test_files_with_other_columns_are_an_error(world):
    world.pins(catalogue(4))
    pq.write_table(pa.table({"pin_id": ["x"], "other": ["y"]}), world.folder / "pin_captions" / "9.parquet")
    with pytest.raises(PinfeatherError, match=r"source cannot be read.*9\.parquet"):
        world.scan()


def test_a_view_that_lacks_a_column_says_which(world):
    world.pins(catalogue(4))
    pq.write_table(pa.table({"pin_id": ["x"]}), world.folder / "pin_captions" / "0.parquet")
    with pytest.raises(PinfeatherError, match=r"pin_captions .*no column 'caption'.*'pin_id'"):
        world.scan()


def test_views_and_features_that_the_text_needs(world):
    world.pins(catalogue(4))
    kept = world.views.pop("pin_captions")
    with pytest.raises(PinfeatherError, match="no feature view 'pin_captions'"):
        world.scan()
    world.views["pin_captions"] = ViewDefinition(**{**kept.__dict__, "features": {"captioner": "string"}})
    with pytest.raises(PinfeatherError, match="pin_captions has no feature 'caption'"):
        world.scan()


def test_the_folder_of_a_killed_scan_goes_with_the_next(tmp_path):
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom materialize.scan import connect\n"
        "with connect(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, env=os.environ)
    (left,) = tmp_path.iterdir()
    with connect(tmp_path):
        (mine,) = tmp_path.iterdir()
        assert mine != left
        with connect(tmp_path):
            assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())
