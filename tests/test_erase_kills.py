"""Erasures that are killed: the same command ends them, at whatever step that was."""

from contextlib import suppress
from unittest.mock import patch

import pytest
import run_deaths
from erase_shop import erased, log_rows, run, write_shop
from run_deaths import dying

from feature_repo.erasures import Subjects
from materialize.audit import audit
from materialize.erasure import flow
from materialize.erasure.check import check
from materialize.erasure.pending import is_pending
from materialize.releases import current_release
from materialize.stores.errors import StoreError


@pytest.fixture
def shop(prepared):
    """A repository with the small shop, written."""
    return prepared("erasures", write_shop)


STEPS = (
    "save_pending",
    "erase_pairs",
    "record",
    "rewrite_tables",
    "forget_state",
    "aggregate",
    "doubt_named",
    "materialize",
    "settle",
    "forget_notes",
    "open_store",
    "end_pending",
)
"""Steps of an erasure, as :mod:`materialize.erasure.flow` calls them."""


def kill(paths, encoder, step, done, call=1):
    """An erasure that is killed at a step, before it or when it is done."""
    with patch.dict(run_deaths.SEAMS, {step: run_deaths.Seam(flow, step)}), dying([step], call, done) as killed:
        erased(paths, encoder, users=["ann"], pins=["p5"])
    assert killed == [step]


@pytest.mark.slow
def test_an_erasure_that_is_killed_is_ended_by_the_same_command(shop, encoder):
    kill(shop, encoder, "materialize", False)
    assert is_pending(shop)
    assert erased(shop, encoder).resumed  # names need not be given again
    assert_erased(shop, encoder)
    assert len(encoder.texts) == 2


@pytest.mark.slow
def test_an_erasure_that_is_killed_again_and_again_gets_further(shop, encoder):
    for step in STEPS:
        if step != "end_pending":
            kill(shop, encoder, step, step not in ("aggregate", "settle"))
    assert erased(shop, encoder, users=["ann"], pins=["p5"]).resumed
    assert_erased(shop, encoder)
    assert len(encoder.texts) == 2


def assert_erased(paths, encoder):
    found = [place for place in check(paths, Subjects.of(users=["ann"], pins=["p5"])) if place.fails]
    assert not found, found
    assert log_rows(paths, current_release(paths).live_space) == dict.fromkeys(
        [f"p{n}" for n in range(10) if n != 5], 1
    )
    assert run(paths, encoder).quiet
    assert audit(paths).clean


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_every_step(shop, encoder, step, done):
    kill(shop, encoder, step, done)
    if step == "save_pending" and not done:
        assert not is_pending(shop)
    erased(shop, encoder, users=["ann"], pins=["p5"])
    assert_erased(shop, encoder)
    assert len(encoder.texts) == 2


@pytest.mark.slow
@pytest.mark.parametrize("call", range(1, 212, 10))
def test_killed_anywhere(shop, encoder, call):
    seams = [seam for seam in run_deaths.EVERYWHERE if seam != "publication"]
    with dying(seams, call, call % 2 == 0), suppress(StoreError):  # as which the store raises what is raised in it
        erased(shop, encoder, users=["ann"], pins=["p5"])
    erased(shop, encoder, users=["ann"], pins=["p5"])
    assert_erased(shop, encoder)
