"""Spaces beside the live one: made, filled, kept fresh, frozen, pinned, dropped."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CountingEncoder
from test_materialize import run, vector_of

from embedders.cut import CutEncoder, cut_fingerprint
from embedders.encoder import as_stored
from feature_repo.errors import PinfeatherError, UsageError
from materialize import vector_log
from materialize.definitions import load_definitions
from materialize.ledger import Ledger
from materialize.plan_spaces import plan_spaces
from materialize.points import pin_point_id
from materialize.restore import restore
from materialize.run import RunOptions, materialize
from materialize.space_admin import backfill, create_space, drop_space, list_spaces
from materialize.spaces import Status, freeze_space, load_space, pin_space, unfreeze_space, unpin_space
from materialize.stores.publication import open_reader
from serving_client import PinClient


def vectors_in(paths, space, *pin_ids):
    """Vectors of pins in a space as a reader sees them; None where there is no point."""
    project = load_definitions(paths).project
    with open_reader(paths.online) as store:
        ids = [pin_point_id(project, pin_id) for pin_id in pin_ids]
        return [point and point.vectors["vector"] for point in store.get_many(space, ids, with_vectors=True)]


def fill(paths, name, encoder, turn=1 << 16):
    """Backfill to the end; the counts of every turn."""
    return list(backfill(paths, name, RunOptions(encoder=encoder), turn))


@pytest.fixture
def hats(written_pins):
    """Twelve pins with a title and a description, in the live space."""
    return written_pins(
        {f"p{number}": {"title": f"hat {number}", "description": f"wool {number}"} for number in range(12)}
    )


@pytest.fixture
def titles(hats):
    """Name of a second, empty space whose template reads no description."""
    return create_space(hats.paths, "titles", without=["description"]).name


def test_a_backfill_writes_the_texts_of_the_spaces_own_template(hats, titles, encoder):
    assert load_space(hats.paths, titles).status == Status.BUILDING
    (turn,) = fill(hats.paths, titles, encoder)
    assert sorted(encoder.texts) == sorted(f"hat {number}" for number in range(12))
    assert (turn.new, turn.encoded_texts, turn.encoder_calls, turn.upserted) == (12, 12, 1, 12)
    np.testing.assert_array_equal(vectors_in(hats.paths, titles, "p3")[0], vector_of(encoder, "hat 3"))
    space = load_space(hats.paths, titles)
    assert (space.status, space.coverage) == (Status.READY, 1.0)
    encoder.calls = []
    assert run(hats, encoder).quiet
    assert encoder.calls == []


def test_the_client_reads_any_standing_space(hats, titles, encoder):
    fill(hats.paths, titles, encoder)
    live = list_spaces(hats.paths)[0]["name"]
    with PinClient(hats.paths.root, encoder=encoder) as client:
        ours, theirs = client.pin_embeddings(["p3"]), client.pin_embeddings(["p3", "nobody"], space=titles)
    assert (ours.space, theirs.space, theirs.found.tolist()) == (live, titles, [True, False])
    np.testing.assert_array_equal(ours.vectors[0], vector_of(encoder, "hat 3 | wool 3"))
    np.testing.assert_array_equal(theirs.vectors[0], vector_of(encoder, "hat 3"))


def test_a_backfill_in_turns_keeps_the_live_space_fresh_meanwhile(hats, titles, encoder):
    live = list_spaces(hats.paths)[0]["name"]
    turns = backfill(hats.paths, titles, RunOptions(encoder=encoder), turn=5)
    first = next(turns)
    assert (first.new, load_space(hats.paths, titles).status) == (5, Status.BUILDING)
    filled = [pin for pin in hats.pins if vectors_in(hats.paths, titles, pin)[0] is not None]
    waiting = [pin for pin in hats.pins if pin not in filled]
    assert len(filled) == 5
    gone, edited = filled[0], filled[1]
    del hats.pins[gone]
    hats.put(edited, "cap", description="wool").put("p12", "hat 12").save()
    encoder.calls = []
    second = next(turns)
    assert second.new == 5
    assert vectors_in(hats.paths, live, gone) == vectors_in(hats.paths, titles, gone) == [None]
    np.testing.assert_array_equal(vectors_in(hats.paths, live, edited)[0], vector_of(encoder, "cap | wool"))
    assert [turn.new for turn in turns] == [3]
    np.testing.assert_array_equal(vectors_in(hats.paths, titles, edited)[0], vector_of(encoder, "cap"))
    assert all(each is not None for each in vectors_in(hats.paths, titles, *hats.pins))
    later = [f"hat {pin[1:]}" for pin in [*waiting, "p12"]]
    assert sorted(encoder.texts) == sorted(["cap | wool", "hat 12", "cap", *later])
    assert load_space(hats.paths, titles).coverage == 1.0


def test_a_run_adds_no_pin_to_a_space_that_is_being_built_but_keeps_those_it_has(hats, titles, encoder):
    next(backfill(hats.paths, titles, RunOptions(encoder=encoder), turn=3))
    known = {pin for pin in hats.pins if vectors_in(hats.paths, titles, pin)[0] is not None}
    assert len(known) == 3
    edited = sorted(known)[0]
    encoder.calls = []
    counts = run(hats.put(edited, "cap", description="wool"), encoder)
    assert encoder.texts == ["cap | wool", "cap"]
    other = counts.spaces[titles]
    assert (other.scope, other.changed, other.new, other.waiting) == ("known", 1, 0, 9)
    assert sum(each is not None for each in vectors_in(hats.paths, titles, *hats.pins)) == 3


def test_plan_counts_every_space_that_a_run_would_write(hats, titles, encoder):
    fill(hats.paths, titles, encoder)
    hats.put("p1", "cap 1", description="wool 1").put("p2", "hat 2", description="silk").save()
    planned = plan_spaces(hats.paths)
    assert (planned.changed, planned.texts_to_encode) == (2, 2)
    other = planned.spaces[titles]
    assert (other.changed, other.texts_to_encode, other.encoder_calls) == (1, 1, 0)
    alone = plan_spaces(hats.paths, only=titles)
    assert (alone.space, alone.changed, alone.features, alone.spaces) == (titles, 1, {}, {})
    encoder.calls = []
    counts = materialize(hats.paths, RunOptions(encoder=encoder))
    assert sorted(encoder.texts) == ["cap 1", "cap 1 | wool 1", "hat 2 | silk"]
    assert (counts.encoded_texts, counts.spaces[titles].encoded_texts) == (2, 1)


@pytest.mark.slow
def test_a_run_over_one_space_leaves_the_others_alone(hats, titles, encoder):
    fill(hats.paths, titles, encoder)
    encoder.calls = []
    hats.put("p1", "cap 1", description="wool 1").save()
    counts = materialize(hats.paths, RunOptions(encoder=encoder, space=titles))
    assert (counts.space, encoder.texts, counts.features) == (titles, ["cap 1"], {})
    assert run(hats, encoder).changed == 1


def test_deleted_pins_leave_every_space_and_log_in_one_run(hats, titles, encoder):
    fill(hats.paths, titles, encoder)
    freeze_space(hats.paths, titles)
    del hats.pins["p3"]
    counts = run(hats.put("p4", "hat 4", deleted_at=hats.NOW), encoder)
    assert (counts.deleted, counts.spaces[titles].deleted) == (2, 2)
    for space in (counts.space, titles):
        assert vectors_in(hats.paths, space, "p3", "p4") == [None, None]
        assert {"p3", "p4"}.isdisjoint(vector_log.read_live(hats.paths, space)[0])
        notes = [pq.read_table(file) for file in vector_log.deletions(hats.paths, space)]
        assert sorted(pin for note in notes for pin in note["pin_id"].to_pylist()) == ["p3", "p4"]


def test_a_frozen_space_follows_no_edit_until_it_is_unfrozen(hats, titles, encoder):
    fill(hats.paths, titles, encoder)
    freeze_space(hats.paths, titles)
    before = vectors_in(hats.paths, titles, "p1")[0]
    encoder.calls = []
    counts = run(hats.put("p1", "cap", description="wool").put("p20", "new"), encoder)
    assert sorted(encoder.texts) == ["cap | wool", "new"]
    assert (counts.spaces[titles].scope, counts.spaces[titles].waiting) == ("frozen", 2)
    np.testing.assert_array_equal(vectors_in(hats.paths, titles, "p1")[0], before)
    assert vectors_in(hats.paths, titles, "p20") == [None]
    with pytest.raises(PinfeatherError, match="unfreeze titles"):
        fill(hats.paths, titles, encoder)
    assert unfreeze_space(hats.paths, titles).status == Status.READY
    encoder.calls = []
    assert run(hats, encoder).spaces[titles].encoded_texts == 2
    assert sorted(encoder.texts) == ["cap", "new"]


@pytest.mark.slow
def test_a_frozen_space_that_lost_its_points_gets_them_back_as_they_were(hats, titles, encoder):
    fill(hats.paths, titles, encoder)
    freeze_space(hats.paths, titles)
    run(hats.put("p1", "cap", description="wool"), encoder)
    shutil.rmtree(hats.paths.online)
    encoder.calls = []
    run(hats, encoder)
    assert encoder.calls == []
    np.testing.assert_array_equal(vectors_in(hats.paths, titles, "p1")[0], vector_of(encoder, "hat 1"))
    assert None not in [each if each is None else 1 for each in vectors_in(hats.paths, titles, *hats.pins)]
    unfreeze_space(hats.paths, titles)
    assert run(hats, encoder).spaces[titles].changed == 1


def test_a_pinned_space_is_neither_dropped_nor_frozen(hats, titles):
    pin_space(hats.paths, titles, "related-pins")
    for refused in (drop_space, freeze_space):
        with pytest.raises(PinfeatherError, match="related-pins"):
            refused(hats.paths, titles)
    with pytest.raises(UsageError, match="'ads' does not pin space titles; it is pinned by related-pins"):
        unpin_space(hats.paths, titles, "ads")
    unpin_space(hats.paths, titles, "related-pins")
    freeze_space(hats.paths, titles)
    with pytest.raises(PinfeatherError, match="unfreeze"):
        pin_space(hats.paths, titles, "ads")


def test_a_dropped_space_leaves_nothing_behind_and_the_live_one_is_not_dropped(hats, titles, encoder):
    fill(hats.paths, titles, encoder)
    live = list_spaces(hats.paths)[0]["name"]
    with pytest.raises(PinfeatherError, match="release 1 names it as the live space"):
        drop_space(hats.paths, live)
    with pytest.raises(PinfeatherError, match="live"):
        freeze_space(hats.paths, live)
    assert drop_space(hats.paths, titles) == {"space": titles, "points": 12, "apply_needed": False}
    assert [one["name"] for one in list_spaces(hats.paths)] == [live]
    with Ledger(hats.paths) as ledger, open_reader(hats.paths.online) as store:
        assert titles not in ledger.spaces()
        assert titles not in store.collections()
    assert not (hats.paths.vectors / titles).exists()
    encoder.calls = []
    assert run(hats, encoder).spaces == {}
    again = create_space(hats.paths, titles, without=["description"])
    assert fill(hats.paths, again.name, encoder)[0].encoded_texts == 12


@pytest.mark.slow
def test_a_killed_drop_is_ended_by_another_and_no_run_touches_the_space(hats, titles, encoder, monkeypatch):
    fill(hats.paths, titles, encoder)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "forget", killed)
        with pytest.raises(KeyboardInterrupt):
            drop_space(hats.paths, titles)
    assert load_space(hats.paths, titles).status == Status.DROPPING
    assert run(hats, encoder).spaces == {}
    with pytest.raises(UsageError, match="spaces drop titles"):
        fill(hats.paths, titles, encoder)
    drop_space(hats.paths, titles)
    assert not (hats.paths.spaces / f"{titles}.json").exists()


def test_a_cut_space_holds_the_first_components_at_unit_length(hats, encoder):
    space = create_space(hats.paths, dimension=16)
    assert space.name.endswith("-d16")
    assert space.model_fingerprint == cut_fingerprint(encoder.fingerprint, 16) != encoder.fingerprint
    fill(hats.paths, space.name, encoder)
    (vector,) = vectors_in(hats.paths, space.name, "p3")
    whole = CountingEncoder().encode(["hat 3 | wool 3"])[0]
    np.testing.assert_array_equal(vector, as_stored(whole[:16] / np.linalg.norm(whole[:16])))
    with PinClient(hats.paths.root, encoder=encoder) as client:
        query = client.embed_queries(["hat 3 | wool 3"], space=space.name)
        assert query.vectors.shape == (1, 16)
        assert query.model == space.model_fingerprint
        np.testing.assert_array_equal(query.vectors[0], vector)
        with pytest.raises(PinfeatherError, match="takes query vectors"):
            client._towers._fitted(load_space(hats.paths, space.name), Stranger())


class Stranger(CountingEncoder):
    """An encoder of another model."""

    def __init__(self):
        super().__init__()
        self.fingerprint = "another"


def test_a_space_of_another_model_refuses_this_encoder(hats, encoder):
    with pytest.raises(UsageError, match="384"):
        CutEncoder(encoder, 384)
    with pytest.raises(UsageError, match="between 1 and 383"):
        create_space(hats.paths, dimension=384)
    with pytest.raises(PinfeatherError, match="holds vectors of the tower"):
        run(hats.put("p1", "cap"), Stranger())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Titles", {}, "lower-case letters"),
        ("live", {}, "cannot be called"),
        ("pin_student_embedding", {}, "cannot be called"),
        ("titles", {"without": ["description"]}, "There is a space titles already"),
        ("other", {"without": ["description"]}, "Space titles has the same model"),
        ("other", {}, "has the same model, template and dimension"),
        ("other", {"without": ["colour"]}, "colour"),
        ("other", {"model": "/nowhere"}, "no model folder"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_words(hats, titles, name, options, message):
    with pytest.raises(PinfeatherError, match=message):
        create_space(hats.paths, name, **options)
    assert {one["name"] for one in list_spaces(hats.paths)} == {titles, list_spaces(hats.paths)[0]["name"]}


def test_no_space_before_the_first_run(catalogue):
    catalogue.put("a", "hat").save()
    with pytest.raises(PinfeatherError, match="pinfeather materialize"):
        create_space(catalogue.paths, "titles", without=["description"])
    assert list_spaces(catalogue.paths) == []


@pytest.mark.slow
def test_a_lost_store_is_restored_without_a_model(hats, titles, encoder):
    from materialize.audit import audit

    fill(hats.paths, titles, encoder)
    before = {space: vectors_in(hats.paths, space, "p3")[0] for space in ("titles", list_spaces(hats.paths)[0]["name"])}
    shutil.rmtree(hats.paths.online)
    encoder.calls = []
    live, other = restore(hats.paths)
    assert (live.upserted, live.waiting, other.upserted, other.waiting) == (12, 0, 12, 0)
    assert live.features["pin_text"]["changed"] == 12
    for space, vector in before.items():
        np.testing.assert_array_equal(vectors_in(hats.paths, space, "p3")[0], vector)
    result = audit(hats.paths)
    assert result.clean, result
    assert run(hats, encoder).quiet
    assert encoder.calls == []


@pytest.mark.slow
def test_a_lost_store_and_a_lost_ledger_are_restored_from_log_and_sources(hats, titles, encoder):
    from materialize.audit import audit

    shutil.rmtree(hats.paths.online)
    shutil.rmtree(hats.paths.ledger)
    del hats.pins["p0"]
    hats.put("p1", "cap", description="wool").put("p20", "new").save()
    (live,) = restore(hats.paths, "live")
    assert (live.upserted, live.waiting) == (11, 1)  # p20 was never encoded, p0 does not come back
    assert vectors_in(hats.paths, live.space, "p0") == [None]
    np.testing.assert_array_equal(vectors_in(hats.paths, live.space, "p1")[0], vector_of(encoder, "hat 1 | wool 1"))
    encoder.calls = []
    run(hats, encoder)
    assert sorted(encoder.texts) == ["cap | wool", "new"]
    result = audit(hats.paths)
    assert result.clean, result
