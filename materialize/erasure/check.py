"""The proof that something is gone: every place that could hold it is scanned, whatever an erasure claims.

Looked for are the names themselves: user ids, pin ids, and queries by their canonical form, wherever a column, a key or
a note has such a name. A title that reads as a query is the pin's own and counts for nothing. Vectors, token blobs,
lexical statistics and student bundles hold no names: what was made of a word cannot be told from what was not.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contracts import CONTRACTS
from feature_repo.erased_tables import find_traces, leaving
from feature_repo.erasures import ErasureFilter, Erasures, Subject, Subjects
from feature_repo.errors import PinfeatherError
from feature_repo.leftovers import is_leftover
from feature_repo.paths import RepoPaths
from feature_repo.raw_files import find_files, read_batches, readable
from materialize.definitions import load_definitions
from materialize.erasure.online import find_points, named
from materialize.erasure.parquet_rows import NAMING, files_under, hashed_users, naming_in, naming_rows, unfinished
from materialize.erasure.pending import is_pending
from materialize.erasure.vectors import without_names
from materialize.ledger import Ledger
from materialize.places import open_store, place_of
from materialize.reconcile import view_space
from materialize.stores import published
from materialize.stores.reader import Snapshot
from materialize.warm import find_warm

RAW, MANIFESTS = "raw tables", "manifests"


@dataclass
class Place:
    """What was found in one place."""

    name: str
    found: int = 0
    """Rows, points or notes that name it."""
    where: list[str] = field(default_factory=list)
    """Files or collections, a few of them."""
    note: str = ""
    """What is to be done, or why it is not done yet."""

    @property
    def fails(self) -> bool:
        """Whether a finding here means that the erasure is not complete.

        The raw tables are the user's; and a word of a manifest may be anything that reads the same.
        """
        return self.found > 0 and self.name not in (RAW, MANIFESTS)

    def add(self, count: int, where: str) -> None:
        """Note ``count`` findings at ``where``."""
        self.found += count
        if count and where not in self.where and len(self.where) < 20:
            self.where.append(where)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather erase --check --json``."""
        return {"found": self.found, "where": self.where, "note": self.note}


def check(paths: RepoPaths, subjects: Subjects, lock_timeout: float = 10.0) -> list[Place]:
    """Scan every place for ``subjects``; nothing is written.

    :raises PinfeatherError: if a file cannot be read: then nothing is proven.
    :raises StoreError: if another process writes for longer than ``lock_timeout`` seconds.
    """
    looked = Erasures.of(subjects)
    scans: list[tuple[str, Callable[[Place], None]]] = [
        (RAW, lambda place: _raw(paths, looked, place)),
        ("valid tables", lambda place: _tables(paths, paths.valid, looked, place)),
        ("rejected rows", lambda place: _tables(paths, paths.rejected, looked, place)),
        ("view sources", lambda place: _tables(paths, paths.views, looked, place)),
        ("aggregate state", lambda place: _aggregates(paths, subjects, looked, place)),
        ("history", lambda place: _history(paths, looked, place)),
        ("captions", lambda place: _captions(paths, subjects, looked, place)),
        ("samples", lambda place: _tables(paths, paths.samples, looked, place)),
        ("labels", lambda place: _tables(paths, paths.labels, looked, place)),
        ("ledger", lambda place: _ledger(paths, looked, place)),
        ("run notes", lambda place: _notes(paths, looked, place)),
        ("vector logs", lambda place: _vector_logs(paths, looked, place)),
        ("store", lambda place: _store(paths, looked, place, lock_timeout)),
        ("publications", lambda place: _publications(paths, looked, place)),
        ("head queries", lambda place: _head_queries(paths, subjects, place)),
        (MANIFESTS, lambda place: _manifests(paths, subjects, place)),
        ("unfinished files", lambda place: _unfinished(paths, subjects, looked, place)),
        ("erasures begun", lambda place: _begun(paths, place)),
    ]
    places = []
    for name, scan in scans:
        place = Place(name)
        scan(place)
        places.append(place)
    return places


def _begun(paths: RepoPaths, place: Place) -> None:
    if is_pending(paths):
        place.add(1, "pending.json")
        place.note = "an erasure was begun and not ended: `pinfeather erase` ends it"


# Tables ---------------------------------------------------------------------------------------------------------------


def _raw(paths: RepoPaths, looked: Erasures, place: Place) -> None:
    for contract in CONTRACTS.values():
        try:
            files = find_files(paths, contract)
        except PinfeatherError:  # no pins yet
            continue
        for file in files:
            for batch in read_batches(file, contract):
                columns = [name for name in NAMING if name in batch.schema.names]
                texts = [readable(pa.chunked_array([batch[name]])) for name in columns]
                if columns:
                    found = naming_in(pa.RecordBatch.from_arrays(texts, columns), looked, escaped=True)
                    place.add(found, file.relative_to(paths.data).as_posix())
    if place.found:
        place.note = "yours to delete: it stays out of everything else, whatever they hold"


def _tables(paths: RepoPaths, folder: Path, looked: Erasures, place: Place) -> None:
    """Parquet files by the names of their columns."""
    for file in files_under(folder):
        escaped = folder == paths.rejected
        place.add(_rows(file, looked, escaped), file.relative_to(paths.data).as_posix())


def _rows(file: Path, looked: Erasures, escaped: bool = False) -> int:
    with _readable_or_named(file):
        return naming_rows(file, looked, escaped=escaped)
    return 0


@contextmanager
def _readable_or_named(file: Path) -> Iterator[None]:
    """A file that is gone was replaced by a run and holds nothing; of one that cannot be read nothing is proven."""
    try:
        yield
    except FileNotFoundError:
        return
    except (pa.ArrowException, OSError) as error:
        raise PinfeatherError(
            f"{file} cannot be read ({error}), so nobody can say what is in it: delete it or restore it, then run the "
            "command that writes it, then check again."
        ) from error


def _aggregates(paths: RepoPaths, subjects: Subjects, looked: Erasures, place: Place) -> None:
    """The state of the log, which has users as the lower half of the MD5 of their ids."""
    _tables(paths, paths.aggregates, looked, place)
    for file in files_under(paths.aggregates):
        with _readable_or_named(file):
            place.add(hashed_users(file, subjects), file.relative_to(paths.data).as_posix())


def _unfinished(paths: RepoPaths, subjects: Subjects, looked: Erasures, place: Place) -> None:
    """What is not in place yet, wherever it lies: of processes that were killed, or that run now."""
    for file, count, in_use in unfinished(paths, subjects, looked):
        place.add(count, file.relative_to(paths.data).as_posix())
        if in_use or not place.note:
            place.note = _IN_USE if in_use else _OF_THE_DEAD


_OF_THE_DEAD = "of processes that were killed: `pinfeather erase` deletes them"
_IN_USE = "of processes that run now, or ran on another host: wait, or delete them"


def _history(paths: RepoPaths, looked: Erasures, place: Place) -> None:
    for folder in sorted(paths.data.iterdir()) if paths.data.is_dir() else []:
        if folder.is_dir() and folder.name not in _SCANNED and not is_leftover(folder.name):
            _tables(paths, folder, looked, place)


_SCANNED = frozenset(
    {"raw", "valid", "rejected", "views", "aggregates", "captions", "ledger", "vectors", "online", "erasures"}
    | {"samples", "labels"}
)


def _captions(paths: RepoPaths, subjects: Subjects, looked: Erasures, place: Place) -> None:
    """Captions of images that only the named pins have or had, as far as tables or the list of erasures tell."""
    if not subjects.pins:
        return
    images = Erasures.of(Subjects(images=find_traces(paths, looked).images))
    for erasures in (images, Erasures.load(paths)):
        erased = ErasureFilter(erasures)
        for _ in leaving(paths, erased):
            pass
        kept = [*paths.valid_files("captions"), *paths.rejected_files("captions")]
        for file in [*files_under(paths.captions), *kept]:
            table = pq.read_table(file)
            leaves = erased.leaves("captions", table)
            if leaves is not None:
                place.add(int(leaves.sum()), file.relative_to(paths.data).as_posix())


def _head_queries(paths: RepoPaths, subjects: Subjects, place: Place) -> None:
    """Vectors that clients begin with, by the digests of their queries."""
    for file, count in find_warm(paths, subjects.queries):
        place.add(count, file.relative_to(paths.data).as_posix())


# Ledger and logs ------------------------------------------------------------------------------------------------------


def _ledger(paths: RepoPaths, looked: Erasures, place: Place) -> None:
    if not (paths.ledger / "ledger.db").is_file():
        return
    views = load_definitions(paths).views if paths.registry.is_file() else {}
    join_keys = {view_space(view): view.join_keys for view in views.values()}
    with Ledger(paths) as ledger:
        for space in ledger.spaces():
            columns = join_keys.get(space, ("pin_id",))  # as all spaces have, and the notes of deleted pins
            keys = (key for page in ledger.pages(space, ["key"]) for key in page["key"].to_pylist())
            place.add(sum(_key_named(key, columns, looked) for key in keys), space)


def _key_named(key: str, columns: Sequence[str], looked: Erasures) -> bool:
    """Whether a ledger key, of a view with these join keys, is or has one of the names."""
    values = [key]
    if len(columns) > 1:
        with suppress(ValueError, TypeError):
            values = list(json.loads(key))
    return any(named(looked, column, value) for column, value in zip(columns, values, strict=False))


def _notes(paths: RepoPaths, looked: Erasures, place: Place) -> None:
    """Pins in what the ledger's SQLite file keeps of past runs and of quarantined texts."""
    file = paths.ledger / "ledger.db"
    if not file.is_file():
        return
    db = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        notes = [json.loads(text) for (text,) in db.execute("SELECT counts FROM runs WHERE counts IS NOT NULL")]
        pins = [pin_id for (pin_id,) in db.execute("SELECT pin_id FROM quarantine")]
    finally:
        db.close()
    place.add(sum(without_names(note, looked) != note for note in notes), "runs")
    place.add(sum(looked.has(Subject.PIN, pin_id) for pin_id in pins), "quarantine")


def _vector_logs(paths: RepoPaths, looked: Erasures, place: Place) -> None:
    for file in sorted(paths.vectors.glob("*/part-*.parquet")):
        if not file.parent.is_symlink():
            place.add(_rows(file, looked), file.relative_to(paths.data).as_posix())


# Stores ---------------------------------------------------------------------------------------------------------------


def _store(paths: RepoPaths, looked: Erasures, place: Place, lock_timeout: float) -> None:
    """What the writer has, or the server."""
    there = place_of(paths)
    if there.embedded and not (paths.online / "writer").is_dir():
        return
    with open_store(paths, "erase --check", lock_timeout) as store:
        for collection, _ in find_points(store, looked):
            place.add(1, collection)


def _publications(paths: RepoPaths, looked: Erasures, place: Place) -> None:
    """Every publication that is still on disk, read as a reader would; and what is left of those being read."""
    if not place_of(paths).embedded:
        return
    root = paths.online
    seen: set[str] = set()
    for number in published.numbers(root):
        with ExitStack() as stack:
            snapshot = Snapshot.numbered(root, number)
            if snapshot is None:
                continue
            stack.callback(snapshot.close)
            seen.update(snapshot.places)
            for collection, _ in find_points(snapshot, looked):
                place.add(1, f"publication {number}: {collection}")
    for copy in _unreferred(root, seen):
        place.add(1, copy)
        place.note = "of an old publication that a reader holds: goes when its reader closes"


def _unreferred(root: Path, seen: set[str]) -> Iterator[str]:
    """Collection copies that no publication refers to any more."""
    for number in published.numbers(root):
        copies = sorted(path for path in published.folder(root, number).glob("*") if path.is_dir())
        yield from (place for place in map(published.place_of, copies) if place not in seen)


def _manifests(paths: RepoPaths, subjects: Subjects, place: Place) -> None:
    """JSON files: releases, spaces, statistics, bundles and the notes beside the logs, by whole strings."""
    names = [json.dumps(name).encode() for name in (*subjects.users, *subjects.pins, *subjects.queries)]
    for file in files_under(paths.data, "*.json"):
        if file.is_relative_to(paths.raw) or file.is_relative_to(paths.erasures) or "publications" in file.parts:
            continue
        if file.is_relative_to(paths.bundles) and "towers" in file.relative_to(paths.bundles).parts:
            continue  # vocabularies of tokenizers, which were there before any user
        if file.parent == paths.samples or file.is_relative_to(paths.labels):
            continue  # notes of settings and counts: no user, pin or query is in them
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            continue
        place.add(sum(name in text for name in names), file.relative_to(paths.data).as_posix())
    if place.found:
        place.note = "they hold no names as far as is known: look whether it is the same, or only reads so"
