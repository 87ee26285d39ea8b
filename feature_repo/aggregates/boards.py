"""Top board titles of a pin.

Published: each title gets a score from how often it occurs and from the prevalence of its words; score ascending, then
more words, then more characters; ten titles. The formula was not published. Ours, lower is better::

    score(pin, title) = mean over the title's words of ln((pins(word) + 1) / (N + 1)) - 0.5 * ln(users(pin, title))

``pins(word)``: pins saved to a board with that word in its title; ``N``: pins saved to any board; ``users``: distinct
people who saved this pin under this title. "My stuff" and "favorites" stand over everything, so their words are near
ln(1) = 0 and rank last; "terracotta balcony pots" says much and ranks first. The half keeps a crowd from lifting a
generic title: a hundred times the people buys as much as a word ten times as rare. A title without a word (emoji
only) counts as fully prevalent.
"""

from __future__ import annotations

import math

import pyarrow as pa

from feature_repo.aggregates.session import Session
from feature_repo.text import normalise, words

KEPT_TITLES = 10
CROWD_WEIGHT = 0.5


def write_board_titles(session: Session, min_users: int) -> None:
    """Writes ``pin_board_titles``, which stays as table ``board_titles``.

    A pin whose titles all have fewer than ``min_users`` people behind them gets an empty list, so that what was served
    before is overwritten. A removal counts from its time on, whether it changed the row of the save or came as a row
    of its own (same board, pin and user). A board with any secret save is secret as a whole.
    """
    _select_saves(session)
    _load_titles(session)
    _score_titles(session)
    session.table(
        "board_titles",
        f"""WITH spelled AS (
              SELECT pin_id, key_id, title_id, count(DISTINCT user_id) AS n FROM uses GROUP BY ALL),
            spelling AS (  -- of titles that differ in case only, the one most people of this pin use
              SELECT pin_id, key_id, title_id FROM spelled
              QUALIFY row_number() OVER (PARTITION BY pin_id, key_id ORDER BY n DESC, title_id) = 1),
            crowds AS (
              SELECT pin_id, key_id, count(DISTINCT user_id) AS users FROM uses
              GROUP BY ALL HAVING users >= {min_users}),
            ranked AS (
              SELECT pin_id, title,
                     row_number() OVER (PARTITION BY pin_id ORDER BY
                       round((prevalence - {CROWD_WEIGHT} * ln(users)) * 1e6)::BIGINT,
                       words DESC, characters DESC, title_id) AS place
              FROM crowds JOIN spelling USING (pin_id, key_id) JOIN titles USING (title_id, key_id)
                JOIN prevalences USING (key_id)),
            lists AS (
              SELECT pin_id, list(title ORDER BY place) AS found FROM ranked
              WHERE place <= {KEPT_TITLES} GROUP BY pin_id)
            SELECT pin_id, coalesce(found, []) AS board_titles, t FROM save_times LEFT JOIN lists USING (pin_id)""",
    )
    session.write("pin_board_titles", "SELECT * FROM board_titles")


def _select_saves(session: Session) -> None:
    """Tables ``saves`` (what counts) and ``save_times`` (the latest change per pin)."""
    session.table(
        "all_saves",
        f"""SELECT board_id, board_title, pin_id, user_id, secret, epoch_us(saved_at) AS s,
              CASE WHEN epoch_us(removed_at) <= {session.as_of} THEN epoch_us(removed_at) END AS r
            FROM raw_board_saves WHERE epoch_us(saved_at) <= {session.as_of}""",
    )
    session.table(
        "saves",
        """WITH removals AS (
             SELECT board_id, pin_id, user_id, max(r) AS last FROM all_saves WHERE r IS NOT NULL GROUP BY ALL)
           SELECT pin_id, board_title, user_id
           FROM all_saves SEMI JOIN alive USING (pin_id)
             ANTI JOIN (SELECT board_id FROM all_saves WHERE secret) hidden USING (board_id)
             LEFT JOIN removals USING (board_id, pin_id, user_id)
           WHERE r IS NULL AND (last IS NULL OR last < s)""",
    )
    # A purely secret board leaves no trace, not even a time; one that turned secret has changed the pin.
    session.table(
        "save_times",
        """WITH boards AS (
             SELECT pin_id, max(greatest(s, coalesce(r, s))) AS t FROM all_saves SEMI JOIN alive USING (pin_id)
             GROUP BY pin_id, board_id HAVING NOT bool_and(secret))
           SELECT pin_id, max(t) AS t FROM boards GROUP BY pin_id""",
    )


def _load_titles(session: Session) -> None:
    """Tables ``titles``, ``key_words`` and ``uses``: distinct titles are normalised in Python, once each."""
    raw = session.column("SELECT DISTINCT board_title FROM saves WHERE board_title IS NOT NULL")
    normal = {text: title for text in raw if (title := normalise(text))}
    titles = sorted(set(normal.values()))
    ids = {title: number for number, title in enumerate(titles)}
    folded = [title.casefold() for title in titles]
    keys = {key: number for number, key in enumerate(sorted(set(folded)))}
    session.load(
        "titles",
        pa.table(
            {
                "title_id": pa.array(range(len(titles)), pa.int64()),
                "title": pa.array(titles, pa.string()),
                "key_id": pa.array([keys[key] for key in folded], pa.int64()),
                "words": pa.array([len(words(title)) for title in titles], pa.int64()),
                "characters": pa.array([len(title) for title in titles], pa.int64()),
            }
        ),
    )
    spellings = {"board_title": pa.array(normal, pa.string())}
    spellings["title_id"] = pa.array([ids[title] for title in normal.values()], pa.int64())
    session.load("spellings", pa.table(spellings))
    pairs = [(number, word) for key, number in keys.items() for word in sorted(set(words(key)))]
    key_words = {"key_id": pa.array([number for number, _ in pairs], pa.int64())}
    key_words["word"] = pa.array([word for _, word in pairs], pa.string())
    session.load("key_words", pa.table(key_words))
    session.table(
        "uses",
        """SELECT DISTINCT pin_id, key_id, title_id, user_id
           FROM saves JOIN spellings USING (board_title) JOIN titles USING (title_id)""",
    )


def _score_titles(session: Session) -> None:
    """Table ``prevalences``: mean log prevalence of the words of each title, summed in one fixed order."""
    pins = session.value("SELECT count(DISTINCT pin_id) FROM uses")
    found = session.con.execute(
        """WITH counts AS (
             SELECT word, count(DISTINCT pin_id) AS pins FROM (SELECT DISTINCT pin_id, key_id FROM uses)
             JOIN key_words USING (key_id) GROUP BY word)
           SELECT key_id, pins FROM key_words JOIN counts USING (word) ORDER BY key_id, word"""
    ).arrow()
    sums: dict[int, list[float]] = {key: [] for key in session.column("SELECT DISTINCT key_id FROM titles")}
    for key, count in zip(found["key_id"].to_pylist(), found["pins"].to_pylist(), strict=True):
        sums[key].append(math.log((count + 1) / (pins + 1)))
    means = [sum(logs) / len(logs) if logs else 0.0 for logs in sums.values()]
    session.load(
        "prevalences", pa.table({"key_id": pa.array(sums, pa.int64()), "prevalence": pa.array(means, pa.float64())})
    )
