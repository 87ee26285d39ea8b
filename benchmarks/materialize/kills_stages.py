"""Where a run is, and its death there: the stages of a materializer's process as the kill benchmark counts them."""

from __future__ import annotations

import functools
import mmap
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from materialize import batches, feature_rows, ledger, promotion, run, vector_log
from materialize.stores import publication

NAMES = (
    "elsewhere",
    "scan",
    "encode",
    "upsert",
    "between upsert and commit",
    "shard rename",
    "log merge",
    "publication",
    "promote: gate",
    "promote: switch",
    "over",
)
COMMITTING = ("write_batch", "write_logged", "delete_gone", "_write_view")
"""Functions of the materializer that flush the store and then commit to the ledger."""


class Stages:
    """Follows one process through its stages, counts Python's calls in each, and kills it in one of them.

    What lies in the engine's own code is one call here: moments inside it come from a parent that kills by the clock.

    :param board: shared with the parent: byte 0 is the present stage, eight bytes from 8 on for each stage its calls.
    :param stage: die in this one; empty to live on.
    :param call: at its so many-th call of a Python or C function, counted over the whole process.
    :param counting: count the calls of every stage, which takes a while.
    """

    def __init__(self, board: mmap.mmap, stage: str = "", call: int = 0, *, counting: bool = False) -> None:
        self._board, self._call, self._counting = board, call, counting
        self._stack = [0]
        self._target = NAMES.index(stage) if stage else -1
        self._calls = dict.fromkeys(range(len(NAMES)), 0)
        self._board[0] = 0

    def enter(self, name: str) -> None:
        """Begin a stage inside the present one."""
        self._stack.append(NAMES.index(name))
        self._show()

    def leave(self) -> None:
        """Go back to the stage around the present one."""
        self._stack.pop()
        self._show()

    def within(self, name: str) -> bool:
        """Whether the present stage is ``name``."""
        return self._stack[-1] == NAMES.index(name)

    def close(self) -> None:
        """Leave the counts to the parent."""
        sys.setprofile(None)
        self._board[0] = NAMES.index("over")
        for stage, calls in self._calls.items():
            self._board[8 * stage + 8 : 8 * stage + 16] = calls.to_bytes(8, "little")

    def _show(self) -> None:
        self._board[0] = self._stack[-1]
        watched = self._counting or self._target == self._stack[-1]
        sys.setprofile(self._count if watched else None)

    def _count(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "c_call") or frame.f_code.co_filename == __file__:
            return
        stage = self._stack[-1]
        self._calls[stage] += 1
        if stage == self._target and self._calls[stage] >= self._call:
            os.kill(os.getpid(), signal.SIGKILL)


def counts(board: mmap.mmap) -> dict[str, int]:
    """The calls by stage that a process that lived to its end left on ``board``."""
    return {
        name: int.from_bytes(board[8 * place + 8 : 8 * place + 16], "little")
        for place, name in enumerate(NAMES)
        if name not in ("elsewhere", "over")
    }


def follow(stages: Stages) -> None:
    """Have the materializer of this process tell ``stages`` where it is."""

    def within(owner: Any, name: str, stage: str) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def followed(*words: Any, **named: Any) -> Any:
            stages.enter(stage)
            try:
                return plain(*words, **named)
            finally:
                stages.leave()

        setattr(owner, name, followed)

    within(run, "open_pin_scan", "scan")
    within(run, "count_target", "scan")
    within(feature_rows, "FeatureScan", "scan")
    within(batches, "_encode", "encode")
    for name in ("upsert", "delete"):
        within(publication.Writer, name, "upsert")
    within(vector_log, "compact", "log merge")
    within(run, "_publish", "publication")
    within(promotion, "promote", "promote: gate")
    for name in ("write_release", "_serve"):
        within(promotion, name, "promote: switch")
    _follow_commits(stages)
    _follow_folds(stages)


def _follow_commits(stages: Stages) -> None:
    """From the store's acknowledgement to the ledger's commit."""
    flush = publication.Writer.flush

    def flushed(writer: publication.Writer) -> None:
        stages.enter("upsert")
        try:
            flush(writer)
        finally:
            stages.leave()
        if sys._getframe(1).f_code.co_name in COMMITTING:
            stages.enter("between upsert and commit")

    publication.Writer.flush = flushed  # type: ignore[method-assign]
    for name in ("write", "remove"):
        _committing(stages, name, getattr(ledger.Ledger, name))


def _committing(stages: Stages, name: str, plain: Callable[..., Any]) -> None:
    def committed(*words: Any) -> Any:
        try:
            return plain(*words)
        finally:
            if stages.within("between upsert and commit"):
                stages.leave()

    setattr(ledger.Ledger, name, committed)


def _follow_folds(stages: Stages) -> None:
    """From the first new shard of a fold to the last old one that it removes."""
    write, fold = ledger.Ledger._write_shard, ledger.Ledger.fold

    def written(*words: Any) -> Any:
        if not stages.within("shard rename"):
            stages.enter("shard rename")
        return write(*words)

    def folded(*words: Any) -> None:
        try:
            fold(*words)
        finally:
            if stages.within("shard rename"):
                stages.leave()

    ledger.Ledger._write_shard = written  # type: ignore[method-assign]
    ledger.Ledger.fold = folded  # type: ignore[method-assign]
