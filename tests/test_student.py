"""The student: features, head, explanation, training, bundle, and scoring of pairs, with a tiny encoder."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedders.bundle import BundleError, StudentBundle, load_manifest
from embedders.cross_validation import cross_fit, cross_validate
from embedders.evaluation.folds import query_folds
from embedders.evaluation.pairs import PairSet
from embedders.relevance import SCALAR_NAMES, RelevanceInputs, feature_names, relevance_features
from embedders.student import BASELINE, BLOCK_NAME, LevelCalibrator, RelevanceHead, train_head
from embedders.student_head import HeadTrainer
from embedders.training import fit_statistics, pair_features, score_columns, score_pairs
from feature_repo.errors import PinfeatherError
from feature_repo.lexical import LexicalStatistics, encode_blob
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields

WORDS = [
    "red",
    "blue",
    "oak",
    "steel",
    "lamp",
    "chair",
    "mug",
    "rug",
    "garden",
    "kitchen",
    "small",
    "large",
    "modern",
    "rustic",
]


class WordEncoder:
    """Sums one fixed random vector a word: texts that share words are near. Counts what it is asked."""

    dimension = 16
    fingerprint = "words-1"

    def __init__(self):
        self.texts = []

    def encode(self, texts, progress=None):
        self.texts += texts
        rows = np.stack([sum((self._word(word) for word in text.split()), np.full(16, 1e-3)) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        return np.random.default_rng(seed).normal(size=16)


def make_pairs(queries=24, per_query=12, seed=0):
    """Levels follow how many of the query's words the title has; some pins lack description or everything."""
    random = np.random.default_rng(seed)
    asked, fields, levels = [], [], []
    for number in range(queries):
        wanted = list(random.choice(WORDS, 3, replace=False))
        for _ in range(per_query):
            kept = int(random.integers(0, 4))
            words = wanted[:kept] + list(random.choice(WORDS, 3))
            asked.append(f"{' '.join(wanted)} {number}")
            title = " ".join(words) if random.random() > 0.05 else None
            fields.append(PinFields(title=title, description=" ".join(random.choice(WORDS, 4)) if kept else None))
            levels.append(1 if title is None else (1, 2, 4, 5)[kept])
    return PairSet.from_rows("made up", asked, fields, levels, source="made up for the test")


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def features(pairs):
    return pair_features(pairs, WordEncoder(), DEFAULT_TEMPLATE, fit_statistics(pairs))


@pytest.fixture(scope="module")
def head(pairs, features):
    return train_head(features.matrix, pairs.levels, features.names, features.groups)


def test_a_pair_has_the_same_features_alone_and_in_a_list(pairs):
    encoder, statistics = WordEncoder(), fit_statistics(pairs)
    blobs = [encode_blob(pin) for pin in pairs.pins[:6]]
    vectors = encoder.encode([f"text {number}" for number in range(6)])
    query = encoder.encode(["red lamp"])[0]
    together, names = relevance_features(RelevanceInputs("red lamp", query, vectors, blobs), statistics)
    for row in range(6):
        alone, _ = relevance_features(
            RelevanceInputs("red lamp", query, vectors[row : row + 1], [blobs[row]]), statistics
        )
        np.testing.assert_array_equal(alone[0], together[row])
    assert names == feature_names(16)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[:, 0], vectors @ query, rtol=1e-5)


def test_what_is_missing_is_nan_and_named_by_a_mask(pairs):
    statistics = fit_statistics(pairs)
    vectors = np.array([[1, 0], [np.nan, np.nan], [0, 1]], dtype=np.float32)
    blobs = [encode_blob(PinFields(title="red lamp")), encode_blob(PinFields(title="x", description="y")), None]
    rates = np.array([np.nan, 0.1, 0.2])
    inputs = RelevanceInputs("red lamp", np.array([1, 0], np.float32), vectors, blobs, rates, rates)
    matrix, names = relevance_features(inputs, statistics)
    columns = {name: matrix[:, names.index(name)].tolist() for name in names}
    assert columns["no_vector"] == [0, 1, 0]
    assert columns["no_title"] == [0, 0, 1]
    assert columns["no_description"] == [1, 0, 1]
    assert columns["no_engagement"] == [1, 0, 0]
    assert np.isnan(columns["cosine"]).tolist() == [False, True, False]
    assert np.isnan(columns["bm25_title"]).tolist() == [False, False, True]
    masked, _ = relevance_features(inputs, None)
    assert np.isnan(masked[:, names.index("bm25_all")]).all()
    assert masked[:, names.index("no_title")].tolist() == [1, 1, 1]


@st.composite
def heads_and_features(draw):
    seed, scale = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, 100.0]))
    random = np.random.default_rng(seed)
    names = (*SCALAR_NAMES[:4], "tower_product_000", "tower_product_001")
    weights, bias = random.normal(0, scale, (6, 5)), random.normal(0, scale, 5)
    ones = np.ones(6, np.float32)
    head = RelevanceHead(names, 0 * ones, ones, weights.astype(np.float32), bias.astype(np.float32))
    matrix = random.normal(0, 2, (draw(st.integers(0, 8)), 6)).astype(np.float32)
    matrix[random.random(matrix.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = np.nan
    return head, matrix


@settings(max_examples=80, deadline=None)
@given(heads_and_features())
def test_contributions_and_bias_sum_to_the_expected_level_minus_its_baseline(case):
    head, matrix = case
    why = head.explain(matrix)
    assert why.names == (*SCALAR_NAMES[:4], BLOCK_NAME)
    assert why.baseline == BASELINE == 3.0
    total = why.contributions.sum(axis=1) + why.bias
    np.testing.assert_allclose(total, head.expected_level(matrix) - why.baseline, atol=1e-6)
    np.testing.assert_allclose(head.probabilities(matrix).sum(axis=1), 1)
    assert (why.contributions[:, :4][np.isnan(matrix[:, :4])] == 0).all()  # what is missing says nothing


def test_explanation_equals_integrated_gradients_by_torch(head, features):
    import torch

    z = torch.from_numpy(head.standardised(features.matrix[:5]).astype(np.float64))
    weights, bias = (torch.from_numpy(each.astype(np.float64)) for each in (head.weights, head.bias))
    total = torch.zeros_like(z)
    for step in (np.arange(2000) + 0.5) / 2000:
        x = (z * step).requires_grad_()
        level = torch.softmax(x @ weights + bias, 1) @ torch.arange(1.0, 6.0, dtype=torch.float64)
        total += z * torch.autograd.grad(level.sum(), x)[0] / 2000
    why = head.explain(features.matrix[:5])
    np.testing.assert_allclose(why.contributions[:, :-1], total[:, : len(SCALAR_NAMES)].numpy(), atol=1e-6)
    np.testing.assert_allclose(why.contributions[:, -1], total[:, len(SCALAR_NAMES) :].sum(1).numpy(), atol=1e-6)
    name, value = why.top(0, 1)[0]
    assert abs(value) == np.abs(why.contributions[0]).max()
    assert why.contributions[0, why.names.index(name)] == value


def test_training_is_deterministic_and_learns(pairs, features, head):
    again = train_head(features.matrix, pairs.levels, features.names, features.groups)
    np.testing.assert_array_equal(again.weights, head.weights)
    assert np.mean(head.probabilities(features.matrix).argmax(1) + 1 == pairs.levels) > 0.6


def test_level_that_never_occurs_keeps_a_small_finite_probability(head, features):
    third = head.probabilities(features.matrix)[:, 2]
    assert (third > 0).all()
    assert third.mean() < 0.05


def test_constant_or_unseen_features_are_switched_off():
    random = np.random.default_rng(0)
    known = random.normal(size=(200, 1)).astype(np.float32)
    levels = np.where(known[:, 0] > 0, 5, 1)
    matrix = np.column_stack([known, np.full(200, 7.0), np.full(200, np.nan)])
    head = train_head(matrix, levels, ("a", "constant", "unseen"))
    assert (head.scale[1:] == 0).all()
    odd = np.array([[1.0, 7.0, np.nan], [1.0, 1e6, 5.0], [1.0, np.inf, -np.inf]])
    chances = head.probabilities(odd)
    np.testing.assert_allclose(chances[1:], chances[[0, 0]])
    assert np.isfinite(head.probabilities(np.full((1, 3), np.nan))).all()


def test_soft_targets_of_one_are_levels_and_wrong_targets_are_refused(pairs, features):
    soft = train_head(features.matrix, np.eye(5)[pairs.levels - 1], features.names, features.groups)
    hard = train_head(features.matrix, pairs.levels, features.names, features.groups)
    np.testing.assert_allclose(soft.weights, hard.weights)
    with pytest.raises(PinfeatherError, match="Level 7"):
        train_head(features.matrix[:1], [7], features.names)
    with pytest.raises(PinfeatherError, match="row summing to 1"):
        train_head(features.matrix[:1], np.full((1, 5), 0.5), features.names)
    with pytest.raises(PinfeatherError, match="at least one pair"):
        train_head(features.matrix[:0], [], features.names)
    with pytest.raises(PinfeatherError, match="reads \\[n, "):
        hard.probabilities(features.matrix[:, :3])


def test_calibrator_turns_a_score_into_rising_levels():
    scores = np.linspace(0, 1, 500)
    levels = np.minimum(1 + (scores * 5).astype(int), 5)
    chances = LevelCalibrator.fit(scores, levels).probabilities(np.array([0.0, 0.5, 1.0]))
    assert (chances.argmax(1) + 1).tolist() == [1, 3, 5]


def trainer_of(pairs) -> HeadTrainer:
    statistics = fit_statistics(pairs)
    return HeadTrainer(pairs, pair_features(pairs, WordEncoder(), DEFAULT_TEMPLATE, statistics), statistics)


def test_each_text_is_encoded_once_and_cross_validation_reports_every_scorer(pairs):
    encoder, done = WordEncoder(), []
    statistics = fit_statistics(pairs)
    made = pair_features(pairs, encoder, DEFAULT_TEMPLATE, statistics, done.append)
    trainer = HeadTrainer(pairs, made, statistics)
    rows = cross_validate(trainer, folds=3, samples=50)
    assert len(encoder.texts) == len(set(encoder.texts))
    assert [row["scorer"] for row in rows] == ["bm25", "zero-shot", "student"]
    assert [row["pairs"] for row in rows] == [288] * 3
    student = rows[2]
    assert all(student["auroc_4"] > row["auroc_4"] for row in rows[:2])
    difference = rows[0]["student_minus"]["auroc_4"]["difference"]
    assert difference == pytest.approx(student["auroc_4"] - rows[0]["auroc_4"])
    with pytest.raises(PinfeatherError, match="allowed are bm25"):
        cross_validate(trainer, scorers=["guess"])


@pytest.mark.parametrize("scorer", ["bm25", "student"])
def test_no_pair_is_scored_by_a_model_that_saw_its_query(pairs, features, scorer):
    folds = query_folds(pairs.queries, 3)
    changed = np.where(folds == 0, 6 - pairs.levels, pairs.levels)
    statistics = fit_statistics(pairs)
    before, after = (
        cross_fit(HeadTrainer(dataclasses.replace(pairs, levels=levels), features, statistics), scorer, 3).probabilities
        for levels in (pairs.levels, changed)
    )
    np.testing.assert_array_equal(before[folds == 0], after[folds == 0])
    assert (before[folds == 1] != after[folds == 1]).any()


def test_pins_that_read_the_same_are_encoded_once():
    fields = [PinFields(title="red lamp"), PinFields(title="red  lamp"), PinFields(title="")]
    encoder = WordEncoder()
    twins = PairSet.from_rows("twins", ["Lamp", "lamp ", "lamp"], fields)
    matrix = pair_features(twins, encoder, DEFAULT_TEMPLATE, fit_statistics(twins)).matrix
    assert sorted(encoder.texts) == ["lamp", "red lamp"]
    np.testing.assert_array_equal(matrix[0], matrix[1])
    assert np.isnan(matrix[2, 0])


def test_too_few_queries_for_folds_is_explained():
    one = PairSet.from_rows("one", ["a", "a"], [PinFields(title="x"), PinFields(title="y")], [1, 5])
    with pytest.raises(PinfeatherError, match="judge more queries"):
        cross_validate(trainer_of(one), samples=2)


@pytest.fixture
def bundle(pairs, tmp_path):
    statistics = fit_statistics(pairs)
    head = trainer_of(pairs).fit()
    made = StudentBundle.make("first", head, statistics, DEFAULT_TEMPLATE, "words-1", ("pins-1",), {"a": 1.0}, {})
    made.save(tmp_path / "bundle")
    return made


def test_bundle_scores_the_same_after_save_and_load(bundle, pairs, tmp_path):
    loaded = StudentBundle.load(tmp_path / "bundle")
    before, after = (score_pairs(pairs, each, WordEncoder()) for each in (bundle, loaded))
    np.testing.assert_array_equal(before, after)
    assert loaded.template == DEFAULT_TEMPLATE
    assert loaded.manifest.spaces == ("pins-1",)
    assert loaded.manifest.dimension == 16
    assert loaded.statistics.digest == loaded.manifest.lexical_digest
    columns = score_columns(pairs, after)
    assert columns["query"] == list(pairs.queries)
    assert columns["expected_level"][5] == pytest.approx(sum(columns[f"probability_{k}"][5] * k for k in range(1, 6)))


def test_bundle_is_replaced_whole_and_leaves_nothing_behind(bundle, tmp_path):
    bundle.save(tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == [
        "head.safetensors",
        "lexical.json",
        "manifest.json",
    ]


@pytest.mark.parametrize("name", ["head.safetensors", "lexical.json"])
def test_changed_or_missing_bundle_file_is_refused_by_name(bundle, tmp_path, name):
    path = tmp_path / "bundle" / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=rf"{name} was changed.*train student"):
        StudentBundle.load(tmp_path / "bundle")
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        StudentBundle.load(tmp_path / "bundle")


def test_incomplete_or_foreign_manifest_is_refused(bundle, tmp_path):
    path = tmp_path / "bundle" / "manifest.json"
    data = json.loads(path.read_text())
    for changed, words in (({**data, "bundle_version": 9}, "version 9"), ({"bundle_version": 1}, "no bundle manifest")):
        path.write_text(json.dumps(changed))
        with pytest.raises(BundleError, match=words):
            load_manifest(tmp_path / "bundle")
    names = [*data["feature_names"][:-1], "other"]
    path.write_text(json.dumps({**data, "feature_names": names}))
    with pytest.raises(BundleError, match="other features"):
        StudentBundle.load(tmp_path / "bundle")
    path.unlink()
    with pytest.raises(BundleError, match="no complete student bundle"):
        StudentBundle.load(tmp_path / "bundle")


def test_bundle_refuses_vectors_of_another_model(bundle, pairs):
    other = WordEncoder()
    other.fingerprint = "words-2"
    with pytest.raises(BundleError, match=r"words-1.*words-2"):
        score_pairs(pairs, bundle, other)


def test_given_vectors_are_not_encoded_again(pairs, bundle):
    encoder = WordEncoder()
    vectors = np.full((len(pairs.pins), 16), np.nan)
    chances = score_pairs(dataclasses.replace(pairs, pin_vectors=vectors), bundle, encoder)
    assert len(encoder.texts) == 24  # the queries
    assert np.isfinite(chances).all()
    with pytest.raises(PinfeatherError, match="pin_vectors has 1 rows"):
        dataclasses.replace(pairs, pin_vectors=vectors[:1])


def test_serving_a_bundle_needs_no_torch(bundle, tmp_path):
    code = (
        "import sys, numpy as np; from embedders.bundle import StudentBundle;"
        "from embedders.relevance import RelevanceInputs, relevance_features;"
        "b = StudentBundle.load(sys.argv[1]);"
        "x, _ = relevance_features(RelevanceInputs('a', None, np.zeros((2, 16)), [None, None]), b.statistics);"
        "b.head.explain(x); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "bundle")], check=True, cwd=root)


def test_statistics_of_no_pins_score_without_error():
    empty = LexicalStatistics.fit([])
    inputs = RelevanceInputs("", None, np.full((2, 4), np.nan), [None, encode_blob(PinFields(title="a"))])
    matrix, names = relevance_features(inputs, empty)
    assert matrix.shape == (2, len(names))
    none, _ = relevance_features(RelevanceInputs("a", None, np.zeros((0, 4)), []), empty)
    assert none.shape == (0, len(names))
