"""What a run would do, counted before anyone pays: canonical texts, fingerprints, and the change of each pin."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from embedders.tokens import TokenCounter
from feature_repo.lexical import LEXICAL_VERSION, encode_blob
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields
from materialize import vector_log
from materialize.definitions import RepoDefinitions, load_definitions
from materialize.feature_rows import unwritable
from materialize.ledger import DOUBTFUL_TEXT, Ledger
from materialize.reconcile import view_definition, view_space
from materialize.scan import PAYLOAD_COLUMNS, FeatureScan, PinScan, connect, held_pins, raw_engine, to_be_read
from materialize.selection import Selection
from materialize.shards import Entries
from materialize.spaces import Space, live_space
from materialize.stores.layout import to_micros

ASSUMED_TOKENS_PER_SECOND = 4000
"""Used until a first run of the space was measured: two cores without bf16."""

_ENCODED_ROWS = 10_000
"""Up to so many changed rows of a view are encoded to count those that cannot be written; more would take long."""


class Kind(StrEnum):
    """What happened to a pin since it was last written."""

    NEW = "new"
    CHANGED = "changed"
    PAYLOAD_ONLY = "payload_only"
    TOUCHED = "touched"  # raw values differ, the model would read the same: only the ledger is brought up to date
    REJECTED = "rejected"  # no text in any field: no vector


@dataclass(slots=True)
class PinChange:
    """One pin whose raw fingerprint differs from the ledger's."""

    pin_id: str
    kind: Kind
    text: str
    text_fp: bytes | None
    payload: dict[str, Any]
    payload_fp: int
    raw: int
    event_timestamp: datetime
    had_vector: bool
    truncated: bool
    doubtful: bool
    """A run was killed while it wrote this pin, or the store lost it: the vector log may have its vector."""
    blob: bytes | None = None
    """Its words, see :func:`feature_repo.lexical.encode_blob`, for a space whose points have them; else None."""


@dataclass
class Counts:
    """The answer of ``plan`` and ``materialize``; the names are a contract."""

    space: str
    new: int = 0
    changed: int = 0
    payload_only: int = 0
    unchanged: int = 0
    gone: int = 0
    rejected: int = 0
    texts_to_encode: int = 0
    encoder_calls: int = 0
    encoded_texts: int = 0
    upserted: int = 0
    deleted: int = 0
    seconds: float = 0.0
    tokens: int = 0
    estimated_seconds: float = 0.0
    truncated: int = 0
    emptied: int = 0
    """Of the rejected, those that had a text and lose their vector."""
    features: dict[str, dict[str, int]] = field(default_factory=dict)
    """Feature view to its online rows ``changed``, ``gone`` and ``rejected``."""
    held: int = 0
    """Of the rejected, those whose row `validate` rejected, written before or not."""
    quarantined: int = 0
    """Of the rejected, those whose text the encoder cannot take."""
    remaining: int = 0
    """Pins that this run left for the next: beyond its limit, or after it was asked to stop."""
    logged_texts: int = 0
    """Of the texts of a plan, those whose vector the vector log has, where the ledger was lost: not encoded again."""
    files: int = 0
    """Source files of the views that were asked for."""
    files_unchanged: int = 0
    """Of these, those that no pass went over: they are as the last scan left them."""
    interrupted: bool = False
    """The run was asked to stop, and did at a clean point."""
    unknown: list[str] = field(default_factory=list)
    """Of the pins that the run was restricted to, those that neither source nor ledger has."""
    stages: dict[str, float] = field(default_factory=dict)
    """Stage of the run to its seconds."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, seconds rounded to milliseconds."""
        return {
            **asdict(self),
            "seconds": round(self.seconds, 3),
            "estimated_seconds": round(self.estimated_seconds, 1),
            "stages": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
        }

    @property
    def paid(self) -> int:
        """Pins whose point is written."""
        return self.new + self.changed + self.payload_only

    @property
    def quiet(self) -> bool:
        """True where a run has nothing to write."""
        rows = sum(view["changed"] + view["gone"] for view in self.features.values())
        return not (self.new + self.changed + self.payload_only + self.gone + rows)


def pin_changes(scan: PinScan, space: Space) -> Iterator[list[PinChange]]:
    """Every differing pin of ``scan``, canonicalised and compared with the ledger of ``space``, batch by batch."""
    for rows in scan.differing():
        yield [_change(row, space) for row in rows]


def _change(row: dict[str, Any], space: Space) -> PinChange:
    fields = PinFields.from_row(row)
    rendered = space.template.render(fields)
    text_fp = bytes.fromhex(rendered.fingerprint) if rendered.text else None
    blob = encode_blob(fields) if space.words and text_fp else None
    payload = {name: row[name] for name in PAYLOAD_COLUMNS if row.get(name) is not None}
    if "created_at" in payload:
        payload["created_at"] = to_micros(payload["created_at"])
    payload_fp = xxhash.xxh3_64_intdigest(
        json.dumps([payload, LEXICAL_VERSION], sort_keys=True).encode() + (blob or b"")
    )
    if text_fp is None:
        kind = Kind.REJECTED
    elif not row["known"] or row["text_fp"] is None:
        kind = Kind.NEW
    elif row["text_fp"] != text_fp:
        kind = Kind.CHANGED
    else:
        kind = Kind.PAYLOAD_ONLY if row["payload_fp"] != payload_fp else Kind.TOUCHED
    return PinChange(
        pin_id=row["key"],
        kind=kind,
        text=rendered.text,
        text_fp=text_fp,
        payload=payload,
        payload_fp=payload_fp,
        raw=row["raw"],
        # Never back in time: in the vector log Feast takes the row with the latest event timestamp.
        event_timestamp=max(row["event_timestamp"], row["old_event"] or row["event_timestamp"]),
        had_vector=bool(row["known"]) and row["text_fp"] is not None,
        truncated=rendered.truncated,
        doubtful=row["text_fp"] == DOUBTFUL_TEXT,
        blob=blob,
    )


def count_pins(scan: PinScan, space: Space, counts: Counts, selection: Selection) -> dict[bytes, int]:
    """Fill the pin counts of ``counts`` from ``scan``; gives text fingerprint to how many pins want its vector."""
    pins: dict[bytes, int] = {}
    total = 0
    counter = None
    counts.unchanged = scan.unchanged - scan.still_empty
    counts.rejected = scan.still_empty + scan.held
    counts.gone = len(selection.gone(scan.gone))
    for batch in selection.pick(pin_changes(scan, space)):
        fresh = []
        for change in batch:
            counts.truncated += change.truncated
            counts.emptied += change.kind is Kind.REJECTED and change.had_vector
            if change.kind is Kind.TOUCHED:
                counts.unchanged += 1
                continue
            setattr(counts, change.kind, getattr(counts, change.kind) + 1)
            if change.kind in (Kind.NEW, Kind.CHANGED) and change.text_fp is not None:
                if change.text_fp not in pins:
                    fresh.append(change.text)
                pins[change.text_fp] = pins.get(change.text_fp, 0) + 1
        if fresh:
            counter = counter or TokenCounter(space.model)
            total += sum(counter.count(fresh))
    selection.count(counts)
    counts.texts_to_encode = len(pins)
    counts.tokens = total
    return pins


def count_features(
    con: Any, definitions: RepoDefinitions, ledger: Ledger, held: frozenset[str], counts: Counts
) -> None:
    """Fill the feature-row counts of ``counts``; of very many changed rows none is tried whether its type holds it."""
    views = definitions.feature_views()
    with con.ahead(to_be_read(con, views, lambda view: ledger.of(view_space(view)), held)):
        for view in views:
            space = view_space(view)
            scan = FeatureScan(con, view, ledger.of(space), held)
            moved = ledger.definition(space) not in (None, view_definition(definitions.project, view))
            forgotten = moved or ledger.incomplete(space)
            again = forgotten or ledger.engine(space) != raw_engine()
            rejected = 0
            if scan.changed <= _ENCODED_ROWS:
                rejected = sum(len(unwritable(view, batch)) for batch in scan.changes())
            counts.features[view.name] = {
                "changed": (scan.rows if again else scan.changed) - rejected,
                "gone": 0 if forgotten else len(scan.gone),
                "rejected": rejected,
            }


def count_logged(paths: RepoPaths, space: str, ledger: Ledger, counts: Counts, texts: Iterable[bytes]) -> None:
    """Note how many of ``texts`` the vector log has, where the ledger of ``space`` cannot say so."""
    if not ledger.incomplete(space):
        return
    wanted = pa.array([text_fp.hex() for text_fp in texts], pa.string())
    found: set[str] = set()
    for part in vector_log.read_parts(paths, space, ["text_fp"]):
        found.update(part["text_fp"].filter(pc.is_in(part["text_fp"], wanted)).to_pylist())
    counts.logged_texts = len(found)


def plan(paths: RepoPaths, model: str | None = None) -> Counts:
    """Count what ``materialize`` would do now; loads no model and writes nothing but the ledger's own folder.

    Files that are as the last scan left them are not read.

    :raises PinfeatherError: if the repository is not applied, or a source cannot be read.
    """
    started = time.perf_counter()
    definitions = load_definitions(paths)
    space = live_space(paths, model)
    counts = Counts(space.name)
    with Ledger(paths) as ledger, connect(paths.ledger, noting=True) as con:
        held = held_pins(paths)
        count_features(con, definitions, ledger, held, counts)
        scan = open_pin_scan(con, definitions, space, ledger, held)
        texts = count_pins(scan, space, counts, Selection(quarantined=frozenset(ledger.quarantined(space.name))))
        count_logged(paths, space.name, ledger, counts, texts)
        counts.held = scan.held
        counts.files, counts.files_unchanged = con.file_counts()
        rate = ledger.tokens_per_second(space.name) or ASSUMED_TOKENS_PER_SECOND
    counts.estimated_seconds = counts.tokens / rate
    counts.seconds = time.perf_counter() - started
    return counts


def open_pin_scan(
    con: Any,
    definitions: RepoDefinitions,
    space: Space,
    ledger: Ledger,
    held: frozenset[str],
    entries: Entries | None = None,
) -> PinScan:
    """The scan of every pin against the ledger of ``space``; raw fingerprints of another engine are not believed.

    :param entries: what is compared in place of the ledger's entries of the space.
    """
    trust = ledger.engine(space.name) in (None, raw_engine())
    fields = [rule.name for rule in space.template.rules]
    return PinScan(
        con,
        definitions,
        fields,
        entries or ledger.of(space.name),
        held,
        trust_raw=trust,
        view_entries=lambda view: ledger.of(view_space(view)),
    )
