"""Collections on a Qdrant server or cluster, over HTTP or gRPC, or in this process's memory (for tests).

What the port needs and Qdrant lacks is kept in the collection's metadata; only collections with it are ours. The
server keeps a payload as it is, packed keys too, so ``packed`` counts in comparisons and does nothing else there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy.typing as npt
from qdrant_client import QdrantClient, models

from .checks import check_filter, check_id, check_name, check_newer, check_points, check_query, check_sparse, drop_older
from .errors import BadInputError, CollectionMissingError, SpecMismatchError, StoreError, missing
from .payload import selection
from .place import Place
from .port import (
    DEFAULT_VECTOR,
    CollectionSpec,
    Condition,
    Hit,
    IndexKind,
    PayloadFields,
    Point,
    SparseVector,
)
from .server_calls import Connection, ExistsError, Patience, TooLargeError
from .server_models import (
    arrays,
    create_arguments,
    from_sparse,
    index_schema,
    mark,
    older_than,
    read_spec,
    to_filter,
    to_point,
    to_sparse,
)

BATCH = 500
"""Points of one request when writing."""
BATCH_NUMBERS = 1_000_000
"""Vector elements of one request: about 20 MB of JSON, where Qdrant takes 32."""
READ = 1000
"""Ids of one request when reading or deleting."""
RELEASES = "@@release"
"""How the names of the collections end that hold releases; no other collection's name can."""

T = TypeVar("T")


class ServerStore:
    """A :class:`~.port.VectorStore` over one :class:`~.server_calls.Connection`; threads may share it.

    A write returns once Qdrant has acknowledged it. One that fails may be half done; repeating it gives the whole.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, place: Place, patience: Patience | None = None) -> ServerStore:
        """The store at a place with a ``url``, or a new, empty one for ``":memory:"``."""
        return cls(Connection(place, patience))

    def create(self, name: str, spec: CollectionSpec) -> None:
        """See :class:`~.port.VectorStore`."""
        self.create_hidden(check_name(name), spec)

    def collections(self) -> dict[str, CollectionSpec]:
        """See :class:`~.port.VectorStore`. Those that somebody else made on the server are left out."""
        specs = {}
        for name in self._names():
            try:
                found = self._find(name)
            except CollectionMissingError:  # dropped since it was listed
                continue
            if found is not None:
                specs[name] = found
        return specs

    def drop(self, name: str) -> None:
        """See :class:`~.port.VectorStore`."""
        check_name(name)
        try:
            ours = self._find(name) is not None
        except CollectionMissingError:
            return
        if not ours:
            raise _not_ours(SpecMismatchError, name, "It is left as it is; remove it with Qdrant's own tools.")
        try:
            self._call(name, "Dropping", lambda client: client.delete_collection(name))
        except CollectionMissingError:  # by somebody else, meanwhile
            return
        self._connection.specs.pop(name, None)

    def upsert(self, name: str, points: Iterable[Point], unless_newer: str | None = None) -> None:
        """See :class:`~.port.VectorStore`."""
        spec = self._spec(name)
        checked = check_points(name, spec, points)
        if unless_newer is None:
            checked = list({point.id: point for point in checked}.values())
        else:
            check_newer(name, spec, checked, unless_newer)
            checked = drop_older(checked, unless_newer, {})  # so that the order within a request does not count
        size = max(1, min(BATCH, BATCH_NUMBERS // max(1, sum(v.size for v in spec.vectors.values()))))
        for start in range(0, len(checked), size):
            self._write(name, checked[start : start + size], unless_newer)

    def get_many(
        self, name: str, ids: Sequence[str], with_payload: PayloadFields = True, with_vectors: bool = False
    ) -> list[Point | None]:
        """See :class:`~.port.VectorStore`."""
        spec = self._spec(name)
        canonical = [check_id(point_id) for point_id in ids]
        wanted: list[Any] = list(dict.fromkeys(canonical))
        options = _wanted(spec, with_payload, with_vectors)
        found: dict[str, Point] = {}
        for start in range(0, len(wanted), READ):
            for record in self._retrieve(name, wanted[start : start + READ], options):
                found[str(record.id)] = Point(str(record.id), record.payload or {}, arrays(record.vector))
        return [found.get(point_id) for point_id in canonical]

    def get_sparse(self, name: str, ids: Sequence[str], using: str) -> list[SparseVector | None]:
        """See :class:`~.port.VectorStore`."""
        check_sparse(name, self._spec(name), using)
        canonical = [check_id(point_id) for point_id in ids]
        wanted: list[Any] = list(dict.fromkeys(canonical))
        found: dict[str, SparseVector | None] = {}
        for start in range(0, len(wanted), READ):
            records = self._retrieve(
                name, wanted[start : start + READ], {"with_payload": False, "with_vectors": [using]}
            )
            found |= {str(record.id): from_sparse(record.vector, using) for record in records}
        return [found.get(point_id) for point_id in canonical]

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
        """See :class:`~.port.VectorStore`."""
        spec = self._spec(name)
        checked = check_query(name, spec, using, vector, limit)
        check_filter(name, spec, filter)
        if isinstance(checked, SparseVector) and not len(checked.indices):
            return []  # it shares an index with nothing
        query = to_sparse(checked) if isinstance(checked, SparseVector) else checked.tolist()
        params = models.SearchParams(exact=True) if exact and not self._connection.in_memory else None
        condition = None if filter is None else to_filter(filter)
        answer = self._call(
            name,
            "Searching",
            lambda client: client.query_points(
                name,
                query=query,
                using=using,
                limit=limit,
                query_filter=condition,
                search_params=params,
                **_wanted(spec, with_payload, with_vectors),
                **self._connection.waits(),
            ),
        )
        return [Hit(str(p.id), p.score, p.payload or {}, arrays(p.vector)) for p in answer.points]

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        """See :class:`~.port.VectorStore`."""
        if (ids is None) == (filter is None):
            raise BadInputError("delete takes either ids or a filter.")
        spec = self._spec(name)
        if filter is not None:
            check_filter(name, spec, filter)
            self._delete(name, models.FilterSelector(filter=to_filter(filter)))
        canonical: list[Any] = [check_id(point_id) for point_id in (() if ids is None else ids)]
        for start in range(0, len(canonical), READ):
            self._delete(name, models.PointIdsList(points=canonical[start : start + READ]))

    def count(self, name: str, filter: Condition | None = None) -> int:
        """See :class:`~.port.VectorStore`."""
        check_filter(name, self._spec(name), filter)
        condition = None if filter is None else to_filter(filter)
        return self._call(name, "Counting in", lambda client: client.count(name, condition, exact=True)).count

    def scroll(
        self,
        name: str,
        filter: Condition | None = None,
        limit: int = 1000,
        after: str | None = None,
        with_payload: PayloadFields = True,
        with_vectors: bool = False,
    ) -> tuple[list[Point], str | None]:
        """See :class:`~.port.VectorStore`."""
        if limit < 1:
            raise BadInputError(f"limit is at least 1, not {limit}.")
        spec = self._spec(name)
        check_filter(name, spec, filter)
        start = None if after is None else check_id(after)
        condition = None if filter is None else to_filter(filter)
        records, following = self._call(
            name,
            "Reading from",
            lambda client: client.scroll(
                name, condition, limit=limit, offset=start, **_wanted(spec, with_payload, with_vectors)
            ),
        )
        points = [Point(str(r.id), r.payload or {}, arrays(r.vector)) for r in records]
        return points, None if following is None else str(following)

    def flush(self) -> None:
        """See :class:`~.port.VectorStore`. Nothing to do: every write waits for its acknowledgement."""

    def close(self) -> None:
        """See :class:`~.port.VectorStore`."""
        self._connection.close()

    def _call(self, name: str, what: str, run: Callable[[QdrantClient], T]) -> T:
        """A call on one collection, whose remembered spec is forgotten when the server sees it otherwise."""
        try:
            return self._connection.call(f"{what} {name}", run)
        except CollectionMissingError:
            self._connection.specs.pop(name, None)
            raise missing(name, self._names()) from None
        except BadInputError:
            self._connection.specs.pop(name, None)
            raise

    def _retrieve(self, name: str, ids: list[Any], options: dict[str, Any]) -> list[models.Record]:
        options = {**options, **self._connection.waits()}
        return self._call(name, "Reading from", lambda client: client.retrieve(name, ids, **options))

    def _delete(self, name: str, chosen: models.FilterSelector | models.PointIdsList) -> None:
        self._call(name, "Deleting from", lambda client: client.delete(name, chosen, wait=True))

    def _names(self) -> list[str]:
        found = self._connection.call("Listing the collections", lambda client: client.get_collections())
        return sorted(c.name for c in found.collections if not c.name.endswith(RELEASES))

    def _find(self, name: str) -> CollectionSpec | None:
        """The spec as the server has it now; None if somebody else made the collection.

        :raises CollectionMissingError: if there is none; without the names of those that there are.
        """
        info = self._connection.call(f"Looking at {name}", lambda client: client.get_collection(name))
        return read_spec(info)

    def _spec(self, name: str) -> CollectionSpec:
        known = self._connection.specs.get(name)
        if known is not None and not self._connection.closed:
            return known
        try:
            found = self._find(name)
        except CollectionMissingError:
            raise missing(name, self._names()) from None
        if found is None:
            raise _not_ours(CollectionMissingError, name, "Read it with Qdrant's own tools.")
        self._connection.specs[name] = found
        return found

    def create_hidden(self, name: str, spec: CollectionSpec) -> None:
        """:meth:`create`, also for the names that callers may not use."""
        found = self._make(name, spec)
        if found is None:
            raise _not_ours(SpecMismatchError, name, "Rename it, or remove it with Qdrant's own tools.")
        if found != spec:
            raise SpecMismatchError(
                f"The collection {name} exists with {found.describe()}, not with {spec.describe()}. "
                "Give the new vectors a collection of their own, or drop this one first."
            )
        lacking = {path: kind for path, kind in spec.indexes.items() if found.indexes.get(path) != kind}
        self._index(name, found, lacking)
        self._connection.specs[name] = replace(found, indexes={**found.indexes, **lacking})

    def _index(self, name: str, spec: CollectionSpec, lacking: dict[str, IndexKind]) -> None:
        if lacking and self._connection.in_memory:  # which has no indexes, so it notes only that they were asked for
            notes = mark(spec, {**spec.indexes, **lacking})
            self._call(name, "Indexing", lambda client: client.update_collection(name, metadata=notes))
            return
        for path, kind in lacking.items():
            make = partial(QdrantClient.create_payload_index, field_schema=index_schema(kind), wait=True)
            self._call(name, "Indexing", partial(make, collection_name=name, field_name=path))

    def _make(self, name: str, spec: CollectionSpec) -> CollectionSpec | None:
        """The spec of the collection, which is made if there is none; None if somebody else made it."""
        with suppress(CollectionMissingError):
            return self._find(name)
        options = dict(self._connection.options)
        options["metadata"] = {**(options.get("metadata") or {}), **mark(spec)}
        arguments = {**options, **create_arguments(spec)}
        with suppress(ExistsError):  # made by another process, or by a try of ours whose answer was lost
            self._connection.call(f"Making {name}", lambda client: client.create_collection(name, **arguments))
        return self._find(name)

    def _write(self, name: str, points: Sequence[Point], unless_newer: str | None) -> None:
        try:
            self._send(name, points, unless_newer)
        except TooLargeError:
            if len(points) == 1:
                raise
            half = len(points) // 2
            self._write(name, points[:half], unless_newer)
            self._write(name, points[half:], unless_newer)

    def _send(self, name: str, points: Sequence[Point], unless_newer: str | None) -> None:
        if unless_newer is None:
            whole = [to_point(point) for point in points]
            self._call(name, "Writing to", lambda client: client.upsert(name, whole, wait=True))
            return
        groups: dict[int, list[models.PointStruct]] = {}
        for point in points:
            groups.setdefault(point.payload[unless_newer], []).append(to_point(point))
        operations: list[Any] = [
            models.UpsertOperation(
                upsert=models.PointsList(points=group, update_filter=older_than(unless_newer, number))
            )
            for number, group in groups.items()
        ]
        self._call(name, "Writing to", lambda client: client.batch_update_points(name, operations, wait=True))


def _wanted(spec: CollectionSpec, with_payload: PayloadFields, with_vectors: bool) -> dict[str, Any]:
    if not isinstance(with_payload, bool):
        selection(with_payload)  # refuses what is no path
        with_payload = list(with_payload) or False
    return {"with_payload": with_payload, "with_vectors": (sorted(spec.vectors) or False) if with_vectors else False}


def _not_ours(kind: type[StoreError], name: str, advice: str) -> StoreError:
    return kind(f"The collection {name} exists on the server, but was not made by this store. {advice}")
