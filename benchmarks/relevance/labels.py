"""The teacher's labels of training pairs, kept between runs: labelling is the dearest step of the tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import xxhash

from benchmarks.relevance.vectors import WORK
from embedders.evaluation.metrics import Floats
from embedders.evaluation.pairs import PairSet
from feature_repo.pin_text import PinTextTemplate

CHUNK = 16_384
"""Pairs that are labelled before the file is written again."""


class Labeller(Protocol):
    """What of :class:`embedders.teacher.Teacher` is used here."""

    fingerprint: str
    template: PinTextTemplate

    def probabilities(self, queries: Sequence[str], texts: Sequence[str]) -> Floats:
        """[n, 5] of n pairs."""
        ...


def soft_labels(
    teacher: Labeller, pairs: PairSet, template: PinTextTemplate | None = None, folder: Path | None = None
) -> Floats:
    """The teacher's probabilities of every pair, [n, 5]; a pair that it has labelled before is read back.

    :param template: the pin text that it is shown; None: the one that it was trained with.
    """
    path = (folder or WORK / "labels") / f"{teacher.fingerprint}.npz"
    known: dict[bytes, np.ndarray] = {}
    if path.is_file():
        with np.load(path) as kept:
            known = dict(zip(kept["keys"].tolist(), kept["labels"], strict=True))
    texts = [(template or teacher.template).render(pin).text for pin in pairs.pins]
    asked = [(query, texts[pin]) for query, pin in zip(pairs.queries, pairs.pin_of, strict=True)]
    keys = [xxhash.xxh3_128_hexdigest(f"{query}\x1f{text}".encode()).encode() for query, text in asked]
    new = {key: pair for key, pair in zip(keys, asked, strict=True) if key not in known}
    for start in range(0, len(new), CHUNK):  # so that a run that is ended keeps what it has
        some = list(new)[start : start + CHUNK]
        queries, shown = zip(*(new[key] for key in some), strict=True)
        known.update(zip(some, teacher.probabilities(queries, shown), strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{os.getpid()}.npz")
        np.savez(unfinished, keys=np.array(list(known)), labels=np.array(list(known.values())))
        os.replace(unfinished, path)
    return np.array([known[key] for key in keys], dtype=np.float64).reshape(len(keys), 5)
