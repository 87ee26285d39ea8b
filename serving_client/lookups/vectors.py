"""Vectors of pins as they are stored, with the time of what each says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from materialize.spaces import Space
from materialize.stores.port import DEFAULT_VECTOR
from serving_client.answers import Embeddings
from serving_client.publications.publications import Publication
from serving_client.stages import stage


def pin_vectors(publication: Publication, space: Space, pin_ids: Sequence[str]) -> Embeddings:
    """The vectors of ``pin_ids`` in ``space``, in their order."""
    with stage("store"):
        columns = publication.vector_columns(space, pin_ids)
    vectors = columns[DEFAULT_VECTOR]
    found = ~np.isnan(vectors[:, 0])
    return Embeddings(tuple(pin_ids), vectors, found, space.name, space.model_fingerprint, columns["event_ts"])
