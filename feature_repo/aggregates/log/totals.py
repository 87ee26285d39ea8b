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


def in_order(pairs: str) -> str:
    """SQL of the pairs by the text of the query and then the id of the pin, which new texts do not change."""
    places = "row_number() OVER (ORDER BY {}) AS {}"
    return f"""SELECT x.* FROM ({pairs}) x
                 JOIN (SELECT q, {places.format("query", "a")} FROM log_queries) USING (q)
                 JOIN (SELECT p, {places.format("pin_id", "s")} FROM log_pins) USING (p) ORDER BY a, s"""


PATCHES = {"pairs": ("pair_patch", "impressions"), "crowds": ("crowd_patch", "engaged")}
"""Tables by (q, p) of which a merge writes only the rows that changed, and what is 0 in a row that went."""


def patched(read: Callable[[str], str], role: str, which: str = "") -> str:
    """SQL of a table as it is: the rows of its patch stand for those of the base, and one that counts 0 for none.

    :param read: gives the SQL that reads a role of the state.
    :param which: a join that picks rows, done first.
    """
    patch, count = PATCHES[role]
    return f"""(SELECT b.* FROM (SELECT * FROM {read(role)} {which}) b ANTI JOIN {read(patch)} d USING (q, p)
                UNION ALL BY NAME SELECT * FROM {read(patch)} {which} WHERE {count} > 0)"""


_EARNED = " + ".join(
    f"{weight} * {action}::INTEGER"
    for action, weight in {"click": CLICK_WEIGHT, "long_click": LONG_CLICK_WEIGHT, "save": SAVE_WEIGHT}.items()
)
SIGNED = {
    "acts": ("q, p, u, day, earned", f"q, p, u, t // {DAY} AS day, ({_EARNED})::TINYINT AS earned", ENGAGED),
    "query_people": ("q, u", "q, u", "true"),
    "query_requests": ("q, r", "q, r", "true"),
}
"""Numbers n of visits that add up, from which is told what does not: their key, how it is made, and of which visits."""


def signed(role: str, visits: str, sign: str = "1") -> str:
    """SQL of the numbers of visits by the key of ``role``.

    :param sign: SQL of what a visit adds.
    """
    key, made, which = SIGNED[role]
    summed = f"SELECT {key}, sum(n)::INTEGER AS n FROM (SELECT {made}, {sign} AS n FROM ({visits}) WHERE {which})"
    return f"{summed} GROUP BY {key} HAVING sum(n) <> 0"


def summed(role: str, parts: str) -> str:
    """SQL of the numbers that ``parts``, each of them signed, come to."""
    key = SIGNED[role][0]
    return f"SELECT {key}, sum(n)::INTEGER AS n FROM {parts} GROUP BY {key} HAVING sum(n) <> 0"


def crowds(acts: str) -> str:
    """SQL of score and people by (q, p); of a person's visits of one UTC day the best counts for the score.

    :param acts: SQL that reads engaged visits by (q, p, u, day, earned), each key once.
    """
    days = f"SELECT q, p, u, max(earned) AS earned, sum(n) AS n FROM {acts} GROUP BY q, p, u, day"
    people = f"SELECT q, p, sum(earned) AS earned, sum(n) AS n FROM ({days}) GROUP BY q, p, u"
    return f"""SELECT q, p, sum(earned)::BIGINT AS score, sum(n)::BIGINT AS engaged, count(*) AS users
               FROM ({people}) GROUP BY q, p"""


def asks(people: str, requests: str, pairs: str) -> str:
    """SQL of distinct requests and people, and of counts, by q.

    :param people, requests: SQL that reads ``query_people`` and ``query_requests``, each key once.
    :param pairs: SQL that reads what :func:`pairs` gave.
    """
    sums = f"""SELECT q, sum(impressions)::BIGINT AS impressions, sum(clicks)::BIGINT AS clicks,
                 sum(saves)::BIGINT AS saves, max(t) AS t FROM {pairs} GROUP BY q"""
    return f"""SELECT q, searches, users, impressions, clicks, saves, t
               FROM (SELECT q, count(*) AS users FROM {people} GROUP BY q)
                 JOIN (SELECT q, count(*) AS searches FROM {requests} GROUP BY q) USING (q) JOIN ({sums}) USING (q)"""


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
