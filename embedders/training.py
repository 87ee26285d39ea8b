"""From pairs to the features that heads are trained on, and a student's answer for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.bundle import BundleError, StudentBundle
from embedders.encoder import Encoder, as_stored
from embedders.evaluation.folds import query_groups
from embedders.evaluation.metrics import Floats, Ints, expected_level
from embedders.evaluation.pairs import PairSet
from embedders.relevance import RelevanceInputs, feature_names, relevance_features
from feature_repo.lexical import LexicalStatistics, bm25_ranking
from feature_repo.pin_text import PinTextTemplate
from feature_repo.switchboard import checked, lexical_off, template_without

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class PairFeatures:
    """Everything scorers need of n pairs."""

    matrix: NDArray[np.float32]
    """[n, F] of :func:`embedders.relevance.relevance_features`."""
    names: tuple[str, ...]
    bm25: NDArray[np.float32]
    """[n]"""
    groups: Ints
    """[n] number of the canonical query."""
    query_vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Canonical query to its vector [d], for the same pairs with other sources."""
    pin_vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """[P, d] of the pins, likewise."""

    @property
    def cosine(self) -> Floats:
        """[n]; -1 where a vector is missing, so that such a pair ranks last."""
        return np.nan_to_num(self.matrix[:, self.names.index("cosine")], nan=-1.0)


def fit_statistics(pairs: PairSet, without: Sequence[str] = ()) -> LexicalStatistics:
    """A statistics snapshot over the distinct pins of the pairs, for pairs that come without a catalogue.

    :param without: sources that are off.
    """
    return LexicalStatistics.fit(pairs.with_blobs().blobs or (), lexical_off(without))


def encode_pairs(
    pairs: PairSet,
    encoder: Encoder,
    template: PinTextTemplate,
    progress: Progress | None = None,
    pin_encoder: Encoder | None = None,
) -> tuple[list[str], Ints, NDArray[np.float32], NDArray[np.float32]]:
    """Canonical queries, each pair's query number, query vectors [Q, d] and pin vectors [P, d] as stored.

    Each distinct text is encoded once. A pin without any text has no vector (NaN), nor has an empty query.
    """
    names, groups = query_groups(pairs.queries)
    query_vectors = encoded(names, encoder, progress)
    if pairs.pin_vectors is not None:
        return names, groups, query_vectors, np.asarray(pairs.pin_vectors, dtype=np.float32)
    texts = [template.render(pin).text for pin in pairs.pins]
    return names, groups, query_vectors, encoded(texts, pin_encoder or encoder, progress)


def pair_features(
    pairs: PairSet,
    encoder: Encoder,
    template: PinTextTemplate,
    statistics: LexicalStatistics,
    progress: Progress | None = None,
    without: Sequence[str] = (),
    pin_encoder: Encoder | None = None,
) -> PairFeatures:
    """Features of all pairs, query by query, through the function that serving uses.

    :param encoder: the query tower, and the pin tower where ``pin_encoder`` is None.
    :param without: sources whose tokens and rates count as missing; the words of the pin text are up to ``template``
        and the vectors of the pairs.
    :param progress: called with the number of texts encoded since the last call.
    """
    pairs = pairs.with_blobs()
    queries, groups, query_vectors, pin_vectors = encode_pairs(pairs, encoder, template, progress, pin_encoder)
    names = feature_names(pin_vectors.shape[1])
    matrix = np.empty((len(pairs), len(names)), dtype=np.float32)
    bm25 = np.empty(len(pairs), dtype=np.float32)
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else ():
        pins, query = pairs.pin_of[rows], int(groups[rows[0]])
        blobs = [(pairs.blobs or ())[pin] for pin in pins]
        inputs = RelevanceInputs(
            query=queries[query],
            query_vector=query_vectors[query],
            pin_vectors=pin_vectors[pins],
            blobs=blobs,
            click_rate=None if pairs.click_rate is None else pairs.click_rate[pins],
            save_rate=None if pairs.save_rate is None else pairs.save_rate[pins],
            without=without,
        )
        matrix[rows], _ = relevance_features(inputs, statistics)
        bm25[rows] = bm25_ranking(queries[query], blobs, statistics, lexical_off(without))
    return PairFeatures(matrix, names, bm25, groups, dict(zip(queries, query_vectors, strict=True)), pin_vectors)


def score_pairs(
    pairs: PairSet,
    bundle: StudentBundle,
    encoder: Encoder,
    progress: Progress | None = None,
    features: PairFeatures | None = None,
) -> NDArray[np.float64]:
    """P(level 1) to P(level 5) of every pair, [n, 5], in the order of the pairs.

    :param features: those of :func:`pair_features` with the bundle's template, statistics and ``without``, if they were
        made before.
    :raises BundleError: if the encoder is not the model that the bundle was trained with.
    """
    if encoder.fingerprint != bundle.manifest.query_tower:
        raise BundleError(
            f"Bundle {bundle.manifest.name} reads vectors of the model {bundle.manifest.query_tower}, but the encoder "
            f"is {encoder.fingerprint}: load the bundle's model, or train a student for this one."
        )
    features = features or bundle_features(pairs, bundle, encoder, progress)
    return bundle.head.probabilities(features.matrix)


def bundle_features(
    pairs: PairSet,
    bundle: StudentBundle,
    encoder: Encoder,
    progress: Progress | None = None,
    without: Sequence[str] = (),
    pin_encoder: Encoder | None = None,
) -> PairFeatures:
    """What the head of ``bundle`` reads of the pairs, by ``encoder`` as query tower.

    :param pin_encoder: the pin tower; default is the bundle's, where it is another one than ``encoder``.
    :param without: sources to mask, with those that the bundle was trained without; the pin text loses them too.
    :raises BundleError: if the pin tower is another model that the bundle does not hold, and the pairs lack vectors.
    """
    manifest = bundle.manifest
    apart = manifest.pin_tower != manifest.query_tower and pairs.pin_vectors is None and pin_encoder is None
    return pair_features(
        pairs,
        encoder,
        template_without(bundle.template, without),
        bundle.statistics,
        progress,
        checked({*without, *manifest.without}),
        bundle.encoder("pin", encoder.recipe.device) if apart else pin_encoder,
    )


def score_columns(pairs: PairSet, probabilities: Floats) -> dict[str, list[Any]]:
    """Columns of ``evaluate --scores``: query, title, the five probabilities and the expected level, in file order."""
    titles = [pairs.pins[pin].title for pin in pairs.pin_of]
    columns: dict[str, list[Any]] = {"query": list(pairs.queries), "title": titles}
    for level in range(1, 6):
        columns[f"probability_{level}"] = [float(value) for value in probabilities[:, level - 1]]
    columns["expected_level"] = [float(value) for value in expected_level(probabilities)]
    return columns


def encoded(texts: Sequence[str], encoder: Encoder, progress: Progress | None = None) -> NDArray[np.float32]:
    """Vectors of ``texts`` as stored [n, d], NaN rows for empty ones; equal texts are encoded once."""
    distinct = list(dict.fromkeys(text for text in texts if text))
    numbers = {text: number for number, text in enumerate(distinct)}
    rows = np.full((len(texts), encoder.dimension), np.nan, dtype=np.float32)
    if distinct:
        vectors = as_stored(encoder.encode(distinct, progress))
        for row, text in enumerate(texts):
            if text:
                rows[row] = vectors[numbers[text]]
    return rows
