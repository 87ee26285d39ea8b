"""Rows of pins that are gone: out of every view keyed by pin, and remembered, so that no late push brings one back.

Who wrote a row does not matter: Feast's own materialize and pushes leave rows that no ledger knows. So a pin's rows are
found by their ids. Which deletions were carried out is noted in the ledger, for a run without new ones to stay cheap.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.session import parquet
from feature_repo.paths import RepoPaths
from feature_repo.rejected import NEVER, rejected_sql
from materialize import vector_log
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import Ledger, LedgerError
from materialize.sources import PIN_VIEW, view_source
from materialize.stores import graves
from materialize.stores.layout import entity_collection, point_ids, to_micros
from materialize.stores.port import VectorStore

logger = logging.getLogger(__name__)

DONE = "pins:deleted"
"""Name in the ledger of the deletions that were carried out: pin to its ``deleted_at``."""
PAGE = 1000


def deleted_sql(paths: RepoPaths) -> str:
    """SQL of the pins whose row says that they are deleted: ``pin_id, deleted_at``, also where the row was rejected."""
    valid = paths.valid / "pins.parquet"
    dated = f"SELECT pin_id, deleted_at FROM {parquet([valid])} WHERE deleted_at IS NOT NULL"
    known = dated if valid.is_file() else NEVER
    return f"{known} UNION ALL SELECT pin_id, deleted_at FROM ({rejected_sql(paths)}) WHERE deleted_at IS NOT NULL"


def taken_down(con: Any, paths: RepoPaths, pin_ids: Sequence[str]) -> dict[str, datetime]:
    """``deleted_at`` of those of the pins whose row in the pins table has one."""
    if not pin_ids:
        return {}
    con.register("left", pa.table({"pin_id": pa.array(pin_ids, pa.string())}))
    rows = con.execute(
        f'SELECT pin_id, deleted_at FROM ({deleted_sql(paths)}) SEMI JOIN "left" USING (pin_id)'
    ).fetchall()
    con.unregister("left")
    return dict(rows)


def alive(con: Any, definitions: RepoDefinitions, pin_ids: Sequence[str]) -> set[str]:
    """Those of the pins that the pins' source has."""
    if not pin_ids:
        return set()
    con.register("asked", pa.table({"key": pa.array(pin_ids, pa.string())}))
    source = view_source(con, definitions.views[PIN_VIEW])
    rows = con.execute(f"SELECT key FROM (SELECT {source.key} AS key {source.every}) SEMI JOIN asked USING (key)")
    found = {key for (key,) in rows.fetchall()}
    con.unregister("asked")
    return found


def pin_views(definitions: RepoDefinitions) -> list[str]:
    """Names of the online feature views whose rows have a pin id as their only key."""
    return [view.name for view in definitions.feature_views() if view.join_keys == ("pin_id",)]


def take_down(
    con: Any,
    paths: RepoPaths,
    definitions: RepoDefinitions,
    ledger: Ledger,
    store: VectorStore,
    run: int,
    held: frozenset[str],
    only: frozenset[str] | None,
) -> None:
    """Delete and bury every row of the pins that were deleted since the last run; bury anew where the graves are lost.

    :param held: pins that are not deleted although the source has none.
    :param only: look at these pins alone; None at all.
    """
    now = datetime.now(UTC)
    try:
        tables = [page for page in ledger.pages(DONE, ["key", "event_timestamp"]) if page.num_rows]
    except LedgerError as error:
        logger.warning("%s Every deletion is carried out again.", error)
        ledger.forget(DONE)
        tables = []
    adopted = ledger.engine(DONE) is None
    empty = pa.table({"key": pa.array([], pa.string()), "event_timestamp": pa.array([], pa.timestamp("us", tz="UTC"))})
    con.register("done", pa.concat_tables([empty, *tables]))
    fresh: dict[str, datetime] = dict(
        con.execute(
            f"SELECT pin_id, max(deleted_at) FROM ({deleted_sql(paths)}) d WHERE NOT EXISTS (FROM done "
            "WHERE done.key = d.pin_id AND done.event_timestamp = d.deleted_at) GROUP BY pin_id"
        ).fetchall()
    )
    back = con.execute(f"SELECT key FROM done ANTI JOIN ({deleted_sql(paths)}) d ON d.pin_id = done.key").fetchall()
    con.unregister("done")
    wanted = {**_lost(con, paths, definitions, store, now), **fresh}
    if only is not None:
        wanted = {pin_id: when for pin_id, when in wanted.items() if pin_id in only}
    kept = alive(con, definitions, sorted(wanted)) | held
    gone = {pin_id: when for pin_id, when in wanted.items() if pin_id not in kept}
    oldest = now - graves.KEEP if adopted else None  # a catalogue may come with every deletion of its history
    remove_rows(store, definitions, gone, now, bury_since=oldest)
    done = [pin_id for pin_id in gone if pin_id in fresh]
    if done:
        store.flush()
        ledger.write(DONE, run, _entries({pin_id: fresh[pin_id] for pin_id in done}))
    ledger.remove(DONE, run, [pin_id for (pin_id,) in back if only is None or pin_id in only])
    if adopted and only is None:
        ledger.set_engine(DONE, "1")
    ledger.fold(DONE)


def remove_rows(
    store: VectorStore,
    definitions: RepoDefinitions,
    gone: Mapping[str, datetime],
    now: datetime,
    *,
    bury_since: datetime | None = None,
) -> None:
    """Delete the rows of pins in all views that are keyed by pin, but for those pushed since, and bury them.

    :param gone: pin to when it was deleted.
    :param bury_since: what was deleted before leaves no grave; None buries all.
    """
    project, views = definitions.project, pin_views(definitions)
    name = entity_collection(project, ["pin_id"])
    filled = name in store.collections() and store.count(name) > 0
    pins = sorted(gone)
    for start in range(0, len(pins), PAGE):
        page = pins[start : start + PAGE]
        for view in views:
            ids = point_ids(project, view, "pin_id", page)
            when = {row: to_micros(gone[pin_id]) for row, pin_id in zip(ids, page, strict=True)}
            if filled:
                stored = store.get_many(name, ids, with_payload=["event_ts"])
                old = [point.id for point in stored if point and point.payload.get("event_ts", 0) <= when[point.id]]
                if old:
                    store.delete(name, ids=old)
            since = None if bury_since is None else to_micros(bury_since)
            deaths = {row: micros for row, micros in when.items() if since is None or micros >= since}
            known = graves.deletion_times(store, project, ["pin_id"], list(deaths))
            latest = {row: max(micros, known.get(row, 0)) for row, micros in deaths.items()}
            graves.bury(store, project, view, ["pin_id"], latest, now)


def return_pins(store: VectorStore, definitions: RepoDefinitions, pin_ids: Sequence[str]) -> None:
    """Forget that any row of these pins was deleted: the pins are back."""
    project = definitions.project
    rows = [row for view in pin_views(definitions) for row in point_ids(project, view, "pin_id", pin_ids)]
    graves.unbury(store, project, ["pin_id"], rows)


def bury_rows(
    con: Any,
    paths: RepoPaths,
    store: VectorStore,
    definitions: RepoDefinitions,
    view: ViewDefinition,
    rows: Sequence[tuple[str, str, datetime | None]],
    now: datetime,
) -> None:
    """Note in ``store`` that rows of ``view`` are deleted: since ``deleted_at`` of their pin, else since ``now``.

    A pin that left the pins' own view without a word takes its rows of all other views along.

    :param rows: (point id, key, event time as written) of each row; a grave is never older than its row.
    """
    keys = [key for _, key, _ in rows] if view.join_keys == ("pin_id",) else []
    known = taken_down(con, paths, keys)
    if view.name == PIN_VIEW:
        remove_rows(store, definitions, {key: now for key in keys if key not in known}, now)
    deleted = {
        row: max(to_micros(known.get(key, now)), to_micros(event) if event is not None else 0)
        for row, key, event in rows
    }
    graves.bury(store, definitions.project, view.name, view.join_keys, deleted, now)


def _lost(
    con: Any, paths: RepoPaths, definitions: RepoDefinitions, store: VectorStore, now: datetime
) -> dict[str, datetime]:
    """Pins deleted lately, by their rows or by the notes of the vector logs; none while the store has graves."""
    name = graves.grave_collection(definitions.project, ["pin_id"])
    if name in store.collections() and store.count(name):
        return {}
    since = now - graves.KEEP
    con.register("notes", _notes(paths))
    rows = con.execute(
        "SELECT coalesce(t.pin_id, n.pin_id), coalesce(max(t.deleted_at), max(n.deleted_at)) "
        "FROM (FROM notes WHERE deleted_at >= $1) n "
        f"FULL JOIN ({deleted_sql(paths)}) t ON t.pin_id = n.pin_id "
        "WHERE n.pin_id IS NOT NULL OR t.deleted_at >= $1 GROUP BY 1",
        [since],
    ).fetchall()
    con.unregister("notes")
    return dict(rows)


def _notes(paths: RepoPaths) -> pa.Table:
    """What the vector logs say of deleted pins; notes that cannot be read are for the audit to find."""
    tables = [vector_log.DELETIONS.empty_table()]
    for file in sorted(paths.vectors.glob("*/deletions/*.parquet")):
        try:
            tables.append(pq.read_table(file, schema=vector_log.DELETIONS))
        except (pa.ArrowException, OSError):
            logger.warning("%s cannot be read: deletions noted in it are not remembered.", file)
    return pa.concat_tables(tables)


def _entries(deleted: Mapping[str, datetime]) -> pa.Table:
    rows = len(deleted)
    return pa.table(
        {
            "key": pa.array(list(deleted), pa.string()),
            "raw": pa.array([0] * rows, pa.uint64()),
            "text_fp": pa.nulls(rows, pa.binary(16)),
            "payload_fp": pa.nulls(rows, pa.uint64()),
            "event_timestamp": pa.array(list(deleted.values()), pa.timestamp("us", tz="UTC")),
        }
    )
