"""Deleted pins stay away: from every room, from Feast's materialize, and from pushes older than the deletion."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import Catalogue, CountingEncoder
from made_once import moved
from test_materialize import run, stored

from materialize import vector_log
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.repair import repair
from materialize.run import RunOptions, materialize
from materialize.stores import graves
from materialize.stores.layout import entity_collection, point_id
from materialize.stores.port import Match
from materialize.stores.publication import open_reader, open_writer
from materialize.stores.session import close_all

NOW = Catalogue.NOW


def rows_of(paths, *pins):
    """Stored rows of ``pin_text``; None where there is none."""
    project = load_definitions(paths).project
    with open_reader(paths.online) as store:
        ids = [point_id(project, "pin_text", {"pin_id": pin}) for pin in pins]
        return store.get_many(entity_collection(project, ["pin_id"]), ids)


def graves_of(paths):
    """Deletion times of the rows of ``pin_text``, by nothing but their number."""
    project = load_definitions(paths).project
    name = graves.grave_collection(project, ["pin_id"])
    with open_reader(paths.online) as store:
        if name not in store.collections():
            return []
        return [point.payload["event_ts"] for point in store.scroll(name, Match("view", "pin_text"))[0]]


@pytest.fixture(scope="module")
def adopted(applied, tmp_path_factory):
    """(catalogue, Feast store) of an applied repository of its own, with ten pins written."""
    from feast import FeatureStore

    catalogue = ten_hats(applied, tmp_path_factory)
    materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    yield catalogue, FeatureStore(repo_path=str(catalogue.paths.root))
    close_all()


def ten_hats(applied, tmp_path_factory):
    """The catalogue of a repository that Feast knows, with ten pins saved."""
    catalogue = Catalogue(moved(applied.root, tmp_path_factory.mktemp("somewhere") / "shop"))
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    catalogue.save()
    return catalogue


def row_of(pin, when, title):
    """A row of ``pin_text`` as a push brings it."""
    import pandas as pd

    row = {"pin_id": pin, "title": title, "description": None, "lang": "en", "country": "US", "image_sha256": None}
    times = dict.fromkeys(("created_at", "event_timestamp", "created_timestamp"), when)
    return pd.DataFrame([{**row, "safe": None, **times}])


def push(store, pin, when, title="pushed"):
    """What a push source's ``push(..., to=ONLINE)`` does."""
    store.write_to_online_store("pin_text", row_of(pin, when, title))
    close_all()


@pytest.mark.slow
def test_delete_then_feast_materialize_then_pushes(adopted):
    catalogue, store = adopted
    taken_down = NOW + timedelta(days=5)
    catalogue.put("p3", "hat 3", deleted_at=taken_down, event_timestamp=taken_down)
    catalogue.put("p9", "hat 9", event_timestamp=taken_down)  # so that the deletion is not of the future
    run(catalogue, CountingEncoder())
    store.materialize(datetime(2020, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    close_all()
    assert rows_of(catalogue.paths, "p3") == [None]
    assert stored(catalogue.paths, "p3") == [None]

    push(store, "p3", taken_down - timedelta(seconds=1))
    push(store, "p3", taken_down)
    assert rows_of(catalogue.paths, "p3") == [None]
    assert store.get_online_features(["pin_text:title"], [{"pin_id": "p3"}]).to_dict()["title"] == [None]
    push(store, "p4", taken_down, "pushed")  # the others are as pushable as ever
    assert rows_of(catalogue.paths, "p4")[0].payload["f"]["title"] == "pushed"
    found = audit(catalogue.paths)
    assert (found.clean, found.ahead) == (True, 1), found

    push(store, "p3", taken_down + timedelta(seconds=1))
    assert rows_of(catalogue.paths, "p3")[0].payload["f"]["title"] == "pushed"
    found = audit(catalogue.paths)
    assert (found.clean, found.ahead, sorted(found.examples["ahead"])) == (
        True,
        2,
        ["pin_text/p3", "pin_text/p4"],
    )
    assert repair(catalogue.paths, RunOptions(encoder=CountingEncoder())).after.ahead == 2
    assert run(catalogue, CountingEncoder()).encoded_texts == 0
    assert stored(catalogue.paths, "p3") == [None]


def test_a_pin_that_left_without_a_word_is_deleted_as_of_the_run(adopted):
    catalogue, store = adopted
    before = datetime.now(UTC)
    del catalogue.pins["p5"]
    run(catalogue, CountingEncoder())
    push(store, "p5", before)
    assert rows_of(catalogue.paths, "p5") == [None]
    push(store, "p5", datetime.now(UTC) + timedelta(minutes=1))
    assert rows_of(catalogue.paths, "p5") != [None]


def test_a_takedown_leaves_vector_log_and_every_view_in_one_run(catalogue, encoder):
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    space = run(catalogue, encoder).space
    catalogue.put("p3", "hat 3", deleted_at=NOW)
    counts = run(catalogue, encoder)
    assert (counts.gone, counts.deleted) == (1, 1)
    assert stored(catalogue.paths, "p3") == [None]
    assert "p3" not in vector_log.read_live(catalogue.paths, space)[0]
    project = load_definitions(catalogue.paths).project
    with open_reader(catalogue.paths.online) as store:
        views = [view.name for view in load_definitions(catalogue.paths).feature_views()]
        ids = [point_id(project, view, {"pin_id": "p3"}) for view in views]
        assert store.get_many(entity_collection(project, ["pin_id"]), ids) == [None] * len(ids)
    assert audit(catalogue.paths).clean


def test_a_pin_that_comes_back_is_written_and_its_grave_is_gone(catalogue, encoder):
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    run(catalogue, encoder)
    run(catalogue.put("p3", "hat 3", deleted_at=NOW), encoder)
    assert len(graves_of(catalogue.paths)) == 1
    run(catalogue.put("p3", "hat 3"), encoder)  # with an event time that is no later than the deletion
    assert rows_of(catalogue.paths, "p3") != [None]
    assert graves_of(catalogue.paths) == []
    assert audit(catalogue.paths).clean


def test_graves_are_forgotten_after_their_time(tmp_path):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with open_writer(tmp_path) as store:
        first, second = (point_id("shop", "text", {"pin_id": pin}) for pin in "ab")
        graves.bury(store, "shop", "text", ["pin_id"], {first: 5}, start)
        graves.bury(store, "shop", "text", ["pin_id"], {second: 6}, start + graves.KEEP)
        assert graves.deletion_times(store, "shop", ["pin_id"], [first, second]) == {first: 5, second: 6}
        later = start + graves.KEEP + timedelta(microseconds=1)
        graves.bury(store, "shop", "text", ["pin_id"], {second: 7}, later)
        assert graves.deletion_times(store, "shop", ["pin_id"], [first, second]) == {second: 7}
        graves.unbury(store, "shop", ["pin_id"], [second])
        assert graves.deletion_times(store, "shop", ["pin_id"], [first, second]) == {}


def test_graves_go_with_their_project_and_clash_with_no_row(tmp_path):
    long = "p" * 300
    for project in ("shop", long):
        rows, dead = entity_collection(project, ["pin_id"]), graves.grave_collection(project, ["pin_id"])
        assert len(dead) <= 200
        assert dead.startswith(rows[:150])
        assert dead not in (rows, entity_collection(project, ["pin_id", "deleted"]))
