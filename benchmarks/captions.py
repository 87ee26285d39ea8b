"""How much of a captioning run passes outside the model: reading, hashing, decoding, resizing, writing.

Run from the checkout's root (a few minutes on a quiet machine; most of it is the larger model):

    .venv/bin/python -m benchmarks.captions

No published captioner can be fetched where this was made, so the weights are random: captions are nonsense, but the
work is the same. ``tiny`` is a BLIP of two layers for images of 32 pixels, whose model costs next to nothing: it shows
the worst case, everything that there is besides a model. ``base`` has the sizes of
Salesforce/blip-image-captioning-base (vision 12 layers of 768, images of 384 pixels in patches of 16; text 12 layers of
768, vocabulary of the packaged MiniLM). Images are the photographs in ``../shared/data/photos`` in as many variants as
are asked for (each its own file, JPEG), or made up where they are not. Everything goes through ``pinfeather``'s own
stage: pins, plan, files, hashes, decoding in other threads, gate, Parquet parts. The share is that of the loop from the
loaded model to the last caption on disk. ``prepare ms`` is the processor time of one thread for one image; a thousand
over it is how many images a second one core can feed to a model, however fast that is.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, machine, save

PHOTOS = ROOT.parent / "shared" / "data" / "photos"
PACKAGES = ("torch", "transformers", "pillow", "pyarrow", "numpy")
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 32, "layers": 2, "heads": 2, "image": 32},
    "base": {"hidden": 768, "layers": 12, "heads": 12, "image": 384},
}


def save_model(folder: Path, hidden: int, layers: int, heads: int, image: int) -> int:
    """A BLIP with random weights in ``folder``; how many weights it has."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    from embedders.model_folder import packaged_model_path

    words = BertTokenizerFast.from_pretrained(packaged_model_path(), local_files_only=True)
    words.backend_tokenizer.no_truncation()
    words.backend_tokenizer.no_padding()
    both = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    both |= {"num_attention_heads": heads}
    ends = {"bos_token_id": 101, "eos_token_id": 102, "sep_token_id": 102, "pad_token_id": 0}
    text = {**both, **ends, "vocab_size": len(words), "encoder_hidden_size": hidden, "max_position_embeddings": 512}
    torch.manual_seed(20)
    config = BlipConfig(text_config=text, vision_config={**both, "image_size": image, "patch_size": 16})
    model = BlipForConditionalGeneration(config)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": image, "width": image}), words).save_pretrained(folder)
    return sum(weights.numel() for weights in model.parameters())


def write_images(folder: Path, count: int) -> tuple[str, list[str], int]:
    """Where the images are from, their hashes, and their bytes in all; each in a file named by its hash."""
    from PIL import Image

    files = [file for file in sorted(PHOTOS.glob("*.*")) if file.suffix in (".png", ".jpg")]
    photos = [Image.open(file).convert("RGB") for file in files]
    source = "photographs of ../shared/data/photos, as JPEG" if photos else "made up, as JPEG"
    folder.mkdir()
    hashes, size = [], 0
    for number in range(count):
        image = photos[number % len(photos)].copy() if photos else Image.effect_noise((640, 480), 60).convert("RGB")
        image.putpixel((0, 0), (number % 256, number // 256 % 256, 7))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=92, comment=str(number))
        data = stream.getvalue()
        hashes.append(hashlib.sha256(data).hexdigest())
        size += len(data)
        (folder / f"{hashes[-1]}.jpg").write_bytes(data)
    return source, hashes, size


def write_pins(root: Path, hashes: list[str]) -> Any:
    """A repository with one pin an image."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feature_repo.paths import RepoPaths

    now = pa.scalar(datetime(2026, 11, 1, tzinfo=UTC), pa.timestamp("us", "UTC"))
    rows = len(hashes)
    times = {name: pa.repeat(now, rows) for name in ("created_at", "event_timestamp")}
    never = pa.nulls(rows, pa.timestamp("us", "UTC"))
    pins = pa.table({"pin_id": [f"p{n}" for n in range(rows)], "image_uri": pa.nulls(rows, pa.string()),
                     "image_sha256": hashes, **times, "deleted_at": never})  # fmt: skip
    paths = RepoPaths(root)
    paths.valid.mkdir(parents=True)
    pq.write_table(pins, paths.valid / "pins.parquet")
    return paths


def prepare_cpu_ms(captioner: Any, folder: Path, hashes: list[str]) -> float:
    """Processor milliseconds of one thread for reading, hashing, decoding and preparing one image."""
    from embedders.captions import decode_image
    from materialize.captions.sources import FolderImages, WantedImage

    readers = FolderImages(folder).open([WantedImage(image, ()) for image in hashes])
    captioner.prepare([decode_image(readers[0]())])  # to warm up
    start = time.thread_time()
    captioner.prepare([decode_image(read()) for read in readers])
    return 1e3 * (time.thread_time() - start) / len(hashes)


def measure(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run of the stage with a model of ``size``."""
    from embedders.captions import CaptionSettings, find_captioner
    from embedders.captions.hub import load_captioner
    from materialize.captions.run import CaptionOptions, caption
    from materialize.captions.sources import FolderImages

    with tempfile.TemporaryDirectory(dir=options.scratch) as room:
        weights = save_model(Path(room) / "model", **SIZES[size])
        count = options.tiny_images if size == "tiny" else options.images
        source, hashes, data = write_images(Path(room) / "images", count)
        paths = write_pins(Path(room) / "repo", hashes)
        folder = find_captioner(str(Path(room) / "model"), CaptionSettings(max_tokens=options.tokens))
        captioner = load_captioner(folder, "auto", "auto")
        images = FolderImages(Path(room) / "images")
        ahead = prepare_cpu_ms(captioner, Path(room) / "images", hashes[:12])
        counts = caption(paths, folder, lambda: captioner, images, CaptionOptions(batch=options.batch, language=None))
    return {
        "weights": weights,
        "image_pixels": SIZES[size]["image"],
        "source": source,
        "images": count,
        "image_bytes": data,
        "recipe": captioner.recipe.to_json(),
        "captioned": counts.captioned,
        "loop_seconds": round(counts.loop_seconds, 2),
        "model_seconds": round(counts.model_seconds, 2),
        "outside_model_share": round(counts.outside_model_share or 0.0, 4),
        "prepare_cpu_ms_an_image": round(ahead, 2),
        "images_per_second": round(counts.captioned / counts.loop_seconds, 3),
    }


def main() -> None:
    """Measure, print the table, write the JSON report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48, help="images for the base model (default 48)")
    parser.add_argument("--tiny-images", type=int, default=440, help="images for the tiny model (default 440)")
    parser.add_argument("--batch", type=int, default=8, help="images a batch (default 8)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens a caption at most (default 20)")
    parser.add_argument("--scratch", type=Path, help="where models and images are made; default the system's place")
    parser.add_argument("--out", type=Path, help="the JSON report; default results/captions.json")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    report = machine("captions", PACKAGES) | {"batch": options.batch, "tokens": options.tokens}
    report["models"] = {size: measure(size, options) for size in SIZES}
    print(f"{report['cpu']}, batches of {options.batch}, {options.tokens} tokens")
    print(f"{'':6}{'weights':>14}{'images':>8}{'outside':>10}{'images/s':>10}{'prepare ms':>12}")
    for size, found in report["models"].items():
        print(
            f"{size:6}{found['weights']:>14,}{found['images']:>8}{found['outside_model_share']:>10.1%}"
            f"{found['images_per_second']:>10}{found['prepare_cpu_ms_an_image']:>12}"
        )
    save("captions", report, options.out)


if __name__ == "__main__":
    main()
