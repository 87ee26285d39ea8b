"""A few more files of the log: only what they touch is counted anew.

Counts that add up are signed sums over the visits that go and come. Distinct people and requests, best visits of a day
and latest times do not add up; for the keys that are touched they are looked up in the integers of all visits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from feature_repo.aggregates.log import effects, totals
from feature_repo.aggregates.log.coding import join_visits, save_dictionaries
from feature_repo.aggregates.log.state import Facts, State
from feature_repo.aggregates.session import Session

Find = Callable[[str], str]

_PATCHED = 4
"""The patch of the pairs is worked into them once it is a quarter as long."""


def merge(session: Session, state: State, files: list[Path], facts: Facts, since: int) -> dict[str, int]:
    """Brings the kept tables to what :func:`feature_repo.aggregates.log.count_all` would give.

    :param facts: those of the last run.
    :param since: start of the window now; earlier or later than before.
    :return: rows of the log by what became of them.
    """
    known = session.value(f"SELECT coalesce(max(p) + 1, 0) FROM {state.before('pins')}")
    join_visits(session, state, files)
    save_dictionaries(session, state, kept=True)
    effects.open_refused(session)
    effects.find_alive(session, state)
    _find_bots(session, state)
    _find_moved(session, state, facts.since, since, known)
    sums = _moves(session, state, facts, since)

    def find(which: str) -> str:
        """SQL of the visits that count now, of those that ``which`` picks: first, so that few are looked at further."""
        picked = f"(SELECT * FROM {state.now('visits')} {which})"
        return effects.counted(picked, state.now("alive"), state.now("bots"), since)

    _merge_pairs(session, state, find)
    _merge_crowds(session, state, find)
    _merge_asks(session, state, find)
    _merge_langs(session, state)
    _merge_times(session, state)
    state.compact(session, "visits")
    return sums


def _find_bots(session: Session, state: State) -> None:
    """The state's ``bots``; user-days that a fresh visit lies in, or lay in, are counted again."""
    day = f"t // {effects.DAY}"
    both = "(SELECT u, t FROM fresh UNION ALL SELECT u, t FROM met)"
    session.table("days", f"SELECT DISTINCT u, {day} AS day FROM {both}")
    first = session.value("SELECT coalesce(min(day), 0) FROM days") * effects.DAY
    recent = f"(SELECT u, t FROM {state.now('visits')} WHERE t >= {first})"
    touched = f"(SELECT x.u, x.t FROM {recent} x SEMI JOIN days d ON d.u = x.u AND d.day = x.t // {effects.DAY})"
    state.replace(
        session,
        "bots",
        f"""SELECT u, day FROM {state.before("bots")} ANTI JOIN days USING (u, day)
            UNION ALL ({effects.bots(session, touched)})""",
    )


def _find_moved(session: Session, state: State, was: int, since: int, known: int) -> None:
    """Table ``moved``: kept visits, not met, that may count otherwise than before."""
    ranges = [f"SELECT * FROM {state.now('visits')} WHERE t >= {min(was, since)} AND t < {max(was, since)}"]
    session.table(
        "changed_pins",
        f"""SELECT coalesce(a.p, b.p) AS p FROM {state.before("alive")} a FULL JOIN {state.now("alive")} b ON a.p = b.p
            WHERE a.floor IS DISTINCT FROM b.floor AND coalesce(a.p, b.p) < {known}""",
    )
    session.table(
        "changed_days",
        f"""(SELECT * FROM {state.before("bots")} EXCEPT SELECT * FROM {state.now("bots")})
            UNION ALL (SELECT * FROM {state.now("bots")} EXCEPT SELECT * FROM {state.before("bots")})""",
    )
    if session.value("SELECT count(*) FROM changed_pins"):
        ranges.append(f"SELECT * FROM {state.now('visits')} SEMI JOIN changed_pins USING (p)")
    if session.value("SELECT count(*) FROM changed_days"):
        ranges.append(
            f"""SELECT v.* FROM {state.now("visits")} v
                SEMI JOIN changed_days d ON d.u = v.u AND d.day = v.t // {effects.DAY}"""
        )
    found = " UNION ".join(f"({one})" for one in ranges)
    session.table("moved", f"SELECT * FROM ({found}) ANTI JOIN fresh USING (r, u, q, p)")


def _moves(session: Session, state: State, facts: Facts, since: int) -> dict[str, int]:
    """Table ``moves``: visits that counted (s = -1) and that count now (s = 1)."""
    gone, come = "(FROM met UNION ALL BY NAME FROM moved)", "(FROM fresh UNION ALL BY NAME FROM moved)"
    old = (state.before("alive"), state.before("bots"))
    new = (state.now("alive"), state.now("bots"))
    session.table(
        "moves",
        f"""SELECT -1 AS s, * FROM ({effects.counted(gone, *old, facts.since)})
            UNION ALL BY NAME SELECT 1 AS s, * FROM ({effects.counted(come, *new, since)})""",
    )
    sums = dict(facts.sums)
    for sign, found in ((-1, effects.sums(session, gone, *old)), (1, effects.sums(session, come, *new))):
        for fate, rows in found.items():
            sums[fate] = sums.get(fate, 0) + sign * rows
    return sums


def _sums() -> str:
    """SQL of what the moves add to each count."""
    return ", ".join(f"coalesce(sum(s) FILTER ({which}), 0)::BIGINT AS {name}" for name, which in totals.COUNTS.items())


def _add(session: Session, name: str, key: str, old: str, counts: Iterable[str]) -> None:
    """Table ``touched_<name>``: the kept counts and latest time by ``key`` with the moves, and whether that time left.

    :param old: SQL of the kept table.
    """
    columns = [column.strip() for column in key.split(",")]
    session.table(
        f"{name}_moves",
        f"""SELECT {key}, {_sums()}, max(t) FILTER (s = 1) AS come_t, max(t) FILTER (s = -1) AS gone_t
            FROM moves GROUP BY {key}""",
    )
    added = ", ".join(f"coalesce(o.{count}, 0) + d.{count} AS {count}" for count in counts)
    same = " AND ".join(f"o.{column} = d.{column}" for column in columns)
    session.table(
        f"touched_{name}",
        f"""SELECT {", ".join(f"d.{column}" for column in columns)}, {added}, greatest(o.t, d.come_t) AS t,
              coalesce(d.gone_t = o.t AND coalesce(d.come_t < o.t, true), false) AS stale
            FROM {name}_moves d LEFT JOIN {old} o ON {same}
            WHERE coalesce(o.impressions, 0) + d.impressions > 0""",
    )


def _merge_pairs(session: Session, state: State, find: Find) -> None:
    _add(session, "pairs", "q, p", totals.patched(state.before), totals.COUNTS)
    if session.value("SELECT count(*) FROM touched_pairs WHERE stale"):
        session.con.execute(
            f"""UPDATE touched_pairs SET t = x.t
                FROM (SELECT q, p, max(t) AS t
                      FROM ({find("SEMI JOIN (FROM touched_pairs WHERE stale) USING (q, p)")}) GROUP BY q, p) x
                WHERE x.q = touched_pairs.q AND x.p = touched_pairs.p"""
        )
    gone = ", ".join(f"0 AS {name}" for name in (*totals.COUNTS, "t"))
    state.keep("pairs")
    state.replace(
        session,
        "pair_patch",
        f"""SELECT * FROM {state.before("pair_patch")} ANTI JOIN pairs_moves USING (q, p)
            UNION ALL BY NAME SELECT * EXCLUDE (stale) FROM touched_pairs
            UNION ALL BY NAME SELECT q, p, {gone} FROM pairs_moves ANTI JOIN touched_pairs USING (q, p)""",
    )
    if state.rows("pair_patch") * _PATCHED > state.rows("pairs"):
        state.replace(session, "pairs", f"FROM {totals.patched(state.now)}")
        state.replace(session, "pair_patch", f"FROM {state.now('pairs')} LIMIT 0")


def _merge_crowds(session: Session, state: State, find: Find) -> None:
    session.table("touched_crowds", f"SELECT DISTINCT q, p FROM moves WHERE {totals.ENGAGED}")
    mine = find(f"SEMI JOIN touched_crowds USING (q, p) WHERE {totals.ENGAGED}")
    state.replace(
        session,
        "crowds",
        f"""SELECT * FROM {state.before("crowds")} ANTI JOIN touched_crowds USING (q, p)
            UNION ALL BY NAME ({totals.crowds(mine)})""",
    )


def _merge_asks(session: Session, state: State, find: Find) -> None:
    """A query gains a person or a request with the first visit that counts, and loses it with the last."""
    for key, name in (("r", "searches"), ("u", "users")):
        session.table(f"{key}_moves", f"SELECT q, {key}, sum(s) AS d FROM moves GROUP BY q, {key}")
        mine = find(f"SEMI JOIN {key}_moves USING (q, {key})")
        session.table(
            f"{name}_moves",
            f"""WITH present AS (SELECT q, {key}, count(*) AS n FROM ({mine}) GROUP BY q, {key})
                SELECT q, sum((coalesce(n, 0) > 0)::INTEGER - (coalesce(n, 0) - d > 0)::INTEGER)::BIGINT AS {name}
                FROM {key}_moves LEFT JOIN present USING (q, {key}) GROUP BY q""",
        )
    _add(session, "asks", "q", state.before("asks"), ("impressions", "clicks", "saves"))
    if session.value("SELECT count(*) FROM touched_asks WHERE stale"):
        session.con.execute(
            f"""UPDATE touched_asks SET t = x.t
                FROM (SELECT q, max(t) AS t FROM {totals.patched(state.now)}
                      SEMI JOIN (FROM touched_asks WHERE stale) USING (q) GROUP BY q) x WHERE x.q = touched_asks.q"""
        )
    state.replace(
        session,
        "asks",
        f"""SELECT * FROM {state.before("asks")} ANTI JOIN asks_moves USING (q)
            UNION ALL BY NAME
            SELECT a.* EXCLUDE (stale), coalesce(o.searches, 0) + s.searches AS searches,
              coalesce(o.users, 0) + u.users AS users
            FROM touched_asks a JOIN searches_moves s USING (q) JOIN users_moves u USING (q)
              LEFT JOIN {state.before("asks")} o USING (q)""",
    )


def _merge_langs(session: Session, state: State) -> None:
    state.replace(
        session,
        "langs",
        f"""SELECT q, lang, sum(n)::BIGINT AS n
            FROM (FROM {state.before("langs")} UNION ALL BY NAME
                  SELECT q, lang, sum(s) AS n FROM moves WHERE lang IS NOT NULL GROUP BY q, lang)
            GROUP BY q, lang HAVING sum(n) <> 0""",
    )


def _merge_times(session: Session, state: State) -> None:
    state.replace(
        session,
        "times",
        f"""SELECT p, max(t) AS t, max(engaged_t) AS engaged_t
            FROM (FROM {state.before("times")} UNION ALL BY NAME ({totals.times("fresh")})) GROUP BY p""",
    )
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in totals.COUNTS)
    state.replace(
        session,
        "pin_sums",
        f"""SELECT p, {sums}
            FROM (FROM {state.before("pin_sums")} UNION ALL BY NAME SELECT p, {_sums()} FROM moves GROUP BY p)
            GROUP BY p HAVING sum(impressions) > 0""",
    )
