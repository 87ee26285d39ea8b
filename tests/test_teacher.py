"""The teacher: tiny encoders and decoders trained for real, interrupted, saved, changed and loaded."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tower_models import tiny_base

from embedders.calibration import fit_temperature
from embedders.cross_model import CrossSettings, cross_network
from embedders.evaluation.pairs import PairSet
from embedders.optimising import shuffled_batches
from embedders.pair_tokens import PairTokenizer
from embedders.student import softmax
from embedders.targets import balanced_weights, soft_targets
from embedders.teacher import Teacher, TeacherError
from embedders.teacher_training import TeacherTraining, train_teacher
from embedders.training_base import layers_of
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.pin_text import PinFields

WORDS = ("lamp", "chair", "rug", "vase", "shelf", "clock", "mirror", "table")
FAST = TeacherTraining(epochs=2, evaluations=1, held_back=0.25, batch_tokens=256, prior=None, learning_rate=2e-3)


def judged(count: int = 64) -> PairSet:
    """A query is good (5) with a title of the same word and bad (1) with another."""
    random = np.random.default_rng(0)
    queries = [f"{WORDS[row % 8]} {row // 8}" for row in range(count)]
    same = random.random(count) < 0.5
    titles = [f"oak {WORDS[row % 8] if same[row] else WORDS[(row + 3) % 8]} number {row}" for row in range(count)]
    levels = np.where(same, 5, 1)
    return PairSet.from_rows("words", queries, [PinFields(title=title) for title in titles], levels)


@pytest.fixture(scope="module", autouse=True)
def fp32():
    """Numbers are compared here to more digits than bf16 has, whatever the processor can do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedders.recipe.processor_has_bf16", lambda: False)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_base(tmp_path_factory.mktemp("base") / "bert"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A two-layer GPT-2 whose tokenizer has an end token and no padding token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base") / "gpt2"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel()
    raw.train_from_iterator([*WORDS, "query: pin:"], trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"]))
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>").save_pretrained(folder)
    GPT2Model(GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2, n_positions=64)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers") / "tiny"
    train_teacher(judged(), folder, settings=CrossSettings(base, max_length=48), training=FAST, device="cpu")
    return folder


def texts_of(pairs: PairSet, teacher: Teacher) -> list[str]:
    return [teacher.template.render(pairs.pins[pin]).text for pin in pairs.pin_of]


def test_a_teacher_gives_the_same_probabilities_after_loading_in_any_order(trained):
    teacher, again = Teacher.load(trained, "cpu"), Teacher.load(trained, "cpu")
    pairs = judged()
    texts = texts_of(pairs, teacher)
    chances = teacher.probabilities(pairs.queries, texts)
    assert chances.shape == (64, 5)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-9)
    turned = again.probabilities(pairs.queries[::-1], texts[::-1])[::-1]
    np.testing.assert_allclose(chances, turned, atol=1e-5)
    assert teacher.fingerprint == again.fingerprint and len(teacher.fingerprint) == 32
    assert teacher.probabilities([], []).shape == (0, 5)


def test_equal_pairs_are_computed_once(trained, monkeypatch):
    teacher = Teacher.load(trained, "cpu")
    seen = []
    whole = PairTokenizer.__call__
    monkeypatch.setattr(PairTokenizer, "__call__", lambda self, q, t: seen.append(len(q)) or whole(self, q, t))
    done = []
    chances = teacher.probabilities(["lamp"] * 6, ["a", "b", "a", "b", "a", "a"], done.append)
    assert seen == [2]
    assert sum(done) == 6
    np.testing.assert_array_equal(chances[0], chances[5])


@pytest.mark.parametrize("name", ["trained.safetensors", "teacher.json"])
def test_a_changed_or_missing_file_is_refused_by_name(trained, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / name).write_bytes(b"{}")
    with pytest.raises(TeacherError, match=name):
        Teacher.load(copy)
    (copy / name).unlink()
    with pytest.raises(TeacherError, match=name):
        Teacher.load(copy)


def test_another_base_than_the_recorded_one_is_refused(trained, base, tmp_path):
    other = tmp_path / "bert"
    shutil.copytree(base, other)
    tiny_base(other, seed=9)
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    manifest = json.loads((copy / "teacher.json").read_text())
    manifest["settings"]["base"] = str(other)
    (copy / "teacher.json").write_text(json.dumps(manifest))
    with pytest.raises(TeacherError, match="trained on another"):
        Teacher.load(copy)


def test_what_matters_in_a_folder_is_in_the_fingerprint_and_where_it_lies_is_not(trained, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(trained, copy)
    assert Teacher.load(copy).fingerprint == Teacher.load(trained).fingerprint
    manifest = json.loads((copy / "teacher.json").read_text())
    manifest["temperature"] *= 2
    (copy / "teacher.json").write_text(json.dumps(manifest))
    assert Teacher.load(copy).fingerprint != Teacher.load(trained).fingerprint


def test_an_interrupted_training_goes_on_to_the_same_weights(base, tmp_path):
    settings = CrossSettings(base, max_length=48)
    training = dataclasses.replace(FAST, checkpoint_steps=1)
    whole = train_teacher(judged(), tmp_path / "whole", "t", settings, training, device="cpu")
    said = []

    def stop(words):
        said.append(words)
        if words.startswith("step") and len(said) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_teacher(judged(), tmp_path / "cut", "t", settings, training, device="cpu", tell=stop)
    assert not (tmp_path / "cut").exists()
    resumed = []
    again = train_teacher(judged(), tmp_path / "cut", "t", settings, training, device="cpu", tell=resumed.append)
    first = [words for words in resumed if words.startswith("step")]
    assert first[0].startswith(said[0].split(":")[0]), "the evaluation that was cut is done again, no earlier one"
    assert again.training["held_back_loss"] == pytest.approx(whole.training["held_back_loss"], abs=1e-4)
    assert not list(tmp_path.glob(".cut*"))


def test_a_training_with_other_pairs_does_not_go_on_from_the_old_state(base, tmp_path):
    settings = CrossSettings(base, max_length=48)
    training = dataclasses.replace(FAST, checkpoint_steps=1)

    def stop(words):
        if words.startswith("step"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_teacher(judged(), tmp_path / "t", "t", settings, training, device="cpu", tell=stop)
    with pytest.raises(PinfeatherError, match="other settings, pairs or base"):
        train_teacher(judged(72), tmp_path / "t", "t", settings, training, device="cpu")


@pytest.mark.parametrize("pooling", ["cls", "segments"])
def test_encoders_learn_by_either_pooling(base, tmp_path, pooling):
    settings = CrossSettings(base, pooling, max_length=48)
    training = dataclasses.replace(FAST, loss="ordinal", balance=1.0)
    train_teacher(judged(), tmp_path / "t", settings=settings, training=training, device="cpu")
    assert Teacher.load(tmp_path / "t").manifest.training["levels"] == {"1": 32, "2": 0, "3": 0, "4": 0, "5": 32} | {
        str(level): int((judged().levels == level).sum()) for level in (1, 5)
    }


def test_a_decoder_without_padding_token_reads_its_last_token(decoder, tmp_path):
    settings = CrossSettings(decoder, max_length=48)
    train_teacher(judged(), tmp_path / "t", settings=settings, training=FAST, device="cpu")
    teacher = Teacher.load(tmp_path / "t", "cpu")
    alone = teacher.probabilities(["lamp 1"], ["oak lamp"])
    padded = teacher.probabilities(["lamp 1", "vase 2"], ["oak lamp", "a long text of many words about a vase"])
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-6)
    other_end = teacher.probabilities(["lamp 1"], ["oak vase"])
    assert np.abs(other_end - alone).max() > 1e-6


def test_lora_changes_adapters_only_and_is_small(base, tmp_path):
    pytest.importorskip("peft")
    settings = CrossSettings(base, max_length=48, lora={"r": 2, "lora_alpha": 4})
    train_teacher(judged(), tmp_path / "t", settings=settings, training=FAST, device="cpu")
    from safetensors.numpy import load_file

    names = load_file(tmp_path / "t" / "trained.safetensors")
    assert {name.split(".")[0] for name in names} == {"backbone", "dense", "out"}
    assert all("lora_" in name for name in names if name.startswith("backbone"))
    assert Teacher.load(tmp_path / "t", "cpu").probabilities(["lamp"], ["oak lamp"]).shape == (1, 5)


def test_the_prior_is_where_the_training_starts(tmp_path):
    """With the packaged model as prior and no useful step, the teacher says what the prior says."""
    settings = CrossSettings(max_length=48, frozen_layers=6)
    training = dataclasses.replace(FAST, prior="packaged", epochs=1, learning_rate=1e-9)
    training = dataclasses.replace(training, head_learning_rate=1e-9)
    train_teacher(judged(), tmp_path / "t", settings=settings, training=training, device="cpu")
    teacher = Teacher.load(tmp_path / "t", "cpu")
    pairs = judged()
    texts = texts_of(pairs, teacher)
    (member,) = teacher._members
    expected = softmax(member.prior.logits(pairs.queries, texts) / teacher.manifest.temperature)
    np.testing.assert_allclose(teacher.probabilities(pairs.queries, texts), expected, atol=1e-4)
    good = teacher.probabilities(["lamp 1"], ["oak lamp"])[0, 4] > teacher.probabilities(["lamp 1"], ["oak vase"])[0, 4]
    assert good


def test_an_ensemble_is_the_mean_of_its_members(base, tmp_path):
    settings = CrossSettings(base, max_length=48)
    training = dataclasses.replace(FAST, epochs=1)
    manifest = train_teacher(judged(), tmp_path / "both", settings=settings, training=training, device="cpu", seeds=2)
    assert manifest.members == ("member-1", "member-2")
    whole = Teacher.load(tmp_path / "both", "cpu")
    parts = [Teacher.load(tmp_path / "both" / name, "cpu") for name in manifest.members]
    given = (["lamp 1", "rug 2"], ["oak lamp", "oak vase"])
    mean = np.mean([part.probabilities(*given) for part in parts], axis=0)
    expected = softmax(np.log(mean) / manifest.temperature)
    np.testing.assert_allclose(whole.probabilities(*given), expected, atol=1e-6)
    assert not list(tmp_path.glob(".both*"))


def test_settings_that_do_not_fit_are_refused_with_what_is_allowed(base, decoder, tmp_path):
    with pytest.raises(UsageError, match=r"is a decoder .* its pooling is last"):
        cross_network(CrossSettings(decoder, "cls", max_length=48))
    with pytest.raises(UsageError, match=r"is an encoder .* cls or segments"):
        cross_network(CrossSettings(base, "last", max_length=48))
    with pytest.raises(UsageError, match="has 2"):
        cross_network(CrossSettings(base, max_length=48, frozen_layers=3))
    with pytest.raises(UsageError, match="CUDA device and the package bitsandbytes"):
        cross_network(CrossSettings(base, quantize="4bit", lora={"r": 2}))
    with pytest.raises(TeacherError, match="no model"):
        cross_network(CrossSettings(str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match="cross-entropy, ordinal"):
        TeacherTraining(loss="hinge")
    one_query = PairSet.from_rows("one", ["lamp"] * 4, [PinFields(title=str(row)) for row in range(4)], [1, 2, 4, 5])
    with pytest.raises(PinfeatherError, match="judge more queries"):
        train_teacher(one_query, tmp_path / "t", settings=CrossSettings(base), training=FAST)
    unjudged = PairSet.from_rows("none", ["lamp"], [PinFields(title="lamp")])
    with pytest.raises(PinfeatherError, match="carry no levels"):
        train_teacher(unjudged, tmp_path / "t", settings=CrossSettings(base), training=FAST)


def test_frozen_layers_keep_the_weights_of_the_base(base):
    network = cross_network(CrossSettings(base, max_length=48, frozen_layers=1))
    layers = layers_of(network.backbone)
    assert not any(each.requires_grad for each in layers[0].parameters())
    assert all(each.requires_grad for each in layers[1].parameters())
    assert not any(each.requires_grad for name, each in network.backbone.named_parameters() if "embeddings" in name)


def test_a_query_keeps_half_of_the_length_and_the_text_the_rest(base):
    tokenizer = PairTokenizer(base, "cls", 16)
    ((ids, first),) = tokenizer(["lamp " * 40], ["rug " * 40])
    assert len(ids) == 16
    assert 7 <= first <= 10
    ((ids, first),) = tokenizer(["lamp"], ["rug " * 40])
    assert (len(ids), first) == (16, 3)


def test_soft_targets_follow_what_the_raters_said():
    means, variances = np.array([np.nan, 3.66, np.nan, np.nan]), np.array([np.nan, np.nan, 0.0, np.nan])
    targets = soft_targets(np.array([5, 4, 1, 3]), means, variances)
    np.testing.assert_allclose(targets[0], [0, 0, 0, 0, 1])
    np.testing.assert_allclose(targets[1], [0, 0, 0.34, 0.66, 0], atol=1e-9)
    assert targets[2, 0] > 0.99
    wide = soft_targets(np.array([1, 2, 4, 5]), None, np.array([9.0, 0.5, 0.5, 9.0]))
    np.testing.assert_array_equal(wide[:, 2], 0)  # nobody could answer 3
    assert wide[0, 0] < 0.8
    never = soft_targets(np.array([3, 3, 2]), np.array([3.5, 3.0, 2.0]))
    np.testing.assert_array_equal(never[:, 3], 0)
    np.testing.assert_array_equal(wide.argmax(axis=1) + 1, [1, 2, 4, 5])
    for bad in (dict(means=np.array([7.0])), dict(variances=np.array([-1.0]))):
        with pytest.raises(PinfeatherError, match="is not between"):
            soft_targets(np.array([3]), **bad)
    with pytest.raises(PinfeatherError, match="level 6"):
        soft_targets(np.array([6]))


def test_balanced_weights_lift_rare_levels_to_equal_shares():
    targets = np.eye(5)[[4] * 9 + [0]]
    weights = balanced_weights(targets, 1.0)
    assert weights[:9].sum() == pytest.approx(weights[9:].sum())
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(balanced_weights(targets, 0.0), 1)


def test_a_temperature_undoes_logits_that_were_made_too_sure():
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5)) * 2
    levels = np.array([random.choice(5, p=row) for row in softmax(logits)])
    assert fit_temperature(logits * 3, np.eye(5)[levels]) == pytest.approx(3, rel=0.1)
    with pytest.raises(PinfeatherError, match="finite"):
        fit_temperature(np.full((1, 5), np.nan), np.eye(5)[:1])


def test_batches_hold_every_row_once_and_keep_to_the_budget():
    lengths = np.random.default_rng(1).integers(1, 60, 500)
    batches = shuffled_batches(lengths, 128, seed=3, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(500))
    assert all(lengths[rows].max() * len(rows) <= 128 or len(rows) == 1 for rows in batches)
    again = shuffled_batches(lengths, 128, seed=3, epoch=0)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))
    assert any(
        len(one) != len(other) or (one != other).any()
        for one, other in zip(batches, shuffled_batches(lengths, 128, seed=3, epoch=1), strict=False)
    )


def test_an_ensemble_does_not_go_on_with_members_of_another_training(base, tmp_path):
    settings = CrossSettings(base, max_length=48)
    training = dataclasses.replace(FAST, epochs=1)
    said = []

    def stop_at_the_second(words):
        said.append(words)
        if words.startswith("step") and len([each for each in said if each.startswith("step 1 ")]) == 2:
            raise KeyboardInterrupt

    many = dataclasses.replace(training, evaluations=100)
    with pytest.raises(KeyboardInterrupt):
        train_teacher(judged(), tmp_path / "both", "b", settings, many, device="cpu", seeds=2, tell=stop_at_the_second)
    with pytest.raises(PinfeatherError, match="other settings, pairs or base"):
        train_teacher(judged(72), tmp_path / "both", "b", settings, many, device="cpu", seeds=2)


def test_a_training_whose_last_step_is_done_is_not_lost_when_the_disk_is_full(base, tmp_path, monkeypatch):
    import embedders.teacher_training as module

    def full(*given):
        raise OSError(28, "No space left on device")

    settings = CrossSettings(base, max_length=48)
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_teacher", full)
        with pytest.raises(OSError, match="No space left"):
            train_teacher(judged(), tmp_path / "t", "t", settings, FAST, device="cpu")
    said = []
    train_teacher(judged(), tmp_path / "t", "t", settings, FAST, device="cpu", tell=said.append)
    assert not [words for words in said if words.startswith("step")], "no step is done again"
    assert not list(tmp_path.glob(".t*"))


def test_more_tokens_than_the_base_has_positions_for_are_refused(base):
    with pytest.raises(UsageError, match="64 tokens at most, and the maximum length is 128"):
        cross_network(CrossSettings(base))
    with pytest.raises(UsageError, match="leave the frozen layers out"):
        cross_network(CrossSettings(base, max_length=48, frozen_layers=1, lora={"r": 2}))


def test_a_task_type_of_a_published_lora_configuration_is_no_matter(base):
    pytest.importorskip("peft")
    network = cross_network(CrossSettings(base, max_length=48, lora={"r": 2, "task_type": "CAUSAL_LM"}))
    assert any("lora_A" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize(("asked", "low", "high"), [(0.1, 0.07, 0.13), (0.4, 0.36, 0.44)])
def test_the_share_that_is_held_back_is_the_one_asked_for(base, asked, low, high):
    from embedders.recipe import choose_recipe
    from embedders.teacher_training import _Trainer
    from feature_repo.pin_text import DEFAULT_TEMPLATE

    pairs = PairSet.from_rows(
        "many", [f"query {row}" for row in range(1000)], [PinFields(title="a")] * 1000, [1] * 1000
    )
    how = dataclasses.replace(FAST, held_back=asked)
    trainer = _Trainer(pairs, CrossSettings(base), how, DEFAULT_TEMPLATE, choose_recipe("cpu"), print)
    assert low < trainer.held.mean() < high
