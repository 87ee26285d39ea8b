"""The weights of a plain BERT, read and checked as arrays: no torch, no transformers, whose imports take seconds.

Whatever differs from the plain model in any way (another activation, tensors that are missing or of another shape,
several weight files) is left to transformers, which computes it or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedders.low_rank import ADAPTER_CONFIG, LowRank
from embedders.model_files import read_json, weight_files
from embedders.projection import Matrix
from embedders.tower_folder import AnyModel

Config = Mapping[str, Any]
Tensors = dict[str, Matrix]
"""Name to tensor, float32, as transformers names and shapes them: weights are [out, in]."""
Shape = tuple[int, ...]

_PLAIN: Config = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
    "auto_map": None,
}
"""What config.json must say, or leave out."""
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size"),
)
_WEIGHTS = "model.safetensors"
_PREFIX = "bert."
"""Before every name where a model was saved with a layer on top, such as that of its pretraining."""
LINEAR = (
    *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    *("intermediate.dense", "output.dense"),
)
"""The linear layers of one layer of the model."""
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
_BF16 = "BF16"
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
"""Types that may stand beside bfloat16 in one file."""
_UNREAD = "pooler.dense"
"""An adapter may have a part for it, since PEFT finds layers by the end of their names; no vector reads the pooler."""


def read_bert(folder: AnyModel) -> tuple[Config, Tensors] | None:
    """Settings and weights of the model in ``folder``, what was trained on top of it added; None if it is not plain.

    :raises ModelFolderError: if the adapter of a tower cannot be read.
    """
    path = folder.backbone.path
    config = read_json(path, "config.json")
    # transformers would read an adapter that lies beside the weights, too.
    if [file.name for file in weight_files(path)] != [_WEIGHTS] or (path / ADAPTER_CONFIG).exists():
        return None
    if not is_plain(config):
        return None
    wanted = _shapes(config)
    tensors = _read(path / _WEIGHTS, wanted)
    if tensors is None or {name: tensor.shape for name, tensor in tensors.items()} != wanted:
        return None
    return (config, tensors) if _add(tensors, folder.deltas()) else None


def is_plain(config: Config) -> bool:
    """Whether ``config`` names a model that does the sums of the original BERT, with the exact GELU."""
    if any(config.get(name, value) != value for name, value in _PLAIN.items()) or "model_type" not in config:
        return False
    sizes = [config.get(name) for name in _SIZES]
    if not all(type(size) is int and size > 0 for size in sizes):  # True is an int, too
        return False
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        return False
    return bool(config["hidden_size"] % config["num_attention_heads"] == 0)


def _read(file: Path, wanted: Mapping[str, Shape]) -> Tensors | None:
    """The tensors called as in ``wanted``; None if one is missing, or of a type that numpy has not."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as opened:
            there = set(opened.keys())
            prefix = "" if there >= wanted.keys() else _PREFIX
            if not there >= {prefix + name for name in wanted}:
                return None
            if any(opened.get_slice(prefix + name).get_dtype() == _BF16 for name in wanted):
                return _with_bf16(file, wanted, prefix)
            # Each is a copy: what is mapped would change with the file.
            return {name: np.array(opened.get_tensor(prefix + name), dtype=np.float32, copy=None) for name in wanted}
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError, KeyError):
        return None


def _with_bf16(file: Path, wanted: Mapping[str, Shape], prefix: str) -> Tensors:
    """The same, of a file in bfloat16, which numpy has not: the upper half of a float32."""
    from safetensors import deserialize

    found = {name: tensor for name, tensor in deserialize(file.read_bytes()) if name.startswith(prefix)}
    tensors: Tensors = {}
    for name in wanted:
        tensor = found[prefix + name]
        if tensor["dtype"] == _BF16:
            numbers = (np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            numbers = np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).astype(np.float32)
        tensors[name] = numbers.reshape(tensor["shape"])
    return tensors


def _shapes(config: Config) -> dict[str, Shape]:
    """Names of the tensors that are read, and their shapes; the pooler is not."""
    words, hidden, layers, _, between, positions, kinds = (config[name] for name in _SIZES)
    shapes: dict[str, Shape] = {
        "embeddings.word_embeddings.weight": (words, hidden),
        "embeddings.position_embeddings.weight": (positions, hidden),
        "embeddings.token_type_embeddings.weight": (kinds, hidden),
    }
    sizes = {"intermediate.dense": (between, hidden), "output.dense": (hidden, between)}
    linear = {
        f"encoder.layer.{number}.{name}": sizes.get(name, (hidden, hidden))
        for number in range(layers)
        for name in LINEAR
    }
    norms = ["embeddings.LayerNorm", *(f"encoder.layer.{number}.{name}" for number in range(layers) for name in NORMS)]
    for name, (out, into) in linear.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return shapes


def _add(tensors: Tensors, deltas: Mapping[str, LowRank]) -> bool:
    """Add ``scale * b @ a`` to the weight of each layer; False if one fits no linear layer."""
    width = len(tensors["embeddings.LayerNorm.weight"])
    for name, delta in deltas.items():
        shape = (delta.b.shape[0], delta.a.shape[1])
        if name == _UNREAD and shape == (width, width):
            continue
        weight = tensors.get(f"{name}.weight")
        if weight is None or not name.endswith(LINEAR) or weight.shape != shape:
            return False
        weight += delta.scale * (delta.b @ delta.a)
    return True
