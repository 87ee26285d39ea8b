"""Online rows of feature views, kept equal to their sources by the same ledger that keeps vectors."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa

from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import Ledger
from materialize.reconcile import view_space
from materialize.scan import CREATED, WRITTEN, FeatureScan
from materialize.stores.errors import BadInputError, StoreError
from materialize.stores.layout import encode_value, entity_collection, entity_spec, point_id, row_payload, to_micros
from materialize.stores.port import Point, VectorStore

logger = logging.getLogger(__name__)


def write_feature_rows(
    con: Any, definitions: RepoDefinitions, ledger: Ledger, store: VectorStore, run: int, held: frozenset[str]
) -> dict[str, dict[str, int]]:
    """Bring every online feature view up to date in ``store``; rows changed, gone and rejected, by view.

    :param held: pins whose rows stay as they are although the source has none.
    """
    return {
        view.name: _write_view(con, definitions.project, view, ledger, store, run, held)
        for view in definitions.feature_views()
    }


def _write_view(
    con: Any, project: str, view: ViewDefinition, ledger: Ledger, store: VectorStore, run: int, held: frozenset[str]
) -> dict[str, int]:
    space = view_space(view)
    collection = entity_collection(project, view.join_keys)
    store.create(collection, entity_spec())
    entries = ledger.entries(space)
    scan = FeatureScan(con, view, entries, held)
    rewrite = entries.num_rows > 0 or store.count(collection) > 0  # an empty store holds no newer row to keep
    rejected = 0
    for batch in scan.changes():
        good, points = _points(project, scan, batch)
        rejected += batch.num_rows - good.num_rows
        times = zip(good["event_timestamp"].to_pylist(), good[WRITTEN].to_pylist(), strict=True)
        ledger.doubt(space, run, good["key"].to_pylist(), [max(now, then or now) for now, then in times])
        _write_batch(good, points, store, collection, keep_newer=rewrite)
        store.flush()
        ledger.write(space, run, _entries(good))
    if scan.gone:
        ledger.doubt(space, run, scan.gone, scan.gone_events)
        store.delete(collection, ids=[point_id(project, view.name, scan.source.entity(key)) for key in scan.gone])
        store.flush()
        ledger.remove(space, run, scan.gone)
    ledger.fold(space)
    return {"changed": scan.changed - rejected, "gone": len(scan.gone), "rejected": rejected}


def _points(project: str, scan: FeatureScan, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Point]]:
    """The rows of ``batch`` that the view's types can hold, and their points."""
    points, good = [], []
    for place, row in enumerate(batch.to_pylist()):
        try:
            points.append(_point(project, scan, row))
            good.append(place)
        except StoreError as error:
            name, key = scan.source.view.name, row["key"]
            logger.warning("feature view %s, key %s: %s The row keeps its last value online.", name, key, error)
    return batch.take(pa.array(good, pa.int64())), points


def _write_batch(
    batch: pa.RecordBatch, points: list[Point], store: VectorStore, collection: str, *, keep_newer: bool
) -> None:
    """Upsert a batch; a row that was pushed with a newer event timestamp stays: the newer one wins online.

    A source may go back in time, as when the latest event behind an aggregate is deleted. So a stored row counts as
    pushed only if it is newer than the source and than what was written last.
    """
    if keep_newer:
        stored = store.get_many(collection, [point.id for point in points], with_payload=["event_ts"])
        points = [
            point
            for row, point, old in zip(batch.to_pylist(), points, stored, strict=True)
            if old is None or old.payload.get("event_ts", 0) <= _newest(row)
        ]
    store.upsert(collection, points)


def _newest(row: dict[str, Any]) -> int:
    return to_micros(max(row["event_timestamp"], row[WRITTEN] or row["event_timestamp"]))


def _point(project: str, scan: FeatureScan, row: dict[str, Any]) -> Point:
    view = scan.source.view
    entity = scan.source.entity(row["key"])
    features = {name: _encoded(name, row[name], kind) for name, kind in view.features.items()}
    created = None if row[CREATED] is None else to_micros(row[CREATED])
    payload = row_payload(
        view.name, entity, to_micros(row["event_timestamp"]), features, created, extras={"fp": str(row["raw"])}
    )
    return Point(point_id(project, view.name, entity), payload)


def _encoded(name: str, value: Any, kind: str) -> Any:
    try:
        return encode_value(value, kind)
    except StoreError as error:
        raise BadInputError(f"Feature {name}: {error}") from error


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
