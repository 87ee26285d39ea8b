"""Poison texts: found by halving, set aside, and no reason to stop; a broken encoder is one."""

import json

import numpy as np
import pytest
from conftest import CountingEncoder
from test_materialize import killed_run, run, stored

from embedders.encoder import EncodingError
from materialize.audit import audit
from materialize.ledger import Ledger
from materialize.plan import plan
from materialize.quarantine import GIVE_UP_AFTER, EncoderFailedError
from materialize.runs import list_runs

BAD = "a poison hat"


class Poisonable(CountingEncoder):
    """Raises on a batch with a poison text, or gives it a vector that is none."""

    def __init__(self, how="raise", bad=lambda text: "poison" in text):
        super().__init__()
        self.how, self.bad = how, bad

    def encode(self, texts, progress=None):
        vectors = super().encode(texts)
        bad = [row for row, text in enumerate(texts) if self.bad(text)]
        if bad and self.how == "raise":
            raise EncodingError("no vector for this text")
        if bad:
            vectors[bad] = self.how
        return vectors


def fill(catalogue, *titles):
    for number, title in enumerate(titles):
        catalogue.put(f"p{number}", title)
    return catalogue


def quarantined(paths, space):
    with Ledger(paths) as ledger:
        return {pin.pin_id: pin for pins in ledger.quarantined(space).values() for pin in pins}


def test_the_batch_is_halved_until_the_poison_is_alone_and_the_rest_is_written(catalogue):
    encoder = Poisonable()
    fill(catalogue, "hat 0", "hat 1", "hat 2", "hat 3", "hat 4", BAD, "hat 6", "hat 7")
    counts = run(catalogue, encoder)
    # 8 fail, 4 go, 4 fail, 2 fail, 1 goes, 1 fails, 2 go: which half holds the poison depends on no order.
    assert counts.encoder_calls == len(encoder.calls) == 7
    assert [len(call) for call in encoder.calls if any(map(encoder.bad, call))] == [8, 4, 2, 1]
    assert (counts.new, counts.rejected, counts.quarantined, counts.encoded_texts) == (7, 1, 1, 7)
    assert [point is None for point in stored(catalogue.paths, "p4", "p5", "p6")] == [False, True, False]
    row = quarantined(catalogue.paths, counts.space)["p5"]
    assert (row.reason, row.run) == ("EncodingError: no vector for this text", list_runs(catalogue.paths)[0]["run"])
    found = audit(catalogue.paths)
    assert (found.clean, found.quarantined) == (True, 1)


def test_the_next_run_skips_the_text_until_it_changes(catalogue):
    encoder = Poisonable()
    run(fill(catalogue, "hat 0", BAD), encoder)
    encoder.calls = []
    planned = plan(catalogue.paths)
    assert (planned.new, planned.texts_to_encode, planned.quarantined, planned.rejected) == (0, 0, 1, 1)
    counts = run(catalogue.put("p2", BAD), encoder)  # another pin, the same text
    assert (encoder.calls, counts.quarantined, counts.rejected) == ([], 2, 2)
    counts = run(catalogue.put("p1", "a harmless hat"), encoder)
    assert (encoder.texts, counts.new, counts.quarantined) == (["a harmless hat"], 1, 1)
    del catalogue.pins["p2"]
    space = run(catalogue, encoder).space
    assert quarantined(catalogue.paths, space) == {}
    assert audit(catalogue.paths).clean


@pytest.mark.slow
def test_a_quarantined_text_is_tried_again_when_asked(catalogue, encoder):
    run(fill(catalogue, "hat 0", BAD), Poisonable())
    assert run(catalogue, encoder).encoded_texts == 0
    counts = run(catalogue, encoder, retry_quarantined=True)
    assert (encoder.texts, counts.new, counts.rejected) == ([BAD], 1, 0)
    assert quarantined(catalogue.paths, counts.space) == {}


@pytest.mark.parametrize("value", [np.nan, *(pytest.param(value, marks=pytest.mark.slow) for value in (np.inf, 0.0))])
def test_a_vector_that_is_none_is_poison_and_costs_no_halving(catalogue, value):
    encoder = Poisonable(how=value)
    counts = run(fill(catalogue, "hat 0", BAD, "hat 2"), encoder)
    assert (counts.encoder_calls, counts.new, counts.quarantined) == (1, 2, 1)
    assert "length" in quarantined(catalogue.paths, counts.space)["p1"].reason


def test_a_pin_whose_new_text_is_poison_keeps_its_last_vector(catalogue, encoder):
    run(fill(catalogue, "hat 0", "hat 1"), encoder)
    before = stored(catalogue.paths, "p1")
    counts = run(catalogue.put("p1", BAD), Poisonable())
    assert (counts.changed, counts.quarantined) == (0, 1)
    np.testing.assert_array_equal(stored(catalogue.paths, "p1")[0][0], before[0][0])
    found = audit(catalogue.paths)
    assert (found.clean, found.quarantined) == (True, 1), found


@pytest.mark.slow
def test_a_poison_pin_that_a_killed_run_left_in_doubt_gets_its_logged_vector(catalogue, encoder):
    run(fill(catalogue, *(f"hat {number}" for number in range(12))), encoder)
    before = stored(catalogue.paths, "p1")
    catalogue.put("p1", BAD).save()
    killed_run(catalogue.paths, "materialize.vector_log.append = bang")  # the log has the old vector
    counts = run(catalogue, Poisonable())
    assert (counts.deleted, counts.quarantined) == (0, 1)
    np.testing.assert_array_equal(stored(catalogue.paths, "p1")[0][0], before[0][0])
    assert audit(catalogue.paths).clean


@pytest.mark.slow
def test_a_poison_pin_that_a_killed_run_left_in_doubt_and_no_log_has_is_deleted(catalogue, encoder):
    run(fill(catalogue, *(f"hat {number}" for number in range(12))), encoder)
    catalogue.put("new", BAD).save()
    killed_run(catalogue.paths, "materialize.vector_log.append = bang")
    run(catalogue, Poisonable())
    assert stored(catalogue.paths, "new") == [None]
    assert audit(catalogue.paths).clean


@pytest.mark.slow
def test_many_poison_texts_in_a_row_stop_nothing(catalogue):
    poison = [f"{BAD} {number}" for number in range(3 * GIVE_UP_AFTER)]
    encoder = Poisonable()
    counts = run(fill(catalogue, *poison, "hat 0", "hat 1"), encoder)
    assert (counts.new, counts.quarantined) == (2, len(poison))
    assert stored(catalogue.paths, f"p{len(poison)}")[0] is not None
    probes = encoder.texts.count("a pin")
    assert 1 <= probes <= 3  # one for every ten that failed in a row
    encoder.calls = []
    assert run(catalogue, encoder).quarantined == len(poison)
    assert encoder.calls == []
    found = audit(catalogue.paths)
    assert (found.clean, found.quarantined) == (True, len(poison)), found


@pytest.mark.slow
def test_many_vectors_that_are_none_cost_one_probe(catalogue):
    encoder = Poisonable(how=np.nan)
    counts = run(fill(catalogue, *(f"{BAD} {number}" for number in range(3 * GIVE_UP_AFTER))), encoder)
    assert (counts.quarantined, counts.encoder_calls) == (3 * GIVE_UP_AFTER, 2)
    assert [set(call) for call in encoder.calls[1:]] == [{"a pin"}]


def test_an_encoder_that_fails_on_everything_ends_the_run_and_quarantines_nothing(catalogue):
    fill(catalogue, *(f"hat {number}" for number in range(64)))
    encoder = Poisonable(bad=lambda text: True)
    with pytest.raises(
        EncoderFailedError, match=rf"{GIVE_UP_AFTER} texts failed one after the other, a harmless.*--device"
    ):
        run(catalogue, encoder)
    assert sum(len(call) == 1 for call in encoder.calls) == GIVE_UP_AFTER + 1
    (row,) = list_runs(catalogue.paths)
    assert row["status"] == "failed"
    assert "no vector for this text" in row["error"]
    assert quarantined(catalogue.paths, row["space"]) == {}
    assert run(catalogue, CountingEncoder()).new == 64


@pytest.mark.slow
def test_an_encoder_that_breaks_on_the_way_keeps_what_was_committed(catalogue, monkeypatch):
    monkeypatch.setattr("materialize.run.BATCH_TEXTS", 4)
    fill(catalogue, *(f"hat {number}" for number in range(32)))
    encoder = Poisonable()
    encoder.bad = lambda text: len(encoder.calls) > 2  # the third call and all after it
    with pytest.raises(EncoderFailedError):
        run(catalogue, encoder)
    (row,) = list_runs(catalogue.paths)
    assert quarantined(catalogue.paths, row["space"]) == {}
    counts = run(catalogue, CountingEncoder())
    assert (counts.encoded_texts, counts.unchanged) == (24, 8)
    assert audit(catalogue.paths).clean


@pytest.mark.slow
def test_a_broken_encoder_is_told_from_poison_where_few_pins_are_written(catalogue):
    with pytest.raises(EncoderFailedError, match="a harmless one too"):
        run(fill(catalogue, "hat 0", "hat 1"), Poisonable(bad=lambda text: True))
    counts = run(catalogue.put("p0", BAD).put("p1", None), Poisonable())
    assert (counts.quarantined, counts.rejected) == (1, 2)


def test_plan_explain_names_the_reason(pinfeather, catalogue):
    run(fill(catalogue, "hat 0", BAD), Poisonable())
    code, out, _ = pinfeather("plan", "--repo", catalogue.paths.root, "--explain", "p1", "--json")
    answer = json.loads(out)
    assert (code, answer["state"], answer["reason"]) == (0, "quarantined", "EncodingError: no vector for this text")
    code, _, err = pinfeather("plan", "--repo", catalogue.paths.root)
    assert code == 3
    assert "1 of them are in quarantine" in err
