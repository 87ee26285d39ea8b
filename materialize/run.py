"""One run: plan, encode distinct texts once, upsert, wait, append the vector log, commit the ledger, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedders.encoder import Encoder, as_stored, load_encoder
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.definitions import RepoDefinitions, load_definitions
from materialize.feature_rows import write_feature_rows
from materialize.ledger import SCHEMA, Ledger
from materialize.places import open_store
from materialize.plan import ASSUMED_TOKENS_PER_SECOND, Counts, Kind, PinChange, count_pins, open_pin_scan, pin_changes
from materialize.reconcile import reconcile_space, reconcile_views, space_definition
from materialize.releases import LIVE_EMBEDDING, write_release
from materialize.scan import PAYLOAD_INDEXES, PinScan, connect, held_pins, raw_engine
from materialize.spaces import Space, live_space, save_space
from materialize.stores.layout import point_id, row_payload, to_micros
from materialize.stores.port import DEFAULT_VECTOR, CollectionSpec, Point, VectorSpec
from materialize.stores.session import StoreWriter

BATCH_TEXTS = 1024
"""Texts encoded between two commits: what a crash can cost at most."""


@dataclass(frozen=True)
class RunOptions:
    """How to run: which model and device, and how many gone pins are believed."""

    model: str | None = None
    device: str = "auto"
    precision: str = "auto"
    max_gone: float = 0.2
    allow_deletes: bool = False
    lock_timeout: float = 10.0
    progress: Callable[[int, int], None] | None = None
    """Called with (pins written, pins to write)."""
    tell: Callable[[str], None] | None = None
    """Called with words about choices made: which device and precision, and why."""
    encoder: Encoder | None = None
    """Use this encoder instead of loading the space's own; its fingerprint must be the space's."""


@dataclass
class _Run:
    """State of one run."""

    paths: RepoPaths
    project: str
    space: Space
    ledger: Ledger
    store: StoreWriter
    number: int
    counts: Counts
    options: RunOptions
    planned: dict[bytes, int]
    """Text fingerprint to how many pins want its vector."""
    started: datetime
    held: frozenset[str]
    """Pins that `validate` rejected: they keep what was written of them last."""
    encode_seconds: float = 0.0
    part: int = 0
    shared: dict[bytes, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Vectors of texts that several pins carry."""
    logged: dict[str, tuple[str, npt.NDArray[np.float16]]] | None = None
    """The vector log's last text fingerprint and vector of each pin, read when first needed."""
    _encoder: Encoder | None = None

    def encoder(self) -> Encoder:
        """The space's encoder, loaded when the first text needs it."""
        if self._encoder is None:
            self._encoder = self.options.encoder or load_encoder(
                self.space.model,
                device=self.options.device,
                precision=self.options.precision,
                expected_fingerprint=self.space.model_fingerprint,
            )
            self.space.check_query_tower(self._encoder.fingerprint)
            recipe = self._encoder.recipe
            if self.options.tell:
                self.options.tell(f"Encoding on {recipe.device} in {recipe.precision}: {recipe.reason}.")
        return self._encoder


def materialize(paths: RepoPaths, options: RunOptions | None = None) -> Counts:
    """Write what changed since the last run: feature rows, vectors, deletions; then publish.

    Safe to kill at any moment and to repeat: a batch is in the ledger only after the store has acknowledged it and the
    vector log is on disk.

    :raises PinfeatherError: if the repository is not applied, a source cannot be read, or more pins are gone than
        ``max_gone`` allows.
    :raises StoreError: if another process writes, or the store fails.
    """
    options = options or RunOptions()
    clock = time.perf_counter()
    definitions = load_definitions(paths)
    space = live_space(paths, options.model)
    counts = Counts(space.name)
    with (
        open_store(paths, "materialize", options.lock_timeout) as store,
        Ledger(paths) as ledger,
        connect() as con,
    ):
        number = ledger.start_run(space.name, after=vector_log.last_run(paths))
        held = held_pins(paths)
        store.create(space.name, CollectionSpec({DEFAULT_VECTOR: VectorSpec(space.dimension)}, indexes=PAYLOAD_INDEXES))
        strangers = reconcile_space(definitions.project, space.name, ledger, store, number)
        scan = open_pin_scan(con, definitions, space, ledger, held)
        planned = count_pins(scan, space, counts)
        rate = ledger.tokens_per_second(space.name) or ASSUMED_TOKENS_PER_SECOND
        counts.estimated_seconds = counts.tokens / rate
        try:
            _guard_deletes(scan, counts, options)
        except PinfeatherError:
            ledger.finish_run(number, "refused", counts.to_json())
            raise
        store.delete(space.name, ids=strangers)
        reconcile_views(definitions, ledger, store, number)
        run = _Run(
            paths=paths,
            project=definitions.project,
            space=space,
            ledger=ledger,
            store=store,
            number=number,
            counts=counts,
            options=options,
            planned=planned,
            started=datetime.now(UTC),
            held=held,
        )
        try:
            _write(run, con, definitions, scan)
        except BaseException:
            ledger.finish_run(run.number, "failed", counts.to_json())
            raise
        counts.seconds = time.perf_counter() - clock
        ledger.finish_run(run.number, "done", {**counts.to_json(), "encode_seconds": run.encode_seconds})
    return counts


def _write(run: _Run, con: Any, definitions: RepoDefinitions, scan: PinScan) -> None:
    space = run.space
    if not (run.paths.spaces / f"{space.name}.json").is_file():
        vector_log.prepare(run.paths, space.name, space.dimension)
        save_space(run.paths, replace(space, recipe=run.encoder().recipe.to_json() if run.planned else {}))
    written = 0
    total = scan.rows - scan.unchanged
    for batch in _batches(scan, space):
        _write_batch(run, batch)
        written += len(batch)
        if run.options.progress:
            run.options.progress(written, total)
    _delete_gone(run, scan)
    run.counts.features = write_feature_rows(con, definitions, run.ledger, run.store, run.number, run.held)
    run.ledger.set_engine(space.name, raw_engine(), space_definition(definitions.project))
    run.ledger.fold(space.name)
    vector_log.link_live(run.paths, LIVE_EMBEDDING, space.name)
    release = write_release(run.paths, names={LIVE_EMBEDDING: space.name})
    run.store.publish(release.to_json())


def _batches(scan: PinScan, space: Space) -> Iterator[list[PinChange]]:
    """Changes in batches of at most :data:`BATCH_TEXTS`."""
    for changes in pin_changes(scan, space.template):
        for start in range(0, len(changes), BATCH_TEXTS):
            yield changes[start : start + BATCH_TEXTS]


def _guard_deletes(scan: PinScan, counts: Counts, options: RunOptions) -> None:
    gone = sum(had_vector for _, had_vector, _ in scan.gone) + counts.emptied
    if options.allow_deletes or not gone or gone <= scan.known * options.max_gone:
        return
    raise PinfeatherError(
        f"{gone} of {scan.known} pins are gone from the source or lost all their text, more than the "
        f"{options.max_gone:.0%} that are believed; nothing was written. Check the pins table; if they are gone "
        "indeed, run again with --allow-deletes."
    )


def _write_batch(run: _Run, batch: list[PinChange]) -> None:
    """Doubt, encode, upsert, log, commit: in this order, so that the ledger never claims what the store lacks."""
    touched = [change for change in batch if change.kind is not Kind.TOUCHED and (change.text_fp or change.had_vector)]
    events = [change.event_timestamp for change in touched]
    run.ledger.doubt(run.space.name, run.number, [change.pin_id for change in touched], events)
    kept = _stored_vectors(run, [change for change in batch if change.kind is Kind.PAYLOAD_ONLY])
    kept |= _logged_vectors(run, [change for change in batch if change.doubtful])
    vectors = _encode(run, [change for change in batch if _wants_vector(change, kept)])
    points, logged = [], []
    for change in batch:
        if change.kind in (Kind.TOUCHED, Kind.REJECTED) or change.text_fp is None:
            continue
        fresh = change.pin_id not in kept
        vector = vectors[change.text_fp] if fresh else kept[change.pin_id]
        points.append(_point(run, change, vector))
        if fresh:
            logged.append((change, vector))
    run.store.upsert(run.space.name, points)
    run.counts.upserted += len(points)
    _delete(run, [change.pin_id for change in batch if change.kind is Kind.REJECTED and change.had_vector])
    run.store.flush()
    if logged:
        run.part += 1
        vector_log.append(
            run.paths,
            run.space.name,
            run.number,
            run.part,
            [change.pin_id for change, _ in logged],
            np.stack([vector for _, vector in logged]).astype(np.float16),
            [change.text_fp.hex() for change, _ in logged if change.text_fp],
            [change.event_timestamp for change, _ in logged],
            run.started,
        )
    run.ledger.write(run.space.name, run.number, _entries(batch))


def _wants_vector(change: PinChange, kept: dict[str, npt.NDArray[np.float32]]) -> bool:
    if change.pin_id in kept:
        return False
    return change.kind in (Kind.NEW, Kind.CHANGED, Kind.PAYLOAD_ONLY)  # payload only: the store lost the point


def _stored_vectors(run: _Run, changes: list[PinChange]) -> dict[str, npt.NDArray[np.float32]]:
    """Vectors that the store holds already, by pin id: a new payload needs no model."""
    points = run.store.get_many(
        run.space.name, [_id(run, change.pin_id) for change in changes], with_payload=["text_fp"], with_vectors=True
    )
    return {
        change.pin_id: point.vectors[DEFAULT_VECTOR]
        for change, point in zip(changes, points, strict=True)
        if point and change.text_fp and point.payload.get("text_fp") == change.text_fp.hex()
    }


def _logged_vectors(run: _Run, changes: list[PinChange]) -> dict[str, npt.NDArray[np.float32]]:
    """Vectors of the same text that the log has, by pin id: a killed run or a lost store needs no model."""
    if not changes:
        return {}
    if run.logged is None:
        pin_ids, vectors, text_fps = vector_log.read_live(run.paths, run.space.name)
        run.logged = {pin: (fp, row) for pin, fp, row in zip(pin_ids, text_fps, vectors, strict=True)}
    found = {}
    for change in changes:
        text_fp, vector = run.logged.get(change.pin_id, (None, None))
        if vector is not None and change.text_fp and change.text_fp.hex() == text_fp:
            found[change.pin_id] = vector.astype(np.float32)
    return found


def _encode(run: _Run, changes: list[PinChange]) -> dict[bytes, npt.NDArray[np.float32]]:
    """One vector for each distinct text of ``changes``; a text that several pins carry is encoded once in the run."""
    texts = {change.text_fp: change.text for change in changes if change.text_fp}
    known = {fp: run.shared[fp] for fp in texts if fp in run.shared}
    missing = [fp for fp in texts if fp not in known]
    if not missing:
        return known
    encoder = run.encoder()
    clock = time.perf_counter()
    vectors = as_stored(encoder.encode([texts[fp] for fp in missing]))
    run.encode_seconds += time.perf_counter() - clock
    run.counts.encoder_calls += 1
    run.counts.encoded_texts += len(missing)
    fresh = dict(zip(missing, vectors, strict=True))
    run.shared.update({fp: vector for fp, vector in fresh.items() if run.planned.get(fp, 0) > 1})
    return {**known, **fresh}


def _id(run: _Run, pin_id: str) -> str:
    return point_id(run.project, LIVE_EMBEDDING, {"pin_id": pin_id})


def _point(run: _Run, change: PinChange, vector: npt.NDArray[np.float32]) -> Point:
    payload = row_payload(
        LIVE_EMBEDDING,
        {"pin_id": change.pin_id},
        to_micros(change.event_timestamp),
        {},
        created_ts=to_micros(run.started),
        extras={
            **change.payload,
            "text_fp": change.text_fp.hex() if change.text_fp else None,
            "payload_fp": str(change.payload_fp),
            "model": run.space.model_fingerprint,
        },
    )
    return Point(_id(run, change.pin_id), payload, {DEFAULT_VECTOR: vector})


def _delete(run: _Run, pin_ids: list[str]) -> None:
    """Take pins out of the store and out of the vector log."""
    if not pin_ids:
        return
    run.store.delete(run.space.name, ids=[_id(run, pin_id) for pin_id in pin_ids])
    vector_log.purge(run.paths, run.space.name, run.number, pin_ids, run.started)
    run.counts.deleted += len(pin_ids)


def _delete_gone(run: _Run, scan: PinScan) -> None:
    stored = [(key, event) for key, had_vector, event in scan.gone if had_vector]
    keys = [key for key, _ in stored]
    run.ledger.doubt(run.space.name, run.number, keys, [event for _, event in stored])
    _delete(run, keys)
    run.store.flush()
    run.ledger.remove(run.space.name, run.number, [key for key, _, _ in scan.gone])


def _entries(batch: list[PinChange]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "key": [change.pin_id for change in batch],
        "raw": [change.raw for change in batch],
        "text_fp": [change.text_fp for change in batch],
        "payload_fp": [change.payload_fp for change in batch],
        "event_timestamp": [change.event_timestamp for change in batch],
    }
    return pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})
