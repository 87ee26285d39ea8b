"""BERT without transformers: the same vectors, and whatever is not plain BERT is left to transformers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tower_models import tiny_base, tiny_tower

from embedders import encoder as encoder_module
from embedders.backbone import load_backbone
from embedders.encoder import load_encoder
from embedders.low_rank import LowRank
from embedders.plain_bert import PlainBert
from embedders.runners import pooled
from embedders.tokens import token_batches
from embedders.tower_folder import open_model

TEXTS = [
    "sofa",
    "",
    "green velvet sofa with brass legs",
    "grünes Sofa für kleine Räume 日本",
    " ".join(["oak shelf"] * 20),
    " ".join(["a long text"] * 90),
]


def of_transformers(folder, precision="fp32"):
    """The model in ``folder`` as transformers computes it."""
    model = load_backbone(open_model(folder), "cpu", precision)
    return lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state


def through(model, encoder, texts):
    """Vectors of ``texts`` by ``model`` instead of the encoder's own, the batches being the encoder's."""
    import torch

    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    cleaned = [encoder._tokenizer.clean(text) for text in texts]
    for batch in token_batches(encoder._tokenizer, cleaned, encoder.recipe.token_budget):
        ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
        vectors[batch.rows] = pooled(model, ids, mask, encoder._runner._head).numpy()
    return vectors


@pytest.fixture(scope="module")
def packaged():
    return load_encoder(device="cpu", precision="fp32", threads=1), of_transformers("packaged")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("plain") / "base")


@pytest.fixture(scope="module")
def tower(base, tmp_path_factory):
    folder = tiny_tower(tmp_path_factory.mktemp("plain") / "tower", base)
    return load_encoder(folder, "cpu", "fp32", threads=1), of_transformers(folder)


@pytest.fixture
def copied(base, tmp_path):
    """A model folder that a test may change."""
    return Path(shutil.copytree(base, tmp_path / "model"))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_alone_has_the_vector_that_transformers_gives(packaged, text):
    encoder, model = packaged
    vector = encoder.encode([text])[0]
    assert np.abs(vector - through(model, encoder, [text])[0]).max() < 1e-6
    assert np.abs(vector - encoder.encode(TEXTS)[TEXTS.index(text)]).max() < 1e-6
    assert abs(np.linalg.norm(vector) - 1) < 1e-5


def test_a_padded_batch_has_the_vectors_that_transformers_gives(packaged):
    encoder, model = packaged
    assert np.abs(encoder.encode(TEXTS) - through(model, encoder, TEXTS)).max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=12, unique_by=str.strip))
def test_any_texts_through_a_tower_have_the_vectors_that_transformers_gives(tower, texts):
    encoder, model = tower
    assert np.abs(encoder.encode(texts) - through(model, encoder, texts)).max() < 1e-5


def test_bf16_is_the_bf16_of_transformers(base, tmp_path):
    folder = tiny_tower(tmp_path / "tower", base)
    encoder = load_encoder(folder, "cpu", "bf16", threads=1)
    assert encoder._runner._model.precision == "bf16"
    theirs = through(of_transformers(folder, "bf16"), encoder, TEXTS)
    assert (encoder.encode(TEXTS) * theirs).sum(axis=1).min() > 0.999


def test_short_and_long_texts_and_big_batches_of_a_tower_need_no_transformers(base, tmp_path):
    folder = tiny_tower(tmp_path / "tower", base)
    code = (
        "import sys; from embedders.encoder import load_encoder;"
        f"encoder = load_encoder({str(folder)!r}, 'cpu', threads=1);"
        "encoder.encode(['sofa']); encoder.encode(['oak ' * 900, *map(str, range(300))]);"
        "slow = ('transformers', 'torch._dynamo', 'pandas', 'feast', 'scipy', 'sklearn', 'peft');"
        "print([name for name in slow if name in sys.modules])"
    )
    root = Path(encoder_module.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rename_tensors(folder):
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    save_file({f"bert.{name}": array for name, array in load_file(file).items()}, file, {"format": "pt"})


def test_a_plain_model_is_read(copied):
    assert PlainBert.read(open_model(copied), "fp32") is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit_config(folder, hidden_act="relu"),
        lambda folder: edit_config(folder, model_type="roberta"),
        lambda folder: edit_config(folder, is_decoder=True),
        lambda folder: edit_config(folder, num_hidden_layers=3),
        lambda folder: edit_config(folder, intermediate_size=32),
        lambda folder: edit_config(folder, vocab_size="many"),
        lambda folder: edit_config(folder, num_attention_heads=5),
        lambda folder: edit_config(folder, quantization_config={"quant_method": "awq"}),
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        lambda folder: shutil.copy(folder / "model.safetensors", folder / "other.safetensors"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors"),
        rename_tensors,
    ],
)
def test_what_is_not_plain_is_left_to_transformers(copied, change):
    change(copied)
    assert PlainBert.read(open_model(copied), "fp32") is None


def test_weights_under_another_prefix_have_the_same_vectors(copied, base):
    rename_tensors(copied)
    assert isinstance(load_encoder(copied, "cpu", "fp32", threads=1)._runner._model, PlainBert)
    ours = load_encoder(copied, "cpu", "fp32", threads=1).encode(TEXTS)
    np.testing.assert_array_equal(ours, load_encoder(base, "cpu", "fp32", threads=1).encode(TEXTS))


def test_another_activation_is_computed_by_transformers(copied):
    edit_config(copied, hidden_act="relu")
    encoder = load_encoder(copied, "cpu", "fp32", threads=1)
    assert not isinstance(encoder._runner._model, PlainBert)
    assert np.abs(encoder.encode(TEXTS) - through(of_transformers(copied), encoder, TEXTS)).max() < 1e-6


def test_an_adapter_that_fits_no_linear_layer_is_left_to_transformers(base, tmp_path):
    folder = tiny_tower(tmp_path / "tower", base)
    opened = open_model(folder)
    deltas = dict(opened.deltas())
    deltas["embeddings.word_embeddings"] = next(iter(deltas.values()))

    class Other:
        backbone = opened.backbone

        def deltas(self):
            return deltas

    assert PlainBert.read(opened, "fp32") is not None
    assert PlainBert.read(Other(), "fp32") is None


@pytest.mark.parametrize(("width", "plain"), [(32, True), (16, False)])
def test_an_adapter_may_change_the_pooler_which_no_vector_reads(base, tmp_path, width, plain):
    opened = open_model(tiny_tower(tmp_path / "tower", base))
    square = next(iter(opened.deltas().values()))
    pooler = LowRank(square.a[:, :width], square.b[:width], square.scale)

    class WithPooler:
        backbone = opened.backbone

        def deltas(self):
            return {**opened.deltas(), "pooler.dense": pooler}

    assert (PlainBert.read(WithPooler(), "fp32") is not None) == plain


def test_the_weights_stay_when_the_file_changes(copied):
    encoder = load_encoder(copied, "cpu", "fp32", threads=1)
    before = encoder.encode(TEXTS)
    with (copied / "model.safetensors").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(bytes(size))
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)
