"""Two small shops and images with captions, in the form of the shared data; an encoder and a teacher for them."""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_catalogue import WordEncoder, direction

from benchmarks.relevance import data
from feature_repo.pin_text import DEFAULT_TEMPLATE
from feature_repo.text import words

THINGS = ("sofa", "lamp", "rug", "desk", "vase", "fern", "mug", "clock", "shelf", "chair", "quilt", "stove")
LOOKS = ("red", "blue", "oak", "small")


class SmallEncoder(WordEncoder):
    """As WordEncoder, in 16 dimensions."""

    dimension = 16

    def encode(self, texts, progress=None):
        self.encoded.extend(texts)
        rows = [sum((direction(word)[:16] for word in words(text.lower())), np.full(16, 1e-3)) for text in texts]
        matrix = np.array(rows, np.float32).reshape(len(texts), 16)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class Oracle:
    """A teacher that knows: level 5 where all words of the query are in the text, 3 for one of them, else 1."""

    fingerprint, template = "oracle", DEFAULT_TEMPLATE

    def __init__(self):
        self.asked = 0

    def probabilities(self, queries, texts):
        self.asked += len(queries)
        hits = [len(set(words(query)) & set(words(text))) for query, text in zip(queries, texts, strict=True)]
        return np.eye(5)[[2 * min(hit, 2) for hit in hits]] * 0.9 + 0.02


@pytest.fixture
def shops(tmp_path, monkeypatch):
    """Both shops in the form of the shared data: 48 queries with 8 products each."""
    monkeypatch.setenv("PINFEATHER_SHARED_DATA", str(tmp_path))
    random = np.random.default_rng(0)
    rows = []
    for thing in THINGS:
        for look in LOOKS:
            others = random.choice([each for each in THINGS if each != thing], 5, replace=False)
            shown = [(look, thing), ("plain", thing), ("huge", thing), *((look, other) for other in others)]
            rows += [
                {
                    "query": f"{look} {thing}",
                    "title": " ".join(each),
                    "level": 1 + 2 * (look in each) + 2 * (thing in each),
                }
                for each in shown
            ]
    common = {"query": [row["query"] for row in rows], "title": [row["title"] for row in rows]}
    levels = [row["level"] for row in rows]
    texts = [f"a {row['title']} of the {number % 7}th kind" for number, row in enumerate(rows)]
    spread = {"description_text": texts, "relevance_variance": [0.471 * (number % 2) for number in range(len(rows))]}
    for name, more in (("crowdflower", spread), ("homedepot", {"relevance": [(level + 1) / 2 for level in levels]})):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({**common, **more, "level5": levels}), tmp_path / name / "dev_pairs.parquet")
    return tmp_path


@pytest.fixture
def small_encoder():
    return SmallEncoder()


@pytest.fixture
def splits(shops):
    return [data.split(name) for name in data.SETS]


@pytest.fixture
def none(tmp_path):
    nowhere = dict.fromkeys(("teacher", "student", "whole"), tmp_path / "none")
    return argparse.Namespace(**nowhere, size="cpu", out=tmp_path)


@pytest.fixture
def captions(shops):
    """Forty images a set, with captions in the languages of the real ones."""
    flickr, independent, translations = [], [], []
    for number in range(40):
        thing, look, place = THINGS[number % 12], LOOKS[number % 4], f"room{number}"
        english = [f"a {look} {thing} in {place} number {n}" for n in range(5)]
        name = f"{1000 + number}.jpg"
        flickr += [{"image": name, "lang": "en", "caption": each} for each in english]
        flickr += [{"image": name, "lang": "zh", "caption": f"房间 {place} 里的 {thing}"}]
        independent += [{"image": name, "lang": "en", "n": n + 1, "caption": each} for n, each in enumerate(english)]
        independent += [{"image": name, "lang": "de", "n": n, "caption": f"{n} ein {thing} in {place}"} for n in (1, 2)]
        cs = f"{thing} v {place}" if number else None
        translations.append({"image": name, "en": english[0], "de": "", "fr": f"un {thing} de {place}", "cs": cs})
    for path, rows in (
        ("flickr8k_captions/captions", flickr),
        ("multi30k/task1_translations", translations),
        ("multi30k/task2_independent_captions", independent),
    ):
        (shops / path).parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), shops / f"{path}.parquet")
    return shops
