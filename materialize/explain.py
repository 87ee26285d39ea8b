"""Why a run would write a pin, or would not: what its views hold now beside what was written of it last, by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.aggregates.session import parquet
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields
from materialize.definitions import RepoDefinitions, ViewDefinition, load_definitions
from materialize.hashes import key_hashes
from materialize.ledger import DOUBTFUL_TEXT, Ledger
from materialize.log_index import LogIndex
from materialize.places import read_store
from materialize.plan import Kind, PinChange, open_pin_scan, pin_changes
from materialize.scan import PAYLOAD_COLUMNS, TEXT_COLUMNS, connect, held_pins, view_source
from materialize.shards import ShardReader
from materialize.spaces import Space, live_space
from materialize.stores.errors import CollectionMissingError, NoPublicationError, StoreError
from materialize.stores.layout import decode_value, encode_value, entity_collection, from_micros, point_id
from materialize.stores.port import Point, VectorStore

VERDICTS = {
    "unknown": "no such pin: neither a source nor the ledger, the store or the vector log has it",
    "new": "never written: the next run encodes it",
    "changed": "its text has changed: the next run encodes it",
    "payload_only": "its text is the same: the next run writes its payload and encodes nothing",
    "features_only": "its vector stays as it is: the next run writes feature rows",
    "unchanged": "nothing has changed: the next run writes nothing of it",
    "no_text": "no text in any field: it has no vector, or loses it in the next run",
    "deleted": "gone from the sources: the next run deletes what was written of it",
    "held": "its row was rejected by `validate`: it keeps what was written of it last, if anything was",
    "quarantined": "the encoder cannot take its text: it keeps what was written of it last",
    "doubtful": "a run was killed while it wrote this pin, or the store lost it: the next run writes it again",
}
"""State of a pin to what it means."""


@dataclass(frozen=True)
class FieldChange:
    """One feature of a pin: as it was written last, and as its source has it now."""

    view: str
    feature: str
    old: Any
    new: Any
    old_run: int | None
    """The run that wrote the old value; None if there is none, or it was pushed."""
    old_event: str | None
    new_event: str | None
    changed: bool
    pushed: bool
    """The old value came by a push and not by a run."""


def explain(paths: RepoPaths, pin_id: str, model: str | None = None) -> dict[str, Any]:
    """Compare the sources of ``pin_id`` with what was written of it last, field by field; loads no model.

    The old values are the feature rows of the newest publication; run and text fingerprint are the ledger's. Keys:
    ``pin_id, space, state, meaning, reason, written, source, text, fields``. ``written`` is the vector's last write
    (``run, started, text_fp, event_timestamp``), None without one.

    :raises PinfeatherError: if the repository is not applied, or a source cannot be read.
    """
    definitions = load_definitions(paths)
    space = live_space(paths, model)
    with Ledger(paths) as ledger, connect(paths.ledger) as con:
        held = held_pins(paths)
        change = _change(con, definitions, space, ledger, held, pin_id)
        entry = _entry(ledger, space.name, pin_id)
        quarantined = ledger.quarantined(space.name)
        fields = _fields(con, paths, definitions, ledger, pin_id)
        started = {row.run: row.started_at for row in ledger.run_rows()}
    sourced = any(field.new_event for field in fields)
    known = entry is not None or any(field.old_event for field in fields)
    reason = None
    if not sourced:
        known = known or _logged(paths, space, pin_id)
        state = "held" if pin_id in held else "deleted" if known else "unknown"
        reason = _rejection(paths, pin_id) if state == "held" else None
    elif change is not None and change.text_fp in quarantined:
        state, reason = "quarantined", quarantined[change.text_fp][0].reason
    else:
        state = _state(change, entry, fields)
    last = entry if entry is not None and entry["text_fp"] is not None else None  # else it never had a vector
    written = last and {
        "run": last["run"],
        "started": started.get(last["run"]),
        "text_fp": None if last["text_fp"] == DOUBTFUL_TEXT else last["text_fp"].hex(),
        "event_timestamp": _iso(last["event_timestamp"]),
    }
    deleted_at = _deleted_at(paths, pin_id) if state in ("deleted", "unknown") else None
    return {
        "pin_id": pin_id,
        "space": space.name,
        "state": state,
        "meaning": VERDICTS[state],
        "reason": reason or (f"deleted_at is {deleted_at}" if deleted_at else None),
        "written": written or None,
        "source": {
            "event_timestamp": max((field.new_event for field in fields if field.new_event), default=None),
            "text_fp": change.text_fp.hex() if change and change.text_fp else (written or {}).get("text_fp"),
        }
        if sourced
        else None,
        "text": {
            "old": _text(space, {field.feature: field.old for field in fields if _in_text(field)}),
            "new": _text(space, {field.feature: field.new for field in fields if _in_text(field)}),
        },
        "fields": [asdict(field) for field in fields],
    }


def _state(change: PinChange | None, entry: Mapping[str, Any] | None, fields: Sequence[FieldChange]) -> str:
    if change is None or change.kind is Kind.TOUCHED:
        if entry is not None and entry["text_fp"] is None:
            return "no_text"
        return "features_only" if any(field.changed and not field.pushed for field in fields) else "unchanged"
    if change.doubtful:
        return "doubtful"
    return "no_text" if change.kind is Kind.REJECTED else str(change.kind)


def _change(
    con: Any, definitions: RepoDefinitions, space: Space, ledger: Ledger, held: frozenset[str], pin_id: str
) -> PinChange | None:
    """The change of ``pin_id`` that a run would see now."""
    scan = open_pin_scan(con, definitions, space, ledger, held)
    for batch in pin_changes(scan, space):
        for change in batch:
            if change.pin_id == pin_id:
                return change
    return None


def _entry(ledger: Ledger, space: str, key: str) -> dict[str, Any] | None:
    (digest,) = key_hashes([key]).to_pylist()

    def read(reader: ShardReader) -> list[dict[str, Any]]:
        prefix = int.from_bytes(digest, "big") >> (8 * len(digest) - reader.bits)
        page = reader.part(reader.bits, prefix, ["key", "text_fp", "event_timestamp", "run"])
        return list(page.filter(pc.equal(page["key"], pa.scalar(key))).to_pylist())

    return next(iter(ledger.of(space).read(read)), None)


def _fields(con: Any, paths: RepoPaths, definitions: RepoDefinitions, ledger: Ledger, pin_id: str) -> list[FieldChange]:
    """Every feature that the pin's text and payload read, in their order, where it has a value on either side."""
    wanted = list(dict.fromkeys([*TEXT_COLUMNS.values(), *PAYLOAD_COLUMNS.values()]))
    views = [view for view in dict.fromkeys(view for view, _ in wanted) if view in definitions.views]
    stored = _stored(paths, definitions, views, pin_id)
    rows = {view: _source_row(con, definitions.views[view], pin_id) for view in views}
    fields = []
    for view, feature in wanted:
        if view not in views or feature not in definitions.views[view].features:
            continue
        kind = definitions.views[view].features[feature]
        point, row = stored.get(view), rows[view]
        old = None if point is None else _decoded(point.payload.get("f", {}).get(feature), kind)
        new = None if row is None or row[feature] is None else _decoded(encode_value(row[feature], kind), kind)
        pushed = point is not None and "fp" not in point.payload
        entry = None if point is None or pushed else _entry(ledger, f"view:{view}", pin_id)
        fields.append(
            FieldChange(
                view=view,
                feature=feature,
                old=old,
                new=new,
                old_run=entry["run"] if entry else None,
                old_event=None if point is None else _iso(from_micros(point.payload["event_ts"])),
                new_event=None if row is None else _iso(row["event_timestamp"]),
                changed=old != new,
                pushed=pushed,
            )
        )
    return fields


def _stored(paths: RepoPaths, definitions: RepoDefinitions, views: Sequence[str], pin_id: str) -> dict[str, Point]:
    collection = entity_collection(definitions.project, ["pin_id"])
    ids = [point_id(definitions.project, view, {"pin_id": pin_id}) for view in views]
    try:
        with read_store(paths) as store:
            points = _get(store, collection, ids)
    except NoPublicationError:
        return {}
    return {view: point for view, point in zip(views, points, strict=True) if point is not None}


def _get(store: VectorStore, collection: str, ids: list[str]) -> list[Point | None]:
    try:
        return store.get_many(collection, ids)
    except CollectionMissingError:
        return [None] * len(ids)


def _source_row(con: Any, view: ViewDefinition, pin_id: str) -> dict[str, Any] | None:
    rows = con.execute(f"SELECT * FROM ({view_source(con, view).sql}) WHERE key = ?", [pin_id]).arrow().to_pylist()
    return rows[0] if rows else None


def _decoded(value: Any, kind: str) -> Any:
    try:
        return decode_value(value, kind)
    except StoreError:  # a value that only Feast's own types can express
        return value


def _logged(paths: RepoPaths, space: Space, pin_id: str) -> bool:
    return (paths.vectors / space.name).is_dir() and LogIndex(paths, space.name).find([pin_id])[0] is not None


def _deleted_at(paths: RepoPaths, pin_id: str) -> str | None:
    pins = paths.valid / "pins.parquet"
    if not pins.is_file():
        return None
    with connect() as con:
        row = con.execute(f"SELECT deleted_at FROM {parquet([pins])} WHERE pin_id = ?", [pin_id]).fetchone()
    return _iso(row[0]) if row else None


def _rejection(paths: RepoPaths, pin_id: str) -> str | None:
    """Why `validate` rejected the row of ``pin_id``."""
    with connect() as con:
        rejected = parquet([paths.rejected / "pins.parquet"])
        row = con.execute(f"SELECT reason FROM {rejected} WHERE pin_id::VARCHAR = ? LIMIT 1", [pin_id]).fetchone()
    return str(row[0]) if row else None


def _in_text(field: FieldChange) -> bool:
    return (field.view, field.feature) in TEXT_COLUMNS.values()


def _text(space: Space, values: Mapping[str, Any]) -> str | None:
    """The canonical text of a pin with these features; None without any."""
    names = {feature: name for name, (_, feature) in TEXT_COLUMNS.items()}
    row = {names[feature]: value for feature, value in values.items() if value}
    return space.template.render(PinFields.from_row(row)).text or None


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
