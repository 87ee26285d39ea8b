"""What Qdrant Edge raises, as our errors: corrupt files raise Rust panics, which are no ``Exception``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import StoreBusyError, StoreCorruptError, StoreError


class CollectionClosedError(StoreError):
    """The collection was closed by another thread."""


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn whatever the engine raises, Rust panics included, into :class:`StoreError`."""
    try:
        yield
    except (StoreError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic derives from BaseException alone
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "Shard is not initialized" in reason:
            raise CollectionClosedError(f"{what} failed: it was closed meanwhile.") from error
        if "WouldBlock" in reason:
            raise StoreBusyError(
                f"{what} failed: the folder is in use by another process, and an Edge folder belongs to one. "
                "Wait until that process has finished, or read through a publication."
            ) from error
        if type(error).__name__ == "PanicException" or "load" in reason or "IO Error" in reason or "decod" in reason:
            raise StoreCorruptError(
                f"{what} failed: its files cannot be read ({reason}). Move the folder away and write the collection "
                "again, or restore it from a backup."
            ) from error
        raise StoreError(f"{what} failed: {reason}") from error
