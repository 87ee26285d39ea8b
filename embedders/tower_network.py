"""The network that is trained: a query and a pin tower, and one linear head over their products and the words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.relevance import SCALAR_NAMES
from embedders.student import RelevanceHead
from embedders.training_base import adapted, training_backbone


def tower_network(
    base: str, rank: int, shared: bool, projection: NDArray[np.float32], head: RelevanceHead, pooling: str
) -> Any:
    """A torch module: ``encode(role, ids, mask)`` and ``levels(query, pin, scalars)``; backbones and one head.

    :param rank: of the differences to the backbone's linear layers; 0 trains all its weights.
    """
    import torch

    lora = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0}
    names = ("shared",) if shared else ("query", "pin")
    scalars = len(SCALAR_NAMES)
    at = {name: column for column, name in enumerate(SCALAR_NAMES)}

    class TowerNetwork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbones = torch.nn.ModuleDict()
            for name in names:  # one after the other: loading and drawing the adapter take the same random numbers
                backbone = training_backbone(base)
                self.backbones[name] = adapted(backbone, lora) if rank else backbone
            self.projections = torch.nn.ModuleDict()
            for name in names:
                layer = torch.nn.Linear(projection.shape[1], projection.shape[0], bias=False)
                layer.weight.data = torch.from_numpy(projection.copy())
                self.projections[name] = layer
            self.mean: Any
            self.scale: Any
            self.register_buffer("mean", torch.from_numpy(head.mean.copy()))
            self.register_buffer("scale", torch.from_numpy(head.scale.copy()))
            self.weights = torch.nn.Parameter(torch.from_numpy(head.weights.copy()))
            self.bias = torch.nn.Parameter(torch.from_numpy(head.bias.copy()))

        def encode(self, role: str, ids: Any, mask: Any) -> Any:
            name = role if role in self.backbones else "shared"
            hidden = self.backbones[name](input_ids=ids, attention_mask=mask).last_hidden_state
            mean = pooling == "mean"
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) if mean else hidden[:, 0]
            return self.projections[name](pooled.to(self.projections[name].weight.dtype))

        def levels(self, query: Any, pin: Any, given: Any) -> Any:
            products = query * pin
            cosine = products.sum(1)
            raw = given.clone()
            raw[:, at["cosine"]] = cosine
            raw[:, at["cosine_and_title_match"]] = cosine * given[:, at["match_title"]]
            raw[:, at["no_vector"]] = 0
            z = torch.nan_to_num((raw - self.mean[:scalars]) * self.scale[:scalars], nan=0.0).clamp(-5, 5)
            width = products.shape[1]
            part = slice(scalars, scalars + width)
            # a prefix has larger components: those of unit vectors grow with the root of the share that is left out
            shrink = width / (len(self.mean) - scalars)
            beyond = (products * shrink - self.mean[part]) * self.scale[part]
            return z @ self.weights[:scalars] + beyond.clamp(-5, 5) @ self.weights[part] + self.bias

    return TowerNetwork()
