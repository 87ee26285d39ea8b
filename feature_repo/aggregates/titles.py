"""Titles of boards as text: which are one title, which are left out, which are generic. Each is looked at once."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import regex

from feature_repo.aggregates.session import Session
from feature_repo.screening import Purpose, Screening
from feature_repo.screening.folding import folded_words
from feature_repo.text import normalise, words

BATCH_TITLES = 8_192
"""Titles in Python at once: a hostile one has 20,000 characters."""

# Emoji in the guise of letters, digits and marks: keycaps, "information", the signs that choose how an emoji is drawn.
_EMOJI = regex.compile(r"[0-9#*]\ufe0f?\u20e3|\u2139|[\ufe00-\ufe0f\u20e3]")
_APOSTROPHE = regex.compile(r"(?<=\p{L})['’‘ʼ`´′](?=\p{L})")

_SCHEMA = pa.schema(
    {
        "raw": pa.int64(),
        "title": pa.string(),
        "key": pa.string(),
        "said": pa.list_(pa.string()),
        "words": pa.int32(),
        "characters": pa.int32(),
        "generic": pa.bool_(),
        "refused": pa.string(),
    }
)


def title_words(title: str) -> list[str]:
    """The words that make a title what it is, so without case, punctuation, emoji and fancy letters.

    Titles with the same words are one title: "To-read", "TO READ!" and "to read 📚". An apostrophe joins ("kids'" and
    "kid's" are "kids"), every other sign separates. Case folding and compatibility forms as in Unicode NFKC.
    """
    if title.isascii():
        return folded_words(_APOSTROPHE.sub("", title) if "'" in title or "`" in title else title)
    plain = unicodedata.normalize("NFKC", _EMOJI.sub(" ", title)).casefold()
    return words(_APOSTROPHE.sub("", plain))


def load_titles(session: Session, source: str) -> None:
    """Table ``titled``: every distinct title of ``source`` (columns ``raw``, ``board_title``), as it counts or refused.

    Only one batch of titles is in memory at a time, whatever their number.
    """
    session.table("numbered", f"SELECT raw, board_title, row_number() OVER () AS number FROM ({source})")
    session.load("titled", pa.Table.from_batches([], _SCHEMA))
    for start in range(0, session.value("SELECT count(*) FROM numbered"), BATCH_TITLES):
        found = session.con.execute(
            f"SELECT raw, board_title FROM numbered WHERE number > {start} AND number <= {start + BATCH_TITLES}"
        ).fetchall()
        rows = [{"raw": raw} | _described(title, session.screening) for raw, title in found]
        session.load("incoming", pa.Table.from_pylist(rows, schema=_SCHEMA))
        session.con.execute("INSERT INTO titled FROM incoming")
    session.con.execute("DROP TABLE numbered")


def _described(raw: str, screening: Screening) -> dict[str, object]:
    title = normalise(raw)
    reason = screening.reason(title, Purpose.BOARD_TITLE)
    said = [] if reason else title_words(title)
    if not said:
        return {"refused": reason or "no letters"}
    return {
        "title": title,
        "key": " ".join(said),
        "said": sorted(set(said)),
        "words": len(folded_words(title)),
        "characters": len(title),
        "generic": screening.generic(said),
    }
