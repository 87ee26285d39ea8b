"""Query vectors kept in memory: least recently used by bytes, without texts, each computed once across threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from feature_repo.errors import UsageError
from feature_repo.text import query_digest
from serving_client.queries.micro_batch import Job, Lane, Load, Vector, own
from serving_client.stages import stage

Key = tuple[str, bytes]
"""(fingerprint of the query tower, digest of the canonical query): a vector is never found under another model."""

ENTRY_OVERHEAD = 400
"""Bytes that an entry costs besides its numbers: array, digest and tuple objects, slot and links in the table."""
_WARM_AT_ONCE = 256
"""Entries warmed between two moments in which requests may look up."""


@dataclass(frozen=True)
class CacheStats:
    """Counts since the cache was made, each distinct query of a call counted once, and what it holds now."""

    hits: int = 0
    misses: int = 0
    """Queries that had to be encoded."""
    shared: int = 0
    """Queries that another thread was just having encoded."""
    evictions: int = 0
    """Entries that left for want of room."""
    entries: int = 0
    bytes: int = 0
    max_bytes: int = 0
    batches: int = 0
    """Calls of a query tower."""
    encoded: int = 0
    """Queries that got an answer from a tower; fewer than the misses where requests gave up waiting."""
    warmed: int = 0
    """Entries that came from files of `promote --warm`."""

    @property
    def hit_rate(self) -> float:
        """Share of the queries that cost no encoding; 0 before the first."""
        return (self.hits + self.shared) / max(self.hits + self.shared + self.misses, 1)

    def since(self, before: CacheStats) -> CacheStats:
        """The counts between ``before`` and now, such as those of one minute; sizes are those of now."""
        return CacheStats(
            hits=self.hits - before.hits,
            misses=self.misses - before.misses,
            shared=self.shared - before.shared,
            evictions=self.evictions - before.evictions,
            entries=self.entries,
            bytes=self.bytes,
            max_bytes=self.max_bytes,
            batches=self.batches - before.batches,
            encoded=self.encoded - before.encoded,
            warmed=self.warmed - before.warmed,
        )


class QueryCache:
    """Vectors by (query-tower fingerprint, canonical query), of which only the digest is kept. Threads may share it.

    :param max_bytes: what the entries may take together, overhead counted; 0 keeps nothing.
    :raises UsageError: for a negative size.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise UsageError(f"The query cache cannot have {max_bytes} bytes: give 0 to switch it off, or more.")
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Vector] = OrderedDict()
        self._lanes: dict[str, Lane] = {}
        self._bytes = 0
        self._hits = self._misses = self._shared = self._evictions = 0
        self._batches = self._encoded = self._warmed = 0

    def vectors(self, tower: str, queries: Sequence[str], load: Load) -> dict[str, Vector]:
        """The vector of each distinct query, read-only.

        What is neither kept nor being encoded is encoded together with what other threads ask for meanwhile, see
        :mod:`serving_client.queries.micro_batch`. A failure is kept by nobody.

        :param tower: fingerprint of the query tower.
        :param load: gives the function that encodes, for rows of any float type; called by one thread at a time.
        :raises DeadlineError: if the deadline of this request passes before they are there.
        """
        with stage("cache"):
            digests = {query: query_digest(query) for query in dict.fromkeys(queries)}
            found, jobs, lane = self._look_up(tower, digests)
        if jobs:
            try:
                with stage("embed"):
                    lane.obtain(jobs.values(), load)
            finally:
                with self._lock:
                    lane.leave(jobs.values())
            found.update((query, job.result()) for query, job in jobs.items())
        return found

    def _look_up(self, tower: str, digests: dict[str, bytes]) -> tuple[dict[str, Vector], dict[str, Job], Lane]:
        """Vectors that are kept, and jobs for the others: those of other threads, or new ones, which are queued."""
        found: dict[str, Vector] = {}
        jobs: dict[str, Job] = {}
        fresh: list[Job] = []
        with self._lock:
            lane = self._lane(tower)
            for query, digest in digests.items():
                vector = self._entries.get((tower, digest))
                if vector is not None:
                    self._entries.move_to_end((tower, digest))
                    found[query] = vector
                elif digest in lane.jobs:
                    jobs[query] = lane.jobs[digest]
                    jobs[query].askers += 1
                else:
                    jobs[query] = Job(digest, query)
                    fresh.append(jobs[query])
            if fresh:
                lane.add(fresh)
            self._hits += len(found)
            self._misses += len(fresh)
            self._shared += len(jobs) - len(fresh)
        return found, jobs, lane

    def _lane(self, tower: str) -> Lane:
        if tower not in self._lanes:

            def done(batch: Sequence[Job], calls: int) -> None:
                self._batches += calls
                self._encoded += len(batch)
                for job in batch:
                    if job.keep and job.answer is not None and not isinstance(job.answer, Exception):
                        self._keep((tower, job.digest), job.answer)

            self._lanes[tower] = Lane(self._lock, done)
        return self._lanes[tower]

    def _keep(self, key: Key, vector: Vector) -> None:
        size = entry_bytes(vector)
        if size > self.max_bytes:
            return
        self._drop(key)  # it may have been warmed meanwhile
        self._entries[key] = vector
        self._bytes += size
        while self._bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))
            self._evictions += 1

    def _drop(self, key: Key) -> bool:
        vector = self._entries.pop(key, None)
        if vector is not None:
            self._bytes -= entry_bytes(vector)
        return vector is not None

    def warm(self, tower: str, digests: Sequence[bytes], vectors: Vector) -> int:
        """Fill free room with vectors made before, the first ones being the last to leave; how many found room.

        They push nothing out, and go before everything that was asked for.
        """
        added = 0
        for start in range(0, len(digests), _WARM_AT_ONCE):
            with self._lock:
                for digest, row in zip(
                    digests[start : start + _WARM_AT_ONCE], vectors[start : start + _WARM_AT_ONCE], strict=True
                ):
                    if self._bytes + row.nbytes + ENTRY_OVERHEAD > self.max_bytes:
                        return added
                    key = (tower, digest)
                    if key not in self._entries:
                        self._entries[key] = own(row)
                        self._entries.move_to_end(key, last=False)
                        self._bytes += entry_bytes(row)
                        self._warmed += 1
                        added += 1
        return added

    def evict(self, queries: Iterable[str]) -> int:
        """Let go of canonical queries under every tower; how many vectors were kept.

        What is being encoded just now is answered to those who wait, and not kept.
        """
        digests = {query_digest(query) for query in queries}
        with self._lock:
            towers = {tower for tower, _ in self._entries}
            for lane in self._lanes.values():
                for job in lane.jobs.values():
                    job.keep = job.keep and job.digest not in digests
            return sum(self._drop((tower, digest)) for tower in towers for digest in digests)

    def clear(self) -> int:
        """Let go of everything; how many vectors were kept."""
        return self._clear(())

    def keep_only(self, towers: Collection[str]) -> None:
        """Let go of every entry of another query tower, also of those that are being encoded."""
        self._clear(towers)

    def _clear(self, but: Collection[str]) -> int:
        with self._lock:
            gone = [key for key in self._entries if key[0] not in but]
            for key in gone:
                self._drop(key)
            for tower in [tower for tower in self._lanes if tower not in but]:
                for job in self._lanes.pop(tower).jobs.values():  # whoever waits there has the lane itself
                    job.keep = False
            return len(gone)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, asked: tuple[str, str]) -> bool:
        """Whether (fingerprint of the tower, canonical query) is kept."""
        return (asked[0], query_digest(asked[1])) in self._entries

    @property
    def stats(self) -> CacheStats:
        """Counts and size, of one moment."""
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                shared=self._shared,
                evictions=self._evictions,
                entries=len(self._entries),
                bytes=self._bytes,
                max_bytes=self.max_bytes,
                batches=self._batches,
                encoded=self._encoded,
                warmed=self._warmed,
            )


def entry_bytes(vector: Vector) -> int:
    """What an entry counts for: its numbers and :data:`ENTRY_OVERHEAD`."""
    return vector.nbytes + ENTRY_OVERHEAD
