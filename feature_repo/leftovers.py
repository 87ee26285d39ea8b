"""What killed processes leave under ``data``: unfinished files and scratch folders, told from those that are in use.

Whatever is written first and renamed then begins with a dot and ends as ``.<pid>.tmp``, ``.<pid>.part`` or so; scratch
folders are ``.<kind>-<host>-<pid>-<random>``. Some names have no process in them: they are made under a lock.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from feature_repo.paths import RepoPaths

_UNFINISHED = re.compile(r"\..+?(?:\.(?P<pid>[0-9]+))?\.(?:tmp|part|new|dropped|rewritten)|\..+\.(?P<bare>[0-9]+)")
_SCRATCH = re.compile(r"\.(?:scan|spill|past|join|report)-(?:(?P<host>.+)-(?P<pid>[0-9]+)-)?[^-]+")
_SWEPT = frozenset(
    {"valid", "rejected", "views", "aggregates", "history", "pin_versions", "captions", "ledger", "vectors", "erasures"}
    | {"reports", "lexical", "bundles", "spaces", "releases", "samples", "labels", "teachers", "warm"}
)
_CLOCK_SLACK = 2.0
"""Seconds: the kernel tells when it booted in whole ones."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that is not in place yet, or was never meant to stay."""

    path: Path
    in_use: bool
    """Whether its process runs, or may: one of another host cannot be asked."""

    def files(self) -> list[Path]:
        """The files in it, or itself."""
        if self.path.is_symlink():
            return []
        if not self.path.is_dir():
            return [self.path]
        return sorted(path for path in self.path.rglob("*") if path.is_file() and not path.is_symlink())

    def remove(self) -> None:
        """Remove it with all that is in it."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is unfinished, or for scratch."""
    return bool(_UNFINISHED.fullmatch(name) or _SCRATCH.fullmatch(name))


def find_leftovers(folder: Path, skip: Iterable[Path] = ()) -> Iterator[Leftover]:
    """Everything of that kind under ``folder``, but not under ``skip``; links are not followed."""
    left_out = set(skip)
    for root, folders, files in os.walk(folder):
        here = Path(root)
        for name in sorted([*folders, *files]):
            if is_leftover(name) and here / name not in left_out:
                with suppress(FileNotFoundError):  # its process has just ended it
                    yield Leftover(here / name, _in_use(here / name))
        folders[:] = [name for name in folders if here / name not in left_out and not is_leftover(name)]


def sweep(paths: RepoPaths) -> int:
    """Remove what no running process has any more, where commands write; how many. Folders of others stay as they are.

    The caller holds :func:`~feature_repo.erasures.tables_locked`, for what is named after no process. The store sees to
    its own folder.
    """
    others = [
        path
        for path in paths.data.glob("*")
        if path.is_dir() and path.name not in _SWEPT and not is_leftover(path.name)
    ]
    found = [left for left in find_leftovers(paths.data, others) if not left.in_use]
    for left in found:
        left.remove()
    return len(found)


@contextmanager
def scratch_folder(parent: Path | None, kind: str) -> Iterator[Path]:
    """A folder for what does not fit into memory, in ``parent`` or the system's own place; removed at the end.

    Folders that killed processes of this host left in ``parent`` go, too.

    :param kind: scan, spill, past, join or report: the first word of its name.
    """
    host = socket.gethostname()
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
        for path in parent.glob(".*"):
            found = _SCRATCH.fullmatch(path.name)
            with suppress(FileNotFoundError):
                if found and found["host"] == host and not _in_use(path):
                    Leftover(path, False).remove()
    prefix = f".{kind}-{host}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _in_use(path: Path) -> bool:
    """Whether the process that the name tells may be the one that writes it.

    :raises FileNotFoundError: if the file is gone.
    """
    if found := _SCRATCH.fullmatch(path.name):
        pid = found["pid"]
        if pid and found["host"] != socket.gethostname():
            return True
    else:
        named = _UNFINISHED.fullmatch(path.name)
        pid = (named["pid"] or named["bare"]) if named else None
    if pid is None or not _alive(int(pid)):
        return False
    began = _began(int(pid))  # numbers are given out again, in containers often the same small one
    return began is None or path.lstat().st_mtime >= began - _CLOCK_SLACK


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _began(pid: int) -> float | None:
    """When the process began, in seconds since 1970; None where the system does not tell (proc(5))."""
    try:
        booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(encoding="ascii"), re.MULTILINE)
        after = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(booted[1]) + int(after[19]) / os.sysconf("SC_CLK_TCK") if booted else None
    except (OSError, ValueError, IndexError):
        return None
