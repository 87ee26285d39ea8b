"""Which saves to boards count: neither secret, removed, too early, nor of somebody who saves all day."""

from __future__ import annotations

from feature_repo.aggregates.session import Session

TOO_MANY = "too many saves of a user in a day"
TOO_EARLY = "before the pin was created"
_DAY = 86_400 * 10**6


def select_saves(session: Session) -> None:
    """Tables ``saves`` (what counts), ``all_saves`` (of pins that are there) and ``save_times`` (last change per pin).

    Ids and titles become integers first: ``save_pins``, ``save_boards`` and ``raw_titles`` say what they stand for.
    """
    limits = session.screening.limits
    _number(session, limits.max_saves_a_day)
    session.table(
        "all_saves",
        f"""SELECT board, pin, person, raw, secret, hidden, s,
              CASE WHEN epoch_us(removed_at) <= {session.as_of} THEN epoch_us(removed_at) END AS r,
              CASE WHEN b.user_id IS NOT NULL THEN '{TOO_MANY}'
                   WHEN s < born - {limits.early_seconds * 10**6} THEN '{TOO_EARLY}' END AS reason
            FROM known_saves JOIN save_pins USING (pin_id) JOIN save_boards USING (board_id)
              JOIN save_people USING (user_id) LEFT JOIN raw_titles USING (board_title)
              LEFT JOIN busy_days b USING (user_id, day)""",
    )
    # A removal that came as a row of its own takes back what was saved before it.
    session.table(
        "saves",
        """WITH removals AS (
             SELECT board, pin, person, max(r) AS last FROM all_saves WHERE r IS NOT NULL GROUP BY ALL)
           SELECT pin, person, raw, s, reason FROM all_saves LEFT JOIN removals USING (board, pin, person)
           WHERE NOT hidden AND raw IS NOT NULL AND r IS NULL AND (last IS NULL OR last < s)""",
    )
    # A purely secret board leaves no trace, not even a time; one that turned secret has changed the pin.
    session.table(
        "save_times",
        """WITH boards AS (
             SELECT pin, max(greatest(s, coalesce(r, s))) AS t FROM all_saves
             GROUP BY pin, board HAVING NOT bool_and(secret))
           SELECT pin, max(t) AS t FROM boards GROUP BY pin""",
    )
    for reason, rows in session.con.execute("SELECT reason, count(*) FROM saves GROUP BY reason").fetchall():
        if reason:
            session.screened["board_saves"][reason] += rows
    session.con.execute("DELETE FROM saves WHERE reason IS NOT NULL")


def _number(session: Session, max_saves: int) -> None:
    """Integers for pins, boards, people and titles; ``busy_days`` has the days of people with too many saves."""
    session.con.execute(
        f"""CREATE OR REPLACE TEMP VIEW known_saves AS
            SELECT *, epoch_us(saved_at) AS s, epoch_us(saved_at) // {_DAY} AS day FROM raw_board_saves
            WHERE epoch_us(saved_at) <= {session.as_of}"""
    )
    session.table(
        "save_pins",
        "SELECT pin_id, (row_number() OVER ())::INTEGER AS pin, epoch_us(created_at) AS born FROM alive",
    )
    session.table(  # a board with any secret save is secret as a whole
        "save_boards",
        """SELECT board_id, (row_number() OVER ())::INTEGER AS board, hidden
           FROM (SELECT board_id, bool_or(secret) AS hidden FROM known_saves GROUP BY board_id)""",
    )
    for table, column, name in (("save_people", "user_id", "person"), ("raw_titles", "board_title", "raw")):
        session.table(
            table,
            f"""SELECT {column}, (row_number() OVER ())::INTEGER AS {name}
                FROM (SELECT DISTINCT {column} FROM known_saves WHERE {column} IS NOT NULL)""",
        )
    # Rows that came twice count once, but only where the plain count is too high is a closer look worth its while.
    session.table(
        "busy_days",
        f"""WITH crowded AS (
              SELECT user_id, day FROM known_saves GROUP BY user_id, day HAVING count(*) > {max_saves})
            SELECT user_id, day FROM known_saves SEMI JOIN crowded USING (user_id, day)
            GROUP BY user_id, day HAVING count(DISTINCT (board_id, pin_id, s)) > {max_saves}""",
    )
