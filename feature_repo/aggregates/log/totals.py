"""Sums over the visits that count: what every view of the search log is made of."""

from __future__ import annotations

from collections.abc import Callable

from feature_repo.aggregates.log.effects import DAY

CLICK_WEIGHT, LONG_CLICK_WEIGHT, SAVE_WEIGHT = 1, 1, 3
ENGAGED = "(click OR save)"
COUNTS = {
    "impressions": "true",
    "clicks": "click",
    "long_clicks": "long_click",
    "saves": "save",
    "engaged": ENGAGED,
}
"""What is counted, and of which visits."""


def pairs(visits: str) -> str:
    """SQL of counts by (q, p)."""
    counts = ", ".join(f"count_if({which})::BIGINT AS {name}" for name, which in COUNTS.items())
    return f"SELECT q, p, {counts}, max(t) AS t FROM ({visits}) GROUP BY q, p"


def patched(read: Callable[[str], str]) -> str:
    """SQL of the pairs as they are: those of the patch stand for those of the base, and with no visit for none.

    :param read: gives the SQL that reads a role of the state.
    """
    return f"""(SELECT b.* FROM {read("pairs")} b ANTI JOIN {read("pair_patch")} d USING (q, p)
                UNION ALL BY NAME SELECT * FROM {read("pair_patch")} WHERE impressions > 0)"""


def crowds(visits: str) -> str:
    """SQL of score and people by (q, p); of a person's visits of one UTC day the best counts for the score."""
    weights = {"click": CLICK_WEIGHT, "long_click": LONG_CLICK_WEIGHT, "save": SAVE_WEIGHT}
    earned = " + ".join(f"{weight} * {action}::INTEGER" for action, weight in weights.items())
    return f"""SELECT q, p, sum(earned)::BIGINT AS score, sum(n)::BIGINT AS engaged, count(DISTINCT u) AS users
               FROM (SELECT q, p, u, t // {DAY} AS day, max({earned}) AS earned, count(*) AS n
                     FROM ({visits}) WHERE {ENGAGED} GROUP BY ALL) GROUP BY q, p"""


def asks(visits: str, pairs: str) -> str:
    """SQL of distinct requests and people, and of counts, by q.

    :param pairs: SQL that reads what :func:`pairs` gave.
    """
    sums = f"""SELECT q, sum(impressions)::BIGINT AS impressions, sum(clicks)::BIGINT AS clicks,
                 sum(saves)::BIGINT AS saves, max(t) AS t FROM {pairs} GROUP BY q"""
    people = f"SELECT q, count(*) AS users FROM (SELECT DISTINCT q, u FROM ({visits})) GROUP BY q"
    requests = f"SELECT q, count(*) AS searches FROM (SELECT DISTINCT q, r FROM ({visits})) GROUP BY q"
    return f"""SELECT q, searches, users, impressions, clicks, saves, t
               FROM ({people}) JOIN ({requests}) USING (q) JOIN ({sums}) USING (q)"""


def langs(visits: str) -> str:
    """SQL of visits by (q, lang)."""
    return f"SELECT q, lang, count(*) AS n FROM ({visits}) WHERE lang IS NOT NULL GROUP BY q, lang"


def times(visits: str) -> str:
    """SQL of the latest visits by p, counted or not: what was served before is overwritten when it counts no more."""
    return f"SELECT p, max(t) AS t, max(t) FILTER ({ENGAGED}) AS engaged_t FROM {visits} GROUP BY p"


def pin_sums(pairs: str) -> str:
    """SQL of counts by p, out of those by (q, p)."""
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in COUNTS)
    return f"SELECT p, {sums} FROM {pairs} GROUP BY p"
