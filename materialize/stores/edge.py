"""Collections in one folder through Qdrant Edge, Qdrant's own engine in this process.

A folder of collections belongs to one process at a time; :mod:`~materialize.stores.publication` lets others read.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy.typing as npt

from . import edge_index
from .checks import check_filter, check_name, check_newer, check_points, check_query, check_sparse, drop_older
from .columns import Arrays, Columns, Kind
from .conditions import Condition
from .edge_collection import EdgeCollection
from .edge_errors import CollectionClosedError
from .edge_files import CONFIG, read_spec
from .edge_index import Indexing, IndexingError, build_index
from .errors import BadInputError, SpecMismatchError, StoreError, missing
from .files import copy_tree
from .layout import PACKED
from .points import DEFAULT_VECTOR, CollectionSpec, Hit, Point, SparseVector
from .port import PayloadFields
from .row_cache import StoredRow

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_REWRITTEN = ".rewritten"
PAGE = 1000
"""Points of a collection in memory while it is rewritten."""


def _again(read: Callable[Concatenate[EdgeReads, P], T]) -> Callable[Concatenate[EdgeReads, P], T]:
    """Read once more, from what took its place, if a collection is replaced between its opening and the read."""

    @wraps(read)
    def reading(self: EdgeReads, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(self, *args, **kwargs)
        except CollectionClosedError:
            return read(self, *args, **kwargs)

    return reading


class EdgeReads(ABC):
    """The reading half of the port over open collections; shared by the writable store and the reader."""

    @abstractmethod
    def _open(self, name: str) -> EdgeCollection:
        """The open collection.

        :raises CollectionMissingError: if there is none of that name.
        """

    @_again
    def get_many(
        self, name: str, ids: Sequence[str], with_payload: PayloadFields = True, with_vectors: bool = False
    ) -> list[Point | None]:
        """See :class:`~.port.VectorStore`."""
        return self._open(name).get_many(ids, with_payload, with_vectors)

    @_again
    def rows(
        self, name: str, ids: Sequence[str], with_payload: PayloadFields, with_vectors: bool
    ) -> Sequence[StoredRow]:
        """See :class:`~.session.StoreView`."""
        return self._open(name).rows(ids, with_payload, with_vectors)

    @_again
    def get_sparse(self, name: str, ids: Sequence[str], using: str) -> list[SparseVector | None]:
        """See :class:`~.port.VectorStore`."""
        collection = self._open(name)
        check_sparse(name, collection.spec, using)
        return collection.get_sparse(ids, using)

    @_again
    def columns(self, name: str, kind: Kind, keys: Sequence[str]) -> Arrays:
        """See :func:`~.columns.read_columns`."""
        return self._open(name).columns(kind, keys)

    @_again
    def read_ahead(self, name: str, kind: Kind, keys: Sequence[str], max_bytes: int) -> bool:
        """See :meth:`~.columns.Columns.fill`; False where nothing is kept."""
        return self._open(name).read_ahead(kind, keys, max_bytes)

    @_again
    def kept(self, name: str, kind: Kind) -> Columns | None:
        """What is kept of one kind of arrays, None where nothing is."""
        return self._open(name).kept(kind)

    @_again
    def size(self, name: str) -> int:
        """How many points there are; unlike :meth:`count` this costs next to nothing."""
        return self._open(name).size()

    @_again
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
        collection = self._open(name)
        query = check_query(name, collection.spec, using, vector, limit)
        check_filter(name, collection.spec, filter)
        return collection.search(query, limit, using, filter, with_payload, with_vectors, exact)

    @_again
    def count(self, name: str, filter: Condition | None = None) -> int:
        """See :class:`~.port.VectorStore`."""
        collection = self._open(name)
        check_filter(name, collection.spec, filter)
        return collection.count(filter)

    @_again
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
        collection = self._open(name)
        check_filter(name, collection.spec, filter)
        return collection.scroll(filter, limit, after, with_payload, with_vectors)


class EdgeStore(EdgeReads):
    """A :class:`~.port.VectorStore` over the folders ``path/<collection>/``; collections open on first use."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.indexing: Indexing = edge_index.INDEXING
        self._opened: dict[str, EdgeCollection] = {}
        self._lock = threading.RLock()
        self._replaced = threading.Condition(self._lock)
        self._replacing: set[str] = set()
        self._closed = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The store folder {self.path} cannot be made: {error.strerror}.") from error

    def create(self, name: str, spec: CollectionSpec) -> None:
        """See :class:`~.port.VectorStore`."""
        path = self._folder(name)
        with self._lock:
            self._wait_until_replaced(name)
            if not path.is_dir():
                self._will_change(name)
                self._opened[name] = EdgeCollection.create(path, spec)
                return
            found = read_spec(path)
            if found != spec:
                raise SpecMismatchError(
                    f"The collection {name} exists with {found.describe()}, not with {spec.describe()}. "
                    "Give the new spec a collection of its own, or drop this one first."
                )
            lacking = {key: kind for key, kind in spec.indexes.items() if found.indexes.get(key) != kind}
            if lacking:
                collection = self._open(name)
                self._will_change(name)
                collection.add_indexes(lacking)

    def collections(self) -> dict[str, CollectionSpec]:
        """See :class:`~.port.VectorStore`."""
        with self._lock:
            names = sorted(p.name for p in self.path.iterdir() if p.is_dir() and not p.name.startswith("."))
            return {n: self._opened[n].spec if n in self._opened else read_spec(self.path / n) for n in names}

    def drop(self, name: str) -> None:
        """See :class:`~.port.VectorStore`."""
        path = self._folder(name)
        with self._lock:
            self._wait_until_replaced(name)
            opened = self._opened.pop(name, None)
            if opened is not None:
                opened.close()
            if path.is_dir():
                self._will_change(name)
                dropped = path.with_name(f".{name}.dropped")
                shutil.rmtree(dropped, ignore_errors=True)
                os.rename(path, dropped)  # gone at once, even if killed while the files go
                shutil.rmtree(dropped, ignore_errors=True)

    def rewrite(self, name: str) -> None:
        """Write a collection anew from its points: the engine keeps the bytes of deleted and replaced ones for long.

        What is large enough for an index gets one. Who writes to it waits, all else goes on. A kill leaves the old one
        or the new one; :meth:`end_rewrites` ends it.
        """
        path = self._folder(name)
        with self._to_replace(name) as collection:

            def build(fresh: Path) -> None:
                points = _copy_points(collection, fresh)
                if collection.spec.vectors and self.indexing.due(0, points):
                    try:
                        build_index(fresh, fresh / CONFIG, points, self.indexing)
                    except IndexingError as error:
                        logger.warning("%s Searches read all of them until a run indexes them.", error)
                        shutil.rmtree(fresh)
                        _copy_points(collection, fresh)

            self._replace(path, build)

    def unindexed(self, name: str) -> int:
        """How many vectors :meth:`index` would put into the index or take out of it, 0 where it is not worth it yet."""
        with self._lock:
            collection = self._open(name)
            collection.flush()  # before that the engine's files do not say
            indexed, unindexed = collection.vector_counts()
            gone = indexed + unindexed - collection.size() * len(collection.spec.vectors)
        return max(unindexed, gone) if self.indexing.due(indexed, unindexed, gone) else 0

    def index(self, name: str, stop: Callable[[], bool] | None = None) -> None:
        """Index the vectors of a collection, see :mod:`.edge_index`; minutes for 100,000.

        Who writes to this collection waits, all else goes on. A kill leaves it as it was, or indexed.

        :param stop: asked five times a second whether to give up.
        :raises IndexingError: if that fails; the collection is as it was.
        """
        path = self._folder(name)
        with self._to_replace(name) as collection:
            collection.flush()
            vectors = sum(collection.vector_counts())

            def build(fresh: Path) -> None:
                copy_tree(path, fresh)
                build_index(fresh, fresh / CONFIG, vectors, self.indexing, stop)

            try:
                self._replace(path, build)
            except OSError as error:  # a full disk, most often
                raise IndexingError(f"The vectors in {path} were not indexed: {error.strerror}.") from error

    @contextmanager
    def _to_replace(self, name: str) -> Iterator[EdgeCollection]:
        """A collection that stays as it is for the block, whose end may put another one in its place.

        It takes minutes, so the lock is free meanwhile: only who wants to change this collection waits.
        """
        with self._lock:
            self._wait_until_replaced(name)
            collection = self._open(name)
            self._replacing.add(name)
        try:
            yield collection
        finally:
            with self._lock:
                self._replacing.discard(name)
                self._replaced.notify_all()

    def _wait_until_replaced(self, name: str) -> None:
        """Return once nobody is about to replace the collection; the caller holds the lock, which is free meanwhile."""
        self._replaced.wait_for(lambda: name not in self._replacing)

    def _replace(self, path: Path, build: Callable[[Path], None]) -> None:
        """Put what ``build`` makes in a folder of its own in the place of a collection that nobody changes."""
        fresh, old = path.with_name(f".{path.name}{_REWRITTEN}"), path.with_name(f".{path.name}.dropped")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            build(fresh)
            with self._lock:
                self._put(fresh, path, old)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _put(self, fresh: Path, path: Path, old: Path) -> None:
        """Close a collection and rename ``fresh`` to its ``path``; the caller holds the lock."""
        self._will_change(path.name)
        opened = self._opened.pop(path.name)  # before it is closed: who reads from now on waits for the lock
        try:
            opened.close()
        except BaseException:
            self._opened[path.name] = opened
            raise
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
        os.rename(fresh, path)

    def end_rewrites(self) -> None:
        """Put collections in place whose rewrite was killed when the old one was gone already."""
        for fresh in self.path.glob(f".*{_REWRITTEN}"):
            path = fresh.with_name(fresh.name[1 : -len(_REWRITTEN)])
            if not path.is_dir():
                os.rename(fresh, path)

    def upsert(self, name: str, points: Iterable[Point], unless_newer: str | None = None) -> None:
        """See :class:`~.port.VectorStore`."""
        collection = self._open(name)
        checked = check_points(name, collection.spec, points, packs=collection.spec.packed == PACKED)
        if unless_newer is not None:
            check_newer(name, collection.spec, checked, unless_newer)
        with self._lock:
            self._wait_until_replaced(name)
            collection = self._open(name)  # another one, if it was replaced while this waited
            if unless_newer is not None:  # nobody else writes in between: the folder is this process's
                checked = drop_older(checked, unless_newer, collection.newer_values(checked, unless_newer))
            if checked:
                self._will_change(name)
                collection.upsert(checked)

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        """See :class:`~.port.VectorStore`."""
        if (ids is None) == (filter is None):
            raise BadInputError("delete takes either ids or a filter.")
        if ids is not None and not len(ids) and self._folder(name).is_dir():
            return  # nothing to open it for
        collection = self._open(name)
        check_filter(name, collection.spec, filter)
        with self._lock:
            self._wait_until_replaced(name)
            self._will_change(name)
            self._open(name).delete(ids, filter)  # another one, if it was replaced while this waited

    def flush(self) -> None:
        """See :class:`~.port.VectorStore`."""
        with self._lock:
            for collection in self._opened.values():
                collection.flush()

    def close(self) -> None:
        """See :class:`~.port.VectorStore`. Flushes first."""
        with self._lock:
            self._replaced.wait_for(lambda: not self._replacing)
            self._closed = True
            while self._opened:
                _, collection = self._opened.popitem()
                collection.flush()
                collection.close()

    def _will_change(self, name: str) -> None:
        """Called before anything of the collection changes on disk; for subclasses."""

    def _folder(self, name: str) -> Path:
        return self.path / check_name(name)

    def _open(self, name: str) -> EdgeCollection:
        collection = self._opened.get(name)
        if collection is not None:
            return collection
        with self._lock:
            if self._closed:
                raise StoreError(f"The store {self.path} was closed; open it again.")
            path = self._folder(name)
            if not path.is_dir():
                raise missing(name, self.collections())
            return self._opened.setdefault(name, self._opened.get(name) or EdgeCollection(path))


def _copy_points(collection: EdgeCollection, target: Path) -> int:
    """A new collection in ``target`` with the points of another, page by page, all on disk; how many there are."""
    fresh = EdgeCollection.create(target, collection.spec)
    copied = 0
    try:
        after = None
        while True:
            points, after = collection.page(PAGE, after)
            if points:
                fresh.upsert(points)
                copied += len(points)
            if after is None:
                break
        fresh.flush()
    finally:
        fresh.close()
    return copied
