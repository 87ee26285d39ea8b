"""What the sources hold now, beside what the ledger says was written: raw fingerprints, vectorised in DuckDB.

Only rows whose raw fingerprint differs leave the database engine; they are canonicalised and compared again. Among rows
of one key the latest (event_timestamp, created_timestamp) wins, as in Feast.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feature_repo.aggregates.session import quoted
from feature_repo.errors import PinfeatherError
from feature_repo.lexical import LEXICAL_VERSION
from feature_repo.paths import RepoPaths
from feature_repo.text import TEXT_VERSION
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.stores.points import IndexKind

if TYPE_CHECKING:
    import duckdb

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

PAYLOAD_COLUMNS: Mapping[str, tuple[str, str]] = {
    "lang": ("pin_text", "lang"),
    "country": ("pin_text", "country"),
    "created_at": ("pin_text", "created_at"),
}
"""Filterable payload of a vector to (view, feature)."""

PAYLOAD_INDEXES: Mapping[str, IndexKind] = {"lang": "keyword", "country": "keyword", "created_at": "integer"}
"""How each of them is indexed."""

BATCH_ROWS = 4096

SCAN_VERSION = 1
"""Bumped when :func:`hashed` changes."""

WRITTEN = "_written_event_timestamp"
"""Column of a changed row: event timestamp of the row that was written last, null for a new one."""


CREATED = "_created_timestamp"
"""Column of a row: when it was made, null where the source does not say. No part of its fingerprint."""


@dataclass(frozen=True)
class Source:
    """A view's rows as one SQL relation: ``key``, its columns by feature name, ``event_timestamp``."""

    view: ViewDefinition
    sql: str
    columns: tuple[str, ...]
    text_key: bool
    """True where the key is one join key of text, kept as it is; else it is a JSON list of the join keys."""

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


@contextmanager
def connect() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection in UTC; its errors come out as one message naming what to do."""
    import duckdb

    con = duckdb.connect()
    try:
        con.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
        yield con
    except duckdb.Error as error:
        raise PinfeatherError(
            f"A view's source cannot be read: {str(error).strip()}. Run `pinfeather aggregate` to write the sources "
            "again, or replace the file that is named."
        ) from error
    finally:
        con.close()


def held_pins(paths: RepoPaths) -> frozenset[str]:
    """Pins of the snapshot whose row `validate` rejected: they keep what was written of them last."""
    rejected, valid = paths.rejected / "pins.parquet", paths.valid / "pins.parquet"
    if not rejected.is_file():
        return frozenset()
    accepted = f"WHERE pin_id NOT IN (SELECT pin_id FROM {quoted(valid)})" if valid.is_file() else ""
    with connect() as con:
        rows = con.execute(f"SELECT pin_id::VARCHAR FROM {quoted(rejected)} {accepted}").fetchall()
    return frozenset(pin_id for (pin_id,) in rows if pin_id)


def raw_engine() -> str:
    """What the raw fingerprints depend on besides the rows: engine, hashing here, tokens, canonical text.

    Where it differs from what the ledger notes, no raw fingerprint is believed and every row is canonicalised.
    """
    import duckdb

    return f"duckdb-{duckdb.__version__}/scan-{SCAN_VERSION}/lexical-{LEXICAL_VERSION}/text-{TEXT_VERSION}"


def hashed(columns: Iterable[tuple[str, str]]) -> str:
    """SQL of one 64-bit fingerprint over (SQL, type) columns.

    DuckDB's hash runs the items of neighbouring lists together and takes NULL, [] and [NULL] for the same, so the
    length of each list goes in beside it.
    """
    parts = [part for sql, kind in columns for part in ((sql, f"len({sql})") if kind.endswith("_list") else (sql,))]
    return f"hash({', '.join(parts)})"


def quote(name: str) -> str:
    """A column name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def view_source(con: duckdb.DuckDBPyConnection, view: ViewDefinition) -> Source:
    """The latest row of each key of ``view``.

    :raises PinfeatherError: if the source has no file, or lacks a column that the view names.
    """
    files = _files(view.source)
    if not files:
        raise PinfeatherError(
            f"Feature view {view.name} has no source file ({view.source or 'not a Parquet file source'}): "
            "run `pinfeather aggregate` first. Sources other than Parquet are not scanned yet."
        )
    described = con.execute(f"DESCRIBE SELECT * FROM read_parquet({files})").fetchall()
    types = {row[0]: row[1] for row in described}
    stamps = [name for name in (view.timestamp_field, view.created_timestamp_column) if name]
    if missing := [name for name in (*view.columns.values(), *stamps) if name not in types]:
        raise PinfeatherError(
            f"The source of feature view {view.name} ({view.source}) has no column {missing[0]!r}; it has "
            f"{sorted(types)}. Correct the view or the file, then `pinfeather apply`."
        )
    keys = [quote(view.columns[key]) for key in view.join_keys]
    text_key = len(keys) == 1 and types[view.columns[view.join_keys[0]]] == "VARCHAR"
    key = keys[0] if text_key else f"to_json([{', '.join(f'to_json({name})' for name in keys)}])::VARCHAR"
    features = [f"{quote(view.columns[name])} AS {quote(name)}" for name in view.features]
    present = " AND ".join(f"{name} IS NOT NULL" for name in (*keys, quote(view.timestamp_field)))
    latest = ", ".join(f"{quote(name)} DESC NULLS LAST" for name in stamps)
    created = quote(view.created_timestamp_column) if view.created_timestamp_column else "NULL"
    sql = (
        f"SELECT {key} AS key, {', '.join(features)}, {quote(view.timestamp_field)}::TIMESTAMPTZ AS event_timestamp, "
        f"{created}::TIMESTAMPTZ AS {CREATED} FROM read_parquet({files}) WHERE {present} "
        f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {latest}) = 1"
    )
    return Source(view, sql, tuple(view.features), text_key)


class FeatureScan:
    """The online rows of one feature view against its ledger: what to write, what to remove."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, view: ViewDefinition, ledger: pa.Table, held: frozenset[str]
    ) -> None:
        """Compare the source of ``view`` with the entries ``ledger``; rows of the pins ``held`` are never gone."""
        self.source = view_source(con, view)
        self._con = con
        con.register("ledger", ledger)
        raw = hashed([*((quote(name), view.features[name]) for name in self.source.columns), ("event_timestamp", "")])
        con.execute(f"CREATE OR REPLACE TEMP TABLE source AS SELECT *, {raw} AS raw FROM ({self.source.sql})")
        self.rows = _count(con, "source")
        self.changed = _count(con, f"({self._changed_sql()})")
        gone = con.execute(
            "SELECT l.key, l.event_timestamp FROM ledger l ANTI JOIN source USING (key) ORDER BY 1"
        ).fetchall()
        kept = held if view.join_keys == ("pin_id",) else frozenset[str]()
        self.gone = [key for key, _ in gone if key not in kept]
        self.gone_events = [event for key, event in gone if key not in kept]

    @staticmethod
    def _changed_sql() -> str:
        return (
            f"SELECT source.*, ledger.event_timestamp AS {WRITTEN} "
            "FROM source LEFT JOIN ledger ON source.key = ledger.key "
            "WHERE ledger.key IS NULL OR ledger.raw <> source.raw ORDER BY source.key"
        )

    def changes(self) -> Iterator[pa.RecordBatch]:
        """The rows to write, in key order.

        Each has ``key``, the features, ``event_timestamp``, :data:`CREATED`, ``raw`` and :data:`WRITTEN`.
        """
        yield from self._con.execute(self._changed_sql()).fetch_record_batch(BATCH_ROWS)


class PinScan:
    """The joined view rows of every pin against a space's ledger."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        definitions: RepoDefinitions,
        fields: Sequence[str],
        ledger: pa.Table,
        held: frozenset[str],
        *,
        trust_raw: bool,
    ) -> None:
        """Join the views behind ``fields`` and the payload; with ``trust_raw`` False every row is canonicalised.

        The pins ``held`` are never gone.
        """
        self._con = con
        wanted = {**{field: TEXT_COLUMNS[field] for field in fields}, **PAYLOAD_COLUMNS}
        names = [PIN_VIEW, *sorted({view for view, _ in wanted.values()} - {PIN_VIEW})]
        if missing := [name for name in names if name not in definitions.views]:
            raise PinfeatherError(
                f"The registry has no feature view {missing[0]!r}, which the pin text reads; it has "
                f"{sorted(definitions.views)}. Add it to definitions.py and run `pinfeather apply`."
            )
        for name, (view, feature) in wanted.items():
            if feature not in definitions.views[view].features:
                raise PinfeatherError(
                    f"Feature view {view} has no feature {feature!r}, which the pin text's {name} reads; it has "
                    f"{sorted(definitions.views[view].features)}. Add it and run `pinfeather apply`."
                )
        joins = []
        for name in names:
            joins.append(f"({view_source(con, definitions.views[name]).sql}) AS {quote(name)}")
        tables = joins[0] + "".join(f" LEFT JOIN {join} USING (key)" for join in joins[1:])
        columns = ", ".join(
            f"{quote(view)}.{quote(feature)} AS {quote(name)}" for name, (view, feature) in wanted.items()
        )
        views = definitions.views
        raw = hashed([(f"{quote(view)}.{quote(name)}", views[view].features[name]) for view, name in wanted.values()])
        latest = ", ".join(f"{quote(name)}.event_timestamp" for name in names)
        con.register("ledger", ledger)
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE pins AS SELECT key, {columns}, {raw} AS raw, "
            f"greatest({latest}) AS event_timestamp FROM {tables}"
        )
        self._differs = "ledger.key IS NULL OR ledger.raw <> pins.raw" if trust_raw else "true"
        self.rows = _count(con, "pins")
        self.known = ledger.num_rows
        gone = con.execute(
            "SELECT l.key, l.text_fp IS NOT NULL, l.event_timestamp FROM ledger l ANTI JOIN pins USING (key) ORDER BY 1"
        ).fetchall()
        self.gone = [(key, had_vector, event) for key, had_vector, event in gone if key not in held]
        self.held = len(gone) - len(self.gone)
        unchanged = con.execute(
            f"SELECT count(*), count(*) FILTER (ledger.text_fp IS NULL) FROM pins JOIN ledger USING (key) "
            f"WHERE NOT ({self._differs})"
        ).fetchone() or (0, 0)
        self.unchanged, self.still_empty = int(unchanged[0]), int(unchanged[1])

    def differing(self) -> Iterator[list[dict[str, Any]]]:
        """Rows whose raw fingerprint differs, in batches by key order, each with what the ledger knows of it."""
        reader = self._con.execute(
            "SELECT pins.*, ledger.key IS NOT NULL AS known, ledger.text_fp, ledger.payload_fp, "
            "ledger.event_timestamp AS old_event "
            f"FROM pins LEFT JOIN ledger ON pins.key = ledger.key WHERE {self._differs} ORDER BY pins.key"
        ).fetch_record_batch(BATCH_ROWS)
        for batch in reader:
            yield batch.to_pylist()


def _files(source: str) -> str:
    """The files behind a path or a pattern in its last part, as a list in SQL; empty where there is none."""
    path = Path(source) if source else None
    if path is None:
        return ""
    found = sorted(path.parent.glob(path.name)) if glob.has_magic(path.name) else [path] if path.is_file() else []
    return f"[{', '.join(quoted(file) for file in found)}]" if found else ""


def _count(con: duckdb.DuckDBPyConnection, relation: str) -> int:
    return int((con.execute(f"SELECT count(*) FROM {relation}").fetchone() or (0,))[0])
