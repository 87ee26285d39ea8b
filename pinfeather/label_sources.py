"""Labels to train on, each with its time: judgments, a file, what people did in the search log, or a teacher's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedders.table_files import read_table_file
from feature_repo.aggregates import Resources
from feature_repo.aggregates.session import microseconds
from feature_repo.contracts import Column, Kind
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history.tables import connected, count, files_sql
from feature_repo.paths import RepoPaths
from feature_repo.screening import Purpose, Screening
from feature_repo.text import canonical_query
from pinfeather.log_queries import judge_queries

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ACTIONS = {"click": "'click', 'long_click'", "save": "'save'"}
"""What may be a label from the log; a long click is a click."""

_OUTSIDE = "label_time: outside --since and --until"
_NEVER = (0, 2**62)
_DAY = 86_400 * 10**6


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels in the order of their time, then query and pin.

    ``table`` has ``query`` (canonical), ``pin_id``, the ``columns`` and ``label_time`` (UTC microseconds).
    """

    table: pa.Table
    columns: tuple[str, ...]
    """``level`` (int64, 1 to 5), ``label`` (float64), or both, and whatever else the source says of a label."""
    source: str
    left_out: Counter[str]
    """Rows of the source that are no label, by reason."""

    def between(self, since: datetime | None, until: datetime | None) -> Labels:
        """The labels from ``since`` on and before ``until``."""
        import pyarrow.compute as pc

        table = self.table
        if since is not None:
            table = table.filter(pc.greater_equal(table["label_time"], since))
        if until is not None:
            table = table.filter(pc.less(table["label_time"], until))
        left_out = Counter(self.left_out)
        if outside := len(self.table) - len(table):
            left_out[_OUTSIDE] += outside
        return Labels(table, self.columns, self.source, left_out)


def judgments(paths: RepoPaths) -> Labels:
    """Every judgment of the repository, with its own time; exact repetitions once.

    :raises PinfeatherError: without judgments.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = paths.valid_files("judgments")
    tables = [pq.read_table(file, columns=["query", "pin_id", "level", "event_timestamp"]) for file in files]
    table = pa.concat_tables(tables) if tables else None
    if table is None or not len(table):
        raise PinfeatherError(
            f"There are no judgments in {paths.valid}: put rows (query, pin_id, level, event_timestamp) into "
            f"{paths.raw / 'judgments'} and run `pinfeather validate`, name a file with --labels, or take them from "
            "the log with --from-log click."
        )
    return _finished(table, ("level",), f"judgments of {paths.root.name}", Counter())


def from_file(path: Path, now: datetime | None = None) -> Labels:
    """The labels of a Parquet or CSV file: ``query``, ``pin_id``, ``event_timestamp``, and ``level`` or ``label``.

    A row that breaks the contract of these columns (an empty query, a level of 7, a time in the future) is left out
    and counted.

    :raises PinfeatherError: if the file cannot be read, or lacks a column.
    """
    import pyarrow as pa

    from feature_repo.columns import cast, plain

    raw = read_table_file(path, "labels", "query, pin_id, event_timestamp, and level or label")
    wanted = _file_columns(path, raw)
    problems = np.zeros(len(raw), np.int64)
    reasons: list[str] = []
    columns = {}
    for column in wanted:
        result = cast(plain(raw[column.name].combine_chunks()), column, now or datetime.now(UTC))
        columns[column.name] = result.values
        for rows, reason in result.problems:
            reasons.append(reason)
            problems[rows & (problems == 0)] = len(reasons)
    left_out = Counter({reasons[code - 1]: int((problems == code).sum()) for code in np.unique(problems[problems > 0])})
    table = pa.table(columns).filter(pa.array(problems == 0))
    kinds = tuple(column.name for column in wanted if column.name in ("level", "label"))
    return _finished(table, kinds, path.name, left_out)


def from_log(paths: RepoPaths, action: str, since: datetime | None = None, until: datetime | None = None) -> Labels:
    """Every pin that was shown for a query, with ``label`` 1 where people did ``action``, else 0.

    The label's time is that of the earliest row of its request: what the ranking knew when it chose the pins, so no
    impression, click or save of that request is in the features. Queries and user-days that the screening rules
    refuse are left out.

    :param since, until: only labels from the one on and before the other.
    :raises UsageError: for another action.
    """
    if action not in ACTIONS:
        raise UsageError(f"--from-log {action!r}: allowed are {', '.join(ACTIONS)}.")
    files = paths.valid_files("search_log")
    if not files:
        raise PinfeatherError(f"No valid search log in {paths.valid}: run `pinfeather validate` first.")
    log = _Log(paths, files, _bound(since, _NEVER[0]), _bound(until, _NEVER[1]))
    with connected(paths, Resources()) as con:
        table = log.labels(con, ACTIONS[action])
    return _finished(table, ("label",), f"{action} in the search log of {paths.root.name}", log.left_out, repeat=True)


def from_teacher(paths: RepoPaths, name: str) -> Labels:
    """The newest label of every pair that a teacher labelled, with the time at which the pair was shown.

    Columns are ``label`` (the expected level), the five probabilities, and the ``weight`` of the pair in its sample.

    :param name: the teacher, or its version.
    :raises UsageError: if there are no labels of it.
    """
    from pinfeather.labelling_store import PROBABILITIES, find_labels, read_labels

    version = find_labels(paths, name)
    table = read_labels(paths, version)
    levels = [table[column].to_numpy().astype(np.float64) * level for level, column in enumerate(PROBABILITIES, 1)]
    table = table.append_column("label", [np.sum(levels, axis=0)])
    columns = ("label", *PROBABILITIES, "weight")
    return _finished(table, columns, f"labels of {name}, teacher version {version}", Counter(), repeat=True)


class _Log:
    """The search log cut down to the requests of a time, so that no more of it is looked at in Python or kept."""

    def __init__(self, paths: RepoPaths, files: list[Path], since: int, until: int) -> None:
        self._files, self._since, self._until = files, since, until
        self._screening = Screening.load(paths.root)
        self.left_out: Counter[str] = Counter()

    def labels(self, con: duckdb.DuckDBPyConnection, actions: str) -> pa.Table:
        """``query``, ``pin_id``, ``label`` and ``event_timestamp`` in microseconds."""
        limit = self._screening.limits.max_visits_a_day
        self._cut(con, limit)
        self._judge(con)
        con.execute(
            f"""CREATE TEMP TABLE visits AS
                SELECT request_id, user_id, q AS query, pin_id, min(epoch_us(event_timestamp)) AS t,
                  max(epoch_us(event_timestamp)) // {_DAY} AS day, bool_or(action IN ({actions})) AS done
                FROM near JOIN judged USING (query) WHERE reason IS NULL GROUP BY ALL;
                CREATE TEMP TABLE bots AS SELECT user_id, day FROM visits GROUP BY ALL HAVING count(*) > {limit};
                CREATE TEMP TABLE shown AS
                SELECT query, pin_id, done::DOUBLE AS label, b.user_id IS NOT NULL AS bot,
                  min(t) OVER (PARTITION BY request_id, v.user_id, query) AS event_timestamp
                FROM visits v LEFT JOIN bots b USING (user_id, day)"""
        )
        inside = f"event_timestamp >= {self._since} AND event_timestamp < {self._until}"
        self._note(_OUTSIDE, count(con, f"SELECT count(*) FROM shown WHERE NOT ({inside})"))
        self._note(
            "user_id: more visits in a day than a person makes",
            count(con, f"SELECT count(*) FROM shown WHERE bot AND {inside}"),
        )
        wanted = f"SELECT * EXCLUDE (bot) FROM shown WHERE NOT bot AND {inside}"
        return con.execute(wanted).fetch_arrow_table()

    def _cut(self, con: duckdb.DuckDBPyConnection, limit: int) -> None:
        """Table ``near``: the requests with a row of the time, and all of a user's day that may be a machine's."""
        con.execute(f"CREATE TEMP VIEW log AS SELECT * FROM {files_sql(self._files)}")
        con.execute(
            f"""CREATE TEMP TABLE requests AS SELECT DISTINCT request_id, user_id FROM log
                WHERE epoch_us(event_timestamp) >= {self._since} AND epoch_us(event_timestamp) < {self._until};
                CREATE TEMP TABLE busy AS SELECT user_id, epoch_us(event_timestamp) // {_DAY} AS day
                FROM log SEMI JOIN requests USING (user_id) GROUP BY ALL HAVING count(*) > {limit};
                INSERT INTO requests SELECT DISTINCT request_id, user_id
                FROM (SELECT *, epoch_us(event_timestamp) // {_DAY} AS day FROM log) SEMI JOIN busy USING (user_id, day)
                ANTI JOIN requests USING (request_id, user_id);
                CREATE TEMP TABLE near AS SELECT request_id, user_id, query, pin_id, action, event_timestamp
                FROM log SEMI JOIN requests USING (request_id, user_id)"""
        )
        far = (
            "SELECT DISTINCT request_id, user_id, query, pin_id FROM log ANTI JOIN requests USING (request_id, user_id)"
        )
        self._note(_OUTSIDE, count(con, f"SELECT count(*) FROM ({far})"))

    def _judge(self, con: duckdb.DuckDBPyConnection) -> None:
        """Table ``judged``: canonical form ``q`` of each query of ``near``, and the reason why it is left out."""
        judge_queries(
            con,
            "near",
            lambda query: self._screening.reason(query, Purpose.QUERY),
            lambda reason, rows: self._note(f"query: {reason}", rows),
        )

    def _note(self, reason: str, rows: int) -> None:
        if rows:
            self.left_out[reason] += rows


def _bound(moment: datetime | None, otherwise: int) -> int:
    return otherwise if moment is None else microseconds(moment)


def _finished(
    table: pa.Table, columns: tuple[str, ...], source: str, left_out: Counter[str], repeat: bool = False
) -> Labels:
    """Canonical queries, one order, exact repetitions once (unless they are visits of their own)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from feature_repo.columns import TIMESTAMP

    coded = table["query"].combine_chunks().dictionary_encode()
    canonical = pa.array([canonical_query(text) for text in coded.dictionary.to_pylist()], pa.string())
    queries = canonical.take(coded.indices)
    table = pa.table(
        {
            "query": queries,
            "pin_id": table["pin_id"],
            **{name: table[name] for name in columns},
            "label_time": table["event_timestamp"].cast(TIMESTAMP),
        }
    )
    filled = pc.not_equal(table["query"], "")
    if empty := len(table) - (pc.sum(filled).as_py() or 0):
        left_out["query: empty"] += empty
        table = table.filter(filled)
    if not repeat:
        distinct = table.group_by(table.column_names).aggregate([]).select(table.column_names)
        if repeated := len(table) - len(distinct):
            left_out["repeated: the same query, pin, label and time"] += repeated
        table = distinct
    order = ["label_time", "query", "pin_id", *columns]
    return Labels(table.sort_by([(name, "ascending") for name in order]), columns, source, left_out)


def _file_columns(path: Path, raw: pa.Table) -> tuple[Column, ...]:
    """The columns of a file of labels that are there.

    :raises PinfeatherError: if one is missing, there twice, or of a type that cannot be read.
    """
    from feature_repo.columns import understood

    needed = (
        Column("query", Kind.TEXT, nullable=False),
        Column("pin_id", Kind.ID, nullable=False),
        Column("event_timestamp", Kind.TIME, nullable=False),
    )
    either = (
        Column("level", Kind.INTEGER, nullable=False, low=1, high=5),
        Column("label", Kind.NUMBER, nullable=False),
    )
    names = raw.column_names
    missing = [column.name for column in needed if column.name not in names]
    there = [column for column in either if column.name in names]
    if missing or not there:
        raise PinfeatherError(
            f"{path} has no column {' and '.join(missing or ['level or label'])}. Needed: query, pin_id, "
            f"event_timestamp, and level (1 to 5) or label (a number); found: {', '.join(names) or 'no columns'}. "
            "Rename the columns of your file."
        )
    for column in (*needed, *there):
        if names.count(column.name) > 1:
            raise PinfeatherError(f"{path} has the column {column.name} {names.count(column.name)} times: keep one.")
        if not understood(column.kind, found := raw.schema.field(column.name).type):
            raise PinfeatherError(f"{path}: column {column.name} has type {found}, expected {column.kind}. Cast it.")
    return (*needed, *there)
