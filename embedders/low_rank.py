"""Low-rank differences to a model's weights, as PEFT writes them: read and checked without PEFT or torch.

``adapter_config.json`` is a ``LoraConfig``, ``adapter_model.safetensors`` holds two matrices A and B for each layer;
the layer's weight is W + s B A with s = alpha / r, or alpha / sqrt(r) where ``use_rslora`` (Hu et al., "LoRA", 2021;
Kalajdzievski, "A rank stabilization scaling factor for fine-tuning with LoRA", 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from embedders.model_files import ModelFolderError, read_json
from embedders.projection import Matrix, read_arrays

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"

_READ = {"peft_type", "r", "lora_alpha", "use_rslora", "init_lora_weights"}
_IDLE = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "runtime_config"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "qalora_group_size"),
    "ensure_weight_tying",
}
"""Keys of a LoraConfig that say how the adapter was trained, or which layers it has, which its tensors say too."""
_MOST_RANK, _MOST_ALPHA = 1 << 16, 1 << 20
_OFF: tuple[Any, ...] = (None, False, "none", (), [], {}, 0)
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways of starting an adapter that leave the base weights as they were."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """``scale * b @ a``, to be added to the weight of one linear layer."""

    a: Matrix
    """[rank, in]"""
    b: Matrix
    """[out, rank]"""
    scale: float


def adapter_scale(folder: Path) -> float:
    """The factor s of the adapter in ``folder``.

    :raises ModelFolderError: if its configuration cannot be read, or asks for arithmetic that is not done here.
    """
    return checked_scale(read_json(folder, ADAPTER_CONFIG), str(folder / ADAPTER_CONFIG))


def checked_scale(config: Mapping[str, Any], named: str) -> float:
    """The factor s of a ``LoraConfig``; a key that is not known to be harmless is refused unless it is off.

    :param named: how messages call the configuration.
    :raises ModelFolderError: if it is no LoRA, or of a kind that is not supported.
    """
    if config.get("peft_type", "LORA") != "LORA":
        raise ModelFolderError(f"{named} is of the kind {config['peft_type']}; supported is LORA. Train with LoRA.")
    used = [key for key, value in sorted(config.items()) if key not in _READ | _IDLE and value not in _OFF]
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        used.append("init_lora_weights")
    if used:
        shown = ", ".join(f"{key}={config[key]!r}" for key in used)
        raise ModelFolderError(
            f"{named} uses {shown}, which changes more than W + s B A: train without, or merge the adapter with PEFT "
            "and save the whole model as a model folder."
        )
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    fits = isinstance(rank, int) and isinstance(alpha, int | float)
    if fits:
        fits = 1 <= rank <= _MOST_RANK and 0 < alpha <= _MOST_ALPHA
    if not fits:
        raise ModelFolderError(
            f"{named} has r={rank!r} and lora_alpha={alpha!r}; r must be 1 to {_MOST_RANK}, lora_alpha above 0. Train "
            "the adapter again."
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A ``LoraConfig.to_dict()`` as JSON values, without the folder that the base lay in when it was trained."""
    return {key: _plain(value) for key, value in config.items() if key != "base_model_name_or_path"}


def read_adapter(folder: Path) -> dict[str, LowRank]:
    """Name of each changed layer in the base model to what is added to it.

    :raises ModelFolderError: if the files cannot be read, or do not belong together.
    """
    scale = adapter_scale(folder)
    rank = read_json(folder, ADAPTER_CONFIG)["r"]
    return paired(read_arrays(folder / ADAPTER), rank, scale, str(folder / ADAPTER))


def paired(arrays: Mapping[str, Matrix], rank: int, scale: float, named: str) -> dict[str, LowRank]:
    """The tensors of an adapter, two a layer.

    :raises ModelFolderError: if a tensor is no half of a pair, or not of rank ``rank``.
    """
    strange = sorted(name for name in arrays if not (name.startswith(_PREFIX) and name.endswith((_A, _B))))
    if strange:
        raise ModelFolderError(
            f"{named} holds {strange[0]}; supported are the pairs {_PREFIX}LAYER{_A} and {_B} of linear layers. Train "
            "with LoRA on linear layers only."
        )
    layers = sorted({name[len(_PREFIX) :].removesuffix(_A).removesuffix(_B) for name in arrays})
    pairs: dict[str, LowRank] = {}
    for layer in layers:
        a, b = (arrays.get(f"{_PREFIX}{layer}{end}") for end in (_A, _B))
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or (a.shape[0], b.shape[1]) != (rank, rank):
            shapes = [None if half is None else list(half.shape) for half in (a, b)]
            raise ModelFolderError(
                f"{named}: layer {layer} has A and B of shapes {shapes}; wanted are [{rank}, in] and [out, {rank}]. "
                "Copy the folder again."
            )
        pairs[layer] = LowRank(a, b, scale)
    if not pairs:
        raise ModelFolderError(f"{named} holds no tensors. Copy the folder again, or delete the adapter's two files.")
    return pairs


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
