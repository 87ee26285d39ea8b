"""From a query and its candidate pins to the head's feature matrix: the one function of training, evaluation, serving.

Everything in a row depends on that query and that pin alone, never on the other candidates, so a pair scores the same
in a list of 5 and in a list of 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feature_repo.lexical import FEATURE_NAMES, LEXICAL_FIELDS, LexicalStatistics, lexical_features
from feature_repo.switchboard import lexical_off, rates_off

Matrix = NDArray[np.float32]

TOWER_PRODUCT = "tower_product_"
"""Prefix of the columns query[i] * pin[i]; they are one block: one penalty in training, one name in explanations."""

SCALAR_NAMES = (
    "cosine",
    *FEATURE_NAMES,
    "query_rarity_unmatched",
    "cosine_and_title_match",
    "click_rate",
    "save_rate",
    "no_vector",
    *(f"no_{name}" for name in LEXICAL_FIELDS),
    "no_engagement",
)
"""All columns but the products:

``cosine``                  of query and pin vector (-1 to 1)
lexical columns             see :data:`feature_repo.lexical.features.FEATURE_NAMES`
``query_rarity_unmatched``  ``query_rarity`` x (1 - ``weighted_match_all``): how much the query says that the pin lacks
``cosine_and_title_match``  ``cosine`` x ``match_title``: near in meaning and in words at once
``click_rate, save_rate``   smoothed engagement rates (0 to 1)
``no_<part>``               1 where that part of the pin is missing, else 0
"""


@dataclass(frozen=True)
class RelevanceInputs:
    """One query and n candidate pins, as stored. None for a whole part, or NaN in a row, means missing."""

    query: str
    query_vector: NDArray[np.floating] | None
    """[d] unit vector; all pairs lack tower features without it."""
    pin_vectors: NDArray[np.floating]
    """[n, d] unit rows; a row with NaN is a pin without vector."""
    blobs: Sequence[bytes | None]
    """n lexical blobs."""
    click_rate: NDArray[np.floating] | None = None
    """[n]"""
    save_rate: NDArray[np.floating] | None = None
    """[n]"""
    without: Sequence[str] = ()
    """Sources of :data:`feature_repo.switchboard.SOURCES` that are off: their tokens and rates count as missing."""
    lexical: NDArray[np.float32] | None = None
    """[n, L] what :func:`feature_repo.lexical.lexical_features` gives of query and ``blobs``, where it is at hand."""


@lru_cache(maxsize=16)
def feature_names(dimension: int) -> tuple[str, ...]:
    """Names of the columns of :func:`relevance_features` for towers of ``dimension``."""
    return SCALAR_NAMES + tuple(f"{TOWER_PRODUCT}{index:03d}" for index in range(dimension))


def relevance_features(inputs: RelevanceInputs, statistics: LexicalStatistics | None) -> tuple[Matrix, tuple[str, ...]]:
    """Features of n pairs, float32 [n, F], and their names.

    Missing values are NaN here and neutral in the head (see :class:`embedders.student.RelevanceHead`); the ``no_*``
    columns tell it which they were.

    :param statistics: None masks every lexical column, as serving does when snapshot and blobs differ in version.
    :raises LexicalVersionError, LexicalBlobError: as :func:`feature_repo.lexical.lexical_features`.
    """
    rows, dimension = inputs.pin_vectors.shape
    names = feature_names(dimension)
    out = np.empty((rows, len(names)), dtype=np.float32)
    products = out[:, len(SCALAR_NAMES) :]
    out[:, : len(SCALAR_NAMES)] = np.nan
    if inputs.query_vector is None:
        products[:] = np.nan
    else:
        np.multiply(inputs.pin_vectors, inputs.query_vector, out=products, casting="same_kind")
        out[:, _AT["cosine"]] = products.sum(axis=1)
    if inputs.lexical is not None:
        out[:, _LEXICAL] = inputs.lexical
    elif statistics is not None:
        out[:, _LEXICAL], _ = lexical_features(inputs.query, inputs.blobs, statistics, lexical_off(inputs.without))
    for name, rate in (("click_rate", inputs.click_rate), ("save_rate", inputs.save_rate)):
        if rate is not None and name not in rates_off(inputs.without):
            out[:, _AT[name]] = rate
    unmatched = 1 - out[:, _AT["weighted_match_all"]]
    out[:, _AT["query_rarity_unmatched"]] = out[:, _AT["query_rarity"]] * unmatched
    out[:, _AT["cosine_and_title_match"]] = out[:, _AT["cosine"]] * out[:, _AT["match_title"]]
    for mask, source in _MASKS.items():
        out[:, _AT[mask]] = np.isnan(out[:, _AT[source]])
    return out, names


_AT = {name: column for column, name in enumerate(SCALAR_NAMES)}
_LEXICAL = slice(1, 1 + len(FEATURE_NAMES))
_MASKS = {
    "no_vector": "cosine",
    **{f"no_{name}": f"match_{name}" for name in LEXICAL_FIELDS},
    "no_engagement": "click_rate",
}
