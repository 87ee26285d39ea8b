"""The files behind a view as the file system describes them: one description, the same rows, as in git's index.

A file that changed says so by its size, its inode or the time of its last change (ctime), which no program can set back
as ``touch`` and ``cp -p`` set back the time of modification. Times have grains, of milliseconds to two seconds: a file
that is not older than the moment a scan began could change again within the grain, and is not believed. Files that look
different may still be copies: their bytes tell, which are hashed many times faster than their rows are read.
"""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

_PIECE = 1 << 20


@dataclass(frozen=True)
class FileStates:
    """Some files at one moment."""

    digest: str
    """Equal where paths, sizes, times, inodes and devices are."""
    sizes: str
    """Equal where the sizes are, in any order."""
    files: int
    latest: int
    """When the youngest of them changed last, by either time, in nanoseconds of its file system's clock."""
    devices: frozenset[int]


@dataclass(frozen=True)
class FileClock:
    """What time it was on a file system."""

    now: int
    """Nanoseconds since 1970, as a file that was made at this moment carries them."""
    device: int

    def settled(self, states: FileStates) -> bool:
        """Whether all files lie there and were older: then none could change and look the same."""
        return states.latest < self.now and states.devices <= {self.device}


def source_files(source: str) -> list[Path]:
    """The files behind a path or a pattern in its last part, in order."""
    path = Path(source) if source else None
    if path is None:
        return []
    return sorted(path.parent.glob(path.name)) if glob.has_magic(path.name) else [path] if path.is_file() else []


def file_states(files: Iterable[Path]) -> FileStates | None:
    """How ``files`` are now; None where there is none, or one has just gone. Links are followed."""
    lines, sizes, latest, devices = [], [], 0, set()
    try:
        for path in files:
            found = path.stat()
            devices.add(found.st_dev)
            sizes.append(found.st_size)
            latest = max(latest, found.st_mtime_ns, found.st_ctime_ns)
            numbers = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
            lines.append(repr((os.fspath(path), *numbers)))
    except OSError:
        return None
    if not lines:
        return None
    return FileStates(_digest(lines), _digest(map(str, sorted(sizes))), len(lines), latest, frozenset(devices))


class SeenFiles:
    """Files of sources as they were when they were first asked for."""

    def __init__(self) -> None:
        self._states: dict[str, FileStates | None] = {}
        self._contents: dict[str, str | None] = {}

    def states(self, source: str) -> FileStates | None:
        """How the files of ``source`` were; None where there were none."""
        if source not in self._states:
            self._states[source] = file_states(source_files(source))
        return self._states[source]

    def content(self, source: str) -> str | None:
        """Equal where the files' bytes are, whatever their names; None if the files are no longer as they were."""
        if source not in self._contents:
            before, files = self.states(source), source_files(source)
            content = _digest(sorted(map(_hashed, files)))
            self._contents[source] = content if before and before == file_states(files) else None
        return self._contents[source]


def _hashed(path: Path) -> str:
    """XXH3-128 of the file's bytes; empty if it has just gone."""
    whole, piece = xxhash.xxh3_128(), bytearray(_PIECE)
    try:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(piece):
                whole.update(memoryview(piece)[:size])
    except OSError:
        return ""
    return whole.hexdigest()


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_clock(folder: Path) -> FileClock:
    """The time on the file system of ``folder``, by a file that is made there."""
    with tempfile.TemporaryFile(dir=folder) as file:
        found = os.fstat(file.fileno())
    return FileClock(min(found.st_mtime_ns, found.st_ctime_ns), found.st_dev)
