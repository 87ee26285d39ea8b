"""Incremental runs on a real store: who is encoded, what is deleted, what a crash costs."""

import os
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import held_store

from embedders.encoder import as_stored
from feature_repo.errors import PinfeatherError
from materialize import vector_log
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.ledger import Ledger, LedgerError
from materialize.plan import plan
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.run import RunOptions, materialize
from materialize.stores.errors import StoreBusyError
from materialize.stores.layout import entity_collection, point_id
from materialize.stores.publication import open_reader, open_writer

CHECKOUT = Path(__file__).resolve().parents[1]


def run(catalogue, encoder, **options):
    catalogue.save()
    return materialize(catalogue.paths, RunOptions(encoder=encoder, **options))


def stored(paths, *pin_ids):
    """(vector, payload) of pins as a reader sees them; None where there is no point."""
    project = load_definitions(paths).project
    with open_reader(paths.online) as store:
        ids = [point_id(project, LIVE_EMBEDDING, {"pin_id": pin_id}) for pin_id in pin_ids]
        points = store.get_many(store.release["names"][LIVE_EMBEDDING], ids, with_vectors=True)
        return [point and (point.vectors["vector"], point.payload) for point in points]


def vector_of(encoder, text):
    calls = encoder.calls
    encoder.calls = []
    vector = as_stored(encoder.encode([text]))[0]
    encoder.calls = calls
    return vector


def test_first_run_encodes_each_distinct_text_once_and_the_second_nothing(catalogue, encoder):
    catalogue.put("a", "oak sofa").put("b", "green lamp").put("c", "oak sofa").put("d", None)
    catalogue.save()
    planned = plan(catalogue.paths)
    assert (planned.new, planned.rejected, planned.texts_to_encode, planned.encoder_calls) == (3, 1, 2, 0)
    assert planned.tokens == 8  # [CLS] oak sofa [SEP] and [CLS] green lamp [SEP]

    first = run(catalogue, encoder)
    assert (first.new, first.rejected, first.encoded_texts, first.encoder_calls, first.upserted) == (3, 1, 2, 1, 3)
    assert sorted(encoder.texts) == ["green lamp", "oak sofa"]
    (a, _), (b, _), (c, _), d = stored(catalogue.paths, "a", "b", "c", "d")
    np.testing.assert_array_equal(a, vector_of(encoder, "oak sofa"))
    np.testing.assert_array_equal(a, c)
    assert not np.array_equal(a, b)
    assert d is None

    second = run(catalogue, encoder)
    assert (second.unchanged, second.rejected, second.encoder_calls, second.upserted) == (3, 1, 0, 0)
    assert second.quiet
    assert audit(catalogue.paths).clean


def test_pins_that_swap_texts_get_each_others_vectors(catalogue, encoder):
    run(catalogue.put("a", "red hat").put("b", "blue hat"), encoder)
    counts = run(catalogue.put("a", "blue hat").put("b", "red hat"), encoder)
    assert (counts.changed, counts.encoded_texts) == (2, 2)
    (a, _), (b, _) = stored(catalogue.paths, "a", "b")
    np.testing.assert_array_equal(a, vector_of(encoder, "blue hat"))
    np.testing.assert_array_equal(b, vector_of(encoder, "red hat"))
    assert audit(catalogue.paths).clean


def test_a_pin_that_loses_its_text_loses_its_vector_and_gets_it_back(catalogue, encoder):
    run(catalogue.put("a", "red hat").put("b", "blue hat"), encoder)
    counts = run(catalogue.put("a", None), encoder, allow_deletes=True)
    assert (counts.rejected, counts.deleted, counts.encoded_texts) == (1, 1, 0)
    assert stored(catalogue.paths, "a") == [None]
    assert vector_log.read_live(catalogue.paths, counts.space)[0] == ["b"]
    counts = run(catalogue.put("a", "red hat"), encoder)
    assert (counts.new, counts.encoded_texts, counts.rejected) == (1, 1, 0)
    assert audit(catalogue.paths).clean


def test_a_payload_change_touches_no_model(catalogue, encoder):
    run(catalogue.put("a", "red hat"), encoder)
    calls = len(encoder.calls)
    counts = run(catalogue.put("a", "red hat", lang="de"), encoder)
    assert (counts.payload_only, counts.encoded_texts, len(encoder.calls)) == (1, 0, calls)
    ((vector, payload),) = stored(catalogue.paths, "a")
    assert payload["lang"] == "de"
    np.testing.assert_array_equal(vector, vector_of(encoder, "red hat"))


@pytest.mark.parametrize("same", ["  red \t hat ", "red hat\x00", "red hat\u0007"])
def test_what_the_model_would_not_see_changes_nothing(catalogue, encoder, same):
    run(catalogue.put("a", "red hat"), encoder)
    counts = run(catalogue.put("a", same), encoder)
    assert (counts.unchanged, counts.changed, counts.encoded_texts) == (1, 0, 0)
    assert run(catalogue, encoder).quiet


def test_deleted_pins_leave_vectors_features_and_log(catalogue, encoder):
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    first = run(catalogue, encoder)
    del catalogue.pins["p3"]
    counts = run(catalogue.put("p4", "hat 4", deleted_at=catalogue.NOW), encoder)
    assert (counts.gone, counts.deleted, counts.encoded_texts) == (2, 2, 0)
    assert stored(catalogue.paths, "p3", "p4") == [None, None]
    project = load_definitions(catalogue.paths).project
    with open_reader(catalogue.paths.online) as store:
        rows = [point_id(project, "pin_text", {"pin_id": pin_id}) for pin_id in ("p3", "p4", "p5")]
        assert [bool(row) for row in store.get_many(entity_collection(project, ["pin_id"]), rows)] == [
            False,
            False,
            True,
        ]
    assert {"p3", "p4"}.isdisjoint(vector_log.read_live(catalogue.paths, first.space)[0])
    assert audit(catalogue.paths).clean


def test_a_source_that_lost_too_much_is_not_believed(catalogue, encoder):
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    run(catalogue, encoder)
    for number in range(3):
        del catalogue.pins[f"p{number}"]
    with pytest.raises(PinfeatherError, match=r"3 of 10 pins are gone from the source.*--allow-deletes"):
        run(catalogue, encoder)
    assert all(stored(catalogue.paths, "p0", "p1", "p2"))
    assert run(catalogue, encoder, allow_deletes=True).deleted == 3


@pytest.mark.slow
def test_raw_fingerprints_of_another_engine_cost_no_embedding(catalogue, encoder):
    space = run(catalogue.put("a", "red hat"), encoder).space
    with Ledger(catalogue.paths) as ledger:
        ledger.set_engine(space, "duckdb-0.0.1")
        rows = ledger.entries(space).set_column(2, "raw", [[1]]).drop_columns(["hash", "run"])
        ledger.write(space, 1, rows)
    counts = run(catalogue, encoder)
    assert (counts.unchanged, counts.encoded_texts) == (1, 0)
    assert run(catalogue, encoder).quiet


def test_an_equal_timestamp_with_other_content_replaces_the_feature_row(catalogue, encoder):
    run(catalogue.put("a", "red hat"), encoder)
    counts = run(catalogue.put("a", "red cap"), encoder)
    assert counts.features["pin_text"] == {"changed": 1, "gone": 0, "rejected": 0}
    project = load_definitions(catalogue.paths).project
    with open_reader(catalogue.paths.online) as store:
        row = point_id(project, "pin_text", {"pin_id": "a"})
        (point,) = store.get_many(entity_collection(project, ["pin_id"]), [row])
    assert point.payload["f"]["title"] == "red cap"


def test_a_newer_pushed_row_stays_and_audit_counts_it_as_ahead(catalogue, encoder):
    run(catalogue.put("a", "red hat"), encoder)
    project = load_definitions(catalogue.paths).project
    collection, row = entity_collection(project, ["pin_id"]), point_id(project, "pin_text", {"pin_id": "a"})
    with open_writer(catalogue.paths.online) as store:
        (point,) = store.get_many(collection, [row])
        point.payload["event_ts"] += int(timedelta(days=1).total_seconds() * 1e6)
        point.payload["f"]["title"] = "pushed"
        store.upsert(collection, [point])
        store.publish()
    run(catalogue.put("a", "red cap"), encoder)
    with open_reader(catalogue.paths.online) as store:
        assert store.get_many(collection, [row])[0].payload["f"]["title"] == "pushed"
    result = audit(catalogue.paths)
    assert (result.ahead, result.clean) == (1, True)


def test_a_source_that_goes_back_in_time_is_still_believed(catalogue, encoder):
    run(catalogue.put("a", "red hat"), encoder)
    earlier = catalogue.NOW - timedelta(days=3)
    counts = run(catalogue.put("a", "red cap", event_timestamp=earlier), encoder)
    project = load_definitions(catalogue.paths).project
    with open_reader(catalogue.paths.online) as store:
        row = point_id(project, "pin_text", {"pin_id": "a"})
        (point,) = store.get_many(entity_collection(project, ["pin_id"]), [row])
    assert point.payload["f"]["title"] == "red cap"
    log = pq.read_table(vector_log.parts(catalogue.paths, counts.space)).sort_by(
        [("event_timestamp", "ascending"), ("created_timestamp", "ascending")]
    )
    newest = np.array(log["embedding"].to_pylist()[-1], np.float32)
    np.testing.assert_array_equal(newest, vector_of(encoder, "red cap"))
    result = audit(catalogue.paths)
    assert (result.clean, result.ahead) == (True, 0)


CRASHES = {
    "encode": "conftest.CountingEncoder.encode = bang",
    "before upsert": "materialize.stores.publication.Writer.upsert = bang",
    "between upsert and log": "materialize.vector_log.append = bang",
    "between log and ledger": "materialize.ledger.Ledger.write = bang",
    "between delete and purge": "materialize.vector_log.purge = bang",
    "fold": "materialize.ledger.write_parquet = bang",
    "before release": "materialize.run.write_release = bang",
    "before publish": "materialize.stores.publication.Writer.publish = bang",
}


def killed_run(paths, patch, call="run"):
    """A run (or repair) in a process of its own that dies by SIGKILL where ``patch`` puts ``bang``."""
    start = {"run": "materialize.run.materialize", "repair": "materialize.repair.repair"}[call]
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import conftest, materialize.repair, materialize.run, materialize.stores.publication
        from feature_repo.paths import RepoPaths
        from pathlib import Path
        def bang(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)
        {patch}
        options = materialize.run.RunOptions(encoder=conftest.CountingEncoder())
        {start}(RepoPaths(Path({str(paths.root)!r})), options)
    """
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert killed.returncode == -9


@pytest.mark.slow
@pytest.mark.parametrize("moment", CRASHES)
def test_a_killed_run_costs_at_most_its_batch_and_leaves_no_wrong_answer(catalogue, encoder, moment):
    for number in range(12):
        catalogue.put(f"p{number}", f"hat {number}")
    run(catalogue, encoder)
    del catalogue.pins["p0"]
    catalogue.put("p1", "hat 2").put("p2", "hat 1").put("p3", "a new hat").put("p12", "one more")
    catalogue.save()
    killed_run(catalogue.paths, CRASHES[moment])
    encoder.calls = []
    materialize(catalogue.paths, RunOptions(encoder=encoder))
    assert len(encoder.texts) <= 4  # the four texts of the one batch
    assert materialize(catalogue.paths, RunOptions(encoder=encoder)).quiet
    result = audit(catalogue.paths)
    assert result.clean, result
    (one, _), (two, _) = stored(catalogue.paths, "p1", "p2")
    np.testing.assert_array_equal(one, vector_of(encoder, "hat 2"))
    np.testing.assert_array_equal(two, vector_of(encoder, "hat 1"))
    assert stored(catalogue.paths, "p0") == [None]


def test_a_truncated_shard_is_named_and_deleting_it_heals(catalogue, encoder):
    space = run(catalogue.put("a", "red hat"), encoder).space
    (shard,) = (catalogue.paths.ledger / space).glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(LedgerError, match=rf"{shard.name}.*delete it and run"):
        run(catalogue, encoder)
    shard.unlink()
    counts = run(catalogue, encoder)
    assert (counts.changed, counts.encoded_texts) == (1, 0)  # found in the store and in the log
    assert audit(catalogue.paths).clean


def test_a_second_writer_is_told_who_writes(catalogue, encoder):
    catalogue.put("a", "red hat").save()
    with held_store(catalogue.paths) as pid, pytest.raises(StoreBusyError, match=str(pid)):
        materialize(catalogue.paths, RunOptions(encoder=encoder, lock_timeout=0.1))
    assert materialize(catalogue.paths, RunOptions(encoder=encoder)).new == 1


def test_an_unreadable_view_source_is_named(catalogue, encoder):
    catalogue.put("a", "red hat").save()
    source = catalogue.paths.views / "pin_captions.parquet"
    source.write_bytes(b"PAR1 this is no parquet file")
    with pytest.raises(PinfeatherError, match=r"pin_captions\.parquet.*pinfeather aggregate"):
        materialize(catalogue.paths, RunOptions(encoder=encoder))


def test_a_missing_view_source_says_to_aggregate(catalogue):
    with pytest.raises(PinfeatherError, match=r"no source file.*pinfeather aggregate"):
        plan(catalogue.paths)


def test_the_vector_log_is_the_batch_source_of_the_live_view(catalogue, encoder):
    counts = run(catalogue.put("a", "red hat").put("b", "blue hat"), encoder)
    view = load_definitions(catalogue.paths).views[LIVE_EMBEDDING]
    files = sorted(Path(view.source).parent.glob("*.parquet"))
    assert files[0].parent.resolve() == (catalogue.paths.vectors / counts.space).resolve()
    assert sum(pq.read_metadata(file).num_rows for file in files) == 2
    assert current_release(catalogue.paths).live_space == counts.space


def test_audit_counts_pins_whose_source_moved_on_as_stale(catalogue, encoder):
    run(catalogue.put("a", "red hat").put("b", "blue hat"), encoder)
    catalogue.put("a", "red cap").save()
    result = audit(catalogue.paths)
    assert result.stale == 3  # the vector, and the rows of pin_text and pin_relevance
    assert "a" in result.examples["stale"]
