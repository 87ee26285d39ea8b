"""Reading publications: any number of processes at once, none of them writing to what it reads.

Loading a collection rewrites some small files, so each reader loads a private copy of those and shares the big ones.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import published as disk
from .edge import EdgeReads, missing
from .edge_collection import EdgeCollection
from .errors import NoPublicationError, StoreCorruptError, StoreError
from .files import PrivateFolder, lock_shared, shadow_tree
from .port import CollectionSpec, Condition, Point
from .published import Published

READERS = "readers"
"""Private copies of the readers' processes, beside the publications."""


class Reader(EdgeReads):
    """A read-only :class:`~.port.VectorStore` over one publication; :meth:`refresh` switches to the newest.

    It loads private copies of the small files and shares the big ones, so any number of readers may run.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._private: PrivateFolder | None = None
        self._copies: dict[str, _Copy] = {}
        self._published = self._switch()
        self._private = PrivateFolder(self.root / READERS)

    @property
    def number(self) -> int:
        """The number of the publication that is read."""
        return self._published.number

    @property
    def release(self) -> dict[str, Any] | None:
        """The release in the publication that is read."""
        return self._published.release

    @property
    def created_at(self) -> str:
        """When the publication that is read was made, ISO 8601."""
        return self._published.created_at

    def refresh(self) -> bool:
        """Switch to the newest publication, all collections at once; whether there was a newer one."""
        if disk.newest_number(self.root) == self.number:
            return False
        with self._lock:
            before = self.number
            self._published = self._switch()
            return self.number != before

    def collections(self) -> dict[str, CollectionSpec]:
        """See :class:`~.port.VectorStore`."""
        return dict(sorted(self._published.specs.items()))

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def drop(self, name: str) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def upsert(self, name: str, points: Iterable[Point]) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        """Refused: a reader never writes."""
        raise self._refusal()

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Let the publication go and remove the private copies."""
        with self._lock:
            self._copies = {}
            private, self._private = self._private, None
            if private is not None:
                private.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refusal(self) -> StoreError:
        return StoreError(f"A reader of {self.root} cannot write; use open_writer.")

    def _switch(self) -> Published:
        failure: OSError | None = None
        for _ in range(20):  # a publication may be removed between reading its marker and locking it
            found = disk.newest(self.root)
            if found is None:
                raise NoPublicationError(f"There is no publication under {self.root} yet: write and publish first.")
            try:
                copies = {name: self._lock_copy(place) for name, place in found.collections.items()}
            except OSError as error:
                failure = error
                continue
            for name, copy in copies.items():
                if name in self._copies and self._copies[name].loaded:
                    copy.load(self._folder())  # before the switch: no request waits for it
            self._copies = copies
            return found
        raise StoreCorruptError(
            f"The newest publication under {self.root} lacks a collection it refers to ({failure}). Publish again."
        )

    def _lock_copy(self, place: str) -> _Copy:
        for copy in self._copies.values():
            if copy.place == place:
                return copy
        return _Copy(self.root / disk.FOLDER, place)

    def _folder(self) -> Path:
        if self._private is None:
            raise StoreError(f"This reader of {self.root} was closed; open it again.")
        return self._private.path

    def _open(self, name: str) -> EdgeCollection:
        if os.getpid() != self._pid:
            raise StoreError(f"This reader of {self.root} was opened before a fork; open it in the new process.")
        copy = self._copies.get(name)
        if copy is None or not copy.loaded:
            with self._lock:
                folder = self._folder()
                copy = self._copies.get(name)
                if copy is None:
                    raise missing(name, self._published.collections)
                return copy.load(folder)
        return copy.load(Path())


class _Copy:
    """A reader's hold on one published collection: locked from the start, loaded on first use."""

    def __init__(self, publications: Path, place: str) -> None:
        self.place = place
        self._source = publications / place
        self._lock_fd = lock_shared(disk.lock_file(self._source))
        self._pid = os.getpid()
        self._shadow: Path | None = None
        self._collection: EdgeCollection | None = None

    @property
    def loaded(self) -> bool:
        return self._collection is not None

    def load(self, private: Path) -> EdgeCollection:
        if self._collection is None:
            self._shadow = private / self.place.replace("/", "-")
            shutil.rmtree(self._shadow, ignore_errors=True)  # of a load that failed
            try:
                shadow_tree(self._source, self._shadow)
            except OSError as error:
                raise StoreError(f"The publication {self._source} cannot be read: {error}.") from error
            self._collection = EdgeCollection(self._shadow)
        return self._collection

    def __del__(self) -> None:
        # A call that still uses the collection keeps it alive; its files are open, so they may be removed.
        if getattr(self, "_lock_fd", None) is None:
            return
        os.close(self._lock_fd)
        if self._shadow is not None and os.getpid() == self._pid:
            shutil.rmtree(self._shadow, ignore_errors=True)
