"""The sources of feature views in DuckDB: their rows in SQL, and a session that passes over each of them once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feature_repo.aggregates.session import quoted
from feature_repo.errors import PinfeatherError
from materialize.definitions import ViewDefinition
from materialize.file_states import FileClock, FileStates, SeenFiles, file_clock, source_files
from materialize.passes import HashedView
from materialize.payload_fields import PAYLOAD_COLUMNS
from materialize.spill import Scratch, spill_folder

if TYPE_CHECKING:
    import duckdb

    from materialize.changed import Compared
    from materialize.pin_rows import WholeRows

PIN_VIEW = "pin_text"
"""The view that says which pins there are."""

TEXT_COLUMNS: Mapping[str, tuple[str, str]] = {
    "title": ("pin_text", "title"),
    "description": ("pin_text", "description"),
    "caption": ("pin_captions", "caption"),
    "link_title": ("pin_link_text", "link_title"),
    "link_description": ("pin_link_text", "link_description"),
    "board_titles": ("pin_board_titles", "board_titles"),
    "engaged_queries": ("pin_engaged_queries", "engaged_queries"),
}
"""Field of the pin text to (view, feature)."""

_PLAIN = "hive_partitioning = false"  # else DuckDB makes a column of every folder that is called key=value

SCAN_VERSION = 3
"""Bumped when :func:`hashed`, or what is hashed of a row, changes."""

_MEMORY, _THREADS = "1GB", 8
"""What DuckDB may use at most; joins that need more go to disk."""
_PASSES = 2
"""Passes at a time: DuckDB streams a result mostly from the thread that fetches it, so that one keeps one processor
busy; and each holds memory."""
_SETTINGS = "SET TimeZone='UTC'; SET preserve_insertion_order=false; SET streaming_buffer_size='24MB'"
"""Of each connection. The buffer lets DuckDB's threads work on while a batch is put into its buckets."""
_FIXED = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT|FLOAT|DOUBLE|BOOL|DATE|TIME|DECIMAL|UUID|unix_", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A view's rows as one SQL relation: ``key``, its columns by feature name, ``event_timestamp``."""

    view: ViewDefinition
    columns: tuple[str, ...]
    text_key: bool
    """True where the key is one join key of text, kept as it is; else it is a JSON list of the join keys."""
    every: str
    """All rows whose key and event time are there, as ``FROM ... WHERE ...``; columns by the source's own names."""
    key: str
    """The key in the source's columns."""
    types: Mapping[str, str]
    """Feature to DuckDB's type of its column."""
    files: str
    """The files as a list in SQL."""

    @property
    def sql(self) -> str:
        """The latest row of each key: the very one that a pass takes, also among rows of equal times."""
        features = [f"{quote(self.view.columns[name])} AS {quote(name)}" for name in self.columns]
        stamp = f"{quote(self.view.timestamp_field)}::TIMESTAMPTZ AS event_timestamp"
        latest = ", ".join(f"{part} DESC" for part in self.hashed_columns.values())
        return (
            f"SELECT {', '.join([f'{self.key} AS key', *features, stamp])} {self.every} "
            f"QUALIFY row_number() OVER (PARTITION BY {self.key} ORDER BY {latest}) = 1"
        )

    def entity(self, key: str) -> dict[str, Any]:
        """The join keys and values that ``key`` stands for."""
        if self.text_key:
            return {self.view.join_keys[0]: key}
        try:
            values = json.loads(key)
        except ValueError:
            values = key
        if not isinstance(values, list):  # written when the join key was a text
            return {self.view.join_keys[0]: key}
        return dict(zip(self.view.join_keys, values, strict=True))

    @property
    def hashed_columns(self) -> dict[str, str]:
        """What a pass takes of each row, name to SQL: ``event`` and ``created`` in microseconds, hashes of features."""
        view = self.view
        events = f"epoch_us({quote(view.timestamp_field)}::TIMESTAMPTZ)"
        found = {"event": f"coalesce({events}, 0)"}
        if view.created_timestamp_column:
            created = f"epoch_us({quote(view.created_timestamp_column)}::TIMESTAMPTZ)"
            found["created"] = f"coalesce({created}, -9223372036854775808)"
        read = {(name, feature) for name, feature in (*TEXT_COLUMNS.values(), *PAYLOAD_COLUMNS.values())}
        for part, wanted in (("text", True), ("rest", False)):
            names = [name for name in self.columns if ((view.name, name) in read) is wanted]
            if names:
                found[part] = hashed((quote(view.columns[name]), self.types[name]) for name in names)
        return found


class Session:
    """One DuckDB connection and the passes that were made over it: each view is read once a session."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, folder: Path, clock: FileClock | None = None, *, rescan: bool = True
    ) -> None:
        self._con, self._folder = con, folder
        self.clock, self.rescan = clock, rescan
        self.seen = SeenFiles()
        self._asked: dict[str, str] = {}
        self.compared: dict[str, Compared] = {}
        """What scans found of views first, by the view's representation."""
        self.whole_rows: dict[str, WholeRows] = {}
        """Rows that were fetched, by the view's representation."""
        self._sources: dict[str, Source] = {}
        self._passes: dict[str, HashedView] = {}
        self._coming: dict[str, Future[HashedView]] = {}
        self._places = 0
        self._scratch = Scratch()

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        """Run SQL."""
        return self._con.execute(query, parameters)

    def register(self, name: str, table: pa.Table) -> None:
        """Make an Arrow table a relation called ``name``."""
        self._con.register(name, table)

    def unregister(self, name: str) -> None:
        """Forget the relation called ``name``."""
        self._con.unregister(name)

    def place(self, name: str) -> Path:
        """A path of its own in the session's folder."""
        self._places += 1
        return self._folder / f"{name}-{self._places}"

    def files(self, view: ViewDefinition) -> FileStates | None:
        """How the files of ``view`` were when it was first asked for; None where there are none."""
        self._asked[repr(view)] = view.source
        return self.seen.states(view.source)

    def file_counts(self) -> tuple[int, int]:
        """Of the views that were asked for: their files, and how many of these no pass went over."""
        asked = {name: self.seen.states(source) for name, source in self._asked.items()}
        counts = {name: states.files for name, states in asked.items() if states}
        return sum(counts.values()), sum(files for name, files in counts.items() if name not in self._passes)

    def source(self, view: ViewDefinition) -> Source:
        """The source of ``view``, as it was when it was first asked for."""
        name = repr(view)
        if name not in self._sources:
            passed = self._passes.get(name)
            self._sources[name] = passed.source if passed else view_source(self._con, view)
        return self._sources[name]

    def hashed(self, view: ViewDefinition) -> HashedView:
        """The rows of ``view`` as hashes, as they were when it was first asked for."""
        name = repr(view)
        if name not in self._passes:
            self.files(view)  # before the first row is read
            coming = self._coming.pop(name, None)
            self._passes[name] = self._come(coming, view) if coming else self._alone(view)
        return self._passes[name]

    def _come(self, coming: Future[HashedView], view: ViewDefinition) -> HashedView:
        """The pass of a thread; once more by itself where there was not enough memory for two."""
        import duckdb

        try:
            return coming.result()
        except duckdb.OutOfMemoryException:
            wait(self._coming.values())
            return self._alone(view)

    def _alone(self, view: ViewDefinition) -> HashedView:
        return self._pass(self._con, view, self.place("pass"))

    @contextmanager
    def ahead(self, views: Sequence[ViewDefinition]) -> Iterator[None]:
        """Let threads pass over ``views`` in this order while the block compares those that they have behind them."""
        cursors: SimpleQueue[duckdb.DuckDBPyConnection] = SimpleQueue()

        def work(view: ViewDefinition, path: Path) -> HashedView:
            cursor = cursors.get()
            try:
                return self._pass(cursor, view, path)
            finally:
                cursors.put(cursor)

        with ExitStack() as stack:
            opened = [stack.enter_context(self._cursor()) for _ in range(_PASSES)]
            for cursor in opened:
                cursors.put(cursor)
            readers = stack.enter_context(ThreadPoolExecutor(_PASSES))
            try:
                for view in views:
                    if (name := repr(view)) not in self._passes:
                        self.files(view)
                        self._coming[name] = readers.submit(work, view, self.place("pass"))
                yield
            except BaseException:
                for cursor in opened:
                    cursor.interrupt()
                raise
            finally:
                readers.shutdown(cancel_futures=True)
                done = {name: each for name, each in self._coming.items() if not each.cancelled()}
                self._passes |= {name: each.result() for name, each in done.items() if each.exception() is None}
                self._coming.clear()

    def _pass(self, con: duckdb.DuckDBPyConnection, view: ViewDefinition, path: Path) -> HashedView:
        return HashedView(con, view_source(con, view), path, self._scratch)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._con.cursor()
        try:
            cursor.execute(_SETTINGS)
            yield cursor
        finally:
            cursor.close()


@contextmanager
def connect(spill: Path | None = None, *, noting: bool = False, rescan: bool = False) -> Iterator[Session]:
    """A DuckDB session in UTC; its errors come out as one message naming what to do.

    :param spill: where what does not fit into memory lies meanwhile; None takes the system's temporary folder.
    :param noting: scans that find nothing note the files that they read (:mod:`materialize.settled`), and leave out
        those that are as they were noted.
    :param rescan: leave none out.
    """
    import duckdb

    with spill_folder(spill) as folder:
        con = duckdb.connect()
        try:
            con.execute(_SETTINGS)
            processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            con.execute(f"SET threads={min(_THREADS, processors)}")
            con.execute(f"SET memory_limit='{_MEMORY}'; SET temp_directory={quoted(folder / 'duckdb')}")
            yield Session(con, folder, file_clock(folder) if noting else None, rescan=rescan)
        except duckdb.OutOfMemoryException as error:
            raise PinfeatherError(
                f"DuckDB needs more than {_MEMORY} to read a source: {str(error).strip()}. Write the Parquet files "
                "with smaller row groups, of 100,000 rows or so."
            ) from error
        except duckdb.Error as error:
            raise PinfeatherError(
                f"A view's source cannot be read: {str(error).strip()}. Run `pinfeather aggregate` to write the "
                "sources again, or replace the file that is named."
            ) from error
        finally:
            con.close()


def hashed(columns: Iterable[tuple[str, str]]) -> str:
    """SQL of one 64-bit fingerprint over (SQL, type) columns; types are DuckDB's or Feast's.

    DuckDB's hash reads a text eight bytes at a time, and differences in the last of two eights often cancel: of texts
    that differ in two digits eight apart every tenth pair collides. So each text goes in once more, shifted by four.
    It also runs the items of neighbouring lists together and takes NULL, [] and [NULL] for the same, so the length of
    each list goes in beside it.
    """
    parts: list[str] = []
    for sql, kind in columns:
        inner, is_list = kind.removesuffix("[]").removesuffix("_list"), kind.endswith(("[]", "_list"))
        parts += [sql, f"len({sql})"] if is_list else [sql]
        if _FIXED.match(inner):
            continue
        if inner in ("BLOB", "bytes") and not is_list:
            parts.append(f"'####'::BLOB || {sql}")
        elif inner in ("VARCHAR", "string"):
            parts.append(f"'####' || array_to_string({sql}, chr(31))" if is_list else f"'####' || {sql}")
        else:
            parts.append(f"'####' || {sql}::VARCHAR")
    return f"hash({', '.join(parts)})"


def quote(name: str) -> str:
    """A column name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def view_source(con: Any, view: ViewDefinition) -> Source:
    """The rows of ``view`` in SQL.

    :raises PinfeatherError: if the source has no file, or lacks a column that the view names.
    """
    files = _files(view.source)
    if not files:
        raise PinfeatherError(
            f"Feature view {view.name} has no source file ({view.source or 'not a Parquet file source'}): "
            "run `pinfeather aggregate` first. Sources other than Parquet are not scanned yet."
        )
    described = con.execute(f"DESCRIBE SELECT * FROM read_parquet({files}, {_PLAIN})").fetchall()
    types = {row[0]: row[1] for row in described}
    stamps = [name for name in (view.timestamp_field, view.created_timestamp_column) if name]
    if missing := [name for name in (*view.columns.values(), *stamps) if name not in types]:
        raise PinfeatherError(
            f"The source of feature view {view.name} ({view.source}) has no column {missing[0]!r}; it has "
            f"{sorted(types)}. Run `pinfeather aggregate`, which writes Pinfeather's own sources; of another "
            "view correct the definition or the file, then `pinfeather apply`."
        )
    keys = [quote(view.columns[key]) for key in view.join_keys]
    text_key = len(keys) == 1 and types[view.columns[view.join_keys[0]]] == "VARCHAR"
    key = keys[0] if text_key else f"to_json([{', '.join(f'to_json({name})' for name in keys)}])::VARCHAR"
    present = " AND ".join(f"{name} IS NOT NULL" for name in (*keys, quote(view.timestamp_field)))
    every = f"FROM read_parquet({files}, {_PLAIN}) WHERE {present}"
    kinds = {name: types[view.columns[name]] for name in view.features}
    return Source(view, tuple(view.features), text_key, every, key, kinds, files)


def _files(source: str) -> str:
    """The files behind a path or a pattern in its last part, as a list in SQL; empty where there is none."""
    found = source_files(source)
    return f"[{', '.join(quoted(file) for file in found)}]" if found else ""
