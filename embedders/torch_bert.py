"""A plain BERT encoder in evaluation, in torch and without transformers, whose import takes seconds: for many texts.

The same sums as ``BertModel`` of transformers (Devlin et al., "BERT", 2019), with query, key and value as one product
and no modules in between. For a few texts at a time :mod:`embedders.plain_bert` does without torch, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedders.bert_files import LINEAR, NORMS, is_plain, read_bert
from embedders.tower_folder import AnyModel

Shape = tuple[int, ...]
Pair = tuple[Any, Any]
"""Weight and bias, torch tensors."""


@dataclass(frozen=True, eq=False)
class _Layer:
    qkv: Pair
    attended: Pair
    attended_norm: Pair
    wide: Pair
    narrow: Pair
    norm: Pair

    @classmethod
    def of(cls, number: int, tensors: Mapping[str, Any]) -> _Layer:
        import torch

        def pair(name: str) -> Pair:
            full = f"encoder.layer.{number}.{name}"
            return tensors[f"{full}.weight"], tensors[f"{full}.bias"]

        query, key, value, attended, wide, narrow = map(pair, LINEAR)
        attended_norm, norm = map(pair, NORMS)
        weight, bias = (torch.cat(parts) for parts in zip(query, key, value, strict=True))
        return cls((weight, bias), attended, attended_norm, wide, narrow, norm)


class TorchBert:
    """Token vectors of texts; made by :meth:`read` or :meth:`of`. Threads may share it."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        self.heads: int = config["num_attention_heads"]
        self.width: Shape = (config["hidden_size"],)
        self.epsilon: float = config.get("layer_norm_eps", 1e-12)
        self.words = tensors["embeddings.word_embeddings.weight"]
        self.positions = tensors["embeddings.position_embeddings.weight"]
        self.kind = tensors["embeddings.token_type_embeddings.weight"][0]  # every token is of the first type
        self.norm: Pair = (tensors["embeddings.LayerNorm.weight"], tensors["embeddings.LayerNorm.bias"])
        self.layers = [_Layer.of(number, tensors) for number in range(config["num_hidden_layers"])]

    @property
    def precision(self) -> str:
        """``fp32`` or ``bf16``."""
        return "fp32" if self.words.element_size() == 4 else "bf16"

    @classmethod
    def read(cls, folder: AnyModel, precision: str) -> TorchBert | None:
        """The model in ``folder``, what was trained on top of it added in fp32; None for what is not plain BERT.

        :param precision: ``fp32`` or ``bf16``: what it is kept and computed in.
        :raises ModelFolderError: if the adapter of a tower cannot be read.
        """
        import torch

        found = read_bert(folder)
        if found is None:
            return None
        kept = torch.bfloat16 if precision == "bf16" else torch.float32
        return cls(found[0], {name: torch.from_numpy(array).to(kept) for name, array in found[1].items()})

    @classmethod
    def of(cls, model: Any) -> TorchBert | None:
        """The same for a model that transformers loaded; None for what is not plain BERT."""
        if type(model).__name__ != "BertModel":
            return None
        config = model.config.to_dict()
        return cls(config, model.state_dict()) if is_plain(config) else None

    def __call__(self, ids: Any, mask: Any) -> Any:
        """Token vectors, a torch tensor [b, n, hidden], of token ids and mask [b, n]; those of padding mean nothing."""
        import torch

        functional = torch.nn.functional
        batch, n = ids.shape
        with torch.inference_mode():
            seen = None if batch == 1 or bool(mask.all()) else mask.bool()[:, None, None, :]
            hidden = functional.embedding(ids, self.words) + (self.kind + self.positions[:n])
            hidden = functional.layer_norm(hidden, self.width, *self.norm, self.epsilon)
            for layer in self.layers:
                split = functional.linear(hidden, *layer.qkv).view(batch, n, 3, self.heads, -1)
                query, key, value = split.permute(2, 0, 3, 1, 4)
                read = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
                read = read.transpose(1, 2).reshape(batch, n, -1)
                hidden = hidden + functional.linear(read, *layer.attended)
                hidden = functional.layer_norm(hidden, self.width, *layer.attended_norm, self.epsilon)
                wide = functional.gelu(functional.linear(hidden, *layer.wide))
                hidden = hidden + functional.linear(wide, *layer.narrow)
                hidden = functional.layer_norm(hidden, self.width, *layer.norm, self.epsilon)
            return hidden
