"""Files of query vectors that clients begin with: ``data/warm/<space>.npz``, see :mod:`materialize.warm`.

A file has digests of queries (:func:`feature_repo.text.query_digest`) and no text, their vectors as float16, as all
vectors are kept, and the fingerprint of the tower that made them. A file may be deleted at any time.

``data/warm/erased`` has a random mark of the last erasure. A client that sees another one, or none any more, lets go of
all query vectors: which queries were erased it is not told. So the folder may be deleted at any time too; a count would
begin anew then, and come to the number that a client saw last.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.files import write_bytes

FORMAT = 1
_ERASED = "erased"


@dataclass(frozen=True, eq=False)
class WarmVectors:
    """What a file holds, the most searched query first."""

    tower: str
    """Fingerprint of the query tower."""
    digests: list[bytes]
    vectors: NDArray[np.float16]
    """[n, d] unit rows."""
    created_at: str
    """ISO 8601."""

    def without(self, leaves: Callable[[bytes], bool]) -> WarmVectors:
        """What stays when the queries whose digests ``leaves`` names are taken out."""
        kept = [row for row, digest in enumerate(self.digests) if not leaves(digest)]
        return WarmVectors(self.tower, [self.digests[row] for row in kept], self.vectors[kept], self.created_at)


def warm_path(paths: RepoPaths, space: str) -> Path:
    """The file of a space."""
    return paths.warm / f"{space}.npz"


def read_warm(paths: RepoPaths, space: str) -> WarmVectors | None:
    """The vectors made for a space; None where there is no file.

    :raises PinfeatherError: if it cannot be read, is damaged or of another format.
    """
    path = warm_path(paths, space)
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT:
                raise ValueError(f"it is of format {int(file['format'])}, not {FORMAT}")
            digests, vectors = file["digests"], file["vectors"]
            tower, created_at = str(file["tower"]), str(file["created_at"])
        sound = digests.dtype == np.uint8 and vectors.dtype == np.float16 and digests.shape[1:] == (16,)
        if not sound or vectors.ndim != 2 or len(vectors) != len(digests) or not np.isfinite(vectors).all():
            raise ValueError("its arrays do not fit together")
    except FileNotFoundError:
        return None
    except Exception as error:  # over damaged bytes zipfile and numpy raise nearly anything
        raise PinfeatherError(
            f"{path} cannot be read ({error}): delete it, or make it again by `pinfeather promote --warm`."
        ) from error
    raw = digests.tobytes()
    return WarmVectors(tower, [raw[at : at + 16] for at in range(0, len(raw), 16)], vectors, created_at)


def write_warm(paths: RepoPaths, space: str, warm: WarmVectors) -> None:
    """Replace the file of a space as a whole."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        format=np.int64(FORMAT),
        tower=np.str_(warm.tower),
        digests=np.frombuffer(b"".join(warm.digests), np.uint8).reshape(-1, 16),
        vectors=warm.vectors,
        created_at=np.str_(warm.created_at),
    )
    write_bytes(warm_path(paths, space), buffer.getvalue())


def drop_warm(paths: RepoPaths, space: str) -> None:
    """Delete the file of a space."""
    warm_path(paths, space).unlink(missing_ok=True)


def warm_spaces(paths: RepoPaths) -> list[str]:
    """Spaces that have a file."""
    return sorted(path.stem for path in paths.warm.glob("*.npz") if not path.name.startswith("."))


def last_erasure(paths: RepoPaths) -> bytes:
    """The mark of the last erasure that ended its work on these files; empty where there is none."""
    try:
        return (paths.warm / _ERASED).read_bytes()
    except OSError:  # none yet, or nothing that can be read: that it is another one is all that matters
        return b""


def mark_erasure(paths: RepoPaths) -> None:
    """Have running clients let go of all query vectors."""
    write_bytes(paths.warm / _ERASED, f"{secrets.token_hex(16)}\n".encode())
