"""A plain BERT encoder in evaluation, straight from its files: without transformers, whose import takes seconds.

The same sums as ``BertModel`` of transformers (Devlin et al., "BERT", 2019), with query, key and value as one product
and no modules in between: a query of a few words takes a third of the time. Whatever differs from the plain model in
any way (another activation, tensors that are missing or of another shape, several weight files) is left to
transformers, which computes it or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedders.low_rank import ADAPTER_CONFIG, LowRank
from embedders.model_files import read_json, weight_files
from embedders.tower_folder import AnyModel

Shape = tuple[int, ...]
Pair = tuple[Any, Any]
"""Weight and bias, torch tensors."""

_PLAIN: Mapping[str, Any] = {
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
_LINEAR = (
    *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    *("intermediate.dense", "output.dense"),
)
_UNREAD = "pooler.dense"
"""An adapter may have a part for it, since PEFT finds layers by the end of their names; no vector reads the pooler."""
_NORM = ("attention.output.LayerNorm", "output.LayerNorm")


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

        query, key, value, attended, wide, narrow = map(pair, _LINEAR)
        attended_norm, norm = map(pair, _NORM)
        weight, bias = (torch.cat(parts) for parts in zip(query, key, value, strict=True))
        return cls((weight, bias), attended, attended_norm, wide, narrow, norm)


class PlainBert:
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
    def read(cls, folder: AnyModel, precision: str) -> PlainBert | None:
        """The model in ``folder``, what was trained on top of it added in fp32; None for what is not plain BERT.

        :param precision: ``fp32`` or ``bf16``: what it is kept and computed in.
        :raises ModelFolderError: if the adapter of a tower cannot be read.
        """
        import torch
        from safetensors import SafetensorError, safe_open

        path = folder.backbone.path
        config = read_json(path, "config.json")
        # transformers would read an adapter that lies beside the weights, too.
        if [file.name for file in weight_files(path)] != [_WEIGHTS] or (path / ADAPTER_CONFIG).exists():
            return None
        if not _plain(config):
            return None
        try:
            with safe_open(str(path / _WEIGHTS), framework="pt") as file:
                names = set(file.keys())
                wanted = _shapes(config)
                if not names >= wanted.keys():
                    return None
                # A copy: what is mapped would change with the file.
                tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in wanted}
        except (OSError, SafetensorError, RuntimeError, ValueError):
            return None
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != wanted:
            return None
        if not _add(tensors, folder.deltas()):
            return None
        if precision == "bf16":
            tensors = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
        return cls(config, tensors)

    @classmethod
    def of(cls, model: Any) -> PlainBert | None:
        """The same for a model that transformers loaded; None for what is not plain BERT."""
        if type(model).__name__ != "BertModel":
            return None
        config = model.config.to_dict()
        return cls(config, model.state_dict()) if _plain(config) else None

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


def _plain(config: Mapping[str, Any]) -> bool:
    """Whether ``config`` names a model whose sums are those of :class:`PlainBert`."""
    if any(config.get(name, value) != value for name, value in _PLAIN.items()) or "model_type" not in config:
        return False
    sizes = [config.get(name) for name in _SIZES]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return False
    return bool(config["hidden_size"] % config["num_attention_heads"] == 0)


def _shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
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
        for name in _LINEAR
    }
    norms = ["embeddings.LayerNorm", *(f"encoder.layer.{number}.{name}" for number in range(layers) for name in _NORM)]
    for name, (out, into) in linear.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return shapes


def _add(tensors: Mapping[str, Any], deltas: Mapping[str, LowRank]) -> bool:
    """Add ``scale * b @ a`` to the weight of each layer; False if one fits no linear layer."""
    import torch

    width = tensors["embeddings.LayerNorm.weight"].shape[0]
    for name, delta in deltas.items():
        if name == _UNREAD and (delta.b.shape[0], delta.a.shape[1]) == (width, width):
            continue
        weight = tensors.get(f"{name}.weight")
        if weight is None or not name.endswith(_LINEAR) or tuple(weight.shape) != (delta.b.shape[0], delta.a.shape[1]):
            return False
        weight += delta.scale * (torch.from_numpy(delta.b) @ torch.from_numpy(delta.a))
    return True
