"""Texts to unit vectors: the :class:`Encoder` contract, and the transformer behind it.

Batches are of similar length, so a text meets other neighbours, and other padding, from call to call. The same list
gives the same bits on one machine and recipe. The same text in two lists gives vectors whose components differ by up to
1e-6 in fp32 and 5e-3 in bf16 (cosine at least 0.999; measured 1e-7, and 1.4e-3 with cosine 0.99997). :func:`as_stored`
hides the fp32 difference in 998 components of 1,000, that of bf16 in few. So compare fingerprints of texts, never
vectors bit by bit, and read the vector that was stored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedders.model_folder import (
    PACKAGED,
    ModelFolder,
    ModelFolderError,
    check_fingerprint,
    model_fingerprint,
    packaged_model_path,
)
from embedders.recipe import EncodingRecipe, choose_recipe
from embedders.runners import CpuRunner, CudaRunner, Runner
from embedders.tokens import TextTokenizer, TokenCounter, token_batches
from feature_repo.errors import PinfeatherError

__all__ = [
    "Encoder",
    "EncodingError",
    "EncodingRecipe",
    "ModelFolderError",
    "TokenCounter",
    "TransformerEncoder",
    "as_stored",
    "load_encoder",
    "model_fingerprint",
    "packaged_model_path",
]

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Progress = Callable[[int], None]


class EncodingError(PinfeatherError):
    """A text could not be turned into a vector; the message names its index."""


@runtime_checkable
class Encoder(Protocol):
    """Texts to vectors. ``fingerprint`` says of which model, ``recipe`` how they are computed here."""

    dimension: int
    fingerprint: str
    recipe: EncodingRecipe

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Unit vectors, float32 [n, dimension], in the order of ``texts``.

        ``progress`` is called with the number of texts done since it was called last; the numbers add up to n.
        """
        ...


class TransformerEncoder:
    """A Hugging Face encoder with mean or CLS pooling; made by :func:`load_encoder`. Threads may share it."""

    def __init__(
        self,
        folder: ModelFolder,
        tokenizer: TextTokenizer,
        runner: Runner,
        recipe: EncodingRecipe,
        fingerprint: str,
        prompt: str,
    ) -> None:
        self.dimension = folder.dimension
        self.fingerprint = fingerprint
        self.recipe = recipe
        self.prompt = prompt
        self._tokenizer = tokenizer
        self._runner = runner

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Unit vectors, float32 [n, dimension], in the order of ``texts``; equal texts are computed once.

        Text beyond the model's maximum length is not read. No text is refused: an empty one has a vector too.

        :raises EncodingError: if an entry is no text, or the model gives a vector that is not finite.
        """
        slots, positions = self._distinct(texts)
        counts = np.bincount(positions, minlength=len(slots))
        vectors = np.empty((len(slots), self.dimension), dtype=np.float32)
        batches = token_batches(self._tokenizer, slots, self.recipe.token_budget)
        with closing(self._runner.run(batches)) as blocks:  # an error ends the work that was started ahead
            for rows, block in blocks:
                finite = np.isfinite(block).all(axis=1)
                if not finite.all():
                    index = int(np.flatnonzero(positions == rows[~finite][0])[0])
                    raise self._not_finite(index, texts)
                vectors[rows] = block
                if progress is not None:
                    progress(int(counts[rows].sum()))
        return vectors if len(slots) == len(texts) else vectors[positions]

    def _not_finite(self, index: int, texts: Sequence[str]) -> EncodingError:
        return EncodingError(
            f"The model gave no finite vector for text {index} of {len(texts)} ({texts[index][:60]!r}) in "
            f"{self.recipe.precision} on {self.recipe.device}. Try --precision fp32; if that gives the same, the "
            "model's weights are damaged."
        )

    def _distinct(self, texts: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
        """Distinct cleaned texts, and for each entry of ``texts`` the index of its own."""
        if isinstance(texts, str):
            raise EncodingError("encode() takes a list of texts, not one text. Call encode([text]).")
        slots: dict[str, int] = {}
        positions = np.empty(len(texts), dtype=np.intp)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise EncodingError(f"Text {index} of {len(texts)} is {text!r}, not a text. Pass '' for a missing one.")
            positions[index] = slots.setdefault(self._tokenizer.clean(self.prompt + text), len(slots))
        return list(slots), positions


def load_encoder(
    model: str | Path = PACKAGED,
    device: str = "auto",
    precision: str = "auto",
    *,
    max_length: int | None = None,
    prompt: str = "",
    threads: int | None = None,
    token_budget: int | None = None,
    expected_fingerprint: str | None = None,
) -> TransformerEncoder:
    """The encoder in a local model folder, ready to use; nothing is fetched and no code of the folder is run.

    :param model: ``"packaged"`` (all-MiniLM-L6-v2, checked against its published hashes) or a folder.
    :param device: ``auto`` takes CUDA where there is any.
    :param precision: ``auto`` takes bf16 where the device computes it in hardware, else fp32; the reason is logged.
    :param prompt: put before every text; part of the fingerprint.
    :param expected_fingerprint: as recorded with a space: a model that is not that one is refused.
    :raises ModelFolderError: if the folder is missing, damaged, changed or of an unsupported kind.
    :raises UsageError: if an option is unknown or the device is not there.
    """
    folder = ModelFolder.open(model, max_length)
    if expected_fingerprint is None:
        fingerprint = folder.fingerprint(prompt)
    else:
        fingerprint = check_fingerprint(folder, expected_fingerprint, prompt)
    recipe = choose_recipe(device, precision, threads, token_budget)
    tokenizer = TextTokenizer(folder)
    torch_model = _load_torch_model(folder, recipe)
    runner: Runner = (
        CudaRunner(torch_model, folder.pooling)
        if recipe.device == "cuda"
        else CpuRunner(torch_model, folder.pooling, recipe)
    )
    logger.info(
        "encoder %s on %s in %s, %d threads, %d tokens a batch (%s)",
        folder.path, recipe.device, recipe.precision, recipe.threads, recipe.token_budget, recipe.reason,
    )  # fmt: skip
    return TransformerEncoder(folder, tokenizer, runner, recipe, fingerprint, prompt)


def as_stored(vectors: ArrayLike) -> Vectors:
    """``vectors`` rounded through float16, in float32: the canonical vector in store, log, training and serving.

    A unit vector keeps its length within 1e-3 and its direction within a cosine of 1e-6. Applying it twice changes
    nothing.
    """
    return np.asarray(vectors, dtype=np.float32).astype(np.float16).astype(np.float32)


def _load_torch_model(folder: ModelFolder, recipe: EncodingRecipe) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    try:
        with quiet_transformers():
            model, loaded = AutoModel.from_pretrained(
                str(folder.path),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=dtype,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelFolderError(
            f"Model folder {folder.path} cannot be loaded: {error}. Copy it again, or name another model folder."
        ) from error
    # transformers fills missing weights with random numbers; only the pooler's are never used here.
    missing = sorted(key for key in loaded["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelFolderError(
            f"The weights in {folder.path} lack {len(missing)} tensors that config.json asks for ({missing[0]}, ...). "
            "Copy the model folder again; weights and config.json must belong together."
        )
    return model.eval().to(recipe.device)


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
