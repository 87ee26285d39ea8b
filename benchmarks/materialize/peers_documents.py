"""What every system of the peers benchmark is given: documents and a fake encoder; and what its store must hold."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DIMENSION = 384
SAME = 0.999
"""Cosine from which two vectors are the same one: stores round, and other texts' vectors are nearly orthogonal."""
_WORDS = 40


class Document(NamedTuple):
    """A document: ``text`` alone is encoded, ``tag`` is metadata beside it."""

    id: str
    text: str
    tag: str


class Row(NamedTuple):
    """What a store holds of a document: ``vector`` of float32 numbers."""

    id: str
    vector: npt.NDArray[np.float32]
    tag: str


def documents(count: int, edited_every: int = 0) -> Iterator[Document]:
    """``count`` documents of 40 words and about 280 characters; each ``edited_every``-th has another text."""
    for number in range(count):
        edited = edited_every and number % edited_every == 0
        yield Document(f"doc{number:09}", text(f"{number} edited" if edited else str(number)), "en")


def text(seed: str) -> str:
    """40 words that ``seed`` alone decides."""
    letters = hashlib.shake_128(seed.encode()).hexdigest(3 * _WORDS)
    return " ".join(letters[place : place + 6] for place in range(0, 6 * _WORDS, 6))


def vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """One unit vector a text, of shape (texts, 384), a function of the text alone."""
    raw = b"".join(hashlib.shake_128(each.encode()).digest(DIMENSION) for each in texts)
    matrix = np.frombuffer(raw, np.uint8).reshape(len(texts), DIMENSION).astype(np.float32) - 127.5
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)


class InFolder:
    """A system that is handed its documents and keeps all it has under ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "vectors.db"

    def reset(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def prepare(self, documents: Sequence[Document]) -> None:
        """Nothing: the documents are handed over."""


class FakeEncoder:
    """Makes :func:`vectors`, counts calls and texts; with ``dies`` it kills the process instead."""

    def __init__(self, dies: bool = False) -> None:
        self.calls = self.texts = 0
        self.dies = dies

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One unit vector a text, of shape (texts, 384)."""
        if self.dies:
            die()
        self.calls += 1
        self.texts += len(texts)
        return vectors(texts)


def die() -> None:
    """End this process at once: no handler runs, no buffer is written."""
    os._exit(KILLED)


KILLED = 86
"""Exit code of :func:`die`."""


def verdict(stored: Iterable[Row], truth: Sequence[Document]) -> dict[str, int]:
    """Documents of ``truth`` that the store holds wrongly, by how; empty if every one is right.

    ``missing``: no row. ``stale``: no row has its vector. ``double``: more rows than one. ``old_tag``: right vector,
    old metadata. ``orphan``: rows of no document of ``truth``.
    """
    rows: dict[str, list[Row]] = {}
    for row in stored:
        rows.setdefault(row.id, []).append(row)
    found = {"missing": 0, "stale": 0, "double": 0, "old_tag": 0, "orphan": 0}
    expected = vectors([document.text for document in truth])
    for document, vector in zip(truth, expected, strict=True):
        held = rows.pop(document.id, [])
        right = [row for row in held if float(row.vector @ vector) > SAME]
        found["missing"] += not held
        found["stale"] += bool(held) and not right
        found["double"] += len(held) > 1
        found["old_tag"] += bool(right) and all(row.tag != document.tag for row in right)
    found["orphan"] = sum(len(held) for held in rows.values())
    return {name: count for name, count in found.items() if count}
