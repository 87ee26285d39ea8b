"""Pins that no run may encode anew, when the store is lost: those in quarantine, and those that `validate` rejected."""

import shutil

import numpy as np
import pytest
from test_materialize import killed_run, run, stored
from test_quarantine import BAD, Poisonable, quarantined
from test_runs import rows_of

from materialize import vector_log
from materialize.audit import audit
from materialize.ledger import Ledger
from materialize.restore import restore
from materialize.stores.session import close_all

INVALID = "x" * 20_001
"""Longer than a description may be, so `validate` rejects the row."""


@pytest.fixture
def hats(written_pins):
    """Twelve pins, written."""
    return written_pins({f"p{number}": {"title": f"hat {number}"} for number in range(12)})


def lose_store(paths):
    close_all()
    shutil.rmtree(paths.online)


def vector_of(paths, pin_id):
    ((vector, _),) = stored(paths, pin_id)
    return vector


@pytest.mark.slow
def test_a_quarantined_pin_comes_back_from_the_log(hats):
    before = vector_of(hats.paths, "p1")
    run(hats.put("p1", BAD), Poisonable())
    lose_store(hats.paths)
    (counts,) = restore(hats.paths)
    assert (counts.upserted, counts.waiting) == (12, 0)
    np.testing.assert_array_equal(vector_of(hats.paths, "p1"), before)
    counts = run(hats, Poisonable())
    assert (counts.deleted, counts.encoded_texts, counts.quarantined) == (0, 0, 1)
    np.testing.assert_array_equal(vector_of(hats.paths, "p1"), before)
    assert audit(hats.paths).clean


@pytest.mark.slow
def test_a_run_brings_a_quarantined_pin_back_too_without_a_restore(hats):
    before = vector_of(hats.paths, "p1")
    run(hats.put("p1", BAD), Poisonable())
    lose_store(hats.paths)
    counts = run(hats, Poisonable())
    assert (counts.deleted, counts.encoded_texts, counts.quarantined) == (0, 0, 1)
    np.testing.assert_array_equal(vector_of(hats.paths, "p1"), before)
    found = audit(hats.paths)
    assert (found.clean, found.quarantined) == (True, 1), found
    counts = run(hats, Poisonable())
    assert (counts.upserted, counts.deleted, counts.quarantined) == (0, 0, 1)


def test_a_pin_that_turns_out_to_be_poison_after_the_store_was_lost_keeps_its_vector(hats):
    before = vector_of(hats.paths, "p1")
    lose_store(hats.paths)
    counts = run(hats.put("p1", BAD), Poisonable())
    assert (counts.deleted, counts.quarantined) == (0, 1)
    np.testing.assert_array_equal(vector_of(hats.paths, "p1"), before)
    assert audit(hats.paths).clean


@pytest.mark.parametrize("first", ["restore", pytest.param("run", marks=pytest.mark.slow)])
def test_a_held_pin_comes_back_from_the_log(hats, encoder, first):
    before = vector_of(hats.paths, "p1")
    assert run(hats.put("p1", "hat 1", description=INVALID), encoder).held == 1
    lose_store(hats.paths)
    if first == "restore":
        restore(hats.paths)
        np.testing.assert_array_equal(vector_of(hats.paths, "p1"), before)
        assert audit(hats.paths).clean
    counts = run(hats, encoder)
    assert (counts.held, counts.encoded_texts, counts.deleted) == (1, 0, 0)
    np.testing.assert_array_equal(vector_of(hats.paths, "p1"), before)
    found = audit(hats.paths)
    assert found.clean, found
    assert rows_of(hats.paths)[:3] == [True, False, True]  # no log has its row
    counts = run(hats.put("p1", "hat 1"), encoder)
    assert (counts.payload_only, counts.encoded_texts, counts.features["pin_text"]["changed"]) == (1, 0, 1)
    ((_, payload),) = stored(hats.paths, "p1")
    assert (payload["lang"], all(rows_of(hats.paths))) == ("en", True)
    assert audit(hats.paths).clean


@pytest.mark.slow
def test_a_held_pin_that_no_log_has_is_forgotten(hats, encoder):
    space = run(hats.put("p1", "hat 1", description=INVALID), encoder).space
    lose_store(hats.paths)
    vector_log.purge(hats.paths, space, 1, ["p1"], hats.NOW)
    run(hats, encoder)
    assert stored(hats.paths, "p1") == [None]
    assert audit(hats.paths).clean
    assert run(hats.put("p1", "hat 1"), encoder).new == 1


@pytest.mark.slow
def test_a_held_pin_that_a_killed_run_was_writing_agrees_with_the_log(hats, encoder):
    before = vector_of(hats.paths, "p1")
    hats.put("p1", "cap 1", lang="de").save()
    killed_run(hats.paths, "materialize.vector_log.append = bang")  # the store has the cap, the log the hat
    run(hats.put("p1", "cap 1", lang="de", description=INVALID), encoder)
    ((vector, payload),) = stored(hats.paths, "p1")
    np.testing.assert_array_equal(vector, before)
    assert payload["lang"] in ("de", "en")
    assert audit(hats.paths).clean


@pytest.mark.slow
def test_rows_of_held_pins_survive_where_others_of_the_view_were_lost(hats, encoder):
    hats.put("p1", "hat 1", description=INVALID).save()
    with Ledger(hats.paths) as ledger:  # as after the store lost some row of the view
        keys = ledger.entries("view:pin_text")
        ledger.doubt("view:pin_text", 1, keys["key"].to_pylist(), keys["event_timestamp"].to_pylist())
    run(hats, encoder)
    found = audit(hats.paths)
    assert found.clean, found
    assert all(rows_of(hats.paths))


def test_a_restore_tells_nothing_to_the_quarantine(hats):
    space = run(hats.put("p1", BAD), Poisonable()).space
    restore(hats.paths)
    assert list(quarantined(hats.paths, space)) == ["p1"]
