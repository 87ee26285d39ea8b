"""The vector store of a repository: a folder, or the Qdrant server that ``feature_store.yaml`` names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feature_repo.paths import RepoPaths
from materialize.stores.lease import WriterLease
from materialize.stores.place import Place
from materialize.stores.publication import open_reader, open_writer
from materialize.stores.session import StoreView, StoreWriter, session


def place_of(paths: RepoPaths) -> Place:
    """Where the online store of ``paths`` is.

    :raises PinfeatherError: if ``feature_store.yaml`` configures a store of another kind, or cannot be read.
    :raises StoreError: if an option of it is wrong.
    """
    return Place.of(paths.online_store, paths.root, paths.project)


@contextmanager
def open_store(paths: RepoPaths, purpose: str, lock_timeout: float = 10.0) -> Iterator[StoreWriter]:
    """The repository's one writer; whoever writes publishes.

    A folder is locked by its own lease. A server has none, so the lease lies beside the ledger, which is what two
    runs at once would spoil.

    :raises StoreBusyError: if another process writes for longer than ``lock_timeout`` seconds; nothing was written.
    """
    place = place_of(paths)
    if place.embedded and place.path:
        with open_writer(place.path, lock_timeout=lock_timeout, purpose=purpose) as writer:
            yield writer
        return
    with WriterLease(paths.ledger / "writer.lock", lock_timeout, purpose), session(place).writing(purpose) as writer:
        yield writer


@contextmanager
def read_store(paths: RepoPaths) -> Iterator[StoreView]:
    """The repository's store as other readers see it now.

    :raises NoPublicationError: if nothing was written yet.
    """
    place = place_of(paths)
    if place.embedded and place.path:
        with open_reader(place.path) as reader:
            yield reader
        return
    with session(place).reading() as view:
        yield view
