"""The policy, predictors and choice behind `benchmarks.materialize.drift`, on histories small enough to work out."""

import numpy as np
import pytest

from benchmarks.materialize.drift_choice import Judgment, choose, judge
from benchmarks.materialize.drift_history import History, make_history
from benchmarks.materialize.drift_measure import Experiment
from benchmarks.materialize.drift_policy import (
    COLUMNS,
    FittedDrift,
    changed_shares,
    embedded,
    held_rounds,
    inverse_frequencies,
    tokens_of,
)
from benchmarks.materialize.drift_sources import Judged
from feature_repo.pin_text import PinFields


def rounds_of(texts, values):
    """``differs`` and a predicted drift of the difference of two texts' values."""
    texts = np.array(texts)
    differs = texts[:, :, None] != texts[:, None, :]
    at = np.array(values)[texts]
    return differs, np.abs(at[:, :, None] - at[:, None, :])


def test_small_edits_add_up_from_the_text_that_was_embedded():
    differs, drift = rounds_of([[0, 1, 2, 3]], [0.0, 0.4, 0.8, 1.2])
    assert held_rounds(differs, drift, 0.5).tolist() == [[0, 0, 2, 2]]
    assert embedded(held_rounds(differs, drift, 0.5)).tolist() == [[False, True, False]]


def test_a_bound_below_zero_embeds_every_change_even_one_predicted_as_nothing():
    differs, drift = rounds_of([[0, 1, 1, 0]], [0.0, 0.0])
    assert held_rounds(differs, drift, -1.0).tolist() == [[0, 1, 1, 3]]
    assert held_rounds(differs, drift, 0.0).tolist() == [[0, 0, 0, 0]]


def test_an_edit_that_was_taken_back_is_not_embedded():
    differs, drift = rounds_of([[0, 1, 0]], [0.0, 0.3])
    assert held_rounds(differs, drift, 0.5).tolist() == [[0, 0, 0]]
    assert held_rounds(differs, drift, 0.2).tolist() == [[0, 1, 2]]


def shares(old, new, others=()):
    documents = [tokens_of(each) for each in (old, *others)]
    idf, unseen = inverse_frequencies(documents)
    return dict(zip(COLUMNS, changed_shares(documents[0], tokens_of(new), idf, unseen), strict=True))


def test_predictors_see_what_each_is_made_to_see():
    old = PinFields(title="blue velvet sofa", description="for living rooms")
    moved = shares(old, PinFields(title="blue velvet", description="for living rooms sofa"))
    assert moved["words"] == pytest.approx(0) and moved["by_field"] == pytest.approx(2 / 7)
    repeated = shares(old, PinFields(title="blue velvet sofa sofa", description="for living rooms"))
    assert repeated["distinct_idf"] == 0 and repeated["words"] == pytest.approx(1 / 7)
    first = shares(old, PinFields(title="red velvet sofa", description="for living rooms"))
    last = shares(old, PinFields(title="blue velvet sofa", description="for living halls"))
    assert first["words"] == last["words"] == pytest.approx(2 / 7)
    assert first["position"] > last["position"]
    assert first["idf_title"] > 0 == first["idf_description"] and last["idf_description"] > 0 == last["idf_title"]


def test_a_rare_word_weighs_more_than_a_common_one():
    old = PinFields(title="blue velvet sofa")
    others = [PinFields(title=f"blue thing {number}") for number in range(20)]
    common, rare = (shares(old, PinFields(title=title), others) for title in ("velvet sofa", "blue sofa"))
    assert rare["words"] == common["words"] and rare["idf_words"] > common["idf_words"]


def test_nothing_changed_and_everything_changed():
    pin, empty = PinFields(title="blue sofa", board_titles=("Living room",)), PinFields()
    same, all_new = shares(pin, pin), shares(pin, PinFields(description="oak table"))
    assert all(same[name] == 0 for name in COLUMNS[:-1])
    assert all(all_new[name] == pytest.approx(1) for name in ("words", "idf_words", "distinct_idf", "position"))
    assert all(np.isfinite(list(shares(empty, pin).values()))) and shares(empty, empty)["words"] == 0


def test_the_fitted_drift_is_in_units_of_drift_and_rises_with_it():
    random = np.random.default_rng(0)
    columns = random.random((400, len(COLUMNS)))
    drift = columns[:, 0] ** 2 / 2
    predicted = FittedDrift.fit(columns, drift).predict(columns)
    assert np.corrcoef(predicted, drift)[0, 1] > 0.95
    assert abs(predicted.mean() - drift.mean()) < 0.01


@pytest.fixture
def experiment():
    """Two queries, four pins. After round 1 the bad pin 1 is near query 0; exact vectors of round 2 set it right.

    Pins 2 and 3 belong to query 1 and never change places.
    """
    angles = {"good": 20, "bad": 60, "bad, promising": 10, "bad again": 62, "two": 30, "three": 70, "three!": 72}
    texts = list(angles)
    vectors = np.array([[np.cos(np.radians(a)), np.sin(np.radians(a))] for a in angles.values()])
    numbers = {text: number for number, text in enumerate(texts)}
    history = [["good"] * 3, ["bad", "bad, promising", "bad again"], ["two"] * 3, ["three", "three", "three!"]]
    judged = Judged(
        "tiny",
        ("green sofa", "oak table"),
        np.array([0, 0, 1, 1]),
        np.array([0, 1, 2, 3]),
        np.array([5, 1, 5, 1]),
        tuple(PinFields(title=row[0]) for row in history),
    )
    text_of = np.array([[numbers[text] for text in row] for row in history])
    fields = tuple(PinFields(title=text) for text in texts)
    made = History(judged, fields, tuple(texts), text_of, np.ones(2, bool))
    return Experiment(made, vectors, np.array([[1.0, 0.0], [1.0, 0.0]]))


def test_exact_saves_and_loses_nothing(experiment):
    figures = experiment.figures(experiment.run(experiment.true_drift, -1.0), experiment.everything)
    assert figures["saved"] == figures["ndcg_lost"] == figures["stale_pins"] == 0
    assert figures["embedded"] == figures["embedded_by_exact"] == 3 and figures["stale_drift"] is None


def test_loss_saving_and_drift_of_a_policy(experiment):
    """A bound between the small edits and the large one; pin 1 is embedded twice, pin 3 never."""
    outcome = experiment.run(experiment.true_drift, 0.01)
    figures = experiment.figures(outcome, experiment.everything)
    assert figures["saved"] == pytest.approx(1 / 3) and figures["saved_in_last_round"] == pytest.approx(1 / 2)
    assert figures["stale_pins"] == 1 / 4 and figures["ndcg_lost"] == 0
    assert figures["stale_drift"]["max"] == pytest.approx(1 - np.cos(np.radians(2)))


def test_a_policy_that_keeps_a_wrong_vector_loses(experiment):
    """Pin 1 embedded in round 1 and not in round 2: the irrelevant pin ranks first, nDCG falls from 1 to 1/log2(3)."""
    pin, _, after = experiment.changes
    outcome = experiment.run(np.where((pin == 1) & (after == 1), 1.0, 0.0), 0.5)
    figures = experiment.figures(outcome, experiment.everything)
    assert figures["ndcg_lost"] == pytest.approx((1 - 1 / np.log2(3)) / 2)
    assert outcome.lost[-1].tolist() == pytest.approx([1 - 1 / np.log2(3), 0.0])
    low, high = figures["ndcg_lost_ci"]
    assert low <= figures["ndcg_lost"] <= high


def many(seed, tilt):
    """Forty queries of six pins each; one round of edits, by up to ``tilt``, that bring good pins nearer the query."""
    random = np.random.default_rng(seed)
    queries, pins = 40, 240
    asked, levels = random.normal(size=(queries, 8)), random.integers(1, 6, pins)
    before = random.normal(size=(pins, 8))
    towards = np.repeat(asked, 6, axis=0) * (levels - 3)[:, None]
    after = before + tilt * towards * random.random((pins, 1)) ** 3
    vectors = np.vstack([before, after])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    titles = [" ".join(f"w{word}" for word in random.integers(0, 300, 6)) for _ in range(pins)]
    titles += [" ".join([*title.split()[: random.integers(1, 6)], "new"]) for title in titles]
    judged = Judged(
        "many",
        tuple(f"thing{number} of kind{number}" for number in range(queries)),
        np.repeat(np.arange(queries), 6),
        np.arange(pins),
        levels,
        tuple(PinFields(title=title) for title in titles[:pins]),
    )
    fields = tuple(PinFields(title=title) for title in titles)
    text_of = np.stack([np.arange(pins), np.arange(pins) + pins], axis=1)
    made = History(judged, fields, tuple(titles), text_of, np.ones(queries, bool))
    return Experiment(made, vectors, asked / np.linalg.norm(asked, axis=1, keepdims=True))


def test_the_chosen_bound_and_every_lower_one_lose_little_enough():
    experiment = many(1, 0.8)
    choices = choose(experiment, "true", experiment.true_drift, 0)
    swept = [
        (bound, experiment.figures(outcome, experiment.halves[0]))
        for bound, outcome in experiment.sweep(experiment.true_drift, experiment.halves[0])
    ]
    for rule, limit in (
        ("by_mean", lambda found: found["ndcg_lost"]),
        ("by_worst_end", lambda f: f["ndcg_lost_ci"][1]),
    ):
        chosen = choices[rule]
        assert all(limit(found) < 0.001 for bound, found in swept if bound <= chosen.bound)
        assert next(limit(found) for bound, found in swept if bound > chosen.bound) >= 0.001
        assert 0 < chosen.saved < 1
    assert choices["by_worst_end"].saved <= choices["by_mean"].saved
    assert choices["at_20_percent"].bound == next(bound for bound, found in swept if found["saved"] >= 0.2)


def test_the_half_that_is_judged_has_no_part_in_fit_and_choice():
    one, other = many(1, 0.8), many(1, 0.8)
    outside = other.halves[1].pins
    other.vectors = other.vectors.copy()
    other.vectors[other.history.text_of[outside]] = np.roll(other.vectors[other.history.text_of[outside]], 1, axis=-1)
    assert not np.array_equal(one.exact, other.exact)
    assert np.array_equal(one.predictions(0)["fitted"], other.predictions(0)["fitted"])
    for name in ("words", "fitted"):
        mine, theirs = (choose(each, name, each.predictions(0)[name], 0) for each in (one, other))
        for rule, choice in mine.items():
            assert (choice.bound, choice.saved, choice.lost) == (
                theirs[rule].bound, theirs[rule].saved, theirs[rule].lost
            )  # fmt: skip


def test_each_half_is_judged_with_what_the_other_chose():
    experiment = many(1, 0.8)
    judgment = judge(experiment)["by_mean"]["true"]
    choices = [choose(experiment, "true", experiment.true_drift, half)["by_mean"] for half in (0, 1)]
    assert not np.array_equal(*(choice.outcome.lost for choice in choices))
    for half, choice in enumerate(choices):
        other = experiment.halves[1 - half]
        assert np.array_equal(judgment.lost[other.queries], choice.outcome.lost[-1, other.queries])
        assert judgment.halves[half]["bound"] == choice.bound
    assert judgment.embedded_by_exact == experiment.history.changed.sum()


def test_sets_are_put_together_by_query_and_by_embedding():
    both = Judgment.together([Judgment(np.zeros(3), 6, 10), Judgment(np.array([0.004]), 90, 90)]).report(0)
    assert both["saved"] == pytest.approx(1 - 96 / 100) and both["ndcg_lost"] == pytest.approx(0.001)
    assert not both["reached"]
    good = Judgment(np.full(5, 0.0005), 75, 100).report(0)
    assert good["reached"] and good["surely_reached"]
    unsure = Judgment(np.array([0.02, -0.02, 0.0, 0.0]), 75, 100).report(0)
    assert unsure["reached"] and not unsure["surely_reached"]


def test_histories_repeat_and_leave_half_of_the_queries_out_of_the_log():
    topics = ["velvet sofa", "oak table", "garden chair", "wall clock", "floor lamp", "wool blanket", "tea kettle"]
    titles = [f"{colour} {topic} number {place}" for topic in topics for place, colour in enumerate(("blue", "red"))]
    query_of = np.repeat(np.arange(len(topics)), 2)
    pins = tuple(PinFields(title=title, description="made to last") for title in titles)
    judged = Judged("topics", tuple(topics), query_of, np.arange(len(titles)), np.full(len(titles), 5), pins)
    one, again, other = (make_history(judged, 4, seed) for seed in (3, 3, 4))
    assert one.texts == again.texts and np.array_equal(one.text_of, again.text_of)
    assert one.texts != other.texts
    assert len(set(one.texts)) == len(one.texts) and one.changed.any()
    histories = [make_history(judged, 4, seed) for seed in range(12)]
    logged = np.any([each.logged for each in histories], axis=0)
    assert 0 < logged.sum() < len(topics)  # the same half whatever the seed
    unlogged = {topic for topic, ever in zip(topics, logged, strict=True) if not ever}
    fields = [each for history in histories for each in history.fields]
    assert not unlogged & {query for each in fields for query in each.engaged_queries}
    assert not {topic.title() for topic in unlogged} & {title for each in fields for title in each.board_titles}
