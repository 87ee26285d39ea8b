"""Indexes over the vectors of an Edge folder: HNSW graphs, built in a process of their own.

Below some 50,000 vectors the engine is fast enough reading all of them. Above, a search goes through a graph (Malkov
and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World
graphs", 2018). Building one holds up every thread of the process that does it for minutes, so a child does it, in a
copy of the folder: whatever becomes of the child, the folder stays as it was.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StoreError
from .files import write_durably

EF = 128
"""Candidates that a search keeps on its way through the graph; more are slower and miss fewer."""
PATIENCE = 120.0
PATIENCE_A_POINT = 0.02
"""Seconds that a child has, and more for each point: some twenty times what it needs."""
INDEXER = Path(__file__).with_name("edge_indexer.py")
"""The program that the child runs."""
_POLL_SECONDS = 0.2
_LIKELY = {
    signal.SIGKILL: ", most often for lack of memory",
    signal.SIGBUS: ", most often because the disk is full",
    signal.SIGXFSZ: ", because a file may not be that large",
}
"""Signal that ended the child to why that happens."""


class IndexingError(StoreError):
    """An index could not be built; the collection is as it was."""


@dataclass(frozen=True)
class Indexing:
    """When the vectors of a collection are indexed, and how."""

    points: int = 50_000
    """A collection of more vectors than this is."""
    share: float = 0.2
    """It is indexed anew when more vectors than this share of the indexed ones are not: a search reads each of them.
    So it is when as many are gone: a search does not step over them, and the graph of those that are left falls apart.
    """
    m: int = 16
    """Links of a vector in the graph."""
    ef_construct: int = 100
    """Candidates for them that are looked at."""
    full_scan_kb: int = 10_000
    """Kilobytes of vectors below which a search reads them all, also of those that match a filter."""

    def due(self, indexed: int, unindexed: int, gone: int = 0) -> bool:
        """Whether a collection of so many vectors in an index, and so many that are not, is to be indexed now.

        :param gone: how many of both were deleted or replaced since.
        """
        return indexed + unindexed > self.points and max(unindexed, gone) > self.share * indexed

    def to_json(self) -> dict[str, Any]:
        """What the engine's configuration file says of it."""
        hnsw = {"m": self.m, "ef_construct": self.ef_construct, "full_scan_threshold": self.full_scan_kb}
        # 1 kB, 1 %: whatever there is gets indexed, and what is gone left out, as it is decided here and not by the
        # engine when that is worth it.
        whatever = {"indexing_threshold": 1, "deleted_threshold": 0.01, "vacuum_min_vector_number": 1}
        return {"hnsw_config": hnsw, "optimizers": whatever | {"default_segment_number": 1}}


INDEXING = Indexing()
"""How the collections of this process are indexed."""


def vector_counts(folder: Path) -> tuple[int, int]:
    """How many vectors of the collection in ``folder`` were put in an index, and how many others have a place.

    From the engine's files: it counts sparse vectors with the dense ones, and those of an index that were replaced.
    """
    indexed = sum(
        json.loads(file.read_text())["indexed_vector_count"]
        for file in folder.glob("segments/*/vector_index-*/hnsw_config.json")
    )
    growing = folder.glob("segments/*/vector_storage-*/vectors/status.dat")  # the number of vectors, 64 bits
    return indexed, sum(int.from_bytes(file.read_bytes()[:8], "little") for file in growing)


def build_index(
    folder: Path, config: Path, points: int, indexing: Indexing, stop: Callable[[], bool] | None = None
) -> None:
    """Index the vectors in ``folder``, which nobody else uses; where that fails it is spoilt.

    :param config: the engine's configuration file in it. :param stop: asked five times a second; True ends it.
    :raises IndexingError: if the child fails, is killed or does not end in time, or ``stop`` said so.
    """
    try:
        reason = _indexed(folder, config, points, indexing, stop)
    except OSError as error:  # a full disk, or no memory for another process
        reason = error.strerror or type(error).__name__
    if reason is not None:
        raise IndexingError(f"The vectors in {folder} were not indexed: {reason}.")


def _indexed(
    folder: Path, config: Path, points: int, indexing: Indexing, stop: Callable[[], bool] | None
) -> str | None:
    """See :func:`build_index`; why it failed, None where it did not."""
    write_durably(config, json.dumps(json.loads(config.read_text()) | indexing.to_json()))
    ends = time.monotonic() + PATIENCE + PATIENCE_A_POINT * points
    command = [sys.executable, "-P", str(INDEXER), str(folder), str(os.getpid())]
    with (
        tempfile.TemporaryFile() as said,
        # In a session of its own: Ctrl-C in a terminal is for the run, which ends the child itself.
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said, start_new_session=True) as child,
    ):
        try:
            reason = _wait(child, ends, stop)
        finally:
            if child.poll() is None:
                child.kill()
        if reason is None and child.returncode:
            said.seek(0)
            words = said.read()[-1000:].decode("utf-8", "replace").strip().splitlines()
            reason = _ended(child.returncode, words[-1] if words else "")
    return reason


def _ended(code: int, words: str) -> str:
    """Why a child failed that ended with ``code``, negative for a signal, and said ``words`` last."""
    if code > 0:
        return words or f"its process ended with {code}"
    try:
        name, likely = signal.Signals(-code).name, _LIKELY.get(signal.Signals(-code), "")
    except ValueError:  # a real-time signal, which has no name
        name, likely = f"signal {-code}", ""
    return f"its process was ended by {name}{likely}" + (f" ({words})" if words else "")


def _wait(child: subprocess.Popen[bytes], ends: float, stop: Callable[[], bool] | None) -> str | None:
    """Wait for ``child``; why it should not be waited for any longer, None once it has ended."""
    while True:
        try:
            child.wait(_POLL_SECONDS)
            return None
        except subprocess.TimeoutExpired:
            if stop is not None and stop():
                return "the run was asked to stop"
            if time.monotonic() >= ends:
                return "it took too long"
