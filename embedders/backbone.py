"""The transformer of a model or tower folder in torch, what was trained on top of it added to its weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from embedders.low_rank import LowRank
from embedders.model_files import ModelFolderError
from embedders.torch_bert import TorchBert
from embedders.tower_folder import AnyModel


def load_token_vectors(folder: AnyModel, device: str, precision: str) -> Callable[[Any, Any], Any]:
    """The transformer of ``folder``, as a function from token ids and mask [b, n] to token vectors [b, n, hidden].

    On a processor a plain BERT runs without transformers, and is ready in a fraction of the time. Parameters and errors
    as in :func:`load_backbone`.
    """
    plain = TorchBert.read(folder, precision) if device == "cpu" else None
    if plain is not None:
        return plain
    model = load_backbone(folder, device, precision)
    if device == "cpu" and (same := TorchBert.of(model)) is not None:
        return same

    def token_vectors(ids: Any, mask: Any) -> Any:
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    return token_vectors


def load_backbone(folder: AnyModel, device: str, precision: str) -> Any:
    """The transformer of ``folder``, in evaluation mode; differences are added in fp32, whatever ``precision`` is.

    :param device: ``cpu`` or ``cuda``; ``precision`` is ``fp32`` or ``bf16``.
    :raises ModelFolderError: if its files cannot be loaded or do not belong together.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    path = folder.backbone.path
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    deltas = folder.deltas()
    try:
        with quiet_transformers():
            model, loaded = AutoModel.from_pretrained(
                str(path),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32 if deltas else dtype,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelFolderError(
            f"Model folder {path} cannot be loaded: {error}. Copy it again, or name another model folder."
        ) from error
    # transformers fills missing weights with random numbers; only the pooler's are never used here.
    missing = sorted(key for key in loaded["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelFolderError(
            f"The weights in {path} lack {len(missing)} tensors that config.json asks for ({missing[0]}, ...). "
            "Copy the model folder again; weights and config.json must belong together."
        )
    _add(model, deltas, folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # the buffers stay as transformers wants them
    return model.eval().to(device)


def _add(model: Any, deltas: Mapping[str, LowRank], folder: AnyModel) -> None:
    """Add ``scale * b @ a`` to the weight of each layer."""
    import torch

    layers = dict(model.named_modules())
    for name, delta in deltas.items():
        weight: Any = getattr(layers.get(name), "weight", None)
        shape = (delta.b.shape[0], delta.a.shape[1])
        if not isinstance(layers.get(name), torch.nn.Linear) or tuple(weight.shape) != shape:
            there = "no linear layer" if weight is None else f"a layer of shape {list(weight.shape)}"
            raise ModelFolderError(
                f"The adapter in {folder.path} changes {name} by {list(shape)}, and the base has {there} of that name: "
                "they do not belong together. Copy the folder again."
            )
        with torch.no_grad():
            weight += delta.scale * (torch.from_numpy(delta.b) @ torch.from_numpy(delta.a))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no load report from transformers: library code writes nothing to the terminal."""
    from transformers.utils import logging as transformers_logging

    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
