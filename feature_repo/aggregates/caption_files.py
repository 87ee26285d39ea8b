"""Where captions that were made here lie, and which captioner's count: ``data/captions``.

Every captioner has a folder of its own, ``<fingerprint>/part-*.parquet``. ``current.json`` says which one's captions
are used, and since when; the list is its history, so that a past time has the captions that were used then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from feature_repo.errors import PinfeatherError

CURRENT = "current.json"
SCHEMA = pa.schema(
    [
        ("image_sha256", pa.string()),
        ("captioner", pa.string()),
        ("caption", pa.string()),
        ("flag", pa.string()),
        ("event_timestamp", pa.timestamp("us", "UTC")),
    ]
)
"""A caption of the stage; ``flag`` says why it stays out of the pin text, null if it is good."""


@dataclass(frozen=True)
class InUse:
    """From ``since`` on the captions of this captioner count."""

    fingerprint: str
    name: str
    since: datetime


def history(folder: Path) -> list[InUse]:
    """The captioners in use over time, the earliest first; empty if none ever was.

    :raises PinfeatherError: if ``current.json`` cannot be read.
    """
    path = folder / CURRENT
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["captioners"]
        found = [InUse(str(e["fingerprint"]), str(e["name"]), _utc(e["since"])) for e in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PinfeatherError(
            f"{path} cannot be read ({error!r}). Delete it and run `pinfeather caption --use NAME`: the captions "
            "themselves are not lost."
        ) from error
    return sorted(found, key=lambda use: use.since)


def in_use(folder: Path, as_of: datetime | None = None) -> InUse | None:
    """The captioner whose captions count at ``as_of`` (default now), or None."""
    return next((use for use in reversed(history(folder)) if as_of is None or use.since <= as_of), None)


def parts(folder: Path, fingerprint: str) -> list[Path]:
    """The files of a captioner's captions, by name. Two of them may hold the same caption."""
    return sorted((folder / fingerprint).glob("part-*.parquet"))


def _utc(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
