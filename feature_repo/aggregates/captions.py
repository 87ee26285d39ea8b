"""Source of ``pin_captions``: what is seen on a pin's image."""

from __future__ import annotations

from feature_repo.aggregates.session import Session


def write_captions(session: Session) -> None:
    """Writes ``pin_captions``, which stays as table ``captions``. A pin without a caption has no row."""
    # The latest caption of an image counts, whoever wrote it; a pin that changes its image changes its caption then.
    session.table(
        "captions",
        f"""WITH ranked AS (
              SELECT image_sha256, caption, captioner, epoch_us(event_timestamp) AS t,
                     row_number() OVER (PARTITION BY image_sha256
                                        ORDER BY event_timestamp DESC, captioner, caption) AS place
              FROM raw_captions WHERE epoch_us(event_timestamp) <= {session.as_of})
            SELECT a.pin_id, r.caption, r.captioner, greatest(a.t, r.t) AS t
            FROM alive a JOIN ranked r ON r.image_sha256 = a.image_sha256 AND r.place = 1""",
    )
    session.write("pin_captions", "SELECT * FROM captions")
