"""Python's garbage collector out of the way of requests: what is there stays unexamined, and rounds come seldom.

A full round looks at every container object of the process: models, rows, modules, hundreds of thousands of them. It
stops the request that happens to trigger it, and with it the slowest of a hundred. What a process has loaded when it
begins to serve lives as long as it, so :func:`settle` sets it aside (``gc.freeze``) and lets rounds begin less often.
Cyclic garbage is still found, only later; all else is freed at once as ever, by reference counts.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 50)
"""More new container objects than freed ones, by which a round of the youngest begins; then every so many rounds one of
the next older. Python's own: 700 (2,000 from 3.12 on), 10, 10."""


def settle() -> None:
    """Collect once, set everything that is left aside, and collect seldom from now on.

    To be called when the process is warm, and again after a switch to another publication: what the former one held is
    examined once more, so that what of it is garbage goes.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


@contextmanager
def settled() -> Iterator[None]:
    """:func:`settle` for a block; afterwards the collector is as it was."""
    before = gc.get_threshold()
    settle()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
