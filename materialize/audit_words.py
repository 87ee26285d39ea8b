"""The words of an audit: the sparse vector of each point of a space against those of its pin's present row.

No fingerprint in the store says what words a point holds, so they are made anew from the source, as a run makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from materialize.points import pin_point_id
from materialize.shards import TableEntries
from materialize.stores.errors import CollectionMissingError
from materialize.stores.points import SparseVector
from materialize.words import WORDS, pin_words

if TYPE_CHECKING:
    from materialize.audit import Check
    from materialize.plan import PinChange


def unbelieved(entries: pa.Table, keys: pa.Array) -> TableEntries:
    """The ledger's ``entries``, those of ``keys`` with a raw fingerprint that no row has: so a scan shows their rows.

    :param entries: sorted by hash, as the ledger gives them.
    """
    raw, chosen = entries["raw"].to_numpy(), pc.is_in(entries["key"], keys).to_numpy()
    altered = pa.array(np.where(chosen, raw ^ np.uint64(1), raw))
    return TableEntries(entries.set_column(entries.schema.get_field_index("raw"), "raw", altered))


def lost_words(check: Check, project: str, space: str, changes: Sequence[PinChange]) -> list[str]:
    """Those pins of ``changes`` whose points have not the words of their row.

    :param changes: of pins that were written last with the text and the payload that they have now.
    """
    try:
        stored = check.store.get_sparse(space, [pin_point_id(project, change.pin_id) for change in changes], WORDS)
    except CollectionMissingError:
        return []  # each pin is missing, and counted so
    expected = [pin_words(change.blob) if change.blob else None for change in changes]
    pairs = zip(changes, stored, expected, strict=True)
    return [change.pin_id for change, found, wanted in pairs if not _same(found, wanted)]


def _same(found: SparseVector | None, wanted: SparseVector | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return np.array_equal(found.indices, wanted.indices) and np.array_equal(found.values, wanted.values)
