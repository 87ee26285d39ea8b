"""The one small interface behind which every vector store sits, with the checks that all of them share.

An adapter implements :class:`VectorStore`; it calls :func:`check_points`, :func:`check_query` and :func:`check_name`
first, so that wrong input fails in the same words everywhere and before anything is written.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

from .errors import BadInputError

DistanceName = Literal["dot", "cosine", "euclid", "manhattan"]
DEFAULT_VECTOR = "vector"
"""Name of the one vector of a point where nothing else is said."""

FloatVector = npt.NDArray[np.float32]
PayloadFields = bool | Sequence[str]
"""True: the whole payload; False: none; else the paths wanted, such as ``["event_ts", "f.title"]``."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+~%-]{0,199}")


@dataclass(frozen=True)
class VectorSpec:
    """One named vector: its dimension and how two are compared.

    ``dot`` keeps stored bytes exact, which is what unit vectors want; ``cosine`` normalises them on writing.
    """

    size: int
    distance: DistanceName = "dot"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 65536:
            raise BadInputError(f"A vector has 1 to 65536 dimensions, not {self.size}.")
        if self.distance not in get_args(DistanceName):
            raise BadInputError(f"distance is one of {', '.join(get_args(DistanceName))}, not {self.distance!r}.")


@dataclass(frozen=True)
class CollectionSpec:
    """What a collection holds; ``vectors`` may be empty for a collection of payloads only."""

    vectors: Mapping[str, VectorSpec] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values, read back by :meth:`from_json`."""
        return {"vectors": {n: {"size": v.size, "distance": v.distance} for n, v in sorted(self.vectors.items())}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CollectionSpec:
        """The spec that :meth:`to_json` wrote."""
        return cls({n: VectorSpec(int(v["size"]), v["distance"]) for n, v in data["vectors"].items()})


@dataclass(slots=True)
class Point:
    """One stored point: a UUID, JSON payload, float32 vectors by name (empty where the collection has none)."""

    id: str
    payload: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, FloatVector] = field(default_factory=dict)


@dataclass(slots=True)
class Hit:
    """One search result; a higher ``score`` is nearer for dot and cosine, a lower one for the distances."""

    id: str
    score: float
    payload: dict[str, Any]
    vectors: dict[str, FloatVector]


@dataclass(frozen=True)
class Match:
    """The payload value at ``key`` (nested: ``f.lang``) equals ``value``, or any of ``any_of``."""

    key: str
    value: str | int | bool | float | None = None
    any_of: Sequence[str | int | bool | float] | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.any_of is None):
            raise BadInputError(f"Match({self.key!r}) takes either value or any_of.")


@dataclass(frozen=True)
class Range:
    """The number at ``key`` lies within the given bounds (those that are None do not count)."""

    key: str
    gte: float | None = None
    gt: float | None = None
    lte: float | None = None
    lt: float | None = None


@dataclass(frozen=True)
class And:
    """All conditions hold."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """At least one condition holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The condition does not hold."""

    condition: Condition


Condition = Match | Range | And | Or | Not


@runtime_checkable
class VectorStore(Protocol):
    """Points in named collections. Every method raises :class:`~.errors.StoreError` and nothing else."""

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make a collection; nothing happens if it exists with the same spec.

        :raises SpecMismatchError: if it exists with another spec.
        """
        ...

    def collections(self) -> dict[str, CollectionSpec]:
        """Name and spec of every collection, by name."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection with its points; nothing happens if there is none."""
        ...

    def upsert(self, name: str, points: Iterable[Point]) -> None:
        """Write whole points; one with the same id is replaced. All are checked before the first is written."""
        ...

    def get_many(
        self, name: str, ids: Sequence[str], with_payload: PayloadFields = True, with_vectors: bool = False
    ) -> list[Point | None]:
        """The points of ``ids``, in that order, duplicates included; None where there is none."""
        ...

    def search(
        self,
        name: str,
        vector: npt.ArrayLike,
        limit: int,
        using: str = DEFAULT_VECTOR,
        filter: Condition | None = None,
        with_payload: PayloadFields = True,
        with_vectors: bool = False,
        exact: bool = False,
    ) -> list[Hit]:
        """The ``limit`` nearest points, nearest first. ``exact`` skips an approximate index where there is one."""
        ...

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        """Remove points, either by id (absent ones are ignored) or by a filter."""
        ...

    def count(self, name: str, filter: Condition | None = None) -> int:
        """The exact number of points."""
        ...

    def scroll(
        self,
        name: str,
        filter: Condition | None = None,
        limit: int = 1000,
        after: str | None = None,
        with_payload: PayloadFields = True,
        with_vectors: bool = False,
    ) -> tuple[list[Point], str | None]:
        """One page of points in id order, and what to give as ``after`` for the next page (None: it was the last)."""
        ...

    def flush(self) -> None:
        """Return once everything written so far is on disk."""
        ...

    def close(self) -> None:
        """Release files and memory; may be called twice."""
        ...


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
    try:
        return str(uuid.UUID(point_id))
    except (ValueError, TypeError, AttributeError):
        raise BadInputError(f"A point id is a UUID as text, not {point_id!r}: see layout.point_id.") from None


def check_points(name: str, spec: CollectionSpec, points: Iterable[Point]) -> list[Point]:
    """The points as a list, ids canonical, vectors as float32 arrays of the right size.

    :raises BadInputError: naming the first point that does not fit ``spec``.
    """
    return [Point(check_id(p.id), _check_payload(name, p), _check_vectors(name, spec, p)) for p in points]


def _check_payload(name: str, point: Point) -> dict[str, Any]:
    if not isinstance(point.payload, dict):
        raise BadInputError(f"{name}: the payload of point {point.id} is a dict, not {type(point.payload).__name__}.")
    wrong = _find_odd(point.payload)
    if wrong:
        raise BadInputError(
            f"{name}: the payload of point {point.id} holds {wrong}; a payload is JSON: text that is valid Unicode, "
            "finite numbers, true, false, null, lists and dicts with text keys (see layout.encode_value)."
        )
    return point.payload


def _find_odd(value: Any) -> str | None:
    """What in a payload is no JSON, in words; engines would reject it half-way or store something else silently."""
    kind = type(value)
    if kind is str:
        return None if value.isascii() or _is_unicode(value) else "text with a lone surrogate"
    if kind is dict:
        odd_keys = (f"the key {k!r}" for k in value if type(k) is not str or not _is_unicode(k))
        return next(odd_keys, None) or next(filter(None, map(_find_odd, value.values())), None)
    if kind is list or kind is tuple:
        return next(filter(None, map(_find_odd, value)), None)
    if kind is int:
        return None if -(1 << 63) <= value < 1 << 64 else f"the number {value}, beyond 64 bits"
    if kind is float:
        return None if math.isfinite(value) else f"the number {value}"
    return None if value is None or kind is bool else f"a value of type {kind.__name__}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_vectors(name: str, spec: CollectionSpec, point: Point) -> dict[str, FloatVector]:
    unknown = sorted(set(point.vectors) - set(spec.vectors))
    if unknown:
        known = ", ".join(sorted(spec.vectors)) or "none"
        raise BadInputError(f"{name}: point {point.id} has a vector {unknown[0]!r}; the collection has: {known}.")
    return {
        vector_name: check_vector(name, vector_name, spec.vectors[vector_name], values, f"point {point.id}")
        for vector_name, values in point.vectors.items()
    }


def check_vector(name: str, vector_name: str, spec: VectorSpec, values: npt.ArrayLike, owner: str) -> FloatVector:
    """``values`` as a contiguous float32 array.

    :raises BadInputError: on a wrong dimension, on NaN or infinity (after rounding to float32).
    """
    try:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(np.asarray(values), dtype=np.float32)
    except (ValueError, TypeError):
        raise BadInputError(f"{name}: the vector {vector_name!r} of {owner} is not a list of numbers.") from None
    if array.shape != (spec.size,):
        raise BadInputError(
            f"{name}: the vector {vector_name!r} of {owner} has shape {array.shape}, "
            f"the collection wants ({spec.size},)."
        )
    if not np.isfinite(array).all():
        raise BadInputError(f"{name}: the vector {vector_name!r} of {owner} holds NaN or infinity.")
    return array


def check_query(name: str, spec: CollectionSpec, using: str, vector: npt.ArrayLike, limit: int) -> FloatVector:
    """The query vector as float32.

    :raises BadInputError: if it does not fit the vector ``using``, or ``limit`` is below 1.
    """
    if using not in spec.vectors:
        known = ", ".join(sorted(spec.vectors)) or "none"
        raise BadInputError(f"{name} has no vector {using!r} to search by; it has: {known}.")
    if limit < 1:
        raise BadInputError(f"limit is at least 1, not {limit}.")
    return check_vector(name, using, spec.vectors[using], vector, "the query")
