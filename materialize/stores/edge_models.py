"""Between the port's words and the engine's objects; the binding's traps with values are handled here."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import qdrant_edge as engine

from .conditions import And, Condition, Match, Not, Or, Range
from .edge_index import EF
from .errors import BadInputError
from .points import CollectionSpec, FloatVector, IndexKind, Point, SparseVector

DISTANCES = {
    "dot": engine.Distance.Dot,
    "cosine": engine.Distance.Cosine,
    "euclid": engine.Distance.Euclid,
    "manhattan": engine.Distance.Manhattan,
}
_INDEXES: Mapping[IndexKind, engine.PayloadSchemaType] = {
    "keyword": engine.PayloadSchemaType.Keyword,
    "integer": engine.PayloadSchemaType.Integer,
    "float": engine.PayloadSchemaType.Float,
    "bool": engine.PayloadSchemaType.Bool,
}
_PLACEHOLDER = "none"
"""Edge wants at least one vector: a payload-only collection declares this sparse one and never uses it."""


def to_config(spec: CollectionSpec, search_threads: int | None = None) -> engine.EdgeConfig:
    """The engine's configuration of a new collection, or of one that is loaded to be searched by so many threads."""
    half = engine.VectorStorageDatatype.Float16
    dense = {
        name: engine.EdgeVectorParams(v.size, DISTANCES[v.distance], datatype=half if v.half else None)
        for name, v in spec.vectors.items()
    }
    sparse = {name: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf) for name in spec.sparse}
    if not dense and not sparse:
        sparse = {_PLACEHOLDER: engine.EdgeSparseVectorParams()}
    return engine.EdgeConfig(vectors=dense, sparse_vectors=sparse, max_search_threads=search_threads)


def search_params(exact: bool, filtered: bool) -> engine.SearchParams:
    """How to search; it matters only where there is an index."""
    if exact:
        return engine.SearchParams(exact=True)
    # The graph of all points falls apart for the few that match: without ACORN, which steps over those that do not,
    # a filter that a quarter of the points match loses half of the ten nearest.
    acorn = engine.AcornSearchParams(enable=True, max_selectivity=1.0) if filtered else None
    return engine.SearchParams(hnsw_ef=EF, acorn=acorn)


def sparse_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The sparse vectors of the engine's configuration file; the placeholder, which has no modifier, is none."""
    declared = config.get("sparse_vectors") or {}
    return tuple(name for name, parameters in declared.items() if parameters.get("modifier") == "idf")


def to_index(path: str, kind: IndexKind) -> engine.UpdateOperation:
    """The operation that makes a payload index, in place of one of another kind."""
    return engine.UpdateOperation.create_field_index(path, _INDEXES[kind])


def to_point(point: Point, payload: dict[str, Any]) -> engine.Point:
    """A checked point with the payload as it is stored."""
    if not point.vectors and not point.sparse:
        return engine.Point(point.id, {}, payload)
    # A view of C floats is taken in half the time that a list takes to make and to take in.
    vectors: dict[str, Any] = {name: vector.data for name, vector in point.vectors.items()}
    for name, sparse in point.sparse.items():
        vectors[name] = to_sparse(sparse)
    return engine.Point(point.id, vectors, payload)


def to_sparse(vector: SparseVector) -> engine.SparseVector:
    """A checked sparse vector."""
    return engine.SparseVector(vector.indices.tolist(), vector.values.tolist())


def from_sparse(vector: Any) -> SparseVector:
    """A stored sparse vector."""
    return SparseVector(np.array(vector.indices, np.uint32), np.array(vector.values, np.float32))


def vector_reader(spec: CollectionSpec) -> Callable[[Any], dict[str, FloatVector]]:
    """A function that turns a record's vectors into read-only float32 arrays, the dense ones only."""
    # The engine gives lists of floats: packing these as C floats takes a third of the time that numpy takes.
    packers = {name: struct.Struct(f"{vector.size}f").pack for name, vector in spec.vectors.items()}

    def read(vectors: Any) -> dict[str, FloatVector]:
        if not vectors:
            return {}
        return {
            name: np.frombuffer(packers[name](*values), dtype=np.float32)
            for name, values in vectors.items()
            if name in packers
        }

    return read


def to_filter(condition: Condition | None) -> engine.Filter | None:
    """The engine's filter.

    :raises BadInputError: if ``condition`` is made of something else than the port's conditions.
    """
    return None if condition is None else _filter(condition)


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
