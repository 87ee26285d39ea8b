"""The one small interface behind which every vector store sits, with the types and checks that all of them share.

An adapter implements :class:`VectorStore`; it calls the functions of :mod:`~materialize.stores.checks` first, so that
wrong input fails in the same words everywhere and before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy.typing as npt

from .checks import (
    check_filter,
    check_id,
    check_name,
    check_newer,
    check_points,
    check_query,
    check_vector,
    drop_older,
)
from .conditions import And, Condition, Match, Not, Or, Range, filter_keys
from .points import (
    DEFAULT_VECTOR,
    TEXT_VECTOR,
    CollectionSpec,
    DistanceName,
    FloatVector,
    Hit,
    IndexKind,
    Point,
    SparseVector,
    VectorSpec,
)

__all__ = [
    "DEFAULT_VECTOR",
    "TEXT_VECTOR",
    "And",
    "CollectionSpec",
    "Condition",
    "DistanceName",
    "FloatVector",
    "Hit",
    "IndexKind",
    "Match",
    "Not",
    "Or",
    "PayloadFields",
    "Point",
    "Range",
    "SparseVector",
    "VectorSpec",
    "VectorStore",
    "check_filter",
    "check_id",
    "check_name",
    "check_newer",
    "check_points",
    "check_query",
    "check_vector",
    "drop_older",
    "filter_keys",
]

PayloadFields = bool | Sequence[str]
"""True: the whole payload; False: none; else the paths wanted, such as ``["event_ts", "f.title"]``."""


@runtime_checkable
class VectorStore(Protocol):
    """Points in named collections. Every method raises :class:`~.errors.StoreError` and nothing else."""

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Make a collection; if it exists with the same spec, only the indexes that it lacks are made.

        :raises SpecMismatchError: if it exists with another spec.
        """
        ...

    def collections(self) -> dict[str, CollectionSpec]:
        """Name and spec of every collection, by name."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection with its points; nothing happens if there is none."""
        ...

    def upsert(self, name: str, points: Iterable[Point], unless_newer: str | None = None) -> None:
        """Write whole points; one with the same id is replaced. All are checked before the first is written.

        :param unless_newer: a payload key with whole numbers, such as ``event_ts``; a stored point whose number is
            greater than the new one's is left as it is.
        """
        ...

    def get_many(
        self, name: str, ids: Sequence[str], with_payload: PayloadFields = True, with_vectors: bool = False
    ) -> list[Point | None]:
        """The points of ``ids``, in that order, duplicates included; None where there is none.

        Payloads and vectors may be shared with other reads: they are not to be changed.
        """
        ...

    def get_sparse(self, name: str, ids: Sequence[str], using: str) -> list[SparseVector | None]:
        """The sparse vector ``using`` of each of ``ids``, in that order, duplicates included; by ascending index.

        None where there is no such point, or it has none.
        """
        ...

    def search(
        self,
        name: str,
        vector: npt.ArrayLike | SparseVector,
        limit: int,
        using: str = DEFAULT_VECTOR,
        filter: Condition | None = None,
        with_payload: PayloadFields = True,
        with_vectors: bool = False,
        exact: bool = False,
    ) -> list[Hit]:
        """The ``limit`` nearest points, nearest first. ``exact`` skips an approximate index where there is one.

        With a :class:`SparseVector` and ``using`` one of the spec's sparse vectors, those that share an index with it.
        """
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
