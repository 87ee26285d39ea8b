"""A generated catalogue that is ready to serve, made once and kept under ``build/serving``.

Run from the checkout's root (6 minutes for 100,000 pins on 2 cores; ``--pins 2000`` for a small one):

    .venv/bin/python -m benchmarks.serving.catalogue

Every step is the product's own but one: the packaged model would encode 100,000 texts in ten minutes or more, so the
vector of a text is the mean of the packaged model's vectors of its words, with some noise of its own. Queries are
encoded by the packaged model itself, whose vectors lie among these.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from embedders.encoder import as_stored, load_encoder
from embedders.recipe import EncodingRecipe
from feature_repo.paths import RepoPaths
from feature_repo.text import words

FOLDER = Path(__file__).resolve().parents[2] / "build" / "serving"
PINS = 100_000
NOISE = 0.25
"""Length of a text's own noise beside the mean of its words, whose length is 1."""
JUDGED = 4_000
"""Judged pairs that the student is trained on."""
_DONE = "ready"


class WordEncoder:
    """Texts as means of the packaged model's vectors of their words; its fingerprint is that of the packaged model."""

    recipe = EncodingRecipe("cpu", "fp32", 1, 1024, reason="means of word vectors, for a benchmark", runtime="words")

    def __init__(self) -> None:
        self._model = load_encoder(device="cpu")
        self.dimension, self.fingerprint = self._model.dimension, self._model.fingerprint
        self._rows: dict[str, int] = {}
        self._table = np.zeros((0, self.dimension), dtype=np.float32)

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Unit vectors, float32 [n, dimension]; a function of the text alone."""
        split = [words(text.lower()) or ["nothing"] for text in texts]
        self._learn(dict.fromkeys(word for each in split for word in each))
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, (text, each) in enumerate(zip(texts, split, strict=True)):
            mean = self._table[[self._rows[word] for word in each]].mean(axis=0)
            own = np.random.default_rng(xxhash.xxh3_64_intdigest(text.encode())).standard_normal(self.dimension)
            out[row] = mean / np.linalg.norm(mean) + NOISE * own / np.linalg.norm(own)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        if progress is not None:
            progress(len(texts))
        return as_stored(out)

    def _learn(self, seen: dict[str, None]) -> None:
        new = [word for word in seen if word not in self._rows]
        if new:
            self._rows.update({word: len(self._table) + row for row, word in enumerate(new)})
            self._table = np.concatenate([self._table, self._model.encode(new)])


def repository(pins: int = PINS, folder: Path = FOLDER) -> RepoPaths:
    """The repository of ``pins`` pins, made now if it is not there yet."""
    root = folder / f"catalogue-{pins}"
    if not (root / _DONE).is_file():
        make(root, pins)
    return RepoPaths.open(root)


def make(root: Path, pins: int) -> None:
    """Take a generated catalogue through every step, from raw tables to a student that is live."""
    from feature_repo.aggregates import aggregate
    from feature_repo.validation import validate
    from materialize.run import RunOptions, materialize
    from pinfeather.apply import apply_definitions
    from pinfeather.generate import NOW, generate_catalogue
    from pinfeather.init import init_repository
    from pinfeather.pipeline import fit_lexical
    from pinfeather.training import Judged
    from pinfeather.training_student import train_student

    paths = RepoPaths.open(root) if (root / "feature_store.yaml").is_file() else init_repository(root)
    encoder = WordEncoder()
    steps: dict[str, Callable[[], Any]] = {
        "generate": lambda: generate_catalogue(paths.raw, pins=pins),
        "judge": lambda: _fewer_judgments(paths.raw / "judgments" / "part-0000.parquet"),
        "validate": lambda: validate(paths),
        "aggregate": lambda: aggregate(paths, as_of=NOW),
        "apply": lambda: apply_definitions(paths),
        "materialize": lambda: materialize(paths, RunOptions(encoder=encoder, tell=_say)),
        "lexical": lambda: fit_lexical(paths),
        "student": lambda: train_student(Judged.read(paths, encoder)),
    }
    for name, step in steps.items():
        done = root / f".{name}"
        if not done.exists():
            start = perf_counter()
            step()
            done.touch()  # a step that was done is not done again after a stop
            _say(f"{name:12}{perf_counter() - start:8.1f} s")
    (root / _DONE).touch()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _fewer_judgments(path: Path) -> None:
    """Keep the first :data:`JUDGED` rows: encoding every judged query would take longer than all the rest."""
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).slice(0, JUDGED), path)


def catalogue_parser(text: str | None) -> argparse.ArgumentParser:
    """Which catalogue a benchmark described by ``text`` runs on: ``--pins`` and ``--folder``."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=PINS, help=f"pins of the catalogue (default {PINS})")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where it is kept (default build/serving)")
    return parser


def main() -> None:
    """Make the catalogue and say where it is."""
    options = catalogue_parser(__doc__).parse_args()
    print(repository(options.pins, options.folder).root)


if __name__ == "__main__":
    main()
