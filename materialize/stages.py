"""How long the stages of a run take."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager


@contextmanager
def timed(stages: MutableMapping[str, float], stage: str) -> Iterator[None]:
    """Add the seconds of the block to ``stage``, also if it fails."""
    clock = time.perf_counter()
    try:
        yield
    finally:
        stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - clock
