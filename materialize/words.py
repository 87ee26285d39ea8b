"""The words of a pin as a sparse vector beside its embedding, so that the store finds pins by words too.

The words are the token ids of the pin's lexical blob (:mod:`feature_repo.lexical`), all fields that the space's
template reads taken as one document, in full: no budget of the template cuts them. A word's weight is BM25's saturation
with a fixed average length, as :mod:`materialize.stores.feast_text` has it; its rarity is the engine's share (Qdrant's
IDF modifier), counted over the points of the space. So no write changes the weights of other pins. The scores are good
for finding candidates; what ranks them is another's business.
"""

from __future__ import annotations

import numpy as np

from feature_repo.lexical import query_ids
from feature_repo.lexical.blobs import own_ids
from materialize.stores.feast_text import saturated
from materialize.stores.port import SparseVector

WORDS = "words"
"""Name of the sparse vector."""


def pin_words(blob: bytes) -> SparseVector | None:
    """The weights of a pin's words; None for a pin without any.

    :param blob: which :func:`feature_repo.lexical.encode_blob` has just made.
    """
    ids = own_ids(blob)
    if not len(ids):
        return None
    indices, counts = np.unique(ids, return_counts=True)
    return SparseVector(indices, saturated(counts, len(ids)).astype(np.float32))


def query_words(query: str) -> SparseVector | None:
    """The words of a query, each as often as it stands there; None for one without any."""
    ids = query_ids(query)
    if not len(ids):
        return None
    indices, counts = np.unique(ids, return_counts=True)
    return SparseVector(indices, counts.astype(np.float32))
