"""Deaths of a run inside this process: at the n-th call of a step, before it or when it is done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple
from unittest.mock import patch

from conftest import CountingEncoder

from materialize import vector_log
from materialize.ledger import Ledger
from materialize.stores.edge_collection import EdgeCollection
from materialize.stores.publication import Writer


class Killed(SystemExit):
    """As a kill leaves things: nobody handles it, and what the engine raises is told from it."""


class Seam(NamedTuple):
    """A call at which a run dies, before or after it is done."""

    owner: Any
    name: str


SEAMS = {
    "encoder": Seam(CountingEncoder, "encode"),
    "doubt": Seam(Ledger, "doubt"),
    "store upsert": Seam(EdgeCollection, "upsert"),
    "store delete": Seam(EdgeCollection, "delete"),
    "store flush": Seam(Writer, "flush"),
    "log": Seam(vector_log, "append"),
    "log purge": Seam(vector_log, "purge"),
    "log merge": Seam(vector_log, "compact"),
    "ledger commit": Seam(Ledger, "write"),
    "ledger removal": Seam(Ledger, "remove"),
    "shards folded": Seam(Ledger, "_sweep"),
    "file renamed": Seam(os, "replace"),
    "folder renamed": Seam(os, "rename"),
    "publication": Seam(Writer, "publish"),
    "live view": Seam(vector_log, "link_live"),
}

EVERYWHERE = tuple(SEAMS)
BATCH_SEAMS = ("encoder", "store upsert", "store flush", "log", "ledger commit", "store delete", "ledger removal")
"""Where the order of a batch's steps matters."""


@contextmanager
def dying(seams: Sequence[str], call: int, done: bool) -> Iterator[list[str]]:
    """The block dies at a call of ``seams``, counted together, before it or when it is ``done``; gives the seam then.

    The ledger then does not learn how the run ended, as after a kill.
    """
    calls, killed = 0, list[str]()

    def unnoted(name: str) -> Any:
        plain = getattr(Ledger, name)
        return patch.object(Ledger, name, lambda *words: None if killed else plain(*words))

    def at(seam: str) -> Any:
        plain = getattr(*SEAMS[seam])

        def called(*words: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if (mine := calls) == call and not done:
                killed.append(seam)
                raise Killed
            result = plain(*words, **named)
            if mine == call:
                killed.append(seam)
                raise Killed
            return result

        return patch.object(*SEAMS[seam], called)

    with ExitStack() as patches, suppress(Killed):
        for name in ("finish_run", "fail_runs"):
            patches.enter_context(unnoted(name))
        for seam in seams:
            patches.enter_context(at(seam))
        yield killed
