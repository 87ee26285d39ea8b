"""One collection in a Qdrant Edge folder: the engine's traps are handled here and in ``edge_models``, nowhere else.

``retrieve`` drops duplicate ids and returns UUID objects.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, nextafter
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as engine

from .checks import check_id
from .columns import Arrays, ColumnCache, Columns, Kind
from .conditions import Condition
from .edge_errors import engine_errors
from .edge_files import read_spec, write_side_file
from .edge_index import vector_counts
from .edge_models import (
    from_sparse,
    search_params,
    to_config,
    to_filter,
    to_index,
    to_point,
    to_sparse,
    vector_reader,
)
from .edge_search import first_look, nearest_matching
from .payload import Packing, Selection, path_of, select, selection
from .points import CollectionSpec, FloatVector, Hit, IndexKind, Point, SparseVector
from .port import PayloadFields
from .row_cache import ABSENT, CachedRow, CollectionRows, RowCache, StoredRow, cached_row, point_of

T = TypeVar("T")
CLOSE_SECONDS = 10.0
"""So long closing waits for reads."""
BATCH = 500
"""Points of one engine call when writing."""


def _selected(with_payload: PayloadFields) -> Selection | None:
    """What a read wants of whole payloads, None for all."""
    if isinstance(with_payload, bool):
        return None if with_payload else {}
    return selection(with_payload)


class EdgeCollection:
    """An open collection; one process and one object at a time may have it open.

    :param cache: keeps rows that were read, and ``columns`` arrays. Only for a folder that nobody writes to, such as a
        publication's copy.
    """

    def __init__(self, path: Path, cache: RowCache | None = None, columns: ColumnCache | None = None) -> None:
        self.path = path
        self.spec = read_spec(path)
        self._packing = Packing(self.spec.packed)
        self._vectors = vector_reader(self.spec)
        self._dense = list(self.spec.vectors)
        self._rows = None if cache is None else cache.rows_of(self)
        self._column_cache = columns
        self._columns: dict[str, Columns] = {}
        self._graph: bool | None = None
        self._flushed = False  # what a killed process left in the WAL is not either
        self._greatest: dict[str, int] = {}
        with engine_errors(f"Opening the collection folder {path}"):
            # A graph is searched in less time than it takes to hand the work to other threads and back.
            one_thread = cache is not None and vector_counts(path)[0] > 0
            config = to_config(self.spec, search_threads=1) if one_thread else None
            self._shard = engine.EdgeShard.load(str(path), config)

    @classmethod
    def create(cls, path: Path, spec: CollectionSpec) -> EdgeCollection:
        """A new, empty collection in ``path``; a kill in between leaves nothing under that name."""
        building = path.with_name(f".{path.name}.new")
        shutil.rmtree(building, ignore_errors=True)
        with engine_errors(f"Making the collection folder {path}"):
            building.mkdir(parents=True)
            shard = engine.EdgeShard.create(str(building), to_config(spec))
            for field, kind in spec.indexes.items():
                shard.update(to_index(field, kind))
            shard.flush()
            shard.close()
            write_side_file(building, spec)
            os.rename(building, path)
        return cls(path)

    def close(self) -> None:
        """Release the folder, once the reads of other threads that are under way are done."""
        ends = time.monotonic() + CLOSE_SECONDS
        with engine_errors(f"Closing the collection folder {self.path}"):
            while True:
                try:
                    return self._shard.close()
                except RuntimeError as error:  # so the binding refuses while another thread is in a call
                    if "borrowed" not in str(error) or time.monotonic() >= ends:
                        raise
                time.sleep(0.001)

    def flush(self) -> None:
        """Return once everything is on disk; costs nothing where nothing was written since."""
        if self._flushed:
            return
        with engine_errors(f"Flushing the collection folder {self.path}"):
            self._shard.flush()
        self._flushed = True

    def add_indexes(self, indexes: Mapping[str, IndexKind]) -> None:
        """Make payload indexes over the points that are there; one of another kind is replaced."""
        self._flushed = False
        with engine_errors(f"Indexing {self.path}"):
            for field, kind in indexes.items():
                self._shard.update(to_index(field, kind))
            self._shard.flush()
            self.spec = replace(self.spec, indexes={**self.spec.indexes, **indexes})
            write_side_file(self.path, self.spec)

    def size(self) -> int:
        """How many points there are; costs next to nothing."""
        with engine_errors(f"Reading from {self.path}"):
            return self._shard.info().points_count

    def vector_counts(self) -> tuple[int, int]:
        """See :func:`~.edge_index.vector_counts`."""
        with engine_errors(f"Reading from {self.path}"):
            return vector_counts(self.path)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write checked points in batches."""
        pack = self._packing.pack
        self._flushed = False
        for key, greatest in self._greatest.items():  # before the write, which may end half-way
            written = [point.payload.get(key) for point in points]
            self._greatest[key] = max([greatest, *(number for number in written if type(number) is int)])
        with engine_errors(f"Writing to {self.path}"):
            for start in range(0, len(points), BATCH):
                batch = [to_point(point, pack(point.payload)) for point in points[start : start + BATCH]]
                self._shard.update(engine.UpdateOperation.upsert_points(batch))

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> None:
        """Remove by id or by filter."""
        self._flushed = False
        with engine_errors(f"Deleting from {self.path}"):
            if ids is not None:
                for start in range(0, len(ids), BATCH):
                    batch: list[Any] = [check_id(i) for i in ids[start : start + BATCH]]
                    self._shard.update(engine.UpdateOperation.delete_points(batch))
            matching = to_filter(condition)
            if matching is not None:
                self._shard.update(engine.UpdateOperation.delete_points_by_filter(matching))

    def newer_values(self, points: Sequence[Point], key: str) -> dict[str, Any]:
        """Of stored points with the ids of ``points``: what they hold under ``key``, by point id.

        Only of those where this is greater than the least whole number that ``points`` hold there: no other of them
        can be newer than what is to be written, and asking for all would read every payload.
        """
        if not points or not self.size():
            return {}
        least = min(point.payload[key] for point in points)
        if self._greatest_of(key) <= least:
            return {}
        path = path_of(key)
        # Beyond 2**53 a bound is rounded: one below lets too many through, and these are compared exactly anyway.
        exact = abs(least) < 1 << 53
        bound = engine.RangeFloat(gt=float(least)) if exact else engine.RangeFloat(gte=nextafter(float(least), -inf))
        newer: list[Any] = [
            engine.HasIdCondition({point.id for point in points}),
            engine.FieldCondition(path, range=bound),
        ]
        request = engine.ScrollRequest(
            limit=len(points), filter=engine.Filter(must=newer), with_payload=[path], with_vector=False
        )
        with engine_errors(f"Reading from {self.path}"):
            records, _ = self._shard.scroll(request)
            return {str(record.id): (record.payload or {}).get(key) for record in records}

    def _greatest_of(self, key: str) -> float:
        """A number that nothing stored under ``key`` is greater than; infinity where no index says it."""
        if key not in self._greatest:
            path = path_of(key)
            if self.spec.indexes.get(path) != "integer":
                return inf
            order = engine.OrderBy(path, direction=engine.Direction.Desc)
            request = engine.ScrollRequest(limit=1, order_by=order, with_payload=False, with_vector=False)
            with engine_errors(f"Reading from {self.path}"):
                records, _ = self._shard.scroll(request)
                found: list[Any] = [record.order_value for record in records]
            if not all(type(number) is int for number in found):
                return inf
            self._greatest[key] = max(found, default=-(1 << 63))
        return self._greatest[key]

    def get_many(self, ids: Sequence[str], with_payload: PayloadFields, with_vectors: bool) -> list[Point | None]:
        """Points in the order asked; duplicates are one shared object."""
        if self._rows is None:
            return self._points(list(ids), with_payload, with_vectors)
        parts = _selected(with_payload)
        rows = self._cached(list(ids), with_vectors, self._rows)
        points = {point_id: point_of(row, parts, with_vectors) for point_id, row in rows.items()}
        return [points[point_id] for point_id in ids]

    def rows(self, ids: Sequence[str], with_payload: PayloadFields, with_vectors: bool) -> Sequence[StoredRow]:
        """As :meth:`get_many`, but as they are kept where they are: whole, and not unpacked yet."""
        if self._rows is None:
            return self._points(list(ids), with_payload, with_vectors)
        rows = self._cached(list(ids), with_vectors, self._rows)
        return [rows[point_id] for point_id in ids]

    def get_sparse(self, ids: Sequence[str], using: str) -> list[SparseVector | None]:
        """The sparse vector ``using`` of each of ``ids``, None where there is none."""
        wanted: list[Any] = [check_id(point_id) for point_id in ids]
        with engine_errors(f"Reading from {self.path}"):
            records = self._shard.retrieve(list(dict.fromkeys(wanted)), False, [using]) if wanted else []
            found: dict[str, Any] = {str(record.id): (record.vector or {}) for record in records}
        stored = [found.get(point_id, {}).get(using) for point_id in wanted]
        return [None if vector is None else from_sparse(vector) for vector in stored]

    def columns(self, kind: Kind, keys: Sequence[str]) -> Arrays:
        """See :func:`~.columns.read_columns`."""
        kept = self.kept(kind)
        if kept is None:
            return kind.read(self._points, keys)
        return kept.read(keys, lambda missing: kind.read(self._points, missing))

    def read_ahead(self, kind: Kind, keys: Sequence[str], max_bytes: int) -> bool:
        """See :meth:`~.columns.Columns.fill`; False where nothing is kept."""
        kept = self.kept(kind)
        return kept is not None and kept.fill(keys, lambda missing: kind.read(self._points, missing), max_bytes)

    def kept(self, kind: Kind) -> Columns | None:
        """What is kept of one kind of arrays, None where nothing is."""
        if self._column_cache is None:
            return None
        kept = self._columns.get(kind.name)
        if kept is None:  # two threads at once: the one whose columns are lost reads once for nothing
            kept = self._columns[kind.name] = self._column_cache.columns()
        return kept

    def _points(self, ids: list[str], with_payload: PayloadFields, with_vectors: bool) -> list[Point | None]:
        """As :meth:`get_many`, and keeps nothing."""
        fields, parts = self._fields(with_payload)

        def named(record: engine.Record) -> tuple[str, Point]:
            point = self._point(record, parts)
            return point.id, point

        found = self._read(list(dict.fromkeys(ids)), fields, with_vectors, named)
        return [found.get(point_id) for point_id in ids]

    def _read(
        self,
        wanted: Sequence[str],
        fields: bool | list[str],
        with_vectors: bool,
        named: Callable[[engine.Record], tuple[str, T]],
    ) -> dict[str, T]:
        """What ``named`` makes, with its id, of each point that there is of distinct ids; by the id as it was given."""
        if not wanted:
            return {}
        with engine_errors(f"Reading from {self.path}"):
            try:
                # The engine ignores these two as keywords.
                records = self._shard.retrieve(list(wanted), fields, self._vector_names(with_vectors))
            except (TypeError, ValueError):
                for point_id in wanted:
                    check_id(point_id)
                raise
            found = dict(map(named, records))  # one by one: objects of all of them keep the garbage collector busy
        for point_id in [point_id for point_id in wanted if point_id not in found]:
            if (canonical := check_id(point_id)) in found:
                found[point_id] = found[canonical]
        return found

    def _cached(self, ids: list[str], with_vectors: bool, cache: CollectionRows) -> dict[str, CachedRow]:
        """The row of each id, from those that were read before; reads the others."""
        with_vectors = with_vectors and bool(self._dense)
        distinct = list(dict.fromkeys(ids))
        rows = cache.find(distinct, with_vectors)
        if len(rows) < len(distinct):

            def named(record: engine.Record) -> tuple[str, CachedRow]:
                payload = self._packing.unpack(record.payload or {})
                row = cached_row(str(record.id), payload, self._vectors(record.vector), with_vectors)
                return row[0], row

            missing = [point_id for point_id in distinct if point_id not in rows]
            found = self._read(missing, True, with_vectors, named)
            rows |= (fresh := {point_id: found.get(point_id, ABSENT) for point_id in missing})
            cache.keep(fresh)
        return rows

    def search(
        self,
        vector: FloatVector | SparseVector,
        limit: int,
        using: str,
        condition: Condition | None,
        with_payload: PayloadFields,
        with_vectors: bool,
        exact: bool,
    ) -> list[Hit]:
        """The nearest points to a checked vector, nearest first."""
        query: Any = to_sparse(vector) if isinstance(vector, SparseVector) else vector.tolist()
        fields, parts = self._fields(with_payload)
        params = search_params(exact, filtered=condition is not None)

        def ask(most: int, matching: engine.Filter | None, bare: bool) -> list[engine.ScoredPoint]:
            request = engine.QueryRequest(
                limit=most,
                query=engine.Query.Nearest(query, using=using),
                filter=matching,
                with_payload=False if bare else fields,
                with_vector=False if bare else self._vector_names(with_vectors),
                params=params,
            )
            return self._shard.query(request)

        with engine_errors(f"Searching {self.path}"):
            reads_all = using in self.spec.vectors and (exact or not self._has_graph())
            first = first_look(self._shard, self.spec.indexes, limit, condition) if reads_all else None
            if condition is None or first is None:
                hits = ask(limit, to_filter(condition), False)
            else:
                hits = nearest_matching(ask, limit, first, condition)
            if fields is False and not with_vectors:
                return [Hit(str(hit.id), hit.score, {}, {}) for hit in hits]
            points = [self._point(hit, parts) for hit in hits]
            return [Hit(p.id, hit.score, p.payload, p.vectors) for p, hit in zip(points, hits, strict=True)]

    def _has_graph(self) -> bool:
        """Whether searches go through an index; it comes with files that another object opens."""
        if self._graph is None:
            self._graph = vector_counts(self.path)[0] > 0
        return self._graph

    def count(self, condition: Condition | None) -> int:
        """The exact number of points."""
        with engine_errors(f"Counting in {self.path}"):
            return self._shard.count(engine.CountRequest(exact=True, filter=to_filter(condition)))

    def scroll(
        self,
        condition: Condition | None,
        limit: int,
        after: str | None,
        with_payload: PayloadFields,
        with_vectors: bool,
    ) -> tuple[list[Point], str | None]:
        """One page in id order, and where the next one starts."""
        fields, parts = self._fields(with_payload)
        request = engine.ScrollRequest(
            offset=None if after is None else check_id(after),
            limit=limit,
            filter=to_filter(condition),
            with_payload=fields,
            with_vector=self._vector_names(with_vectors),
        )
        with engine_errors(f"Reading from {self.path}"):
            records, following = self._shard.scroll(request)
            points = [self._point(record, parts) for record in records]
        return points, None if following is None else str(following)

    def page(self, limit: int, after: str | None) -> tuple[list[Point], str | None]:
        """One page of whole points, sparse vectors included, so that they can be written elsewhere."""
        names = [*self._dense, *self.spec.sparse]
        request = engine.ScrollRequest(offset=after, limit=limit, with_payload=True, with_vector=names or False)
        with engine_errors(f"Reading from {self.path}"):
            records, following = self._shard.scroll(request)
            points = [self._point(record, None) for record in records]
        for point, record in zip(points, records, strict=True):
            stored: Any = record.vector or {}
            point.sparse = {name: from_sparse(stored[name]) for name in self.spec.sparse if name in stored}
        return points, None if following is None else str(following)

    def _fields(self, with_payload: PayloadFields) -> tuple[bool | list[str], Selection | None]:
        """What to ask the engine for, and what to select of it once it is unpacked (None: all)."""
        if isinstance(with_payload, bool):
            return with_payload, None
        wanted = selection(with_payload)
        if self._packing.keys.isdisjoint(wanted):
            return list(with_payload), None
        return self._packing.fields(with_payload), wanted

    def _vector_names(self, with_vectors: bool) -> bool | list[str]:
        return self._dense if with_vectors and self._dense else False

    def _point(self, record: engine.Record | engine.ScoredPoint, parts: Selection | None) -> Point:
        payload = self._packing.unpack(record.payload or {})
        if parts is not None:
            payload = select(payload, parts)
        return Point(str(record.id), payload, self._vectors(record.vector))
