"""Tower folders: right vectors out of a base and a difference, one fingerprint, and nothing that does not fit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tower_models import HIDDEN, LAYERS, LORA, RANK, adapter_of, tiny_base, tiny_tower

from embedders.encoder import ModelFolderError, TokenCounter, load_encoder, model_fingerprint
from embedders.merging import merge_tower
from embedders.model_folder import ModelFolder
from embedders.tower_folder import TowerFolder, TowerSettings, copy_model, open_model, save_tower
from feature_repo.errors import UsageError

TEXTS = ["mid century walnut sideboard", "sofa", "jardinière en terre cuite", "", "収納アイデア キッチン " * 40]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def tower(base, tmp_path) -> Path:
    return tiny_tower(tmp_path / "tower", base)


def vectors(folder, **options) -> np.ndarray:
    return load_encoder(folder, "cpu", "fp32", threads=1, **options).encode(TEXTS)


def edit_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_pefts_own_unmerged_forward(base, tmp_path, pooling, rslora):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModel

    config = peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=list(LAYERS), use_rslora=rslora)
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModel.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapter = {name: array.numpy() for name, array in peft.get_peft_model_state_dict(model).items()}
    projection = np.random.default_rng(0).normal(size=(16, HIDDEN)).astype(np.float32)
    wanted = TowerSettings(str(base), pooling, 48, "find: ", 16, (16, 8))
    ours = vectors(save_tower(tmp_path / "trained", wanted, config.to_dict(), adapter, projection))

    words = TokenCounter(tmp_path / "trained")._tokenizer
    rows = []
    for text in TEXTS:
        ids = torch.from_numpy(words.ids([words.clean("find: " + text)])[0])[None]
        with torch.no_grad():
            hidden = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        rows.append(projection @ (hidden[0] if pooling == "cls" else hidden.mean(0)).numpy())
    theirs = np.stack([row / np.linalg.norm(row) for row in rows])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours - vectors(save_tower(tmp_path / "plain", wanted, projection=projection))).max() > 0.05
    assert str(base) not in (tmp_path / "trained" / "adapter_config.json").read_text()


@pytest.mark.parametrize("options", [{}, {"prompt": "find: ", "pooling": "cls"}])
def test_a_merged_tower_gives_the_same_vectors_here_and_in_sentence_transformers(base, tmp_path, options):
    from sentence_transformers import SentenceTransformer

    tower = tiny_tower(tmp_path / "tower", base, **options)
    merged = merge_tower(tower, tmp_path / "merged")
    ours = vectors(tower)
    np.testing.assert_allclose(vectors(merged), ours, atol=1e-5)
    theirs = SentenceTransformer(str(merged), device="cpu", local_files_only=True)
    np.testing.assert_allclose(theirs.encode(TEXTS, normalize_embeddings=False), ours, atol=1e-5)
    assert isinstance(open_model(merged), ModelFolder)
    assert (open_model(merged).dimension, open_model(merged).max_length) == (16, 48)
    assert model_fingerprint(merged) != model_fingerprint(tower)
    assert model_fingerprint(merge_tower(tower, tmp_path / "again")) == model_fingerprint(merged)
    with pytest.raises(UsageError, match="is there already"):
        merge_tower(tower, merged)


def test_a_tower_without_adapter_and_projection_is_its_base(base, tmp_path):
    plain = save_tower(tmp_path / "plain", TowerSettings(str(base), max_length=64, dimension=HIDDEN))
    np.testing.assert_array_equal(vectors(plain), vectors(base))
    np.testing.assert_allclose(vectors(merge_tower(plain, tmp_path / "merged")), vectors(base), atol=1e-6)
    assert model_fingerprint(plain) != model_fingerprint(base)


def test_bf16_points_where_fp32_does(tower):
    low = load_encoder(tower, "cpu", "bf16", threads=1)
    assert low._runner._model.precision == "bf16"
    cosines = (low.encode(TEXTS) * vectors(tower)).sum(axis=1)
    assert 0.98 < cosines.min() < 0.9999999


def test_the_packaged_model_is_named_not_copied(tmp_path):
    random = np.random.default_rng(0)
    projection = random.normal(size=(8, 384)).astype(np.float16)
    tower = save_tower(tmp_path / "tower", TowerSettings(dimension=8, max_length=32), projection=projection)
    copied = copy_model(tower, tmp_path / "copied")
    assert sorted(file.name for file in copied.iterdir()) == ["projection.safetensors", "tower.json"]
    opened = open_model(copied)
    assert (opened.settings.base, opened.max_length, opened.dimension) == ("packaged", 32, 8)
    assert TokenCounter(copied).count(["green sofa", "sofa " * 100]) == [4, 32]


def test_a_copy_holds_a_base_of_its_own_and_keeps_the_fingerprint(base, tower, tmp_path):
    copied = copy_model(tower, tmp_path / "copy" / "deep")
    assert open_model(copied).base.path == copied / "base"
    assert json.loads((copied / "tower.json").read_text())["base"] == "base"
    assert model_fingerprint(copied) == model_fingerprint(tower)
    np.testing.assert_array_equal(vectors(copied), vectors(tower))
    moved = copied.rename(tmp_path / "moved")
    assert model_fingerprint(moved) == model_fingerprint(tower)
    whole = copy_model(merge_tower(tower, tmp_path / "merged"), tmp_path / "whole")
    assert model_fingerprint(whole) == model_fingerprint(tmp_path / "merged")
    np.testing.assert_array_equal(vectors(whole), vectors(tmp_path / "merged"))


def test_everything_that_decides_a_vector_decides_the_fingerprint_and_nothing_else(base, tmp_path):
    other = tiny_base(tmp_path / "other", seed=9)
    variants = [
        tiny_tower(tmp_path / "first", base),
        tiny_tower(tmp_path / "seed", base, seed=2),
        tiny_tower(tmp_path / "base", other),
        tiny_tower(tmp_path / "dimension", base, dimension=8),
        tiny_tower(tmp_path / "pooling", base, pooling="cls"),
        tiny_tower(tmp_path / "length", base, max_length=40),
        tiny_tower(tmp_path / "prompt", base, prompt="query: "),
    ]
    scaled = Path(shutil.copytree(variants[0], tmp_path / "scaled"))
    edit_json(scaled / "adapter_config.json", use_rslora=True)
    prints = [model_fingerprint(folder) for folder in (*variants, scaled)]
    assert len(set(prints)) == len(prints)
    same = tiny_tower(tmp_path / "same", os.path.relpath(base, tmp_path / "same"), nested=(16,))
    assert model_fingerprint(same) == prints[0]
    encoder = load_encoder(variants[-2], "cpu", "fp32", prompt="query: ")
    assert encoder.fingerprint == model_fingerprint(variants[-2], prompt="query: ") != prints[-3]
    assert load_encoder(variants[0], "cpu", "fp32", expected_fingerprint=prints[0]).fingerprint == prints[0]
    with pytest.raises(ModelFolderError, match="make a new space"):
        load_encoder(variants[0], "cpu", "fp32", expected_fingerprint=prints[1])


def test_opening_counting_and_fingerprints_load_neither_torch_nor_peft(tower):
    code = (
        "import sys; from embedders.tokens import TokenCounter;"
        "from embedders.tower_folder import model_fingerprint, open_model;"
        "model_fingerprint(sys.argv[1]); assert TokenCounter(sys.argv[1]).count(['green sofa']) == [4];"
        "open_model(sys.argv[1]).deltas(); open_model(sys.argv[1]).projection();"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tower)], check=True)


@pytest.mark.slow
def test_loading_a_tower_imports_no_peft(tower):
    code = (
        "import sys; from embedders.encoder import load_encoder;"
        "load_encoder(sys.argv[1], 'cpu', 'fp32').encode(['sofa']); assert 'peft' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tower)], check=True)


def write_adapter(folder: Path, arrays: dict) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, folder / "adapter_model.safetensors")


def write_projection(folder: Path, array: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": array}, folder / "projection.safetensors")


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t: (t / "tower.json").write_text("{"), "cannot be read"),
        (lambda t: edit_json(t / "tower.json", tower_version=2), "tower version 2, allowed is 1"),
        (lambda t: edit_json(t / "tower.json", pooling="max"), "pooling 'max'"),
        (lambda t: edit_json(t / "tower.json", dimension=0), "dimension 0"),
        (lambda t: edit_json(t / "tower.json", nested=[64]), "nested"),
        (lambda t: edit_json(t / "tower.json", max_length=65), "reads 64 tokens at most"),
        (lambda t: edit_json(t / "tower.json", colour="red"), "other keys"),
        (lambda t: edit_json(t / "tower.json", base="packaged"), "not the model that it was trained on"),
        (lambda t: edit_json(t / "tower.json", base="nowhere"), "no model folder"),
        (lambda t: edit_json(t / "tower.json", dimension=8, nested=[8]), "wanted are weight"),
        (lambda t: (t / "projection.safetensors").unlink(), "there is no projection.safetensors"),
        (lambda t: cut_short(t / "projection.safetensors"), "cannot be read"),
        (lambda t: write_projection(t, np.full((16, HIDDEN), np.nan, np.float32)), "not finite"),
        (lambda t: (t / "adapter_config.json").unlink(), "with both"),
        (lambda t: (t / "adapter_model.safetensors").unlink(), "with both"),
        (lambda t: cut_short(t / "adapter_model.safetensors"), "cannot be read"),
        (lambda t: write_adapter(t, adapter_of(1, width=63)), "do not belong together"),
        (lambda t: write_adapter(t, dict(list(adapter_of(1).items())[:3])), "has A and B of shapes"),
        (lambda t: write_adapter(t, {"base_model.model.pooler.bias": np.zeros(3, np.float32)}), "linear layers only"),
        (lambda t: edit_json(t / "adapter_config.json", r=5), "has A and B of shapes"),
        (lambda t: edit_json(t / "adapter_config.json", use_dora=True), "use_dora=True"),
        (lambda t: edit_json(t / "adapter_config.json", bias="all"), "bias='all'"),
        (lambda t: edit_json(t / "adapter_config.json", modules_to_save=["pooler"]), "modules_to_save"),
        (lambda t: edit_json(t / "adapter_config.json", rank_pattern={"query": 2}), "rank_pattern"),
        (lambda t: edit_json(t / "adapter_config.json", init_lora_weights="pissa"), "init_lora_weights='pissa'"),
        (lambda t: edit_json(t / "adapter_config.json", something_of_tomorrow=1), "something_of_tomorrow"),
        (lambda t: edit_json(t / "adapter_config.json", peft_type="IA3"), "of the kind IA3"),
        (lambda t: edit_json(t / "adapter_config.json", lora_alpha=None), "lora_alpha above 0"),
        (lambda t: edit_json(t / "adapter_config.json", r=10**400), "r must be 1 to 65536"),
    ],
)
def test_a_damaged_or_unsupported_tower_says_what_is_wrong(tower, damage, says):
    damage(tower)
    with pytest.raises(ModelFolderError, match=says):
        load_encoder(tower, "cpu", "fp32")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
SETTINGS = ["base", "base_fingerprint", "pooling", "max_length", "prompt", "dimension", "nested", "tower_version"]
LORA_KEYS = ["peft_type", "r", "lora_alpha", "use_rslora", "init_lora_weights", "bias", "target_modules", "use_dora"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(SETTINGS), JSON), st.dictionaries(st.sampled_from(LORA_KEYS), JSON))
def test_any_settings_give_a_tower_or_a_reason(tower_of_module, changes, adapter_changes):
    before = {file: file.read_text() for file in map(tower_of_module.joinpath, ("tower.json", "adapter_config.json"))}
    try:
        for file, changed in zip(before, (changes, adapter_changes), strict=True):
            edit_json(file, **changed)
        opened = open_model(tower_of_module)
        assert len(opened.fingerprint()) == 32
        opened.deltas()
        opened.projection()
    except ModelFolderError as error:
        assert str(error)[-1] == "."
    finally:
        for file, text in before.items():
            file.write_text(text)


@pytest.fixture(scope="module")
def tower_of_module(base, tmp_path_factory) -> Path:
    return tiny_tower(tmp_path_factory.mktemp("towers") / "tower", base)


def test_a_base_that_changed_since_is_refused(base, tmp_path):
    own = Path(shutil.copytree(base, tmp_path / "own"))
    tower = tiny_tower(tmp_path / "tower", own)
    edit_json(own / "config.json", layer_norm_eps=1e-6)
    for use in (load_encoder, model_fingerprint, TokenCounter, TowerFolder.open, copy_model):
        with pytest.raises(ModelFolderError, match="not the model that it was trained on"):
            use(tower) if use is not copy_model else copy_model(tower, tmp_path / "copy")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"projection": np.zeros((8, HIDDEN))}, "wanted are weight"),
        ({"projection": np.full((16, HIDDEN), np.inf)}, "not finite"),
        ({}, "needs a projection"),
        ({"adapter": {}, "projection": np.zeros((16, HIDDEN))}, "go together"),
        ({"adapter": {}, "adapter_config": LORA, "projection": np.zeros((16, HIDDEN))}, "holds no tensors"),
        ({"adapter": adapter_of(0), "adapter_config": LORA | {"use_dora": True}}, "use_dora=True"),
    ],
)
def test_nothing_is_written_of_a_tower_whose_parts_do_not_fit(base, tmp_path, parts, says):
    with pytest.raises(ModelFolderError, match=says):
        save_tower(tmp_path / "tower", TowerSettings(str(base), max_length=48, dimension=16), **parts)
    assert list(tmp_path.iterdir()) == []


def test_a_tower_is_replaced_as_a_whole_and_is_no_base_for_another(base, tower, tmp_path):
    before = model_fingerprint(tower)
    with pytest.raises(ModelFolderError, match="a tower itself"):
        save_tower(tower, TowerSettings(str(tower), max_length=48, dimension=16))
    assert model_fingerprint(tower) == before
    tiny_tower(tower, base, seed=7)
    assert model_fingerprint(tower) != before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["tower"]


def dense_of(tower: Path, tmp_path: Path, **changes) -> Path:
    merged = merge_tower(tower, tmp_path / "merged")
    edit_json(merged / "2_Dense" / "config.json", **changes)
    return merged


def test_the_last_layer_of_sentence_transformers_is_applied_with_bias_and_tanh(base, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling

    whole = SentenceTransformer(str(base), device="cpu", local_files_only=True)
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[whole[0], Pooling(HIDDEN, "mean"), Dense(HIDDEN, 12)], device="cpu")
    model.save(str(tmp_path / "dense"))
    theirs = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors(tmp_path / "dense"), theirs, atol=1e-5)
    before = model_fingerprint(tmp_path / "dense")
    edit_json(tmp_path / "dense" / "2_Dense" / "config.json", activation_function="torch.nn.modules.linear.Identity")
    assert model_fingerprint(tmp_path / "dense") != before
    assert np.abs(vectors(tmp_path / "dense") - theirs).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"activation_function": "torch.nn.modules.activation.GELU"}, "activation GELU; supported are Identity, Tanh"),
        ({"use_residual": True}, "adds its input"),
        ({"module_output_name": "token_embeddings"}, "token_embeddings"),
        ({"in_features": None}, "no in_features"),
        ({"in_features": 31}, "reads 31 components, the model gives 32"),
        ({"out_features": 15}, "wanted are linear.weight"),
        ({"bias": True}, "wanted are linear.bias"),
    ],
)
def test_a_last_layer_of_another_kind_is_refused(tower, tmp_path, changes, says):
    folder = dense_of(tower, tmp_path, **changes)
    with pytest.raises(ModelFolderError, match=says.replace("[", r"\[")):
        load_encoder(folder, "cpu", "fp32")


def test_modules_stand_in_the_one_order_that_is_computed(tower, tmp_path):
    folder = dense_of(tower, tmp_path)
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([listed[0], listed[2], listed[1], listed[3]]))
    with pytest.raises(ModelFolderError, match="in this order"):
        model_fingerprint(folder)
    (folder / "modules.json").write_text(json.dumps([*listed, listed[2]]))
    with pytest.raises(ModelFolderError, match="each once"):
        model_fingerprint(folder)


def test_cuda_agrees_with_the_processor(tower):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    on_device = load_encoder(tower, "cuda", "fp32")
    assert on_device.fingerprint == model_fingerprint(tower)
    np.testing.assert_allclose(on_device.encode(TEXTS), vectors(tower), atol=1e-3)
