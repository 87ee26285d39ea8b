"""Query vectors made before a switch: ``data/warm/<space>.npz``, for clients to begin with instead of an empty cache.

A file holds the head of ``query_stats``: the queries of enough people (`aggregate --min-users`) in the order of their
searches, most first; under equals, the order of their texts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedders.encoder import Encoder, as_stored
from feature_repo.erasures import Erasures, Subject, tables_locked, unless_erased
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.text import canonical_query, query_digest
from materialize.spaces import Space
from materialize.warm_files import (
    WarmVectors,
    drop_warm,
    mark_erasure,
    read_warm,
    warm_path,
    warm_spaces,
    write_warm,
)


def warm_space(
    paths: RepoPaths,
    space: Space,
    count: int,
    encoder: Callable[[], Encoder],
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> int:
    """Write the vectors of the ``count`` most searched queries for ``space``; how many there are.

    Vectors that its file has already, of the same tower, are not made again.

    :param encoder: gives the query tower of the space; asked only where something has to be encoded.
    :param progress: called with the texts that are encoded, and how many there will be.
    :raises UsageError: if there is no ``query_stats``.
    :raises PinfeatherError: if something was erased meanwhile; then nothing is written.
    """
    erasures = Erasures.load(paths)
    queries = head_queries(paths, count, erasures)
    made = _made_before(paths, space)
    missing = [query for query in queries if query_digest(query) not in made]
    if missing:
        done = 0

        def step(more: int) -> None:
            nonlocal done
            done += more
            progress(done, len(missing))

        rows = as_stored(encoder().encode(missing, step)).astype(np.float16)
        made |= zip(map(query_digest, missing), rows, strict=True)
    with unless_erased(paths, erasures):
        still = set(head_queries(paths, None, erasures))  # an erasure may just have counted anew
        digests = [query_digest(query) for query in queries if query in still]
        vectors = np.stack([made[digest] for digest in digests]) if digests else np.zeros((0, space.dimension))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_warm(paths, space.name, WarmVectors(space.query_fingerprint, digests, vectors.astype(np.float16), now))
    return len(digests)


def head_queries(paths: RepoPaths, count: int | None, erasures: Erasures) -> list[str]:
    """The ``count`` most searched canonical queries of ``query_stats``, most first; None for all.

    :param erasures: what must not come back.
    :raises UsageError: if nothing was aggregated.
    """
    source = paths.views / "query_stats.parquet"
    try:
        table = pq.read_table(source, columns=["query", "searches"])
    except FileNotFoundError as error:
        raise UsageError(
            f"--warm wants to know what is searched most, and {source} is not there: run `pinfeather aggregate` first, "
            "or leave --warm out."
        ) from error
    table = table.filter(pa.array(~erasures.rows(Subject.QUERY, table["query"])))
    table = table.sort_by([("searches", "descending"), ("query", "ascending")])
    if count is not None:
        table = table.slice(0, count)
    return [query for query in dict.fromkeys(map(canonical_query, table["query"].to_pylist())) if query]


def _made_before(paths: RepoPaths, space: Space) -> dict[bytes, NDArray[np.float16]]:
    try:
        before = read_warm(paths, space.name)
    except PinfeatherError:  # it is replaced
        return {}
    if before is None or before.tower != space.query_fingerprint or before.vectors.shape[1] != space.dimension:
        return {}
    return dict(zip(before.digests, before.vectors, strict=True))


# --- erasures ---------------------------------------------------------------------------------------------------


def erase_warm(paths: RepoPaths, *, news: bool) -> int:
    """Take out every query that ``query_stats`` no longer has; how many left.

    To be called once the tables were counted anew. Files that cannot be read are deleted.

    :param news: have running clients let go of all query vectors.
    """
    with tables_locked(paths):
        gone = 0
        spaces = warm_spaces(paths)
        if spaces:
            stays = _digests_now(paths)
            gone = sum(_keep_only(paths, space, stays) for space in spaces)
        if news:
            mark_erasure(paths)
    return gone


def _digests_now(paths: RepoPaths) -> frozenset[bytes]:
    try:
        return frozenset(map(query_digest, head_queries(paths, None, Erasures.load(paths))))
    except UsageError:  # nothing is aggregated any more
        return frozenset()


def _keep_only(paths: RepoPaths, space: str, stays: Collection[bytes]) -> int:
    try:
        warm = read_warm(paths, space)
    except PinfeatherError:
        warm = None
    if warm is None:
        drop_warm(paths, space)
        return 0
    kept = warm.without(lambda digest: digest not in stays)
    gone = len(warm.digests) - len(kept.digests)
    if gone:
        write_warm(paths, space, kept)
    return gone


def find_warm(paths: RepoPaths, queries: Collection[str]) -> Iterator[tuple[Path, int]]:
    """Each file with how many of the canonical queries it has.

    :raises PinfeatherError: if a file cannot be read.
    """
    looked = frozenset(map(query_digest, queries))
    for space in warm_spaces(paths):
        warm = read_warm(paths, space)
        if warm is not None:
            yield warm_path(paths, space), sum(digest in looked for digest in warm.digests)
