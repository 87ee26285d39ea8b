"""What a sample is drawn from: the distinct (query, pin) pairs that were shown on some days of the search log.

Kept in DuckDB, which spills to disk, so memory grows with the sample and not with the log. Pairs are put in order by
MD5 of seed, query and pin: the first n of them are a random sample that no order of rows or files can change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.aggregates.queries import HEAD_PERCENT, TORSO_PERCENT
from feature_repo.aggregates.session import literal, microseconds, parquet
from feature_repo.erasures import Erasures, Subject
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history.tables import count, files_sql
from feature_repo.paths import RepoPaths
from feature_repo.screening import Purpose, Screening, language_code
from pinfeather.duck_session import duck_session
from pinfeather.log_queries import judge_queries
from pinfeather.sampling_quota import Stratum

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

UNKNOWN = "unknown"
NEW_DAYS, RECENT_DAYS = 7, 90
"""Freshness of a pin when it was shown: ``new`` up to the one after it was created, ``recent`` up to the other."""
BOT, EARLY, ABSENT = "too many visits of a user in a day", "before the pin was created", "no such pin"

_DAY = 86_400 * 10**6
_BATCH = 65_536


@dataclass(frozen=True)
class Window:
    """Whole UTC days, both ends included."""

    first: date
    last: date

    @property
    def since(self) -> int:
        """The first microsecond since 1970."""
        return microseconds(datetime.combine(self.first, time(), UTC))

    @property
    def until(self) -> int:
        """The first microsecond after the window."""
        return microseconds(datetime.combine(self.last, time(), UTC)) + 86_400 * 10**6


@dataclass(frozen=True)
class LogFiles:
    """The valid files of the search log with the times of their first and last row, in microseconds."""

    spans: tuple[tuple[Path, int, int], ...]

    @classmethod
    def of(cls, paths: RepoPaths) -> LogFiles:
        """From the statistics in the files; a file without rows is left out.

        :raises PinfeatherError: if there is no valid log, or nothing in it.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        spans = []
        for file in paths.valid_files("search_log"):
            try:
                metadata = pq.read_metadata(file)
            except (pa.ArrowException, OSError) as error:
                raise PinfeatherError(f"{file} cannot be read ({error}): `pinfeather validate` writes it.") from error
            column = metadata.schema.to_arrow_schema().get_field_index("event_timestamp")
            groups = [metadata.row_group(number).column(column) for number in range(metadata.num_row_groups)]
            found = [group.statistics for group in groups if group.num_values]
            if found:
                low, high = min(one.min for one in found), max(one.max for one in found)
                spans.append((file, microseconds(low), microseconds(high)))
        if not spans:
            raise PinfeatherError(
                f"There is no search log in {paths.valid}: put rows into {paths.raw / 'search_log'} and run "
                "`pinfeather validate`."
            )
        return cls(tuple(spans))

    def window(self, first: date | None, last: date | None) -> Window:
        """The days asked for; without any the last day of the log, with one end missing that same day.

        :raises UsageError: if the last lies before the first.
        """
        if first is None and last is None:
            latest = max(high for *_, high in self.spans)
            first = last = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=latest)).date()
        first, last = first or last, last or first
        if first is None or last is None or last < first:
            raise UsageError(f"--from {first} --to {last}: the last day lies before the first one; change them round.")
        return Window(first, last)

    def within(self, window: Window) -> list[Path]:
        """The files that may have rows of the window."""
        return [file for file, low, high in self.spans if high >= window.since and low < window.until]


@dataclass
class Frame:
    """The pairs of a window. Its tables are ``pairs`` and ``queries``; what is left out is counted."""

    con: duckdb.DuckDBPyConnection
    window: Window
    seed: int
    left_out: Counter[str]
    """Rows or visits that no pair is made of, by reason."""

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return count(self.con, "SELECT count(*) FROM pairs")

    def cells(self) -> dict[tuple[str, ...], int]:
        """Pairs by (language, band, freshness)."""
        rows = self.con.execute("SELECT lang, band, freshness, count(*) FROM pairs GROUP BY ALL").fetchall()
        return {(lang, band, freshness): int(n) for lang, band, freshness, n in rows}

    def query_cells(self) -> dict[tuple[str, ...], int]:
        """Queries by (language, band)."""
        rows = self.con.execute("SELECT lang, band, count(*) FROM queries GROUP BY ALL").fetchall()
        return {(lang, band): int(n) for lang, band, n in rows}

    def pairs(self, strata: Sequence[Stratum], takes: Sequence[int]) -> pa.Table:
        """The first ``takes`` pairs of each stratum: its number, query, pin_id, lang, band, freshness, visits, t."""
        return self._first("pairs", ("lang", "band", "freshness"), "q, pin_id", strata, takes)

    def queries(self, strata: Sequence[Stratum]) -> pa.Table:
        """The first queries of each stratum, as many as it takes: its number, query, lang, band."""
        return self._first("queries", ("lang", "band"), "q", strata, [stratum.take for stratum in strata])

    def _first(
        self, table: str, dimensions: Sequence[str], key: str, strata: Sequence[Stratum], takes: Sequence[int]
    ) -> pa.Table:
        import pyarrow as pa

        rows = [
            (*cell, number, take)
            for number, (stratum, take) in enumerate(zip(strata, takes, strict=True))
            for cell in stratum.cells
        ]
        columns = dict(zip([*dimensions, "stratum", "take"], zip(*rows, strict=True), strict=True))
        self.con.register("given", pa.table({name: list(values) for name, values in columns.items()}))
        try:
            return self.con.execute(
                f"""SELECT * EXCLUDE (take, place) FROM (
                      SELECT *, row_number() OVER (PARTITION BY stratum ORDER BY {self._order(key)}) AS place
                      FROM {table} JOIN given USING ({", ".join(dimensions)}))
                    WHERE place <= take ORDER BY stratum, place"""
            ).fetch_arrow_table()
        finally:
            self.con.unregister("given")

    def unshown(self, retrieved: pa.Table, queries: pa.Table) -> pa.Table:
        """Of retrieved pairs (query, pin_id) those that were shown to nobody; columns as :meth:`pairs`, by query.

        Whoever saw a pair counts here, machines as well. The age of a pin is that at the end of the window; one that
        came later could not be shown.

        :param queries: of :meth:`queries`.
        """
        end = self.window.until - 1
        self.con.register("given", retrieved)
        self.con.register("searched", queries)
        try:
            return self.con.execute(
                f"""SELECT q, pin_id, lang, band, {_freshness("created", str(end))} AS freshness,
                      0 AS visits, {end} AS t
                    FROM (SELECT query AS q, pin_id FROM given) JOIN pins USING (pin_id) JOIN searched USING (q)
                    ANTI JOIN visits USING (q, pin_id)
                    WHERE created IS NULL OR created <= {end} ORDER BY q, {self._order("q, pin_id")}"""
            ).fetch_arrow_table()
        finally:
            self.con.unregister("given")
            self.con.unregister("searched")

    def _order(self, key: str) -> str:
        # Canonical queries have no control characters, so parts cannot run into each other.
        return f"md5_number_lower(concat_ws(chr(1), '{self.seed}', {key})), {key}"


@contextmanager
def open_frame(
    paths: RepoPaths, files: LogFiles, window: Window, seed: int, min_users: int, erasures: Erasures
) -> Iterator[Frame]:
    """The pairs of ``window``, screened as `aggregate` screens, without what was erased.

    :param min_users: people that must have asked a query on these days.
    :raises PinfeatherError: before the first `aggregate`, or without a row on these days.
    """
    source, pins = files.within(window), paths.views / "pin_text.parquet"
    if not pins.is_file():
        raise PinfeatherError(f"{pins} does not exist yet: run `pinfeather aggregate --repo {paths.root}` first.")
    with duck_session(paths, "A damaged file in data/valid is written anew by `pinfeather validate`.") as con:
        frame = Frame(con, window, seed, Counter())
        inside = f"epoch_us(event_timestamp) >= {window.since} AND epoch_us(event_timestamp) < {window.until}"
        rows = f"(SELECT * FROM {files_sql(source)} WHERE {inside})" if source else None
        if rows is None or not count(con, f"SELECT count(*) FROM {rows}"):
            raise PinfeatherError(
                f"The search log has no row from {window.first} to {window.last} (UTC): give other days with --from "
                "and --to; without these it is the last day of the log."
            )
        con.execute(f"CREATE TEMP VIEW all_rows AS SELECT * FROM {rows}")
        _open_log(con, parquet([pins]), erasures)
        _find_visits(frame, Screening.load(paths.root), erasures)
        _find_pairs(frame, min_users)
        yield frame


def _open_log(con: duckdb.DuckDBPyConnection, pins: str, erasures: Erasures) -> None:
    """View ``log`` and table ``pins``, without erased users and pins."""
    left = []
    for column, subject in (("user_id", Subject.USER), ("pin_id", Subject.PIN)):
        con.execute(f"CREATE TEMP TABLE erased_{column} ({column} VARCHAR)")
        if any(kind is subject for kind, _ in erasures.entries):
            _find_erased(con, column, subject, erasures)
        left.append(f"ANTI JOIN erased_{column} USING ({column})")
    con.execute(f"CREATE TEMP VIEW log AS SELECT * FROM all_rows {' '.join(left)}")
    con.execute(
        f"""CREATE TEMP TABLE pins AS SELECT pin_id, epoch_us(created_at) AS created
            FROM {pins} ANTI JOIN erased_pin_id USING (pin_id)"""
    )


def _find_erased(con: duckdb.DuckDBPyConnection, column: str, subject: Subject, erasures: Erasures) -> None:
    import pyarrow as pa

    found: list[str] = []
    for batch in con.execute(f"SELECT DISTINCT {column} FROM all_rows").fetch_record_batch(_BATCH):
        names = pa.chunked_array([batch.column(0)])
        found += names.filter(pa.array(erasures.rows(subject, names))).to_pylist()
    con.register("given", pa.table({column: pa.array(found, pa.string())}))
    con.execute(f"INSERT INTO erased_{column} SELECT * FROM given")
    con.unregister("given")


def _find_visits(frame: Frame, screening: Screening, erasures: Erasures) -> None:
    """Table ``visits`` of all (request, user, query, pin); ``why`` says why one counts for nothing."""
    con = frame.con

    def reason(query: str) -> str | None:
        return "erased" if erasures.has(Subject.QUERY, query) else screening.reason(query, Purpose.QUERY)

    def note(why: str, rows: int) -> None:
        frame.left_out[f"query: {why}"] += rows

    judge_queries(con, "log", reason, note)
    limits = screening.limits
    early = limits.early_seconds * 10**6
    con.execute(
        f"""CREATE TEMP TABLE all_visits AS
            SELECT md5_number_lower(request_id) AS r, md5_number_lower(user_id) AS u, q, pin_id, reason,
              min(epoch_us(event_timestamp)) AS t, max(epoch_us(event_timestamp)) AS latest, min(lang) AS lang
            FROM log JOIN judged USING (query) GROUP BY ALL;
            CREATE TEMP TABLE bots AS SELECT u, latest // {_DAY} AS day FROM all_visits GROUP BY ALL
            HAVING count(*) > {limits.max_visits_a_day};
            CREATE TEMP TABLE visits AS
            SELECT v.u, q, pin_id, t, lang, CASE WHEN reason IS NOT NULL THEN reason
              WHEN pins.pin_id IS NULL THEN '{ABSENT}' WHEN latest < created - {early} THEN '{EARLY}'
              WHEN bots.u IS NOT NULL THEN '{BOT}' END AS why
            FROM all_visits v LEFT JOIN pins USING (pin_id) LEFT JOIN bots ON bots.u = v.u AND day = latest // {_DAY};
            DROP TABLE all_visits"""
    )
    for why, visits in con.execute(
        f"SELECT why, count(*) FROM visits WHERE why IN ('{BOT}', '{EARLY}', '{ABSENT}') GROUP BY why"
    ).fetchall():
        frame.left_out[why] += int(visits)


def _find_pairs(frame: Frame, min_users: int) -> None:
    """Tables ``queries`` (q, lang, band) and ``pairs``."""
    con = frame.con
    con.execute("CREATE TEMP VIEW counted AS SELECT * FROM visits WHERE why IS NULL")
    spoken = [row[0] for row in con.execute("SELECT DISTINCT lang FROM counted").fetchall()]
    codes: list[tuple[Any, str]] = [(lang, language_code(lang) or UNKNOWN) for lang in spoken]
    con.execute("CREATE TEMP TABLE codes (lang VARCHAR, code VARCHAR)")
    if codes:
        con.executemany("INSERT INTO codes VALUES (?, ?)", codes)
    con.execute(
        f"""CREATE TEMP TABLE queries AS
            WITH asked AS (
              SELECT q, count(*) AS visits FROM counted GROUP BY q HAVING count(DISTINCT u) >= {min_users}),
            spoken AS (
              SELECT q, code, count(*) AS n FROM counted v JOIN codes c ON c.lang IS NOT DISTINCT FROM v.lang
              GROUP BY q, code QUALIFY row_number() OVER (PARTITION BY q ORDER BY n DESC, code) = 1),
            placed AS (
              SELECT *, sum(visits) OVER () AS total,
                sum(visits) OVER (ORDER BY visits DESC, q ROWS UNBOUNDED PRECEDING) - visits AS before FROM asked)
            SELECT q, code AS lang, CASE WHEN before * 100 < total * {HEAD_PERCENT} THEN 'head'
              WHEN before * 100 < total * {TORSO_PERCENT} THEN 'torso' ELSE 'tail' END AS band
            FROM placed JOIN spoken USING (q);
            CREATE TEMP TABLE pairs AS
            SELECT q, pin_id, v.visits, v.t, queries.lang, band, {_freshness("created", "v.t")} AS freshness
            FROM (SELECT q, pin_id, count(*) AS visits, min(t) AS t FROM counted GROUP BY q, pin_id) v
            JOIN queries USING (q) JOIN pins USING (pin_id)"""
    )
    asked = count(con, "SELECT count(*) FROM counted ANTI JOIN queries USING (q)")
    if asked:
        frame.left_out[f"query: of fewer than {min_users} people"] += asked


def _freshness(created: str, moment: str) -> str:
    """SQL of the freshness of a pin at a time, both in microseconds."""
    age = f"{moment} - {created}"
    return f"""CASE WHEN {created} IS NULL THEN {literal(UNKNOWN)} WHEN {age} <= {NEW_DAYS * _DAY} THEN 'new'
               WHEN {age} <= {RECENT_DAYS * _DAY} THEN 'recent' ELSE 'old' END"""
