"""Source of ``pin_link_text``: title and description of the page that a pin links to."""

from __future__ import annotations

from feature_repo.aggregates.session import Session


def write_link_text(session: Session) -> None:
    """Writes ``pin_link_text``, which stays as table ``links``. A pin without link texts has no row."""
    session.table(
        "links",
        """SELECT pin_id, link_url, link_title, link_description, t FROM alive
           WHERE coalesce(link_url, link_title, link_description) IS NOT NULL""",
    )
    session.write("pin_link_text", "SELECT * FROM links")
