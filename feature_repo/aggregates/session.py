"""One DuckDB connection over the valid tables, cut off at a time; view sources appear all at once at its end."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.schemas import REPEATED, VIEW_SCHEMAS
from feature_repo.errors import ContractError, PinfeatherError
from feature_repo.leftovers import scratch_folder
from feature_repo.paths import RepoPaths
from feature_repo.screening import Screening

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 65_536
_TABLES = {
    "pins": "event_timestamp",
    "board_saves": "saved_at",
    "search_log": "event_timestamp",
    "captions": "event_timestamp",
}
_OPTIONAL = ("pin_topics",)
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
        self.paths = paths
        self.screening = Screening.load(paths.root)
        self._views = views or paths.views
        self._stack = ExitStack()
        self._parts: dict[str, Path] = {}
        self.rows: dict[str, int] = {}
        self.screened: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.as_of = 0
        self.sources = {table: paths.valid_files(table) for table in (*_TABLES, *_OPTIONAL)}
        for table in _TABLES:
            missing = [path for path in self.sources[table] if not path.is_file()]
            if missing or not self.sources[table]:
                gone = missing[0] if missing else paths.valid / f"{table}.parquet"
                raise ContractError(
                    f"No valid {table}: {gone} does not exist. Run `pinfeather validate` first, it writes what is "
                    "accepted of every raw table."
                )
        self._views.mkdir(parents=True, exist_ok=True)
        self.scratch = self._stack.enter_context(scratch_folder(paths.data, "spill"))
        """A folder on the disk of the data that goes with the session."""
        self.con = _connect(resources, str(self.scratch))
        self._stack.callback(self.con.close)
        self._beside = ThreadPoolExecutor(1, "source") if resources.threads != 1 else None
        self._running: list[Future[None]] = []
        self._left = False

    def open_tables(self) -> None:
        """Makes the ``raw_<table>`` views; an optional table that was never validated has none."""
        for table, sources in self.sources.items():
            if sources:
                self.con.execute(f"CREATE VIEW raw_{table} AS SELECT * FROM {parquet(sources)}")

    def latest_event(self) -> int:
        """Microseconds of the latest accepted event of all tables but the search log, 0 without any."""
        times = [(table, time) for table, time in _TABLES.items() if table != "search_log"]
        if "link_fetched_at" in (name for name, *_ in self.con.execute("DESCRIBE raw_pins").fetchall()):
            times.append(("pins", "link_fetched_at"))
        parts = (f"SELECT max(epoch_us({time})) AS t FROM raw_{table}" for table, time in times)
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
        """A temporary table of an Arrow table, by way of a file: DuckDB loads pandas to read it from memory."""
        file = self.scratch / "incoming.parquet"
        pq.write_table(data, file)
        self.table(name, f"FROM {parquet([file])}")
        file.unlink()

    def column(self, sql: str) -> list[Any]:
        """The only column of a result."""
        return self.con.execute(sql).arrow().column(0).to_pylist()

    def texts(self, sql: str) -> pa.Array:
        """The only column of a result, as one array of strings that may hold more than 2 GiB."""
        return self.con.execute(sql).arrow().column(0).cast(pa.large_string()).combine_chunks()

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
        batches = self.batches(f"SELECT * FROM ({sql}) ORDER BY {key}", rows)
        made = ([*(convert(batch) if convert else batch.columns[:-1]), batch.columns[-1]] for batch in batches)
        self.encode(view, made)

    def encode(
        self,
        view: str,
        batches: Iterable[list[pa.Array]],
        compression: str = "zstd",
        beside: bool = False,
    ) -> None:
        """Writes the source of ``view``, each batch a row group; :meth:`commit` puts it in place.

        :param batches: the view's columns in order, then the latest contributing time in microseconds.
        :param compression: ``lz4`` makes longer files, which are quicker to write and to read.
        :param beside: in a thread of its own, which :meth:`finish` waits for. Then ``batches`` leave DuckDB alone.
        """
        part = self._part(view)
        self.rows[view] = 0
        if beside and self._beside:
            self._running.append(self._beside.submit(self._encode, part, view, batches, compression))
        else:
            self._encode(part, view, batches, compression)

    def _encode(self, part: Path, view: str, batches: Iterable[list[pa.Array]], compression: str) -> None:
        schema = VIEW_SCHEMAS[view]
        with pq.ParquetWriter(part, schema, compression=compression, use_dictionary=REPEATED) as writer:
            for arrays in batches:
                if self._left:
                    break
                cast = [array.cast(field.type) for array, field in zip([*arrays, arrays[-1]], schema, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(cast, schema=schema))
                self.rows[view] += len(cast[0])

    def finish(self) -> None:
        """Waits for the sources that are written beside the others."""
        for writing in self._running:
            writing.result()

    def _part(self, view: str) -> Path:
        """Where the source of ``view`` is written before it is put in place."""
        self._parts[view] = self._views / f".{view}.parquet.{os.getpid()}.part"
        self._stack.callback(self._parts[view].unlink, missing_ok=True)
        return self._parts[view]

    def source(self, view: str) -> Path:
        """Where the source of ``view`` lies, or will."""
        return self._views / f"{view}.parquet"

    def commit(self) -> None:
        """Puts every written source in place."""
        self.finish()
        for view, part in self._parts.items():
            os.replace(part, self.source(view))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        if self._beside:
            self._beside.shutdown()  # before its files are removed
        self._stack.close()
        if error is not None and type(error).__module__.partition(".")[0] in ("duckdb", "_duckdb"):
            raise PinfeatherError(
                f"The aggregates stopped; view sources are as they were. DuckDB says: {str(error).strip()}. A damaged "
                "file in data/valid is written anew by `pinfeather validate`; for want of memory or disk give it more."
            ) from error


def parquet(files: Iterable[Path], more: str = "") -> str:
    """SQL that reads files of one schema; ``more`` are options of ``read_parquet``, after a comma.

    Without the option DuckDB makes a column of every folder on the path that is called ``key=value``.
    """
    return f"read_parquet([{', '.join(map(quoted, files))}], hive_partitioning = false{more})"


def quoted(path: Path) -> str:
    """A path to read as a SQL string; DuckDB reads no wildcard in it."""
    text = str(path)
    for sign in "[*?":
        text = text.replace(sign, f"[{sign}]")
    return literal(text)


def literal(path: str | Path) -> str:
    """A path to write to as a SQL string; there DuckDB looks for no wildcard."""
    return "'" + str(path).replace("'", "''") + "'"


def _connect(resources: Resources, spill: str) -> duckdb.DuckDBPyConnection:
    import duckdb

    con = duckdb.connect(config={"memory_limit": resources.memory, "temp_directory": spill})
    con.execute("SET enable_progress_bar = false")
    con.execute("SET preserve_insertion_order = false")
    if resources.threads:
        con.execute(f"SET threads = {int(resources.threads)}")
    return con
