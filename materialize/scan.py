"""What the sources hold now, beside what the ledger says was written: raw fingerprints, in bounded memory.

Each view is read once (:mod:`materialize.sources`) and compared with the ledger bucket by bucket of keys
(:mod:`materialize.changed`). Only rows whose raw fingerprint differs are fetched, canonicalised and compared again.
Among rows of one key the latest (event_timestamp, created_timestamp) wins, as in Feast; among equals always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.errors import PinfeatherError
from feature_repo.lexical import LEXICAL_VERSION
from feature_repo.paths import RepoPaths
from feature_repo.rejected import rejected_sql
from feature_repo.text import TEXT_VERSION
from materialize.changed import Differences, Fetched, Wanted, compare, fetched, in_batches, timestamps
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.hashes import (
    SIGN,
    Words,
    arrow,
    combined,
    find,
    halves,
    key_hashes,
    raw_fingerprint,
    share,
    sorting,
    span,
)
from materialize.payload_fields import LATER_PAYLOAD, PAYLOAD_COLUMNS
from materialize.shards import Entries, TableEntries
from materialize.sources import (
    PIN_VIEW,
    SCAN_VERSION,
    TEXT_COLUMNS,
    HashedView,
    Session,
    Source,
    connect,
    hashed,
    quote,
    view_source,
)
from materialize.spill import Partitions

__all__ = [
    "CREATED",
    "PAYLOAD_COLUMNS",
    "PIN_VIEW",
    "TEXT_COLUMNS",
    "WRITTEN",
    "FeatureScan",
    "PinScan",
    "Session",
    "Source",
    "connect",
    "hashed",
    "held_pins",
    "quote",
    "raw_engine",
    "view_source",
]

WRITTEN = "_written_event_timestamp"
"""Column of a changed row: event timestamp of the row that was written last, null for a new one."""


CREATED = "_created_timestamp"
"""Column of a row: when it was made, null where the source does not say. No part of its fingerprint."""

_TEXT = ("text",)


def held_pins(paths: RepoPaths) -> frozenset[str]:
    """Pins of the snapshot whose row `validate` rejected: they keep what was written of them last.

    Not those whose row says that they are deleted: a takedown counts whatever else is wrong with its row.
    """
    with connect() as con:
        rows = con.execute(f"SELECT pin_id FROM ({rejected_sql(paths)}) WHERE deleted_at IS NULL").fetchall()
    return frozenset(pin_id for (pin_id,) in rows)


def raw_engine() -> str:
    """What the raw fingerprints depend on besides the rows: engine, hashing here, tokens, canonical text.

    Where it differs from what the ledger notes, no raw fingerprint is believed and every row is canonicalised.
    """
    import duckdb

    return f"duckdb-{duckdb.__version__}/scan-{SCAN_VERSION}/lexical-{LEXICAL_VERSION}/text-{TEXT_VERSION}"


class FeatureScan:
    """The online rows of one feature view against its ledger: what to write, what to remove."""

    def __init__(self, con: Session, view: ViewDefinition, entries: Entries | pa.Table, held: frozenset[str]) -> None:
        """Compare the source of ``view`` with ``entries`` of the ledger; rows of the pins ``held`` are never gone."""
        self._con = con
        self._view = con.hashed(view)
        self.source, raw_names = self._view.source, self._view.raw_names

        def current(bucket: int) -> tuple[Words, Words, Words]:
            rows = self._view.rows(self._view.bits, bucket, raw_names)
            return rows.high, rows.low, combined(rows.columns)

        entries = TableEntries(entries) if isinstance(entries, pa.Table) else entries
        changed = Partitions(con.place("changed"), self._view.bits)
        self._found: Differences = entries.read(lambda reader: compare(reader, current, changed, trust_raw=True))
        self.rows, self.known = self._found.rows, self._found.known
        self.changed = changed.rows
        kept = held if view.join_keys == ("pin_id",) else frozenset[str]()
        gone = [(key, event) for key, _, event in self._found.gone if key not in kept]
        self.gone = [key for key, _ in gone]
        self.gone_events = [event for _, event in gone]

    def changes(self) -> Iterator[pa.RecordBatch]:
        """The rows to write: ``key``, the features, ``event_timestamp``, :data:`CREATED`, ``raw``, :data:`WRITTEN`.

        A row that left the source since it was compared is left out.
        """
        if self.changed:
            yield from in_batches(self._tables())

    def _tables(self) -> Iterator[pa.Table]:
        changed, names = self._found.changed, self._view.names
        with Wanted(self._con, changed) as wanted:
            rows = wanted.rows(self._view, self.source.columns, names, self._con.place("rows"))
        for bucket in range(1 << changed.bits):
            part = changed.read(bucket)
            found = None if part is None else fetched(rows, bucket, *halves(part["hash"]), names)
            if part is None or found is None:
                continue
            there = arrow(found.there)
            events = found.numbers("event")
            raws: dict[str, Words] = {name: found.numbers(name) for name in names if name in ("text", "rest")}
            yield pa.table(
                {
                    "key": found.column("key").filter(there),
                    **{name: found.column(f"feature {name}").filter(there) for name in self.source.columns},
                    "event_timestamp": timestamps(events),
                    CREATED: _created(found, names),
                    "raw": combined({"event": events.view(np.uint64) ^ SIGN, **raws}),
                    WRITTEN: part["event_timestamp"].filter(there),
                }
            )
        rows.clear()


class PinScan:
    """The joined view rows of every pin against a space's ledger."""

    def __init__(
        self,
        con: Session,
        definitions: RepoDefinitions,
        fields: Sequence[str],
        entries: Entries,
        held: frozenset[str],
        *,
        trust_raw: bool,
    ) -> None:
        """Join the views behind ``fields`` and the payload; with ``trust_raw`` False every row is canonicalised.

        The pins ``held`` are never gone.
        """
        self._con = con
        self._wanted = {**{field: TEXT_COLUMNS[field] for field in fields}, **payload_columns(definitions)}
        names = [PIN_VIEW, *sorted({view for view, _ in self._wanted.values()} - {PIN_VIEW})]
        _check(definitions, names, self._wanted)
        self._views = {name: con.hashed(definitions.views[name]) for name in names}
        self._bits = max(view.bits for view in self._views.values())
        high, low = halves(key_hashes(held))
        order = sorting(high, low)
        self._held, self._held_there = (high[order], low[order]), np.zeros(len(held), bool)
        self._rows: dict[str, Partitions] = {}
        changed = Partitions(con.place("changed"), self._bits)
        self._found: Differences = entries.read(
            lambda reader: compare(reader, self._current, changed, trust_raw=trust_raw)
        )
        self.rows, self.known = self._found.rows, self._found.known
        self.unchanged, self.still_empty = self._found.unchanged, self._found.still_empty
        self.gone = [each for each in self._found.gone if each[0] not in held]
        self.held = len(held) - int(self._held_there.sum())
        """Of the pins held, those that the source has not: written before or not."""

    def _current(self, bucket: int) -> tuple[Words, Words, Words]:
        """Hashes and raw fingerprints of the pins of a bucket."""
        pins = self._views[PIN_VIEW].rows(self._bits, bucket, _TEXT)
        high, low = self._held
        held = span(high, self._bits, bucket)
        self._held_there[held] = find(high[held], low[held], pins.high, pins.low) >= 0
        total = share(PIN_VIEW, pins.columns["text"])
        for name, view in self._views.items():
            if name != PIN_VIEW:
                rows = view.rows(self._bits, bucket, _TEXT)
                places = find(rows.high, rows.low, pins.high, pins.low)
                there = places >= 0
                total[places[there]] += share(name, rows.columns["text"][there])
        return pins.high, pins.low, raw_fingerprint(total)

    def differing(self) -> Iterator[list[dict[str, Any]]]:
        """Rows whose raw fingerprint differs, batch by batch, each with what the ledger knows of it.

        A pin that left the source since it was compared is left out.
        """
        if self._found.changed.rows:
            for batch in in_batches(self._tables()):
                yield batch.to_pylist()

    def _tables(self) -> Iterator[pa.Table]:
        changed = self._found.changed
        if not self._rows:
            with Wanted(self._con, changed) as wanted:
                for name, view in self._views.items():
                    columns = [feature for each, feature in self._wanted.values() if each == name]
                    self._rows[name] = wanted.rows(view, columns, _parts(view), self._con.place("rows"))
        for bucket in range(1 << self._bits):
            part = changed.read(bucket)
            if part is not None and (table := self._joined(bucket, part)) is not None:
                yield table

    def _joined(self, bucket: int, part: pa.Table) -> pa.Table | None:
        """The changed pins ``part`` of a bucket with the columns of all views."""
        high, low = halves(part["hash"])
        total = np.zeros(len(high), np.uint64)
        events = np.full(len(high), np.iinfo(np.int64).min)
        columns: dict[str, Any] = {}
        key = there = None
        for name, view in self._views.items():
            found = fetched(self._rows[name], bucket, high, low, _parts(view))
            if found is not None:
                total[found.there] += share(name, found.numbers("text"))
                events[found.there] = np.maximum(events[found.there], found.numbers("event"))
            if name == PIN_VIEW:
                if found is None:
                    return None
                key, there = found.column("key"), arrow(found.there)
            for field, (each, feature) in self._wanted.items():
                if each == name:
                    columns[field] = found.column(f"feature {feature}") if found else pa.nulls(len(high))
        table = pa.table(
            {
                "key": key,
                **{field: columns[field] for field in self._wanted},
                "raw": raw_fingerprint(total),
                "event_timestamp": timestamps(events),
                "known": part["known"],
                "text_fp": part["text_fp"],
                "payload_fp": part["payload_fp"],
                "old_event": part["event_timestamp"],
            }
        )
        return table.filter(there)


def _created(found: Fetched, names: Sequence[str]) -> pa.Array:
    """When the rows that are there were made, null where the source does not say."""
    if "created" not in names:
        return pa.nulls(int(found.there.sum()), pa.timestamp("us", tz="UTC"))
    micros = found.numbers("created")
    return pa.array(micros, mask=micros == np.iinfo(np.int64).min).cast(pa.timestamp("us", tz="UTC"))


def _parts(view: HashedView) -> list[str]:
    """What of a pass a pin's text depends on."""
    return [name for name in view.names if name != "rest"]


def payload_columns(definitions: RepoDefinitions) -> dict[str, tuple[str, str]]:
    """The payload that the registry has; only of :data:`LATER_PAYLOAD` it may lack anything."""
    return {
        field: (view, feature)
        for field, (view, feature) in PAYLOAD_COLUMNS.items()
        if field not in LATER_PAYLOAD or (view in definitions.views and feature in definitions.views[view].features)
    }


def _check(definitions: RepoDefinitions, names: Sequence[str], wanted: dict[str, tuple[str, str]]) -> None:
    """Whether the registry has the views ``names`` and the features behind the fields ``wanted``."""
    if missing := [name for name in names if name not in definitions.views]:
        raise PinfeatherError(
            f"The registry has no feature view {missing[0]!r}, which the pin text reads; it has "
            f"{sorted(definitions.views)}. Add it to definitions.py and run `pinfeather apply`."
        )
    for name, (view, feature) in wanted.items():
        if feature not in definitions.views[view].features:
            raise PinfeatherError(
                f"Feature view {view} has no feature {feature!r}, which the pin text's {name} reads; it has "
                f"{sorted(definitions.views[view].features)}. Add it and run `pinfeather apply`."
            )
