"""One collection in a Qdrant Edge folder: the engine's traps are handled here and nowhere else.

Edge wants at least one vector, so a payload-only collection declares an unused sparse one. ``retrieve`` drops
duplicate ids and returns UUID objects; corrupt files raise Rust panics, which are no ``Exception``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as engine

from .errors import BadInputError, StoreBusyError, StoreCorruptError, StoreError
from .port import (
    And,
    CollectionSpec,
    Condition,
    FloatVector,
    Hit,
    Match,
    Not,
    Or,
    PayloadFields,
    Point,
    Range,
    VectorSpec,
    check_id,
)

CONFIG = "edge_config.json"
BATCH = 500
"""Points of one engine call when writing."""

_PLACEHOLDER = "none"
_DISTANCES = {
    "dot": engine.Distance.Dot,
    "cosine": engine.Distance.Cosine,
    "euclid": engine.Distance.Euclid,
    "manhattan": engine.Distance.Manhattan,
}


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn whatever the engine raises, Rust panics included, into :class:`StoreError`."""
    try:
        yield
    except (StoreError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic derives from BaseException alone
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "WouldBlock" in reason:
            raise StoreBusyError(
                f"{what} failed: the folder is in use by another process, and an Edge folder belongs to one. "
                "Wait until that process has finished, or read through a publication."
            ) from error
        if type(error).__name__ == "PanicException" or "load" in reason or "IO Error" in reason or "decod" in reason:
            raise StoreCorruptError(
                f"{what} failed: its files cannot be read ({reason}). Move the folder away and write the collection "
                "again, or restore it from a backup."
            ) from error
        raise StoreError(f"{what} failed: {reason}") from error


def read_spec(path: Path) -> CollectionSpec:
    """The spec of the collection in ``path``, from the engine's own configuration file."""
    with engine_errors(f"Opening the collection folder {path}"):
        try:
            vectors = json.loads((path / CONFIG).read_text())["vectors"]
            return CollectionSpec({n: VectorSpec(v["size"], v["distance"].lower()) for n, v in vectors.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreCorruptError(
                f"The collection folder {path} cannot be read: its {CONFIG} is missing or damaged ({error}). "
                "Move the folder away and write the collection again, or restore it from a backup."
            ) from error


class EdgeCollection:
    """An open collection; one process and one object at a time may have it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = read_spec(path)
        with engine_errors(f"Opening the collection folder {path}"):
            self._shard = engine.EdgeShard.load(str(path))

    @classmethod
    def create(cls, path: Path, spec: CollectionSpec) -> EdgeCollection:
        """A new, empty collection in ``path``; a kill in between leaves nothing under that name."""
        building = path.with_name(f".{path.name}.new")
        shutil.rmtree(building, ignore_errors=True)
        with engine_errors(f"Making the collection folder {path}"):
            building.mkdir(parents=True)
            vectors = {
                name: engine.EdgeVectorParams(vector.size, _DISTANCES[vector.distance])
                for name, vector in spec.vectors.items()
            }
            config = (
                engine.EdgeConfig(vectors=vectors)
                if vectors
                else engine.EdgeConfig(sparse_vectors={_PLACEHOLDER: engine.EdgeSparseVectorParams()})
            )
            shard = engine.EdgeShard.create(str(building), config)
            shard.flush()
            shard.close()
            os.rename(building, path)
        return cls(path)

    def close(self) -> None:
        """Release the folder."""
        with engine_errors(f"Closing the collection folder {self.path}"):
            self._shard.close()

    def flush(self) -> None:
        """Return once everything is on disk."""
        with engine_errors(f"Flushing the collection folder {self.path}"):
            self._shard.flush()

    def upsert(self, points: Sequence[Point]) -> None:
        """Write checked points in batches."""
        with engine_errors(f"Writing to {self.path}"):
            for start in range(0, len(points), BATCH):
                batch = [
                    engine.Point(p.id, {n: v.tolist() for n, v in p.vectors.items()}, p.payload)
                    for p in points[start : start + BATCH]
                ]
                self._shard.update(engine.UpdateOperation.upsert_points(batch))

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> None:
        """Remove by id or by filter."""
        with engine_errors(f"Deleting from {self.path}"):
            if ids is not None:
                for start in range(0, len(ids), BATCH):
                    batch: list[Any] = [check_id(i) for i in ids[start : start + BATCH]]
                    self._shard.update(engine.UpdateOperation.delete_points(batch))
            if condition is not None:
                self._shard.update(engine.UpdateOperation.delete_points_by_filter(_filter(condition)))

    def get_many(self, ids: Sequence[str], with_payload: PayloadFields, with_vectors: bool) -> list[Point | None]:
        """Points in the order asked; duplicates are one shared object."""
        wanted: list[Any] = list(dict.fromkeys(ids))
        if not wanted:
            return []
        with engine_errors(f"Reading from {self.path}"):
            try:
                # The engine ignores these two as keywords.
                records = self._shard.retrieve(wanted, _fields(with_payload), with_vectors)
            except (TypeError, ValueError):
                for point_id in wanted:
                    check_id(point_id)
                raise
            points = [Point(str(r.id), r.payload or {}, _arrays(r.vector) if with_vectors else {}) for r in records]
        found = {point.id: point for point in points}
        if len(found) < len(wanted):
            for point_id in wanted:
                if point_id not in found and (canonical := check_id(point_id)) in found:
                    found[point_id] = found[canonical]
        return [found.get(point_id) for point_id in ids]

    def search(
        self,
        vector: FloatVector,
        limit: int,
        using: str,
        condition: Condition | None,
        with_payload: PayloadFields,
        with_vectors: bool,
        exact: bool,
    ) -> list[Hit]:
        """The nearest points to a checked vector, nearest first."""
        request = engine.QueryRequest(
            limit=limit,
            query=engine.Query.Nearest(vector.tolist(), using=using),
            filter=None if condition is None else _filter(condition),
            with_payload=_fields(with_payload),
            with_vector=with_vectors,
            params=engine.SearchParams(exact=True) if exact else None,
        )
        with engine_errors(f"Searching {self.path}"):
            hits = self._shard.query(request)
            return [Hit(str(h.id), h.score, h.payload or {}, _arrays(h.vector)) for h in hits]

    def count(self, condition: Condition | None) -> int:
        """The exact number of points."""
        with engine_errors(f"Counting in {self.path}"):
            return self._shard.count(
                engine.CountRequest(exact=True, filter=None if condition is None else _filter(condition))
            )

    def scroll(
        self,
        condition: Condition | None,
        limit: int,
        after: str | None,
        with_payload: PayloadFields,
        with_vectors: bool,
    ) -> tuple[list[Point], str | None]:
        """One page in id order, and where the next one starts."""
        request = engine.ScrollRequest(
            offset=None if after is None else check_id(after),
            limit=limit,
            filter=None if condition is None else _filter(condition),
            with_payload=_fields(with_payload),
            with_vector=with_vectors,
        )
        with engine_errors(f"Reading from {self.path}"):
            records, following = self._shard.scroll(request)
            points = [Point(str(r.id), r.payload or {}, _arrays(r.vector)) for r in records]
        return points, None if following is None else str(following)


def _fields(with_payload: PayloadFields) -> bool | list[str]:
    return with_payload if isinstance(with_payload, bool) else list(with_payload)


def _arrays(vectors: Any) -> dict[str, FloatVector]:
    if not vectors:
        return {}
    return {name: np.asarray(values, dtype=np.float32) for name, values in vectors.items()}


def _filter(condition: Condition) -> engine.Filter:
    match condition:
        case And(conditions):
            return engine.Filter(must=[_filter(c) for c in conditions])
        case Or(()):
            return engine.Filter(must=[engine.HasIdCondition(set())])  # an empty "should" would match everything
        case Or(conditions):
            return engine.Filter(should=[_filter(c) for c in conditions])
        case Not(inner):
            return engine.Filter(must_not=[_filter(inner)])
        case Match(key, None, any_of) if any_of and {type(value) for value in any_of} not in ({str}, {int}):
            return _filter(Or(tuple(Match(key, value) for value in any_of)))
        case Match() | Range():
            return engine.Filter(must=[_field_condition(condition)])
        case _:
            raise BadInputError(f"A filter is made of Match, Range, And, Or and Not, not of {condition!r}.")


def _field_condition(condition: Match | Range) -> engine.FieldCondition:
    if isinstance(condition, Range):
        bounds = engine.RangeFloat(gte=condition.gte, gt=condition.gt, lte=condition.lte, lt=condition.lt)
        return engine.FieldCondition(condition.key, range=bounds)
    if condition.any_of is not None:
        values: list[Any] = list(condition.any_of)
        return engine.FieldCondition(condition.key, match=engine.MatchAny(values))
    if isinstance(condition.value, float):
        equal = engine.RangeFloat(gte=condition.value, lte=condition.value)
        return engine.FieldCondition(condition.key, range=equal)
    value: Any = condition.value
    if isinstance(value, bool):
        value = np.bool_(value)  # the binding takes Python's True for the number 1
    return engine.FieldCondition(condition.key, match=engine.MatchValue(value))
