"""What is known of a pair before anything reads the two texts together: the head over cosine and words.

The cross-encoder then learns what this prior gets wrong, so that a few thousand labels go into the words' interplay
instead of into learning again that equal words match. Its inputs are taken from the pin text alone, as the rest of the
teacher's: a label depends on query and text and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedders.bundle import StudentBundle
from embedders.evaluation.metrics import LEVELS, Floats
from embedders.evaluation.pairs import PairSet
from embedders.student import train_head
from embedders.training import encoded, fit_statistics, pair_features
from feature_repo.pin_text import PinFields, PinTextTemplate

if TYPE_CHECKING:
    from embedders.encoder import Encoder

FOLDER = "prior"
SEPARATOR = " | "
TEXT_ONLY = ("engagement",)
"""Sources that no label may depend on: clicks come from the ranking that the labels are to improve."""


class TeacherPrior:
    """Logits of a linear head over cosine, tower products and word matches of query and text."""

    def __init__(self, bundle: StudentBundle, encoder: Encoder) -> None:
        self.bundle, self._encoder = bundle, encoder

    @classmethod
    def fit(
        cls,
        queries: Sequence[str],
        texts: Sequence[str],
        targets: Floats,
        known: NDArray[np.bool_],
        encoder: Encoder,
        template: PinTextTemplate,
        seed: int = 0,
    ) -> tuple[TeacherPrior, Floats]:
        """A prior fitted on the pairs ``known`` [n] with their ``targets`` [n, 5], and its logits of all n pairs.

        Its word statistics are those of all texts.
        """
        pairs = _pairs(queries, texts, encoder)
        statistics = fit_statistics(pairs)
        features = pair_features(pairs, encoder, template, statistics, without=TEXT_ONLY)
        head = train_head(features.matrix[known], targets[known], features.names, features.groups[known], seed)
        training = {"pairs": int(known.sum()), "queries": len(set(queries)), "seed": seed, "source": "teacher"}
        bundle = StudentBundle.make(
            "prior", head, statistics, template, encoder.fingerprint, (), {}, training, without=TEXT_ONLY
        )
        return cls(bundle, encoder), head.logits(features.matrix)

    @classmethod
    def load(cls, folder: Path, model: str, device: str) -> TeacherPrior:
        """The prior in a teacher's folder.

        :raises BundleError: if a file was changed. :raises ModelFolderError: if its model is not there.
        """
        from embedders.encoder import load_encoder

        bundle = StudentBundle.load(folder)
        encoder = load_encoder(model, device=device, expected_fingerprint=bundle.manifest.query_tower)
        return cls(bundle, encoder)

    def save(self, folder: Path) -> None:
        """Write it as a bundle."""
        self.bundle.save(folder)

    def logits(self, queries: Sequence[str], texts: Sequence[str]) -> Floats:
        """[n, 5] of query and pin text."""
        if not len(queries):
            return np.zeros((0, LEVELS))
        pairs = _pairs(queries, texts, self._encoder)
        bundle = self.bundle
        features = pair_features(pairs, self._encoder, bundle.template, bundle.statistics, without=TEXT_ONLY)
        return bundle.head.logits(features.matrix)


def text_fields(text: str) -> PinFields:
    """A pin text taken apart again: what is before the first separator as title, the rest as description."""
    title, _, rest = text.partition(SEPARATOR)
    return PinFields(title=title or None, description=rest or None)


def _pairs(queries: Sequence[str], texts: Sequence[str], encoder: Encoder) -> PairSet:
    """Pairs over the distinct texts, with the vectors of the whole texts."""
    numbers: dict[str, int] = {}
    pin_of = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
    vectors = encoded(list(numbers), encoder)
    return PairSet("texts", tuple(queries), tuple(text_fields(text) for text in numbers), pin_of, pin_vectors=vectors)
