"""Queries in five languages against English captions of images: what table (d) is judged on.

An image is an item with five English captions written independently. One caption of it, in some language, is the query;
its other English captions are relevant pins (level 5), captions of other images are not (level 1): eight of the images
most like it, by the mean vector of their captions, and six at random. The same candidates serve every language of a
query, so languages are compared pair by pair. Captions of images that look alike may fit a query as well and count as
wrong all the same: levels are binary by construction, not by judgment.

Multi30k: English and German captions written independently, and French and Czech translations of an English caption.
Flickr8k: English and Chinese captions written independently. Images whose names hash to fold 0 judge, the rest trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from benchmarks.relevance import data
from embedders.encoder import Encoder
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError
from feature_repo.pin_text import PinFields
from feature_repo.text import normalise

LIKE, RANDOM = 8, 6
RELEVANT, IRRELEVANT = 5, 1
SEEN, UNSEEN = "en", ("de", "fr", "cs", "zh")


@dataclass(frozen=True)
class Image:
    """Captions of one image."""

    name: str
    queries: Mapping[str, str]
    """A caption by language: the query."""
    pins: tuple[str, ...]
    """Its other English captions."""


def load(images: int, seed: int = 0) -> dict[str, tuple[list[Image], list[Image]]]:
    """(train, judge) images of ``multi30k`` and ``flickr8k``, at most ``images`` of each side, seeded.

    :raises PinfeatherError: if a file is not there.
    """
    out = {}
    for name, found in (("multi30k", _multi30k()), ("flickr8k", _flickr8k())):
        order = np.random.default_rng(seed).permutation(len(found))
        judges = [found[row] for row in order if _judges(found[row].name)]
        trains = [found[row] for row in order if not _judges(found[row].name)]
        out[name] = trains[:images], judges[:images]
    return out


def pairs_of(name: str, images: Sequence[Image], encoder: Encoder, seed: int = 0) -> dict[str, PairSet]:
    """The pairs of each language; rows of the languages match one to one.

    :param images: all with queries in the same languages.
    :param encoder: says which images are alike.
    """
    candidates = _candidates(images, encoder, seed)
    pins = [PinFields(description=caption) for each in candidates for caption, _ in each]
    levels = [level for each in candidates for _, level in each]
    out = {}
    for language in images[0].queries:
        queries = [image.queries[language] for image, each in zip(images, candidates, strict=True) for _ in each]
        out[language] = PairSet.from_rows(f"{name}, {language}", queries, pins, levels, source=name)
    return out


def _candidates(images: Sequence[Image], encoder: Encoder, seed: int) -> list[list[tuple[str, int]]]:
    """Captions and levels of every image's query."""
    random = np.random.default_rng(seed)
    captions = [caption for image in images for caption in image.pins]
    owner = np.repeat(np.arange(len(images)), [len(image.pins) for image in images])
    sums = np.zeros((len(images), encoder.dimension), np.float64)
    np.add.at(sums, owner, encoder.encode(captions))
    middle = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    out = []
    for number, image in enumerate(images):
        likeness = middle @ middle[number]
        likeness[number] = -np.inf
        like = np.argsort(-likeness, kind="stable")[: min(LIKE, len(images) - 1)]
        others = np.setdiff1d(np.arange(len(images)), [number, *like])
        far = random.choice(others, min(RANDOM, len(others)), replace=False)
        wrong = [str(random.choice(images[other].pins)) for other in (*like, *far)]
        out.append([*((pin, RELEVANT) for pin in image.pins), *((pin, IRRELEVANT) for pin in wrong)])
    return out


def _judges(image: str) -> bool:
    return (
        xxhash.xxh3_64_intdigest(image.split("_")[0].split(".")[0].encode(), data.SEED) % data.FOLDS == data.JUDGE_FOLD
    )


def _multi30k() -> list[Image]:
    translations = _rows(data.folder() / "multi30k" / "task1_translations.parquet", ("image", "fr", "cs"))
    captions = _rows(
        data.folder() / "multi30k" / "task2_independent_captions.parquet", ("image", "lang", "n", "caption")
    )
    english: dict[str, list[str]] = {}
    german: dict[str, str] = {}
    for row in captions:
        if row["lang"] == "en":
            english.setdefault(row["image"], []).append(normalise(row["caption"]))
        elif row["n"] == 1:
            german[row["image"]] = normalise(row["caption"])
    images = []
    for row in translations:
        own = english.get(row["image"], [])
        if len(own) == 5 and row["image"] in german and row["fr"] and row["cs"]:
            queries = {"en": own[0], "de": german[row["image"]], "fr": normalise(row["fr"]), "cs": normalise(row["cs"])}
            images.append(Image(row["image"], queries, tuple(own[1:])))
    return images


def _flickr8k() -> list[Image]:
    by_image: dict[str, dict[str, list[str]]] = {}
    for row in _rows(data.folder() / "flickr8k_captions" / "captions.parquet", ("image", "lang", "caption")):
        by_image.setdefault(row["image"], {"en": [], "zh": []})[row["lang"]].append(normalise(row["caption"]))
    return [
        Image(image, {"en": of["en"][0], "zh": of["zh"][0]}, tuple(of["en"][1:]))
        for image, of in by_image.items()
        if len(of["en"]) > 1 and of["zh"]
    ]


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    import pyarrow.parquet

    if not path.is_file():
        raise PinfeatherError(f"{path} is not there: put the set beside the checkout, or set PINFEATHER_SHARED_DATA.")
    rows: list[dict[str, str]] = pyarrow.parquet.read_table(path, columns=list(columns)).to_pylist()
    return rows
