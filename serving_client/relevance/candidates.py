"""The candidates of a request as arrays: their vectors, and what the view ``pin_relevance`` holds of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from materialize.spaces import Space
from materialize.stores.columns import Arrays, Kind
from materialize.stores.layout import decode_feature, feature_path, point_ids
from materialize.stores.port import Point
from serving_client.degraded import UnavailableError, note, reason
from serving_client.publications.publications import Publication
from serving_client.stages import stage

_VIEW = "pin_relevance"
_FEATURES = {"tokens": "bytes", "click_rate": "float32", "save_rate": "float32"}


@dataclass(frozen=True)
class Candidates:
    """n pins as the store has them."""

    pin_ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    """[n, d]; a row of NaN where there is no vector; d is 0 without a space."""
    blobs: list[bytes | None]
    click_rate: NDArray[np.float32]
    """[n]; NaN where unknown, as in ``save_rate``."""
    save_rate: NDArray[np.float32]
    found: NDArray[np.bool_]
    """[n] True where there is a vector or a relevance row."""


def read_candidates(
    publication: Publication,
    space: Space | None,
    pin_ids: Sequence[str],
    vectors: NDArray[np.float32] | None = None,
) -> Candidates:
    """One read of the relevance rows and one of the vectors, unless ``vectors`` are at hand already.

    Where the rows cannot be read the vectors must do, and the answer says so.

    :raises UnavailableError: if the vectors cannot be read, or there are none and the rows cannot.
    """
    with stage("store"):
        if vectors is None and space is not None:
            vectors = publication.vectors(space, pin_ids)
        if vectors is None:
            vectors = np.zeros((len(pin_ids), 0), dtype=np.float32)
        try:
            rows = publication.pin_columns(relevance_kind(publication.project), pin_ids)
        except UnavailableError as error:
            if not vectors.shape[1]:
                raise
            note(reason(error.code, "words and counts of the pins cannot be read; scored without"))
            rows = _relevance([None] * len(pin_ids))
    found = rows["found"]
    if vectors.shape[1]:
        found = found | ~np.isnan(vectors[:, 0])
    return Candidates(tuple(pin_ids), vectors, rows["tokens"].tolist(), rows["click_rate"], rows["save_rate"], found)


@lru_cache(maxsize=16)
def relevance_kind(project: str) -> Kind:
    """How the rows of ``pin_relevance`` are read."""
    return Kind(
        f"relevance of {project}",
        lambda pin_ids: point_ids(project, _VIEW, "pin_id", pin_ids),
        [feature_path(name) for name in _FEATURES],
        False,
        _relevance,
    )


def _relevance(points: Sequence[Point | None]) -> Arrays:
    values = {name: decode_feature(points, name, kind) for name, kind in _FEATURES.items()}
    return {
        "found": np.array([point is not None for point in points], dtype=np.bool_),
        "tokens": np.fromiter(values["tokens"], dtype=object, count=len(points)),
        "click_rate": np.array(values["click_rate"], dtype=np.float32),
        "save_rate": np.array(values["save_rate"], dtype=np.float32),
    }
