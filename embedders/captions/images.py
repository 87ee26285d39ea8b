"""Bytes of an image to pixels: any common format in, upright RGB out, or a reason why not.

Nothing is believed that the bytes say: sizes are checked before a pixel is decoded, only formats that Pillow decodes
itself are tried (EPS, for one, would start another program), and whatever goes wrong inside a decoder is a reason.
"""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedders.captions.captioner import CaptionerError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are opened, as Pillow names them; MPO is how some cameras write JPEG."""
_PLUGINS = threading.Lock()
_SIXTEEN_BITS = (1 << 16) - 1


@dataclass(frozen=True)
class ImageLimits:
    """What an image may be. A caption does not see details beyond ``max_side``, so larger ones are reduced to it."""

    max_bytes: int = 64 << 20
    max_pixels: int = 89_478_485
    """Pillow's own measure of a decompression bomb: 256 MB as 24-bit pixels."""
    min_side: int = 8
    """Smaller ones, as the single pixels that count visitors, show nothing."""
    max_side: int = 2_048


class ImageRefused(Exception):
    """The image cannot be captioned; the message is the short reason."""


def decode_image(data: bytes, limits: ImageLimits | None = None) -> Image:
    """The first frame as RGB, upright as its EXIF data says, transparency on white, at most ``max_side`` long.

    :raises ImageRefused: if the bytes are no image, a broken one or one beyond ``limits``.
    :raises CaptionerError: if Pillow is not installed.
    """
    pillow = require_pillow()
    from PIL import UnidentifiedImageError

    limits = limits or ImageLimits()
    if not data:
        raise ImageRefused("empty file")
    if len(data) > limits.max_bytes:
        raise ImageRefused(f"larger than {limits.max_bytes >> 20} MiB")
    try:
        with pillow.open(io.BytesIO(data), formats=[name for name in FORMATS if name in pillow.OPEN]) as image:
            _check_size(image.size, limits)
            image.draft("RGB", (limits.max_side, limits.max_side))  # a JPEG decodes at half its size at no cost
            image.load()
            fitted = _fit(_upright_rgb(image), limits.max_side)
            _check_size(fitted.size, limits)  # a ribbon of 20,000 x 70 pixels is seven high once it fits
            return fitted
    except ImageRefused:
        raise
    except pillow.DecompressionBombError:
        raise ImageRefused(_too_many(limits)) from None
    except UnidentifiedImageError:
        raise ImageRefused(f"no image that can be opened ({', '.join(FORMATS)} can)") from None
    except Exception as error:  # a decoder may raise anything at bytes that were made to break it
        words = " ".join(str(error).split())[:120]
        raise ImageRefused(f"broken image: {words or type(error).__name__}") from error


def require_pillow() -> Any:
    """The module ``PIL.Image``.

    :raises CaptionerError: if Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise CaptionerError(
            "Captions need Pillow to open images, which is not installed. Run `pip install 'pinfeather[caption]'`."
        ) from error
    with _PLUGINS:  # which Pillow would load one by one, and in several threads at once
        Image.init()
    return Image


def _too_many(limits: ImageLimits) -> str:
    return f"more than {limits.max_pixels:,} pixels"


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageRefused(_too_many(limits))
    if min(width, height) < limits.min_side:
        raise ImageRefused(f"smaller than {limits.min_side} pixels")


def _upright_rgb(image: Image) -> Image:
    from PIL import Image as Pixels
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # the orientation is lost with the EXIF data; the picture is not
        image.info.pop("exif", None)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        white = Pixels.new("RGBA", clear.size, "white")
        return Pixels.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image) -> Image:
    """Grey of 16 or 32 bits or as fractions, brought to 8: by its full range where that is known, else by its own."""
    import numpy as np
    from PIL import Image as Pixels

    grey = np.asarray(image).astype(np.float64)
    grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if image.mode == "F":
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    elif low >= 0 and high <= _SIXTEEN_BITS:
        low, high = 0.0, float(_SIXTEEN_BITS)
    scaled = (grey - low) * (255 / (high - low)) if high > low else np.zeros_like(grey)
    return Pixels.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _fit(image: Image, side: int) -> Image:
    if max(image.size) > side:
        image.thumbnail((side, side), reducing_gap=2.0)
    return image
