"""Files: copies that write little, copies that share big data, durable writes, locks, private folders of a process."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BIG_DATA = re.compile(r"chunk_\d+\.mmap|page_\d+\.dat|matrix\.dat|links\w*\.bin|inverted_index\.dat")
"""The engine changes these on upserts only, those of an index never, so readers may share them; it overlooks symlinks,
hence hard links."""
_BLOCK = 1 << 20
_PAGE = 4096
_FICLONE = 0x40049409
"""Linux: let a file share all blocks of another one until either is written to."""


def copy_sparse(source: Path, target: Path, durable: bool = True) -> None:
    """Make ``target`` equal to ``source``; ``durable`` also fsyncs it.

    Holes stay holes (the engine preallocates 32 MB a file), a file system that can lets both share their blocks, and
    where there is a file already, only the pages that differ are written.
    """
    with open(source, "rb", buffering=0) as reading:
        writing = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size, before = os.fstat(reading.fileno()).st_size, os.fstat(writing).st_size
            changed = size != before
            if changed:
                os.ftruncate(writing, size)
            if size:
                changed |= _clone(reading.fileno(), writing) or _copy_data(reading.fileno(), writing, size)
            if durable and (changed or not before):
                os.fsync(writing)
        finally:
            os.close(writing)


def _clone(reading: int, writing: int) -> bool:
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:  # most file systems cannot
        return False
    return True


def _copy_data(reading: int, writing: int, size: int) -> bool:
    """Write what differs; whether anything did."""
    changed, position = False, 0
    while position < size:
        position = min(_next_data(reading, position, size), _next_data(writing, position, size))
        wanted = os.pread(reading, _BLOCK, position)
        if not wanted:
            break
        found = os.pread(writing, len(wanted), position)
        if wanted != found:
            changed = True
            for start, stop in _differences(wanted, found):
                while start < stop:  # a nearly full disk may take a part
                    start += os.pwrite(writing, wanted[start:stop], position + start)
        position += len(wanted)
    return changed


def _next_data(fd: int, position: int, size: int) -> int:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole until the end
            return size
        if error.errno in (errno.EINVAL, errno.ENOTSUP):  # a file system without holes
            return position
        raise


def _differences(wanted: bytes, found: bytes) -> Iterator[tuple[int, int]]:
    """Runs of pages that differ, as (start, stop)."""
    start = None
    for page in range(0, len(wanted), _PAGE):
        same = wanted[page : page + _PAGE] == found[page : page + _PAGE]
        if same and start is not None:
            yield start, page
            start = None
        elif not same and start is None:
            start = page
    if start is not None:
        yield start, len(wanted)


def copy_tree(source: Path, target: Path, skip: frozenset[str] = frozenset()) -> None:
    """Make ``target`` a durable copy of a folder, without the top-level entries named in ``skip``.

    What is there already is brought up to date by :func:`copy_sparse`; nobody else may be using it.
    """
    target.mkdir(parents=True, exist_ok=True)
    wanted = {entry.name: entry for entry in sorted(source.iterdir()) if entry.name not in skip}
    for found in list(target.iterdir()):
        if found.name not in wanted or found.is_dir() != wanted[found.name].is_dir():
            remove(found)
    for name, entry in wanted.items():
        if entry.is_dir():
            copy_tree(entry, target / name)
        else:
            copy_sparse(entry, target / name)
    fsync_folder(target)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def shadow_tree(source: Path, target: Path) -> None:
    """A copy of a folder for loading only: small files copied, big data hard-linked where that is possible."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_dir():
            shadow_tree(entry, target / entry.name)
        elif not (_BIG_DATA.fullmatch(entry.name) and _link(entry, target / entry.name)):
            copy_sparse(entry, target / entry.name, durable=False)


_AT_ONCE = 128 << 10
"""Linux reads no more for one request to read ahead than the device's own limit, and says nothing: often 128 KiB."""


def read_ahead(path: Path, most: int) -> int:
    """Ask the system to read the first ``most`` bytes of data of a file into memory; how many that are.

    Does not wait for the data (to ask takes 0.1 s for 384 MB). Holes do not count. Only on Linux: elsewhere none are
    read.
    """
    asked = position = 0
    if sys.platform != "linux":
        return asked
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        while asked < most and (start := _next_data(fd, position, size)) < size:
            position = min(_next_hole(fd, start, size), start + most - asked)
            for part in range(start, position, _AT_ONCE):
                os.posix_fadvise(fd, part, min(_AT_ONCE, position - part), os.POSIX_FADV_WILLNEED)
            asked += position - start
    return asked


def _next_hole(fd: int, position: int, size: int) -> int:
    try:
        return os.lseek(fd, position, os.SEEK_HOLE)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP):  # a file system without holes
            return size
        raise


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
        os.stat(path)  # gone meanwhile: whoever removed it had it locked before us
    except OSError:
        os.close(fd)
        return None
    return fd


def close_locks(writer: Path) -> None:
    """In a forked child: close what the parent's engine holds locked under ``writer``, folders called ``wal``."""
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(f"{writer}{os.sep}") and target.endswith(f"{os.sep}wal"):
                os.close(int(name))
        except OSError:
            continue  # the listing's own, closed already


class PrivateFolder:
    """A folder of this process alone, removed when nobody refers to it, at exit, or by others if it was killed.

    :param preferred: make it in this folder, so that big data can be linked; a temporary one if that is not writable.
    """

    def __init__(self, preferred: Path) -> None:
        try:
            preferred.mkdir(exist_ok=True)
            sweep(preferred)
            with _locked(preferred):
                self.path, lock = _make_private(Path(tempfile.mkdtemp(dir=preferred)))
        except OSError:
            self.path, lock = _make_private(Path(tempfile.mkdtemp(prefix="edge-reader-")))
        weakref.finalize(self, _remove_private, self.path, lock, os.getpid())


def sweep(base: Path) -> None:
    """Remove the private folders under ``base`` whose processes were killed; those that are not ours to remove stay."""
    dead: list[tuple[Path, int]] = []
    with suppress(OSError), _locked(base):  # whoever makes one holds this until its own lock is taken
        for folder in base.iterdir():
            with suppress(OSError):
                (folder / ".lock").touch()  # its owner may have been killed before making it
                lock = lock_exclusive(folder / ".lock")
                if lock is not None:
                    dead.append((folder, lock))
    for folder, lock in dead:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make_private(folder: Path) -> tuple[Path, int]:
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _remove_private(path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child, whose parent still uses it
        shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
