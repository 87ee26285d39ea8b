"""The teacher's network: a Hugging Face backbone that reads query and pin text together, and five logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation.metrics import LEVELS
from embedders.model_folder import PACKAGED
from embedders.optimising import sorted_batches
from embedders.pair_tokens import PairBatch
from embedders.training_base import adapted, base_folder, layers_of, training_backbone
from feature_repo.errors import UsageError

POOLINGS = ("cls", "segments", "last")
"""``cls``: the first token through one layer (encoders). ``segments``: that, and the two parts' mean vectors compared:
product, difference, cosine (encoders; what the weights of a sentence encoder already know is used from the first
step). ``last``: the last token that is no padding (decoders)."""

BUDGET = {"cpu": 2_048, "cuda": 65_536}
"""Padded tokens of a batch that is not trained on."""


@dataclass(frozen=True)
class CrossSettings:
    """What decides a teacher's logits beside its weights."""

    base: str = PACKAGED
    """``packaged``, a folder, or a Hugging Face id whose files are in the local cache."""
    pooling: str = ""
    """One of :data:`POOLINGS`; empty takes ``segments`` for encoders and ``last`` for decoders."""
    max_length: int = 128
    """Tokens of query and pin text together."""
    lora: Mapping[str, Any] | None = None
    """Arguments of PEFT's ``LoraConfig``; None trains the backbone's own weights."""
    quantize: str = ""
    """``4bit`` loads the backbone in NF4 (CUDA and bitsandbytes only)."""
    frozen_layers: int = 0
    """Lowest layers that keep the base's weights, with the embeddings (0: the embeddings alone are kept)."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for a manifest."""
        return asdict(self)


def cross_network(settings: CrossSettings, device: str = "cpu", precision: str = "fp32", dropout: float = 0.0) -> Any:
    """A torch module: ``module(ids, mask, types) -> logits [b, 5]``; its head is random.

    ``module.backbone`` is the transformer (with PEFT's adapter where ``lora`` is given), ``module.pooling`` what was
    chosen. Tensors that do not ``require_grad`` are the base's.

    :raises TeacherError: if the base is missing or of an unsupported kind.
    :raises UsageError: if a setting does not fit the base.
    """
    import torch

    more = {"quantization_config": _four_bit(settings, device), "device_map": {"": 0}} if settings.quantize else {}
    backbone = training_backbone(settings.base, precision, dropout, more)
    check_length(backbone.config, settings.base, settings.max_length)
    pooling = _pooling(settings, backbone.config)
    if settings.lora is not None and settings.frozen_layers:
        raise UsageError("With LoRA every layer keeps the base's weights: leave the frozen layers out.")
    _freeze(backbone, settings)
    if settings.lora is not None:
        backbone = adapted(backbone, settings.lora)

    class CrossNetwork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            hidden = int(backbone.config.hidden_size)
            self.backbone, self.pooling = backbone, pooling
            self.typed = getattr(backbone.config, "type_vocab_size", 0) >= 2
            self.dropout = torch.nn.Dropout(dropout)
            self.dense = torch.nn.Linear(hidden, hidden)
            self.out = torch.nn.Linear(3 * hidden + 1 if pooling == "segments" else hidden, LEVELS)
            torch.nn.init.normal_(self.out.weight, std=0.02)
            torch.nn.init.zeros_(self.out.bias)

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            given = {"token_type_ids": types} if self.typed else {}
            hidden = self.backbone(input_ids=ids, attention_mask=mask, **given).last_hidden_state.float()
            if self.pooling == "last":
                last = hidden[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]
                features = torch.tanh(self.dense(last))
            else:
                features = torch.tanh(self.dense(hidden[:, 0]))
                if self.pooling == "segments":
                    features = torch.cat([features, *_compared(hidden, mask, types)], 1)
            return self.out(self.dropout(features))

    module = CrossNetwork()
    return module if settings.quantize else module.to(device)


def _compared(hidden: Any, mask: Any, types: Any) -> tuple[Any, Any, Any]:
    """Product, difference and cosine of the two parts' unit mean vectors, scaled to the size of the other features."""
    import torch

    pin = (types * mask).float()
    query = ((1 - types) * mask).float()
    query[:, 0] = 0  # the first token belongs to neither part
    means = []
    for part in (query, pin):
        total = (hidden * part[..., None]).sum(1) / part.sum(1, keepdim=True).clamp(min=1)
        means.append(torch.nn.functional.normalize(total, dim=1))
    products = means[0] * means[1]
    return products * 20, (means[0] - means[1]).abs() * 5, products.sum(1, keepdim=True) * 5


def check_length(config: Any, base: str, max_length: int) -> None:
    """Refuse more tokens than the backbone has positions for.

    :raises UsageError: naming both.
    """
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions and "roberta" in config.model_type:
        positions -= 2  # its first position is behind the padding token
    if positions and max_length > positions:
        raise UsageError(f"{base} reads {positions} tokens at most, and the maximum length is {max_length}: give less.")


def logits_of(
    network: Any, pairs: Sequence[tuple[NDArray[np.int64], int]], pad_id: int, device: str
) -> NDArray[np.float32]:
    """Logits [n, 5] of tokenised pairs, in batches of similar length."""
    import torch

    out = np.empty((len(pairs), LEVELS), np.float32)
    for rows in sorted_batches([len(ids) for ids, _ in pairs], BUDGET[device]):
        batch = PairBatch.of(rows, pairs, pad_id)
        with torch.inference_mode():
            out[rows] = network(*on_device(batch, device)).float().cpu().numpy()
    return out


def on_device(batch: PairBatch, device: str) -> tuple[Any, Any, Any]:
    """The three tensors of a batch."""
    import torch

    return tuple(torch.from_numpy(each).to(device) for each in (batch.ids, batch.mask, batch.types))  # type: ignore[return-value]


def check_settings(settings: CrossSettings, device: str) -> None:
    """Refuse what can be told without loading anything, before work is done for nothing.

    :raises TeacherError: if the base is missing.
    :raises UsageError: for 4-bit weights where there are none.
    """
    base_folder(settings.base)
    if settings.quantize:
        _check_four_bit(settings, device)


def _check_four_bit(settings: CrossSettings, device: str) -> None:
    import importlib.util

    if settings.quantize != "4bit":
        raise UsageError(f"There is no quantization {settings.quantize!r}: allowed is 4bit, or leave it out.")
    if device != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "4-bit weights need a CUDA device and the package bitsandbytes: leave --quantize out, or go where both are."
        )
    if settings.lora is None:
        raise UsageError("4-bit weights cannot be trained themselves: give a --lora configuration.")


def _four_bit(settings: CrossSettings, device: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    _check_four_bit(settings, device)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )


def _pooling(settings: CrossSettings, config: Any) -> str:
    """The chosen pooling, checked against the kind of backbone."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    pooling = settings.pooling or ("segments" if encoder else "last")
    if pooling not in POOLINGS:
        raise UsageError(f"There is no pooling {pooling!r}: allowed are {', '.join(POOLINGS)}.")
    if (pooling == "last") == encoder:
        kind, allowed = ("an encoder", "cls or segments") if encoder else ("a decoder", "last")
        raise UsageError(f"{settings.base} is {kind} ({config.model_type}): its pooling is {allowed}, not {pooling}.")
    return pooling


def _freeze(backbone: Any, settings: CrossSettings) -> None:
    """Embeddings and the lowest layers keep the base's weights; with LoRA all of them do."""
    for name, parameter in backbone.named_parameters():
        if settings.lora is not None or "embed" in name.split(".")[0] or name.startswith(("pooler", "wte", "wpe")):
            parameter.requires_grad = False
    if not settings.frozen_layers:
        return
    layers = layers_of(backbone)
    if not 0 <= settings.frozen_layers <= len(layers):
        raise UsageError(f"{settings.frozen_layers} layers cannot be frozen: {settings.base} has {len(layers)}.")
    for layer in layers[: settings.frozen_layers]:
        for parameter in layer.parameters():
            parameter.requires_grad = False
