"""Aggregates of the valid tables, each as of a time, written as the sources of the feature views."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feature_repo.aggregates.log import Log, forget_state, open_log
from feature_repo.aggregates.log.effects import DAY
from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.aggregates.session import Resources, Session, microseconds
from feature_repo.erasures import Erasures, unless_erased
from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths

__all__ = ["VIEW_SCHEMAS", "AggregateReport", "Resources", "aggregate", "forget_state"]

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""


@dataclass(frozen=True)
class AggregateReport:
    """What ``aggregate`` wrote."""

    as_of: datetime
    views: dict[str, int]
    """Rows of each view source."""
    left_out: dict[str, int]
    """Rows per table that are later than ``as_of``, or belong to a pin that is deleted or not there."""
    screened: dict[str, dict[str, int]]
    """Rows per table that a rule of ``feature_repo.screening`` left out, by reason."""
    log: str
    """``merged``: new files of the search log came to what was kept; ``full``: all were counted."""
    log_reason: str | None
    """Why all were counted."""
    log_files: int
    """Files of the search log that were read."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather aggregate --json``."""
        return {
            "as_of": self.as_of.isoformat(),
            "views": self.views,
            "left_out": self.left_out,
            "screened": self.screened,
            "log": self.log,
            "log_reason": self.log_reason,
            "log_files": self.log_files,
            "seconds": round(self.seconds, 3),
        }


def aggregate(
    paths: RepoPaths,
    as_of: datetime | None = None,
    min_users: int = 2,
    window_days: int = 730,
    progress: Progress | None = None,
    resources: Resources | None = None,
    folder: Path | None = None,
    full: bool = False,
) -> AggregateReport:
    """Computes every view source under ``data/views`` from ``data/valid``; all are replaced together at the end.

    Only events at ``as_of`` or before count, so adding later ones changes nothing. Pins that are deleted by then, and
    rows about pins that are not there, are in no view. The same input and ``as_of`` give the same bytes, and so it is
    with new files of the search log, which are merged into what ``data/aggregates`` keeps of the others. A run with a
    ``folder``, or with an ``as_of`` before the latest event of the log, does not touch that.

    :param as_of: without a zone it is UTC. Default: now, or the latest accepted event if a clock outside runs ahead.
    :param min_users: distinct people that must stand behind a board title, an engaged query or a query's statistics.
    :param window_days: how far back the search log is read.
    :param folder: where the view sources go instead of ``data/views``.
    :param full: count the whole search log, whatever is kept of it.
    :raises ContractError: if a valid table is missing.
    :raises UsageError: for a ``min_users`` or ``window_days`` below 1.
    :raises PinfeatherError: if something was erased meanwhile; nothing is replaced then.
    """
    from feature_repo.aggregates import relevance
    from feature_repo.report.storage import note_run

    for name, value in (("min_users", min_users), ("window_days", window_days)):
        if value < 1:
            raise UsageError(f"{name} is {value}: give 1 or more.")
    started = time.perf_counter()
    erasures = Erasures.load(paths)
    with ExitStack() as stack:
        session = stack.enter_context(Session(paths, resources or Resources(), folder))
        session.open_tables()
        log = stack.enter_context(closing(open_log(session, keep=folder is None, full=full)))
        latest = max(session.latest_event(), log.latest)
        moment = microseconds(as_of) if as_of else max(microseconds(datetime.now(UTC)), latest)
        session.cut_off(moment)
        pins = session.value("SELECT count(*) FROM alive")
        stages = _stages(session, log, moment - window_days * DAY, min_users)
        for number, (stage, write) in enumerate(stages, start=1):
            write()
            _tell(progress, stage, number, len(stages))
        relevance.write_relevance(session, log, lambda done: _tell(progress, "lexical tokens", done, pins))
        left_out = _left_out(session) | {"search_log": log.left_out}
        session.finish()
        with unless_erased(paths, erasures):
            session.commit()
            log.commit(session.source(relevance.VIEW))
        report = _report(session, log, moment, left_out, time.perf_counter() - started)
    if folder is None:
        given = {"as_of": as_of and as_of.isoformat(), "min_users": min_users, "window_days": window_days}
        note_run(paths, "aggregate", {**report.to_json(), "options": given})
    return report


def _stages(session: Session, log: Log, since: int, min_users: int) -> list[tuple[str, Callable[[], None]]]:
    """What writes the views whose steps are not counted, by name, in an order in which each finds what it reads."""
    from feature_repo.aggregates import boards, captions, content, engagement, links, pair_rows, queries

    return [
        ("pins", lambda: content.write_content(session)),
        ("links", lambda: links.write_link_text(session)),
        ("captions", lambda: captions.write_captions(session)),
        ("boards", lambda: boards.write_board_titles(session, min_users)),
        ("search log", lambda: queries.read_log(session, log, since, min_users)),
        ("queries and pins", lambda: pair_rows.write_pairs(session, log)),
        ("engaged queries", lambda: queries.write_engaged_queries(session, log, min_users)),
        ("queries", lambda: queries.write_query_stats(session, log)),
        ("engagement", lambda: engagement.write_engagement(session, log)),
    ]


def _report(session: Session, log: Log, moment: int, left_out: dict[str, int], seconds: float) -> AggregateReport:
    return AggregateReport(
        as_of=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment),
        views=dict(session.rows),
        left_out=left_out,
        screened={table: dict(reasons.most_common()) for table, reasons in session.screened.items()},
        log="full" if log.reason else "merged",
        log_reason=log.reason,
        log_files=len(log.files),
        seconds=seconds,
    )


def _tell(progress: Progress | None, stage: str, done: int, total: int) -> None:
    if progress:
        progress(stage, done, total)


def _left_out(session: Session) -> dict[str, int]:
    """Rows of the valid tables that no view could use because of their time or their pin."""
    used = {
        "pins": "SELECT count(*) FROM alive",
        "board_saves": "SELECT count(*) FROM all_saves",
    }
    return {
        table: session.value(f"SELECT count(*) FROM raw_{table}") - session.value(sql) for table, sql in used.items()
    }
