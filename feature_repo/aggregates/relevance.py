"""Source of ``pin_relevance``: everything that the student's head reads of a pin, in one row."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from feature_repo.aggregates.session import Session
from feature_repo.lexical.blobs import encode_blob
from feature_repo.lexical.tokens import LEXICAL_VERSION
from feature_repo.pin_text import FIELDS, PinFields

BATCH_ROWS = 8_192


def write_relevance(session: Session, progress: Callable[[int], None]) -> None:
    """Writes ``pin_relevance`` from the tables of the other views: one row per pin; rates are null for an unseen pin.

    :param progress: called with the pins done so far.
    """
    done = 0

    def convert(batch: pa.RecordBatch) -> list[pa.Array]:
        nonlocal done
        columns = [batch[name].to_pylist() for name in FIELDS]
        blobs = []
        for values in zip(*columns, strict=True):
            blobs.append(encode_blob(PinFields.from_row(dict(zip(FIELDS, values, strict=True)))))
        done += len(batch)
        progress(done)
        version = pa.array([LEXICAL_VERSION] * len(batch), pa.int64())
        return [batch["pin_id"], pa.array(blobs, pa.binary()), version, batch["click_rate"], batch["save_rate"]]

    session.write(
        "pin_relevance",
        """SELECT a.pin_id, a.title, a.description, c.caption, l.link_title, l.link_description, b.board_titles,
             q.engaged_queries, e.click_rate, e.save_rate, greatest(a.t, c.t, l.t, b.t, q.t, e.t) AS t
           FROM alive a LEFT JOIN captions c USING (pin_id) LEFT JOIN links l USING (pin_id)
             LEFT JOIN board_titles b USING (pin_id) LEFT JOIN engaged_queries q USING (pin_id)
             LEFT JOIN engagement e USING (pin_id)""",
        convert=convert,
        rows=BATCH_ROWS,
    )
