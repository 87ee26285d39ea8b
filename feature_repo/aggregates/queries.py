"""Views of queries and of (query, pin) pairs, out of the sums over the search log.

Engaged queries (published: a function of engagement counts and types, twenty, two years; the weights were not found).
Ours: a visit earns 1 for a click, 1 more for a long click, and 3 for a save; of one person's visits to a pin after one
query on one UTC day the best counts; the score of a query is the sum. Then the query in code-point order.
"""

from __future__ import annotations

import pyarrow as pa

from feature_repo.aggregates.engagement import PRIOR_CLICKS, PRIOR_ENGAGED, PRIOR_SAVES, rate_sql
from feature_repo.aggregates.log import Log
from feature_repo.aggregates.session import Session

KEPT_QUERIES = 20
KEPT_TOPICS = 5
HEAD_PERCENT, TORSO_PERCENT = 50, 80
"""Queries in order of frequency: the head starts within the first half of all searches, the torso before 80 %."""
_PARTS = 1_000_000


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


def write_query_views(session: Session, log: Log) -> None:
    """Writes ``query_stats`` and ``query_pin_engagement``, of the queries in ``asked``."""
    _find_interests(session, log)
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
            FROM placed LEFT JOIN spoken USING (q) LEFT JOIN interests USING (q)""",
        key="query",
    )
    _write_pairs(session, log)


def _write_pairs(session: Session, log: Log) -> None:
    """Writes ``query_pin_engagement``, by far the longest source: numbers are sorted, their texts put in after it."""
    queries = session.texts("SELECT query FROM asked ORDER BY place")
    pins = session.texts("SELECT pin_id FROM seen ORDER BY place")

    def name(batch: pa.RecordBatch) -> list[pa.Array]:
        return [queries.take(batch["a"]), pins.take(batch["s"]), *batch.columns[2:-1]]

    rates = {"engagement_rate": ("engaged", PRIOR_ENGAGED), "click_rate": ("clicks", PRIOR_CLICKS)}
    rates["save_rate"] = ("saves", PRIOR_SAVES)
    columns = ", ".join(f"{rate_sql(*given)} AS {column}" for column, given in rates.items())
    session.write(
        "query_pin_engagement",
        f"""SELECT a, s, impressions, clicks, long_clicks, saves, {columns}, t
            FROM {log.table("pairs")} JOIN (SELECT q, place - 1 AS a FROM asked) USING (q)
              JOIN (SELECT p, place - 1 AS s FROM seen) USING (p)""",
        key="a, s",
        convert=name,
        dictionary=["query"],
    )


def _find_interests(session: Session, log: Log) -> None:
    """Table ``interests`` (q, topics, shares, topic_t): the engaged visits of a query by topics of their pins.

    Of a pin the topics of its latest delivery count, weights brought to a sum of 1; the shares of a query are of
    its engaged visits on pins with a topic, and the first five are kept. Sums are of whole millionths, so that their
    order cannot change a bit; what is less than one of them is no interest.
    """
    if not session.sources["pin_topics"]:
        none = "NULL::INTEGER AS q, NULL::VARCHAR[] AS topics, NULL::FLOAT[] AS shares, NULL::BIGINT AS topic_t"
        session.table("interests", f"SELECT {none} LIMIT 0")
        return
    session.table(
        "interests",
        f"""WITH latest AS (
              SELECT pin_id, topic, max(weight) AS weight, t
              FROM (SELECT pin_id, topic, weight, epoch_us(event_timestamp) AS t FROM raw_pin_topics
                    WHERE t <= {session.as_of} QUALIFY t = max(t) OVER (PARTITION BY pin_id)) GROUP BY ALL),
            scaled AS (
              SELECT *, round(weight / max(weight) OVER (PARTITION BY pin_id) * {_PARTS})::BIGINT AS part FROM latest
              WHERE weight > 0),
            shared AS (
              SELECT p, topic, part * {_PARTS} // sum(part) OVER (PARTITION BY pin_id) AS part, t
              FROM scaled JOIN seen USING (pin_id)),
            found AS (
              SELECT q, topic, sum(engaged * part) AS part, max(shared.t) AS t
              FROM {log.table("crowds")} SEMI JOIN asked USING (q) JOIN shared USING (p)
              GROUP BY q, topic HAVING sum(engaged * part) > 0),
            ranked AS (
              SELECT q, topic, (part / sum(part) OVER (PARTITION BY q))::FLOAT AS share, t,
                row_number() OVER (PARTITION BY q ORDER BY part DESC, topic) AS place FROM found)
            SELECT q, arg_min(topic, place, {KEPT_TOPICS}) AS topics, arg_min(share, place, {KEPT_TOPICS}) AS shares,
              max(t)::BIGINT AS topic_t
            FROM ranked GROUP BY q""",
    )
