"""What serves: the gate, the switch, the way back, and readers while it happens."""

import threading
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_catalogue import WordEncoder
from conftest import CountingEncoder
from test_materialize import killed_run, run
from test_spaces import fill, vectors_in

from embedders.bundle import StudentBundle
from embedders.evaluation.metrics import ndcg_by_query
from embedders.relevance import feature_names
from embedders.student import RelevanceHead
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import DEFAULT_TEMPLATE
from materialize.audit import audit
from materialize.comparison import diff_spaces
from materialize.definitions import load_definitions
from materialize.encoders import Encoders
from materialize.promotion import Gate, GateError, promote, rollback
from materialize.releases import LIVE_EMBEDDING, current_release, past_release, publish_release
from materialize.run import RunOptions, materialize
from materialize.space_admin import create_space, drop_space, list_spaces
from materialize.spaces import freeze_space, load_space, unfreeze_space
from materialize.stores.publication import open_reader, open_writer
from materialize.stores.session import close_all
from pinfeather.apply import apply_definitions
from pinfeather.promoting import judge_by_cosine
from serving_client import PinClient

LAX = Gate(overlap_min=0.0)


@pytest.fixture
def hats(request, written_pins):
    """Twelve pins in the live space, and in that of ``titles`` for tests that ask for it."""
    pins = {f"p{number}": {"title": f"hat {number}", "description": f"wool {number}"} for number in range(12)}
    return written_pins(pins, then=add_titles if "titles" in request.fixturenames else None)


def add_titles(catalogue):
    """Fill a second space, ``titles``, that reads titles only."""
    create_space(catalogue.paths, "titles", without=["description"])
    fill(catalogue.paths, "titles", CountingEncoder())


@pytest.fixture
def titles(hats):
    """Name of that second space."""
    return load_space(hats.paths, "titles").name


def live_of(paths):
    return current_release(paths).live_space


def test_a_promotion_switches_readers_runs_and_the_batch_source(hats, titles, encoder):
    before = live_of(hats.paths)
    switch = promote(hats.paths, titles, LAX)
    assert (switch.space, switch.former_space, switch.switched) == (titles, before, True)
    assert [(check.name, check.passed) for check in switch.checks] == [("coverage", True), ("overlap@10", True)]
    assert switch.checks[0].value == 1.0
    with open_reader(hats.paths.online) as store:
        assert store.release["names"] == {LIVE_EMBEDDING: titles}
        assert store.release["number"] == switch.release == current_release(hats.paths).number
    assert (hats.paths.vectors / LIVE_EMBEDDING).resolve() == (hats.paths.vectors / titles).resolve()
    assert audit(hats.paths).clean
    assert run(hats, encoder).quiet
    assert encoder.calls == []
    counts = run(hats.put("p1", "cap", description="wool"), encoder)
    assert (counts.space, counts.encoded_texts, counts.spaces[before].encoded_texts) == (titles, 1, 1)
    assert audit(hats.paths).clean
    with pytest.raises(UsageError, match="live already"):
        promote(hats.paths, titles, LAX)


def test_a_rollback_is_a_new_release_that_says_what_the_old_one_said(hats, titles, encoder):
    before = live_of(hats.paths)
    promoted = promote(hats.paths, titles, LAX)
    back = rollback(hats.paths)
    assert (back.space, back.former_space, back.release) == (before, titles, promoted.release + 1)
    assert past_release(hats.paths, back.release).names == past_release(hats.paths, promoted.former_release).names
    with open_reader(hats.paths.online) as store:
        assert store.release["names"] == {LIVE_EMBEDDING: before}
    assert run(hats, encoder).quiet
    assert rollback(hats.paths).space == titles
    assert rollback(hats.paths, to=1).space == before
    with pytest.raises(UsageError, match="nothing to go back to"):
        rollback(hats.paths, to=1)
    with pytest.raises(UsageError, match="There is no release 99; there are: 1, 2"):
        rollback(hats.paths, to=99)


@pytest.mark.slow
def test_a_rollback_to_a_space_that_is_frozen_stale_or_gone_is_refused(hats, titles, encoder):
    before = live_of(hats.paths)
    promote(hats.paths, titles, LAX)
    freeze_space(hats.paths, before)
    with pytest.raises(PinfeatherError, match="while it is frozen"):
        rollback(hats.paths)
    run(hats.put("p1", "cap", description="silk"), encoder)
    unfreeze_space(hats.paths, before)
    with pytest.raises(PinfeatherError, match="1 pins behind its source, the live one 0"):
        rollback(hats.paths)
    run(hats, encoder)
    assert rollback(hats.paths).space == before
    rollback(hats.paths)
    drop_space(hats.paths, before)
    with pytest.raises(PinfeatherError, match="its space is gone"):
        rollback(hats.paths)


def test_the_first_release_has_none_before_it(hats):
    with pytest.raises(UsageError, match="no former release"):
        rollback(hats.paths)


@pytest.mark.parametrize("edit", ["changed", *(pytest.param(edit, marks=pytest.mark.slow) for edit in ("new", "gone"))])
def test_a_space_that_is_behind_its_source_is_not_promoted(hats, titles, encoder, edit):
    match edit:
        case "new":
            hats.put("p20", "another")
        case "changed":
            hats.put("p1", "cap", description="wool")
        case "gone":
            del hats.pins["p3"]
    hats.save()
    with pytest.raises(GateError, match="behind their source") as refused:
        promote(hats.paths, titles, LAX)
    assert not refused.value.switch.checks[0].passed
    assert live_of(hats.paths) != titles
    run(hats, encoder)
    assert promote(hats.paths, titles, LAX).switched


def test_a_space_that_is_being_built_or_frozen_is_not_promoted(hats, encoder):
    create_space(hats.paths, "small", dimension=8)
    with pytest.raises(PinfeatherError, match="while it is building: end its `pinfeather spaces backfill small`"):
        promote(hats.paths, "small", LAX)
    fill(hats.paths, "small", encoder)
    freeze_space(hats.paths, "small")
    with pytest.raises(PinfeatherError, match="while it is frozen"):
        promote(hats.paths, "small", LAX)


def test_points_that_were_lost_count_against_coverage(hats, titles, encoder):
    with open_writer(hats.paths.online) as store:
        points, _ = store.scroll(titles, limit=3)
        store.delete(titles, ids=[point.id for point in points])
        store.publish()
    with pytest.raises(GateError, match="9 of 12 pins"):
        promote(hats.paths, titles, LAX)


class Topics(CountingEncoder):
    """Every text lies near the direction of its first word."""

    def encode(self, texts, progress=None):
        near = super().encode(texts)
        self.calls[-1:] = [list(texts)]
        heads = CountingEncoder().encode([text.split()[0] for text in texts])
        rows = 20 * heads + near
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_space_with_other_neighbours_is_not_promoted_unless_forced(catalogue):
    for number in range(60):
        catalogue.put(f"p{number}", f"{'abc'[number % 3]} {number}", description=f"{'xyz'[number // 20]} {number}")
    run(catalogue, Topics())
    name = create_space(catalogue.paths, "described", without=["title"]).name
    fill(catalogue.paths, name, Topics())
    with pytest.raises(GateError, match=r"at least 0\.9") as refused:
        promote(catalogue.paths, name, Gate(overlap_min=0.9))
    overlap = refused.value.switch.checks[1]
    assert (overlap.passed, overlap.bound) == (False, 0.9)
    assert 0.1 < overlap.value < 0.6
    assert live_of(catalogue.paths) != name
    assert promote(catalogue.paths, name, Gate(overlap_min=0.9, force=True)).switched


def test_neighbour_overlap_is_exact_and_blind_to_ties(hats, titles, encoder):
    live = live_of(hats.paths)
    for number in range(12, 40):
        hats.put(f"p{number}", "the same hat", description="the same wool")
    run(hats, encoder)
    found = diff_spaces(hats.paths, "live", titles, sample=40)
    assert (found["points_a"], found["points_b"], found["common"], found["sample"]) == (40, 40, 40, 40)
    ids = list(hats.pins)
    overlaps, cosines = [], []
    ours, theirs = np.stack(vectors_in(hats.paths, live, *ids)), np.stack(vectors_in(hats.paths, titles, *ids))
    for row in range(40):
        a, b = ours @ ours[row], theirs @ theirs[row]
        a[row] = b[row] = -9
        near = np.argsort(-a, kind="stable")[:10]
        overlaps.append(np.mean(b[near] >= np.sort(b)[-10] - 1e-6))
        cosines.append(ours[row] @ theirs[row])
    assert np.mean(overlaps[12:]) == 1.0  # whichever of its 27 twins are found, each is as near there
    assert found["overlap@10"] == pytest.approx(np.mean(overlaps), abs=1e-9)
    assert 0.75 < found["overlap@10"] < 1
    assert found["mean_cosine"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert diff_spaces(hats.paths, "live", live)["overlap@10"] == 1.0


def judge_pins(catalogue, rows):
    """Write judgments (query, pin, level) and validate them."""
    folder = catalogue.paths.raw / "judgments"
    folder.mkdir(parents=True, exist_ok=True)
    table = [{"query": q, "pin_id": p, "level": level, "event_timestamp": catalogue.NOW} for q, p, level in rows]
    pq.write_table(pa.Table.from_pylist(table), folder / "part-0.parquet")
    catalogue.save()


def test_ndcg_on_the_judgments_is_part_of_the_gate(catalogue):
    encoder = WordEncoder()
    words = ["velvet sofa", "oak table", "fern pot", "tomato pasta"]
    for number, text in enumerate(words):
        catalogue.put(f"p{number}", text, description=words[3 - number])
    run(catalogue, encoder)
    judge_pins(catalogue, [(text, f"p{pin}", 5 if pin == n else 1) for n, text in enumerate(words) for pin in range(4)])
    run(catalogue, encoder)
    for name, without in (("titles", "description"), ("descriptions", "title")):
        create_space(catalogue.paths, name, without=[without])
        fill(catalogue.paths, name, encoder)
    judge = judge_by_cosine(catalogue.paths, Encoders(given=encoder))
    levels = np.array([5 if pin == n else 1 for n in range(4) for pin in range(4)])
    queries = encoder.encode(words)
    for name in ("titles", "descriptions"):
        pins = np.stack(vectors_in(catalogue.paths, name, "p0", "p1", "p2", "p3"))
        expected = ndcg_by_query(levels, (queries @ pins.T).ravel(), np.repeat(np.arange(4), 4)).mean()
        assert judge(load_space(catalogue.paths, name)) == pytest.approx(expected, abs=1e-3)
    with pytest.raises(GateError, match=r"nDCG@20 by cosine is 0\.\d+, in the live space"):
        promote(catalogue.paths, "descriptions", LAX, judge)
    switch = promote(catalogue.paths, "titles", LAX, judge)
    assert [check.name for check in switch.checks] == ["coverage", "overlap@10", "ndcg@20"]
    assert switch.checks[2].value == 1.0


def test_without_judgments_ndcg_is_said_to_be_not_compared(hats, titles, encoder):
    switch = promote(hats.paths, titles, LAX, judge_by_cosine(hats.paths, Encoders(given=encoder)))
    assert (switch.checks[2].value, switch.checks[2].passed) == (None, True)


def student(paths, name, space, encoder):
    """A bundle that says it was trained on ``space``."""
    names = feature_names(load_space(paths, space).dimension)
    arrays = [np.zeros(len(names), np.float32), np.ones(len(names), np.float32)]
    head = RelevanceHead(names, *arrays, np.zeros((len(names), 5), np.float32), np.zeros(5, np.float32))
    statistics = LexicalStatistics.fit([])
    made = StudentBundle.make(name, head, statistics, DEFAULT_TEMPLATE, encoder.fingerprint, (space,), {}, {})
    made.save(paths.bundles / name)
    return name


def test_a_space_that_a_live_student_reads_goes_only_with_another_student(hats, titles, encoder):
    before = live_of(hats.paths)
    publish_release(hats.paths, bundle=student(hats.paths, "one", before, encoder))
    with pytest.raises(PinfeatherError, match=r"Student one .* reads .*, not titles"):
        promote(hats.paths, titles, LAX)
    two = student(hats.paths, "two", titles, encoder)
    switch = promote(hats.paths, titles, LAX, bundle=two)
    assert (current_release(hats.paths).bundle, switch.bundle) == ("two", "two")
    back = rollback(hats.paths)
    assert (back.space, back.bundle) == (before, "one")
    assert promote(hats.paths, titles, LAX, without_bundle=True).bundle is None
    assert current_release(hats.paths).bundle is None


def test_a_space_that_the_released_student_reads_is_not_dropped(hats, titles, encoder):
    publish_release(hats.paths, bundle=student(hats.paths, "one", titles, encoder))
    with pytest.raises(PinfeatherError, match="bundle one of release 2 reads it"):
        drop_space(hats.paths, titles)


@pytest.mark.slow
def test_readers_during_promotions_see_one_release_or_the_other(hats, titles, encoder):
    before = live_of(hats.paths)
    ids = list(hats.pins)
    whole = {space: np.stack(vectors_in(hats.paths, space, *ids)) for space in (before, titles)}
    seen, wrong, done = set(), [], threading.Event()

    def read():
        with PinClient(hats.paths.root, encoder=encoder) as client:
            while True:
                last = done.is_set()
                client.refresh()
                found = client.pin_embeddings(ids)
                seen.add(found.space)
                if not np.array_equal(found.vectors, whole[found.space]):
                    wrong.append(found.space)
                if last:
                    return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        promote(hats.paths, titles, LAX)
        rollback(hats.paths)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert seen <= {before, titles}
    assert before in seen


KILLS = {
    "before the release": "materialize.promotion.write_release = bang",
    "before it is published": "materialize.stores.publication.Writer.publish = bang",
    "before the link": "materialize.vector_log.link_live = bang",
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_promotion_leaves_one_release_or_the_other(hats, titles, encoder, moment):
    before = live_of(hats.paths)
    patch = f"""import materialize.promotion as promotion
        {KILLS[moment]}
        promotion.promote(RepoPaths(Path({str(hats.paths.root)!r})), "titles", promotion.Gate(overlap_min=0.0))"""
    killed_run(hats.paths, patch)
    with PinClient(hats.paths.root, encoder=encoder) as client:
        served = client.pin_embeddings(["p1"])
    np.testing.assert_array_equal(served.vectors[0], vectors_in(hats.paths, served.space, "p1")[0])
    encoder.calls = []
    counts = run(hats, encoder)
    assert (counts.quiet, encoder.calls) == (True, [])
    live = live_of(hats.paths)
    assert live == (before if moment == "before the release" else titles)
    assert (hats.paths.vectors / LIVE_EMBEDDING).resolve().name == live
    assert audit(hats.paths).clean


def test_a_run_that_waited_for_a_promotion_keeps_the_new_space_live(hats, titles, encoder):
    with open_writer(hats.paths.online):  # this process writes: the run below must not decide before it may
        promote(hats.paths, titles, LAX)
    materialize(hats.paths, RunOptions(encoder=encoder))
    assert live_of(hats.paths) == titles


@pytest.mark.slow
def test_every_space_has_a_feast_view_over_its_own_log(hats, titles):
    before = live_of(hats.paths)
    apply_definitions(hats.paths)
    views = load_definitions(hats.paths).views
    assert {name for name in views if name.startswith(LIVE_EMBEDDING)} == {
        LIVE_EMBEDDING,
        f"{LIVE_EMBEDDING}__{titles}",
        f"{LIVE_EMBEDDING}__{before}",
    }
    assert views[f"{LIVE_EMBEDDING}__{titles}"].online is False

    import pandas as pd

    from materialize.definitions import open_feature_store

    store = open_feature_store(hats.paths)
    wanted = pd.DataFrame({"pin_id": ["p3", "nobody"], "event_timestamp": [datetime(2027, 1, 1, tzinfo=UTC)] * 2})
    for view, space in ((LIVE_EMBEDDING, before), (f"{LIVE_EMBEDDING}__{titles}", titles)):
        rows = store.get_historical_features(wanted, [f"{view}:embedding"]).to_df().set_index("pin_id")
        np.testing.assert_array_equal(
            np.array(rows.loc["p3", "embedding"], np.float32), vectors_in(hats.paths, space, "p3")[0]
        )
    close_all()
    with open_reader(hats.paths.online) as reader:
        assert not [name for name in reader.collections() if "__" in name]
    assert drop_space(hats.paths, titles)["apply_needed"]
    assert [one["name"] for one in list_spaces(hats.paths)] == [before]
