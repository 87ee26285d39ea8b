"""Aggregates of the valid tables, each as of a time, written as the sources of the feature views."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.aggregates.session import Resources, Session, microseconds
from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths

__all__ = ["VIEW_SCHEMAS", "AggregateReport", "Resources", "aggregate"]

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""

_DAY = 86_400 * 10**6


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
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather aggregate --json``."""
        return {
            "as_of": self.as_of.isoformat(),
            "views": self.views,
            "left_out": self.left_out,
            "screened": self.screened,
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
) -> AggregateReport:
    """Computes every view source under ``data/views`` from ``data/valid``; all are replaced together at the end.

    Only events at ``as_of`` or before count, so adding later ones changes nothing. Pins that are deleted by then, and
    rows about pins that are not there, are in no view. The same input and ``as_of`` give the same bytes.

    :param as_of: without a zone it is UTC. Default: now, or the latest accepted event if a clock outside runs ahead.
    :param min_users: distinct people that must stand behind a board title, an engaged query or a query's statistics.
    :param window_days: how far back the search log is read.
    :param folder: where the view sources go instead of ``data/views``.
    :raises ContractError: if a valid table is missing.
    :raises UsageError: for a ``min_users`` or ``window_days`` below 1.
    """
    from feature_repo.aggregates import boards, captions, content, engagement, links, queries, relevance

    for name, value in (("min_users", min_users), ("window_days", window_days)):
        if value < 1:
            raise UsageError(f"{name} is {value}: give 1 or more.")
    started = time.perf_counter()
    with Session(paths, resources or Resources(), folder) as session:
        session.open_tables()
        moment = microseconds(as_of) if as_of else max(microseconds(datetime.now(UTC)), session.latest_event())
        session.cut_off(moment)
        pins = session.value("SELECT count(*) FROM alive")
        stages: list[tuple[str, Callable[[], None]]] = [
            ("pins", lambda: content.write_content(session)),
            ("links", lambda: links.write_link_text(session)),
            ("captions", lambda: captions.write_captions(session)),
            ("boards", lambda: boards.write_board_titles(session, min_users)),
            ("search log", lambda: queries.read_log(session, moment - window_days * _DAY)),
            ("engaged queries", lambda: queries.write_engaged_queries(session, min_users)),
            ("queries", lambda: queries.write_query_views(session, min_users, engagement.ENGAGEMENT_RATE)),
            ("engagement", lambda: engagement.write_engagement(session)),
        ]
        for number, (stage, run) in enumerate(stages, start=1):
            run()
            _tell(progress, stage, number, len(stages))
        relevance.write_relevance(session, lambda done: _tell(progress, "lexical tokens", done, pins))
        left_out = _left_out(session)
        session.commit()
        return AggregateReport(
            datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment),
            dict(session.rows),
            left_out,
            {table: dict(reasons.most_common()) for table, reasons in session.screened.items()},
            time.perf_counter() - started,
        )


def _tell(progress: Progress | None, stage: str, done: int, total: int) -> None:
    if progress:
        progress(stage, done, total)


def _left_out(session: Session) -> dict[str, int]:
    """Rows of the valid tables that no view could use because of their time or their pin."""
    used = {
        "pins": "SELECT count(*) FROM alive",
        "board_saves": "SELECT count(*) FROM all_saves SEMI JOIN alive USING (pin_id)",
        "search_log": "SELECT coalesce(sum(events), 0) FROM pin_times",
    }
    return {
        table: session.value(f"SELECT count(*) FROM raw_{table}") - session.value(sql) for table, sql in used.items()
    }
