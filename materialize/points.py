"""Vectors of pins as points of a space and entries of its ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from materialize.ledger import SCHEMA
from materialize.payload_fields import PAYLOAD_INDEXES
from materialize.plan import PinChange
from materialize.releases import LIVE_EMBEDDING
from materialize.spaces import Space
from materialize.stores.layout import point_id, row_payload, to_micros
from materialize.stores.port import DEFAULT_VECTOR, CollectionSpec, Point, VectorSpec
from materialize.words import WORDS, pin_words


def space_spec(space: Space, payload: Collection[str] = tuple(PAYLOAD_INDEXES)) -> CollectionSpec:
    """What the collection of a space is made with.

    :param payload: the fields that its points have: an index of another would say that one can filter by it.
    """
    sparse = (WORDS,) if space.words else ()
    vector = VectorSpec(space.dimension, half=space.words)  # a space from before there were words has neither
    return CollectionSpec(
        {DEFAULT_VECTOR: vector},
        sparse,
        indexes={name: kind for name, kind in PAYLOAD_INDEXES.items() if name in payload},
    )


def pin_point_id(project: str, pin_id: str) -> str:
    """Id of a pin's point, the same in every space: so a promotion rewrites no point."""
    return point_id(project, LIVE_EMBEDDING, {"pin_id": pin_id})


def pin_point(
    project: str, space: Space, change: PinChange, vector: npt.NDArray[np.float32], created: datetime
) -> Point:
    """The point of a pin: its vector, and payload and words of its present row."""
    payload = row_payload(
        LIVE_EMBEDDING,
        {"pin_id": change.pin_id},
        to_micros(change.event_timestamp),
        {},
        created_ts=to_micros(created),
        extras={
            **change.payload,
            "text_fp": change.text_fp.hex() if change.text_fp else None,
            "payload_fp": str(change.payload_fp),
            "model": space.model_fingerprint,
        },
    )
    words = pin_words(change.blob) if change.blob else None
    sparse = {WORDS: words} if words else {}
    return Point(pin_point_id(project, change.pin_id), payload, {DEFAULT_VECTOR: vector}, sparse)


def ledger_entries(batch: Sequence[PinChange]) -> pa.Table:
    """What the ledger keeps of written changes."""
    columns: dict[str, list[Any]] = {
        "key": [change.pin_id for change in batch],
        "raw": [change.raw for change in batch],
        "text_fp": [change.text_fp for change in batch],
        "payload_fp": [change.payload_fp for change in batch],
        "event_timestamp": [change.event_timestamp for change in batch],
    }
    return pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})
