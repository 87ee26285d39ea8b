"""What the sources hold now, beside what the ledger says was written: raw fingerprints, in bounded memory.

Each view is read once (:mod:`materialize.passes`) and compared with the ledger bucket by bucket of keys
(:mod:`materialize.changed`). Only rows whose raw fingerprint differs are fetched, canonicalised and compared again.
Among rows of one key the latest (event_timestamp, created_timestamp) wins, as in Feast; among equals always the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.rejected import rejected_sql
from materialize import passes
from materialize.changed import (
    Compared,
    Differences,
    Fetched,
    OnlyThese,
    compare,
    fetched,
    hashes_of,
    in_batches,
    timestamps,
)
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.hashes import (
    SIGN,
    Words,
    arrow,
    bits_for,
    combined,
    find,
    halves,
    key_hashes,
    ordered,
    raw_fingerprint,
    share,
    span,
    whole,
)
from materialize.payload_fields import LATER_PAYLOAD, PAYLOAD_COLUMNS
from materialize.pin_rows import FEW, PinRows, whole_rows
from materialize.settled import Note, Settled, raw_engine
from materialize.shards import Entries, Reader, TableEntries
from materialize.sources import PIN_VIEW, TEXT_COLUMNS, Session, Source, connect, hashed, quote, view_source
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


class FeatureScan:
    """The online rows of one feature view against its ledger: what to write, what to remove."""

    def __init__(self, con: Session, view: ViewDefinition, entries: Entries | pa.Table, held: frozenset[str]) -> None:
        """Compare the source of ``view`` with ``entries`` of the ledger; rows of the pins ``held`` are never gone."""
        self._con, self._view = con, view
        entries = TableEntries(entries) if isinstance(entries, pa.Table) else entries
        kept = _kept(view, held)
        self._settled = Settled(con, entries, [view], kept)
        self.found: Differences = self._compared(entries)
        self.rows, self.known = self.found.rows, self.found.known
        self.changed = self.found.changed.rows
        gone = [(key, event) for key, _, event in self.found.gone if key not in (kept or ())]
        self.gone = [key for key, _ in gone]
        self.gone_events = [event for _, event in gone]

    @cached_property
    def source(self) -> Source:
        """Where the rows are."""
        return self._con.source(self._view)

    def _compared(self, entries: Entries) -> Differences:
        """What differs: as an earlier scan noted, as was found before in this session, or else by reading every row."""
        if note := self._settled.same():
            return Differences(Partitions(self._con.place("changed"), 0), note.rows, note.known, note.rows)
        mark, name = self._settled.mark, repr(self._view)
        if mark and name in self._con.compared and self._con.compared[name].mark == mark:
            return self._con.compared[name].found
        view = self._con.hashed(self._view)

        def current(bucket: int) -> tuple[Words, Words, Words]:
            rows = view.rows(view.bits, bucket, view.raw_names)
            return rows.high, rows.low, combined(rows.columns)

        changed = Partitions(self._con.place("changed"), view.bits)
        found = entries.read(lambda reader: compare(reader, current, changed, trust_raw=True))
        if self._settled.current() and changed.rows <= FEW:
            self._con.compared.setdefault(name, Compared(mark or "", self._settled.equal(self._view.name), found))
        self._settled.keep(found)
        return found

    def settle(self, run: int) -> None:
        """After ``run`` has written the changes: note that nothing is left, if that is so."""
        self._settled.keep_written(self.found, run)

    def changes(self) -> Iterator[pa.RecordBatch]:
        """The rows to write: ``key``, the features, ``event_timestamp``, :data:`CREATED`, ``raw``, :data:`WRITTEN`.

        A row that left the source since it was compared is left out.
        """
        if self.changed:
            yield from in_batches(self._tables())

    def _tables(self) -> Iterator[pa.Table]:
        changed, names = self.found.changed, tuple(self.source.hashed_columns)
        rows = whole_rows(self._con, self._view, changed, self.rows)
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
        if changed.rows > FEW:  # else they are kept for whoever asks again
            rows.clear()


def to_be_read(
    con: Session,
    views: Sequence[ViewDefinition],
    entries: Callable[[ViewDefinition], Entries],
    held: frozenset[str],
) -> list[ViewDefinition]:
    """Those of ``views`` whose :class:`FeatureScan` would not be answered by a note."""
    return [view for view in views if Settled(con, entries(view), [view], _kept(view, held)).same() is None]


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
        view_entries: Callable[[ViewDefinition], Entries] | None = None,
    ) -> None:
        """Join the views behind ``fields`` and the payload; with ``trust_raw`` False every row is canonicalised.

        The pins ``held`` are never gone.

        :param view_entries: the ledger of a view's rows; where it shows that few pins can differ, these alone are read.
        """
        self._con = con
        wanted = {**{field: TEXT_COLUMNS[field] for field in fields}, **payload_columns(definitions)}
        names = [PIN_VIEW, *sorted({view for view, _ in wanted.values()} - {PIN_VIEW})]
        _check(definitions, names, wanted)
        self._views = {name: definitions.views[name] for name in names}
        self._rows = PinRows(con, self._views, wanted)
        self._settled = Settled(con, entries if trust_raw else None, list(self._views.values()), held)
        self._held, self._held_hashes = held, ordered(key_hashes(held))
        self._held_there = np.zeros(len(held), bool)
        note, few = self._settled.note, None
        same = self._settled.same()
        if note is not None and same is None and view_entries is not None:
            few = self._candidates(note, self._settled.moved(), view_entries)
        if same is not None:
            empty = Partitions(con.place("changed"), 0)
            self._found = Differences(empty, same.rows, same.known, same.rows, same.still_empty)
        elif note is not None and few is not None:
            self._found = self._compare_few(entries, note, few)
        if same is None and (few is None or not self._settled.current()):  # a run beside this one wrote meanwhile
            if few is not None:
                self._rows = PinRows(con, self._views, wanted)  # those of the few are not all
            self._found = self._compare_all(entries, trust_raw=trust_raw)
        self.rows, self.known = self._found.rows, self._found.known
        self.unchanged, self.still_empty = self._found.unchanged, self._found.still_empty
        self.gone = [each for each in self._found.gone if each[0] not in held]
        self.held = len(held) - int(self._held_there.sum())
        """Of the pins held, those that the source has not: written before or not."""
        if same is None and not self._held_there.any():
            self._settled.keep(self._found)

    def settle(self, run: int) -> None:
        """After ``run`` has written the differing pins: note that nothing is left, if that is so."""
        if not self._held_there.any():
            self._settled.keep_written(self._found, run)

    def _candidates(
        self, note: Note, moved: Sequence[ViewDefinition], entries_of: Callable[[ViewDefinition], Entries]
    ) -> tuple[Words, Words] | None:
        """Sorted hashes of the pins that can differ from ``note``; None where that cannot be told, or are many.

        A pin differs only if its row in one of the views ``moved`` does. That the ledger held a view's rows as they
        were at the note is on record; so these rows are among those that differ from the ledger now. Of pins held the
        ledger has what no row says: they can always differ.
        """
        hashes = [key_hashes(self._held)]
        entries = {view.name: entries_of(view) for view in moved}
        with self._con.ahead(to_be_read(self._con, moved, lambda view: entries[view.name], self._held)):
            for view in moved:
                found = self._differing(view, entries[view.name], note)
                if found is None or found.changed.rows > FEW:
                    return None
                hashes += hashes_of(found.changed)
                hashes.append(key_hashes(key for key, _, _ in found.gone))
        if sum(map(len, hashes)) > FEW:
            return None
        return ordered(pa.concat_arrays(hashes))

    def _differing(self, view: ViewDefinition, entries: Entries, note: Note) -> Differences | None:
        """How rows of ``view`` differ from those at ``note``, and maybe more; None where that cannot be told."""
        noted, compared = note.contents(view.name), self._con.compared.get(repr(view))
        if compared is not None and compared.equal & noted:
            return compared.found
        known = Settled(self._con, entries, [view], self._held).equal(view.name)
        if view.join_keys != ("pin_id",) or not known & noted:
            return None
        return FeatureScan(self._con, view, entries, self._held).found

    def _compare_few(self, entries: Entries, note: Note, few: tuple[Words, Words]) -> Differences:
        """Compare the pins ``few``; all others are as ``note`` says, each an entry with its row."""
        high, low = few
        compared = self._con.compared.get(repr(self._views[PIN_VIEW]))
        bits = compared.found.changed.bits if compared else bits_for(note.known, passes.BUCKET_ROWS)
        asked, changed = Partitions(self._con.place("few"), bits), Partitions(self._con.place("changed"), bits)
        if not len(high):
            return Differences(changed, note.rows, note.known, note.rows, note.still_empty)
        asked.add(pa.table({"hash": whole(high, low)}), high)
        self._rows.fetch_few(asked)
        empty = 0

        def current(bucket: int) -> tuple[Words, Words, Words]:
            here = span(high, bits, bucket)
            rows = self._rows.joined(bucket, high[here], low[here])
            there = high[here][rows.there], low[here][rows.there]
            self._note_held(bits, bucket, *there)
            return *there, rows.raw[rows.there]

        def read(reader: Reader) -> Differences:
            nonlocal empty
            only = OnlyThese(reader, high, low, self._held_hashes)
            differences = compare(only, current, changed, trust_raw=True)
            empty = sum(only.empty.values())
            return differences

        found = entries.read(read)
        others = note.known - found.known
        found.rows, found.known, found.unchanged = found.rows + others, note.known, found.unchanged + others
        found.still_empty += note.still_empty - empty
        return found

    def _compare_all(self, entries: Entries, *, trust_raw: bool) -> Differences:
        """Compare every pin."""
        passes = {name: self._con.hashed(view) for name, view in self._views.items()}
        bits = max(view.bits for view in passes.values())
        changed = Partitions(self._con.place("changed"), bits)

        def current(bucket: int) -> tuple[Words, Words, Words]:
            pins = passes[PIN_VIEW].rows(bits, bucket, _TEXT)
            self._note_held(bits, bucket, pins.high, pins.low)
            total = share(PIN_VIEW, pins.columns["text"])
            for name, view in passes.items():
                if name != PIN_VIEW:
                    rows = view.rows(bits, bucket, _TEXT)
                    places = find(rows.high, rows.low, pins.high, pins.low)
                    there = places >= 0
                    total[places[there]] += share(name, rows.columns["text"][there])
            return pins.high, pins.low, raw_fingerprint(total)

        return entries.read(lambda reader: compare(reader, current, changed, trust_raw=trust_raw))

    def _note_held(self, bits: int, bucket: int, high: Words, low: Words) -> None:
        """Note which of the pins held are among those of a bucket that the source has."""
        held_high, held_low = self._held_hashes
        held = span(held_high, bits, bucket)
        self._held_there[held] = find(held_high[held], held_low[held], high, low) >= 0

    def differing(self) -> Iterator[list[dict[str, Any]]]:
        """Rows whose raw fingerprint differs, batch by batch, each with what the ledger knows of it.

        A pin that left the source since it was compared is left out.
        """
        if self._found.changed.rows:
            for batch in in_batches(self._tables()):
                yield batch.to_pylist()

    def _tables(self) -> Iterator[pa.Table]:
        changed = self._found.changed
        if not self._rows.there:
            self._rows.fetch(changed, {name: self._con.hashed(view).total for name, view in self._views.items()})
        for bucket in range(1 << changed.bits):
            part = changed.read(bucket)
            if part is not None and (table := self._rows.table(bucket, part)) is not None:
                yield table


def _created(found: Fetched, names: Sequence[str]) -> pa.Array:
    """When the rows that are there were made, null where the source does not say."""
    if "created" not in names:
        return pa.nulls(int(found.there.sum()), pa.timestamp("us", tz="UTC"))
    micros = found.numbers("created")
    return pa.array(micros, mask=micros == np.iinfo(np.int64).min).cast(pa.timestamp("us", tz="UTC"))


def _kept(view: ViewDefinition, held: frozenset[str]) -> frozenset[str] | None:
    """The pins whose rows of ``view`` are never gone; None where its keys are no pins."""
    return held if view.join_keys == ("pin_id",) else None


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
