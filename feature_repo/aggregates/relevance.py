"""Source of ``pin_relevance``: everything that the student's head reads of a pin, in one row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.aggregates.arrays import blobs, column
from feature_repo.aggregates.log import Log
from feature_repo.aggregates.session import Session, parquet
from feature_repo.lexical.blobs import encode_blob
from feature_repo.lexical.tokens import LEXICAL_VERSION
from feature_repo.pin_text import FIELDS, LIST_FIELDS, PinFields

BATCH_ROWS = 8_192
VIEW = "pin_relevance"

_JOINED = """alive a LEFT JOIN captions c USING (pin_id) LEFT JOIN links l USING (pin_id)
             LEFT JOIN board_titles b USING (pin_id) LEFT JOIN engaged_queries q USING (pin_id)"""
_SOURCES = dict(zip(FIELDS, ("a", "a", "c", "l", "l", "b", "q"), strict=True))


def write_relevance(session: Session, log: Log, progress: Callable[[int], None]) -> None:
    """Writes ``pin_relevance`` from the tables of the other views: one row per pin; rates are null for an unseen pin.

    Tokens are made anew only of pins whose texts are not what they were when the source that is in place was written.

    :param progress: called with the pins done so far.
    """
    done = 0

    def convert(batch: pa.RecordBatch) -> list[pa.Array]:
        nonlocal done
        missing = batch["tokens"].is_null()
        fresh = batch.filter(missing)
        columns = [fresh[name].to_pylist() for name in FIELDS]
        made = [
            encode_blob(PinFields.from_row(dict(zip(FIELDS, values, strict=True))))
            for values in zip(*columns, strict=True)
        ]
        tokens = pc.replace_with_mask(batch["tokens"], missing, blobs(made).cast(batch["tokens"].type))
        done += len(batch)
        progress(done)
        version = column(np.full(len(batch), LEXICAL_VERSION))
        return [batch["pin_id"], tokens, version, batch["click_rate"], batch["save_rate"]]

    known = _known_tokens(session, log)
    texts = ", ".join(
        f"CASE WHEN k.tokens IS NULL THEN {source}.{name} END AS {name}" for name, source in _SOURCES.items()
    )
    session.write(
        VIEW,
        f"""SELECT a.pin_id, k.tokens, {texts}, e.click_rate, e.save_rate, greatest(a.t, c.t, l.t, b.t, q.t, e.t) AS t
            FROM {_JOINED} LEFT JOIN engagement e USING (pin_id) LEFT JOIN ({known}) k USING (pin_id)""",
        convert=convert,
        rows=BATCH_ROWS,
    )


def _known_tokens(session: Session, log: Log) -> str:
    """SQL of (pin_id, tokens) that still hold; the digests of the texts are kept for the next run."""
    none = "SELECT ''::VARCHAR AS pin_id, ''::BLOB AS tokens WHERE false"
    if not log.keeps:
        return none
    parts = (
        f"array_to_string({source}.{name}, chr(1))" if name in LIST_FIELDS else f"{source}.{name}"
        for name, source in _SOURCES.items()
    )
    told = " || ".join(f"coalesce(strlen({part}) || ':' || {part}, '-')" for part in parts)
    session.table("digests", f"SELECT pin_id, md5({told}) AS digest FROM {_JOINED}")
    old = session.source(VIEW)
    log.state.replace(session, "digests", "FROM digests")
    if not log.holds(old):
        return none
    same = f"FROM {log.state.before('digests')} SEMI JOIN digests USING (pin_id, digest)"
    return f"SELECT pin_id, tokens FROM {parquet([old])} SEMI JOIN ({same}) USING (pin_id)"
