"""What the check of an erasure finds, and what it does not take for a finding."""

import numpy as np
import pytest
from erase_shop import NOW, QUERY, SHARED_QUERY, erased, plant_rows, run, save, write_raw, write_shop

from feature_repo.aggregates import aggregate
from feature_repo.erasures import Subjects
from feature_repo.validation import validate
from materialize import vector_log
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.erasure.check import check
from materialize.erasure.pending import Pending, save_pending
from materialize.ledger import Ledger
from materialize.releases import current_release
from materialize.spaces import pin_space
from materialize.stores.layout import entity_collection, point_id, row_payload
from materialize.stores.port import Point
from materialize.stores.publication import open_writer


@pytest.fixture
def shop(prepared):
    """A repository with the small shop, written."""
    return prepared("erasures", write_shop)


def test_check_finds_it_before_and_nothing_after(shop, encoder):
    asked = {"users": ["ann"], "pins": ["p5"], "queries": [f"  {SHARED_QUERY.upper()} "]}
    before = {place.name: place for place in check(shop, Subjects.of(**asked))}
    assert {name for name, place in before.items() if place.found} == {
        "raw tables",
        "valid tables",
        "view sources",
        "aggregate state",
        "ledger",
        "vector logs",
        "store",
        "publications",
    }
    report = erased(shop, encoder, **asked)
    assert report.rows == {"pins": 1, "board_saves": 2, "search_log": 8 - 1, "judgments": 1, "captions": 1}
    after = {place.name: place for place in check(shop, Subjects.of(**asked))}
    assert {name for name, place in after.items() if place.found} == {"raw tables"}
    assert not any(place.fails for place in after.values())
    validated = validate(shop)
    assert {name: one.erased for name, one in validated.tables.items() if one.erased} == report.rows
    aggregate(shop)
    assert run(shop, encoder).quiet
    assert not any(place.fails for place in check(shop, Subjects.of(**asked)))
    assert audit(shop).clean


def plant_point(paths, publish):
    project = load_definitions(paths).project
    payload = row_payload("pin_text", {"pin_id": "p5"}, 1, {"title": "back"})
    with open_writer(paths.online) as store:
        point = Point(point_id(project, "pin_text", {"pin_id": "p5"}), payload)
        store.upsert(entity_collection(project, ["pin_id"]), [point])
        if publish:
            store.publish()


def plant_ledger(paths, note):
    with Ledger(paths) as ledger:
        number = ledger.start_run("view:pin_text", vector_log.last_run(paths))
        if not note:
            ledger.doubt("view:query_stats", number, [QUERY.lower()])
        ledger.finish_run(number, "repair", {"unknown": ["p5"]} if note else {})


def plant_vector(paths):
    space = current_release(paths).live_space
    vector_log.append(paths, space, 999, 0, ["p5"], np.ones((1, 384), np.float16), ["0" * 32], [NOW], NOW)


PLANTS = {
    "valid tables": lambda paths: plant_rows(paths.valid / "board_saves.parquet", **save("ann", "p1", "back")),
    "rejected rows": lambda paths: plant_rows(
        paths.rejected / "judgments.parquet", query=" WEDDING\\x09arch", pin_id="p1"
    ),
    "view sources": lambda paths: plant_rows(
        paths.views / "pin_engaged_queries.parquet", pin_id="p1", engaged_queries=[QUERY], event_timestamp=NOW
    ),
    "aggregate state": lambda paths: plant_rows(paths.aggregates / "kept.parquet", query=QUERY),
    "history": lambda paths: plant_rows(paths.data / "history" / "1" / "pins.parquet", pin_id="p5"),
    "captions": lambda paths: plant_rows(paths.captions / "fp" / "a.parquet", image_sha256="image5", caption="x"),
    "samples": lambda paths: plant_rows(paths.samples / "october.parquet", query=QUERY.upper(), pin_id="p1"),
    "labels": lambda paths: plant_rows(paths.labels / "version" / "part-000001.parquet", query="oak", pin_id="p5"),
    "ledger": lambda paths: plant_ledger(paths, note=False),
    "run notes": lambda paths: plant_ledger(paths, note=True),
    "vector logs": plant_vector,
    "store": lambda paths: plant_point(paths, publish=False),
    "publications": lambda paths: plant_point(paths, publish=True),
    "unfinished files": lambda paths: plant_rows(paths.data / "pin_versions" / ".part-1.parquet.tmp", pin_id="p5"),
    "erasures begun": lambda paths: save_pending(paths, Pending(frozenset(["p5"]))),
}


@pytest.mark.slow
def test_check_finds_what_is_planted_in_each_place(shop, encoder):
    names = {"users": ["ann"], "pins": ["p5"], "queries": [QUERY]}
    erased(shop, encoder, **names)
    for plant in PLANTS.values():
        plant(shop)
    found = {place.name for place in check(shop, Subjects.of(**names)) if place.fails}
    assert found == set(PLANTS)
    erased(shop, encoder, **names)
    assert [place for place in check(shop, Subjects.of(**names)) if place.fails] == []
    assert audit(shop).clean


@pytest.mark.slow
def test_a_user_is_found_in_the_state_of_the_log(shop):
    found = {place.name: place for place in check(shop, Subjects.of(users=["ann"]))}
    assert found["aggregate state"].found >= 3  # one visit each
    found = {place.name: place for place in check(shop, Subjects.of(users=["nobody"]))}
    assert not any(place.found for place in found.values())


@pytest.mark.slow
def test_a_name_that_only_reads_the_same_is_no_finding(shop, encoder):
    """A user, a pin and a consumer of one name; a number in a note; a title that was searched for."""
    write_raw(shop, "board_saves", [save("p3", "p1", "mine"), save("7", "p1", "mine")])
    pin_space(shop, current_release(shop).live_space, "p3")
    validate(shop)
    aggregate(shop)
    run(shop, encoder)
    names = {"users": ["p3", "7"], "queries": ["oak shelf number 3"]}
    erased(shop, encoder, **names)
    found = {place.name: place for place in check(shop, Subjects.of(**names)) if place.found}
    assert set(found) == {"raw tables", "manifests"}
    assert not any(place.fails for place in found.values())
    assert "only reads so" in found["manifests"].note


@pytest.mark.slow
@pytest.mark.parametrize("place", [name for name in PLANTS if name not in ("store", "publications")])
def test_check_finds_what_is_planted_in_one_place_there_alone(shop, encoder, place):
    names = {"users": ["ann"], "pins": ["p5"], "queries": [QUERY]}
    erased(shop, encoder, **names)
    PLANTS[place](shop)
    assert [each.name for each in check(shop, Subjects.of(**names)) if each.fails] == [place]
