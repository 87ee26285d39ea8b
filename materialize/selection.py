"""Which of the changes that a scan found a run writes: all of them, some pins only, at most so many, no quarantined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import Ledger
from materialize.scan import PIN_VIEW, view_source

if TYPE_CHECKING:
    from materialize.plan import Counts, PinChange

PAID = frozenset({"new", "changed", "payload_only"})
"""Kinds of change that write a point; deletions, and what only the ledger notes, are never put off."""

ENCODED = frozenset({"new", "changed"})
"""Kinds of change that want a vector of the present text."""

Gone = Sequence[tuple[str, bool, datetime]]
"""(pin, whether it had a vector, event time), as a scan gives those that left."""


@dataclass
class Selection:
    """Picks among changes. A run picks twice, to count and to write, and picks the same."""

    only: frozenset[str] | None = None
    """These pins alone are written or deleted; None takes all."""
    limit: int | None = None
    """So many points at most; the rest stays for the next run."""
    quarantined: frozenset[bytes] = frozenset()
    """Fingerprints of texts that are not given to the encoder again."""
    rows: Mapping[str, frozenset[str]] | None = None
    """Feature view to the keys of its rows that alone are written; views that are not named stay as they are."""
    whole: frozenset[str] = frozenset()
    """Feature views that are written in whole whatever else is said: their rows were deleted before."""
    picked: int = 0
    """Changes that the last pass picked."""
    remaining: int = 0
    """Changes that the limit left for the next run, of the last pass."""
    skipped: list[PinChange] = field(default_factory=list)
    """Changes whose text is quarantined, of the last pass."""

    @property
    def complete(self) -> bool:
        """Whether nothing but quarantined texts is left out."""
        return self.only is None and self.rows is None and not self.remaining

    def pick(self, batches: Iterable[list[PinChange]]) -> Iterator[list[PinChange]]:
        """What of ``batches`` is to be written, batch by batch."""
        left = self.limit
        self.picked = self.remaining = 0
        self.skipped = []
        for batch in batches:
            picked = []
            for change in batch:
                if self.only is not None and change.pin_id not in self.only:
                    continue
                if change.kind in ENCODED and change.text_fp in self.quarantined:
                    self.skipped.append(change)
                    continue
                if change.kind in PAID and left is not None:
                    if not left:
                        self.remaining += 1
                        continue
                    left -= 1
                picked.append(change)
            self.picked += len(picked)
            if picked:
                yield picked

    def count(self, counts: Counts) -> None:
        """Note in ``counts`` what the last pass left out."""
        counts.remaining = self.remaining
        counts.quarantined = len(self.skipped)
        counts.rejected += len(self.skipped)

    def gone(self, gone: Gone) -> list[Any]:
        """Those of ``gone`` that are deleted; all of them without :attr:`only`: a limit puts no takedown off."""
        return [each for each in gone if self.only is None or each[0] in self.only]

    def keys(self, view: ViewDefinition) -> frozenset[str] | None:
        """Keys of the view's rows that are written or removed; None for all."""
        if view.name in self.whole:
            return None
        if self.rows is not None:
            return self.rows.get(view.name, frozenset())
        if self.only is None:
            return None
        return self.only if view.join_keys == ("pin_id",) else frozenset()


def unknown_pins(
    con: Any,
    definitions: RepoDefinitions,
    ledger: Ledger,
    space: str,
    only: frozenset[str] | None,
    held: frozenset[str],
) -> list[str]:
    """Of the pins that a run is restricted to, those that neither the pins' source nor the ledger has.

    Pins ``held`` are in the source, if not in its views.
    """
    if not only:
        return []
    keys = pa.table({"key": pa.array(sorted(only), pa.string())})
    con.register("asked", keys)
    source = view_source(con, definitions.views[PIN_VIEW])
    found = con.execute(f"SELECT key FROM ({source.sql}) SEMI JOIN asked USING (key)").fetchall()
    con.unregister("asked")
    known = {key for (key,) in found}
    for page in ledger.pages(space, ["key"]):
        known.update(page["key"].filter(pc.is_in(page["key"], keys["key"])).to_pylist())
    return sorted(only - known - held)
