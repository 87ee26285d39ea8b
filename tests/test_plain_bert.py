"""BERT without transformers, in numpy and in torch: the same vectors, and what is not plain is left to transformers."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tower_models import tiny_base, tiny_tower

from embedders import encoder as encoder_module
from embedders import packed_weights, recipe
from embedders.backbone import load_backbone
from embedders.bert_files import read_bert
from embedders.encoder import EncodingError, load_encoder
from embedders.low_rank import LowRank
from embedders.model_files import ModelFolderError
from embedders.plain_bert import PlainBert, gelu
from embedders.plain_runner import PlainRunner
from embedders.runners import CpuRunner, Head, pooled
from embedders.tokens import token_batches
from embedders.torch_bert import TorchBert
from embedders.tower_folder import open_model
from feature_repo.errors import UsageError

TEXTS = [
    "sofa",
    "",
    "green velvet sofa with brass legs",
    "grünes Sofa für kleine Räume 日本",
    " ".join(["oak shelf"] * 20),
    " ".join(["a long text"] * 90),
]
WAYS = {"numpy": True, "torch": False}


def encoder_of(model="packaged", few=True, **options):
    return load_encoder(model, "cpu", "fp32", threads=1, few=few, **options)


def by_transformers(folder, texts, precision="fp32"):
    """Vectors of ``texts`` by transformers, whose batches are those of our encoder."""
    import torch

    opened = open_model(folder)
    backbone = load_backbone(opened, "cpu", precision)
    ours = encoder_of(folder)
    head = Head.of(opened.pooling, opened.projection(), "cpu")
    vectors = np.empty((len(texts), ours.dimension), np.float32)
    cleaned = [ours._tokenizer.clean(text) for text in texts]
    for batch in token_batches(ours._tokenizer, cleaned, ours.recipe.token_budget):
        ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
        vectors[batch.rows] = pooled(
            lambda ids, mask: backbone(input_ids=ids, attention_mask=mask).last_hidden_state, ids, mask, head
        ).numpy()
    return vectors


def pools_the_first(folder):
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')


def ends_in_a_dense_layer(folder):
    """A last layer with bias and tanh, as sentence-transformers writes it."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(5)
    (folder / "2_Dense").mkdir()
    settings = {"in_features": 32, "out_features": 24, "bias": True, "activation_function": "torch.nn.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
    layer = {"linear.weight": random.normal(size=(24, 32)), "linear.bias": random.normal(size=24)}
    save_file({name: each.astype(np.float32) for name, each in layer.items()}, folder / "2_Dense" / "model.safetensors")
    modules = [{"type": f"models.{kind}", "path": f"{n}_{kind}"} for n, kind in ((1, "Pooling"), (2, "Dense"))]
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.fixture(scope="module")
def packaged():
    return {name: encoder_of(few=few) for name, few in WAYS.items()}


@pytest.fixture(scope="module")
def packaged_vectors():
    return by_transformers("packaged", TEXTS)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("plain") / "base")


@pytest.fixture(scope="module")
def tower(base, tmp_path_factory):
    return tiny_tower(tmp_path_factory.mktemp("plain") / "tower", base)


@pytest.fixture
def copied(base, tmp_path):
    """A model folder that a test may change."""
    return Path(shutil.copytree(base, tmp_path / "model"))


@pytest.mark.parametrize("way", WAYS)
def test_a_text_has_the_vector_that_transformers_gives_alone_and_among_others(packaged, packaged_vectors, way):
    together = packaged[way].encode(TEXTS)
    alone = np.concatenate([packaged[way].encode([text]) for text in TEXTS])
    for vectors in (together, alone):
        assert np.abs(vectors - packaged_vectors).max() < 1e-6
        assert (vectors * packaged_vectors).sum(axis=1).min() > 1 - 1e-6
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "change", [lambda folder: None, pools_the_first, ends_in_a_dense_layer], ids=["mean", "cls", "dense"]
)
def test_every_pooling_and_last_layer_gives_the_vectors_of_transformers(copied, change):
    change(copied)
    encoder = encoder_of(copied)
    assert isinstance(encoder._runner, PlainRunner)
    assert np.abs(encoder.encode(TEXTS) - by_transformers(copied, TEXTS)).max() < 1e-5


@pytest.fixture(scope="module")
def tower_ways(tower):
    return encoder_of(tower), encoder_of(tower, few=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=12, unique_by=str.strip))
def test_any_texts_through_a_tower_have_the_same_vectors_in_numpy_and_torch(tower_ways, texts):
    ours, theirs = tower_ways
    assert np.abs(ours.encode(texts) - theirs.encode(texts)).max() < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_a_tower_with_differences_and_a_projection_is_that_of_transformers(tower, way):
    vectors = encoder_of(tower, few=WAYS[way]).encode(TEXTS)
    assert np.abs(vectors - by_transformers(tower, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("threads", [1, 3])
def test_many_batches_have_the_vectors_of_one(tower, threads):
    texts = [f"{word} {number}" for number in range(40) for word in ("sofa", "a green sofa with legs")]
    one = load_encoder(tower, "cpu", "fp32", threads=threads, few=True)
    many = load_encoder(tower, "cpu", "fp32", threads=threads, few=True, token_budget=32)
    assert len(list(token_batches(many._tokenizer, texts, 32))) > 8
    np.testing.assert_allclose(many.encode(texts), one.encode(texts), atol=1e-6)
    assert many.encode([]).shape == (0, 16)


@given(arrays(np.float32, st.tuples(st.integers(1, 70), st.integers(1, 9)), elements=st.floats(-20, 20, width=32)))
def test_gelu_is_that_of_the_error_function(rows):
    exact = np.array([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in rows.ravel().tolist()]).reshape(rows.shape)
    gelu(rows)
    assert np.abs(rows - exact).max() < 5e-7 + 2e-7 * np.abs(exact).max()


def test_gelu_is_right_everywhere():
    from scipy.special import erf

    x = np.linspace(-10, 10, 400_001, dtype=np.float32)
    rows = x[:, None].copy()
    gelu(rows)
    exact = x.astype(float) * 0.5 * (1 + erf(x.astype(float) / math.sqrt(2)))
    assert np.abs(rows[:, 0] - exact).max() < 7e-7  # more than half of it is float32's own, for numbers up to 10
    far = np.array([[1e2, 1e4, 3e30, -1e2, -1e4, -3e30]], dtype=np.float32)
    with np.errstate(all="ignore"):
        gelu(far)
    np.testing.assert_array_equal(far, np.array([[1e2, 1e4, 3e30, 0, 0, 0]], dtype=np.float32))


def test_bf16_is_the_bf16_of_transformers(tower):
    encoder = load_encoder(tower, "cpu", "bf16", threads=1, few=True)  # asked for, so torch does it
    assert encoder._runner._model.precision == "bf16"
    assert (encoder.encode(TEXTS) * by_transformers(tower, TEXTS, "bf16")).sum(axis=1).min() > 0.999


def child(code, *arguments):
    """What a new process prints."""
    root = Path(encoder_module.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return run.stdout.strip()


SLOW = ("transformers", "torch._dynamo", "pandas", "feast", "scipy", "sklearn", "peft")


@pytest.mark.parametrize(("few", "slow"), [(True, ("torch", *SLOW)), (False, SLOW)])
def test_short_and_long_texts_and_big_batches_of_a_tower_import_nothing_slow(tower, few, slow):
    code = (
        "import sys; from embedders.encoder import load_encoder;"
        f"encoder = load_encoder(sys.argv[1], 'cpu', 'fp32', threads=1, few={few});"
        "encoder.encode(['sofa']); encoder.encode(['oak ' * 900, *map(str, range(300))]);"
        f"print([name for name in {slow!r} if name in sys.modules])"
    )
    assert child(code, str(tower)) == "[]"


@pytest.mark.parametrize(
    ("asked", "driver", "runtime"),
    [
        (("cpu", "auto"), True, "numpy"),
        (("cpu", "fp32"), False, "numpy"),
        (("auto", "auto"), False, "numpy"),
        (("auto", "auto"), True, None),
        (("cpu", "bf16"), False, None),
    ],
)
def test_numpy_computes_where_neither_device_nor_precision_wants_torch(monkeypatch, asked, driver, runtime):
    monkeypatch.setattr(recipe, "_AMD_DEVICE", Path("/dev/none"))
    monkeypatch.setattr(recipe, "_DRIVERS", ("libnone.so.9", "libc.so.6") if driver else ("libnone.so.9",))
    chosen = recipe.numpy_recipe(*asked, threads=2)
    assert (chosen and (chosen.runtime, chosen.device, chosen.precision, chosen.threads)) == (
        runtime and (runtime, "cpu", "fp32", 2)
    )


@pytest.mark.parametrize("asked", [("gpu", "auto"), ("cpu", "fp8"), ("cpu", "auto", 0), ("cpu", "auto", 1, 0)])
def test_options_that_are_none_are_refused_before_anything_is_chosen(asked):
    with pytest.raises(UsageError):
        recipe.numpy_recipe(*asked)


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewritten(folder, change):
    """Change the weights, as arrays."""
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def rename_tensors(folder, prefix="bert."):
    rewritten(folder, lambda arrays: {prefix + name: array for name, array in arrays.items()})


def in_bf16(folder, prefix, but):
    """All but some in bfloat16, those in float16."""
    import torch
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    kinds = {True: torch.float16, False: torch.bfloat16}
    tensors = {prefix + name: each.to(kinds[name in but]) for name, each in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


def test_a_plain_model_is_read(copied):
    assert PlainBert.read(open_model(copied)) is not None
    assert TorchBert.read(open_model(copied), "fp32").precision == "fp32"


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
        lambda folder: edit_config(folder, num_attention_heads=True),
        lambda folder: edit_config(folder, layer_norm_eps=None),
        lambda folder: edit_config(folder, layer_norm_eps="small"),
        lambda folder: edit_config(folder, quantization_config={"quant_method": "awq"}),
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        lambda folder: shutil.copy(folder / "model.safetensors", folder / "other.safetensors"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors"),
        lambda folder: rename_tensors(folder, "roberta."),
    ],
)
def test_what_is_not_plain_is_left_to_transformers(copied, change):
    change(copied)
    assert read_bert(open_model(copied)) is None
    assert PlainBert.read(open_model(copied)) is None
    assert TorchBert.read(open_model(copied), "fp32") is None


def test_weights_in_half_precision_are_computed_in_fp32(copied):
    rewritten(copied, lambda arrays: {name: array.astype(np.float16) for name, array in arrays.items()})
    encoder = encoder_of(copied)
    assert isinstance(encoder._runner, PlainRunner)
    assert np.abs(encoder.encode(TEXTS) - by_transformers(copied, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_weights_under_the_prefix_of_pretraining_have_the_same_vectors(copied, base, way):
    rename_tensors(copied)
    assert read_bert(open_model(copied)) is not None
    few = WAYS[way]
    np.testing.assert_array_equal(encoder_of(copied, few).encode(TEXTS), encoder_of(base, few).encode(TEXTS))


@pytest.mark.parametrize("but", [(), ("embeddings.LayerNorm.weight",)], ids=["all", "mixed"])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_weights_in_bf16_are_read_and_computed_in_fp32(copied, but, prefix):
    in_bf16(copied, prefix, but)
    encoder = encoder_of(copied)
    assert isinstance(encoder._runner, PlainRunner)
    assert np.abs(encoder.encode(TEXTS) - by_transformers(copied, TEXTS)).max() < 1e-5


def test_what_transformers_loaded_is_computed_without_it(copied, base):
    shutil.copy(copied / "model.safetensors", copied / "other.safetensors")
    encoder = encoder_of(copied)
    assert isinstance(encoder._runner._model, TorchBert)
    np.testing.assert_array_equal(encoder.encode(TEXTS), encoder_of(base, few=False).encode(TEXTS))


@pytest.mark.parametrize("way", WAYS)
def test_a_tokenizer_of_a_larger_model_is_refused_before_any_text(copied, way):
    edit_config(copied, vocab_size=30_000)
    rewritten(copied, lambda arrays: {name: array[:30_000] for name, array in arrays.items()})
    with pytest.raises(ModelFolderError, match=r"ids up to 30521.*vocab_size 30000"):
        encoder_of(copied, few=WAYS[way])


@pytest.mark.parametrize("change", [lambda folder: None, pools_the_first], ids=["mean", "cls"])
def test_where_no_kernel_is_found_numpy_multiplies(copied, monkeypatch, change):
    change(copied)
    monkeypatch.setattr(packed_weights, "find_kernel", lambda: None)
    encoder = encoder_of(copied)
    assert isinstance(encoder._runner._model.layers[0].qkv[0], packed_weights.PlainWeight)
    assert np.abs(encoder.encode(TEXTS) - by_transformers(copied, TEXTS)).max() < 1e-5


def test_another_activation_is_computed_by_transformers(copied):
    edit_config(copied, hidden_act="relu")
    encoder = encoder_of(copied)
    assert isinstance(encoder._runner, CpuRunner)
    assert not isinstance(encoder._runner._model, TorchBert)
    vectors = encoder.encode(TEXTS)
    assert np.abs(vectors - by_transformers(copied, TEXTS)).max() < 1e-6
    edit_config(copied, hidden_act="gelu")
    assert np.abs(vectors - encoder_of(copied).encode(TEXTS)).max() > 1e-3  # it was another activation


@pytest.mark.filterwarnings("error")
def test_weights_that_overflow_are_an_error_that_names_the_text_and_no_warning(copied):
    def damaged(arrays):
        arrays["encoder.layer.0.output.dense.bias"][:] = np.inf
        return arrays

    rewritten(copied, damaged)
    with pytest.raises(EncodingError, match="no finite vector for text 0 of 1"):
        encoder_of(copied).encode(["sofa"])


def with_deltas(opened, **changes):
    """``opened``, whose adapter has other differences as well."""

    class Other:
        backbone = opened.backbone

        def deltas(self):
            return {**opened.deltas(), **changes}

    return Other()


def test_an_adapter_that_fits_no_linear_layer_is_left_to_transformers(tower):
    opened = open_model(tower)
    strange = {"embeddings.word_embeddings": next(iter(opened.deltas().values()))}
    assert PlainBert.read(with_deltas(opened)) is not None
    assert PlainBert.read(with_deltas(opened, **strange)) is None


@pytest.mark.parametrize(("width", "plain"), [(32, True), (16, False)])
def test_an_adapter_may_change_the_pooler_which_no_vector_reads(tower, width, plain):
    opened = open_model(tower)
    square = next(iter(opened.deltas().values()))
    pooler = LowRank(square.a[:, :width], square.b[:width], square.scale)
    assert (PlainBert.read(with_deltas(opened, **{"pooler.dense": pooler})) is not None) == plain


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_stay_when_the_file_changes(copied, way):
    encoder = encoder_of(copied, few=WAYS[way])
    before = encoder.encode(TEXTS)
    with (copied / "model.safetensors").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(bytes(size))
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)
