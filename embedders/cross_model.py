"""The teacher's network: a Hugging Face backbone that reads query and pin text together, and five logits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.backbone import quiet_transformers
from embedders.evaluation.metrics import LEVELS
from embedders.model_folder import CONFIG_NOISE, PACKAGED, packaged_model_path, verify_packaged
from embedders.optimising import sorted_batches
from feature_repo.errors import PinfeatherError, UsageError

POOLINGS = ("cls", "segments", "last")
"""``cls``: the first token through one layer (encoders). ``segments``: that, and the two parts' mean vectors compared:
product, difference, cosine (encoders; what the weights of a sentence encoder already know is used from the first
step). ``last``: the last token that is no padding (decoders)."""

BUDGET = {"cpu": 2_048, "cuda": 65_536}
"""Padded tokens of a batch that is not trained on."""


class TeacherError(PinfeatherError):
    """A teacher's folder or backbone is missing, changed or of an unsupported kind."""


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


class PairTokenizer:
    """Query and pin text as one sequence, as the backbone expects it.

    Encoders: ``[CLS] query [SEP] text [SEP]`` with token types. Decoders: ``query: ... pin: ...`` and the end token.
    The pin text is cut first; a query keeps at least half of the length. A tokenizer without a padding token pads with
    its end token, which the mask hides.
    """

    def __init__(self, base: str, pooling: str, max_length: int) -> None:
        from transformers import AutoTokenizer

        with quiet_transformers():
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(
                    _source(base), local_files_only=True, trust_remote_code=False, use_fast=True
                )
            except (OSError, ValueError, KeyError, ImportError) as error:
                raise TeacherError(f"The tokenizer of {base} cannot be loaded: {error}. {_FETCH}") from error
        self._decoder, self._max_length = pooling == "last", max_length
        tokenizer = self._tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id = 0 if pad is None else int(pad)

    def __call__(self, queries: Sequence[str], texts: Sequence[str]) -> list[tuple[NDArray[np.int64], int]]:
        """Token ids of each pair, and how many of them come before the pin text."""
        if not len(queries):
            return []
        queries = [_short(query, self._max_length // 2) for query in queries]
        texts = [_short(text, self._max_length) for text in texts]
        if self._decoder:
            return self._prompted(queries, texts)
        encoded = self._tokenizer(
            list(queries), list(texts), truncation="longest_first", max_length=self._max_length, add_special_tokens=True
        )
        pairs = []
        for row, ids in enumerate(encoded["input_ids"]):
            sequence = encoded.sequence_ids(row)
            first = next((place for place, part in enumerate(sequence) if part == 1), len(ids))
            pairs.append((np.array(ids, np.int64), first))
        return pairs

    def _prompted(self, queries: Sequence[str], texts: Sequence[str]) -> list[tuple[NDArray[np.int64], int]]:
        tokenizer, half = self._tokenizer, self._max_length // 2
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        start = tokenizer([f"query: {query}" for query in queries], truncation=True, max_length=half)["input_ids"]
        rest = tokenizer([f" pin: {text}" for text in texts], add_special_tokens=False)["input_ids"]
        pairs = []
        for before, after in zip(start, rest, strict=True):
            before = before[: half - len(end)] if before and end and before[-1] == end[0] else before
            if before and end and before[-1] == end[0]:
                before = before[:-1]
            ids = [*before, *after[: self._max_length - len(before) - len(end)], *end]
            pairs.append((np.array(ids, np.int64), len(before)))
        return pairs


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Padded pairs: ``ids``, ``mask`` and ``types`` (0 query, 1 pin text), each [b, longest] int64."""

    rows: NDArray[np.intp]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    types: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray[np.intp], pairs: Sequence[tuple[NDArray[np.int64], int]], pad_id: int) -> PairBatch:
        """The batch of ``rows`` of ``pairs``, padded on the right."""
        width = max(len(pairs[row][0]) for row in rows)
        ids = np.full((len(rows), width), pad_id, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in enumerate(rows):
            tokens, first = pairs[row]
            ids[place, : len(tokens)] = tokens
            mask[place, : len(tokens)] = 1
            types[place, first : len(tokens)] = 1
        return cls(rows, ids, mask, types)

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.mask.sum())


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


def base_fingerprint(base: str) -> str:
    """sha256 (first 32 hexadecimal characters) over weights, tokenizer and configuration of a base.

    :raises TeacherError: if it is not there.
    """
    folder = _folder(base)
    digest = hashlib.sha256()
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json"), *folder.glob("*.model")])
    if not any(file.suffix == ".safetensors" for file in files):
        raise TeacherError(f"{folder} has no .safetensors weights; pickled ones are not opened. {_FETCH}")
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    kept = {key: value for key, value in config.items() if key not in CONFIG_NOISE}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()[:32]


_FETCH = (
    "Name a folder with config.json, tokenizer and safetensors weights, `packaged`, or a Hugging Face id that was "
    "fetched before (`hf download ID`); nothing is fetched here."
)


def _source(base: str) -> str:
    if base == PACKAGED:
        path = packaged_model_path()
        verify_packaged(path)
        return str(path)
    return str(Path(base).expanduser()) if Path(base).expanduser().is_dir() else base


def _folder(base: str) -> Path:
    source = Path(_source(base))
    if source.is_dir():
        return source
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise TeacherError(f"There is no model {base!r} here. {_FETCH}") from error


def training_backbone(
    base: str, precision: str = "fp32", dropout: float = 0.0, more: Mapping[str, Any] | None = None
) -> Any:
    """The transformer of ``base`` with its dropout set, on the processor.

    :param more: further arguments of ``from_pretrained``.
    :raises TeacherError: if it is not there, or cannot be loaded.
    :raises UsageError: if it has an encoder and a decoder.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoConfig, AutoModel

    folder = _folder(base)
    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(str(folder), **given)
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "dropout"):
                if hasattr(config, name):
                    setattr(config, name, dropout)
            if getattr(config, "is_encoder_decoder", False):
                raise UsageError(
                    f"{base} is a {config.model_type} model with encoder and decoder; supported are encoders (BERT, "
                    "XLM-R, DeBERTa ...) and decoders (Llama, Qwen ...)."
                )
            return AutoModel.from_pretrained(
                str(folder), config=config, use_safetensors=True, dtype=dtype, **given, **(more or {})
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TeacherError(f"The backbone {base} cannot be loaded: {error}. {_FETCH}") from error


def _four_bit(settings: CrossSettings, device: str) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if settings.quantize != "4bit":
        raise UsageError(f"There is no quantization {settings.quantize!r}: allowed is 4bit, or leave it out.")
    if device != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "4-bit weights need a CUDA device and the package bitsandbytes: leave --quantize out, or go where both are."
        )
    if settings.lora is None:
        raise UsageError("4-bit weights cannot be trained themselves: give a --lora configuration.")
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


def layers_of(backbone: Any) -> Any:
    """The list of transformer layers of a backbone.

    :raises TeacherError: if it keeps them in no list.
    """
    import torch

    config = backbone.config
    count = next((getattr(config, name) for name in ("num_hidden_layers", "n_layer") if hasattr(config, name)), None)
    for module in backbone.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise TeacherError(f"The layers of a {config.model_type} were not found: this backbone is not supported.")


def adapted(backbone: Any, lora: Mapping[str, Any]) -> Any:
    """``backbone`` with PEFT's adapter, the only part of it that is trained then.

    :param lora: arguments of ``LoraConfig``; ``target_modules`` default to every linear layer.
    :raises UsageError: if PEFT is not installed or does not take them.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UsageError("LoRA needs PEFT: `pip install 'pinfeather[train]'`.") from error
    try:
        pooler = {"exclude_modules": ["pooler.dense"]} if hasattr(backbone, "pooler") else {}  # never read here
        # a task type makes PEFT look for a head, which is ours
        config = LoraConfig(**{"target_modules": "all-linear", **pooler, **lora, "task_type": None})
        return get_peft_model(backbone, config)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"PEFT does not take this LoRA configuration ({error}): see `LoraConfig` of PEFT.") from error


def _short(text: str, tokens: int) -> str:
    """The characters that can matter: a tokenizer's time grows with what it then cuts off."""
    return text[: tokens * 12]
