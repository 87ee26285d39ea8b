"""Texts to unit vectors: the :class:`Encoder` contract, and the transformer behind it.

Batches are of similar length, so a text meets other neighbours, and other padding, from call to call. The same list
gives the same bits on one machine and recipe. The same text in two lists gives vectors whose components differ by up to
1e-6 in fp32 and 5e-3 in bf16 (cosine at least 0.999; measured 1e-7, and 1.4e-3 with cosine 0.99997). :func:`as_stored`
hides the fp32 difference in 998 components of 1,000, that of bf16 in few. So compare fingerprints of texts, never
vectors bit by bit, and read the vector that was stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedders.backbone import load_token_vectors
from embedders.model_files import ModelFolderError
from embedders.model_folder import PACKAGED, packaged_model_path
from embedders.plain_bert import PlainBert
from embedders.plain_runner import PlainHead, PlainRunner
from embedders.recipe import EncodingRecipe, choose_recipe, numpy_recipe
from embedders.runners import CpuRunner, CudaRunner, Head, Runner
from embedders.tokens import TextTokenizer, TokenCounter, token_batches
from embedders.tower_folder import AnyModel, check_fingerprint, model_fingerprint, open_model
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
Asked = tuple[str, str, int | None, int | None]
"""Device, precision, threads and token budget."""


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
        folder: AnyModel,
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
    few: bool = False,
) -> TransformerEncoder:
    """The encoder in a local model or tower folder, ready to use; nothing is fetched and no code of the folder is run.

    :param model: ``"packaged"`` (all-MiniLM-L6-v2, checked against its published hashes) or a folder.
    :param device: ``auto`` takes CUDA where there is any.
    :param precision: ``auto`` takes bf16 where the device computes it in hardware, else fp32; the reason is logged.
    :param prompt: put before every text, instead of what the folder says; part of the fingerprint.
    :param expected_fingerprint: as recorded with a space: a model that is not that one is refused.
    :param few: for a few texts at a time, by a process that should start soon: a plain BERT is computed on a processor
        in numpy, in fp32 unless bf16 is asked for, and torch is not imported. Other models are computed as ever.
    :raises ModelFolderError: if the folder is missing, damaged, changed or of an unsupported kind.
    :raises UsageError: if an option is unknown or the device is not there.
    """
    folder = open_model(model, max_length)
    prompt = prompt or folder.prompt
    if expected_fingerprint is None:
        fingerprint = folder.fingerprint(prompt)
    else:
        fingerprint = check_fingerprint(folder, expected_fingerprint, prompt)
    asked = device, precision, threads, token_budget
    runner, recipe = (few and _numpy_runner(folder, numpy_recipe(*asked))) or _torch_runner(folder, asked)
    logger.info(
        "encoder %s on %s in %s by %s, %d threads, %d tokens a batch (%s)", folder.path, recipe.device,
        recipe.precision, recipe.runtime, recipe.threads, recipe.token_budget, recipe.reason,
    )  # fmt: skip
    return TransformerEncoder(folder, TextTokenizer(folder), runner, recipe, fingerprint, prompt)


def _torch_runner(folder: AnyModel, asked: Asked) -> tuple[Runner, EncodingRecipe]:
    recipe = choose_recipe(*asked)
    model = load_token_vectors(folder, recipe.device, recipe.precision)
    head = Head.of(folder.pooling, folder.projection(), recipe.device)
    return CudaRunner(model, head) if recipe.device == "cuda" else CpuRunner(model, head, recipe), recipe


def _numpy_runner(folder: AnyModel, recipe: EncodingRecipe | None) -> tuple[Runner, EncodingRecipe] | None:
    """None where the model is no plain BERT, or ``recipe`` is None."""
    if recipe is None or (model := PlainBert.read(folder)) is None:
        return None
    return PlainRunner(model, PlainHead.of(folder.pooling, folder.projection()), recipe.threads), recipe


def as_stored(vectors: ArrayLike) -> Vectors:
    """``vectors`` rounded through float16, in float32: the canonical vector in store, log, training and serving.

    A unit vector keeps its length within 1e-3 and its direction within a cosine of 1e-6. Applying it twice changes
    nothing.
    """
    return np.asarray(vectors, dtype=np.float32).astype(np.float16).astype(np.float32)
