"""Online rows of feature views, kept equal to their sources by the same ledger that keeps vectors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import Ledger
from materialize.reconcile import view_space
from materialize.scan import CREATED, PIN_VIEW, WRITTEN, FeatureScan, to_be_read
from materialize.stores.errors import BadInputError, StoreError
from materialize.stores.graves import unbury
from materialize.stores.layout import (
    encode_value,
    entity_collection,
    entity_spec,
    point_id,
    row_payload,
    to_micros,
)
from materialize.stores.port import Point, VectorStore
from materialize.takedowns import bury_rows, return_pins, take_down

logger = logging.getLogger(__name__)

GUARDED_ROWS = 20
"""A view with fewer known rows may lose any of them."""


@dataclass(frozen=True)
class RowsPart:
    """Which rows a run writes, and where it learns of takedowns."""

    paths: RepoPaths
    keys: Callable[[ViewDefinition], frozenset[str] | None]
    """Keys of a view's rows that alone are written or removed; None for all."""
    stop: Callable[[], bool] | None = None
    """Asked between two batches; once it says True nothing more is written."""

    def stopping(self) -> bool:
        """Whether the run was asked to stop."""
        return self.stop is not None and self.stop()


def write_feature_rows(
    con: Any,
    definitions: RepoDefinitions,
    ledger: Ledger,
    store: VectorStore,
    run: int,
    held: frozenset[str],
    part: RowsPart,
) -> dict[str, dict[str, int]]:
    """Bring every online feature view up to date in ``store``; rows changed, gone and rejected, by view.

    :param held: pins whose rows stay as they are although the source has none.
    """
    views = [view for view in definitions.feature_views() if view.name == PIN_VIEW]
    if views and not part.stopping():
        take_down(con, part.paths, definitions, ledger, store, run, held, part.keys(views[0]))
    return {
        view.name: _write_view(con, definitions, view, ledger, store, run, held, part)
        for view in definitions.feature_views()
        if not part.stopping()
    }


def _write_view(
    con: Any,
    definitions: RepoDefinitions,
    view: ViewDefinition,
    ledger: Ledger,
    store: VectorStore,
    run: int,
    held: frozenset[str],
    part: RowsPart,
) -> dict[str, int]:
    project, space = definitions.project, view_space(view)
    collection = entity_collection(project, view.join_keys)
    store.create(collection, entity_spec())
    scan = FeatureScan(con, view, ledger.of(space), held)
    rewrite = scan.known > 0 or store.count(collection) > 0  # an empty store holds no newer row to keep
    keys = part.keys(view)
    written = rejected = 0
    for batch in scan.changes():
        if part.stopping():
            break
        if keys is not None:
            batch = batch.filter(pc.is_in(batch["key"], pa.array(sorted(keys), pa.string())))
        good, points = _points(project, scan, batch)
        rejected += batch.num_rows - good.num_rows
        written += good.num_rows
        times = zip(good["event_timestamp"].to_pylist(), good[WRITTEN].to_pylist(), strict=True)
        ledger.doubt(space, run, good["key"].to_pylist(), [max(now, then or now) for now, then in times])
        _write_batch(good, points, store, collection, keep_newer=rewrite)
        unbury(store, project, view.join_keys, [point.id for point in points])
        if view.name == PIN_VIEW:
            fresh = good.filter(pc.is_null(good[WRITTEN]))
            return_pins(store, definitions, fresh["key"].to_pylist())
        store.flush()
        ledger.write(space, run, _entries(good))
    left = zip(scan.gone, scan.gone_events, strict=True)
    gone = [] if part.stopping() else [(key, event) for key, event in left if keys is None or key in keys]
    if gone:
        ledger.doubt(space, run, [key for key, _ in gone], [event for _, event in gone])
        rows = [(point_id(project, view.name, scan.source.entity(key)), key, event) for key, event in gone]
        bury_rows(con, part.paths, store, definitions, view, rows, datetime.now(UTC))
        store.delete(collection, ids=[row for row, _, _ in rows])
        store.flush()
        ledger.remove(space, run, [key for key, _ in gone])
    ledger.fold(space)
    scan.settle(run)
    return {"changed": written, "gone": len(gone), "rejected": rejected}


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


def unwritable(view: ViewDefinition, batch: pa.RecordBatch) -> set[str]:
    """Keys of those rows of ``batch`` that the view's types cannot hold."""
    bad = set()
    for row in batch.to_pylist():
        try:
            _features(view, row)
        except StoreError:
            bad.add(row["key"])
    return bad


def guard_rows(
    con: Any,
    definitions: RepoDefinitions,
    ledger: Ledger,
    held: frozenset[str],
    gone_pins: Collection[str],
    keys: Callable[[ViewDefinition], frozenset[str] | None],
    max_gone: float,
    erased: Collection[str] | None = None,
) -> None:
    """Refuse a run that would delete more than ``max_gone`` of a view's rows, those of the gone pins left out.

    Views with fewer than :data:`GUARDED_ROWS` known rows are not guarded: there a few rows are a large part.

    :param erased: pins that an erasure took something from, left out too. Then only views by pin are guarded: of a
        query nobody can say whether it leaves with the people behind it.
    :raises PinfeatherError: if a view lost too many rows.
    """
    views = definitions.feature_views()
    with con.ahead(to_be_read(con, views, lambda view: ledger.of(view_space(view)), held)):
        for view in views:
            entries, wanted = ledger.of(view_space(view)), keys(view)
            by_pin = view.join_keys == ("pin_id",)
            if ledger.summary(view_space(view)).rows < GUARDED_ROWS or (erased is not None and not by_pin):
                continue
            scan = FeatureScan(con, view, entries, held)
            left = {*gone_pins, *(erased or ())} if by_pin else ()
            gone = sum(key not in left and (wanted is None or key in wanted) for key in scan.gone)
            if gone > scan.known * max_gone:
                raise PinfeatherError(
                    f"{gone} of {scan.known} rows of feature view {view.name} are gone from its source, more than the "
                    f"{max_gone:.0%} that are believed; nothing was written. Check {view.source}; if they are gone "
                    "indeed, run again with --allow-deletes."
                )


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
    features = _features(view, row)
    created = None if row[CREATED] is None else to_micros(row[CREATED])
    payload = row_payload(
        view.name, entity, to_micros(row["event_timestamp"]), features, created, extras={"fp": str(row["raw"])}
    )
    return Point(point_id(project, view.name, entity), payload)


def _features(view: ViewDefinition, row: dict[str, Any]) -> dict[str, Any]:
    return {name: _encoded(name, row[name], kind) for name, kind in view.features.items()}


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
