"""Backfills that meet poison, emptied pins and lost stores: the space is ready only when it has every pin."""

import shutil

import numpy as np
import pytest
from test_quarantine import Poisonable
from test_spaces import fill, hats, titles, vectors_in  # noqa: F401 - fixtures

from feature_repo.errors import PinfeatherError
from materialize import vector_log
from materialize.repair import repair
from materialize.restore import restore
from materialize.run import RunOptions, materialize
from materialize.space_admin import backfill
from materialize.spaces import Status, freeze_space, load_space, unfreeze_space


def test_a_poison_pin_does_not_end_a_backfill_early(hats, titles):  # noqa: F811
    encoder = Poisonable(bad=lambda text: text == "hat 7")
    turns = fill(hats.paths, titles, encoder, turn=5)
    there = [pin for pin in hats.pins if vectors_in(hats.paths, titles, pin)[0] is not None]
    assert (len(there), load_space(hats.paths, titles).status) == (11, Status.READY)
    assert turns[-1].quarantined == 1
    (again,) = fill(hats.paths, titles, encoder)
    assert (again.new, again.quarantined, again.coverage) == (0, 1, 1.0)


def test_a_backfill_believes_no_source_whose_texts_are_gone(hats, titles, encoder):  # noqa: F811
    next(backfill(hats.paths, titles, RunOptions(encoder=encoder), turn=8))
    for number in range(12):
        hats.put(f"p{number}", None, description=f"wool {number}")
    hats.save()
    with pytest.raises(PinfeatherError, match="lost all the text"):
        fill(hats.paths, titles, encoder)
    assert sum(vector is not None for vector in vectors_in(hats.paths, titles, *hats.pins)) == 8


@pytest.mark.slow
def test_a_repair_keeps_the_points_of_a_frozen_space_whose_log_is_damaged(hats, titles, encoder):  # noqa: F811
    fill(hats.paths, titles, encoder)
    freeze_space(hats.paths, titles)
    vector_log.parts(hats.paths, titles)[-1].write_bytes(b"garbage")
    before = vectors_in(hats.paths, titles, *hats.pins)
    report = repair(hats.paths, RunOptions(encoder=encoder))
    assert report.after.clean, report.after
    np.testing.assert_array_equal(vectors_in(hats.paths, titles, *hats.pins), before)
    shutil.rmtree(hats.paths.online)
    restore(hats.paths)
    np.testing.assert_array_equal(vectors_in(hats.paths, titles, *hats.pins), before)


def test_a_ready_space_is_ready_again_after_a_frozen_time(hats, titles, encoder):  # noqa: F811
    fill(hats.paths, titles, encoder)
    for number in range(20, 23):
        hats.put(f"p{number}", f"cap {number}")
    hats.save()
    materialize(hats.paths, RunOptions(encoder=encoder, limit=1))
    assert load_space(hats.paths, titles).coverage < 1
    freeze_space(hats.paths, titles)
    freeze_space(hats.paths, titles)
    assert unfreeze_space(hats.paths, titles).status is Status.READY


@pytest.mark.slow
def test_coverage_after_a_restore_counts_no_pin_without_text(hats, encoder):  # noqa: F811
    hats.put("empty", None).put("blank", None).save()
    shutil.rmtree(hats.paths.online)
    shutil.rmtree(hats.paths.ledger)
    (live,) = restore(hats.paths)
    assert (live.upserted, live.coverage) == (12, 1.0)
