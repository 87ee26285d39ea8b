"""The rows of some pins out of every view, fetched from the sources and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from materialize.changed import Fetched, Wanted, fetched, hashes_of, timestamps
from materialize.definitions import ViewDefinition
from materialize.hashes import Words, arrow, find, halves, ordered, raw_fingerprint, share
from materialize.sources import PIN_VIEW, Session, Source
from materialize.spill import Partitions

FEW = 1 << 18
"""So many keys at most are kept in memory, and their rows for the session; more are read each time."""


@dataclass(frozen=True)
class WholeRows:
    """Rows of some keys that a session keeps."""

    high: Words
    low: Words
    rows: Partitions

    def has(self, high: Words, low: Words) -> bool:
        """Whether all these keys are among them."""
        return bool((find(high, low, self.high, self.low) >= 0).all())


def whole_rows(con: Session, view: ViewDefinition, keys: Partitions, total: int | None) -> Partitions:
    """All columns of the rows of ``keys`` in ``view``, maybe with rows of other keys; read once where they are few.

    :param total: rows of the view, None where they are many times the keys.
    """
    kept = con.whole_rows.get(repr(view))
    asked = ordered(pa.concat_arrays(hashes_of(keys))) if 0 < keys.rows <= FEW else None
    if kept is not None and asked is not None and kept.rows.bits == keys.bits and kept.has(*asked):
        return kept.rows
    source = con.source(view)
    with Wanted(con, keys) as wanted:
        rows = wanted.rows(source, total, source.columns, tuple(source.hashed_columns), con.place("rows"))
    if asked is not None:
        con.whole_rows[repr(view)] = WholeRows(*asked, rows)
    return rows


@dataclass(frozen=True)
class Joined:
    """Some pins of a bucket, each with its rows in the views."""

    there: npt.NDArray[np.bool_]
    """Which of them the source has."""
    raw: Words
    events: npt.NDArray[np.int64]
    """The latest event time of a pin's rows, in microseconds."""
    found: Mapping[str, Fetched | None]


class PinRows:
    """Rows of pins by bucket, once they were fetched."""

    def __init__(
        self, con: Session, views: Mapping[str, ViewDefinition], wanted: Mapping[str, tuple[str, str]]
    ) -> None:
        """Of ``views``; ``wanted`` is field to (view, feature)."""
        self._con, self._views, self._wanted = con, views, wanted
        self._rows: dict[str, Partitions] = {}

    @property
    def there(self) -> bool:
        """Whether they were fetched."""
        return bool(self._rows)

    def fetch(self, keys: Partitions, totals: Mapping[str, int]) -> None:
        """Read the rows of ``keys``; views have ``totals`` rows."""
        with Wanted(self._con, keys) as wanted:
            for name in self._views:
                self._rows[name] = self._fetched(wanted, name, totals[name])

    def fetch_few(self, keys: Partitions) -> None:
        """Read the rows of ``keys``, a small part of all; nothing of pins that the pins' view lacks."""
        self._rows[PIN_VIEW] = whole_rows(self._con, self._views[PIN_VIEW], keys, None)
        with Wanted(self._con, keys) as wanted:
            wanted.by_name(self._rows[PIN_VIEW])
            for name in self._views:
                if name != PIN_VIEW:
                    self._rows[name] = self._fetched(wanted, name, None)

    def _fetched(self, wanted: Wanted, name: str, total: int | None) -> Partitions:
        source, place = self._con.source(self._views[name]), self._con.place("rows")
        columns = [feature for view, feature in self._wanted.values() if view == name]
        return wanted.rows(source, total, columns, _parts(source), place)

    def joined(self, bucket: int, high: Words, low: Words) -> Joined:
        """The rows of pins of a bucket."""
        total, events = np.zeros(len(high), np.uint64), np.full(len(high), np.iinfo(np.int64).min)
        rows = {
            name: fetched(self._rows[name], bucket, high, low, _parts(self._con.source(view)))
            for name, view in self._views.items()
        }
        for name, found in rows.items():
            if found is not None:
                total[found.there] += share(name, found.numbers("text"))
                events[found.there] = np.maximum(events[found.there], found.numbers("event"))
        pins = rows[PIN_VIEW]
        there = np.zeros(len(high), bool) if pins is None else pins.there
        return Joined(there, raw_fingerprint(total), events, rows)

    def table(self, bucket: int, part: pa.Table) -> pa.Table | None:
        """The pins ``part`` of a bucket with the columns of all views and what the ledger has; None if all are gone."""
        rows = self.joined(bucket, *halves(part["hash"]))
        pins = rows.found[PIN_VIEW]
        if pins is None:
            return None
        columns: dict[str, Any] = {}
        for field, (view, feature) in self._wanted.items():
            found = rows.found[view]
            columns[field] = found.column(f"feature {feature}") if found else pa.nulls(part.num_rows)
        table = pa.table(
            {
                "key": pins.column("key"),
                **columns,
                "raw": rows.raw,
                "event_timestamp": timestamps(rows.events),
                "known": part["known"],
                "text_fp": part["text_fp"],
                "payload_fp": part["payload_fp"],
                "old_event": part["event_timestamp"],
            }
        )
        return table.filter(arrow(rows.there))


def _parts(source: Source) -> Sequence[str]:
    """What of a pass a pin's text depends on."""
    return [name for name in source.hashed_columns if name != "rest"]
