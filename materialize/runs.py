"""Past runs as on-call wants to see them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from feature_repo.paths import RepoPaths
from materialize.captions import journal
from materialize.ledger import Ledger
from materialize.ledger_notes import RunRow
from materialize.places import place_of
from materialize.stores.lease import read_holder

COUNTS = ("new", "changed", "payload_only", "unchanged", "gone", "upserted", "deleted", "encoded_texts", "remaining")


def list_runs(paths: RepoPaths, limit: int | None = 20) -> list[dict[str, Any]]:
    """The last runs, newest first: ``run, space, started, ended, status, seconds, rate, rejected, error`` and counts.

    ``status`` is ``running``, ``done``, ``interrupted`` (a signal ended it at a clean point), ``refused`` (by the
    delete guard), ``failed``, ``repair`` or ``killed``: started, never ended, and nobody holds the writer lease.
    ``rate`` is texts encoded in a second of encoding, null where none was. Runs of a captioner are among them: their
    space is ``captions:NAME``, they have numbers of their own, and texts are captions there.
    """
    found = _caption_rows(paths)
    if (paths.ledger / "ledger.db").is_file():
        writing = is_writing(paths)
        with Ledger(paths) as ledger:
            found += [_row(row, writing) for row in ledger.run_rows(limit)]
    return sorted(found, key=lambda row: row["started"], reverse=True)[:limit]


def is_writing(paths: RepoPaths) -> bool:
    """Whether a run holds the writer lease of the store now; a push of Feast's is no run."""
    place = place_of(paths)
    return _is_held((paths.online if place.embedded and place.path else paths.ledger) / "writer.lock")


def _is_held(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return not str(read_holder(lock).get("purpose", "")).startswith("feast")
    finally:
        os.close(file)
    return False


def status_of(row: RunRow, writing: bool) -> str:
    """The status of a run; one that is open is killed unless somebody is ``writing``."""
    return "killed" if row.status == "running" and not writing else row.status


def _row(row: RunRow, writing: bool) -> dict[str, Any]:
    counts = row.counts
    encoding = counts.get("encode_seconds") or 0
    return {
        "run": row.run,
        "space": row.space,
        "started": row.started_at,
        "ended": row.finished_at,
        "status": status_of(row, writing),
        "seconds": counts.get("seconds"),
        "rate": round(counts["encoded_texts"] / encoding, 1) if encoding and counts.get("encoded_texts") else None,
        "rejected": counts.get("rejected"),
        "quarantined": counts.get("quarantined"),
        "error": counts.get("error"),
        **{name: counts.get(name) for name in COUNTS},
    }


def _caption_rows(paths: RepoPaths) -> list[dict[str, Any]]:
    writing = _is_held(journal.lock(paths))
    newest = True
    found = []
    for row in journal.rows(paths):
        counts = row.get("counts") or {}
        running = row["status"] == "running" and newest and writing
        seconds = counts.get("model_seconds") or 0
        found.append(
            {
                **{name: row.get(name) for name in ("run", "space", "started", "ended")},
                "status": "killed" if row["status"] == "running" and not running else row["status"],
                "seconds": counts.get("seconds"),
                "rate": round(counts["captioned"] / seconds, 1) if seconds and counts.get("captioned") else None,
                "rejected": counts.get("rejected"),
                "quarantined": None,
                "error": counts.get("error"),
                **dict.fromkeys(COUNTS),
                "new": counts.get("new"),
                "unchanged": counts.get("reused"),
                "gone": counts.get("dropped"),
                "encoded_texts": counts.get("captioned"),
                "remaining": counts.get("remaining"),
            }
        )
        newest = False
    return found
