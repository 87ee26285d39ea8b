"""Interests of queries in topics, out of the engaged visits: kept, and found anew of the queries whose visits moved."""

from __future__ import annotations

from typing import Any

from feature_repo.aggregates.log import Log
from feature_repo.aggregates.log.state import identities
from feature_repo.aggregates.session import Session

KEPT_TOPICS = 5
_PARTS = 1_000_000


def find_interests(session: Session, log: Log) -> str:
    """SQL that reads the interests of queries: q, topics, shares, topic_t.

    Of a pin the topics of its latest delivery count, weights brought to a sum of 1; the shares of a query are of
    its engaged visits on pins with a topic, and the first five are kept. Sums are of whole millionths, so that their
    order cannot change a bit; what is less than one of them is no interest.
    """
    if not session.sources["pin_topics"]:
        none = "NULL::INTEGER AS q, NULL::VARCHAR[] AS topics, NULL::FLOAT[] AS shares, NULL::BIGINT AS topic_t"
        return f"(SELECT {none} LIMIT 0)"
    delivered = _delivered(session)
    state = log.state
    if log.follows(delivered):
        state.keep("topics")
        new = f"(FROM log_pins WHERE p > (SELECT coalesce(max(p), -1) FROM {state.before('pins')}))"
        state.write(session, "topics", _topics(session, new))
        state.compact(session, "topics")
        moved = "(SELECT DISTINCT q FROM acts_moves)"
        crowds = log.table("crowds", f"SEMI JOIN {moved} USING (q)")
        kept = f"SELECT * FROM {state.before('interests')} ANTI JOIN {moved} USING (q) UNION ALL BY NAME "
    else:
        state.replace(session, "topics", _topics(session, "log_pins"))
        crowds, kept = log.table("crowds"), ""
    state.replace(session, "interests", kept + f"({_interests(crowds, state.now('topics'))})")
    log.note_topics(delivered)
    return state.now("interests")


def _delivered(session: Session) -> list[Any]:
    """What the topics of pins depend on: the files, and how many of their rows were there at the time."""
    rows = session.value(f"SELECT count(*) FROM raw_pin_topics WHERE epoch_us(event_timestamp) <= {session.as_of}")
    return [rows, *identities(session.sources["pin_topics"])]


def _topics(session: Session, pins: str) -> str:
    """SQL of the topics of pins: p, topic, part (of a million), t.

    :param pins: SQL that reads p and pin_id.
    """
    return f"""WITH latest AS (
                 SELECT p, topic, max(weight) AS weight, t
                 FROM (SELECT p, topic, weight, epoch_us(event_timestamp) AS t
                       FROM raw_pin_topics JOIN {pins} USING (pin_id)
                       WHERE t <= {session.as_of} QUALIFY t = max(t) OVER (PARTITION BY p)) GROUP BY ALL),
               scaled AS (
                 SELECT *, round(weight / max(weight) OVER (PARTITION BY p) * {_PARTS})::BIGINT AS part FROM latest
                 WHERE weight > 0)
               SELECT p, topic, (part * {_PARTS} // sum(part) OVER (PARTITION BY p))::BIGINT AS part, t FROM scaled"""


def _interests(crowds: str, topics: str) -> str:
    """SQL of the interests of the queries in ``crowds``."""
    return f"""WITH found AS (
                 SELECT q, topic, sum(engaged * part) AS part, max(t) AS t FROM {crowds} JOIN {topics} USING (p)
                 GROUP BY q, topic HAVING sum(engaged * part) > 0),
               ranked AS (
                 SELECT q, topic, (part / sum(part) OVER (PARTITION BY q))::FLOAT AS share, t,
                   row_number() OVER (PARTITION BY q ORDER BY part DESC, topic) AS place FROM found)
               SELECT q, arg_min(topic, place, {KEPT_TOPICS}) AS topics, arg_min(share, place, {KEPT_TOPICS}) AS shares,
                 max(t)::BIGINT AS topic_t
               FROM ranked GROUP BY q"""
