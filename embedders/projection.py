"""The last linear layer of a tower: from the pooled vector to the vector that is compared. Arrays only, no torch.

A tower folder keeps it as ``projection.safetensors`` (``weight`` alone), a sentence-transformers folder as a ``Dense``
module (``2_Dense/config.json`` and ``2_Dense/model.safetensors``: ``linear.weight``, ``linear.bias``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedders.model_files import ModelFolderError, read_json

Matrix = NDArray[np.float32]

_ACTIVATIONS = {"Identity": False, "Tanh": True}
DENSE_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Projection:
    """``f(W x + b)``, f being the identity or tanh."""

    weight: Matrix
    """[dimension, hidden]"""
    bias: Matrix | None = None
    """[dimension]"""
    tanh: bool = False

    @property
    def dimension(self) -> int:
        """Components of what comes out."""
        return int(self.weight.shape[0])


@dataclass(frozen=True)
class DenseFolder:
    """A ``Dense`` module as its config.json describes it; the weights are read by :meth:`read`."""

    path: Path
    hidden: int
    dimension: int
    bias: bool
    tanh: bool

    @classmethod
    def open(cls, path: Path) -> DenseFolder:
        """The module in folder ``path``.

        :raises ModelFolderError: if it is incomplete, or of a kind that is not supported.
        """
        config = read_json(path, "config.json")
        hidden, dimension = config.get("in_features"), config.get("out_features")
        if not isinstance(hidden, int) or not isinstance(dimension, int) or min(hidden, dimension) < 1:
            raise ModelFolderError(f"{path / 'config.json'} names no in_features and out_features. Copy it again.")
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
        if activation not in _ACTIVATIONS:
            raise ModelFolderError(
                f"{path} ends in the activation {activation}; supported are {', '.join(_ACTIVATIONS)}. Take a model "
                "without that module."
            )
        plain = "sentence_embedding"
        names = {config.get("module_input_name") or plain, config.get("module_output_name") or plain}
        if config.get("use_residual") or names != {plain}:
            raise ModelFolderError(
                f"{path} adds its input to its output, or reads and writes {sorted(names)}; supported is a layer from "
                f"{plain} to {plain} without a residual. Take a model without that module."
            )
        if not (path / DENSE_WEIGHTS).is_file():
            raise ModelFolderError(f"{path} has no {DENSE_WEIGHTS}. Save the model again with safetensors weights.")
        return cls(path, hidden, dimension, bool(config.get("bias", True)), _ACTIVATIONS[activation])

    def read(self) -> Projection:
        """The layer itself.

        :raises ModelFolderError: if the weights are not those that config.json describes.
        """
        file = self.path / DENSE_WEIGHTS
        arrays = read_arrays(file)
        wanted: dict[str, tuple[int, ...]] = {"linear.weight": (self.dimension, self.hidden)}
        if self.bias:
            wanted["linear.bias"] = (self.dimension,)
        check_shapes(file, arrays, wanted)
        return Projection(arrays["linear.weight"], arrays.get("linear.bias"), self.tanh)


def read_arrays(file: Path) -> dict[str, Matrix]:
    """The tensors of a safetensors file as float32.

    :raises ModelFolderError: if it cannot be read, or holds numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = {name: np.asarray(array, dtype=np.float32) for name, array in load(file.read_bytes()).items()}
    except (OSError, SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelFolderError(
            f"{file} cannot be read ({error}): it must hold float16 or float32 tensors. Copy the folder again, or save "
            "it again as float32."
        ) from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ModelFolderError(f"{file}: {name} holds numbers that are not finite. Train the tower again.")
    return arrays


def check_shapes(file: Path, arrays: Mapping[str, Matrix], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors other than ``wanted``.

    :raises ModelFolderError: naming both.
    """
    found = {name: array.shape for name, array in arrays.items()}
    if found != dict(wanted):
        raise ModelFolderError(
            f"{file} holds {_shapes(found)}, wanted are {_shapes(wanted)}: it belongs to other settings. Copy the "
            "folder again."
        )


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())) or "nothing"
