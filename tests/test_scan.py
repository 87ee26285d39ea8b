"""The scan against a plain Python model: what changed, over many files, buckets, kinds of keys and sizes of spill."""

from datetime import timedelta

import pytest
from conftest import examples, random_examples
from hypothesis import strategies as st
from scan_world import NONE, NOW, SPACE, VIEWS, World, make_small

from materialize import passes, spill
from materialize.ledger import DOUBTFUL_RAW, Ledger
from materialize.plan import Kind, open_pin_scan, pin_changes
from materialize.scan import WRITTEN, FeatureScan, connect


@pytest.fixture
def small(monkeypatch):
    make_small(monkeypatch)


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


@examples(8, 100)
def test_exactly_what_differs_is_found(tmp_path_factory, monkeypatch, examples):
    monkeypatch.setattr(passes, "BUCKET_ROWS", 2)
    monkeypatch.setattr(spill, "_HELD_BYTES", 1)

    @random_examples(examples, pin_sets, pin_sets, st.integers(1, 4))
    def check(before, after, files):
        world = World(tmp_path_factory.mktemp("world"))
        assert set(world.pins(before, files).scan(write=True)[0]) == set(before)
        kinds, gone, unchanged = world.pins(after).scan()
        same = {pin for pin in before.keys() & after.keys() if meaning(before[pin]) == meaning(after[pin])}
        assert set(kinds) == after.keys() - same
        assert gone == sorted(before.keys() - after.keys())
        assert unchanged == len(same)

    check()


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
