"""Between the port's words and qdrant-client's models; the client turns these into JSON or gRPC by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError
from qdrant_client import models

from .errors import BadInputError
from .port import (
    And,
    CollectionSpec,
    Condition,
    FloatVector,
    IndexKind,
    Match,
    Not,
    Or,
    Point,
    Range,
    SparseVector,
    VectorSpec,
)

MARK = "pinfeather"
"""Key of the collection metadata under which a store keeps what Qdrant itself has no place for."""

_DISTANCES = {
    "dot": models.Distance.DOT,
    "cosine": models.Distance.COSINE,
    "euclid": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}
_NAMES: dict[str, Any] = {distance.value: name for name, distance in _DISTANCES.items()}
_KINDS: dict[str, IndexKind] = {"keyword": "keyword", "integer": "integer", "float": "float", "bool": "bool"}
_OWN_ARGUMENTS = ("collection_name", "vectors_config", "sparse_vectors_config", "vectors", "sparse_vectors")


# --- collections ---------------------------------------------------------------------------------------------------


def create_arguments(spec: CollectionSpec) -> dict[str, Any]:
    """The arguments of ``create_collection`` that follow from the spec."""
    return {
        "vectors_config": {
            name: models.VectorParams(
                size=vector.size,
                distance=_DISTANCES[vector.distance],
                datatype=models.Datatype.FLOAT16 if vector.half else None,
            )
            for name, vector in spec.vectors.items()
        },
        "sparse_vectors_config": {
            name: models.SparseVectorParams(modifier=models.Modifier.IDF) for name in spec.sparse
        },
    }


def mark(spec: CollectionSpec, indexes: Mapping[str, IndexKind] | None = None) -> dict[str, Any]:
    """The metadata of a collection of ours.

    :param indexes: kept too where the engine has none of its own (in memory).
    """
    kept = {"sparse": list(spec.sparse), "packed": list(spec.packed), "indexes": dict(indexes or {})}
    return {MARK: {key: value for key, value in kept.items() if value}}


def read_spec(info: models.CollectionInfo) -> CollectionSpec | None:
    """The spec of a collection of ours; None of one that somebody else made."""
    params, ours = info.config.params, (info.config.metadata or {}).get(MARK)
    vectors = params.vectors or {}
    if not isinstance(ours, dict) or not isinstance(vectors, dict):
        return None
    indexes = {path: _KINDS[kind] for path, kind in ours.get("indexes", {}).items()}
    for path, index in (info.payload_schema or {}).items():
        kind = _KINDS.get(str(getattr(index.data_type, "value", index.data_type)))
        if kind is not None:
            indexes[path] = kind
    order = ours.get("sparse", ())
    sparse = sorted(params.sparse_vectors or {}, key=lambda name: order.index(name) if name in order else len(order))
    return CollectionSpec(
        {
            name: VectorSpec(v.size, _NAMES[v.distance.value], v.datatype == models.Datatype.FLOAT16)
            for name, v in vectors.items()
        },
        tuple(sparse),
        tuple(ours.get("packed", ())),
        indexes,
    )


def read_options(text: str) -> dict[str, Any]:
    """The further arguments of ``create_collection`` that a configuration gives as the JSON text of a mapping.

    :raises BadInputError: naming what Qdrant does not know, and what a store sets by itself.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise BadInputError(f"collection is a mapping, such as {{replication_factor: 2}}, not {text!r}.") from error
    if not isinstance(given, dict):
        raise BadInputError(f"collection is a mapping, such as {{replication_factor: 2}}, not {text!r}.")
    own = sorted(given.keys() & set(_OWN_ARGUMENTS))
    if own:
        raise BadInputError(f"collection may not hold {', '.join(own)}: these follow from the feature views.")
    allowed = models.CreateCollection.model_fields.keys() - set(_OWN_ARGUMENTS)
    unknown = sorted(given.keys() - allowed)
    if unknown:
        raise BadInputError(
            f"collection holds {', '.join(unknown)}, which Qdrant's create_collection does not know; "
            f"it knows {', '.join(sorted(allowed))}."
        )
    if MARK in (given.get("metadata") or {}):
        raise BadInputError(f"collection may not hold metadata under {MARK!r}: the store keeps its own notes there.")
    try:
        typed = models.CreateCollection.model_validate(given)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]]
        raise BadInputError(f"collection is not what Qdrant's create_collection takes: {'; '.join(wrong)}.") from None
    return {key: getattr(typed, key) for key in given}


def index_schema(kind: IndexKind) -> models.PayloadSchemaType:
    """Qdrant's name of a payload index."""
    return models.PayloadSchemaType(kind)


# --- points --------------------------------------------------------------------------------------------------------


def to_point(point: Point) -> models.PointStruct:
    """A checked point, every number as it is."""
    vectors: dict[str, Any] = {name: values.tolist() for name, values in point.vectors.items()}
    for name, sparse in point.sparse.items():
        vectors[name] = to_sparse(sparse)
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def to_sparse(vector: SparseVector) -> models.SparseVector:
    """A checked sparse vector."""
    return models.SparseVector(indices=np.asarray(vector.indices).tolist(), values=np.asarray(vector.values).tolist())


def from_sparse(vectors: Any, name: str) -> SparseVector | None:
    """The sparse vector of that name in an answer, by ascending index; None where there is none."""
    stored = vectors.get(name) if isinstance(vectors, dict) else None
    if stored is None:
        return None
    indices, values = np.array(stored.indices, np.uint32), np.array(stored.values, np.float32)
    order = np.argsort(indices)
    return SparseVector(indices[order], values[order])


def arrays(vectors: Any) -> dict[str, FloatVector]:
    """The dense vectors of an answer as float32."""
    if not isinstance(vectors, dict):
        return {}
    return {name: np.asarray(values, np.float32) for name, values in vectors.items() if isinstance(values, list)}


# --- filters -------------------------------------------------------------------------------------------------------


def older_than(key: str, number: int) -> models.Filter:
    """What a stored point must be, so that one with ``number`` at ``key`` may replace it."""
    return models.Filter(must_not=[models.FieldCondition(key=key, range=models.Range(gt=number))])


def to_filter(condition: Condition) -> models.Filter:
    """A condition as Qdrant's filter.

    :raises BadInputError: if it is made of something else than the port's conditions.
    """
    match condition:
        case And(conditions):
            return models.Filter(must=[to_filter(c) for c in conditions])
        case Or([]) | Match(_, None, []):
            # An empty "should" would match everything, an empty list of values has no type over gRPC.
            return models.Filter(must=[models.HasIdCondition(has_id=[])])
        case Or(conditions):
            return models.Filter(should=[to_filter(c) for c in conditions])
        case Not(inner):
            return models.Filter(must_not=[to_filter(inner)])
        case Match(key, None, any_of) if {type(value) for value in any_of or ()} not in ({str}, {int}):
            return to_filter(Or(tuple(Match(key, value) for value in any_of or ())))
        case Match() | Range():
            return models.Filter(must=[_field_condition(condition)])
        case _:
            raise BadInputError(f"A filter is made of Match, Range, And, Or and Not, not of {condition!r}.")


def _field_condition(condition: Match | Range) -> models.FieldCondition:
    key = condition.key
    try:
        if isinstance(condition, Range):
            bounds = models.Range(gte=condition.gte, gt=condition.gt, lte=condition.lte, lt=condition.lt)
            return models.FieldCondition(key=key, range=bounds)
        if condition.any_of is not None:
            values: Any = list(condition.any_of)
            return models.FieldCondition(key=key, match=models.MatchAny(any=values))
        if isinstance(condition.value, float):
            return models.FieldCondition(key=key, range=models.Range(gte=condition.value, lte=condition.value))
        value: Any = condition.value
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    except ValidationError as error:
        raise BadInputError(
            f"The filter {condition!r} cannot be asked of Qdrant: {error.errors()[0]['msg']}."
        ) from None
