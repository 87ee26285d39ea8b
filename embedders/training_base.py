"""Backbones that are trained on: found by name, loaded with their dropout, with or without PEFT's adapter."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedders.backbone import quiet_transformers
from embedders.model_folder import CONFIG_NOISE, PACKAGED, packaged_model_path, verify_packaged
from feature_repo.errors import PinfeatherError, UsageError

FETCH = (
    "Name a folder with config.json, tokenizer and safetensors weights, `packaged`, or a Hugging Face id that was "
    "fetched before (`hf download ID`); nothing is fetched here."
)


class TeacherError(PinfeatherError):
    """A teacher's folder or backbone is missing, changed or of an unsupported kind."""


def base_fingerprint(base: str) -> str:
    """sha256 (first 32 hexadecimal characters) over weights, tokenizer and configuration of a base.

    :raises TeacherError: if it is not there.
    """
    folder = base_folder(base)
    digest = hashlib.sha256()
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json"), *folder.glob("*.model")])
    if not any(file.suffix == ".safetensors" for file in files):
        raise TeacherError(f"{folder} has no .safetensors weights; pickled ones are not opened. {FETCH}")
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    kept = {key: value for key, value in config.items() if key not in CONFIG_NOISE}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def base_source(base: str) -> str:
    """The folder of a base as text, or the id that it was given as."""
    if base == PACKAGED:
        path = packaged_model_path()
        verify_packaged(path)
        return str(path)
    return str(Path(base).expanduser()) if Path(base).expanduser().is_dir() else base


def base_folder(base: str) -> Path:
    """Where the files of a base lie.

    :raises TeacherError: if it is not there.
    """
    source = Path(base_source(base))
    if source.is_dir():
        return source
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise TeacherError(f"There is no model {base!r} here. {FETCH}") from error


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

    folder = base_folder(base)
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
        raise TeacherError(f"The backbone {base} cannot be loaded: {error}. {FETCH}") from error


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
