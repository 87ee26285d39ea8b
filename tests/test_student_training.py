"""Students trained as a whole: towers of a tiny transformer, separate or shared, and what the head has seen missing."""

import dataclasses
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tower_models import tiny_base

from embedders.bundle import StudentBundle
from embedders.encoder import load_encoder
from embedders.evaluation.metrics import expected_level
from embedders.evaluation.pairs import PairSet
from embedders.losses import contrastive_loss, level_loss
from embedders.model_files import ModelFolderError
from embedders.relevance import SCALAR_NAMES, TOWER_PRODUCT
from embedders.student_head import SEEN_PENALTY, HeadTrainer
from embedders.student_training import mixed, together, train_student_bundle
from embedders.tower_training import TowerTraining, train_towers
from embedders.training import fit_statistics, pair_features, score_pairs
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields
from materialize.spaces import Space
from pinfeather.training import Judged

if find_spec("peft") is None:  # to import it takes seconds, in every process that collects tests
    pytest.skip("peft is not installed", allow_module_level=True)
WORDS = ("lamp", "chair", "rug", "vase", "shelf", "clock", "mirror", "table")


def judged(count: int = 96, name: str = "words") -> PairSet:
    """A query asks for a German word, a good title (5) has the English one, a bad title (1) another."""
    german = dict(zip(WORDS, ("lampe", "stuhl", "teppich", "vase", "regal", "uhr", "spiegel", "tisch"), strict=True))
    random = np.random.default_rng(0)
    asked = [WORDS[row % 8] for row in range(count)]
    same = random.random(count) < 0.5
    titles = [
        f"oak {word if good else WORDS[(WORDS.index(word) + 3) % 8]} {row % 5}"
        for row, (word, good) in enumerate(zip(asked, same, strict=True))
    ]
    pins = [PinFields(title=title, board_titles=("living room",)) for title in titles]
    return PairSet.from_rows(name, [german[word] for word in asked], pins, np.where(same, 5, 1))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_base(tmp_path_factory.mktemp("base") / "bert"))


def fast(base: str, **changes) -> TowerTraining:
    given = {"base": base, "dimension": 16, "nested": (16, 8), "rank": 4, "epochs": 20, "learning_rate": 1e-2}
    return TowerTraining(**{**given, "batch_tokens": 400, "max_length": 32, **changes})


def tower_gap(pairs: PairSet, query, pin) -> float:
    """Mean cosine of good pairs minus that of bad ones."""
    texts = [DEFAULT_TEMPLATE.render(each).text for each in pairs.pins]
    cosine = (query.encode(list(pairs.queries)) * pin.encode([texts[row] for row in pairs.pin_of])).sum(axis=1)
    return float(cosine[pairs.levels == 5].mean() - cosine[pairs.levels == 1].mean())


@pytest.fixture(scope="module")
def students(base, tmp_path_factory):
    """Students with shared (True) and with separate towers, and the folder that they were trained into."""
    folder = tmp_path_factory.mktemp("students")
    return folder, {
        shared: train_student_bundle(
            judged(), folder / str(shared), towers=fast(base, shared=shared), dropout=0.0, device="cpu"
        )
        for shared in (True, False)
    }


@pytest.mark.parametrize("shared", [True, False])
def test_towers_learn_what_the_words_do_not_say(base, students, shared):
    folder, bundles = students
    manifest = bundles[shared].manifest
    assert (manifest.query_tower == manifest.pin_tower) is shared
    query, pin = (bundles[shared].encoder(role, "cpu") for role in ("query", "pin"))
    assert query.dimension == pin.dimension == 16
    pairs, before = judged(), load_encoder(base, "cpu", max_length=32)
    assert tower_gap(pairs, query, pin) > tower_gap(pairs, before, before) + 0.1
    assert sorted(path.name for path in folder.iterdir()) == ["False", "True"]


def test_the_head_leans_little_on_products_of_towers_that_saw_the_very_pairs(students):
    bundle, pairs = students[1][True], judged()
    features = pair_features(pairs, bundle.encoder("query", "cpu"), DEFAULT_TEMPLATE, bundle.statistics)
    products = [name.startswith(TOWER_PRODUCT) for name in features.names]
    usual = HeadTrainer(pairs, features, bundle.statistics, dropout=0.0).fit()
    assert 0 < np.abs(bundle.head.weights[products]).max() < 0.3 * np.abs(usual.weights[products]).max()


@pytest.mark.parametrize(("source", "penalty"), [("judgments of shop", SEEN_PENALTY), ("other pairs", None)])
def test_a_head_on_a_space_of_towers_that_saw_the_judgments_gets_that_penalty_too(base, tmp_path, source, penalty):
    paths = RepoPaths(tmp_path / "shop")
    trained = dataclasses.replace(judged(16), source=f"{source}, labels of teacher version 1")
    how = fast(base, epochs=1)
    bundle = train_student_bundle(trained, paths.bundles / "towers", towers=how, dropout=0.0, device="cpu")
    assert bundle.manifest.training["product_penalty"] == SEEN_PENALTY
    tower, pairs = bundle.manifest.pin_tower, dataclasses.replace(judged(16), source="judgments of shop")
    features = pair_features(pairs, bundle.encoder("query", "cpu"), DEFAULT_TEMPLATE, bundle.statistics)
    space = Space("s", 16, "towers", tower, (tower,), DEFAULT_TEMPLATE, {}, bundle="towers")
    of = Judged(paths, pairs, space, bundle.statistics, bundle.encoder("query", "cpu"), features)
    assert of.trainer().product_penalty == penalty
    elsewhere = dataclasses.replace(of, space=dataclasses.replace(space, bundle=""))
    assert elsewhere.trainer().product_penalty is None


@pytest.mark.parametrize("shared", [True, False])
def test_towers_of_rank_0_are_whole_models_in_the_bundle(base, tmp_path, shared):
    pairs = judged()
    student = train_student_bundle(
        pairs,
        tmp_path / "student",
        towers=fast(base, rank=0, learning_rate=2e-3, shared=shared),
        dropout=0.0,
        device="cpu",
    )
    places = set(student.towers.values())
    assert len(places) == (1 if shared else 2)
    for place in places:
        assert (place / "base/model.safetensors").is_file()
        assert not (place / "adapter_model.safetensors").exists()
    assert student.manifest.training["towers"]["learning_rate"] == 2e-3
    shutil.move(tmp_path / "student", tmp_path / "moved")
    moved = StudentBundle.load(tmp_path / "moved")
    query, pin = (moved.encoder(role, "cpu") for role in ("query", "pin"))
    before = load_encoder(base, "cpu", max_length=32)
    assert query.dimension == 16
    assert tower_gap(pairs, query, pin) > tower_gap(pairs, before, before) + 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved"]


def test_whole_towers_move_together_with_their_base(base, tmp_path):
    pairs = judged(16)
    how = fast(base, rank=0, epochs=1, learning_rate=None)
    places = train_towers(pairs, tmp_path / "towers", DEFAULT_TEMPLATE, fit_statistics(pairs), how, "cpu")
    vectors = load_encoder(places["pin"], "cpu").encode(["oak lamp"])
    shutil.move(tmp_path / "towers", tmp_path / "moved")
    np.testing.assert_array_equal(load_encoder(tmp_path / "moved/shared", "cpu").encode(["oak lamp"]), vectors)
    config = json.loads((tmp_path / "moved/shared-base/config.json").read_text())
    former = json.loads((Path(base) / "config.json").read_text())
    assert config["hidden_dropout_prob"] == former["hidden_dropout_prob"] > 0  # training switched it off for itself


@pytest.mark.parametrize("rank", [0, 4])
def test_a_base_that_a_tower_cannot_stand_on_is_refused_before_training(base, tmp_path, rank):
    asking = Path(shutil.copytree(base, tmp_path / "asking"))
    prompts = {"prompts": {"text": "query: "}, "default_prompt_name": "text"}
    (asking / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    pairs, told = judged(16), []
    statistics = fit_statistics(pairs)
    how = fast(str(asking), rank=rank)
    with pytest.raises(ModelFolderError, match="prompt before every text"):
        train_towers(pairs, tmp_path / "t", DEFAULT_TEMPLATE, statistics, how, "cpu", tell=told.append)
    assert told == []
    assert not (tmp_path / "t").exists()


def test_weights_beyond_half_precision_are_refused(base, tmp_path):
    from safetensors.numpy import load_file, save_file

    large = Path(shutil.copytree(base, tmp_path / "large"))
    weights = load_file(large / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name][5, 5] = 1e5
    save_file(weights, large / "model.safetensors", {"format": "pt"})
    pairs, how = judged(16), fast(str(large), rank=0, epochs=1, learning_rate=1e-4)
    with pytest.raises(PinfeatherError, match=r"word_embeddings.*too large for half precision: train with a lower"):
        train_towers(pairs, tmp_path / "t", DEFAULT_TEMPLATE, fit_statistics(pairs), how, "cpu")


def test_an_interrupted_training_of_towers_goes_on_to_the_same_vectors(base, tmp_path):
    pairs, how = judged(), fast(base, epochs=2, checkpoint_steps=2)
    statistics = fit_statistics(pairs)
    whole = train_towers(pairs, tmp_path / "whole", DEFAULT_TEMPLATE, statistics, how, "cpu")
    from embedders.optimising import Checkpoint

    saved = []
    save = Checkpoint.save

    def save_and_stop(self, *given):
        save(self, *given)
        saved.append(given)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_towers(pairs, tmp_path / "cut", DEFAULT_TEMPLATE, statistics, how, "cpu")
    assert len(saved) == 1
    assert not (tmp_path / "cut").exists()
    again = train_towers(pairs, tmp_path / "cut", DEFAULT_TEMPLATE, statistics, how, "cpu")
    texts = ["lampe", "oak lamp"]
    vectors = [load_encoder(each["pin"], "cpu").encode(texts) for each in (whole, again)]
    np.testing.assert_allclose(*vectors, atol=2e-3)


def test_a_student_with_towers_scores_alike_before_and_after_loading(students):
    folder, bundles = students
    pairs, loaded = judged(), StudentBundle.load(folder / "True")
    scores = score_pairs(pairs, loaded, loaded.encoder("query", "cpu"))
    np.testing.assert_array_equal(scores, score_pairs(pairs, bundles[True], bundles[True].encoder("query", "cpu")))
    levels = expected_level(scores)
    assert levels[pairs.levels == 5].mean() > levels[pairs.levels == 1].mean() + 1
    assert loaded.manifest.training["towers"]["rank"] == 4
    assert loaded.manifest.training["levels"]["5"] == int((pairs.levels == 5).sum())


def test_separate_towers_score_by_their_own_vectors(students):
    pairs, bundle = judged(), students[1][False]
    pin = bundle.encoder("pin", "cpu")
    texts = [DEFAULT_TEMPLATE.render(each).text for each in pairs.pins]
    given = dataclasses.replace(pairs, pin_vectors=pin.encode(texts))
    ours = score_pairs(pairs, bundle, bundle.encoder("query", "cpu"))
    np.testing.assert_allclose(ours, score_pairs(given, bundle, bundle.encoder("query", "cpu")), atol=1e-3)


def test_the_head_has_seen_pins_without_vectors_words_and_history(base, students, tmp_path):
    pairs, plain = judged(), students[1][True]
    robust = train_student_bundle(pairs, tmp_path / "robust", towers=fast(base), dropout=0.8, device="cpu")
    for mask in ("no_vector", "no_title", "no_boards"):
        column = SCALAR_NAMES.index(mask)
        assert plain.head.scale[column] == 0, "a head that never saw it missing cannot read the mask"
        assert robust.head.scale[column] > 0
    bare = dataclasses.replace(pairs, pin_vectors=np.full((len(pairs.pins), 16), np.nan, np.float32))
    levels = expected_level(score_pairs(bare, robust, robust.encoder("query", "cpu")))
    assert abs(levels.mean() - pairs.levels.mean()) < 0.5


def test_targets_mix_what_people_and_teacher_say():
    pairs = judged(8)
    labels = np.full((8, 5), 0.2)
    half = mixed(pairs, labels, 0.5).require_targets()
    np.testing.assert_allclose(half, 0.5 * pairs.require_targets() + 0.1)
    with pytest.raises(UsageError, match="between 0 and 1"):
        mixed(pairs, labels, 1.5)
    both = together("both", pairs, dataclasses.replace(pairs, targets=labels, levels=None, weights=np.full(8, 2.0)))
    assert len(both) == 16
    assert both.levels is None
    assert [both.pins[pin] for pin in both.pin_of[8:]] == [pairs.pins[pin] for pin in pairs.pin_of]
    assert both.pins == pairs.pins
    rates = {name: np.full(len(pairs.pins), np.nan) for name in ("click_rate", "save_rate")}
    rated = dataclasses.replace(pairs, **rates)
    other = np.where(np.arange(len(pairs.pins)) == 0, 0.5, np.nan)
    apart = together("apart", rated, rated, dataclasses.replace(rated, click_rate=other))
    assert apart.pins == (*pairs.pins, pairs.pins[0])
    np.testing.assert_array_equal(apart.click_rate, [*rates["click_rate"], 0.5])
    assert (apart.pin_of[16:] == len(pairs.pins)).tolist() == (pairs.pin_of == 0).tolist()
    np.testing.assert_allclose(both.require_targets()[8:], 0.2)
    np.testing.assert_allclose(both.weights, [1.0] * 8 + [2.0] * 8)
    with pytest.raises(PinfeatherError, match="no pairs to train on"):
        together("nothing")


def test_what_cannot_be_trained_is_refused(base, tmp_path):
    with pytest.raises(UsageError, match="Nested dimensions"):
        TowerTraining(dimension=16, nested=(32, 16))
    with pytest.raises(UsageError, match="0 to train all weights, not -1"):
        TowerTraining(rank=-1)
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match=f"above 0, got {rate}"):
            TowerTraining(learning_rate=rate)
    assert (TowerTraining().rate, TowerTraining(rank=0).rate) == (5e-4, 5e-5)
    with pytest.raises(UsageError, match="more than the 32"):
        wide = fast(base, dimension=64, nested=(64,))
        train_towers(judged(), tmp_path / "t", DEFAULT_TEMPLATE, fit_statistics(judged()), wide, "cpu")
    empty = PairSet.from_rows("empty", ["", "lamp"], [PinFields(title="lamp"), PinFields()], [5, 1])
    with pytest.raises(PinfeatherError, match="holds 0 pairs with texts"):
        train_towers(empty, tmp_path / "t", DEFAULT_TEMPLATE, fit_statistics(empty), fast(base), "cpu")


def test_the_contrastive_term_leaves_labelled_pairs_out():
    import torch

    queries, pins = torch.eye(2), torch.eye(3)[:, :2]
    positives = torch.tensor([[0, 0]])
    alone = contrastive_loss(queries, pins, positives, 10.0)
    kept = contrastive_loss(queries, pins, positives, 10.0, torch.ones(2, 3, dtype=torch.bool))
    assert float(kept) == pytest.approx(0, abs=1e-6)  # every other pair was labelled: nothing is a negative
    assert 0 < float(alone) < 1e-3
    assert float(contrastive_loss(queries, pins, positives[:0], 10.0)) == 0


def test_an_ordinal_loss_charges_distance_and_cross_entropy_does_not():
    import torch

    targets, weights = torch.eye(5)[[4]], torch.ones(1)
    near, far = torch.tensor([[0.0, 0, 0, 4, 0]]), torch.tensor([[4.0, 0, 0, 0, 0]])
    plain = [float(level_loss("cross-entropy", logits, targets, weights)) for logits in (near, far)]
    ordinal = [float(level_loss("ordinal", logits, targets, weights)) for logits in (near, far)]
    assert plain[0] == pytest.approx(plain[1])
    assert ordinal[1] > ordinal[0] + 1
    with pytest.raises(UsageError, match="cross-entropy, ordinal"):
        level_loss("hinge", near, targets, weights)
