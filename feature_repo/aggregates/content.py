"""Source of ``pin_text``: what the pin says of itself."""

from __future__ import annotations

from feature_repo.aggregates.session import Session


def write_content(session: Session) -> None:
    """Writes ``pin_text``: one row for every pin that is there."""
    session.write(
        "pin_text",
        """SELECT pin_id, title, description, lang, country, epoch_us(created_at) AS created_at, image_sha256, t
           FROM alive""",
    )
