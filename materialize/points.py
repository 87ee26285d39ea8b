"""Vectors of pins as points of a space and entries of its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from materialize.ledger import SCHEMA
from materialize.plan import PinChange
from materialize.releases import LIVE_EMBEDDING
from materialize.sources import PAYLOAD_INDEXES
from materialize.spaces import Space
from materialize.stores.layout import point_id, row_payload, to_micros
from materialize.stores.port import DEFAULT_VECTOR, CollectionSpec, Point, VectorSpec


def space_spec(space: Space) -> CollectionSpec:
    """What the collection of a space is made with."""
    return CollectionSpec({DEFAULT_VECTOR: VectorSpec(space.dimension)}, indexes=PAYLOAD_INDEXES)


def pin_point_id(project: str, pin_id: str) -> str:
    """Id of a pin's point, the same in every space: so a promotion rewrites no point."""
    return point_id(project, LIVE_EMBEDDING, {"pin_id": pin_id})


def pin_point(
    project: str, space: Space, change: PinChange, vector: npt.NDArray[np.float32], created: datetime
) -> Point:
    """The point of a pin: its vector, and the payload of its present row."""
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
    return Point(pin_point_id(project, change.pin_id), payload, {DEFAULT_VECTOR: vector})


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
