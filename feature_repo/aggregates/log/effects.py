"""What a visit counts for: a function of the visit alone and of four parameters, so that changes can be taken back.

The parameters are the start of the window, the pins that are there (with the time from which events about them are
believed), the queries that screening refuses, and the user-days of bots.
"""

from __future__ import annotations

from feature_repo.aggregates.log.state import State
from feature_repo.aggregates.session import Session

DAY = 86_400 * 10**6
ABSENT, COUNTED = "(no pin)", "(counted)"
BOT = "too many visits of a user in a day"
EARLY = "before the pin was created"
_NEVER = -(2**62)


def open_refused(session: Session) -> None:
    """Table ``refused`` (q, reason)."""
    session.table("refused", "SELECT q, reason FROM log_queries WHERE reason IS NOT NULL")


def find_alive(session: Session, state: State) -> None:
    """Writes ``alive`` (p, floor) of the state: pins of the log that are there, and the time that events begin at."""
    early = session.screening.limits.early_seconds * 10**6
    state.replace(
        session,
        "alive",
        f"""SELECT p, coalesce(epoch_us(created_at) - {early}, {_NEVER}) AS floor
            FROM alive JOIN log_pins USING (pin_id)""",
    )


def bots(session: Session, visits: str) -> str:
    """SQL of the user-days (u, day) among ``visits`` with too many visits, whatever they were to."""
    return f"""SELECT u, t // {DAY} AS day FROM {visits} GROUP BY ALL
               HAVING count(*) > {session.screening.limits.max_visits_a_day}"""


def counted(visits: str, alive: str, bots: str, since: int) -> str:
    """SQL of the visits that count.

    :param visits, alive, bots: SQL of tables; ``refused`` is read beside them.
    """
    return f"""SELECT v.* FROM {visits} v JOIN {alive} a ON a.p = v.p AND v.t >= a.floor
                 ANTI JOIN refused f ON f.q = v.q ANTI JOIN {bots} b ON b.u = v.u AND b.day = v.t // {DAY}
               WHERE v.t >= {since}"""


def sums(session: Session, visits: str, alive: str, bots: str) -> dict[str, int]:
    """Rows of ``visits`` by what becomes of them: ``ABSENT``, ``COUNTED`` (in the window or not), or a reason."""
    found = session.con.execute(
        f"""SELECT CASE WHEN a.p IS NULL THEN '{ABSENT}' WHEN f.q IS NOT NULL THEN f.reason
                        WHEN v.t < a.floor THEN '{EARLY}' WHEN b.u IS NOT NULL THEN '{BOT}'
                        ELSE '{COUNTED}' END AS fate, sum(n)::BIGINT
            FROM {visits} v LEFT JOIN {alive} a ON a.p = v.p LEFT JOIN refused f ON f.q = v.q
              LEFT JOIN {bots} b ON b.u = v.u AND b.day = v.t // {DAY} GROUP BY fate"""
    ).fetchall()
    return {str(fate): int(rows) for fate, rows in found}
