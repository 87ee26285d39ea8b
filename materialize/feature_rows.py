"""Online rows of feature views, kept equal to their sources by the same ledger that keeps vectors."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import Ledger
from materialize.scan import WRITTEN, FeatureScan
from materialize.stores.layout import encode_value, entity_collection, point_id, row_payload, to_micros
from materialize.stores.port import CollectionSpec, Point, VectorStore


def write_feature_rows(
    con: Any, definitions: RepoDefinitions, ledger: Ledger, store: VectorStore, run: int
) -> dict[str, dict[str, int]]:
    """Bring every online feature view up to date in ``store``; rows changed and gone, by view."""
    known = {f"view:{view.name}" for view in definitions.feature_views()}
    for space in ledger.spaces():
        if space.startswith("view:") and space not in known:
            ledger.forget(space)
    return {
        view.name: _write_view(con, definitions.project, view, ledger, store, run)
        for view in definitions.feature_views()
    }


def _write_view(
    con: Any, project: str, view: ViewDefinition, ledger: Ledger, store: VectorStore, run: int
) -> dict[str, int]:
    space = f"view:{view.name}"
    collection = entity_collection(project, view.join_keys)
    store.create(collection, CollectionSpec())
    entries = ledger.entries(space)
    scan = FeatureScan(con, view, entries)
    rewrite = entries.num_rows > 0 or store.count(collection) > 0  # an empty store holds no newer row to keep
    for batch in scan.changes():
        _write_batch(project, scan, batch, store, collection, keep_newer=rewrite)
        ledger.write(space, run, _entries(batch))
    if scan.gone:
        ids = [point_id(project, view.name, scan.source.entity(key)) for key in scan.gone]
        store.delete(collection, ids=ids)
        ledger.remove(space, run, scan.gone)
    ledger.fold(space)
    return {"changed": scan.changed, "gone": len(scan.gone)}


def _write_batch(
    project: str, scan: FeatureScan, batch: pa.RecordBatch, store: VectorStore, collection: str, *, keep_newer: bool
) -> None:
    """Upsert a batch; a row that was pushed with a newer event timestamp stays: the newer one wins online.

    A source may go back in time, as when the latest event behind an aggregate is deleted. So a stored row counts as
    pushed only if it is newer than the source and than what was written last.
    """
    rows = batch.to_pylist()
    points = [_point(project, scan, row) for row in rows]
    if keep_newer:
        stored = store.get_many(collection, [point.id for point in points], with_payload=["event_ts"])
        points = [
            point
            for row, point, old in zip(rows, points, stored, strict=True)
            if old is None or old.payload.get("event_ts", 0) <= _newest(row)
        ]
    store.upsert(collection, points)


def _newest(row: dict[str, Any]) -> int:
    return to_micros(max(row["event_timestamp"], row[WRITTEN] or row["event_timestamp"]))


def _point(project: str, scan: FeatureScan, row: dict[str, Any]) -> Point:
    view = scan.source.view
    entity = scan.source.entity(row["key"])
    features = {name: encode_value(row[name], kind) for name, kind in view.features.items() if row[name] is not None}
    payload = row_payload(
        project, view.name, entity, to_micros(row["event_timestamp"]), features, extras={"fp": str(row["raw"])}
    )
    return Point(point_id(project, view.name, entity), payload)


def _entries(batch: pa.RecordBatch) -> pa.Table:
    rows = batch.num_rows
    return pa.table(
        {
            "key": batch["key"],
            "raw": batch["raw"],
            "text_fp": pa.nulls(rows, pa.binary(16)),
            "payload_fp": pa.nulls(rows, pa.uint64()),
            "event_timestamp": batch["event_timestamp"],
        }
    )
