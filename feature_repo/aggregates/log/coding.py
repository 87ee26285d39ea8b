"""The valid search log as visits of integers, and the dictionaries that stand behind the integers.

A visit is one (request, user, query, pin): columns r, u (64 bits of MD5), q, p (numbers of the dictionaries), t (latest
event), click, long_click, save, lang (the first in the order of letters) and n (rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.arrays import strings
from feature_repo.aggregates.log.state import State
from feature_repo.aggregates.session import Session, parquet
from feature_repo.screening import Purpose
from feature_repo.text import canonical_query

LONG_CLICK_SECONDS = 10
NO_TEXT = "no text"
_CHUNK_ROWS = 4_000_000
"""Rows coded at a time: what one chunk groups by stays in memory."""
_TEXTS = 262_144
"""Raw queries that are strings of Python at a time."""

VISIT = "r, u, q, p"
_MERGED = """max(t) AS t, bool_or(click) AS click, bool_or(long_click) AS long_click, bool_or(save) AS save,
             min(lang) AS lang, sum(n)::INTEGER AS n"""


def open_dictionaries(session: Session, state: State, kept: bool) -> None:
    """Views ``log_queries`` (q, query, reason), ``log_spellings`` (query, q) and ``log_pins`` (p, pin_id).

    :param kept: whether the dictionaries of the last run go on; what is new comes to them.
    """
    for role, columns in _DICTIONARIES.items():
        session.con.execute(f"CREATE TEMP TABLE new_{role} ({columns})")
        old = f"SELECT * FROM {state.before(role)} UNION ALL " if kept else ""
        session.con.execute(f"CREATE TEMP VIEW log_{role} AS {old}SELECT * FROM new_{role}")


_DICTIONARIES = {
    "queries": "q INTEGER, query VARCHAR, reason VARCHAR",
    "spellings": "query VARCHAR, q INTEGER",
    "pins": "p INTEGER, pin_id VARCHAR",
}


def save_dictionaries(session: Session, state: State, kept: bool) -> None:
    """The new entries as files of the state; from here on the views read the files."""
    for role in _DICTIONARIES:
        if kept:
            state.keep(role)
        if not kept or session.value(f"SELECT count(*) FROM new_{role}"):
            state.write(session, role, f"SELECT * FROM new_{role}")
            state.compact(session, role)
        session.con.execute(f"CREATE OR REPLACE TEMP VIEW log_{role} AS SELECT * FROM {state.now(role)}")
        session.con.execute(f"DROP TABLE new_{role}")


def code_visits(session: Session, files: list[Path]) -> str:
    """SQL of the visits in valid files, as table ``chunk``; unknown queries and pins get the next numbers."""
    source = parquet(files) if files else "raw_search_log LIMIT 0"
    log = f"(SELECT * FROM (FROM {source}) WHERE epoch_us(event_timestamp) <= {session.as_of})"
    _add_queries(session, log)
    session.con.execute(
        f"""INSERT INTO new_pins
            SELECT (SELECT coalesce(max(p) + 1, 0) FROM log_pins) + row_number() OVER (ORDER BY pin_id) - 1, pin_id
            FROM (SELECT DISTINCT pin_id FROM {log}) ANTI JOIN log_pins USING (pin_id)"""
    )
    long_click = f"""(action = 'long_click' AND dwell_s IS NULL)
                OR (action IN ('click', 'long_click') AND coalesce(dwell_s, 0) > {LONG_CLICK_SECONDS})"""
    return f"""SELECT md5_number_lower(request_id) AS r, md5_number_lower(user_id) AS u, q, p,
                 max(epoch_us(event_timestamp)) AS t, bool_or(action IN ('click', 'long_click')) AS click,
                 bool_or({long_click}) AS long_click, bool_or(action = 'save') AS save, min(lang) AS lang,
                 count(*)::INTEGER AS n
               FROM {log} JOIN log_spellings USING (query) JOIN log_pins USING (pin_id) GROUP BY r, u, q, p"""


def _add_queries(session: Session, log: str) -> None:
    """Every distinct raw query that is not known is brought to its form and judged in Python, once."""
    session.table(
        "unknown",
        f"""SELECT query, row_number() OVER () AS place
            FROM (SELECT DISTINCT query FROM {log}) ANTI JOIN log_spellings USING (query)""",
    )
    session.con.execute("CREATE OR REPLACE TEMP TABLE judged (raw VARCHAR, query VARCHAR, reason VARCHAR)")
    for start in range(0, session.value("SELECT count(*) FROM unknown"), _TEXTS):
        raw = session.column(f"SELECT query FROM unknown WHERE place > {start} AND place <= {start + _TEXTS}")
        canonical = [canonical_query(text) for text in raw]
        reasons = [
            session.screening.reason(query, Purpose.QUERY) if query else NO_TEXT for query in canonical
        ]  # of a query without a text nothing more is to be said
        columns = {"raw": raw, "query": canonical, "reason": reasons}
        texts = pa.table({name: strings(column) for name, column in columns.items()})
        session.load("incoming", texts)
        session.con.execute("INSERT INTO judged FROM incoming")
    session.con.execute(
        """INSERT INTO new_queries
           SELECT (SELECT coalesce(max(q) + 1, 0) FROM log_queries) + row_number() OVER (ORDER BY query) - 1,
             query, reason
           FROM (SELECT query, min(reason) AS reason FROM judged GROUP BY query) ANTI JOIN log_queries USING (query)"""
    )
    session.con.execute("INSERT INTO new_spellings SELECT raw, q FROM judged JOIN log_queries USING (query)")
    session.con.execute("DROP TABLE unknown; DROP TABLE judged")


def code_all(session: Session, state: State, files: list[Path]) -> None:
    """The visits of all valid files, chunk by chunk; those with rows in several chunks are one in the end."""
    for chunk in _chunks(files):
        path = state.write(session, "visits", code_visits(session, chunk))
        state.write(session, "requests", f"SELECT DISTINCT r FROM {parquet([path])}")
    if len(state.files["visits"]) > 1:
        session.table("split", f"SELECT r FROM {state.now('requests')} GROUP BY r HAVING count(*) > 1")
        session.table(
            "met",
            f"""SELECT {VISIT}, {_MERGED} FROM {state.now("visits")} SEMI JOIN split USING (r)
                GROUP BY {VISIT} HAVING count(*) > 1""",
        )
        drop_met(session, state)
        state.write(session, "visits", "SELECT * FROM met")


def join_visits(session: Session, state: State, files: list[Path]) -> None:
    """The visits of new files beside the kept ones: tables ``met`` (kept visits that go on) and ``fresh``."""
    session.table("parts", code_visits(session, files))
    state.keep("visits", "requests")
    # Requests first, and alone: mostly no kept one goes on, and then no visit is read.
    session.table("near", f"SELECT DISTINCT r FROM {state.now('requests')} SEMI JOIN parts USING (r)")
    state.write(session, "requests", "SELECT DISTINCT r FROM parts ANTI JOIN near USING (r)")
    state.compact(session, "requests")
    none = "" if session.value("SELECT count(*) FROM near") else "LIMIT 0"
    kept = f"(SELECT * FROM {state.now('visits')} SEMI JOIN near USING (r) {none})"
    session.table("met", f"SELECT * FROM {kept} SEMI JOIN parts USING ({VISIT})")
    if session.value("SELECT count(*) FROM met"):
        session.table(
            "fresh",
            f"""SELECT {VISIT}, {_MERGED} FROM (SELECT * FROM parts UNION ALL BY NAME SELECT * FROM met)
                GROUP BY {VISIT}""",
        )
        drop_met(session, state)
        session.con.execute("DROP TABLE parts")
    else:
        session.con.execute("ALTER TABLE parts RENAME TO fresh")
    state.write(session, "visits", "SELECT * FROM fresh")
    session.con.execute("DROP TABLE near")


def drop_met(session: Session, state: State) -> None:
    """Every file of visits with one that is in table ``met`` is written again without it."""
    if not session.value("SELECT count(*) FROM met"):
        return
    named = f"{state.now('visits', ', filename = true')} SEMI JOIN met USING ({VISIT})"
    found = {Path(name) for name in session.column(f"SELECT DISTINCT filename FROM {named}")}
    old, state.files["visits"] = state.files["visits"], []
    for path in old:
        if path in found:
            state.write(session, "visits", f"SELECT * FROM {parquet([path])} ANTI JOIN met USING ({VISIT})")
        else:
            state.files["visits"].append(path)


def _chunks(files: list[Path]) -> Iterator[list[Path]]:
    chunk: list[Path] = []
    rows = 0
    for path in files:
        more = pq.read_metadata(path).num_rows
        if chunk and rows + more > _CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
        chunk.append(path)
        rows += more
    yield chunk
