"""Online rows that no run wrote, that a source cannot give any more, or that the store lost."""

import shutil
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Catalogue
from test_materialize import run

from feature_repo.errors import PinfeatherError
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.places import open_store
from materialize.plan import plan
from materialize.repair import repair
from materialize.restore import restore
from materialize.run import RunOptions, materialize
from materialize.stores import graves
from materialize.stores.layout import entity_collection, point_id, row_payload, to_micros
from materialize.stores.port import Point
from materialize.stores.publication import open_reader

NOW = Catalogue.NOW


@pytest.fixture
def hats(written_pins):
    """Ten pins, written."""
    return written_pins({f"p{number}": {"title": f"hat {number}"} for number in range(10)})


def write_online(paths, view, key, when, **features):
    """What Feast's online store writes for a pin, by materialize or by push: a row without a fingerprint."""
    definitions = load_definitions(paths)
    project, entity = definitions.project, {"pin_id": key}
    values = {name: features.get(name) for name in definitions.views[view].features}
    payload = row_payload(view, entity, to_micros(when), values, to_micros(when))
    point = Point(point_id(project, view, entity), payload)
    with open_store(paths, "test", 10.0) as store:
        fresh = graves.newer_than_deletion(store, project, ["pin_id"], [point])
        store.upsert(entity_collection(project, ["pin_id"]), fresh)
        release = store.release
        store.publish(release)


def row_of(paths, view, pin):
    """The stored row of a pin, None where there is none."""
    project = load_definitions(paths).project
    with open_reader(paths.online) as store:
        return store.get_many(entity_collection(project, ["pin_id"]), [point_id(project, view, {"pin_id": pin})])[0]


def grave_times(paths, pin):
    """View to the deletion time of the pin's row."""
    definitions = load_definitions(paths)
    ids = {point_id(definitions.project, view.name, {"pin_id": pin}): view.name for view in definitions.feature_views()}
    with open_reader(paths.online) as store:
        found = graves.deletion_times(store, definitions.project, ["pin_id"], list(ids))
    return {ids[row]: when for row, when in found.items()}


@pytest.mark.slow
def test_a_takedown_takes_rows_along_that_no_run_wrote(hats, encoder):
    paths, later = hats.paths, NOW + timedelta(hours=1)
    deleted = NOW + timedelta(days=1)
    write_online(paths, "pin_text", "new", later, title="private")
    write_online(paths, "pin_captions", "p3", later, caption="face of somebody")
    for pin in ("new", "p3"):
        hats.put(pin, "hat", deleted_at=deleted, event_timestamp=deleted)
    hats.save()
    found = audit(paths)  # before any run
    assert found.extra == 2, found
    run(hats, encoder)
    assert row_of(paths, "pin_text", "new") is None
    assert row_of(paths, "pin_captions", "p3") is None
    assert audit(paths).clean
    write_online(paths, "pin_captions", "p3", deleted, caption="older than the deletion")
    write_online(paths, "pin_text", "new", deleted, title="older than the deletion")
    assert row_of(paths, "pin_captions", "p3") is row_of(paths, "pin_text", "new") is None
    write_online(paths, "pin_captions", "p3", deleted + timedelta(seconds=1), caption="newer")
    found = audit(paths)
    assert (found.clean, found.ahead) == (True, 1), found
    run(hats, encoder)
    assert row_of(paths, "pin_captions", "p3").payload["f"]["caption"] == "newer"  # each deletion is carried out once


def test_a_pin_that_left_without_a_word_takes_its_other_rows_along_and_gets_them_back(hats, encoder):
    write_online(hats.paths, "pin_captions", "p3", NOW, caption="pushed")
    pin = hats.pins.pop("p3")
    run(hats, encoder)
    assert row_of(hats.paths, "pin_captions", "p3") is None
    write_online(hats.paths, "pin_captions", "p3", NOW, caption="pushed again")
    assert row_of(hats.paths, "pin_captions", "p3") is None
    hats.pins["p3"] = pin
    run(hats, encoder)
    assert grave_times(hats.paths, "p3") == {}
    write_online(hats.paths, "pin_captions", "p3", NOW, caption="pushed again")
    assert row_of(hats.paths, "pin_captions", "p3") is not None


def test_a_row_of_a_pin_that_was_never_there_is_extra_unless_it_is_news(hats, encoder):
    write_online(hats.paths, "pin_captions", "stranger", NOW, caption="of whom?")
    write_online(hats.paths, "pin_captions", "news", NOW + timedelta(hours=1), caption="of a pin to come")
    write_online(hats.paths, "pin_captions", "p3", NOW - timedelta(hours=1), caption="of a pin that is there")
    found = audit(hats.paths)
    assert (found.extra, found.ahead) == (1, 2), found
    after = repair(hats.paths, RunOptions(encoder=encoder)).after
    assert (after.findings, after.ahead) == (0, 2), after
    assert row_of(hats.paths, "pin_captions", "stranger") is None


@pytest.mark.slow
def test_a_deletion_is_carried_out_again_after_the_pin_was_back(hats, encoder):
    deleted = NOW + timedelta(hours=1)
    for _ in range(2):
        run(hats.put("p3", "hat", deleted_at=deleted), encoder)
        assert to_micros(deleted) in grave_times(hats.paths, "p3").values()
        run(hats.put("p3", "hat"), encoder)
        write_online(hats.paths, "pin_captions", "p3", NOW, caption="pushed")
    run(hats.put("p3", "hat", deleted_at=deleted), encoder)
    assert row_of(hats.paths, "pin_captions", "p3") is None


@pytest.mark.slow
def test_a_takedown_counts_although_its_row_breaks_the_contract(hats, encoder):
    deleted = NOW + timedelta(hours=2)
    hats.put("p1", "hat 1", description="x" * 20001, deleted_at=deleted, event_timestamp=NOW)
    hats.put("p2", "hat 2", description="x" * 20001)
    counts = run(hats, encoder)
    assert (counts.gone, counts.deleted, counts.held) == (1, 1, 1)
    assert row_of(hats.paths, "pin_text", "p1") is None
    assert row_of(hats.paths, "pin_text", "p2") is not None
    assert set(grave_times(hats.paths, "p1").values()) == {to_micros(deleted)}
    assert audit(hats.paths).clean


def test_a_deletion_that_is_no_time_or_has_not_come_holds_a_rejected_pin(hats, encoder):
    hats.put("p1", "hat 1", deleted_at="never").put("p2", "hat 2", deleted_at="9999-12-31T00:00:00Z")
    counts = run(hats, encoder)
    assert (counts.gone, counts.held) == (0, 2)


@pytest.mark.parametrize("way", ["restore", "materialize"])
@pytest.mark.slow
def test_graves_come_back_after_the_store_was_lost(hats, encoder, way):
    deleted = NOW + timedelta(hours=1)
    hats.put("p3", "hat 3", deleted_at=deleted)
    del hats.pins["p4"]
    run(hats, encoder)
    before = grave_times(hats.paths, "p4")
    shutil.rmtree(hats.paths.online)
    restore(hats.paths) if way == "restore" else run(hats, encoder)
    assert set(grave_times(hats.paths, "p3").values()) == {to_micros(deleted)}
    assert grave_times(hats.paths, "p4").keys() == before.keys()
    write_online(hats.paths, "pin_text", "p3", NOW, title="pushed late")
    assert row_of(hats.paths, "pin_text", "p3") is None
    assert row_of(hats.paths, "pin_text", "p5") is not None
    assert audit(hats.paths).clean


@pytest.mark.slow
def test_a_pin_that_leaves_while_a_shard_is_lost_is_buried(hats, encoder):
    (shard,) = (hats.paths.ledger / "view--pin_text").glob("shard*")
    shard.unlink()
    del hats.pins["p3"]
    counts = run(hats, encoder)
    assert counts.features["pin_text"] == {"changed": 9, "gone": 1, "rejected": 0}
    assert row_of(hats.paths, "pin_text", "p3") is None
    assert grave_times(hats.paths, "p3").keys() >= {"pin_text", "pin_captions", "pin_relevance"}
    assert audit(hats.paths).clean


@pytest.mark.slow
def test_a_damaged_note_of_deletions_stops_no_run(hats, encoder):
    run(hats.put("p3", "hat", deleted_at=NOW), encoder)
    (shard,) = (hats.paths.ledger / "pins--deleted").glob("shard*")
    shard.write_bytes(b"damaged")
    write_online(hats.paths, "pin_captions", "p4", NOW, caption="pushed")
    run(hats.put("p4", "hat", deleted_at=NOW), encoder)
    assert row_of(hats.paths, "pin_captions", "p4") is None
    assert grave_times(hats.paths, "p3").keys() >= {"pin_text"}
    run(hats, encoder)


def write_view(paths, view, rows):
    """Replace the source of a view."""
    file = paths.root / "data" / "views" / f"{view}.parquet"
    schema = pq.read_schema(file)
    blank = {name: None for name in schema.names} | {"event_timestamp": NOW, "created_timestamp": NOW}
    pq.write_table(pa.Table.from_pylist([{**blank, **row} for row in rows], schema=schema), file)


def test_a_view_that_loses_its_rows_stops_the_run(hats, encoder):
    options = RunOptions(encoder=encoder)
    queries = [{"query": f"q{number}"} for number in range(100)]
    write_view(hats.paths, "query_stats", queries)
    materialize(hats.paths, options)
    write_view(hats.paths, "query_stats", queries[21:])
    with pytest.raises(PinfeatherError, match=r"21 of 100 rows of feature view query_stats are gone.*--allow-deletes"):
        materialize(hats.paths, options)
    write_view(hats.paths, "query_stats", queries[20:])
    assert materialize(hats.paths, options).features["query_stats"]["gone"] == 20
    write_view(hats.paths, "query_stats", [])
    allowed = RunOptions(encoder=encoder, allow_deletes=True)
    assert materialize(hats.paths, allowed).features["query_stats"]["gone"] == 80


def test_rows_of_deleted_pins_and_small_views_do_not_stop_a_run(catalogue, encoder):
    for number in range(50):
        catalogue.put(f"p{number}", f"hat {number}")
    catalogue.save()
    write_view(catalogue.paths, "pin_captions", [{"pin_id": f"p{n}", "caption": "c"} for n in range(20)])
    write_view(catalogue.paths, "query_stats", [{"query": f"q{number}"} for number in range(19)])
    materialize(catalogue.paths, RunOptions(encoder=encoder))
    for number in range(5):
        del catalogue.pins[f"p{number}"]
    catalogue.save()
    write_view(catalogue.paths, "pin_captions", [{"pin_id": f"p{n}", "caption": "c"} for n in range(5, 20)])
    write_view(catalogue.paths, "query_stats", [])
    counts = materialize(catalogue.paths, RunOptions(encoder=encoder))
    assert (counts.features["pin_captions"]["gone"], counts.features["query_stats"]["gone"]) == (5, 19)


def test_a_row_that_its_type_cannot_hold_is_rejected_everywhere_and_nowhere_a_finding(hats, encoder):
    write_view(hats.paths, "pin_board_titles", [{"pin_id": "p1", "board_titles": ["a"]}])
    materialize(hats.paths, RunOptions(encoder=encoder))
    bad = [{"pin_id": "p1", "board_titles": ["a", None]}, {"pin_id": "p2", "board_titles": ["b"]}]
    write_view(hats.paths, "pin_board_titles", bad)
    wanted = {"changed": 1, "gone": 0, "rejected": 1}
    assert plan(hats.paths).features["pin_board_titles"] == wanted
    assert materialize(hats.paths, RunOptions(encoder=encoder)).features["pin_board_titles"] == wanted
    assert audit(hats.paths).clean
    assert plan(hats.paths).features["pin_board_titles"] == {**wanted, "changed": 0}
    assert row_of(hats.paths, "pin_board_titles", "p1").payload["f"]["board_titles"] == ["a"]
