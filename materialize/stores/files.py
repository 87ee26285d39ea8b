"""Files: sparse copies, copies that share big data, durable writes, locks, and private folders of a process."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
import weakref
from pathlib import Path

_BIG_DATA = re.compile(r"(chunk_\d+\.mmap|page_\d+\.dat)")
"""The engine changes these on upserts only, so readers may share them; it overlooks symlinks, hence hard links."""
_BLOCK = 1 << 20
_STALE_SECONDS = 60.0


def copy_sparse(source: Path, target: Path, durable: bool = True) -> None:
    """Copy one file without filling its holes (the engine preallocates 32 MB each); ``durable`` also fsyncs it."""
    with open(source, "rb") as reading, open(target, "wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        try:
            _copy_extents(reading.fileno(), writing.fileno(), size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
            shutil.copyfileobj(reading, writing, _BLOCK)  # a file system without holes
        writing.truncate(size)
        if durable:
            os.fsync(writing.fileno())


def _copy_extents(reading: int, writing: int, size: int) -> None:
    position = 0
    while position < size:
        try:
            start = os.lseek(reading, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole until the end
                return
            raise
        position = os.lseek(reading, start, os.SEEK_HOLE)
        while start < position:
            block = os.pread(reading, min(_BLOCK, position - start), start)
            if not block:
                return
            os.pwrite(writing, block, start)
            start += len(block)


def copy_tree(source: Path, target: Path, skip: frozenset[str] = frozenset()) -> None:
    """A durable sparse copy of a folder, without the top-level entries named in ``skip``."""
    target.mkdir(parents=True)
    for entry in sorted(source.iterdir()):
        if entry.name in skip:
            continue
        if entry.is_dir():
            copy_tree(entry, target / entry.name)
        else:
            copy_sparse(entry, target / entry.name)
    fsync_folder(target)


def shadow_tree(source: Path, target: Path) -> None:
    """A copy of a folder for loading only: small files copied, big data hard-linked where that is possible."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_dir():
            shadow_tree(entry, target / entry.name)
        elif not (_BIG_DATA.fullmatch(entry.name) and _link(entry, target / entry.name)):
            copy_sparse(entry, target / entry.name, durable=False)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or not ours to link
        return False
    return True


def write_durably(path: Path, text: str) -> None:
    """Put ``text`` under ``path`` at once and for good: temporary file, fsync, rename, fsync of the folder."""
    building = path.with_name(f".{path.name}.new")
    with open(building, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(building, path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_shared(path: Path) -> int:
    """Open ``path`` and lock it for reading; the lock lasts until the returned descriptor is closed.

    :raises OSError: if there is no such file, or somebody is removing it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.stat(path)  # gone meanwhile: whoever removed it held the lock before us
    except BaseException:
        os.close(fd)
        raise
    return fd


def lock_exclusive(path: Path) -> int | None:
    """Lock ``path`` against everybody, or None if somebody has it locked or there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


class PrivateFolder:
    """A folder of this process alone, removed on :meth:`close`, at exit, or by the next one if it was killed.

    :param preferred: make it in this folder, so that big data can be linked; a temporary one if that is not writable.
    """

    def __init__(self, preferred: Path) -> None:
        try:
            preferred.mkdir(exist_ok=True)
            _sweep(preferred)
            self.path = Path(tempfile.mkdtemp(dir=preferred))
        except OSError:
            self.path = Path(tempfile.mkdtemp(prefix="edge-reader-"))
        self._fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._remove = weakref.finalize(self, _remove_private, self.path, self._fd, os.getpid())

    def close(self) -> None:
        """Remove the folder; may be called twice."""
        self._remove()


def _remove_private(path: Path, fd: int, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child, whose parent still uses it
        shutil.rmtree(path, ignore_errors=True)
    os.close(fd)


def _sweep(base: Path) -> None:
    for folder in base.iterdir():
        try:
            recent = time.time() - folder.stat().st_mtime < _STALE_SECONDS  # perhaps not locked yet
        except OSError:
            continue
        fd = None if recent else lock_exclusive(folder / ".lock")
        if fd is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(fd)
