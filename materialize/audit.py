"""Compare source, ledger, vector log and store, and count every disagreement."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.audit_rows import audit_view
from materialize.audit_words import lost_words, unbelieved
from materialize.definitions import RepoDefinitions, load_definitions
from materialize.ledger import Ledger, LedgerError
from materialize.log_index import Logged, LogIndex
from materialize.places import read_store
from materialize.plan import Kind, open_pin_scan, pin_changes
from materialize.quarantine import is_unit
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.scan import PinScan, connect, held_pins
from materialize.shards import TableEntries
from materialize.spaces import Space, Status, load_spaces
from materialize.stores.errors import CollectionMissingError, NoPublicationError
from materialize.stores.layout import from_micros, point_ids
from materialize.stores.port import DEFAULT_VECTOR, Condition, Point, VectorStore

PAGE = 1000
KINDS = ("missing", "extra", "stale", "wrong_space", "corrupted")
"""Findings that make an audit unclean."""


@dataclass
class Audit:
    """Counts of one audit; the names are a contract. All is well where every count of :data:`KINDS` is 0."""

    checked: int = 0
    missing: int = 0
    """In the ledger, not in the store."""
    extra: int = 0
    """In the store or in the vector log, not in the ledger."""
    stale: int = 0
    """Written from another text or row than the source holds now."""
    wrong_space: int = 0
    """A vector of another model than its space's."""
    corrupted: int = 0
    """A vector that is not finite, not of unit length, or not the one in the vector log; words that are not their
    pin's; a row whose values are not its source's; a shard of the ledger or a part of the vector log that cannot be
    read."""
    ahead: int = 0
    """Feature rows pushed after the scan: newer than their source, or than the deletion of their pin."""
    quarantined: int = 0
    """Pins whose present text the encoder cannot take; they keep what was written of them last."""
    repaired: int = 0
    """Findings of a repair that the audit after it did not find again."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """A few names behind each count."""

    @property
    def findings(self) -> int:
        """Number of disagreements."""
        return sum(getattr(self, kind) for kind in KINDS)

    @property
    def clean(self) -> bool:
        """True where store, ledger, log and source agree."""
        return not self.findings

    def note(self, kind: str, what: str) -> None:
        """Count one finding of ``kind``."""
        setattr(self, kind, getattr(self, kind) + 1)
        examples = self.examples.setdefault(kind, [])
        if len(examples) < 5:
            examples.append(what)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass
class Wounds:
    """What is to be healed: keys to write again, points to delete, files to give up."""

    pins: dict[str, dict[str, datetime | None]] = field(default_factory=dict)
    """Space to its pins, to the event time that was written last."""
    rows: dict[str, dict[str, datetime | None]] = field(default_factory=dict)
    """Feature view to the keys of its rows, to the event time that was written last."""
    points: dict[str, list[str]] = field(default_factory=dict)
    """Collection to the ids of points that nothing stands behind."""
    logged: dict[str, set[str]] = field(default_factory=dict)
    """Space to pins whose rows in the vector log are of no use."""
    files: list[Path] = field(default_factory=list)
    """Shards and log parts that cannot be read."""


def audit(
    paths: RepoPaths, sample: int | None = None, seed: int = 0, progress: Callable[[int], None] | None = None
) -> Audit:
    """Audit every space and every online feature view, as readers see them (the newest publication).

    :param sample: look at this many pins of each space and rows of each view, drawn with ``seed``; None looks at all.
    :param progress: called with the number of points checked since the last call.
    :raises PinfeatherError: if nothing was materialized yet, or a source cannot be read.
    """
    _live_space(paths)  # says what to do first, where the store would only say that it is empty
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(paths))
        try:
            store = stack.enter_context(read_store(paths))
        except NoPublicationError as error:
            raise PinfeatherError(
                f"The store of {paths.root} is empty: readers find nothing. If it was lost, `pinfeather restore` "
                "refills it from the vector log without a model."
            ) from error
        return inspect(paths, ledger, store, sample, seed, progress)[0]


def inspect(
    paths: RepoPaths,
    ledger: Ledger,
    store: VectorStore,
    sample: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Audit, Wounds]:
    """Audit what ``store`` holds; the counts, and what a repair would have to do."""
    live = _live_space(paths)
    definitions = load_definitions(paths)
    held = held_pins(paths)
    check = Check(Audit(), Wounds(), store, random.Random(seed), sample, progress or (lambda _: None), held)
    with connect(paths.ledger) as con:
        for space in load_spaces(paths):
            if space.status is not Status.DROPPING:
                _audit_space(check, con, definitions, paths, space, ledger, live=space.name == live)
        for view in definitions.feature_views():
            entries = check.entries(paths, ledger, f"view:{view.name}")
            if entries is not None:
                audit_view(check, con, paths, definitions, view, entries)
    return check.result, check.wounds


def _live_space(paths: RepoPaths) -> str:
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"Nothing was materialized in {paths.root} yet: run `pinfeather materialize` first.")
    return release.live_space


@dataclass
class Check:
    """What the parts of one audit share."""

    result: Audit
    wounds: Wounds
    store: VectorStore
    random: random.Random
    sample: int | None
    progress: Callable[[int], None]
    held: frozenset[str]

    def entries(self, paths: RepoPaths, ledger: Ledger, space: str) -> pa.Table | None:
        """The ledger's entries of ``space``; None, and a finding, where a shard cannot be read."""
        try:
            return ledger.entries(space)
        except LedgerError:
            damaged = ledger.damaged(space)
            if not damaged:  # read while a run was folding, or the disk failed: not this audit's to explain
                raise
            for file in damaged:
                self.result.note("corrupted", f"ledger shard {file.relative_to(paths.root)}")
            self.wounds.files += damaged
            return None

    def choose(self, entries: pa.Table) -> pa.Table:
        """All ``entries``, or the sample."""
        if self.sample is None or entries.num_rows <= self.sample:
            return entries
        return entries.take(pa.array(sorted(self.random.sample(range(entries.num_rows), self.sample)), pa.int64()))

    def collection(self, name: str) -> VectorStore | None:
        """The store, if it has the collection ``name``."""
        return self.store if name in self.store.collections() else None

    def read(self, name: str, ids: list[str], fields: list[str], *, with_vectors: bool = False) -> list[Point | None]:
        """Points of a page of ``ids``; none where the collection is lost."""
        self.result.checked += len(ids)
        self.progress(len(ids))
        try:
            return self.store.get_many(name, ids, with_payload=fields, with_vectors=with_vectors)
        except CollectionMissingError:
            return [None] * len(ids)

    def extras(
        self, name: str, condition: Condition | None, expected: int, known: Callable[[], set[str]], fields: list[str]
    ) -> Iterator[Point]:
        """Points that are not among ``known``; looked for only where there are more than ``expected``."""
        if name not in self.store.collections() or self.store.count(name, condition) <= expected:
            return
        ids = known()
        after = None
        while True:
            points, after = self.store.scroll(name, condition, limit=PAGE, after=after, with_payload=fields)
            yield from (point for point in points if point.id not in ids)
            if after is None:
                return


def _audit_space(
    check: Check,
    con: Any,
    definitions: RepoDefinitions,
    paths: RepoPaths,
    space: Space,
    ledger: Ledger,
    *,
    live: bool,
) -> None:
    entries = check.entries(paths, ledger, space.name)
    if entries is None:
        return
    prefix = "" if live else f"{space.name}/"
    damaged = damaged_parts(paths, space.name)
    for part in damaged:
        check.result.note("corrupted", f"vector log part {part.relative_to(paths.root)}")
    check.wounds.files += damaged
    log = None if damaged else LogIndex(paths, space.name)
    with_vector = entries.filter(pc.is_valid(entries["text_fp"]))
    found = in_log = 0
    chosen = check.choose(with_vector)
    wounded = check.wounds.pins.setdefault(space.name, {})
    for start in range(0, chosen.num_rows, PAGE):
        rows = chosen.slice(start, PAGE).select(["key", "text_fp", "payload_fp", "event_timestamp"]).to_pylist()
        keys = [row["key"] for row in rows]
        ids = point_ids(definitions.project, LIVE_EMBEDDING, "pin_id", keys)
        points = check.read(space.name, ids, ["text_fp", "payload_fp", "model"], with_vectors=True)
        logged = log.find(keys) if log else [None] * len(keys)
        for row, point, last in zip(rows, points, logged, strict=True):
            found += point is not None
            in_log += last is not None
            kind = _judge(row, point, space, last, log is not None)
            if kind:
                check.result.note(kind, prefix + row["key"])
                wounded[row["key"]] = row["event_timestamp"]
                if last is not None and not is_unit(last.vector.astype(np.float32)):
                    check.wounds.logged.setdefault(space.name, set()).add(row["key"])

    def known() -> set[str]:
        return set(point_ids(definitions.project, LIVE_EMBEDDING, "pin_id", with_vector["key"].to_pylist()))

    expected = found if chosen is with_vector else with_vector.num_rows
    for point in check.extras(space.name, None, expected, known, ["key", "event_ts"]):
        pin_id = (point.payload.get("key") or {}).get("pin_id")
        check.result.note("extra", prefix + str(pin_id or point.id))
        if pin_id is not None and [point.id] == point_ids(definitions.project, LIVE_EMBEDDING, "pin_id", [pin_id]):
            wounded[pin_id] = from_micros(point.payload.get("event_ts", 0))
        else:
            check.wounds.points.setdefault(space.name, []).append(point.id)
    if log is not None and (len(log) > in_log or check.sample is not None):
        _find_unledgered(check, paths, space, prefix, {*with_vector["key"].to_pylist(), *wounded})
    if space.status is Status.READY or (space.words and space.status is Status.BUILDING):
        seen = unbelieved(entries, chosen["key"]) if space.words else TableEntries(entries)
        scan = open_pin_scan(con, definitions, space, ledger, check.held, seen)
        _audit_sources(check, definitions, space, scan, ledger, prefix, wounded)


def _judge(row: dict[str, Any], point: Point | None, space: Space, logged: Logged | None, has_log: bool) -> str | None:
    """What is wrong with the point of a ledger row, None if nothing."""
    if point is None:
        return "missing"
    vector = point.vectors.get(DEFAULT_VECTOR)
    if point.payload.get("model") != space.model_fingerprint:
        return "wrong_space"
    if (point.payload.get("text_fp"), point.payload.get("payload_fp")) != (
        row["text_fp"].hex(),
        str(row["payload_fp"]),
    ):
        return "stale"
    if vector is None or not is_unit(vector):
        return "corrupted"
    if has_log and (logged is None or not np.array_equal(vector, logged.vector.astype(np.float32))):
        return "corrupted"
    return None


def _find_unledgered(check: Check, paths: RepoPaths, space: Space, prefix: str, known: set[str]) -> None:
    """Pins of the vector log that no ledger row or point stands behind, as after both were lost together."""
    logged: set[str] = set()
    for part in vector_log.read_parts(paths, space.name, ["pin_id"]):
        logged.update(part["pin_id"].to_pylist())
    extra = logged - known
    for pin_id in sorted(extra):
        check.result.note("extra", f"vector log: {prefix}{pin_id}")
    if extra:
        check.wounds.logged.setdefault(space.name, set()).update(extra)


def _audit_sources(
    check: Check,
    definitions: RepoDefinitions,
    space: Space,
    scan: PinScan,
    ledger: Ledger,
    prefix: str,
    wounded: dict[str, datetime | None],
) -> None:
    """Pins whose source has moved on since they were written, and points without the words of their pin."""

    def note(kind: str, pin_id: str, event: datetime | None) -> None:
        if pin_id not in wounded:  # else it is counted already
            check.result.note(kind, prefix + pin_id)
            wounded[pin_id] = event

    quarantined = ledger.quarantined(space.name)
    for batch in pin_changes(scan, space):
        same = [change for change in batch if change.kind is Kind.TOUCHED and space.words]
        lost = lost_words(check, definitions.project, space.name, same)
        for change in batch:
            if change.pin_id in lost:
                note("corrupted", change.pin_id, change.event_timestamp)
            elif space.status is not Status.READY:
                continue  # its backfill follows the source
            elif change.kind in (Kind.NEW, Kind.CHANGED) and change.text_fp in quarantined:
                check.result.quarantined += 1
            elif change.kind in (Kind.CHANGED, Kind.PAYLOAD_ONLY) or (
                change.kind is Kind.REJECTED and change.had_vector
            ):
                note("stale", change.pin_id, change.event_timestamp)
    for key, _, event in scan.gone if space.status is Status.READY else ():
        note("stale", key, event)


def damaged_parts(paths: RepoPaths, space: str) -> list[Path]:
    """Parts of the vector log, and notes of what was deleted from it, that cannot be read to their end."""
    damaged = []
    for part in [*vector_log.parts(paths, space), *vector_log.deletions(paths, space)]:
        try:
            with pq.ParquetFile(part) as file:
                for _ in file.iter_batches():
                    pass
        except FileNotFoundError:
            continue  # merged meanwhile
        except (pa.ArrowException, OSError):
            damaged.append(part)
    return damaged
