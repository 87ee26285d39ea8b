"""Raw queries of a search log brought to their canonical form, each distinct one looked at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from feature_repo.history.tables import count
from feature_repo.text import canonical_query

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_TEXTS = 16_384
EMPTY = "empty"


def judge_queries(
    con: duckdb.DuckDBPyConnection,
    source: str,
    reason: Callable[[str], str | None],
    note: Callable[[str, int], None],
) -> None:
    """Makes table ``judged``: raw ``query``, its canonical form ``q``, and the ``reason`` why it is left out, or null.

    :param source: a table or view with a column ``query``.
    :param reason: why a canonical query, which is not empty, is left out; None if it may stay.
    :param note: called with a reason and the number of rows that it leaves out.
    """
    con.execute(
        f"""CREATE TEMP TABLE raw AS SELECT query, count(*) AS n, row_number() OVER (ORDER BY query) AS number
            FROM {source} GROUP BY query;
            CREATE TEMP TABLE judged (query VARCHAR, q VARCHAR, reason VARCHAR)"""
    )
    for start in range(0, count(con, "SELECT count(*) FROM raw"), _TEXTS):
        found = con.execute(
            f"SELECT query, n FROM raw WHERE number > {start} AND number <= {start + _TEXTS} ORDER BY number"
        ).fetchall()
        con.register("given", _judged(found, reason, note))
        con.execute("INSERT INTO judged SELECT * FROM given")
        con.unregister("given")
    con.execute("DROP TABLE raw")


def _judged(
    queries: list[tuple[str, int]], reason: Callable[[str], str | None], note: Callable[[str, int], None]
) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, list[str | None]] = {"query": [], "q": [], "reason": []}
    for text, rows in queries:
        query = canonical_query(text)
        why = reason(query) if query else EMPTY
        for name, value in zip(columns, (text, query, why), strict=True):
            columns[name].append(value)
        if why:
            note(why, rows)
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
