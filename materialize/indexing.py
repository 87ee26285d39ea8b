"""The index over a space's vectors: made at the end of a run, where there are enough to be worth it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from materialize.stores.edge_index import IndexingError
from materialize.stores.publication import Writer
from materialize.stores.session import StoreWriter

logger = logging.getLogger(__name__)


def index_space(
    store: StoreWriter, name: str, tell: Callable[[str], None] | None = None, stop: Callable[[], bool] | None = None
) -> bool:
    """Index the vectors of a space in a folder, see :mod:`materialize.stores.edge_index`; a server does so by itself.

    True where it now has another index, which is to be published.

    Without an index searches are slower and nothing is lost, so a failure is told and stops nothing.
    """
    if not isinstance(store, Writer):
        return False
    count = store.unindexed(name)
    if not count:
        return False
    tell = tell or (lambda words: None)
    tell(f"Indexing {count:,} vectors of {name} for faster searches: minutes for every 100,000.")
    try:
        store.index(name, stop)
    except IndexingError as error:
        logger.warning("space %s: %s", name, error)
        tell(f"{error} Searches in {name} read every vector until a later run indexes them.")
        return False
    return True
