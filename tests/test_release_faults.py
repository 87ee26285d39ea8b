"""Releases, the gate and dropped spaces where something was lost or killed, or two did it at once."""

from dataclasses import replace
from functools import partial

import pytest
from test_materialize import run
from test_quarantine import Poisonable
from test_spaces import vectors_in
from test_spaces_release import LAX, hats, titles  # noqa: F401 - fixtures

from feature_repo.errors import PinfeatherError, UsageError
from materialize import releases, vector_log
from materialize.ledger import Ledger
from materialize.metrics import metrics_text
from materialize.places import open_store
from materialize.points import pin_point_id
from materialize.promotion import GateError, promote, rollback
from materialize.releases import current_release, past_release, publish_release, release_numbers
from materialize.space_admin import drop_space
from materialize.spaces import Status, change_space, freeze_space, load_space
from materialize.stores.publication import open_reader
from materialize.vector_export import export_vectors


def test_a_lost_release_manifest_stops_everybody_until_it_is_back(hats, titles, encoder):  # noqa: F811
    promote(hats.paths, titles, LAX)
    good = hats.paths.release.read_text()
    before = {file.name: file.read_text() for file in hats.paths.releases.iterdir()}
    hats.paths.release.unlink()
    publish = partial(publish_release, hats.paths, lexical="snapshot")
    for command in (partial(run, hats, encoder), publish, partial(rollback, hats.paths)):
        with pytest.raises(
            PinfeatherError, match=r"is gone, though there were releases\. Copy the newest good manifest"
        ):
            command()
    assert {file.name: file.read_text() for file in hats.paths.releases.iterdir()} == before
    hats.paths.release.write_text(before["000002.json"])
    assert before["000002.json"] == good
    assert run(hats, encoder).space == titles


def test_no_release_overwrites_one_that_served_even_after_an_older_one_came_back(hats, titles):  # noqa: F811
    promote(hats.paths, titles, LAX)
    first, second = (hats.paths.releases / f"00000{number}.json" for number in (1, 2))
    kept = second.read_text()
    hats.paths.release.write_text(first.read_text())
    assert publish_release(hats.paths, lexical="snapshot").number == 3
    assert second.read_text() == kept
    assert (release_numbers(hats.paths), rollback(hats.paths).space) == ([1, 2, 3], titles)


@pytest.mark.parametrize("written", [False, True], ids=["before the switch", "before its copy"])
def test_a_release_that_was_killed_serves_or_never_was(hats, titles, monkeypatch, written):  # noqa: F811
    before = current_release(hats.paths)
    plain = releases.write_json

    def killed(path, data):
        if path == hats.paths.release and written:
            plain(path, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(releases, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(hats.paths, titles, LAX)
    if not written:
        assert release_numbers(hats.paths) == [1]
        with pytest.raises(UsageError, match="There is no release 2; there are: 1"):
            rollback(hats.paths, 2)
        assert promote(hats.paths, titles, LAX).release == 2
    assert past_release(hats.paths, 2) == current_release(hats.paths)
    assert rollback(hats.paths).space == before.live_space
    assert [past_release(hats.paths, number).live_space for number in release_numbers(hats.paths)] == [
        before.live_space,
        titles,
        before.live_space,
    ]


def test_a_space_that_is_frozen_during_its_promotion_stays_frozen_and_not_live(hats, titles):  # noqa: F811
    before = current_release(hats.paths)

    def judge(space):
        if space.name == titles:
            freeze_space(hats.paths, titles)

    with pytest.raises(PinfeatherError, match="while it is frozen"):
        promote(hats.paths, titles, LAX, judge)
    assert (load_space(hats.paths, titles).status, current_release(hats.paths)) == (Status.FROZEN, before)


def test_a_point_in_quarantine_does_not_stand_in_for_one_that_was_lost(hats, titles):  # noqa: F811
    run(hats.put("p1", "poison", description="wool"), Poisonable())
    with open_store(hats.paths, "lose") as store:
        store.delete(titles, ids=[pin_point_id(hats.paths.project, "p2")])
        store.publish(current_release(hats.paths).to_json())
    with pytest.raises(GateError, match="10 of 11 pins with text have their vector, 1 pins are behind") as refused:
        promote(hats.paths, titles, LAX)
    assert refused.value.switch.checks[0].value < 1


def test_quarantine_and_metrics_go_with_their_space(hats, titles, encoder):  # noqa: F811
    run(hats.put("p1", "poison", description="wool"), Poisonable())
    with Ledger(hats.paths) as ledger:
        assert ledger.quarantined(titles)
    assert 'space="titles"' in metrics_text(hats.paths)
    drop_space(hats.paths, titles)
    with Ledger(hats.paths) as ledger:
        assert not ledger.quarantined(titles)
        assert ledger.quarantined(current_release(hats.paths).live_space)
    text = metrics_text(hats.paths)
    assert 'space="titles"' not in text
    assert f'space="{current_release(hats.paths).live_space}"' in text


@pytest.mark.slow
def test_a_pin_that_is_deleted_leaves_a_space_whose_drop_was_killed(hats, titles, encoder, tmp_path):  # noqa: F811
    change_space(hats.paths, titles, lambda space: replace(space, status=Status.DROPPING))
    assert vectors_in(hats.paths, titles, "p3")[0] is not None
    with pytest.raises(PinfeatherError, match="being dropped and cannot be exported"):
        export_vectors(hats.paths, 0, tmp_path / "out", titles)
    run(hats.put("p3", "hat 3", deleted_at=hats.NOW), encoder)
    assert vector_log.parts(hats.paths, titles) == []
    with open_reader(hats.paths.online) as store:
        assert titles not in store.collections()
    assert drop_space(hats.paths, titles)["points"] == 0
