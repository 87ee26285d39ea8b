"""What the search log says of queries and of (query, pin) pairs.

The unit is a visit: all rows of one (request, user, query, pin). However often a row is delivered, a visit has at most
one impression, click, long click and save, and any action implies the impression, so no rate exceeds 1. A long click
is a ``long_click``, or a ``click``, with more than ten seconds of dwell (published: 10 s); it is a click too. A
``long_click`` without a dwell time is believed.

Engaged queries (published: a function of engagement counts and types, twenty, two years; the weights were not found).
Ours: a visit earns 1 for a click, 1 more for a long click, and 3 for a save; the score of a query is the sum. Then the
query in code-point order.
"""

from __future__ import annotations

import pyarrow as pa

from feature_repo.aggregates.session import Session
from feature_repo.text import canonical_query

KEPT_QUERIES = 20
LONG_CLICK_SECONDS = 10
CLICK_WEIGHT, LONG_CLICK_WEIGHT, SAVE_WEIGHT = 1, 1, 3
HEAD_PERCENT, TORSO_PERCENT = 50, 80
"""Queries in order of frequency: the head starts within the first half of all searches, the torso before 80 %."""


def read_log(session: Session, since: int) -> None:
    """Tables ``queries``, ``visits`` (from ``since`` on), ``pairs``, and ``pin_times`` (latest events at any time)."""
    _load_queries(session)
    log = f"""raw_search_log SEMI JOIN alive USING (pin_id) JOIN raw_queries USING (query)
              WHERE epoch_us(event_timestamp) <= {session.as_of}"""
    session.table(
        "pin_times",
        f"""SELECT pin_id, count(*) AS events, max(epoch_us(event_timestamp)) AS t,
              max(epoch_us(event_timestamp)) FILTER (action <> 'impression') AS engaged_t
            FROM {log} GROUP BY pin_id""",
    )
    session.table(
        "visits",
        f"""SELECT request_id, user_id, query_id, pin_id, min(lang) AS lang, max(epoch_us(event_timestamp)) AS t,
              bool_or(action IN ('click', 'long_click')) AS click,
              bool_or((action = 'long_click' AND dwell_s IS NULL)
                OR (action IN ('click', 'long_click') AND coalesce(dwell_s, 0) > {LONG_CLICK_SECONDS})) AS long_click,
              bool_or(action = 'save') AS save
            FROM {log} AND epoch_us(event_timestamp) >= {since} GROUP BY request_id, user_id, query_id, pin_id""",
    )
    session.table(
        "pairs",
        """SELECT query_id, pin_id, count(*) AS impressions, count(*) FILTER (click) AS clicks,
             count(*) FILTER (long_click) AS long_clicks, count(*) FILTER (save) AS saves,
             count(*) FILTER (click OR save) AS engaged,
             count(DISTINCT user_id) FILTER (click OR save) AS engaged_users, max(t) AS t
           FROM visits GROUP BY query_id, pin_id""",
    )


def write_engaged_queries(session: Session, min_users: int) -> None:
    """Writes ``pin_engaged_queries``, which stays as table ``engaged_queries``.

    Queries with fewer than ``min_users`` people who engaged are left out. A pin that people engaged with once, but not
    enough of them or not lately, gets an empty list, so that what was served before is overwritten.
    """
    score = f"{CLICK_WEIGHT} * clicks + {LONG_CLICK_WEIGHT} * long_clicks + {SAVE_WEIGHT} * saves"
    session.table(
        "engaged_queries",
        f"""WITH ranked AS (
              SELECT pin_id, query_id, row_number() OVER (PARTITION BY pin_id ORDER BY {score} DESC, query_id) AS place
              FROM pairs WHERE engaged_users >= {min_users}),
            lists AS (
              SELECT pin_id, list(query ORDER BY place) AS found FROM ranked JOIN queries USING (query_id)
              WHERE place <= {KEPT_QUERIES} GROUP BY pin_id)
            SELECT p.pin_id, coalesce(found, []) AS engaged_queries, engaged_t AS t
            FROM pin_times p LEFT JOIN lists USING (pin_id) WHERE engaged_t IS NOT NULL""",
    )
    session.write("pin_engaged_queries", "SELECT * FROM engaged_queries")


def write_query_views(session: Session, min_users: int, engagement_rate: str) -> None:
    """Writes ``query_stats`` and ``query_pin_engagement``, of queries that at least ``min_users`` people asked.

    :param engagement_rate: SQL of the smoothed rate, over the columns of ``pairs``.
    """
    session.table(
        "asked",
        f"""WITH langs AS (
              SELECT query_id, lang FROM visits WHERE lang IS NOT NULL GROUP BY query_id, lang
              QUALIFY row_number() OVER (PARTITION BY query_id ORDER BY count(*) DESC, lang) = 1),
            counts AS (
              SELECT query_id, count(DISTINCT request_id) AS searches, count(*) AS impressions,
                count(*) FILTER (click) AS clicks, count(*) FILTER (save) AS saves,
                count(DISTINCT user_id) AS users, max(t) AS t
              FROM visits GROUP BY query_id HAVING users >= {min_users}),
            placed AS (
              SELECT *, sum(searches) OVER () AS total,
                sum(searches) OVER (ORDER BY searches DESC, query_id ROWS UNBOUNDED PRECEDING) - searches AS before
              FROM counts)
            SELECT query_id, searches, impressions, clicks, saves, users, lang,
              CASE WHEN before * 100 < total * {HEAD_PERCENT} THEN 'head'
                   WHEN before * 100 < total * {TORSO_PERCENT} THEN 'torso' ELSE 'tail' END AS band, t
            FROM placed LEFT JOIN langs USING (query_id)""",
    )
    session.write(
        "query_stats",
        "SELECT query, asked.* EXCLUDE (query_id) FROM asked JOIN queries USING (query_id)",
        key="query",
    )
    session.write(
        "query_pin_engagement",
        f"""SELECT query, pin_id, impressions, clicks, long_clicks, saves, {engagement_rate} AS engagement_rate, t
            FROM pairs JOIN queries USING (query_id) SEMI JOIN asked USING (query_id)""",
        key="query, pin_id",
    )


def _load_queries(session: Session) -> None:
    """Tables ``raw_queries`` and ``queries``; ids follow the order of the texts. Queries without a text are dropped."""
    raw = session.column(
        f"SELECT DISTINCT query FROM raw_search_log WHERE epoch_us(event_timestamp) <= {session.as_of}"
    )
    canonical = {text: query for text in raw if (query := canonical_query(text))}
    queries = sorted(set(canonical.values()))
    ids = {query: number for number, query in enumerate(queries)}
    session.load(
        "queries", pa.table({"query_id": pa.array(ids.values(), pa.int64()), "query": pa.array(ids, pa.string())})
    )
    numbers = pa.array([ids[query] for query in canonical.values()], pa.int64())
    session.load("raw_queries", pa.table({"query": pa.array(canonical, pa.string()), "query_id": numbers}))
