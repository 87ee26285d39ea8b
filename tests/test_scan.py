"""The scan against a plain Python model: what changed, over many files, buckets, kinds of keys and sizes of spill."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE
from materialize import changed, sources, spill
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import DOUBTFUL_RAW, Ledger
from materialize.plan import Kind, open_pin_scan, pin_changes
from materialize.points import ledger_entries
from materialize.scan import WRITTEN, FeatureScan, connect, raw_engine, view_source
from materialize.spaces import Space

NOW = datetime(2026, 10, 1, tzinfo=UTC)
NONE = frozenset()
VIEWS = {
    "pin_text": {"title": "string", "description": "string", "lang": "string", "country": "string"},
    "pin_captions": {"caption": "string", "captioner": "string"},
    "pin_board_titles": {"board_titles": "string_list"},
    "pin_link_text": {"link_title": "string", "link_description": "string"},
}
SPACE = Space("space", 8, "packaged", "none", ("none",), DEFAULT_TEMPLATE.without("engaged_queries"), {})
_TYPES = {"string": pa.string(), "string_list": pa.list_(pa.string()), "int64": pa.int64()}


@pytest.fixture
def small(monkeypatch):
    """Buckets of a few rows, and a spill that writes everything to disk."""
    monkeypatch.setattr(sources, "BUCKET_ROWS", 3)
    monkeypatch.setattr(spill, "_HELD_BYTES", 1)
    monkeypatch.setattr(changed, "BATCH_ROWS", 5)
    monkeypatch.setattr(changed, "_WANTED_ROWS", 2)


class World:
    """View sources that a test edits, a ledger, and what a scan says of them."""

    def __init__(self, folder, views=VIEWS, keys=("pin_id",), key_type=None):
        self.folder, self.paths = folder, RepoPaths(folder / "repo")
        self.key_type = key_type or pa.string()
        self.views = {}
        for name, features in views.items():
            features = dict(features) | ({"created_at": "unix_timestamp"} if name == "pin_text" else {})
            columns = {column: column for column in (*keys, *features)}
            source = str(folder / name / "*.parquet")
            self.views[name] = ViewDefinition(
                name, keys, features, columns, source, "event_timestamp", "created_timestamp", None, True, {}
            )

    @property
    def definitions(self):
        return RepoDefinitions("test", self.views, {})

    def save(self, name, rows, files=1):
        """Write ``rows`` of a view, dealt out to ``files`` files."""
        view = self.views[name]
        kinds = {**_TYPES, "unix_timestamp": pa.timestamp("us", "UTC")}
        schema = pa.schema(
            [
                *((key, self.key_type) for key in view.join_keys),
                *((feature, kinds[kind]) for feature, kind in view.features.items()),
                ("event_timestamp", pa.timestamp("us", "UTC")),
                ("created_timestamp", pa.timestamp("us", "UTC")),
            ]
        )
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*"):
            path.unlink()
        rows = [{"event_timestamp": NOW, "created_timestamp": NOW, **row} for row in rows]
        for file in range(files):
            pq.write_table(pa.Table.from_pylist(rows[file::files], schema=schema), folder / f"{file}.parquet")
        return self

    def pins(self, pins, files=1):
        """Save all four views out of pin id to fields; a view whose fields are missing has no row."""
        for name, view in self.views.items():
            rows = [
                {"pin_id": pin, **{feature: fields.get(feature) for feature in view.features}}
                | {stamp: fields[stamp] for stamp in ("event_timestamp", "created_timestamp") if stamp in fields}
                for pin, fields in pins.items()
                if name == "pin_text" or any(feature in fields for feature in view.features)
            ]
            self.save(name, rows, files)
        return self

    def scan(self, write=False, held=NONE):
        """(kinds of the pins that differ, gone, unchanged) of the pins; with ``write`` the ledger then has them."""
        with Ledger(self.paths) as ledger, connect(self.paths.ledger) as con:
            scan = open_pin_scan(con, self.definitions, SPACE, ledger, held)
            batches = list(pin_changes(scan, SPACE))
            kinds = {change.pin_id: change.kind for batch in batches for change in batch}
            assert sum(map(len, batches)) == len(kinds)
            again = [change.pin_id for batch in pin_changes(scan, SPACE) for change in batch]
            assert sorted(again) == sorted(kinds)  # a run goes through it twice: to count and to write
            if write:
                for batch in batches:
                    ledger.write(SPACE.name, 1, ledger_entries(batch))
                ledger.remove(SPACE.name, 1, [key for key, _, _ in scan.gone])
                ledger.set_engine(SPACE.name, raw_engine())
                ledger.fold(SPACE.name)
            return kinds, [key for key, _, _ in scan.gone], scan.unchanged

    def rows(self, name, write=False, held=NONE):
        """(changed rows by key, gone keys) of a view; with ``write`` the ledger then has them."""
        space = f"view:{name}"
        with Ledger(self.paths) as ledger, connect(self.paths.ledger) as con:
            scan = FeatureScan(con, self.views[name], ledger.of(space), held)
            batches = list(scan.changes())
            rows = {row["key"]: row for batch in batches for row in batch.to_pylist()}
            assert scan.changed == len(rows) == sum(batch.num_rows for batch in batches)
            if write:
                for batch in batches:
                    blank = {"text_fp": pa.nulls(batch.num_rows, pa.binary(16))}
                    blank["payload_fp"] = pa.nulls(batch.num_rows, pa.uint64())
                    kept = {column: batch[column] for column in ("key", "raw", "event_timestamp")}
                    ledger.write(space, 1, pa.table({**kept, **blank}))
                ledger.remove(space, 1, scan.gone)
                ledger.fold(space)
            return rows, scan.gone


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def catalogue(count=40):
    return {
        f"pin {n}": {"title": f"hat {n}", "lang": "en", "country": "US"}
        | ({"caption": f"a hat, {n}"} if n % 2 else {})
        | ({"board_titles": [f"hats {n}", "caps"]} if n % 3 else {})
        | ({"link_title": "shop", "link_description": f"number {n}"} if n % 5 else {})
        for n in range(count)
    }


texts = st.one_of(st.none(), st.text("ab \x1f#é", max_size=10))
fields = st.fixed_dictionaries(
    {"title": texts},
    optional={
        "description": texts,
        "caption": texts,
        "link_title": texts,
        "board_titles": st.one_of(st.none(), st.lists(texts, max_size=3)),
        "lang": st.sampled_from(["en", "de", None]),
    },
)
pin_sets = st.dictionaries(st.sampled_from([f"pin {n}" for n in range(12)] + ["", "é"]), fields, max_size=12)


def meaning(pin):
    """What the raw fingerprint of a pin depends on."""
    return [
        {feature: pin.get(feature) for feature in features if feature != "captioner"}
        for name, features in VIEWS.items()
        if name == "pin_text" or any(feature in pin for feature in features)
    ]


@settings(max_examples=25, deadline=None)
@given(before=pin_sets, after=pin_sets, files=st.integers(1, 4))
def test_exactly_what_differs_is_found(tmp_path_factory, before, after, files):
    patch = pytest.MonkeyPatch()
    patch.setattr(sources, "BUCKET_ROWS", 2)
    patch.setattr(spill, "_HELD_BYTES", 1)
    try:
        world = World(tmp_path_factory.mktemp("world"))
        assert set(world.pins(before, files).scan(write=True)[0]) == set(before)
        kinds, gone, unchanged = world.pins(after).scan()
    finally:
        patch.undo()
    same = {pin for pin in before.keys() & after.keys() if meaning(before[pin]) == meaning(after[pin])}
    assert set(kinds) == after.keys() - same
    assert gone == sorted(before.keys() - after.keys())
    assert unchanged == len(same)


def test_many_buckets_and_files_find_one_edit_each(world, small):
    pins = catalogue()
    kinds, _, _ = world.pins(pins, files=3).scan(write=True)
    assert set(kinds.values()) == {Kind.NEW}
    assert len(kinds) == 40
    assert world.pins(pins, files=2).scan() == ({}, [], 40)
    pins["pin 7"]["title"] = "cap"
    pins["pin 9"]["caption"] = "cap"
    pins["pin 11"]["board_titles"] = []
    pins["pin 12"]["lang"] = "de"
    del pins["pin 13"]["caption"], pins["pin 14"]
    pins["new"] = {"title": "new"}
    kinds, gone, unchanged = world.pins(pins, files=2).scan()
    assert kinds == {
        **dict.fromkeys(["pin 7", "pin 9", "pin 11", "pin 13"], Kind.CHANGED),
        "pin 12": Kind.PAYLOAD_ONLY,
        "new": Kind.NEW,
    }
    assert (gone, unchanged) == (["pin 14"], 34)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"board_titles": ["hats", "caps"]}, {"board_titles": ["caps", "hats"]}),
        ({"board_titles": ["hats", "caps"]}, {"board_titles": ["caps", None, "hats", " hats"]}),
        ({"title": "red hat"}, {"title": " red\t\n hat "}),
        ({"title": "caf\u00e9"}, {"title": "cafe\u0301"}),
        ({"title": "\ud55c\uad6d"}, {"title": "\u1112\u1161\u11ab\u1100\u116e\u11a8"}),
        ({"title": "hat"}, {"title": "hat", "caption": ""}),
        ({"title": "hat"}, {"title": "hat", "board_titles": []}),
        ({"title": "hat " * 24}, {"title": "hat " * 24 + "and more"}),
        ({"description": "word " * 40 + "old end"}, {"description": "word " * 40 + "new end"}),
        ({"title": "hat", "captioner": "one"}, {"title": "hat", "captioner": "two"}),
    ],
)
def test_what_the_model_reads_alike_has_one_text_fingerprint(world, before, after):
    world.pins({"a": before, "b": {"title": "other"}}).scan(write=True)
    kinds, gone, unchanged = world.pins({"a": after, "b": {"title": "other"}}).scan(write=True)
    assert set(kinds.values()) <= {Kind.TOUCHED}
    assert (len(kinds) + unchanged, gone) == (2, [])
    assert world.scan() == ({}, [], 2)


def test_a_feature_that_no_text_reads_does_not_wake_the_pins(world):
    world.pins({"a": {"title": "hat", "caption": "hat", "captioner": "one"}}).scan(write=True)
    world.rows("pin_captions", write=True)
    world.pins({"a": {"title": "hat", "caption": "hat", "captioner": "two"}})
    assert world.scan() == ({}, [], 1)
    assert list(world.rows("pin_captions")[0]) == ["a"]


def test_views_do_not_stand_for_one_another(world):
    world.pins({"a": {"caption": "hat"}, "b": {"link_title": "hat"}, "c": {"caption": None}, "d": {}}).scan(write=True)
    kinds, _, unchanged = world.pins(
        {"a": {"link_title": "hat"}, "b": {"caption": "hat"}, "c": {}, "d": {"caption": None}}
    ).scan()
    assert (set(kinds), unchanged) == ({"a", "b", "c", "d"}, 0)


def test_raw_fingerprints_of_all_pins_differ(world):
    pins = {f"{n}": {"title": t, "caption": c} for n, (t, c) in enumerate((t, c) for t in "abc" for c in "abc")}
    world.pins(pins).scan(write=True)
    with Ledger(world.paths) as ledger:
        raws = ledger.entries(SPACE.name)["raw"].to_pylist()
    assert len(set(raws)) == 9
    assert DOUBTFUL_RAW not in raws


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
    monkeypatch.setattr(sources, "BUCKET_ROWS", 1)
    monkeypatch.setattr(sources, "_STREAM_ROWS", 2)
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


def test_held_pins_are_not_gone(world):
    world.pins(catalogue(6)).scan(write=True)
    world.rows("pin_text", write=True)
    world.pins({"pin 1": catalogue()["pin 1"]})
    assert world.scan(held=frozenset(["pin 2", "pin 9"]))[1] == ["pin 0", "pin 3", "pin 4", "pin 5"]
    assert world.rows("pin_text", held=frozenset(["pin 2"]))[1] == ["pin 0", "pin 3", "pin 4", "pin 5"]


def test_every_held_pin_is_counted_that_the_source_has_not(world, small):
    world.pins(catalogue(9))
    with Ledger(world.paths) as ledger, connect(world.paths.ledger) as con:
        held = frozenset(["pin 3", "never written", "neither"])
        assert open_pin_scan(con, world.definitions, SPACE, ledger, held).held == 2


def test_a_doubted_entry_matches_no_row_and_keeps_its_event_time(world):
    world.save("pin_text", [{"pin_id": "a"}, {"pin_id": "b"}])
    world.rows("pin_text", write=True)
    later = NOW + timedelta(days=1)
    with Ledger(world.paths) as ledger:
        ledger.doubt("view:pin_text", 2, ["a", "c"], [later, None])
    found, gone = world.rows("pin_text")
    assert {key: row[WRITTEN] for key, row in found.items()} == {"a": later}
    assert gone == ["c"]


def test_another_engine_is_not_believed(world):
    world.pins(catalogue(4)).scan(write=True)
    with Ledger(world.paths) as ledger:
        ledger.set_engine(SPACE.name, "duckdb-0.0.1")
    kinds, _, unchanged = world.scan()
    assert (set(kinds.values()), len(kinds), unchanged) == ({Kind.TOUCHED}, 4, 0)


def test_a_row_that_leaves_between_the_passes_is_left_to_the_next_run(world):
    world.pins(catalogue(6))
    with Ledger(world.paths) as ledger, connect() as con:
        scan = open_pin_scan(con, world.definitions, SPACE, ledger, NONE)
        rows = FeatureScan(con, world.views["pin_text"], ledger.of("view:pin_text"), NONE)
        pins = {"pin 1": {"title": "another hat"}, "pin 2": catalogue()["pin 2"], "late": {"title": "late"}}
        world.pins(pins)
        found = {change.pin_id: change.text for batch in pin_changes(scan, SPACE) for change in batch}
        assert set(found) == {"pin 1", "pin 2"}
        assert found["pin 1"] == "another hat"
        assert {key for batch in rows.changes() for key in batch["key"].to_pylist()} == {"pin 1", "pin 2"}


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
