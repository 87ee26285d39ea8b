"""Top board titles of a pin.

Published: each title gets a score from how often it occurs and from the prevalence of its words; score ascending, then
more words, then more characters; ten titles. The formula was not published. Ours, lower is better::

    rarity(title) = 1/2 * mean over its words of ln((pins(word) + 1) / (N + 1)) + 1/2 * ln((pins(title) + 1) / (N + 1))
    score(pin, title) = (rarity(title) - 0.5 * ln(users(pin, title))) * (0.25 if the title is generic else 1)

``pins(word)`` and ``pins(title)``: pins saved to a board with that word in its title, or with that title; ``N``: pins
saved to any board; ``users``: distinct people who saved this pin under this title. "My stuff" and "favorites" stand
over everything, so their logarithms are near 0 and rank last; "terracotta balcony pots" says much and ranks first. The
half keeps a crowd from lifting a common title: a hundred times the people buys as much as a title ten times as rare.
Counts alone cannot tell a generic title that few use from a specific one, nor a broad specific one ("drama") from a
generic one: that is what the list of generic words is for (:mod:`feature_repo.screening`), which a user can replace.
What each part brings is measured in ``docs/board_titles.md``.

One title is what differs only in case, punctuation or emoji (:func:`feature_repo.aggregates.titles.title_words`); the
spelling that most people of the pin use is shown, then the one that most people use anywhere. One user stands behind
at most ``max_titles_per_user_and_pin`` titles of a pin, the earliest ones.
"""

from __future__ import annotations

from feature_repo.aggregates.board_saves import select_saves
from feature_repo.aggregates.session import Session
from feature_repo.aggregates.titles import load_titles

KEPT_TITLES = 10
CROWD_WEIGHT = 0.5
TITLE_WEIGHT = 0.5
"""Weight of the title's own prevalence; the rest is that of its words."""
GENERIC_WEIGHT = 0.25
TOO_MANY_TITLES = "too many titles of a user on a pin"
_BIG_TABLES = ("saves", "titled", "raw_titles", "uses", "save_people", "save_boards", "busy_days")


def write_board_titles(session: Session, min_users: int) -> None:
    """Writes ``pin_board_titles``, which stays as table ``board_titles``.

    A pin whose titles all have fewer than ``min_users`` people behind them gets an empty list, so that what was served
    before is overwritten. A removal counts from its time on, whether it changed the row of the save or came as a row
    of its own (same board, pin and user). A board with any secret save is secret as a whole. Rows that a rule leaves
    out are counted in ``session.screened["board_saves"]``.
    """
    select_saves(session)
    load_titles(session, "SELECT raw, board_title FROM raw_titles SEMI JOIN saves USING (raw)")
    _number_titles(session)
    _cap_titles(session, session.screening.limits.max_titles_per_user_and_pin)
    _score_titles(session)
    score = f"(rarity - {CROWD_WEIGHT} * ln(users)) * CASE WHEN generic THEN {GENERIC_WEIGHT} ELSE 1 END"
    session.table(
        "board_titles",
        f"""WITH spelled AS (
              SELECT pin, key_id, title_id, count(DISTINCT person) AS n FROM uses GROUP BY ALL),
            everywhere AS (
              SELECT title_id, count(DISTINCT person) AS all_people FROM uses GROUP BY title_id),
            crowds AS (
              SELECT pin, key_id, count(DISTINCT person) AS users FROM uses
              GROUP BY ALL HAVING users >= {min_users}),
            spelling AS (
              SELECT pin, key_id, title, words, characters
              FROM spelled SEMI JOIN crowds USING (pin, key_id) JOIN everywhere USING (title_id)
                JOIN titles USING (title_id, key_id)
              QUALIFY row_number() OVER (PARTITION BY pin, key_id ORDER BY n DESC, all_people DESC, title) = 1),
            ranked AS (
              SELECT pin, title, row_number() OVER (PARTITION BY pin ORDER BY
                       round({score} * 1e6)::BIGINT, words DESC, characters DESC, title) AS place
              FROM crowds JOIN spelling USING (pin, key_id) JOIN rarities USING (key_id)),
            lists AS (
              SELECT pin, list(title ORDER BY place) AS found FROM ranked
              WHERE place <= {KEPT_TITLES} GROUP BY pin)
            SELECT pin_id, coalesce(found, []) AS board_titles, t
            FROM save_times JOIN save_pins USING (pin) LEFT JOIN lists USING (pin)""",
    )
    for table in _BIG_TABLES:
        session.con.execute(f"DROP TABLE {table}")
    session.write("pin_board_titles", "SELECT * FROM board_titles")


def _number_titles(session: Session) -> None:
    """Tables ``keys`` (one row for all spellings of a title), ``titles``, ``key_words`` and ``uses``."""
    counts = "SELECT refused, count(*) FROM saves JOIN titled USING (raw) WHERE refused IS NOT NULL GROUP BY refused"
    for reason, rows in session.con.execute(counts).fetchall():
        session.screened["board_saves"][f"title: {reason}"] += rows
    session.table(
        "keys",
        """SELECT key, (row_number() OVER ())::INTEGER AS key_id, said, generic
           FROM (SELECT key, any_value(said) AS said, any_value(generic) AS generic FROM titled
                 WHERE refused IS NULL GROUP BY key)""",  # said and generic follow from the key
    )
    session.table(
        "titles",
        """SELECT title, (row_number() OVER ())::INTEGER AS title_id, key_id, words, characters
           FROM (SELECT DISTINCT title, key, words, characters FROM titled WHERE refused IS NULL)
             JOIN keys USING (key)""",
    )
    session.table("key_words", "SELECT key_id, unnest(said) AS word FROM keys")
    session.table(
        "uses",
        """SELECT pin, key_id, title_id, person, min(s) AS s
           FROM saves JOIN titled USING (raw) JOIN titles USING (title)
           GROUP BY pin, key_id, title_id, person""",
    )


def _cap_titles(session: Session, most: int) -> None:
    """Takes out of ``uses`` what one user said of a pin beyond the ``most`` earliest titles."""
    session.table(
        "capped",
        f"""WITH many AS (
              SELECT pin, person FROM uses GROUP BY pin, person HAVING count(DISTINCT key_id) > {most}),
            said AS (
              SELECT pin, person, key_id, min(s) AS first FROM uses SEMI JOIN many USING (pin, person) GROUP BY ALL)
            SELECT pin, person, key_id FROM said JOIN keys USING (key_id)
            QUALIFY row_number() OVER (PARTITION BY pin, person ORDER BY first, key) > {most}""",
    )
    rows = session.value(
        """SELECT count(*) FROM saves SEMI JOIN capped USING (pin, person) JOIN titled USING (raw)
             JOIN titles USING (title) SEMI JOIN capped c USING (pin, person, key_id)"""
    )
    if rows:
        session.screened["board_saves"][TOO_MANY_TITLES] += rows
        session.table("uses", "SELECT * FROM uses ANTI JOIN capped USING (pin, person, key_id)")
    session.con.execute("DROP TABLE capped")


def _score_titles(session: Session) -> None:
    """Table ``rarities``: how rare each title and its words are, the words in one fixed order of sum."""
    session.table("held", "SELECT DISTINCT pin, key_id FROM uses")
    pins = session.value("SELECT count(DISTINCT pin) FROM held")
    session.table(
        "rarities",
        f"""WITH word_pins AS (
              SELECT word, count(*) AS n FROM (SELECT DISTINCT word, pin FROM held JOIN key_words USING (key_id))
              GROUP BY word),
            by_words AS (
              SELECT key_id, list_avg(list(ln((n + 1) / ({pins} + 1)) ORDER BY word)) AS mean
              FROM key_words JOIN word_pins USING (word) GROUP BY key_id),
            by_title AS (
              SELECT key_id, ln((count(*) + 1) / ({pins} + 1)) AS whole FROM held GROUP BY key_id)
            SELECT key_id, generic, {1 - TITLE_WEIGHT} * mean + {TITLE_WEIGHT} * whole AS rarity
            FROM by_words JOIN by_title USING (key_id) JOIN keys USING (key_id)""",
    )
    session.con.execute("DROP TABLE held")
