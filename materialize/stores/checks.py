"""What every adapter of the store port checks first, so that wrong input fails in the same words everywhere."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .conditions import Condition, filter_keys
from .errors import BadInputError
from .payload import LatePayload, first_key
from .points import CollectionSpec, FloatVector, Point, SparseVector, VectorSpec

_CANONICAL_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PLAIN = frozenset({int, float, bool, type(None)})
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+~%-]{0,199}")


def check_name(name: str) -> str:
    """``name``, if a collection may be called so.

    :raises BadInputError: if not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith(".json"):
        raise BadInputError(
            f"{name!r} cannot name a collection: use 1 to 200 of the characters A-Z a-z 0-9 _ . @ + ~ % -, "
            "the first a letter, a digit or an underscore, and no .json at the end."
        )
    return name


def check_id(point_id: str) -> str:
    """``point_id`` in its canonical form.

    :raises BadInputError: if it is no UUID.
    """
    if type(point_id) is str and _CANONICAL_ID.fullmatch(point_id):
        return point_id
    try:
        return str(uuid.UUID(point_id))
    except (ValueError, TypeError, AttributeError):
        raise BadInputError(f"A point id is a UUID as text, not {point_id!r}: see layout.point_id.") from None


def check_points(name: str, spec: CollectionSpec, points: Iterable[Point], packs: bool = False) -> list[Point]:
    """The points as a list, ids canonical, vectors as float32 arrays of the right size, sparse ones as arrays.

    :param packs: leave each :class:`~.payload.LatePayload` as it is; else it is made whole.
    :raises BadInputError: naming the first point that does not fit ``spec``.
    """
    return [
        p
        if packs and type(p.payload) is LatePayload
        else Point(check_id(p.id), _check_payload(name, p), _check_vectors(name, spec, p), _check_sparse(name, spec, p))
        for p in points
    ]


def check_filter(name: str, spec: CollectionSpec, condition: Condition | None) -> None:
    """Refuse a filter on a packed payload key.

    :raises BadInputError: naming the key; or if it is no filter.
    """
    if condition is None:
        return
    for path in sorted(filter_keys(condition)):
        if first_key(path) in spec.packed:
            raise BadInputError(
                f"{name} cannot be filtered by {path!r}: {', '.join(spec.packed)} are stored for reading only."
            )


def check_newer(name: str, spec: CollectionSpec, points: Iterable[Point], key: str) -> None:
    """Refuse points whose ``unless_newer`` number cannot be compared.

    :raises BadInputError: if ``key`` is packed, or a point has no whole number there.
    """
    if key in spec.packed:
        raise BadInputError(f"{name} cannot compare points by {key!r}: it is packed, for reading only.")
    for point in points:
        if type(point.payload.get(key)) is not int:
            raise BadInputError(
                f"{name}: point {point.id} has {point.payload.get(key)!r} under {key!r}; to be written unless the "
                "stored one is newer it needs a whole number there."
            )


def drop_older(points: Iterable[Point], key: str, stored: Mapping[str, Any]) -> list[Point]:
    """Those of ``points`` that are to be written, one an id: as if they were written one by one unless newer.

    :param stored: what is stored under ``key``, by point id; whatever is no number counts as older.
    """
    newest: dict[str, Point] = {}
    for point in points:
        before = newest[point.id].payload[key] if point.id in newest else stored.get(point.id)
        if type(before) is not int or before <= point.payload[key]:
            newest[point.id] = point
    return list(newest.values())


def _check_payload(name: str, point: Point) -> dict[str, Any]:
    if not isinstance(point.payload, dict):
        raise BadInputError(f"{name}: the payload of point {point.id} is a dict, not {type(point.payload).__name__}.")
    if type(point.payload) is LatePayload:
        return point.payload.whole()
    wrong = _find_odd(point.payload)
    if wrong:
        raise BadInputError(
            f"{name}: the payload of point {point.id} holds {wrong}; a payload is JSON: text that is valid Unicode, "
            "finite numbers, true, false, null, lists and dicts with text keys (see layout.encode_value)."
        )
    return point.payload


def _find_odd(payload: dict[str, Any]) -> str | None:
    """What in a payload is no JSON, in words; engines would reject it half-way or store something else silently."""
    values: list[Any] = [payload]
    for value in values:  # grows meanwhile: a loop of its own takes a third of the time of recursion
        kind = type(value)
        if kind is str:
            if not (value.isascii() or _is_unicode(value)):
                return "text with a lone surrogate"
        elif kind is dict:
            for key in value:
                if type(key) is not str or not (key.isascii() or _is_unicode(key)):
                    return f"the key {key!r}"
            values.extend(value.values())
        elif kind is list or kind is tuple:
            values.extend(value)
        elif kind is float and not math.isfinite(value):
            return f"the number {value}"
        elif kind is int and not -(1 << 63) <= value < 1 << 64:
            return f"the number {value}, beyond 64 bits"
        elif kind not in _PLAIN:
            return f"a value of type {kind.__name__}"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_vectors(name: str, spec: CollectionSpec, point: Point) -> dict[str, FloatVector]:
    if not point.vectors:
        return {}
    for vector_name in point.vectors:
        if vector_name not in spec.vectors:
            known = ", ".join(sorted(spec.vectors)) or "none"
            raise BadInputError(f"{name}: point {point.id} has a vector {vector_name!r}; the collection has: {known}.")
    return {
        vector_name: check_vector(name, vector_name, spec.vectors[vector_name], values, f"point {point.id}")
        for vector_name, values in point.vectors.items()
    }


def _check_sparse(name: str, spec: CollectionSpec, point: Point) -> dict[str, SparseVector]:
    if not point.sparse:
        return {}
    for vector_name in point.sparse:
        if vector_name not in spec.sparse:
            known = ", ".join(spec.sparse) or "none"
            raise BadInputError(
                f"{name}: point {point.id} has a sparse vector {vector_name!r}; the collection has: {known}."
            )
    return {n: _check_sparse_vector(name, n, vector, f"point {point.id}") for n, vector in point.sparse.items()}


def check_vector(name: str, vector_name: str, spec: VectorSpec, values: npt.ArrayLike, owner: str) -> FloatVector:
    """``values`` as a contiguous float32 array.

    :raises BadInputError: on a wrong dimension, on NaN or infinity (after rounding to float32).
    """
    array = _float32(name, vector_name, values, owner)
    if array.shape != (spec.size,):
        raise BadInputError(
            f"{name}: the vector {vector_name!r} of {owner} has shape {array.shape}, "
            f"the collection wants ({spec.size},)."
        )
    if not _is_finite(array):
        raise BadInputError(f"{name}: the vector {vector_name!r} of {owner} holds NaN or infinity.")
    return array


def _check_sparse_vector(name: str, vector_name: str, vector: Any, owner: str) -> SparseVector:
    what = f"{name}: the sparse vector {vector_name!r} of {owner}"
    if not isinstance(vector, SparseVector):
        raise BadInputError(f"{what} is a SparseVector(indices, values), not {type(vector).__name__}.")
    values = _float32(name, vector_name, vector.values, owner)
    indices = np.asarray(vector.indices)
    if indices.dtype != np.uint32:
        if indices.size and (indices.dtype.kind not in "iu" or not 0 <= indices.min() <= indices.max() < 1 << 32):
            raise BadInputError(f"{what} has indices that are no whole numbers from 0 to 4294967295.")
        indices = indices.astype(np.uint32)
    if indices.ndim != 1 or values.shape != indices.shape:
        raise BadInputError(
            f"{what} has indices of shape {indices.shape} and values of shape {values.shape}; give one value an index."
        )
    if len(set(indices.tolist())) != len(indices):
        raise BadInputError(f"{what} has an index twice; add their values up.")
    if not _is_finite(values):
        raise BadInputError(f"{what} holds NaN or infinity.")
    return SparseVector(indices, values)


def _float32(name: str, vector_name: str, values: npt.ArrayLike, owner: str) -> FloatVector:
    if type(values) is np.ndarray and values.dtype == np.float32 and values.flags.c_contiguous:
        return values
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(np.asarray(values), dtype=np.float32)
    except (ValueError, TypeError):
        raise BadInputError(f"{name}: the vector {vector_name!r} of {owner} is not a list of numbers.") from None


def _is_finite(array: FloatVector) -> bool:
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())  # the first is quick, but overflows


def check_query(
    name: str, spec: CollectionSpec, using: str, vector: npt.ArrayLike | SparseVector, limit: int
) -> FloatVector | SparseVector:
    """The query vector as float32, a sparse one with uint32 indices.

    :raises BadInputError: if it does not fit the vector ``using``, or ``limit`` is below 1.
    """
    is_sparse = isinstance(vector, SparseVector)
    known = spec.sparse if is_sparse else sorted(spec.vectors)
    if using not in known:
        kind = "sparse vector" if is_sparse else "vector"
        raise BadInputError(f"{name} has no {kind} {using!r} to search by; it has: {', '.join(known) or 'none'}.")
    if limit < 1:
        raise BadInputError(f"limit is at least 1, not {limit}.")
    if isinstance(vector, SparseVector):
        return _check_sparse_vector(name, using, vector, "the query")
    return check_vector(name, using, spec.vectors[using], vector, "the query")


def check_sparse(name: str, spec: CollectionSpec, using: str) -> None:
    """Nothing, if the collection has the sparse vector ``using``.

    :raises BadInputError: if it has none of that name.
    """
    if using not in spec.sparse:
        known = ", ".join(spec.sparse) or "none"
        raise BadInputError(f"{name} has no sparse vector {using!r} to read; it has: {known}.")
