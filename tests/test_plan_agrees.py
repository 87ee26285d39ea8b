"""A plan counts what the run after it does, also where the ledger, or what it was made with, is not believed."""

import shutil

import pytest
from test_materialize import run

from materialize.ledger import Ledger
from materialize.plan import plan
from materialize.plan_spaces import plan_spaces


@pytest.fixture
def hats(written_pins):
    """Ten pins, written."""
    return written_pins({f"p{number}": {"title": f"hat {number}"} for number in range(10)})


def rows(counts):
    return {view: (moved["changed"], moved["gone"]) for view, moved in counts.features.items()}


@pytest.mark.parametrize("column", ["engine", "definition"])
def test_rows_that_are_written_again_in_whole_are_planned(hats, encoder, column):
    with Ledger(hats.paths) as ledger:
        for space in ledger.spaces():
            kept = {"engine": ledger.engine(space), "definition": ledger.definition(space)}
            changed = {"engine": "duckdb-0.1", "definition": kept["definition"].replace('"project"', '"project" ')}
            ledger.set_engine(space, **{**kept, column: changed[column]})
    planned = plan(hats.paths)
    assert rows(planned)["pin_text"] == (10, 0)
    assert rows(planned) == rows(run(hats, encoder))
    assert (planned.unchanged, encoder.calls) == (10, [])


@pytest.mark.slow
def test_texts_that_come_from_the_log_are_planned_as_such(pinfeather, hats, encoder):
    shutil.rmtree(hats.paths.ledger)
    hats.put("new", "green hat").save()
    planned = plan_spaces(hats.paths)
    assert planned.to_json()["logged_texts"] == plan(hats.paths).logged_texts == 10
    assert (planned.new, planned.texts_to_encode) == (11, 11)
    code, _, err = pinfeather("plan", "--repo", hats.paths.root)
    assert (code, "the vector log has 10 of the texts" in err) == (0, True)
    done = run(hats, encoder)
    assert (encoder.texts, rows(done)) == (["green hat"], rows(planned))
    assert plan(hats.paths).logged_texts == 0
