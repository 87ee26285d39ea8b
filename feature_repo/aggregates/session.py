"""One DuckDB connection over the valid tables, cut off at a time; view sources appear all at once at its end."""

from __future__ import annotations

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.errors import ContractError, PinfeatherError
from feature_repo.paths import RepoPaths

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 65_536
_TABLES = {
    "pins": "event_timestamp",
    "board_saves": "saved_at",
    "search_log": "event_timestamp",
    "captions": "event_timestamp",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Resources:
    """What DuckDB may use: None leaves threads to it; ``memory`` as DuckDB writes it, beyond it spills to disk."""

    threads: int | None = None
    memory: str = "2GB"


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, exact; without a zone the time is UTC."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


class Session:
    """The valid tables as ``raw_<table>``, the pins that are there at ``as_of`` as ``alive``, and a way to write views.

    Inside, every time is a BIGINT of microseconds: no session time zone can bend it.
    """

    def __init__(self, paths: RepoPaths, resources: Resources, views: Path | None = None) -> None:
        self._views = views or paths.views
        self._stack = ExitStack()
        self._parts: dict[str, Path] = {}
        self.rows: dict[str, int] = {}
        self.screened: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.as_of = 0
        sources = {table: paths.valid / f"{table}.parquet" for table in _TABLES}
        for table, source in sources.items():
            if not source.is_file():
                raise ContractError(
                    f"No valid {table}: {source} does not exist. Run `pinfeather validate` first, it writes one file "
                    "for every raw table."
                )
        self._views.mkdir(parents=True, exist_ok=True)
        spill = self._stack.enter_context(tempfile.TemporaryDirectory(prefix=".spill-", dir=paths.data))
        self.con = _connect(resources, spill)
        self._stack.callback(self.con.close)
        self._sources = sources

    def open_tables(self) -> None:
        """Makes the ``raw_<table>`` views."""
        for table, source in self._sources.items():
            self.con.execute(f"CREATE VIEW raw_{table} AS SELECT * FROM read_parquet({quoted(source)})")

    def latest_event(self) -> int:
        """Microseconds of the latest accepted event of all tables, 0 without any."""
        parts = (f"SELECT max(epoch_us({time})) AS t FROM raw_{table}" for table, time in _TABLES.items())
        return self.value(f"SELECT coalesce(max(t), 0) FROM ({' UNION ALL '.join(parts)})")

    def cut_off(self, as_of: int) -> None:
        """Fixes the time that everything is computed as of, and with it the pins that are there."""
        self.as_of = as_of
        self.table(
            "alive",
            f"""SELECT *, epoch_us(event_timestamp) AS t FROM raw_pins
                WHERE epoch_us(event_timestamp) <= {as_of}
                  AND (deleted_at IS NULL OR epoch_us(deleted_at) > {as_of})""",
        )

    def table(self, name: str, sql: str) -> None:
        """A temporary table of the result of ``sql``."""
        self.con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")

    def load(self, name: str, data: pa.Table) -> None:
        """A temporary table of an Arrow table."""
        self.con.register("incoming", data)
        self.table(name, "SELECT * FROM incoming")
        self.con.unregister("incoming")

    def column(self, sql: str) -> list[Any]:
        """The only column of a result."""
        return self.con.execute(sql).arrow().column(0).to_pylist()

    def value(self, sql: str) -> int:
        """The only value of a result, an integer."""
        found = self.con.execute(sql).fetchone()
        return int(found[0]) if found else 0

    def batches(self, sql: str, rows: int) -> Iterable[pa.RecordBatch]:
        """A result as Arrow batches, never whole in memory."""
        return self.con.execute(sql).fetch_record_batch(rows)

    def write(
        self,
        view: str,
        sql: str,
        key: str = "pin_id",
        convert: Callable[[pa.RecordBatch], list[pa.Array]] | None = None,
        rows: int = BATCH_ROWS,
    ) -> None:
        """Writes the source of ``view`` in the order of ``key``; :meth:`commit` puts it in place.

        :param sql: gives the view's columns in order, then the latest contributing time in microseconds.
        :param convert: makes the view's columns out of a batch of ``rows`` where SQL cannot.
        """
        schema = VIEW_SCHEMAS[view]
        part = self._views / f".{view}.parquet.{os.getpid()}.part"
        self._stack.callback(part.unlink, missing_ok=True)
        self.rows[view] = 0
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for batch in self.batches(f"SELECT * FROM ({sql}) ORDER BY {key}", rows):
                columns = convert(batch) if convert else batch.columns[:-1]
                columns = [*columns, batch.columns[-1], batch.columns[-1]]
                cast = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(cast, schema=schema))
                self.rows[view] += len(batch)
        self._parts[view] = part

    def commit(self) -> None:
        """Puts every written source in place."""
        for view, part in self._parts.items():
            os.replace(part, self._views / f"{view}.parquet")

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None and type(error).__module__.partition(".")[0] in ("duckdb", "_duckdb"):
            raise PinfeatherError(
                f"The aggregates stopped; view sources are as they were. DuckDB says: {str(error).strip()}. A damaged "
                "file in data/valid is written anew by `pinfeather validate`; for want of memory or disk give it more."
            ) from error


def quoted(path: Path) -> str:
    """A path as a SQL string; DuckDB reads no wildcard in it."""
    text = str(path)
    for sign in "[*?":
        text = text.replace(sign, f"[{sign}]")
    return "'" + text.replace("'", "''") + "'"


def _connect(resources: Resources, spill: str) -> duckdb.DuckDBPyConnection:
    import duckdb

    con = duckdb.connect(config={"memory_limit": resources.memory, "temp_directory": spill})
    con.execute("SET enable_progress_bar = false")
    con.execute("SET preserve_insertion_order = false")
    if resources.threads:
        con.execute(f"SET threads = {int(resources.threads)}")
    return con
