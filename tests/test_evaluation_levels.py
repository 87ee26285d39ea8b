"""Kappa, calibration error and agreement against scikit-learn and plain loops; what is not defined is null."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedders.evaluation import levels as five
from embedders.evaluation.evaluate import evaluate_scores, measure
from embedders.evaluation.folds import query_groups
from embedders.evaluation.metrics import at_least, predicted_levels
from feature_repo.errors import PinfeatherError


@pytest.fixture(scope="module")
def judged():
    """300 pairs of 15 queries, and probabilities that know something and never tie."""
    random = np.random.default_rng(5)
    queries = [f"query {number}" for number in random.integers(0, 15, 300)]
    levels = random.integers(1, 6, 300)
    logits = random.normal(0, 1, (300, 5)) + 1.5 * np.eye(5)[levels - 1]
    return queries, levels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_kappa_equals_scikit_learn_also_under_draws(judged):
    from sklearn.metrics import cohen_kappa_score

    queries, levels, probabilities = judged
    _, groups = query_groups(queries)
    predicted = predicted_levels(probabilities)
    draws = np.vstack([np.ones((1, 15)), np.random.default_rng(0).integers(0, 3, (4, 15))])
    theirs = [
        cohen_kappa_score(levels, predicted, weights="quadratic", labels=range(1, 6), sample_weight=draw[groups])
        for draw in draws
    ]
    assert five.kappa_of_draws(levels, predicted, groups, draws) == pytest.approx(theirs, abs=1e-12)
    assert measure(queries, levels, probabilities, samples=2).point["kappa"] == pytest.approx(theirs[0])


def loop_error(confidence, true, weights):
    """The definition, bin by bin."""
    order = np.argsort(confidence)
    total = 0.0
    for rows in np.array_split(order, five.CALIBRATION_BINS):
        total += abs((weights[rows] * (confidence[rows] - true[rows])).sum())
    return total / weights.sum()


def test_calibration_error_is_the_definition_also_under_draws(judged):
    queries, levels, probabilities = judged
    _, groups = query_groups(queries)
    confidence, true = probabilities.max(axis=1), predicted_levels(probabilities) == levels
    draws = np.vstack([np.ones((1, 15)), np.random.default_rng(0).integers(0, 3, (4, 15))])
    expected = [loop_error(confidence, true, draw[groups]) for draw in draws]
    assert five.calibration_error_of_draws(confidence, true, groups, draws) == pytest.approx(expected, abs=1e-12)
    point = measure(queries, levels, probabilities, samples=2).point
    assert point["calibration_error"] == pytest.approx(expected[0])
    relevant = loop_error(at_least(probabilities, 4), levels >= 4, np.ones(300))
    assert point["calibration_error_4"] == pytest.approx(relevant)
    assert five.reliability(confidence, true).error == pytest.approx(expected[0])


def test_calibration_error_is_zero_for_who_is_always_sure_and_right_and_one_for_who_is_wrong():
    levels = np.tile(np.arange(1, 6), 40)
    queries = [f"q{number % 20}" for number in range(200)]
    right, wrong = np.eye(5)[levels - 1], np.eye(5)[levels % 5]
    assert measure(queries, levels, right, samples=2).point["calibration_error"] == 0
    row = evaluate_scores("set", "scorer", queries, levels, wrong, samples=20)
    assert (row["calibration_error"], row["kappa"]) == (1, pytest.approx(0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.6, 0.9]), st.booleans()), min_size=1, max_size=120), st.randoms()
)
def test_pairs_of_one_confidence_share_a_bin_whatever_the_order(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    errors = []
    for each in (rows, shuffled):
        confidence, true = (np.array(column) for column in zip(*each, strict=True))
        bins, count = five.calibration_bins(confidence)
        assert len(set(zip(confidence, bins, strict=True))) == len(set(confidence))
        assert bins.max() < count <= five.CALIBRATION_BINS
        errors.append(five.reliability(confidence, true.astype(bool)).error)
    assert errors[0] == pytest.approx(errors[1])


def test_the_interval_of_a_calibrated_scorer_holds_its_own_figure():
    # Levels drawn from the probabilities themselves: what error there is, is chance, and every draw adds more of it.
    random = np.random.default_rng(2)
    probabilities = random.dirichlet(np.ones(5), 600)
    levels = np.array([random.choice(5, p=row) for row in probabilities]) + 1
    row = evaluate_scores("set", "s", [f"q{number % 60}" for number in range(600)], levels, probabilities, samples=200)
    for key in ("calibration_error", "calibration_error_4"):
        low, high = row[f"{key}_ci"]
        assert 0 <= low <= row[key] <= high


def test_what_is_not_defined_is_null():
    queries, levels = [f"q{number % 3}" for number in range(12)], [5] * 12
    sure = np.eye(5)[np.full(12, 4)]
    row = evaluate_scores("set", "scorer", queries, levels, sure, samples=20)
    assert (row["kappa"], row["kappa_ci"], row["auroc_4"]) == (None, None, None)  # all agree on one level only
    assert (row["accuracy"], row["calibration_error"]) == (1, 0)
    mixed = np.eye(5)[np.arange(12) % 5]
    assert evaluate_scores("set", "scorer", queries, levels, mixed, samples=20)["kappa"] == 0  # none above chance
    row = evaluate_scores("set", "scorer", queries, levels, scores=np.arange(12.0), samples=20)
    assert row["kappa"] is row["calibration_error"] is row["calibration_error_4_ci"] is None


def test_a_level_that_never_occurs_has_an_empty_row_and_breaks_nothing(judged):
    queries, levels, probabilities = judged
    levels = np.where(levels == 3, 4, levels)
    row = evaluate_scores("set", "scorer", queries, levels, probabilities, samples=20)
    assert all(row[key] is not None for key in ("kappa", "calibration_error", "auroc_3", "auroc_4", "auroc_5"))
    counts = five.confusion(levels, predicted_levels(probabilities))
    assert (counts[2].sum(), counts[:, 2].sum() > 0, counts.sum()) == (0, True, 300)
    assert counts[4, 0] == ((levels == 5) & (predicted_levels(probabilities) == 1)).sum()


@pytest.mark.parametrize("row", [[0.5, 0.5, 0.5, 0, 0], [1.5, -0.5, 0, 0, 0], [0, 0, 0, 0, 0]])
def test_rows_that_are_no_probabilities_are_refused(row):
    with pytest.raises(PinfeatherError, match="Row 2 holds no probabilities"):
        measure(["a", "b"], [1, 5], np.array([[1, 0, 0, 0, 0], row], float))


def test_agreement_with_a_teacher_knows_the_same_from_the_opposite(judged):
    _, _, probabilities = judged
    same = five.agreement(probabilities, probabilities)
    assert same == {"accuracy": 1, "kl": pytest.approx(0, abs=1e-12), "expected_level_correlation": pytest.approx(1)}
    turned = five.agreement(probabilities, probabilities[:, ::-1])
    assert turned["expected_level_correlation"] == pytest.approx(-1)
    hard = five.agreement(np.eye(5)[[0, 1]], np.array([[0.5, 0.5, 0, 0, 0], [0.25, 0.75, 0, 0, 0]]))
    assert hard["kl"] == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)
    assert five.agreement(np.eye(5)[[0, 0]], np.eye(5)[[0, 4]])["expected_level_correlation"] is None
