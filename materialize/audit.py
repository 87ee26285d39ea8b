"""Compare source, ledger, vector log and store, and count every disagreement."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.definitions import RepoDefinitions, ViewDefinition, load_definitions
from materialize.ledger import Ledger
from materialize.places import read_store
from materialize.plan import Kind, open_pin_scan, pin_changes
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.scan import FeatureScan, connect, held_pins
from materialize.spaces import Space, load_space
from materialize.stores.layout import entity_collection, point_id, to_micros
from materialize.stores.port import DEFAULT_VECTOR, Match, Point, VectorStore

PAGE = 1000
UNIT_TOLERANCE = 2e-3  # float16 rounding of a 384-dimensional unit vector stays below


@dataclass
class Audit:
    """Counts of one audit; the names are a contract. Everything but ``checked`` and ``ahead`` is 0 when all is well."""

    checked: int = 0
    missing: int = 0
    """In the ledger, not in the store."""
    extra: int = 0
    """In the store, not in the ledger."""
    stale: int = 0
    """Written from another text or row than the source holds now."""
    wrong_space: int = 0
    """A vector of another model than its space's."""
    corrupted: int = 0
    """A vector that is not finite, not of unit length, or not the one in the vector log."""
    ahead: int = 0
    """Feature rows pushed after the scan: newer than their source."""
    repaired: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    """A few names behind each count."""

    @property
    def clean(self) -> bool:
        """True where store, ledger, log and source agree."""
        return not (self.missing + self.extra + self.stale + self.wrong_space + self.corrupted)

    def note(self, kind: str, what: str) -> None:
        """Count one finding of ``kind``."""
        setattr(self, kind, getattr(self, kind) + 1)
        examples = self.examples.setdefault(kind, [])
        if len(examples) < 5:
            examples.append(what)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def audit(
    paths: RepoPaths, sample: int | None = None, seed: int = 0, progress: Callable[[int], None] | None = None
) -> Audit:
    """Audit the live space and every online feature view, as readers see them (the newest publication).

    :param sample: look at this many pins and as many rows of each view, drawn with ``seed``; None looks at all.
    :param progress: called with the number of points checked since the last call.
    :raises PinfeatherError: if nothing was materialized yet.
    """
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"Nothing was materialized in {paths.root} yet: run `pinfeather materialize` first.")
    definitions = load_definitions(paths)
    space = load_space(paths, release.live_space)
    result = Audit()
    with Ledger(paths) as ledger, connect() as con, read_store(paths) as store:
        check = _Check(result, store, random.Random(seed), sample, progress or (lambda _: None), held_pins(paths))
        _audit_space(check, con, definitions, paths, space, ledger)
        for view in definitions.feature_views():
            _audit_view(check, con, definitions.project, view, ledger)
    return result


@dataclass
class _Check:
    result: Audit
    store: VectorStore
    random: random.Random
    sample: int | None
    progress: Callable[[int], None]
    held: frozenset[str]

    def choose(self, ids: list[str]) -> list[str]:
        """All ``ids``, or the sample."""
        if self.sample is None or len(ids) <= self.sample:
            return ids
        return self.random.sample(ids, self.sample)


def _audit_space(
    check: _Check, con: Any, definitions: RepoDefinitions, paths: RepoPaths, space: Space, ledger: Ledger
) -> None:
    entries = ledger.entries(space.name)
    ids = {
        point_id(definitions.project, LIVE_EMBEDDING, {"pin_id": key}): (key, text_fp.hex(), str(payload_fp))
        for key, text_fp, payload_fp in zip(
            entries["key"].to_pylist(), entries["text_fp"].to_pylist(), entries["payload_fp"].to_pylist(), strict=True
        )
        if text_fp is not None
    }
    pin_ids, vectors, _ = vector_log.read_live(paths, space.name)
    logged = {pin_id: row for row, pin_id in enumerate(pin_ids)}
    for found in _pages(check, space.name, list(ids), with_vectors=True):
        for point_uuid, point in found.items():
            key, text_fp, payload_fp = ids[point_uuid]
            if point is None:
                check.result.note("missing", key)
                continue
            expected = vectors[logged[key]] if key in logged else None
            _judge_vector(check.result, key, point, space, (text_fp, payload_fp), expected)
    _find_extra(check, space.name, None, ids)
    _find_pending(check, con, definitions, space, ledger)


def _judge_vector(
    result: Audit,
    key: str,
    point: Point,
    space: Space,
    fingerprints: tuple[str, str],
    logged: npt.NDArray[np.float16] | None,
) -> None:
    vector = point.vectors.get(DEFAULT_VECTOR)
    if point.payload.get("model") != space.model_fingerprint:
        result.note("wrong_space", key)
    elif (point.payload.get("text_fp"), point.payload.get("payload_fp")) != fingerprints:
        result.note("stale", key)
    elif (
        vector is None
        or not np.isfinite(vector).all()
        or abs(float(vector @ vector) - 1) > UNIT_TOLERANCE
        or logged is None
        or not np.array_equal(vector, logged.astype(np.float32))
    ):
        result.note("corrupted", key)


def _find_pending(check: _Check, con: Any, definitions: RepoDefinitions, space: Space, ledger: Ledger) -> None:
    """Pins whose source has moved on since they were written."""
    scan = open_pin_scan(con, definitions, space, ledger, check.held)
    for batch in pin_changes(scan, space.template):
        for change in batch:
            if change.kind in (Kind.CHANGED, Kind.PAYLOAD_ONLY) or (change.kind is Kind.REJECTED and change.had_vector):
                check.result.note("stale", change.pin_id)
    for key, _, _ in scan.gone:
        check.result.note("stale", key)


def _audit_view(check: _Check, con: Any, project: str, view: ViewDefinition, ledger: Ledger) -> None:
    entries = ledger.entries(f"view:{view.name}")
    scan = FeatureScan(con, view, entries, check.held)
    rows = zip(
        entries["key"].to_pylist(), entries["raw"].to_pylist(), entries["event_timestamp"].to_pylist(), strict=True
    )
    ids = {
        point_id(project, view.name, scan.source.entity(key)): (key, str(raw), to_micros(event))
        for key, raw, event in rows
    }
    collection = entity_collection(project, view.join_keys)
    for found in _pages(check, collection, list(ids), with_vectors=False):
        for point_uuid, point in found.items():
            key, raw, event = ids[point_uuid]
            name = f"{view.name}/{key}"
            if point is None:
                check.result.note("missing", name)
            elif point.payload.get("event_ts", 0) > event:
                check.result.note("ahead", name)
            elif point.payload.get("fp") not in (raw, None):  # Feast's own materialize leaves no fingerprint
                check.result.note("stale", name)
    _find_extra(check, collection, view.name, ids)
    for batch in scan.changes():
        for key in batch["key"].to_pylist():
            check.result.note("stale", f"{view.name}/{key}")
    for key in scan.gone:
        check.result.note("stale", f"{view.name}/{key}")


def _pages(check: _Check, collection: str, ids: list[str], *, with_vectors: bool) -> Iterator[dict[str, Point | None]]:
    chosen = check.choose(ids)
    fields = ["text_fp", "payload_fp", "model", "event_ts", "fp"]
    for start in range(0, len(chosen), PAGE):
        page = chosen[start : start + PAGE]
        points = check.store.get_many(collection, page, with_payload=fields, with_vectors=with_vectors)
        check.result.checked += len(page)
        check.progress(len(page))
        yield dict(zip(page, points, strict=True))


def _find_extra(check: _Check, collection: str, view: str | None, ids: Mapping[str, Any]) -> None:
    """Points that no ledger entry stands for; a sampled audit compares counts only."""
    condition = Match("view", view) if view else None
    stored = check.store.count(collection, condition)
    if check.sample is not None:
        check.result.extra += max(0, stored - len(ids))
        return
    after = None
    while True:
        points, after = check.store.scroll(
            collection, condition, limit=PAGE, after=after, with_payload=["key"], with_vectors=False
        )
        for point in points:
            if point.id not in ids:
                check.result.note("extra", str(point.payload.get("key", point.id)))
        if after is None:
            return
