"""Images to captions: what a captioner is, the Hugging Face models behind it, and how an image file is opened."""

from embedders.captions.captioner import Captioner, CaptionerError, CaptionSettings, PreparingCaptioner
from embedders.captions.images import ImageRefused, decode_image
from embedders.captions.model import CaptionerFolder, find_captioner

__all__ = [
    "CaptionSettings",
    "Captioner",
    "CaptionerError",
    "CaptionerFolder",
    "ImageRefused",
    "PreparingCaptioner",
    "decode_image",
    "find_captioner",
]
