"""Tiny models for tests: a two-layer transformer with the real tokenizer, and towers on top of it."""

import shutil
from pathlib import Path

import numpy as np

from embedders.bundle import StudentBundle
from embedders.model_folder import packaged_model_path
from embedders.relevance import feature_names
from embedders.student import RelevanceHead
from embedders.tower_folder import TowerSettings, save_tower
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import DEFAULT_TEMPLATE

HIDDEN, RANK = 32, 4
TEMPLATE = DEFAULT_TEMPLATE.without("description")
LAYERS = ("encoder.layer.0.attention.self.query", "encoder.layer.1.output.dense")
LORA = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": {"query", "dense"}, "bias": "none"}


def tiny_base(folder: Path, seed: int = 0) -> Path:
    """A real two-layer BERT with random weights, and the tokenizer of the packaged model."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(**shape, max_position_embeddings=64), add_pooling_layer=False).save_pretrained(folder)
    shutil.copy(packaged_model_path() / "tokenizer.json", folder)
    return folder


def tiny_sentence_model(folder: Path) -> Path:
    """:func:`tiny_base` in the layout of sentence-transformers."""
    tiny_base(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


def adapter_of(seed: int, width: int = 64) -> dict[str, np.ndarray]:
    """Tensors of a low-rank difference to both layers of :data:`LAYERS`, far from zero."""
    random = np.random.default_rng(seed)
    shapes = {LAYERS[0]: (HIDDEN, HIDDEN), LAYERS[1]: (HIDDEN, width)}
    arrays = {}
    for layer, (out, into) in shapes.items():
        arrays[f"base_model.model.{layer}.lora_A.weight"] = random.normal(size=(RANK, into)).astype(np.float32)
        arrays[f"base_model.model.{layer}.lora_B.weight"] = random.normal(size=(out, RANK)).astype(np.float32)
    return arrays


def tiny_tower(folder: Path, base: Path | str, seed: int = 1, dimension: int = 16, **settings) -> Path:
    """A tower of ``dimension`` on ``base`` with adapter and projection; another ``seed`` is another tower."""
    projection = np.random.default_rng(seed + 100).normal(size=(dimension, HIDDEN)).astype(np.float32)
    given = {"max_length": 48, "nested": (dimension, dimension // 2)} | settings
    return save_tower(
        folder, TowerSettings(str(base), dimension=dimension, **given), LORA, adapter_of(seed), projection
    )


def student_with(towers: dict, name: str = "student", dimension: int = 16, **changes) -> StudentBundle:
    """A bundle with towers and a made-up head: what it says is no use, how it is said is what tests look at."""
    random = np.random.default_rng(3)
    names = feature_names(dimension)
    wide = len(names)
    head = RelevanceHead(
        names,
        np.zeros(wide, np.float32),
        np.full(wide, 0.5, np.float32),
        random.normal(size=(wide, 5)).astype(np.float32),
        random.normal(size=5).astype(np.float32),
    )
    given = {"template": TEMPLATE, "query_tower": None, "spaces": (), "metrics": {}, "training": {}} | changes
    return StudentBundle.make(name, head, LexicalStatistics.fit([]), towers=towers, **given)
