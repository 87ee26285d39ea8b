"""A program of its own: index the vectors in the folder of an Edge collection, see :mod:`.edge_index`.

    python -P edge_indexer.py FOLDER PARENT

It ends when its parent, whose process id it is given, ends: nobody would take what it makes. It imports nothing of this
package, so that it runs wherever the package is found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(folder: str, parent: int) -> None:
    """Index ``folder``, which the engine's configuration file in it says how to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was said
        sys.exit("the process that asked for it is gone")
    import qdrant_edge

    shard = qdrant_edge.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
