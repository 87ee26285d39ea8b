"""The search log in integers: counted in full, or a few more files merged into what was counted before.

The unit is a visit: all rows of one (request, user, query, pin), wherever they were delivered. However often a row is
delivered, a visit has at most one impression, click, long click and save, and any action implies the impression, so no
rate exceeds 1. A long click is a ``long_click``, or a ``click``, with more than ten seconds of dwell (published: 10 s);
it is a click too. A ``long_click`` without a dwell time is believed.

A visit lies at its latest event: that decides whether it is in the window, on which UTC day it counts, and whether it
was before the pin. So what a visit counts for depends on the visit and on four parameters (see ``effects``), and every
count can be taken back. What counts nowhere, by the first reason that holds: visits to pins that are not there;
queries that screening refuses; visits more than ``early_seconds`` before the pin's ``created_at``; all visits of a
user on a UTC day with more than ``max_visits_a_day``. The time at which a pin was last seen is of all its visits.

A merge gives the same tables as a full count, row for row: ``tests/test_log_merge.py`` says so at every step of random
histories. A full count is made where a merge cannot be right: nothing was kept, a file is not what it was, other
screening rules, a time before the latest event.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.aggregates.log import coding, effects, totals
from feature_repo.aggregates.log.merge import merge
from feature_repo.aggregates.log.state import Facts, State, forget_state, identities, identity, plain
from feature_repo.aggregates.session import Session, parquet

__all__ = ["Log", "forget_state", "open_log"]

AS_ASKED = "as asked"


@dataclass
class Log:
    """The valid search log, what is kept of it, and how the two come together."""

    session: Session
    state: State
    files: list[Path]
    """Files that are not counted yet; all of them if ``reason`` is given."""
    reason: str | None
    """Why everything is counted anew; None if ``files`` are merged."""
    latest: int
    """Latest event of the log in microseconds."""
    keeps: bool
    """Whether the state outlives the run."""
    facts: Facts | None = None
    """What the note will say, once counted."""

    def count(self, as_of: int, since: int) -> None:
        """Makes the tables of the state as of a time; visits before ``since`` do not count.

        A time before the latest event is counted beside the state, which stays as it is.
        """
        session = self.session
        if as_of < self.latest and self.keeps:
            self._leave("as of a time before the latest event")
        old = None if self.reason else self.state.facts
        if old is None:
            coding.open_dictionaries(session, self.state, kept=False)
            sums = count_all(session, self.state, session.sources["search_log"], since)
        else:
            coding.open_dictionaries(session, self.state, kept=True)
            sums = merge(session, self.state, self.files, old, since)
        known = identities(session.sources["search_log"])
        rows = session.value("SELECT count(*) FROM raw_search_log")
        self.facts = Facts(session.screening.fingerprint, since, self.latest, rows, known, plain(sums))

    def _leave(self, reason: str) -> None:
        self.state.close()
        self.state = State(self.session.scratch / "past")
        self.files, self.reason, self.keeps = self.session.sources["search_log"], reason, False

    def report(self) -> None:
        """Puts the rows that a rule left out into ``session.screened``."""
        for reason, rows in self._sums().items():
            if reason not in (effects.ABSENT, effects.COUNTED):
                self.session.screened["search_log"][reason] += rows

    @property
    def left_out(self) -> int:
        """Rows that are later than the time, or about a pin that is not there."""
        judged = sum(rows for fate, rows in self._sums().items() if fate != effects.ABSENT)
        return (self.facts.rows if self.facts else 0) - judged

    def _sums(self) -> dict[str, int]:
        return self.facts.sums if self.facts else {}

    def table(self, role: str, which: str = "") -> str:
        """SQL that reads one of ``pairs``, ``crowds``, ``asks``, ``langs``, ``times``, ``pin_sums``.

        :param which: a join that picks rows.
        """
        if role in totals.PATCHES:
            return totals.patched(self.state.now, role, which)
        return f"(SELECT * FROM {self.state.now(role)} {which})" if which else self.state.now(role)

    def holds(self, source: Path) -> bool:
        """Whether the kept digests belong to this view source, and may be used."""
        old = self.state.facts
        return self.reason != AS_ASKED and old is not None and old.relevance == identity(source) is not None

    def follows(self, topics: list[Any]) -> bool:
        """Whether this run merged, and the kept interests depend on the same topics of pins."""
        old = self.state.facts
        return self.reason is None and old is not None and old.topics == topics

    def note_topics(self, topics: list[Any]) -> None:
        """The interests of this run depend on these topics of pins."""
        if self.facts:
            self.facts.topics = topics

    def commit(self, relevance: Path) -> None:
        """What was counted is what the next run merges into.

        :param relevance: the view source that the digests of the state belong to, in place.
        """
        if self.keeps and self.facts:
            self.facts.relevance = identity(relevance)
            self.state.commit(self.facts)

    def close(self) -> None:
        """Lets the next run in; what was not committed is forgotten."""
        self.state.close()


def open_log(session: Session, keep: bool, full: bool) -> Log:
    """The log, and whether it can be merged.

    :param keep: whether this run may read and write what is kept.
    :param full: count everything anew.
    """
    files = session.sources["search_log"]
    state = State(session.paths.aggregates if keep else session.scratch / "log")
    reason: str | None = None if keep else "into a folder of its own"
    if not state.locked:
        reason, keep = "another aggregate is at work", False
        state = State(session.scratch / "log")
    reason = reason or (AS_ASKED if full else _why_anew(session, state, files))
    fresh, known = files, 0
    if reason is None and state.facts:
        counted = {name for name, *_ in state.facts.files}
        fresh, known = [path for path in files if path.name not in counted], state.facts.latest
    latest = 0
    if fresh:
        latest = session.value(f"SELECT coalesce(max(epoch_us(event_timestamp)), 0) FROM {parquet(fresh)}")
    return Log(session, state, fresh, reason, max(known, latest), keep)


def _why_anew(session: Session, state: State, files: list[Path]) -> str | None:
    facts = state.facts
    if facts is None:
        return "nothing of this version was kept"
    if facts.screening != session.screening.fingerprint:
        return "other screening rules"
    now = {name: found for name, *found in identities(files)}
    changed = [name for name, *found in facts.files if now.get(name) != found]
    return f"{changed[0]} is not the file that was counted" if changed else None


def count_all(session: Session, state: State, files: list[Path], since: int) -> dict[str, int]:
    """Every table of the state from the valid files; gives the rows by what became of them."""
    coding.code_all(session, state, files)
    coding.save_dictionaries(session, state, kept=False)
    effects.open_refused(session)
    effects.find_alive(session, state)
    state.replace(session, "bots", effects.bots(session, state.now("visits")))
    tables = (state.now("visits"), state.now("alive"), state.now("bots"))
    visits = effects.counted(*tables, since)
    state.replace(session, "pairs", totals.in_order(totals.pairs(visits)))
    for role in totals.SIGNED:
        state.replace(session, role, totals.signed(role, visits))
    state.replace(session, "crowds", totals.crowds(state.now("acts")))
    for role, (patch, _) in totals.PATCHES.items():
        state.replace(session, patch, f"FROM {state.now(role)} LIMIT 0")
    numbers = (state.now(role) for role in ("query_people", "query_requests", "pairs"))
    state.replace(session, "asks", totals.asks(*numbers))
    state.replace(session, "langs", totals.langs(visits))
    state.replace(session, "times", totals.times(state.now("visits")))
    state.replace(session, "pin_sums", totals.pin_sums(state.now("pairs")))
    return effects.sums(session, *tables)
