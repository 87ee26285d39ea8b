"""Source of ``pin_captions``: what is seen on a pin's image."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from feature_repo.aggregates import caption_files
from feature_repo.aggregates.session import BATCH_ROWS, Session, microseconds, parquet
from feature_repo.screening import Purpose
from feature_repo.text import normalise

_EMPTY = "SELECT ''::VARCHAR AS image_sha256, '' AS captioner, '' AS caption, ''::VARCHAR AS flag, 0::BIGINT AS t"
_TRIES = 5
_REFUSED = pa.schema([("caption", pa.string()), ("reason", pa.string())])


def write_captions(session: Session) -> None:
    """Writes ``pin_captions``, which stays as table ``captions``. A pin without a caption has no row.

    Two sources count: the raw table ``captions``, and the captions made here by the captioner that is in use at the
    time (``pinfeather caption``). Of one image's captions the newest wins, whoever wrote it; one made here is as new as
    the later of its own time and the time since when its captioner is in use. At the same time the one made here wins.
    Captions that the quality gate flagged, and raw ones that screening refuses, are left out and counted. A hash in
    capitals is the same image.
    """
    _read_stage(session)
    _screen_raw(session)
    # A pin that changes its image changes its caption then.
    session.table(
        "captions",
        f"""WITH written AS (
              SELECT image_sha256, caption, captioner, t, 0 AS rank FROM stage_captions WHERE flag IS NULL
              UNION ALL
              SELECT lower(image_sha256), caption, captioner, epoch_us(event_timestamp), 1
              FROM raw_captions ANTI JOIN refused_captions USING (caption)
              WHERE epoch_us(event_timestamp) <= {session.as_of}),
            ranked AS (
              SELECT *, row_number() OVER (PARTITION BY image_sha256
                                           ORDER BY t DESC, rank, captioner, caption) AS place
              FROM written)
            SELECT a.pin_id, r.caption, r.captioner, greatest(a.t, r.t) AS t
            FROM alive a JOIN ranked r ON r.image_sha256 = lower(a.image_sha256) AND r.place = 1""",
    )
    session.write("pin_captions", "SELECT * FROM captions")


def _read_stage(session: Session) -> None:
    """Captions of the captioner in use as table ``stage_captions``: each image once."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=session.as_of)
    use = caption_files.in_use(session.paths.captions, moment)
    if use is None:
        session.table("stage_captions", f"{_EMPTY} WHERE false")
        return
    for left in reversed(range(_TRIES)):
        files = caption_files.parts(session.paths.captions, use.fingerprint)
        try:
            session.table("stage_captions", _stage_sql(session, use, files))
            break
        except Exception:  # `pinfeather caption` beside us merged files that were listed: look again
            if not left or all(file.is_file() for file in files):
                raise
    flagged = "SELECT flag, count(*) FROM stage_captions WHERE flag IS NOT NULL GROUP BY flag"
    for reason, rows in session.con.execute(flagged).fetchall():
        session.screened["captions"][reason] += rows


def _stage_sql(session: Session, use: caption_files.InUse, files: list[Path]) -> str:
    if not files:
        return f"{_EMPTY} WHERE false"
    return f"""SELECT lower(image_sha256) AS image_sha256, captioner, caption, flag,
                      greatest(epoch_us(event_timestamp), {microseconds(use.since)}) AS t
               FROM {parquet(files)} WHERE epoch_us(event_timestamp) <= {session.as_of}
               QUALIFY row_number() OVER (PARTITION BY lower(image_sha256)
                                          ORDER BY event_timestamp DESC, caption) = 1"""


def _screen_raw(session: Session) -> None:
    """Raw captions that screening refuses as table ``refused_captions``."""
    session.load("refused_captions", pa.Table.from_batches(list(_refused(session)), _REFUSED))
    counted = f"""SELECT reason, count(*) FROM raw_captions JOIN refused_captions USING (caption)
                  WHERE epoch_us(event_timestamp) <= {session.as_of} GROUP BY reason"""
    for reason, rows in session.con.execute(counted).fetchall():
        session.screened["captions"][reason] += rows


def _refused(session: Session) -> Iterator[pa.RecordBatch]:
    wanted = f"SELECT DISTINCT caption FROM raw_captions WHERE epoch_us(event_timestamp) <= {session.as_of}"
    for batch in session.batches(wanted, BATCH_ROWS):
        texts = batch.column(0).to_pylist()
        reasons = [session.screening.reason(normalise(text), Purpose.CAPTION) for text in texts]
        rows = [{"caption": t, "reason": r} for t, r in zip(texts, reasons, strict=True) if r]
        yield pa.RecordBatch.from_pylist(rows, _REFUSED)
