"""Metrics against ir_measures and scikit-learn, intervals, folds, and files of pairs."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedders.evaluation import metrics
from embedders.evaluation.evaluate import METRICS, compare, evaluate_scores, measure
from embedders.evaluation.folds import fold_key, query_folds, query_groups
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError


@pytest.fixture(scope="module")
def judged():
    """300 pairs of 15 queries with scores that know something; scores never tie."""
    random = np.random.default_rng(3)
    queries = [f"query {number}" for number in random.integers(0, 15, 300)]
    levels = random.integers(1, 6, 300)
    return queries, levels, levels + random.normal(0, 2, 300)


def test_ranking_metrics_equal_ir_measures(judged):
    import ir_measures
    from ir_measures import P, nDCG

    queries, levels, scores = judged
    queries = [*queries, "nothing fits", "nothing fits"]  # a query without gain counts as zero, there and here
    levels, scores = np.r_[levels, 1, 1], np.r_[scores, 0.3, 0.4]
    rows = list(enumerate(zip(queries, levels, scores, strict=True)))
    qrels = [ir_measures.Qrel(query, str(row), int(level)) for row, (query, level, _) in rows]
    run = [ir_measures.ScoredDoc(query, str(row), float(score)) for row, (query, _, score) in rows]
    ndcg, precision = nDCG(gains={1: 0, 2: 1, 3: 3, 4: 7, 5: 15}) @ 20, P(rel=4) @ 8
    expected = ir_measures.calc_aggregate([ndcg, precision], qrels, run)

    point = measure(queries, levels, scores=scores, samples=2).point

    assert point["ndcg@20"] == pytest.approx(expected[ndcg], abs=1e-9)
    assert point["precision@8"] == pytest.approx(expected[precision], abs=1e-9)


@pytest.mark.parametrize("decimals", [6, 0], ids=["distinct", "tied"])
def test_auroc_equals_scikit_learn_also_with_weights(judged, decimals):
    from sklearn.metrics import roc_auc_score

    _, levels, scores = judged
    scores = np.round(scores, decimals)
    weights = np.random.default_rng(0).integers(0, 4, (3, len(levels))).astype(float)
    ours = metrics.auroc(levels >= 4, scores, weights)
    theirs = [roc_auc_score(levels >= 4, scores, sample_weight=row) for row in weights]
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert metrics.auroc(levels >= 4, scores)[0] == pytest.approx(roc_auc_score(levels >= 4, scores))


def test_both_ways_to_bootstrap_auroc_agree(judged):
    queries, levels, scores = judged
    _, groups = query_groups(queries)
    draws = np.random.default_rng(1).integers(0, 3, (20, 15))
    for values in (scores, np.round(scores)):
        slow = metrics.auroc(levels >= 4, values, draws[:, groups].astype(float))
        assert metrics.auroc_of_draws(levels >= 4, values, groups, draws) == pytest.approx(slow, abs=1e-12)


def test_tied_pairs_share_what_their_places_earn_whatever_the_order():
    for levels in ([5, 1, 1], [1, 1, 5]):
        tied = metrics.ndcg_by_query(np.array(levels), np.zeros(3), np.zeros(3, int))
        assert tied[0] == pytest.approx((1 + 1 / np.log2(3) + 0.5) / 3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(-2, 2)), min_size=1, max_size=40), st.randoms()
)
def test_no_figure_depends_on_the_order_of_rows(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    results = []
    for each in (rows, shuffled):
        queries, levels, scores = (
            [str(row[0]) for row in each],
            [row[1] for row in each],
            [float(row[2]) for row in each],
        )
        results.append(measure(queries, levels, scores=np.array(scores), samples=1).point)
    for key in METRICS:
        assert results[0][key] == pytest.approx(results[1][key], nan_ok=True)


def test_row_has_the_keys_of_the_contract_and_is_json(judged):
    queries, levels, scores = judged
    probabilities = np.eye(5)[np.clip(np.round(scores), 1, 5).astype(int) - 1]
    row = evaluate_scores("set", "scorer", queries, levels, probabilities, samples=50)
    keys = ["ndcg@20", "precision@8", "accuracy", "within_one", "auroc_3", "auroc_4", "auroc_5"]
    keys += ["kappa", "calibration_error", "calibration_error_4"]
    assert set(row) == {"dataset", "scorer", "pairs", "queries", *keys, *(f"{key}_ci" for key in keys)}
    assert (row["pairs"], row["queries"]) == (300, 15)
    for key in keys:
        low, high = row[f"{key}_ci"]
        assert low <= row[key] <= high
    assert row["accuracy"] == pytest.approx(np.mean(np.clip(np.round(scores), 1, 5) == levels))
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row == evaluate_scores("set", "scorer", queries, levels, probabilities, samples=50)


def test_one_class_and_missing_probabilities_give_null_not_a_crash():
    row = evaluate_scores("set", "scorer", ["a", "a", "b"], [5, 5, 5], scores=np.array([1.0, 2.0, 3.0]), samples=20)
    assert row["auroc_4"] is None
    assert row["auroc_4_ci"] is None
    assert row["accuracy"] is None
    assert row["ndcg@20"] == 1.0


def test_interval_resamples_queries_not_pairs():
    # Ten copies of each pair are no more evidence: the interval stays, a bootstrap by pair would shrink it threefold.
    queries, levels = [f"q{number}" for number in range(30)], np.tile([1, 5, 3], 10)
    scores = np.random.default_rng(0).normal(0, 1, 30)
    widths = []
    for copies in (1, 10):
        measured = measure(queries * copies, np.tile(levels, copies), scores=np.tile(scores, copies), samples=300)
        widths.append(np.ptp(np.percentile(measured.draws["auroc_4"], [2.5, 97.5])))
    assert widths[1] == pytest.approx(widths[0])


def test_paired_differences_are_zero_against_itself_and_significant_against_noise(judged):
    queries, levels, scores = judged
    good = measure(queries, levels, scores=scores, samples=100)
    noise = measure(queries, levels, scores=np.random.default_rng(0).normal(size=300), samples=100)
    same = compare(good, good)["auroc_4"]
    assert same == {"difference": 0.0, "ci": [0.0, 0.0], "p": 1.0, "significant": False}
    better, worse = compare(good, noise)["auroc_4"], compare(noise, good)["auroc_4"]
    assert better["ci"][0] > 0
    assert worse["ci"] == pytest.approx([-better["ci"][1], -better["ci"][0]])
    assert better["significant"] is worse["significant"] is True
    assert better["p"] == worse["p"] == pytest.approx(2 / 101)  # the least that 100 draws can say
    assert compare(good, good)["accuracy"] == {"difference": None, "ci": None, "p": None, "significant": None}


@pytest.mark.parametrize(
    ("levels", "scores", "words"),
    [
        ([0, 5], [1, 2], "Level 0 in row 1"),
        ([1, 6], [1, 2], "Level 6 in row 2"),
        ([1], [1, 2], "2 queries but 1 levels"),
        ([1, 5], [1, np.nan], "NaN"),
    ],
)
def test_unusable_input_is_refused_with_the_reason(levels, scores, words):
    with pytest.raises(PinfeatherError, match=words):
        measure(["a", "b"], levels, scores=np.array(scores, float))


def test_folds_are_disjoint_by_query_stable_and_keep_plurals_and_reorderings_together():
    queries = [f"blue chair {number}" for number in range(50)] * 2
    folds = query_folds(queries, 5)
    assert len({(query, fold) for query, fold in zip(queries, folds, strict=True)}) == 50
    assert set(folds) == set(range(5))
    assert (query_folds(queries[:7], 5) == folds[:7]).all()
    assert (query_folds(queries, 5, seed=1) != folds).any()
    assert len(set(query_folds(["Red  Chairs", "chair red", "RED CHAIR"]))) == 1
    assert fold_key("!!") == "!!"
    with pytest.raises(PinfeatherError, match="at least 2"):
        query_folds(queries, 1)


def test_queries_are_grouped_by_their_canonical_form():
    names, groups = query_groups(["Red  Chair", "lamp", "red chair"])
    assert names == ["red chair", "lamp"]
    assert groups.tolist() == [0, 1, 0]


def _write(path, columns):
    if path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    else:
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_file_of_pairs_keeps_its_order_and_shares_equal_pins(tmp_path, suffix):
    columns = {
        "Query": ["001", "mug", "001"],
        "title": ["A\nB, c", "", "A\nB, c"],
        "description": ["x", "y", "x"],
        "level": [1, 5, 3],
        "other": [1, 2, 3],
    }
    pairs = PairSet.from_file(_write(tmp_path / f"p{suffix}", columns))
    assert pairs.queries == ("001", "mug", "001")
    assert [pairs.pins[pin].title or "" for pin in pairs.pin_of] == ["A\nB, c", "", "A\nB, c"]
    assert len(pairs.pins) == 2
    assert pairs.levels.tolist() == [1, 5, 3]
    unjudged = PairSet.from_file(_write(tmp_path / f"u{suffix}", {"query": ["a"], "title": ["b"]}))
    assert unjudged.levels is None
    with pytest.raises(PinfeatherError, match="add a column `level`"):
        unjudged.require_levels()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_file_of_pairs_may_have_every_field_of_the_pin_text(tmp_path, suffix):
    listed = suffix == ".parquet"
    columns = {
        "query": ["a", "b"],
        "title": ["oak", ""],
        "caption": ["a tree", "a lamp"],
        "link_title": ["", "shop"],
        "Board_titles": [["Trees ", "oak"], None] if listed else ["Trees | oak|", ""],
        "engaged_queries": [[], ["lamp", None]] if listed else ["", "lamp"],
    }
    pairs = PairSet.from_file(_write(tmp_path / f"p{suffix}", columns))
    first, second = pairs.pins
    assert (first.title, first.caption, first.board_titles, first.engaged_queries) == (
        "oak", "a tree", ("Trees", "oak"), ()
    )  # fmt: skip
    assert (second.title or None, second.link_title, second.board_titles, second.engaged_queries) == (
        None, "shop", (), ("lamp",)
    )  # fmt: skip
    assert first.description is None


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("a.csv", {"query": ["a"], "text": ["b"]}, "no column title.*found: query, text"),
        ("a.parquet", {"query": ["a"], "title": ["b"], "level": [6]}, "row 1: level 6"),
        ("a.csv", {"query": ["a"], "title": ["b"], "level": [""]}, "row 1: level None"),
        ("a.csv", {"query": ["a"], "title": ["b"], "level": ["2.5"]}, "row 1: level 2.5"),
        ("a.csv", {"query": [], "title": []}, "no rows"),
    ],
)
def test_wrong_file_of_pairs_is_explained(tmp_path, name, columns, words):
    with pytest.raises(PinfeatherError, match=words):
        PairSet.from_file(_write(tmp_path / name, columns))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"no parquet", "cannot be read as parquet"),
        ("a.csv", b"query,title\n\xff\xfe,b\n", "cannot be read as csv"),
        ("a.csv", b"", "cannot be read as csv"),
        ("a.xlsx", b"", "allowed are .parquet"),
    ],
)
def test_unreadable_file_of_pairs_is_explained(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PinfeatherError, match=words):
        PairSet.from_file(tmp_path / name)
    with pytest.raises(PinfeatherError, match="does not exist"):
        PairSet.from_file(tmp_path / "absent.csv")
