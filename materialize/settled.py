"""What a scan that found nothing to do leaves behind, so that the next one need not read the same files again.

A note says: on these terms (engine, definitions, pins held), every row of these files was in the ledger as the entries
with this mark have it, and no entry was without a row but those of pins held. While terms, mark and files are the same,
so is the answer. While only the files of some views are others, a pin can differ only if its row in one of them does.

Whatever cannot be shown makes no note, or one that nobody believes: then everything is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from feature_repo.lexical import LEXICAL_VERSION
from feature_repo.text import TEXT_VERSION
from materialize.changed import Differences
from materialize.definitions import ViewDefinition
from materialize.file_states import file_states, source_files
from materialize.hashes import Words, arrow, find, halves, key_hashes, numbers_of
from materialize.ledger import SpaceEntries
from materialize.payload_fields import PAYLOAD_COLUMNS
from materialize.shards import Entries, ShardReader
from materialize.sources import SCAN_VERSION, TEXT_COLUMNS, Session

NOTE_VERSION = 1
_KEPT = 8
"""Contents of files that a view's note keeps at most."""


def raw_engine() -> str:
    """What the raw fingerprints depend on besides the rows: engine, hashing here, tokens, canonical text.

    Where it differs from what the ledger notes, no raw fingerprint is believed and every row is canonicalised.
    """
    import duckdb

    return f"duckdb-{duckdb.__version__}/scan-{SCAN_VERSION}/lexical-{LEXICAL_VERSION}/text-{TEXT_VERSION}"


@dataclass(frozen=True)
class Note:
    """The answer of a scan that found nothing to do, and what it is about."""

    terms: str
    mark: str
    """Of the ledger's entries, see :meth:`~materialize.ledger_notes.LedgerNotes.mark`."""
    files: Mapping[str, Sequence[Sequence[str]]]
    """View to digests of its files: description, sizes, content. Of each of them the rows were those of the entries."""
    rows: int
    known: int
    still_empty: int

    def contents(self, view: str) -> frozenset[str]:
        """What the files of ``view`` held."""
        return frozenset(content for _, _, content in self.files.get(view, ()))


class Settled:
    """One scan's note: what was noted before, whether that still holds, and what is to be noted now."""

    def __init__(
        self, con: Session, entries: Entries | None, views: Sequence[ViewDefinition], held: frozenset[str] | None
    ) -> None:
        """Of a scan of ``views`` against ``entries``; the rows of pins ``held`` are never gone, None if that is moot.

        Nothing is noted or believed of entries that are not a ledger's own, or where ``con`` does not note.
        """
        self._con, self._views = con, views
        self._entries = entries if isinstance(entries, SpaceEntries) and con.clock is not None else None
        self._held = held or frozenset()
        self.mark = self._marked()
        self._files = {view.name: con.files(view) for view in views} if self._entries else {}
        terms = [NOTE_VERSION, raw_engine(), [repr(view) for view in views], sorted(self._held), held is None]
        read = [sorted(TEXT_COLUMNS.items()), sorted(PAYLOAD_COLUMNS.items())]
        self._terms = hashlib.sha256(json.dumps([*terms, read]).encode()).hexdigest()
        self._note = self._read() if self.mark else None
        self._noted = False
        if (same := self.same()) is not None and not self._described(same):
            self._write(same.rows, same.known, same.still_empty)  # for the next scan not to hash the same bytes again
        self._noted = same is not None

    @property
    def note(self) -> Note | None:
        """What was noted of these very entries on these terms; None where nothing was, or all is to be read again."""
        return None if self._con.rescan else self._note

    def moved(self) -> list[ViewDefinition]:
        """The views whose files are not those of the note."""
        return [view for view in self._views if not self._as_noted(view)]

    def _as_noted(self, view: ViewDefinition) -> bool:
        states, noted = self._files.get(view.name), self._note.files.get(view.name, ()) if self._note else ()
        if states is None:
            return False
        if any(states.digest == digest for digest, _, _ in noted):
            return True
        alike = {content for _, sizes, content in noted if sizes == states.sizes}
        return bool(alike) and self._con.seen.content(view.source) in alike

    def _described(self, note: Note) -> bool:
        """Whether ``note`` describes all files as they are now."""
        described = {name: {digest for digest, _, _ in noted} for name, noted in note.files.items()}
        return all(states is not None and states.digest in described[name] for name, states in self._files.items())

    def same(self) -> Note | None:
        """The note, where nothing at all is different."""
        return None if self.note is None or self.moved() else self.note

    def equal(self, view: str) -> frozenset[str]:
        """Contents of files of ``view`` whose rows are those of the entries."""
        return self._note.contents(view) if self._note else frozenset()

    def current(self) -> bool:
        """Whether the entries are still those that were to be compared."""
        return self.mark is not None and self.mark == self._marked()

    def keep(self, found: Differences) -> None:
        """Note that a scan came to ``found``, if that is nothing to do."""
        if not found.changed.rows and self._only_held(found):
            self._write(found.rows, found.known, found.still_empty)
        elif self._entries is not None and self._con.rescan and self._note is not None and not self.moved():
            self._entries.ledger.settle(self._entries.space, "{}")  # the same files, another answer: not to be believed

    def keep_written(self, found: Differences, run: int) -> None:
        """After ``run`` wrote what a scan ``found``: note it, if the ledger now has that and nothing else.

        Entries that the run left alone are as they were compared. Those that it wrote must be the changed ones, with
        the fingerprints that were found; those that are gone must be so, and no other.
        """
        if self.current() and self._noted:
            return
        entries, self.mark = self._entries, self._marked()
        if entries is None or self.mark is None:
            return
        self._note = None  # it was about the entries before
        kept = [key for key, _, _ in found.gone if key in self._held]
        gone = halves(key_hashes(key for key, _, _ in found.gone if key not in self._held))
        known = found.rows + len(kept)
        empty = entries.read(
            lambda reader: _empty_if_written(reader, found, gone, halves(key_hashes(kept)), known, run)
        )
        if empty is not None:
            self._write(found.rows, known, empty)

    def _only_held(self, found: Differences) -> bool:
        return all(key in self._held for key, _, _ in found.gone)

    def _marked(self) -> str | None:
        return self._entries.ledger.mark(self._entries.space) if self._entries else None

    def _read(self) -> Note | None:
        text = self._entries.ledger.settled(self._entries.space) if self._entries else None
        if text is None:
            return None
        fields: dict[str, Any] = json.loads(text)
        if (fields.get("terms"), fields.get("mark")) != (self._terms, self.mark):
            return None
        return Note(**fields)

    def _write(self, rows: int, known: int, still_empty: int) -> None:
        """Note it, if the files could not change unseen since before the scan, and the entries did not."""
        if self._entries is None or self._con.clock is None or not self.current():
            return
        files: dict[str, list[Sequence[str]]] = {}
        for view in self._views:
            states, content = self._files.get(view.name), self._con.seen.content(view.source)
            if states is None or content is None or not self._con.clock.settled(states):
                return
            before = self._note.files[view.name] if self._note and len(self._views) == 1 else []
            others = [each for each in before if each[2] != content]
            files[view.name] = [*others, (states.digest, states.sizes, content)][-_KEPT:]
        if any(self._files[view.name] != file_states(source_files(view.source)) for view in self._views):
            return
        note = Note(self._terms, self.mark or "", files, rows, known, still_empty)
        self._entries.ledger.settle(self._entries.space, json.dumps(asdict(note)))
        self._noted = True


def _empty_if_written(
    reader: ShardReader,
    found: Differences,
    gone: tuple[Words, Words],
    kept: tuple[Words, Words],
    expected: int,
    run: int,
) -> int | None:
    """Rows without a text, if the entries are what ``run`` was to leave behind; else None.

    :param gone: hashes of the keys that must not be there.
    :param kept: hashes of those that are there and have no row.
    :param expected: how many entries there must be.
    """
    bits, total, empty = found.changed.bits, 0, 0
    for bucket in range(1 << bits):
        part = reader.part(bits, bucket, ["hash", "raw", "text_fp", "run"])
        high, low = halves(part["hash"])
        mine = numbers_of(part["run"]) == run
        changed = found.changed.read(bucket)
        if changed is not None:
            places = find(*halves(changed["hash"]), high, low)
            if (places < 0).any() or (np.take(numbers_of(part["raw"]), places) != numbers_of(changed["raw"])).any():
                return None
            mine[places] = False
        if mine.any() or (find(*gone, high, low) >= 0).any():
            return None
        places = find(*kept, high, low)
        total += part.num_rows
        empty += part["text_fp"].null_count - part["text_fp"].take(arrow(places[places >= 0])).null_count
    return empty if total == expected else None
