"""Micro-batching: texts that several threads want encoded at once go through the model in one call.

No clock decides, so a lone text waits for nothing. While one call runs, the texts that arrive wait; then whoever of
their askers wakes up first encodes those that wait, one of each asker in turn up to :data:`MAX_BATCH`, so that one who
brings thousands does not keep the others waiting for all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving_client.stages import DeadlineError, seconds_left

Vector = NDArray[np.floating[Any]]
Encode = Callable[[list[str]], NDArray[np.floating[Any]]]
"""Texts to vectors, one row each."""
Load = Callable[[], Encode]
"""Gives what encodes. Where that fails, everybody who waits gets the error; where encoding fails, each text is tried
alone, and only who asked for one that fails alone gets its error."""

MAX_BATCH = 64
"""Most texts of one call: enough to fill a processor, few enough that a newcomer is not kept waiting."""


@dataclass(eq=False)
class Job:
    """A text on its way through the model, and how many threads wait for it."""

    digest: bytes
    text: str
    askers: int = 1
    running: bool = False
    keep: bool = True
    """False if it was evicted meanwhile: its askers get it, the cache does not."""
    answer: Vector | Exception | None = None

    def result(self) -> Vector:
        """The vector, read-only.

        :raises Exception: what went wrong with this text.
        """
        if isinstance(self.answer, Exception):
            raise self.answer.with_traceback(None)
        assert self.answer is not None  # whoever waited for it saw it done
        return self.answer


class Lane:
    """The texts that wait for one tower, of which one call runs at a time.

    :param lock: held by the caller of every method but :meth:`obtain`.
    :param done: called under the lock with the jobs of a batch and the calls that they took.
    """

    def __init__(self, lock: threading.Lock, done: Callable[[Sequence[Job], int], None]) -> None:
        self.jobs: dict[bytes, Job] = {}
        """By digest: those that wait or run, of which a further asker waits for the same one."""
        self._done = done
        self._woken = threading.Condition(lock)
        self._turns: deque[deque[Job]] = deque()
        """The jobs of each asker that nobody has taken yet."""
        self._busy = False

    def add(self, jobs: Collection[Job]) -> None:
        """Queue the jobs of one asker."""
        self.jobs.update({job.digest: job for job in jobs})
        self._turns.append(deque(jobs))

    def leave(self, jobs: Iterable[Job]) -> None:
        """One asker no longer waits for ``jobs``; nobody encodes what nobody waits for."""
        for job in jobs:
            job.askers -= 1
            if not job.askers and not job.running and self.jobs.get(job.digest) is job:
                del self.jobs[job.digest]

    def obtain(self, jobs: Collection[Job], load: Load) -> None:
        """Wait until each of ``jobs`` is done, and encode what waits whenever nobody else does.

        :raises DeadlineError: if the deadline of this request passes meanwhile; the others go on.
        """
        open_jobs = deque(jobs)
        while batch := self._next_batch(open_jobs):
            self._lead(batch, load)

    def _next_batch(self, open_jobs: deque[Job]) -> list[Job]:
        """What this thread has to encode now; nothing when each of ``open_jobs``, which lose their first, is done."""
        with self._woken:
            while open_jobs:
                if open_jobs[0].answer is not None:
                    open_jobs.popleft()
                    continue
                left = seconds_left()
                if left == 0:
                    raise DeadlineError("The deadline passed while the vector of the query was being made.")
                if not self._busy and (batch := self._take()):
                    self._busy = True
                    return batch
                self._woken.wait(left)
            return []

    def _take(self) -> list[Job]:
        batch: list[Job] = []
        while self._turns and len(batch) < MAX_BATCH:
            turn = self._turns.popleft()
            while turn and not turn[0].askers:
                turn.popleft()
            if turn:
                batch.append(turn.popleft())
                batch[-1].running = True
                self._turns.append(turn)
        return batch

    def _lead(self, batch: list[Job], load: Load) -> None:
        answers: list[Vector | Exception] = []
        calls = 0
        try:
            answers, calls = _encode([job.text for job in batch], load)
        finally:
            with self._woken:
                self._busy = False
                for job, answer in zip(batch, answers, strict=False):
                    job.answer = answer
                    if self.jobs.get(job.digest) is job:
                        del self.jobs[job.digest]
                if not answers:  # this thread was interrupted: another one takes them
                    for job in batch:
                        job.running = False
                        if not job.askers and self.jobs.get(job.digest) is job:  # whoever asks next begins anew
                            del self.jobs[job.digest]
                    self._turns.appendleft(deque(batch))
                self._done(batch if answers else (), calls)
                self._woken.notify_all()


def _encode(texts: list[str], load: Load) -> tuple[list[Vector | Exception], int]:
    """A vector or an error for each text, and how often the model was called."""
    try:
        encode = load()
    except Exception as error:
        return [error] * len(texts), 0
    try:
        return list(_rows(encode, texts)), 1
    except Exception as error:
        if len(texts) == 1:
            return [error], 1
    return [_alone(encode, text) for text in texts], 1 + len(texts)


def _alone(encode: Encode, text: str) -> Vector | Exception:
    try:
        return _rows(encode, [text])[0]
    except Exception as error:
        return error


def _rows(encode: Encode, texts: list[str]) -> list[Vector]:
    rows = np.asarray(encode(texts))
    if len(rows) != len(texts):
        raise ValueError(f"The query tower gave {len(rows)} vectors for {len(texts)} texts.")
    return [own(row) for row in rows]


def own(row: Vector) -> Vector:
    """A copy, so that a vector does not keep its whole batch in memory; read-only, as threads share it."""
    vector = row.copy()
    vector.flags.writeable = False
    return vector
