"""Views of queries, out of the sums over the search log.

Engaged queries (published: a function of engagement counts and types, twenty, two years; the weights were not found).
Ours: a visit earns 1 for a click, 1 more for a long click, and 3 for a save; of one person's visits to a pin after one
query on one UTC day the best counts; the score of a query is the sum. Then the query in code-point order.
"""

from __future__ import annotations

from feature_repo.aggregates.interests import find_interests
from feature_repo.aggregates.log import Log
from feature_repo.aggregates.session import Session

KEPT_QUERIES = 20
HEAD_PERCENT, TORSO_PERCENT = 50, 80
"""Queries in order of frequency: the head starts within the first half of all searches, the torso before 80 %."""


def read_log(session: Session, log: Log, since: int, min_users: int) -> None:
    """Counts the log, and makes two tables with the order of their texts as ``place``.

    ``seen`` (p, pin_id): pins that are there and were in the log; ``asked`` (q, query, counts): queries that at least
    ``min_users`` people asked.
    """
    log.count(session.as_of, since)
    log.report()
    session.table(
        "seen",
        """SELECT p, pin_id, row_number() OVER (ORDER BY pin_id) AS place
           FROM log_pins SEMI JOIN alive USING (pin_id)""",
    )
    session.table(
        "asked",
        f"""SELECT a.*, query, row_number() OVER (ORDER BY query) AS place
            FROM {log.table("asks")} a JOIN log_queries USING (q) WHERE users >= {min_users}""",
    )


def write_engaged_queries(session: Session, log: Log, min_users: int) -> None:
    """Writes ``pin_engaged_queries``, which stays as table ``engaged_queries``.

    Queries with fewer than ``min_users`` people who engaged are left out; the others are all in ``asked``. A pin that
    people engaged with once, but not enough of them or not lately, gets an empty list, so that what was served before
    is overwritten.
    """
    session.table(
        "engaged_queries",
        f"""WITH ranked AS (
              SELECT p, q, row_number() OVER (PARTITION BY p ORDER BY score DESC, place) AS rank
              FROM {log.table("crowds")} c JOIN (SELECT q, place FROM asked) USING (q) WHERE c.users >= {min_users}),
            lists AS (
              SELECT p, arg_min(query, rank, {KEPT_QUERIES}) AS found
              FROM ranked JOIN (SELECT q, query FROM asked) USING (q) WHERE rank <= {KEPT_QUERIES} GROUP BY p)
            SELECT pin_id, coalesce(found, []) AS engaged_queries, engaged_t AS t
            FROM {log.table("times")} JOIN seen USING (p) LEFT JOIN lists USING (p) WHERE engaged_t IS NOT NULL""",
    )
    session.write("pin_engaged_queries", "SELECT * FROM engaged_queries")


def write_query_stats(session: Session, log: Log) -> None:
    """Writes ``query_stats``, of the queries in ``asked``."""
    interests = find_interests(session, log)
    session.write(
        "query_stats",
        f"""WITH spoken AS (
              SELECT q, lang FROM {log.table("langs")} SEMI JOIN asked USING (q)
              QUALIFY row_number() OVER (PARTITION BY q ORDER BY n DESC, lang) = 1),
            placed AS (
              SELECT *, sum(searches) OVER () AS total,
                sum(searches) OVER (ORDER BY searches DESC, place ROWS UNBOUNDED PRECEDING) - searches AS before
              FROM asked)
            SELECT query, searches, impressions, clicks, saves, users, lang,
              CASE WHEN before * 100 < total * {HEAD_PERCENT} THEN 'head'
                   WHEN before * 100 < total * {TORSO_PERCENT} THEN 'torso' ELSE 'tail' END AS band,
              coalesce(topics, []) AS interests, coalesce(shares, []) AS interest_shares, greatest(t, topic_t) AS t
            FROM placed LEFT JOIN spoken USING (q) LEFT JOIN {interests} USING (q)""",
        key="query",
    )
