"""What an audit finds is healed by its repair: from the vector log, by the encoder where it must, and no more."""

import shutil
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_materialize import killed_run, run, stored, vector_of

from feature_repo.errors import PinfeatherError
from materialize import vector_log
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.explain import explain
from materialize.ledger import Ledger
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.repair import repair
from materialize.run import RunOptions, materialize
from materialize.stores.layout import entity_collection, point_id
from materialize.stores.publication import open_reader, open_writer


@pytest.fixture
def hats(written_pins):
    """Pins a, b and ten more, written."""
    titles = {"a": "red hat", "b": "blue hat"} | {f"p{number}": f"hat {number}" for number in range(10)}
    return written_pins({pin: {"title": title} for pin, title in titles.items()})


def heal(catalogue, encoder, **options):
    """Repair, and check what every repair must reach: a clean audit, in the report and seen from outside."""
    report = repair(catalogue.paths, RunOptions(encoder=encoder, **options))
    assert report.after.clean, report.after
    assert audit(catalogue.paths).clean
    assert report.after.repaired == report.before.findings
    return report


def test_an_audit_of_a_lost_store_says_how_to_get_it_back(hats):
    shutil.rmtree(hats.paths.online)
    with pytest.raises(PinfeatherError, match="pinfeather restore"):
        audit(hats.paths)


def edit_rows(paths, view, pins, change):
    """Change stored rows of a feature view behind the materializer's back."""
    project = load_definitions(paths).project
    collection = entity_collection(project, ["pin_id"])
    with open_writer(paths.online) as store:
        ids = [point_id(project, view, {"pin_id": pin}) for pin in pins]
        change(store, collection, store.get_many(collection, ids))
        store.publish()


def title_of(paths, pin):
    project = load_definitions(paths).project
    with open_reader(paths.online) as store:
        ids = [point_id(project, "pin_text", {"pin_id": pin})]
        (point,) = store.get_many(entity_collection(project, ["pin_id"]), ids)
    return point and point.payload["f"]["title"]


def damage(paths, change):
    """Change the stored points of the live space behind the materializer's back."""
    project, space = load_definitions(paths).project, current_release(paths).live_space
    with open_writer(paths.online) as store:
        ids = [point_id(project, LIVE_EMBEDDING, {"pin_id": pin_id}) for pin_id in ("a", "b")]
        change(store, space, store.get_many(space, ids, with_vectors=True))
        store.publish()


def remove_first(store, space, points):
    store.delete(space, ids=[points[0].id])


def add_stranger(store, space, points):
    points[0].id = point_id("elsewhere", LIVE_EMBEDDING, {"pin_id": "zzz"})
    store.upsert(space, [points[0]])


def age(store, space, points):
    points[0].payload["text_fp"] = "0" * 32
    store.upsert(space, [points[0]])


def other_model(store, space, points):
    points[0].payload["model"] = "another"
    store.upsert(space, [points[0]])


def swap_vectors(store, space, points):
    points[0].vectors, points[1].vectors = points[1].vectors, points[0].vectors
    store.upsert(space, points)


def shrink(store, space, points):
    points[0].vectors["vector"] = points[0].vectors["vector"] / 2
    store.upsert(space, [points[0]])


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (remove_first, {"missing": 1}),
        (add_stranger, {"extra": 1}),
        pytest.param(age, {"stale": 1}, marks=pytest.mark.slow),
        pytest.param(other_model, {"wrong_space": 1}, marks=pytest.mark.slow),
        (swap_vectors, {"corrupted": 2}),
        pytest.param(shrink, {"corrupted": 1}, marks=pytest.mark.slow),
    ],
)
def test_every_damaged_point_is_found_and_healed_without_the_encoder(hats, encoder, change, wrong):
    damage(hats.paths, change)
    found = audit(hats.paths)
    kinds = ("missing", "extra", "stale", "wrong_space", "corrupted")
    assert {kind: getattr(found, kind) for kind in kinds if getattr(found, kind)} == wrong
    assert not found.clean
    report = heal(hats, encoder)
    assert report.after.repaired == found.findings
    assert encoder.calls == []
    (a, _), (b, _) = stored(hats.paths, "a", "b")
    np.testing.assert_array_equal(a, vector_of(encoder, "red hat"))
    np.testing.assert_array_equal(b, vector_of(encoder, "blue hat"))


def test_a_repair_of_nothing_changes_nothing(hats, encoder):
    with open_reader(hats.paths.online) as reader:
        before = reader.number
    assert heal(hats, encoder).after.repaired == 0
    with open_reader(hats.paths.online) as reader:
        assert reader.number == before


def test_only_what_the_log_has_lost_is_encoded(hats, encoder):
    space = current_release(hats.paths).live_space
    (part,) = [part for part in vector_log.parts(hats.paths, space) if pq.read_metadata(part).num_rows]
    rows = pq.read_table(part)
    pq.write_table(rows.filter([pin != "a" for pin in rows["pin_id"].to_pylist()]), part)
    damage(hats.paths, remove_first)
    assert heal(hats, encoder).before.missing == 1
    assert encoder.calls == [["red hat"]]


@pytest.mark.slow
def test_a_logged_vector_that_is_none_is_not_believed(hats, encoder):
    space = current_release(hats.paths).live_space
    (part,) = [part for part in vector_log.parts(hats.paths, space) if pq.read_metadata(part).num_rows]
    rows = pq.read_table(part).to_pylist()
    for row in rows:
        row["embedding"] = [0.0] * len(row["embedding"]) if row["pin_id"] == "a" else row["embedding"]
    pq.write_table(part_of(rows, part), part)
    assert heal(hats, encoder).before.corrupted == 1
    assert encoder.calls == [["red hat"]]


def part_of(rows, part):
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=pq.read_schema(part))


@pytest.mark.slow
def test_an_unreadable_log_part_is_named_and_its_pins_encoded_again(hats, encoder):
    space = current_release(hats.paths).live_space
    (part,) = [part for part in vector_log.parts(hats.paths, space) if pq.read_metadata(part).num_rows]
    part.write_bytes(part.read_bytes()[:200])
    found = audit(hats.paths)
    assert (found.corrupted, found.missing, found.extra, found.stale) == (1, 0, 0, 0)
    assert part.name in found.examples["corrupted"][0]
    report = repair(hats.paths, RunOptions(encoder=encoder))
    assert report.after.clean
    assert len(encoder.texts) == 12


@pytest.mark.parametrize("space", ["live", "view:pin_text"])
def test_a_damaged_shard_is_named_and_healed_without_the_encoder(hats, encoder, space):
    name = current_release(hats.paths).live_space if space == "live" else space.replace(":", "--")
    (shard,) = (hats.paths.ledger / name).glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:100])
    found = audit(hats.paths)
    assert found.corrupted == 1
    assert shard.name in found.examples["corrupted"][0]
    report = repair(hats.paths, RunOptions(encoder=encoder))
    assert report.after.clean, report.after
    assert encoder.calls == []
    assert all(stored(hats.paths, *hats.pins))
    assert title_of(hats.paths, "a") == "red hat"


@pytest.mark.slow
def test_a_point_without_a_ledger_row_gets_one_without_the_encoder(hats, encoder):
    space = current_release(hats.paths).live_space
    with Ledger(hats.paths) as ledger:
        ledger.remove(space, 1, ["a"])
    found = audit(hats.paths)
    assert found.extra == 1
    heal(hats, encoder)
    assert encoder.calls == []
    assert stored(hats.paths, "a") != [None]


def test_feature_rows_that_were_altered_come_back_from_their_source(hats, encoder):
    def alter(store, collection, points):
        points[0].payload["f"]["title"] = "forged"  # its fingerprint stays
        points[1].payload["fp"] = "1"
        store.upsert(collection, points[:2])
        store.delete(collection, ids=[points[2].id])

    edit_rows(hats.paths, "pin_text", ["a", "b", "p1"], alter)
    found = audit(hats.paths)
    assert (found.corrupted, found.stale, found.missing) == (1, 1, 1)
    heal(hats, encoder)
    assert [title_of(hats.paths, pin) for pin in ("a", "b", "p1")] == ["red hat", "blue hat", "hat 1"]
    assert encoder.calls == []


@pytest.mark.slow
def test_a_row_that_nothing_stands_behind_is_deleted_and_a_newer_push_is_not(hats, encoder):
    project = load_definitions(hats.paths).project

    def push(store, collection, points):
        kept = {name: value for name, value in points[0].payload.items() if name != "fp"}
        for name, days, fp in (("old", -1, {}), ("new", 1, {}), ("ours", 1, {"fp": "5"})):
            row = {**kept, **fp, "key": {"pin_id": name}}
            row["event_ts"] += int(timedelta(days=days).total_seconds() * 1e6)
            points[0].id, points[0].payload = point_id(project, "pin_text", {"pin_id": name}), row
            store.upsert(collection, [points[0]])

    edit_rows(hats.paths, "pin_text", ["a"], push)
    found = audit(hats.paths)
    assert (found.extra, found.ahead) == (2, 1)
    assert heal(hats, encoder).after.ahead == 1
    assert [title_of(hats.paths, pin) for pin in ("old", "new", "ours")] == [None, "red hat", None]


@pytest.mark.slow
def test_what_the_source_has_changed_meanwhile_is_written_too(hats, encoder):
    hats.put("a", "red cap").save()
    assert heal(hats, encoder).before.stale == 3
    assert encoder.texts == ["red cap"]
    assert title_of(hats.paths, "a") == "red cap"


@pytest.mark.slow
def test_a_pin_that_left_while_store_and_ledger_were_lost_leaves_the_log(hats, encoder):
    space = current_release(hats.paths).live_space
    shutil.rmtree(hats.paths.online)
    shutil.rmtree(hats.paths.ledger)
    del hats.pins["a"]
    run(hats, encoder)
    ((vector, _),) = stored(hats.paths, "b")
    log_row(hats, space, "left", vector)
    found = audit(hats.paths)
    assert (found.extra, found.examples["extra"]) == (1, ["vector log: left"])
    heal(hats, encoder)
    assert {"a", "left"}.isdisjoint(vector_log.read_live(hats.paths, space)[0])


def log_row(catalogue, space, pin, vector):
    """A row of the vector log that nothing else knows of."""
    vectors, when = vector[None].astype(np.float16), catalogue.NOW
    vector_log.append(catalogue.paths, space, 1, 99, [pin], vectors, ["0" * 32], [when], when)


def test_a_lost_ledger_is_no_reason_to_delete_what_the_source_has(hats, encoder):
    shutil.rmtree(hats.paths.ledger)
    with_ledger = repair(hats.paths, RunOptions(encoder=encoder)).after
    assert with_ledger.clean, with_ledger
    assert all(stored(hats.paths, *hats.pins))
    assert [title_of(hats.paths, pin) for pin in ("a", "p3")] == ["red hat", "hat 3"]
    assert encoder.calls == []


def test_a_repair_believes_no_source_that_lost_too_much(hats, encoder):
    for number in range(6):
        del hats.pins[f"p{number}"]
    hats.save()
    with pytest.raises(PinfeatherError, match=r"6 of 12 pins are gone.*--allow-deletes"):
        repair(hats.paths, RunOptions(encoder=encoder))
    assert all(stored(hats.paths, *(f"p{number}" for number in range(6))))
    heal(hats, encoder, allow_deletes=True)
    assert stored(hats.paths, "p0") == [None]


@pytest.mark.slow
def test_a_repair_heals_what_a_killed_run_left(hats, encoder):
    hats.put("a", "red cap").save()
    killed_run(hats.paths, "materialize.vector_log.append = bang")
    heal(hats, encoder)
    ((vector, _),) = stored(hats.paths, "a")
    np.testing.assert_array_equal(vector, vector_of(encoder, "red cap"))


@pytest.mark.slow
def test_a_killed_repair_is_ended_by_the_next_run(hats, encoder):
    damage(hats.paths, swap_vectors)
    killed_run(hats.paths, "materialize.repair.materialize = bang", call="repair")
    assert not audit(hats.paths).clean
    run(hats, encoder)
    assert audit(hats.paths).clean
    assert encoder.calls == []


def test_a_sample_finds_extra_points_where_there_are_too_many(hats, encoder):
    damage(hats.paths, add_stranger)
    found = audit(hats.paths, sample=2, seed=1)
    assert found.extra == 1
    assert found.checked < audit(hats.paths).checked


def test_the_command_heals_and_says_what_it_found(pinfeather, hats):
    import json

    damage(hats.paths, swap_vectors)
    repo = hats.paths.root
    code, out, err = pinfeather("audit", "--repo", repo)
    assert code == 1
    assert "audit --repair" in err
    code, out, _ = pinfeather("audit", "--repo", repo, "--repair", "--json")
    answer = json.loads(out)
    assert (code, answer["repaired"], answer["corrupted"], answer["before"]["corrupted"]) == (0, 2, 0, 2)
    code, _, err = pinfeather("audit", "--repo", repo)
    assert (code, err.strip()) == (0, "Clean.")
    assert pinfeather("audit", "--repo", repo, "--repair", "--sample", "1")[0] == 2


@pytest.mark.slow
def test_of_equal_rows_of_a_key_everybody_takes_the_same(hats, encoder):
    file = hats.paths.views / "pin_captions.parquet"
    rows = [
        {"pin_id": f"p{number}", "caption": f"{word} {number}", "event_timestamp": hats.NOW}
        for number in range(10)
        for word in ("b", "a", "c")
    ]
    pq.write_table(part_of([{**row, "created_timestamp": hats.NOW} for row in rows], file), file)
    materialize(hats.paths, RunOptions(encoder=encoder))
    assert audit(hats.paths).clean
    assert {explain(hats.paths, f"p{number}")["state"] for number in range(10)} == {"unchanged"}


@pytest.mark.slow
def test_a_stranger_in_the_log_is_found_though_it_lacks_another_pin(hats, encoder):
    space = current_release(hats.paths).live_space
    (part,) = [part for part in vector_log.parts(hats.paths, space) if pq.read_metadata(part).num_rows]
    rows = pq.read_table(part).to_pylist()
    for row in rows:
        row["pin_id"] = "stranger" if row["pin_id"] == "a" else row["pin_id"]
    pq.write_table(part_of(rows, part), part)
    found = heal(hats, encoder).before
    assert (found.corrupted, found.examples["extra"]) == (1, ["vector log: stranger"])
    assert encoder.calls == [["red hat"]]
