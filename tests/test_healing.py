"""What a run makes good: kills followed by other sources, lost stores, lost ledgers, changed definitions."""

import json
import shutil
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_materialize import killed_run, run, stored, vector_of

from feature_repo.errors import PinfeatherError
from materialize import vector_log
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.ledger import Ledger
from materialize.plan import plan
from materialize.run import RunOptions, materialize
from materialize.stores.layout import entity_collection, point_id
from materialize.stores.port import Match
from materialize.stores.publication import open_reader, open_writer

pytestmark = pytest.mark.slow

WRITE = "materialize.ledger.Ledger.write = bang"
WRITE_ROWS = """plain = materialize.ledger.Ledger.write
        def write(ledger, space, *rest):
            if space == "view:pin_text": bang()
            return plain(ledger, space, *rest)
        materialize.ledger.Ledger.write = write"""


@pytest.fixture
def hats(written_pins):
    """Twelve pins, written."""
    return written_pins({f"p{number}": {"title": f"hat {number}"} for number in range(12)})


def clean(paths):
    result = audit(paths)
    assert result.clean, result
    return True


def test_an_edit_that_was_killed_and_taken_back(hats, encoder):
    hats.put("p1", "another text").save()
    killed_run(hats.paths, WRITE)
    run(hats.put("p1", "hat 1"), encoder)
    ((vector, _),) = stored(hats.paths, "p1")
    np.testing.assert_array_equal(vector, vector_of(encoder, "hat 1"))
    assert clean(hats.paths)


def test_a_new_pin_whose_run_was_killed_and_that_left_again(hats, encoder):
    hats.put("secret", "a new pin").save()
    killed_run(hats.paths, WRITE)
    del hats.pins["secret"]
    counts = run(hats, encoder)
    assert stored(hats.paths, "secret") == [None]
    assert "secret" not in vector_log.read_live(hats.paths, counts.space)[0]
    assert clean(hats.paths)


def test_a_pin_whose_deletion_was_killed_and_that_came_back(hats, encoder):
    gone = hats.pins.pop("p1")
    hats.save()
    killed_run(hats.paths, "materialize.ledger.Ledger.remove = bang")
    hats.pins["p1"] = gone
    run(hats, encoder)
    assert stored(hats.paths, "p1") != [None]
    assert clean(hats.paths)


def test_feature_rows_whose_run_was_killed_and_whose_source_went_back(hats, encoder):
    hats.put("p1", "hat 1", country="DE").save()
    killed_run(hats.paths, WRITE_ROWS)
    run(hats.put("p1", "hat 1"), encoder)
    assert clean(hats.paths)


def test_a_killed_batch_is_taken_from_the_log_not_encoded_again(hats, encoder):
    hats.put("p1", "another text").save()
    killed_run(hats.paths, WRITE)
    counts = run(hats, encoder)
    assert (counts.changed, counts.encoded_texts) == (1, 0)
    assert clean(hats.paths)


def test_textless_pins_of_a_killed_run_do_not_wake_the_guard(catalogue, encoder):
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}" if number < 6 else None)
    catalogue.save()
    killed_run(catalogue.paths, WRITE)
    assert run(catalogue, encoder).rejected == 4
    assert clean(catalogue.paths)


def test_a_killed_deletion_of_a_pin_that_comes_back_older(hats, encoder):
    hats.pins.pop("p1")
    hats.save()
    killed_run(hats.paths, "materialize.ledger.Ledger.remove = bang")
    counts = run(hats.put("p1", "cap", event_timestamp=hats.NOW - timedelta(days=3)), encoder)
    project = load_definitions(hats.paths).project
    with open_reader(hats.paths.online) as store:
        row = point_id(project, "pin_text", {"pin_id": "p1"})
        (point,) = store.get_many(entity_collection(project, ["pin_id"]), [row])
    assert point.payload["f"]["title"] == "cap"
    assert newest_logged(hats.paths, counts.space, "p1") == vector_of(encoder, "cap").tolist()
    result = audit(hats.paths)
    assert (result.clean, result.ahead) == (True, 0)


BEFORE_ROWS = """plain = materialize.stores.publication.Writer.upsert
        def upsert(writer, name, points):
            if "@" in name: bang()
            return plain(writer, name, points)
        materialize.stores.publication.Writer.upsert = upsert"""


def test_feature_rows_that_went_back_in_time_in_a_killed_run(hats, encoder):
    hats.put("p1", "cap", event_timestamp=hats.NOW - timedelta(days=3)).save()
    killed_run(hats.paths, BEFORE_ROWS)
    run(hats, encoder)
    result = audit(hats.paths)
    assert (result.clean, result.ahead) == (True, 0)


def newest_logged(paths, space, pin_id):
    """The vector that Feast would take: the latest by (event, created) timestamp."""
    log = pq.read_table(vector_log.parts(paths, space)).sort_by(
        [("event_timestamp", "ascending"), ("created_timestamp", "ascending")]
    )
    rows = [row for row in log.to_pylist() if row["pin_id"] == pin_id]
    return np.array(rows[-1]["embedding"], np.float32).tolist()


def test_a_lost_store_and_a_source_that_went_back_in_time(hats, encoder):
    shutil.rmtree(hats.paths.online)
    counts = run(hats.put("p1", "cap", event_timestamp=hats.NOW - timedelta(days=3)), encoder)
    assert newest_logged(hats.paths, counts.space, "p1") == vector_of(encoder, "cap").tolist()
    assert clean(hats.paths)


def test_a_refused_run_shows_readers_nothing_new(hats, encoder):
    redefine(hats.paths, lambda known: known["views"]["pin_relevance"]["features"].pop("save_rate"))
    for number in range(6):
        hats.pins.pop(f"p{number}")
    with pytest.raises(PinfeatherError, match="nothing was written"):
        run(hats, encoder)
    with open_writer(hats.paths.online) as store:
        store.publish()  # as any push does
    project = load_definitions(hats.paths).project
    with open_reader(hats.paths.online) as store:
        assert store.count(entity_collection(project, ["pin_id"]), Match("view", "pin_relevance")) == 12
    assert run(hats, encoder, allow_deletes=True).deleted == 6
    assert clean(hats.paths)


def test_two_deletions_of_one_run_are_both_noted(hats, encoder):
    hats.pins.pop("p1")
    counts = run(hats.put("p2", None), encoder)
    notes = [pq.read_table(file) for file in (hats.paths.vectors / counts.space / "deletions").glob("*.parquet")]
    assert sorted(pin for note in notes for pin in note["pin_id"].to_pylist()) == ["p1", "p2"]


def test_a_lost_store_is_written_again_without_a_model(hats, encoder):
    shutil.rmtree(hats.paths.online)
    counts = run(hats, encoder)
    assert (counts.upserted, counts.encoded_texts) == (12, 0)
    assert counts.features["pin_text"]["changed"] == 12
    assert clean(hats.paths)


def test_a_lost_shard_and_a_pin_that_left_meanwhile(hats, encoder):
    space = run(hats, encoder).space
    for shard in (hats.paths.ledger / space).glob("*.parquet"):
        shard.unlink()
    del hats.pins["p1"]
    assert run(hats, encoder).encoded_texts == 0
    assert stored(hats.paths, "p1") == [None]
    assert clean(hats.paths)


def test_a_lost_ledger_costs_no_embedding_and_no_wrong_vector(hats, encoder):
    run(hats.put("p1", "other"), encoder)
    encoder.calls = []
    shutil.rmtree(hats.paths.ledger)
    del hats.pins["p2"]
    run(hats.put("p1", "third"), encoder)
    assert encoder.texts == ["third"]
    assert stored(hats.paths, "p2") == [None]
    assert clean(hats.paths)


def test_emptied_texts_count_for_the_guard(hats, encoder):
    for number in range(12):
        hats.put(f"p{number}", None)
    with pytest.raises(PinfeatherError, match="12 of 12 pins are gone from the source or lost all their text"):
        run(hats, encoder)
    assert all(stored(hats.paths, *(f"p{number}" for number in range(12))))


def test_a_pin_whose_row_was_rejected_keeps_its_last_state(hats, encoder):
    counts = run(hats.put("p1", "x" * 30_000), encoder)
    assert (counts.gone, counts.rejected, counts.deleted) == (0, 1, 0)
    assert stored(hats.paths, "p1") != [None]
    assert clean(hats.paths)


def test_a_new_lexical_version_reaches_every_payload(hats, encoder, monkeypatch):
    monkeypatch.setattr("materialize.plan.LEXICAL_VERSION", 99)
    monkeypatch.setattr("materialize.settled.LEXICAL_VERSION", 99)
    counts = run(hats, encoder)
    assert (counts.payload_only, counts.encoded_texts) == (12, 0)
    assert run(hats, encoder).quiet


def redefine(paths, change):
    """Change what the registry says, through its cache."""
    cache = paths.data / "definitions.json"
    known = json.loads(cache.read_text())
    change(known)
    cache.write_text(json.dumps(known))


def test_a_renamed_project_moves_every_point(hats, encoder):
    old = load_definitions(hats.paths).project
    redefine(hats.paths, lambda known: known.update(project="other"))
    counts = run(hats.put("p1", "another text"), encoder)
    assert counts.encoded_texts == 1
    assert clean(hats.paths)
    with open_reader(hats.paths.online) as store:
        assert store.count(counts.space) == 12
        assert store.count(entity_collection(old, ["pin_id"]), Match("view", "pin_text")) == 0
        assert store.count(entity_collection("other", ["pin_id"]), Match("view", "pin_text")) == 12


def test_a_view_of_another_type_is_written_again(hats, encoder):
    redefine(hats.paths, lambda known: known["views"]["pin_relevance"]["features"].pop("save_rate"))
    assert run(hats, encoder).features["pin_relevance"]["changed"] == 12
    assert clean(hats.paths)


def test_a_view_that_left_and_came_back_is_written_again(hats, encoder):
    kept = json.loads((hats.paths.data / "definitions.json").read_text())["views"]["pin_relevance"]
    redefine(hats.paths, lambda known: known["views"].pop("pin_relevance"))
    run(hats, encoder)
    with open_reader(hats.paths.online) as store:
        project = load_definitions(hats.paths).project
        assert store.count(entity_collection(project, ["pin_id"]), Match("view", "pin_relevance")) == 0
    redefine(hats.paths, lambda known: known["views"].update(pin_relevance=kept))
    assert run(hats, encoder).features["pin_relevance"]["changed"] == 12
    assert clean(hats.paths)


def test_a_row_that_no_view_can_hold_is_rejected_and_the_rest_goes_on(hats, encoder):
    source = hats.paths.views / "pin_board_titles.parquet"
    rows = pq.read_table(source)
    when = pa.array([hats.NOW] * 2, rows.schema.field("event_timestamp").type)
    titles = pa.array([["fine"], [None]], pa.list_(pa.string()))
    bad = pa.table(
        [pa.array(["p1", "p2"]), titles, when, when], names=["pin_id", "board_titles", *rows.column_names[2:]]
    )
    hats.save()
    pq.write_table(bad, source)
    counts = materialize(hats.paths, RunOptions(encoder=encoder))
    assert counts.features["pin_board_titles"] == {"changed": 1, "gone": 0, "rejected": 1}
    again = materialize(hats.paths, RunOptions(encoder=encoder))
    assert again.features["pin_board_titles"] == {"changed": 0, "gone": 0, "rejected": 1}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("red hats, blue hats", "cap"), ("red hats", "blue hats, cap")),
        (("", ""), ("NULL", "")),
    ],
)
def test_lists_next_to_each_other_do_not_run_together(before, after):
    import duckdb

    from materialize.scan import hashed

    def fingerprint(lists):
        columns = ["[NULL]" if text == "NULL" else str([t for t in text.split(", ") if t]) for text in lists]
        kinds = [(f"{column}::VARCHAR[]", "string_list") for column in columns]
        return duckdb.sql(f"SELECT {hashed(kinds)}").fetchone()

    assert fingerprint(before) != fingerprint(after)


def test_a_plan_beside_a_run_that_folds_reads_one_moment(hats, monkeypatch):
    space = plan(hats.paths).space
    plain, fired = Ledger._listed, []

    def listed(ledger, name):
        found = plain(ledger, name)
        if name == space and not fired:
            fired.append(1)
            with Ledger(hats.paths) as other:
                other.write(space, 9, other.entries(space).slice(0, 1).drop_columns(["hash", "run"]))
                other.fold(space)  # the shards that were just listed are gone now
        return found

    monkeypatch.setattr(Ledger, "_listed", listed)
    counts = plan(hats.paths)
    assert (fired, counts.new, counts.unchanged) == ([1], 0, 12)
