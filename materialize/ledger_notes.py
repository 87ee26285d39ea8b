"""What the ledger keeps beside its entries: past runs to look at, texts in quarantine, and what scans found settled."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from materialize.file_states import file_states

_SHARDS = (
    "SELECT space, bits, prefix, file, rows, vectors, doubtful, unmatched FROM shards WHERE space=? "
    "ORDER BY bits, prefix"
)


def m002_quarantine(db: sqlite3.Connection) -> None:
    """The migration that makes the table of texts which an encoder could not take."""
    db.execute(
        "CREATE TABLE quarantine (space TEXT NOT NULL, pin_id TEXT NOT NULL, text_fp BLOB NOT NULL, "
        "reason TEXT NOT NULL, run INTEGER NOT NULL, since TEXT NOT NULL, PRIMARY KEY (space, pin_id))"
    )


def m004_settled(db: sqlite3.Connection) -> None:
    """The migration that makes the table of what scans found settled, see :mod:`materialize.settled`."""
    db.execute("CREATE TABLE settled (space TEXT PRIMARY KEY, note TEXT NOT NULL)")


@dataclass(frozen=True)
class RunRow:
    """One run over one space as the ledger has it; times are ISO 8601 in UTC."""

    run: int
    space: str
    started_at: str
    finished_at: str | None
    status: str
    """``running``, ``done``, ``interrupted``, ``refused``, ``failed``; ``killed`` once a later run has seen it."""
    counts: dict[str, Any]


@dataclass(frozen=True)
class Quarantined:
    """A pin whose text the encoder could not take."""

    pin_id: str
    text_fp: bytes
    reason: str
    run: int
    since: str


class LedgerNotes:
    """The part of :class:`~materialize.ledger.Ledger` that is not about entries."""

    _db: sqlite3.Connection

    def _live(self, space: str) -> list[tuple[str]]:
        raise NotImplementedError

    def _shard(self, space: str, file: str) -> Path:
        raise NotImplementedError

    def start_run(self, space: str, after: int = 0) -> int:
        """Note that a run over ``space`` began; its number, greater than ``after``.

        Runs left open by a crash are marked as such.
        """
        self._db.execute("UPDATE runs SET status='killed' WHERE status='running'")
        (last,) = self._db.execute("SELECT coalesce(max(run), 0) FROM runs").fetchone()
        number = max(int(last), after) + 1
        self._db.execute(
            "INSERT INTO runs (run, space, started_at, status) VALUES (?, ?, ?, 'running')",
            (number, space, datetime.now(UTC).isoformat()),
        )
        return number

    def finish_run(self, run: int, status: str, counts: Mapping[str, Any]) -> None:
        """Note how a run ended, with its counts."""
        self._db.execute(
            "UPDATE runs SET finished_at=?, status=?, counts=? WHERE run=?",
            (datetime.now(UTC).isoformat(), status, json.dumps(counts), run),
        )

    def tokens_per_second(self, space: str) -> float | None:
        """Rate of the last finished run of ``space`` that encoded for at least a second, or None.

        Tokens are those of the plan. So a run is left out that had vectors from elsewhere, or encoded what was lost.
        """
        rows = self._db.execute(
            "SELECT counts FROM runs WHERE space=? AND status='done' AND counts IS NOT NULL ORDER BY run DESC LIMIT 50",
            (space,),
        ).fetchall()
        for (text,) in rows:
            counts = json.loads(text)
            spared = counts.get("texts_to_encode", 0) - counts.get("encoded_texts", 0)
            as_planned = 0 <= spared <= counts.get("quarantined", 0)
            if as_planned and counts.get("tokens") and counts.get("encode_seconds", 0) >= 1:
                return float(counts["tokens"] / counts["encode_seconds"])
        return None

    def run_rows(self, limit: int | None = None) -> list[RunRow]:
        """The last ``limit`` runs, newest first; None gives all."""
        rows = self._db.execute(
            "SELECT run, space, started_at, finished_at, "
            "CASE status WHEN 'crashed' THEN 'killed' ELSE status END, counts "  # 'crashed' is what it was called once
            "FROM runs ORDER BY run DESC LIMIT ?",
            (-1 if limit is None else limit,),
        ).fetchall()
        return [
            RunRow(run, space, started, finished, status, json.loads(counts) if counts else {})
            for run, space, started, finished, status, counts in rows
        ]

    def fail_runs(self, error: BaseException) -> None:
        """Note why the run under way ended, where nothing was noted of its end yet."""
        reason = " ".join((str(error) or type(error).__name__).split())
        now = datetime.now(UTC)
        for run, started in self._db.execute("SELECT run, started_at FROM runs WHERE status='running'").fetchall():
            seconds = max(0.0, (now - datetime.fromisoformat(started)).total_seconds())
            self.finish_run(run, "failed", {"error": reason, "seconds": round(seconds, 3)})

    def entry_count(self, space: str) -> int:
        """Entries of ``space``; those that a run that was killed or is under way has not folded in are left out."""
        (rows,) = self._db.execute("SELECT coalesce(sum(rows), 0) FROM shards WHERE space=?", (space,)).fetchone()
        return int(rows)

    def quarantined(self, space: str) -> dict[bytes, list[Quarantined]]:
        """Text fingerprint to the pins that carry it, of texts in quarantine."""
        found: dict[bytes, list[Quarantined]] = {}
        rows = self._db.execute(
            "SELECT pin_id, text_fp, reason, run, since FROM quarantine WHERE space=? ORDER BY pin_id", (space,)
        )
        for row in rows.fetchall():
            found.setdefault(bytes(row[1]), []).append(Quarantined(*row))
        return found

    def quarantine(self, space: str, run: int, pins: Iterable[tuple[str, bytes, str]]) -> None:
        """Set (pin, text fingerprint, reason) aside; a pin has one text in quarantine, the last."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._db.executemany(
            "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
            [(space, pin_id, text_fp, reason, run, now) for pin_id, text_fp, reason in pins],
        )

    def unquarantine(self, space: str, text_fps: Iterable[bytes]) -> None:
        """Believe again of these texts that they can be encoded."""
        self._db.executemany("DELETE FROM quarantine WHERE space=? AND text_fp=?", [(space, fp) for fp in text_fps])

    def keep_quarantined(self, space: str, pin_ids: Sequence[str]) -> None:
        """Drop every pin but these from the quarantine of ``space``: the others have another text now, or left."""
        kept = set(pin_ids)
        known = self._db.execute("SELECT pin_id FROM quarantine WHERE space=?", (space,)).fetchall()
        gone = [(space, pin_id) for (pin_id,) in known if pin_id not in kept]
        self._db.executemany("DELETE FROM quarantine WHERE space=? AND pin_id=?", gone)

    def settled(self, space: str) -> str | None:
        """What the last scan that found nothing to do for ``space`` noted."""
        row = self._db.execute("SELECT note FROM settled WHERE space=?", (space,)).fetchone()
        return row[0] if row else None

    def settle(self, space: str, note: str) -> None:
        """Note that a scan found nothing to do for ``space``; where another process writes, nothing is noted."""
        with suppress(sqlite3.OperationalError):
            self._db.execute("INSERT OR REPLACE INTO settled VALUES (?, ?)", (space, note))

    def mark(self, space: str) -> str | None:
        """Tells the entries of ``space`` from what they were before and will be; None while they are being written.

        Files count as :func:`~materialize.file_states.file_states` describes them: one that was restored is another.
        """
        self._db.execute("BEGIN")
        try:
            queries = ("SELECT 1 FROM journal WHERE space=? LIMIT 1", "SELECT * FROM engines WHERE space=?", _SHARDS)
            journal, engine, shards = (self._db.execute(query, (space,)).fetchall() for query in queries)
        finally:
            self._db.execute("COMMIT")
        paths = [self._shard(space, file) for _, _, _, file, *_ in shards if file]
        files = file_states(paths)
        if journal or (paths and files is None):
            return None
        return hashlib.sha256(json.dumps([engine, shards, files.digest if files else None]).encode()).hexdigest()

    def damaged(self, space: str) -> list[Path]:
        """Shards of ``space`` that are there and cannot be read."""
        files = []
        for (name,) in self._live(space):
            file = self._shard(space, name)
            try:
                pq.read_table(file)
            except FileNotFoundError:
                continue  # folded meanwhile, or lost: the next run makes that good
            except (pa.ArrowException, OSError):
                files.append(file)
        return files
