"""Publications on disk: numbered folders of collection copies with a marker written last.

::

    publications/000007/pins/          copy of a changed collection, without write-ahead log
    publications/000007/.pins.lock     readers of that copy hold it locked
    publications/000007/publication.json   the marker: all collections, unchanged ones by reference, and the release
    writer/.published                 the writer's record of the number that it published last
    readers/                          private copies of the readers' processes
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .edge_files import CONFIG
from .errors import StoreCorruptError, StoreError
from .files import copy_tree, fsync_folder, lock_exclusive, sweep, write_durably
from .points import CollectionSpec

FOLDER = "publications"
READERS = "readers"
MARKER = "publication.json"
RECORD = ".published"
KEPT = 2
"""Newest publications that are kept whether somebody reads them or not."""


@dataclass(frozen=True)
class Published:
    """One publication: what its marker says."""

    number: int
    created_at: str
    collections: Mapping[str, str]
    """Collection name -> folder of its copy, relative to ``publications/``."""
    specs: Mapping[str, CollectionSpec]
    release: dict[str, Any] | None

    def to_json(self) -> str:
        """The marker's text."""
        data = {
            "number": self.number,
            "created_at": self.created_at,
            "collections": dict(self.collections),
            "specs": {name: spec.to_json() for name, spec in self.specs.items()},
            "release": self.release,
        }
        return json.dumps(data, indent=1, sort_keys=True)


def numbers(root: Path) -> list[int]:
    """Numbers of all publication folders, complete or not, ascending."""
    try:
        return sorted(int(p.name) for p in (root / FOLDER).iterdir() if p.name.isdecimal())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"The store folder {root} cannot be read: {error.strerror}. Give another path.") from error


def folder(root: Path, number: int) -> Path:
    """Where publication ``number`` lies."""
    return root / FOLDER / f"{number:06d}"


def lock_file(copy: Path) -> Path:
    """What readers of a collection copy hold locked."""
    return copy.with_name(f".{copy.name}.lock")


def newest(root: Path) -> Published | None:
    """The newest complete publication, or None.

    :raises StoreCorruptError: if its marker cannot be read.
    """
    for number in reversed(numbers(root)):
        found = read_marker(root, number)
        if found is not None:
            return found
    return None


def newest_number(root: Path) -> int | None:
    """The number of the newest complete publication; cheaper than reading it."""
    return next((n for n in reversed(numbers(root)) if (folder(root, n) / MARKER).exists()), None)


def read_marker(root: Path, number: int) -> Published | None:
    """Publication ``number``, or None if it is not complete."""
    path = folder(root, number) / MARKER
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        specs = {name: CollectionSpec.from_json(spec) for name, spec in data["specs"].items()}
        return Published(int(data["number"]), data["created_at"], data["collections"], specs, data["release"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError) as error:
        raise StoreCorruptError(
            f"The marker {path} cannot be read ({error}). Remove the folder {path.parent} to go back to the "
            "publication before it, then write and publish again."
        ) from error


def write_publication(
    root: Path,
    writer: Path,
    specs: Mapping[str, CollectionSpec],
    unchanged: Mapping[str, str],
    release: dict[str, Any] | None,
    after: int = 0,
) -> Published:
    """Copy the flushed collections of ``writer`` into a new publication and mark it complete.

    A copy that nobody reads any more is brought up to date rather than made anew, so that little is written.

    :param unchanged: collections not copied but referred to, with the folder of their earlier copy.
    :param after: the number is higher than this one too, which a reader may hold although its folder was removed.
    """
    last = newest(root)
    number = max([after, *numbers(root)]) + 1
    target = folder(root, number)
    target.mkdir(parents=True)
    places = {}
    for name in specs:
        if name in unchanged:
            places[name] = unchanged[name]
            continue
        if last is not None:
            _reuse_old_copy(root, name, last, target / name)
        copy_tree(writer / name, target / name, skip=frozenset({"wal", CONFIG}))
        config = json.loads((writer / name / CONFIG).read_text())
        config["wal_enabled"] = False  # the engine locks a write-ahead log for one process
        write_durably(target / name / CONFIG, json.dumps(config))
        lock_file(target / name).touch()
        places[name] = f"{target.name}/{name}"
    fsync_folder(target.parent)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    published = Published(number, now, places, dict(specs), release)
    write_durably(target / MARKER, published.to_json())
    return published


def _reuse_old_copy(root: Path, name: str, last: Published, target: Path) -> None:
    """Move the copy of a publication before ``last`` to ``target``, if there is one that nobody reads."""
    for number in reversed([n for n in numbers(root) if n < last.number]):
        copy = folder(root, number) / name
        if f"{copy.parent.name}/{name}" in last.collections.values() or not copy.is_dir():
            continue
        fd = lock_exclusive(lock_file(copy))
        if fd is None:
            continue
        try:
            (copy.parent / MARKER).unlink(missing_ok=True)  # no longer complete
            os.rename(copy, target)
            lock_file(copy).unlink()
        finally:
            os.close(fd)
        return


def has_copy(root: Path, place: str) -> bool:
    """Whether the collection copy at ``place`` (relative to ``publications/``) is there to be read."""
    copy = root / FOLDER / place
    return copy.is_dir() and lock_file(copy).exists()


def recorded_number(writer: Path) -> int:
    """The number that ``writer`` published last, 0 where nothing readable says so.

    Changes are marked since that publication; if another one is the newest, all collections count as changed.
    """
    try:
        return int((writer / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def record_number(writer: Path, number: int) -> None:
    """Keep ``number`` for :func:`recorded_number`; called when that publication is complete."""
    write_durably(writer / RECORD, f"{number}\n")


def remove_old(root: Path) -> None:
    """Remove what neither the newest publications refer to nor a reader has locked, half-written ones included.

    Only the holder of the writer lease may call it. Private copies of killed readers go too.
    """
    _remove(root, numbers(root), unlocked=True)
    sweep(root / READERS)


def remove_former(root: Path) -> list[int]:
    """:func:`remove_old`, the newest publication alone being kept; numbers of those that readers still hold."""
    _remove(root, numbers(root), unlocked=True, kept=1)
    sweep(root / READERS)
    last = newest(root)
    used = set(last.collections.values()) if last else set()
    held = [path for number in numbers(root) for path in _copies(folder(root, number)) if place_of(path) not in used]
    return sorted({int(path.parent.name) for path in held})


def place_of(copy: Path) -> str:
    """A collection copy as a marker names it: relative to ``publications/``."""
    return f"{copy.parent.name}/{copy.name}"


def remove_unread(root: Path) -> None:
    """What a reader does when it has let a publication go: :func:`remove_old`, but for what may be being written.

    Nothing happens where that is not allowed.
    """
    with suppress(OSError, StoreError):
        last = newest_number(root) or 0
        _remove(root, [n for n in numbers(root) if n < last], unlocked=False)


def _remove(root: Path, candidates: Sequence[int], unlocked: bool, kept: int = KEPT) -> None:
    complete = [n for n in numbers(root) if (folder(root, n) / MARKER).exists()]
    keep = complete[-kept:]
    needed: set[str] = set()
    for number in keep:
        marker = read_marker(root, number)
        needed.update(marker.collections.values() if marker else ())
    for number in candidates:
        path = folder(root, number)
        if number not in keep:
            (path / MARKER).unlink(missing_ok=True)  # first, so that nobody opens what is about to go
        for copy in _copies(path):
            if f"{path.name}/{copy.name}" not in needed:
                _remove_copy(copy, unlocked)
        if number not in keep and not _copies(path):
            shutil.rmtree(path, ignore_errors=True)


def _copies(path: Path) -> list[Path]:
    try:
        return [p for p in path.iterdir() if p.is_dir()]
    except FileNotFoundError:  # another process removed it
        return []


def _remove_copy(copy: Path, unlocked: bool) -> None:
    """Remove a copy that no reader has locked; ``unlocked``: also one without a lock file, as killed writers leave."""
    lock = lock_file(copy)
    fd = lock_exclusive(lock)
    if fd is None and (lock.exists() or not unlocked):
        return
    lock.unlink(missing_ok=True)
    shutil.rmtree(copy, ignore_errors=True)
    if fd is not None:
        os.close(fd)
