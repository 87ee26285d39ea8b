"""The student as a whole: towers (v2) or precomputed vectors (v1), the head on them, one bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedders.bundle import StudentBundle
from embedders.encoder import Encoder, load_encoder
from embedders.evaluation.metrics import LEVELS, Floats, Ints
from embedders.evaluation.pairs import PairSet
from embedders.student_head import DROPOUT, SEEN_PENALTY, HeadTrainer
from embedders.tower_folder import model_fingerprint
from embedders.tower_training import TowerTraining, forget_towers, train_towers
from embedders.training import PairFeatures, fit_statistics, pair_features
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields, PinTextTemplate

Tell = Callable[[str], None]


def mixed(people: PairSet, labels: Floats, share: float) -> PairSet:
    """Pairs that people judged, aiming at ``share`` of their levels and the rest of the teacher's ``labels`` [n, 5].

    :raises UsageError: for a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share of human labels is {share}, which is not between 0 and 1.")
    return replace(people, targets=share * people.require_targets() + (1 - share) * np.asarray(labels))


def together(name: str, *parts: PairSet) -> PairSet:
    """The pairs of several sets one after another; blobs, vectors and rates of their pins if all have them.

    A pin of which all of that is alike counts once: as two pins it would be held against itself in training.

    :raises PinfeatherError: if a set has neither targets nor levels, or there is no set.
    """
    if not parts:
        raise PinfeatherError("There are no pairs to train on: judge some, or label some with `pinfeather label`.")
    starts = np.cumsum([0, *(len(part.pins) for part in parts[:-1])])
    pin_of = np.concatenate([part.pin_of + start for part, start in zip(parts, starts, strict=True)])
    kept: dict[str, Any] = {}
    for key in ("pin_vectors", "click_rate", "save_rate"):
        if all(getattr(part, key) is not None for part in parts):
            kept[key] = np.concatenate([getattr(part, key) for part in parts])
    if all(part.blobs is not None for part in parts):
        kept["blobs"] = tuple(blob for part in parts for blob in part.blobs or ())
    pins = tuple(pin for part in parts for pin in part.pins)
    first, number = _first_of_each(pins, kept)
    kept = {key: tuple(value[row] for row in first) if key == "blobs" else value[first] for key, value in kept.items()}
    if all(part.levels is not None for part in parts):
        kept["levels"] = np.concatenate([part.require_levels() for part in parts])
    return PairSet(
        name,
        tuple(query for part in parts for query in part.queries),
        tuple(pins[row] for row in first),
        number[pin_of],
        targets=np.concatenate([part.require_targets() for part in parts]),
        weights=np.concatenate([np.ones(len(part)) if part.weights is None else part.weights for part in parts]),
        source=", ".join(dict.fromkeys(part.source or part.name for part in parts)),
        **kept,
    )


def _first_of_each(pins: Sequence[PinFields], known: Mapping[str, Any]) -> tuple[Ints, Ints]:
    """Rows of the distinct pins [D], and the number of each pin among them [P]; ``known`` is per pin."""
    rows = list(zip(pins, *(_comparable(values) for values in known.values()), strict=True))
    numbers: dict[Any, int] = {}
    number = np.array([numbers.setdefault(row, len(numbers)) for row in rows], dtype=np.int64)
    return np.unique(number, return_index=True)[1], number


def _comparable(values: Any) -> list[Any]:
    """One key a row: bytes, so that a missing value (NaN) equals another one."""
    return [row.tobytes() for row in values] if isinstance(values, np.ndarray) else list(values)


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
    dropout: float = DROPOUT,
    product_penalty: float | None = None,
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
    :param dropout: as ``product_penalty`` of :class:`embedders.student_head.HeadTrainer`; v2 has a penalty of its own.
    :param features: of v1's pairs, which then hold their vectors, if they were made before.
    :param report: more keys for the manifest's ``training``.
    :raises PinfeatherError: as :func:`embedders.tower_training.train_towers`.
    """
    folder, tell = Path(folder), tell or (lambda _: None)
    statistics = statistics or fit_statistics(pairs, without)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.towers")
    places = None
    if towers is not None:
        places = train_towers(pairs, work, template, statistics, towers, device, precision, tell, without, keep=True)
        pairs, features = replace(pairs, pin_vectors=None), None
    if features is None:
        tell("vectors of all texts")
        query, pin = _encoders(places, encoder, device, precision)
        features = pair_features(pairs, query, template, statistics, without=without, pin_encoder=pin)
    tell("head")
    product_penalty = SEEN_PENALTY if places else product_penalty
    trainer = HeadTrainer(pairs, features, statistics, without, dropout, seed, product_penalty)
    StudentBundle.make(
        name or folder.name,
        trainer.fit(),
        statistics,
        template,
        spaces=tuple(spaces),
        metrics={},
        training=_described(trainer, towers) | dict(report or {}),
        without=tuple(without),
        **_models(places, encoder, pin_tower),
    ).save(folder)
    forget_towers(work)
    return StudentBundle.load(folder)


def _encoders(
    places: Mapping[str, Path] | None, encoder: Encoder | None, device: str, precision: str
) -> tuple[Encoder, Encoder]:
    """The query and the pin tower: those that were trained, else ``encoder``, else the packaged model."""
    if places is None:
        one = encoder or load_encoder("packaged", device, precision)
        return one, one
    query = load_encoder(places["query"], device, precision)
    return query, query if places["query"] == places["pin"] else load_encoder(places["pin"], device, precision)


def _models(places: Mapping[str, Path] | None, encoder: Encoder | None, pin_tower: str | None) -> dict[str, Any]:
    """What a bundle says of its models: towers of its own, or fingerprints of those whose vectors it reads."""
    if places is not None:
        return {"query_tower": None, "towers": places}
    return {"query_tower": encoder.fingerprint if encoder else model_fingerprint(), "pin_tower": pin_tower}


def _described(trainer: HeadTrainer, towers: TowerTraining | None) -> dict[str, Any]:
    """What a bundle says of its training: the pairs and the settings."""
    pairs = trainer.pairs
    levels = pairs.levels if pairs.levels is not None else pairs.require_targets().argmax(axis=1) + 1
    return {
        "pairs": len(pairs),
        "queries": int(trainer.features.groups.max()) + 1,
        "levels": {str(level): int((levels == level).sum()) for level in range(1, LEVELS + 1)},
        "source": pairs.source or pairs.name,
        "seed": trainer.seed,
        "dropout": trainer.dropout,
        "product_penalty": trainer.product_penalty,
        "towers": asdict(replace(towers, learning_rate=towers.rate)) if towers else None,
    }
