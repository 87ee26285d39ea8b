"""What a person asked to have erased: kept as keyed hashes alone, so that no later run brings it back.

``data/erasures/list.json`` has one entry for each user, pin, query or image, and never the name itself: BLAKE2b (RFC
7693) of it, keyed with ``data/erasures/key``, 32 random bytes of this repository. Whoever has the key can tell whether
a given name is in the list, and nobody can read the names out of it. Without the key the list says nothing, so the two
belong into one backup.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from feature_repo.columns import as_mask
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.text import canonical_query

KEY_BYTES = 32
HASH_BYTES = 16
_ESCAPED_CONTROL = re.compile(r"\\x([01][0-9a-f]|7f|[89][0-9a-f])")


class Subject(StrEnum):
    """What an entry of the list is about."""

    USER = "user"
    PIN = "pin"
    QUERY = "query"
    IMAGE = "image"  # of an erased pin: its captions leave unless another pin has the image


SUBJECT_COLUMNS = {"user_id": Subject.USER, "pin_id": Subject.PIN, "query": Subject.QUERY}
"""Columns of raw tables that name somebody or something that may be erased: the row leaves."""
BLANKED = {"judgments": ("annotator",)}
"""Columns that name who said something about others, by table: the name leaves, the row stays."""
_IMAGE = "image_sha256"
_CAPTIONS = "captions"


@dataclass(frozen=True)
class Subjects:
    """Names to be erased; queries in their canonical form."""

    users: frozenset[str] = frozenset()
    pins: frozenset[str] = frozenset()
    queries: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()

    @classmethod
    def of(cls, users: Iterable[str] = (), pins: Iterable[str] = (), queries: Iterable[str] = ()) -> Subjects:
        """Subjects as a person writes them.

        :raises UsageError: for an empty name, a query of nothing but spaces, or bytes that are no UTF-8.
        """
        users, pins, queries = list(users), list(pins), list(queries)
        for option, names in (("--user", users), ("--pin", pins), ("--query", queries)):
            for name in names:
                _check_unicode(option, name)
        found = cls(frozenset(users), frozenset(pins), frozenset(map(canonical_query, queries)))
        for option, kept in (("--user", found.users), ("--pin", found.pins), ("--query", found.queries)):
            if any(not name.strip() for name in kept):
                raise UsageError(f"{option} is empty: give the name as it is in the raw tables.")
        return found

    def __bool__(self) -> bool:
        return bool(self.users or self.pins or self.queries or self.images)

    def names(self) -> Iterator[tuple[Subject, str]]:
        """Each name with what it is, in a fixed order."""
        for kind, names in zip(Subject, (self.users, self.pins, self.queries, self.images), strict=True):
            yield from ((kind, name) for name in sorted(names))


def _check_unicode(option: str, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        spelt = os.fsencode(name).decode(errors="backslashreplace")
        raise UsageError(
            f"{option} {spelt} has bytes that are no UTF-8, which no accepted row has: give it as text, or spelt as in "
            f"data/rejected, where such a byte reads {chr(92)}xff."
        ) from error


@dataclass(frozen=True)
class Erasures:
    """The list of a repository. An erasure only adds to it; :func:`forget` takes a mistake back."""

    key: bytes = b""
    entries: tuple[tuple[Subject, str], ...] = ()
    """Subject and hash (hexadecimal), oldest first."""

    @classmethod
    def load(cls, paths: RepoPaths) -> Erasures:
        """The list under ``paths.erasures``; an empty one where nothing was ever erased.

        :raises PinfeatherError: if list or key cannot be read: without them what was erased would come back.
        """
        listed = paths.erasures / "list.json"
        if not listed.is_file():
            return cls()
        try:
            rows = json.loads(listed.read_text(encoding="utf-8"))["entries"]
            entries = tuple((Subject(row["subject"]), str(row["hash"])) for row in rows)
            key = (paths.erasures / "key").read_bytes()
            if len(key) != KEY_BYTES:
                raise ValueError(f"the key has {len(key)} bytes instead of {KEY_BYTES}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PinfeatherError(
                f"The erasures in {paths.erasures} cannot be read ({error}), and without them what was erased would "
                "come back from the raw tables. Restore the folder from a backup; without one delete what was erased "
                "from the raw tables, remove the folder, and erase again by `pinfeather erase`."
            ) from error
        return cls(key, entries)

    @classmethod
    def of(cls, subjects: Subjects) -> Erasures:
        """A list of ``subjects`` alone that is kept nowhere: to look for them as the real one does."""
        blank = cls(secrets.token_bytes(KEY_BYTES))
        return cls(blank.key, tuple((kind, blank.digest(kind, name)) for kind, name in subjects.names()))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal characters for the whole list; empty for an empty one."""
        return self.past_fingerprints[-1]

    @cached_property
    def past_fingerprints(self) -> tuple[str, ...]:
        """The fingerprint after each entry, from the empty list on."""
        state, found = xxhash.xxh3_64(), [""]
        for subject, digest in self.entries:
            state.update(f"{subject}:{digest}\n".encode())
            found.append(state.hexdigest())
        return tuple(found)

    @cached_property
    def _hashes(self) -> dict[Subject, frozenset[str]]:
        return {kind: frozenset(digest for subject, digest in self.entries if subject is kind) for kind in Subject}

    def digest(self, subject: Subject, name: str) -> str:
        """The keyed hash of a name; of an image however its own hash is spelled."""
        name = name.lower() if subject is Subject.IMAGE else name
        return hashlib.blake2b(
            name.encode(), digest_size=HASH_BYTES, key=self.key, person=subject.value.encode()
        ).hexdigest()

    def has(self, subject: Subject, name: str) -> bool:
        """Whether the list has the name."""
        known = self._hashes[subject]
        return bool(known) and self.digest(subject, name) in known

    def rows(self, subject: Subject, names: pa.ChunkedArray, *, readable: bool = False) -> npt.NDArray[np.bool_]:
        """Which of ``names`` are in the list; each distinct one is hashed once.

        :param readable: they are written as `validate` writes what it rejects, with control characters escaped.
        """
        if not self._hashes[subject] or not len(names):
            return np.zeros(len(names), dtype=np.bool_)
        coded = names.combine_chunks().dictionary_encode()
        found = [
            any(self.has(subject, spelt) for spelt in _spellings(subject, value, readable))
            for value in coded.dictionary.to_pylist()
        ]
        codes = coded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
        return np.array([*found, False], dtype=np.bool_)[codes]


def _spellings(subject: Subject, value: str | None, readable: bool) -> Iterator[str]:
    """What a value of a table may stand for: an escape of a rejected row is that character, or was written so."""
    if value is None:
        return
    if subject is Subject.QUERY:
        yield canonical_query(_ESCAPED_CONTROL.sub(" ", value) if readable else value)
        return
    yield value
    if readable and "\\x" in value:
        yield _ESCAPED_CONTROL.sub(lambda found: chr(int(found[1], 16)), value)


def borne(
    subject: Subject, values: pa.Array, names: set[tuple[Subject, str]], *, readable: bool
) -> set[tuple[Subject, str]]:
    """Those of ``names`` that one of ``values`` of a column bears; readable as in :meth:`Erasures.rows`."""
    if not any(kind is subject for kind, _ in names):
        return set()
    found = (_spellings(subject, value, readable) for value in values.unique().to_pylist())
    return names & {(subject, spelt) for spellings in found for spelt in spellings}


@dataclass
class ErasureFilter:
    """One pass over all tables, pins and products before captions: which rows leave."""

    erasures: Erasures
    used: set[str] = field(default_factory=set)
    """Images of the list that a pin which stays has as well."""

    def leaves(self, table: str, data: pa.Table, *, readable: bool = False) -> npt.NDArray[np.bool_] | None:
        """Rows of ``table`` that the list erases, None where there are none."""
        if not self.erasures.entries:
            return None
        mask = np.zeros(len(data), dtype=np.bool_)
        for name, subject in SUBJECT_COLUMNS.items():
            if name in data.column_names:
                mask |= self.erasures.rows(subject, data[name], readable=readable)
        if _IMAGE in data.column_names:
            images = pc.utf8_lower(data[_IMAGE])
            listed = self.erasures.rows(Subject.IMAGE, images)
            if table == _CAPTIONS:
                spared = pc.is_in(images, pa.array(sorted(self.used), pa.string()))
                mask |= listed & ~as_mask(spared.combine_chunks())
            elif listed.any():
                self.used.update(images.filter(pa.array(listed & ~mask)).to_pylist())
        return mask if mask.any() else None

    def blank(self, table: str, data: pa.Table, *, readable: bool = False) -> pa.Table | None:
        """``data`` without the listed people in its columns of :data:`BLANKED`, None where there are none."""
        blanked = None
        for name in BLANKED.get(table, ()):
            if name not in data.column_names:
                continue
            named = self.erasures.rows(Subject.USER, data[name], readable=readable)
            if named.any():
                blanked = data if blanked is None else blanked
                kept = pc.if_else(pa.array(~named), data[name], pa.scalar(None, data[name].type))
                blanked = blanked.set_column(data.column_names.index(name), data.schema.field(name), kept)
        return blanked


def record(paths: RepoPaths, subjects: Subjects, now: datetime | None = None) -> tuple[Erasures, int]:
    """Add what the list has not yet; the list, and how many names are new. On return it is on disk.

    :raises PinfeatherError: if the list cannot be read.
    """
    erasures = Erasures.load(paths)
    if not subjects:
        return erasures, 0
    key = erasures.key or _own_key(paths.erasures)
    erasures = Erasures(key, erasures.entries)
    fresh = [(kind, erasures.digest(kind, name)) for kind, name in subjects.names() if not erasures.has(kind, name)]
    if not fresh:
        return erasures, 0
    listed = paths.erasures / "list.json"
    old = json.loads(listed.read_text(encoding="utf-8"))["entries"] if erasures.entries else []
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    rows = [*old, *({"subject": kind.value, "hash": digest, "at": at} for kind, digest in fresh)]
    write_private(listed, json.dumps({"entries": rows}, indent=1).encode())
    return Erasures(key, (*erasures.entries, *fresh)), len(fresh)


def forget(paths: RepoPaths, subjects: Subjects) -> int:
    """Take names out of the list that were put there by mistake; how many it had. On return that is on disk.

    Their rows come back from the raw tables with the next `validate`. The images of a pin stay listed, which matters
    no more once a pin has them.

    :raises PinfeatherError: if the list cannot be read.
    """
    with tables_locked(paths):
        erasures = Erasures.load(paths)
        gone = {(kind.value, erasures.digest(kind, name)) for kind, name in subjects.names() if erasures.entries}
        listed = paths.erasures / "list.json"
        rows = json.loads(listed.read_text(encoding="utf-8"))["entries"] if erasures.entries else []
        kept = [row for row in rows if (row["subject"], row["hash"]) not in gone]
        if len(kept) < len(rows):
            write_private(listed, json.dumps({"entries": kept}, indent=1).encode())
        return len(rows) - len(kept)


def _own_key(folder: Path) -> bytes:
    """The key of a list without entries: the one that is there, as a kill leaves it, or a new one."""
    path = folder / "key"
    if path.is_file() and len(key := path.read_bytes()) == KEY_BYTES:
        return key
    key = secrets.token_bytes(KEY_BYTES)
    write_private(path, key)
    return key


def write_private(path: Path, data: bytes) -> None:
    """Write ``data`` all at once and durably, to be read by nobody else."""
    write_durably(path, data, 0o600)


def write_durably(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write ``data`` all at once; on return it is on disk. The process's umask takes bits off ``mode``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def tables_locked(paths: RepoPaths) -> Iterator[None]:
    """Nobody else replaces valid or rejected tables meanwhile: a run that began before an erasure must not undo it."""
    paths.data.mkdir(parents=True, exist_ok=True)
    with (paths.data / ".tables.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def unless_erased(paths: RepoPaths, since: Erasures) -> Iterator[None]:
    """For the block that puts results in place: they were computed without what the list ``since`` has.

    :raises PinfeatherError: if more was erased since then; the block is not entered.
    """
    with tables_locked(paths):
        if Erasures.load(paths).fingerprint != since.fingerprint:
            raise PinfeatherError("Something was erased while this ran: nothing was replaced. Run it again.")
        yield
