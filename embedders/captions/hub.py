"""Hugging Face image-to-text models as captioners: BLIP, BLIP-2, and chat models that see."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from embedders.backbone import quiet_transformers
from embedders.captions.captioner import CaptionerError
from embedders.captions.images import ImageRefused, require_pillow
from embedders.captions.model import SENTENCE_KINDS, CaptionerFolder
from embedders.recipe import choose_recipe
from feature_repo.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class CaptionRecipe:
    """How captions are computed here; no part of the fingerprint. ``reason`` says why device and precision are so."""

    device: str
    precision: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """A batch as the model takes it, and its images, in case it has to be cut."""

    images: Sequence[Image]
    inputs: Any


class HubCaptioner:
    """A model of a :class:`CaptionerFolder`; made by :func:`load_captioner`."""

    def __init__(self, folder: CaptionerFolder, model: Any, processor: Any, recipe: CaptionRecipe) -> None:
        self.name = folder.name
        self.fingerprint = folder.fingerprint
        self.recipe = recipe
        self.model_seconds = 0.0
        self._folder = folder
        self._model = model
        self._processor = processor
        self._own = threading.local()
        self._most: int | None = None

    def caption(self, images: Sequence[Image]) -> list[str]:
        """One caption an image, in the order of ``images``.

        A batch that does not fit into memory is cut into halves, and so are those after it.

        :raises ImageRefused: if a single image does not fit into memory.
        """
        return self.generate(self.prepare(images))

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """Pixels and tokens of a batch, on the processor; several threads may do this."""
        return Prepared(images, self._inputs(self._my_processor(), images) if images else {})

    def generate(self, prepared: Prepared) -> list[str]:
        """One caption an image of a prepared batch, in their order.

        :raises ImageRefused: if a single image does not fit into memory.
        """
        if not prepared.images:
            return []
        if self._most is None or len(prepared.images) <= self._most:
            texts = self._try(prepared.inputs)
            if texts is not None:
                return texts
            if len(prepared.images) == 1:
                raise ImageRefused("does not fit into the memory of the model's device")
            self._most = len(prepared.images) // 2
            logger.warning("a batch of %d did not fit into memory: %d from now", len(prepared.images), self._most)
        middle = len(prepared.images) // 2
        return [text for half in (prepared.images[:middle], prepared.images[middle:]) for text in self.caption(half)]

    def _my_processor(self) -> Any:
        """A copy for each thread: tokenizers keep state while they work."""
        if not hasattr(self._own, "processor"):
            self._own.processor = copy.deepcopy(self._processor)
        return self._own.processor

    def _inputs(self, processor: Any, images: Sequence[Image]) -> Any:
        if self._folder.kind in SENTENCE_KINDS:
            text = {"text": [self._folder.prompt] * len(images)} if self._folder.prompt else {}
            return processor(images=list(images), return_tensors="pt", **text)
        content = [{"type": "image"}, {"type": "text", "text": self._folder.prompt}]
        asked = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        begin = getattr(processor.tokenizer, "bos_token", None)
        plain = {"add_special_tokens": False} if begin and asked.startswith(begin) else {}
        return processor(
            images=[[image] for image in images], text=[asked] * len(images), padding=True, return_tensors="pt", **plain
        )

    def _try(self, inputs: Any) -> list[str] | None:
        """Captions, or None where memory did not suffice."""
        import torch

        started = time.perf_counter()
        try:
            with torch.inference_mode(), self._seeded(), quiet_transformers():
                given = {key: self._moved(value) for key, value in inputs.items()}
                tokens = self._model.generate(**given, **self._decoding()).cpu()
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            tokens = None
        finally:
            self.model_seconds += time.perf_counter() - started
        if tokens is None:
            if self.recipe.device == "cuda":
                torch.cuda.empty_cache()
            return None
        written = self._processor.batch_decode(self._without_prompt(tokens, inputs), skip_special_tokens=True)
        return [text.strip() for text in written]

    def _moved(self, value: Any) -> Any:
        if not hasattr(value, "to"):
            return value
        return value.to(self._model.device, self._model.dtype if value.is_floating_point() else None)

    def _decoding(self) -> dict[str, Any]:
        settings = self._folder.settings
        sampling = settings.top_p is not None
        chosen = {"top_p": settings.top_p, "top_k": 0} if sampling else {}
        return {
            "max_new_tokens": settings.max_tokens, "num_beams": settings.beams, "do_sample": sampling, **chosen
        }  # fmt: skip

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Draws of the block depend on the seed alone, and nobody else's on it."""
        import torch

        if self._folder.settings.top_p is None:
            yield
            return
        devices = [self._model.device] if self.recipe.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._folder.settings.seed)
            yield

    def _without_prompt(self, tokens: Any, inputs: Any) -> Any:
        """What the model wrote itself: some give back what they were asked before it."""
        import torch

        asked = inputs.get("input_ids")
        if asked is None:
            return tokens
        if self._folder.kind == "blip":  # which drops the last token of what it is given, and sets the first
            asked, tokens_from = asked[:, 1:-1], 1
        else:
            tokens_from = 0
        end = tokens_from + asked.shape[1]
        repeated = tokens.shape[1] >= end and torch.equal(tokens[:, tokens_from:end], asked)
        return tokens[:, end:] if repeated else tokens


def load_captioner(folder: CaptionerFolder, device: str = "auto", precision: str = "auto") -> HubCaptioner:
    """The captioner of ``folder``, ready to use; nothing is fetched and no code of the folder is run.

    :param device: ``auto`` takes CUDA where there is any.
    :param precision: ``auto`` takes bf16 where the device computes it in hardware, else fp16 on CUDA and fp32 on a
        processor.
    :raises CaptionerError: if the model cannot be loaded, or its type is none that captions images.
    :raises UsageError: if an option is unknown, or the device is not there.
    """
    require_pillow()
    recipe = _choose(device, precision)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
    with quiet_transformers():
        processor = _load(folder, "processor", recipe)
        model = _load(folder, "model", recipe)
    if getattr(processor, "tokenizer", None) is None:
        raise CaptionerError(f"The model in {folder.path} has no tokenizer: copy its whole folder.")
    processor.tokenizer.padding_side = "left"  # what is written follows what was asked without a gap
    return HubCaptioner(folder, model.eval().to(recipe.device), processor, recipe)


def _choose(device: str, precision: str) -> CaptionRecipe:
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown; allowed are {', '.join(PRECISIONS)}.")
    found = choose_recipe(device, "auto" if precision == "fp16" else precision)
    if precision == "fp16" and found.device != "cuda":
        raise UsageError("--precision fp16 needs a CUDA device: a processor computes it slower than fp32. Use fp32.")
    if precision == "fp16" or (precision == "auto" and found.device == "cuda" and found.precision == "fp32"):
        return CaptionRecipe(found.device, "fp16", f"{found.reason}; fp16 instead")
    return CaptionRecipe(found.device, found.precision, found.reason)


def _load(folder: CaptionerFolder, part: str, recipe: CaptionRecipe) -> Any:
    from safetensors import SafetensorError

    try:
        return _load_processor(folder) if part == "processor" else _load_model(folder, recipe)
    except ImportError as error:
        words = " ".join(str(error).split())[:200]
        raise CaptionerError(
            f"The {part} of the model in {folder.path} ({folder.kind}) needs a package that is not installed: {words}. "
            "Install that, or name another model; BLIP and BLIP-2 need Pillow alone."
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        words = " ".join(str(error).split())[:300]
        raise CaptionerError(
            f"The {part} of the model in {folder.path} (type {folder.kind!r}) cannot be loaded: {words}. Copy the "
            "whole folder again. A type that this transformers does not know, or that brings its own code, cannot be "
            "used."
        ) from error


def _load_processor(folder: CaptionerFolder) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(str(folder.path), local_files_only=True, trust_remote_code=False)


def _load_model(folder: CaptionerFolder, recipe: CaptionRecipe) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    found: Any = AutoModelForImageTextToText.from_pretrained(
        str(folder.path),
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype={"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision],
        output_loading_info=True,
    )
    model, loaded = found
    missing = sorted(loaded["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise ValueError(f"the weights lack {len(missing)} tensors that config.json asks for ({missing[0]}, ...)")
    return model


def _out_of_memory(error: BaseException) -> bool:
    import torch

    said = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in said
