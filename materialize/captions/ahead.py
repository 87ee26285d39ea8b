"""Reading, decoding and preparing images in other threads while the model writes captions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from embedders.captions.captioner import Captioner, PreparingCaptioner
from embedders.captions.images import ImageLimits, ImageRefused, decode_image
from embedders.recipe import available_processors
from materialize.captions.sources import ImageSource, Reader, WantedImage

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 256
"""Images that the source is asked for at once."""
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Batch:
    """Decoded images, ready for the model, and what was refused on the way with the reason."""

    wanted: list[WantedImage]
    images: list[Image]
    refused: list[tuple[WantedImage, str]]
    prepared: Any = None
    """What the captioner prepared; None if it prepares nothing, or failed to: then it is asked image by image."""


def batches(
    wanted: Iterator[WantedImage], source: ImageSource, captioner: Captioner | None, size: int, limits: ImageLimits
) -> Iterator[Batch]:
    """The images in their order as batches of ``size``, some of them worked on ahead.

    :param captioner: prepares the batches, where it can; None only decodes them.
    """
    workers = max(1, min(_MOST_WORKERS, available_processors() - 1))
    queue: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, "images-read") as reader, ThreadPoolExecutor(workers, "images-decode") as pool:
        try:
            for found in _chunks(wanted, source, reader, max(CHUNK // size, 1) * size):
                for start in range(0, len(found), size):
                    queue.append(pool.submit(_work, found[start : start + size], captioner, limits))
                    if len(queue) > workers + 1:
                        yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:  # an error, or whoever asked had enough
            for future in queue:
                future.cancel()


Found = list[tuple[WantedImage, Reader]]


def _chunks(
    wanted: Iterator[WantedImage], source: ImageSource, reader: ThreadPoolExecutor, size: int
) -> Iterator[Found]:
    """Chunk by chunk, the next one being read meanwhile."""

    def read() -> Found:
        chunk = list(islice(wanted, size))
        return list(zip(chunk, source.open(chunk), strict=True)) if chunk else []

    coming = reader.submit(read)
    while found := coming.result():
        coming = reader.submit(read)
        yield found


def _work(found: Sequence[tuple[WantedImage, Reader]], captioner: Captioner | None, limits: ImageLimits) -> Batch:
    batch = Batch([], [], [])
    for image, read in found:
        try:
            batch.images.append(decode_image(read(), limits))
        except ImageRefused as error:
            batch.refused.append((image, str(error)))
        else:
            batch.wanted.append(image)
    if not batch.images or not isinstance(captioner, PreparingCaptioner):
        return batch
    try:
        prepared = captioner.prepare(batch.images)
    except Exception:  # one image of the batch may be to blame: they are tried alone
        return batch
    return Batch(batch.wanted, batch.images, batch.refused, prepared)
