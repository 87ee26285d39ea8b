"""Source of ``pin_text``: what the pin says of itself."""

from __future__ import annotations

from feature_repo.aggregates.session import Session


def write_content(session: Session) -> None:
    """Writes ``pin_text``: one row for every pin that is there."""
    columns = {name for name, *_ in session.con.execute("DESCRIBE alive").fetchall()}
    safe = "safe" if "safe" in columns else "NULL::BOOLEAN AS safe"  # tables validated before the column was there
    session.write(
        "pin_text",
        f"""SELECT pin_id, title, description, lang, country, epoch_us(created_at) AS created_at, image_sha256,
              {safe}, t FROM alive""",
    )
