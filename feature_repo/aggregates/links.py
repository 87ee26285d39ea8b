"""Source of ``pin_link_text``: title and description of the page that a pin links to, where they say something.

What is left out (:mod:`feature_repo.aggregates.link_gate`) is null and counted in ``session.screened["pins"]`` as
``link title: error page`` and the like. A pin that was delivered with link texts keeps its row even if all are left
out, so that what was served before is overwritten.

The row's time is the optional column ``link_fetched_at`` of ``pins``: when the texts were read off the page. Before it
nobody knew them, so they are in no aggregate of an earlier time. A catalogue without it leaves the row's
``event_timestamp``, the latest time since which the texts can stand; so a change of anything else of the pin then
makes them look fresher than they are.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.link_gate import LINK_FIELDS, LINK_GATE_VERSION, refusals
from feature_repo.aggregates.session import Session

BATCH_TEXTS = 16_384
_READ = (*LINK_FIELDS, "title", "description", "lang", "link_url")
_SCHEMA = pa.schema({"digest": pa.string(), **dict.fromkeys(LINK_FIELDS, pa.string())})


def write_link_text(session: Session) -> None:
    """Writes ``pin_link_text``, which stays as table ``links``. A pin delivered without link texts has no row.

    What was found of a text is kept under ``data/aggregates/links`` by a digest of all that it depends on, so that a
    run looks only at texts that are new.
    """
    columns = {name for name, *_ in session.con.execute("DESCRIBE alive").fetchall()}
    fetched = "epoch_us(link_fetched_at)" if "link_fetched_at" in columns else "NULL::BIGINT"
    known = (f"CASE WHEN fetched > {session.as_of} THEN NULL ELSE {name} END AS {name}" for name in LINK_FIELDS)
    session.table(
        "linked",
        f"""WITH known AS (SELECT * REPLACE ({", ".join(known)}) FROM (SELECT *, {fetched} AS fetched FROM alive))
            SELECT pin_id, {", ".join(_READ)}, md5(to_json([{", ".join(_READ)}])::VARCHAR) AS digest,
              CASE WHEN fetched <= {session.as_of} THEN fetched ELSE t END AS t
            FROM known WHERE coalesce(link_url, link_title, link_description) IS NOT NULL""",
    )
    _judge(session)
    session.table(
        "links",
        """SELECT pin_id, link_url, CASE WHEN j.link_title IS NULL THEN l.link_title END AS link_title,
             CASE WHEN j.link_description IS NULL THEN l.link_description END AS link_description, t
           FROM linked l LEFT JOIN judged_links j USING (digest)""",
    )
    for field in LINK_FIELDS:
        counts = f"SELECT j.{field}, count(*) FROM linked JOIN judged_links j USING (digest) GROUP BY j.{field}"
        for reason, rows in session.con.execute(counts).fetchall():
            if reason:
                session.screened["pins"][f"{field.replace('_', ' ')}: {reason}"] += rows
    session.con.execute("DROP TABLE judged_links")
    session.con.execute("DROP TABLE linked")
    session.write("pin_link_text", "SELECT * FROM links")


def _judge(session: Session) -> None:
    """Table ``judged_links``: by digest, why the title and the description are left out; null for what stays."""
    folder = session.paths.aggregates / "links"
    file = folder / f"{session.screening.fingerprint}-{LINK_GATE_VERSION}.parquet"
    session.load("judged_links", _kept(file))
    session.con.execute("DELETE FROM judged_links WHERE digest NOT IN (SELECT digest FROM linked)")
    session.table(
        "new_links",
        f"""SELECT *, row_number() OVER () AS number
            FROM (SELECT DISTINCT digest, {", ".join(_READ)} FROM linked
                  WHERE coalesce(link_title, link_description) IS NOT NULL)
              ANTI JOIN judged_links USING (digest)""",
    )
    new = session.value("SELECT count(*) FROM new_links")
    for start in range(0, new, BATCH_TEXTS):
        found = session.con.execute(
            f"""SELECT digest, {", ".join(_READ)} FROM new_links
                WHERE number > {start} AND number <= {start + BATCH_TEXTS}"""
        ).fetchall()
        rows = [{"digest": digest} | dict(refusals(session.screening, *texts)) for digest, *texts in found]
        session.load("incoming", pa.Table.from_pylist(rows, schema=_SCHEMA))
        session.con.execute("INSERT INTO judged_links FROM incoming")
    session.con.execute("DROP TABLE new_links")
    if new and session.source("pin_link_text").parent == session.paths.views:  # not for a look at the past
        _keep(session, folder, file)


def _kept(file: Path) -> pa.Table:
    try:
        with pq.ParquetFile(file) as kept:  # pq.read_table and empty_table load pandas
            return kept.read().cast(_SCHEMA)
    except (OSError, ValueError, pa.ArrowException):  # not there or damaged: everything is looked at anew
        return pa.Table.from_batches([], _SCHEMA)


def _keep(session: Session, folder: Path, file: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{file.name}.part"
    try:
        with pq.ParquetWriter(part, _SCHEMA, compression="zstd") as writer:
            for batch in session.batches("SELECT * FROM judged_links ORDER BY digest", BATCH_TEXTS):
                writer.write_batch(batch.cast(_SCHEMA))
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    for other in folder.glob("*.parquet"):
        if other != file:
            other.unlink(missing_ok=True)
