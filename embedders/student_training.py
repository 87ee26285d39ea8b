"""The student as a whole: towers (v2) or precomputed vectors (v1), the head on them, one bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.bundle import StudentBundle
from embedders.encoder import Encoder, load_encoder
from embedders.evaluation.metrics import LEVELS, Floats
from embedders.evaluation.pairs import PairSet
from embedders.student import RelevanceHead, train_head
from embedders.tower_training import TowerTraining, train_towers
from embedders.training import PairFeatures, encode_pairs, fit_statistics, pair_features
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate

Tell = Callable[[str], None]

NEW_PIN = ("boards", "queries", "engagement")
"""Sources that a pin does not have on its first day."""


def mixed(people: PairSet, labels: Floats, share: float) -> PairSet:
    """Pairs that people judged, aiming at ``share`` of their levels and the rest of the teacher's ``labels`` [n, 5].

    :raises UsageError: for a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share of human labels is {share}, which is not between 0 and 1.")
    return replace(people, targets=share * people.require_targets() + (1 - share) * np.asarray(labels))


def together(name: str, *parts: PairSet) -> PairSet:
    """The pairs of several sets one after another, each with its own pins; blobs, vectors and rates if all have them.

    :raises PinfeatherError: if a set has neither targets nor levels, or there is no set.
    """
    if not parts:
        raise PinfeatherError("There are no pairs to train on: judge some, or label some with `pinfeather label`.")
    starts = np.cumsum([0, *(len(part.pins) for part in parts[:-1])])
    kept: dict[str, Any] = {}
    for key in ("pin_vectors", "click_rate", "save_rate"):
        if all(getattr(part, key) is not None for part in parts):
            kept[key] = np.concatenate([getattr(part, key) for part in parts])
    if all(part.blobs is not None for part in parts):
        kept["blobs"] = tuple(blob for part in parts for blob in part.blobs or ())
    if all(part.levels is not None for part in parts):
        kept["levels"] = np.concatenate([part.require_levels() for part in parts])
    return PairSet(
        name,
        tuple(query for part in parts for query in part.queries),
        tuple(pin for part in parts for pin in part.pins),
        np.concatenate([part.pin_of + start for part, start in zip(parts, starts, strict=True)]),
        targets=np.concatenate([part.require_targets() for part in parts]),
        weights=np.concatenate([np.ones(len(part)) if part.weights is None else part.weights for part in parts]),
        source=", ".join(dict.fromkeys(part.source or part.name for part in parts)),
        **kept,
    )


def fit_head(
    pairs: PairSet,
    features: PairFeatures,
    masked: Callable[[PairSet, Sequence[str]], PairFeatures],
    dropout: float = 0.2,
    seed: int = 0,
) -> RelevanceHead:
    """A head on the features, which also saw some pairs as if sources or vectors were missing.

    A share ``dropout`` of the pairs is added once more: half of it without :data:`NEW_PIN`, a quarter without
    vectors, a quarter without any word. So a pin without them scores by what it has, instead of by numbers that the
    head never saw missing.

    :param masked: features of some pairs with sources off.
    :raises UsageError: for a share outside 0..1.
    """
    if not 0 <= dropout <= 1:
        raise UsageError(f"The share of pairs with missing features is {dropout}, which is not between 0 and 1.")
    targets = pairs.require_targets()
    matrices, wanted, groups = [features.matrix], [targets], [features.groups]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[: int(dropout * len(pairs))]
    parts = np.split(np.sort(chosen), [len(chosen) // 2, len(chosen) * 3 // 4])
    for rows, without in zip(parts, (NEW_PIN, (), ("title", "description", *NEW_PIN)), strict=True):
        if not len(rows):
            continue
        some = pairs.subset(rows)
        if not without and some.pin_vectors is not None:
            some = replace(some, pin_vectors=np.full_like(some.pin_vectors, np.nan))
        matrices.append(masked(some, without).matrix)
        wanted.append(targets[rows])
        groups.append(features.groups[rows])
    return train_head(np.concatenate(matrices), np.concatenate(wanted), features.names, np.concatenate(groups), seed)


def train_student_bundle(
    pairs: PairSet,
    folder: str | Path,
    name: str | None = None,
    template: PinTextTemplate = DEFAULT_TEMPLATE,
    statistics: LexicalStatistics | None = None,
    towers: TowerTraining | None = None,
    encoder: Encoder | None = None,
    spaces: Sequence[str] = (),
    pin_tower: str | None = None,
    without: Sequence[str] = (),
    dropout: float = 0.2,
    seed: int = 0,
    report: Mapping[str, Any] | None = None,
    features: PairFeatures | None = None,
    device: str = "auto",
    precision: str = "auto",
    tell: Tell | None = None,
) -> StudentBundle:
    """Train a student on pairs with targets and write its bundle to ``folder``.

    :param statistics: of the catalogue; None fits them on the pins of the pairs.
    :param towers: how towers are trained (v2); None takes the vectors as they are (v1).
    :param encoder: the model of v1's vectors; default is the packaged one.
    :param spaces: what v1 reads; ``pin_tower`` is the fingerprint of the model of their vectors (default: ``encoder``).
    :param without: sources that are off for good.
    :param dropout: see :func:`fit_head`.
    :param features: of v1's pairs, which then hold their vectors, if they were made before.
    :param report: more keys for the manifest's ``training``.
    :raises PinfeatherError: as :func:`embedders.tower_training.train_towers`.
    """
    folder, tell = Path(folder), tell or (lambda _: None)
    statistics = statistics or fit_statistics(pairs, without)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.towers")
    places: dict[str, Path] | None = None
    query_encoder = pin_encoder = encoder
    if towers is not None:
        places = train_towers(pairs, work, template, statistics, towers, device, precision, tell)
        pairs = replace(pairs, pin_vectors=None)
        query_encoder = load_encoder(places["query"], device, precision)
        same = places["query"] == places["pin"]
        pin_encoder = query_encoder if same else load_encoder(places["pin"], device, precision)
    query_encoder = query_encoder or load_encoder("packaged", device, precision)
    pin_encoder = pin_encoder or query_encoder
    if features is None or towers is not None:
        tell("vectors of all texts")
        queries, _, query_vectors, pin_vectors = encode_pairs(pairs, query_encoder, template, pin_encoder=pin_encoder)
        pairs, features = replace(pairs, pin_vectors=pin_vectors), None
        known = _KnownVectors(dict(zip(queries, query_vectors, strict=True)), query_encoder)
    else:
        known = _KnownVectors(features.query_vectors, query_encoder)

    def features_of(some: PairSet, more: Sequence[str] = ()) -> PairFeatures:
        return pair_features(some, known, template, statistics, without=tuple(dict.fromkeys([*without, *more])))

    features = features or features_of(pairs)
    tell("head")
    head = fit_head(pairs, features, features_of, dropout, seed)
    levels = pairs.levels if pairs.levels is not None else pairs.require_targets().argmax(axis=1) + 1
    training = {
        "pairs": len(pairs),
        "queries": int(features.groups.max()) + 1,
        "levels": {str(level): int((levels == level).sum()) for level in range(1, LEVELS + 1)},
        "seed": seed,
        "dropout": dropout,
        "source": pairs.source or pairs.name,
        "towers": asdict(towers) if towers else None,
        **(report or {}),
    }
    bundle = StudentBundle.make(
        name or folder.name,
        head,
        statistics,
        template,
        query_tower=None if places else query_encoder.fingerprint,
        spaces=tuple(spaces),
        metrics={},
        training=training,
        without=tuple(without),
        pin_tower=None if places else pin_tower,
        towers=places,
    )
    bundle.save(folder)
    if places:
        shutil.rmtree(work, ignore_errors=True)
    return StudentBundle.load(folder)


class _KnownVectors:
    """Vectors of queries that were encoded already, as an encoder."""

    def __init__(self, vectors: Mapping[str, NDArray[np.float32]], encoder: Encoder) -> None:
        self._vectors = vectors
        self.dimension, self.fingerprint, self.recipe = encoder.dimension, encoder.fingerprint, encoder.recipe

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Unit vectors [n, d]."""
        return np.array([self._vectors[text] for text in texts], np.float32).reshape(len(texts), self.dimension)
