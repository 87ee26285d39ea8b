"""A few more files of the log: only what they touch is counted anew.

Counts that add up are signed sums over the visits that go and come. Distinct people and requests and best visits of a
day do not add up; they are told from numbers that do (``totals.SIGNED``), looked up for the keys that are touched. If
the latest visit of a pair goes and others stay, the latest of these is looked up in the integers of all visits.
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
"""A patch is worked into its table once it is a quarter as long."""


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
    _merge_crowds(session, state)
    _merge_asks(session, state)
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
    _add(
        session,
        "pairs",
        "q, p",
        totals.patched(state.before, "pairs", "SEMI JOIN pairs_moves USING (q, p)"),
        totals.COUNTS,
    )
    if session.value("SELECT count(*) FROM touched_pairs WHERE stale"):
        session.con.execute(
            f"""UPDATE touched_pairs SET t = x.t
                FROM (SELECT q, p, max(t) AS t
                      FROM ({find("SEMI JOIN (FROM touched_pairs WHERE stale) USING (q, p)")}) GROUP BY q, p) x
                WHERE x.q = touched_pairs.q AND x.p = touched_pairs.p"""
        )
    _patch(session, state, "pairs", "pairs_moves", "SELECT * EXCLUDE (stale) FROM touched_pairs")
    if _is_long(state, "pairs"):
        _work_in(session, state, "pairs", totals.in_order(f"FROM {totals.patched(state.now, 'pairs')}"))


def _merge_crowds(session: Session, state: State) -> None:
    """Score and people add up over people, so of those who moved all acts are looked up, and of nobody else."""
    _add_numbers(session, state, "acts")
    session.table("touched_crowds", "SELECT DISTINCT q, p FROM acts_moves")
    mine = f"{state.before('acts')} SEMI JOIN (SELECT q, p, u FROM acts_moves) USING (q, p, u)"
    session.table("acts_were", totals.summed("acts", mine))
    session.table("acts_are", totals.summed("acts", "(FROM acts_were UNION ALL FROM acts_moves)"))
    numbers = ("score", "engaged", "users")
    less, sums = (
        ", ".join(form.format(name) for name in numbers) for form in ("-{0} AS {0}", "sum({0})::BIGINT AS {0}")
    )
    _patch(
        session,
        state,
        "crowds",
        "touched_crowds",
        f"""SELECT q, p, {sums}
            FROM (SELECT * FROM {totals.patched(state.before, "crowds", "SEMI JOIN touched_crowds USING (q, p)")}
                  UNION ALL BY NAME ({totals.crowds("acts_are")})
                  UNION ALL BY NAME SELECT q, p, {less} FROM ({totals.crowds("acts_were")}))
            GROUP BY q, p HAVING sum(engaged) > 0""",
    )
    if _is_long(state, "crowds"):
        _work_in(session, state, "crowds", f"FROM {totals.patched(state.now, 'crowds')}")


def _patch(session: Session, state: State, role: str, touched: str, rows: str) -> None:
    """The patch of a table, with ``rows`` for the keys of the table ``touched``; a key without a row counts 0."""
    patch, _ = totals.PATCHES[role]
    columns = [name for name, *_ in session.con.execute(f"DESCRIBE FROM {state.before(role)}").fetchall()]
    none = ", ".join(f"0 AS {name}" for name in columns if name not in ("q", "p"))
    session.table("patch_rows", rows)
    state.keep(role)
    state.replace(
        session,
        patch,
        f"""SELECT * FROM {state.before(patch)} ANTI JOIN {touched} USING (q, p)
            UNION ALL BY NAME FROM patch_rows
            UNION ALL BY NAME SELECT q, p, {none} FROM {touched} ANTI JOIN patch_rows USING (q, p)""",
    )
    session.con.execute("DROP TABLE patch_rows")


def _is_long(state: State, role: str) -> bool:
    return state.rows(totals.PATCHES[role][0]) * _PATCHED > state.rows(role)


def _work_in(session: Session, state: State, role: str, whole: str) -> None:
    """One table in place of base and patch."""
    state.replace(session, role, whole)
    state.replace(session, totals.PATCHES[role][0], f"FROM {state.now(role)} LIMIT 0")


def _add_numbers(session: Session, state: State, role: str) -> None:
    """What the moves add to a signed table, which is ``<role>_moves``, comes to its files."""
    session.table(f"{role}_moves", totals.signed(role, "FROM moves", "s"))
    state.keep(role)
    state.write(session, role, f"FROM {role}_moves")
    state.compact(session, role, lambda files: totals.summed(role, files))


def _merge_asks(session: Session, state: State) -> None:
    """A query gains a person or a request with the first visit that counts, and loses it with the last."""
    for role, key, name in (("query_requests", "r", "searches"), ("query_people", "u", "users")):
        _add_numbers(session, state, role)
        known = totals.summed(role, f"{state.before(role)} SEMI JOIN {role}_moves USING (q, {key})")
        session.table(
            f"{name}_moves",
            f"""SELECT q, sum((coalesce(k.n, 0) + m.n > 0)::INTEGER - (coalesce(k.n, 0) > 0)::INTEGER)::BIGINT AS {name}
                FROM {role}_moves m LEFT JOIN ({known}) k USING (q, {key}) GROUP BY q""",
        )
    _add(session, "asks", "q", state.before("asks"), ("impressions", "clicks", "saves"))
    if session.value("SELECT count(*) FROM touched_asks WHERE stale"):
        pairs = totals.patched(state.now, "pairs", "SEMI JOIN (FROM touched_asks WHERE stale) USING (q)")
        session.con.execute(
            f"""UPDATE touched_asks SET t = x.t
                FROM (SELECT q, max(t) AS t FROM {pairs} GROUP BY q) x WHERE x.q = touched_asks.q"""
        )
    state.replace(
        session,
        "asks",
        f"""SELECT * FROM {state.before("asks")} ANTI JOIN asks_moves USING (q)
            UNION ALL BY NAME
            SELECT a.* EXCLUDE (stale), coalesce(o.searches, 0) + coalesce(s.searches, 0) AS searches,
              coalesce(o.users, 0) + coalesce(u.users, 0) AS users
            FROM touched_asks a LEFT JOIN searches_moves s USING (q) LEFT JOIN users_moves u USING (q)
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
