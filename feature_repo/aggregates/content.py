"""Sources of the views that repeat what is said of a pin: its texts, its link, its caption."""

from __future__ import annotations

from feature_repo.aggregates.session import Session


def write_content(session: Session) -> None:
    """Writes ``pin_text``, ``pin_link_text`` and ``pin_captions``; the last stays as table ``captions``.

    A pin without link texts has no row in ``pin_link_text``; one without a caption has none in ``pin_captions``.
    """
    session.write(
        "pin_text",
        """SELECT pin_id, title, description, lang, country, epoch_us(created_at) AS created_at, image_sha256, t
           FROM alive""",
    )
    session.write(
        "pin_link_text",
        """SELECT pin_id, link_url, link_title, link_description, t FROM alive
           WHERE coalesce(link_url, link_title, link_description) IS NOT NULL""",
    )
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
