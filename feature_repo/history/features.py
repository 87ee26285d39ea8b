"""Labels joined with the features of their time, by Feast's historical retrieval over the snapshots.

For every label the rows of its snapshot become history rows stamped with the snapshot's time; where a snapshot has no
row for a key, the history has one with nothing but nulls and ``found`` false, so that an older row cannot live on.
Feast then takes, for each label, the latest row before it. The views are those of the repository with the feature
``found`` added; they live in a registry of their own that is thrown away.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.aggregates import VIEW_SCHEMAS, Resources
from feature_repo.aggregates.schemas import TIMESTAMP
from feature_repo.aggregates.session import parquet
from feature_repo.feast_import import import_feast
from feature_repo.history.snapshots import NAMELESS
from feature_repo.history.tables import connected, pins_sql, plain_path
from feature_repo.leftovers import scratch_folder
from feature_repo.paths import RepoPaths

if TYPE_CHECKING:
    import duckdb

TEXT_VIEWS = ("pin_text", "pin_link_text", "pin_captions", "pin_relevance")
"""Views that are not known of a pin whose past text is not known."""

MASKED_REASONS = {
    "before_data": "no table has a row as early as the label's snapshot",
    "pin_unknown": "the pin is not in the pins table (never was, gone, or erased)",
    "pin_deleted": "the pin was deleted by then",
    "pin_unborn": "the pin was not there yet",
    "text_unknown": "the pin was there, but was edited since and its text of then was not kept",
}
"""Why the pin features, or the text, of a label are null."""

JOINED_TYPES = {
    "string": "String",
    "bytes": "Bytes",
    "bool": "Bool",
    "int32": "Int32",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
    "unix_timestamp": "UnixTimestamp",
}
"""Types of features that can be joined, by the registry's name, and what Feast's Python calls them."""

_TIMES = ("event_timestamp", "created_timestamp")
_NAMED = ", filename = true"


@dataclass(frozen=True)
class EmbeddingLog:
    """An embedding view whose own log is its history: rows count from the time they were written."""

    view: str
    source: str
    """Path or glob of Parquet files."""
    keys: tuple[str, ...]
    features: Mapping[str, str]
    """Name to type, one of :data:`JOINED_TYPES` or a list of it (``float32_list``)."""
    timestamp_field: str
    created_timestamp_column: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Column of the source to key or feature, where they differ."""

    @property
    def there(self) -> bool:
        """Whether its log has a file yet."""
        return bool(glob.glob(self.source))


class FeatureHistory:
    """The snapshots of a repository, ready to be joined; :meth:`join` may be called for one batch after the other.

    :param folders: snapshots by their time in microseconds.
    """

    def __init__(
        self,
        paths: RepoPaths,
        folders: Mapping[int, Path],
        embeddings: Sequence[EmbeddingLog] = (),
        resources: Resources | None = None,
    ) -> None:
        self._paths, self._folders = paths, folders
        self._embeddings = embeddings
        self._resources = resources or Resources()

    def join(self, labels: pa.Table) -> pa.Table:
        """One row for each label, in the order of ``row``: ``row``, ``masked`` and the features of every view.

        :param labels: ``row`` (int64, unique), ``query`` (canonical), ``pin_id``, ``label_time`` and ``snapshot_time``
            (null where there is no snapshot).
        """
        used = [moment for moment in pc.unique(labels["snapshot_time"]).cast(pa.int64()).to_pylist() if moment]
        with (
            connected(self._paths, self._resources) as con,
            scratch_folder(self._paths.data, "join") as scratch,
        ):
            views = scratch / "data" / "views"
            views.mkdir(parents=True)
            self._load(con, labels, used)
            for view in VIEW_SCHEMAS:
                self._write_history(con, view, used, views / f"{view}.parquet")
            reasons = con.execute(self._reasons_sql(used)).fetch_arrow_table()
            with ExitStack() as linked:
                folder = linked.enter_context(plain_path(scratch))
                logs = [_reachable(log, linked) for log in self._embeddings]
                joined = _retrieve(folder, labels, logs)
        joined = joined.sort_by("row").drop_columns(["query", "pin_id", "event_timestamp"])
        for log in self._embeddings:
            there = pc.is_valid(joined[f"{log.view}__{next(iter(log.features))}"])
            joined = joined.append_column(f"{log.view}__found", there)
        return joined.add_column(1, "masked", reasons.sort_by("row")["masked"].combine_chunks())

    def _load(self, con: duckdb.DuckDBPyConnection, labels: pa.Table, used: Sequence[int]) -> None:
        """Tables ``labels``, ``needed`` (distinct keys and snapshots), ``folders`` and ``nameless``."""
        con.register("given", labels)
        con.execute(
            """CREATE TEMP TABLE labels AS SELECT row, query, pin_id, epoch_us(snapshot_time) AS s FROM given;
               CREATE TEMP TABLE needed AS SELECT DISTINCT query, pin_id, s FROM labels WHERE s IS NOT NULL"""
        )
        con.unregister("given")
        folders = pa.table(
            {"s": pa.array(used, pa.int64()), "folder": pa.array([str(self._folders[s]) for s in used], pa.string())}
        )
        con.register("given", folders)
        con.execute("CREATE TEMP TABLE folders AS SELECT * FROM given")
        con.unregister("given")
        files = [self._folders[moment] / NAMELESS for moment in used]
        source = parquet(files, _NAMED) if files else "(SELECT '' pin_id, '' filename)"
        con.execute(
            f"""CREATE TEMP TABLE nameless AS SELECT DISTINCT n.pin_id, f.s FROM {source} n
                JOIN folders f ON n.filename = f.folder || '/{NAMELESS}' SEMI JOIN needed USING (pin_id)"""
        )

    def _write_history(self, con: duckdb.DuckDBPyConnection, view: str, used: Sequence[int], out: Path) -> None:
        """Writes the history rows of one view: exactly one for each needed key and snapshot."""
        schema = history_schema(view)
        if not used:
            pq.write_table(schema.empty_table(), out)
            return
        keys = [name for name in ("query", "pin_id") if name in schema.names]
        features = [name for name in schema.names if name not in (*keys, "found", *_TIMES)]
        files = [self._folders[moment] / f"{view}.parquet" for moment in used]
        known = "AND h.pin_id IS NULL" if view in TEXT_VIEWS else ""
        hidden = "LEFT JOIN nameless h ON h.pin_id = n.pin_id AND h.s = n.s" if view in TEXT_VIEWS else ""
        found = f"(v.{keys[-1]} IS NOT NULL {known})"
        same = " AND ".join(f"v.{key} = n.{key}" for key in keys)
        reader = con.execute(
            f"""SELECT {", ".join(f"n.{key}" for key in keys)},
                  {", ".join(f'CASE WHEN {found} THEN v."{name}" END AS "{name}"' for name in features)},
                  {found} AS found, n.s AS event_timestamp, n.s AS created_timestamp
                FROM (SELECT DISTINCT {", ".join(keys)}, s FROM needed) n JOIN folders f ON f.s = n.s
                LEFT JOIN {parquet(files, _NAMED)} v
                  ON {same} AND v.filename = f.folder || '/{view}.parquet' {hidden}"""
        ).fetch_record_batch(65_536)
        with pq.ParquetWriter(out, schema) as writer:
            for batch in reader:
                ordered = [batch.column(name).cast(schema.field(name).type) for name in schema.names]
                writer.write_batch(pa.RecordBatch.from_arrays(ordered, schema=schema))

    def _reasons_sql(self, used: Sequence[int]) -> str:
        """SQL of (row, masked); the order of the conditions is that of the reasons."""
        files = [self._folders[moment] / "pin_text.parquet" for moment in used]
        texts = parquet(files, _NAMED) if used else "(SELECT '' AS pin_id, '' AS filename)"
        return f"""SELECT l.row, CASE
              WHEN l.s IS NULL THEN 'before_data'
              WHEN p.pin_id IS NULL THEN 'pin_unknown'
              WHEN epoch_us(p.deleted_at) <= l.s THEN 'pin_deleted'
              WHEN h.pin_id IS NOT NULL THEN 'text_unknown'
              WHEN t.pin_id IS NULL THEN 'pin_unborn' END AS masked
            FROM labels l LEFT JOIN folders f USING (s)
              LEFT JOIN (SELECT pin_id, deleted_at FROM {pins_sql(self._paths)}) p ON p.pin_id = l.pin_id
              LEFT JOIN nameless h ON h.pin_id = l.pin_id AND h.s = l.s
              LEFT JOIN {texts} t ON t.pin_id = l.pin_id AND t.filename = f.folder || '/pin_text.parquet'"""


def history_schema(view: str) -> pa.Schema:
    """Columns of a view's history: those of its source, and ``found`` before the two times."""
    schema = VIEW_SCHEMAS[view]
    return schema.insert(len(schema) - len(_TIMES), pa.field("found", pa.bool_()))


def _reachable(log: EmbeddingLog, linked: ExitStack) -> EmbeddingLog:
    source = Path(log.source)
    return replace(log, source=str(linked.enter_context(plain_path(source.parent)) / source.name))


def _retrieve(folder: Path, labels: pa.Table, embeddings: Sequence[EmbeddingLog]) -> pa.Table:
    """Feast's ``get_historical_features`` for the views under ``folder/data/views``."""
    import_feast()
    from feast import FeatureStore, FeatureView, Field, RepoConfig
    from feast.types import Bool

    from feature_repo.entities import pin, query
    from feature_repo.objects import feast_objects

    objects = feast_objects(folder)
    entities = {"pin": pin, "query": query}
    views = []
    for name in VIEW_SCHEMAS:
        view = objects[name]
        known = [entities[entity] for entity in view.entities]
        schema = [*view.schema, Field(name="found", dtype=Bool)]
        views.append(FeatureView(name=name, entities=known, schema=schema, source=view.batch_source, online=False))
    views += [_log_view(log, entities) for log in embeddings]
    config = RepoConfig(
        project="history",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([pin, query, *views])
    # A row of the label's own microsecond is no history: Feast takes rows up to the time it is given.
    before = pc.subtract(labels["label_time"].cast(pa.int64()), 1).cast(TIMESTAMP)
    asked = pa.table(
        {"row": labels["row"], "query": labels["query"], "pin_id": labels["pin_id"], "event_timestamp": before}
    )
    order = [f"{view.name}:{field.name}" for view in views for field in view.features]
    # By the time of writing, too: a log's row may be about an earlier time than it was known at.
    job = store.get_historical_features(
        asked.to_pandas(), order, full_feature_names=True, filter_by_created_timestamp=True
    )
    found = job.to_arrow()
    columns = [name for view in VIEW_SCHEMAS for name in _feature_columns(view)]
    columns += [f"{log.view}__{name}" for log in embeddings for name in log.features]
    return found.select(["row", "query", "pin_id", "event_timestamp", *columns])


def _feature_columns(view: str) -> list[str]:
    """Columns of a view in a training set: its features in the order of its schema, then whether it was found."""
    names = [name for name in history_schema(view).names if name not in ("query", "pin_id", *_TIMES)]
    return [f"{view}__{name}" for name in names]


def _log_view(log: EmbeddingLog, entities: Mapping[str, Any]) -> Any:
    """The Feast view over an embedding's own log."""
    from feast import FeatureView, Field, FileSource, types
    from feast.data_format import ParquetFormat

    schema = []
    for name, kind in log.features.items():
        scalar = getattr(types, JOINED_TYPES[kind.removesuffix("_list")])
        schema.append(Field(name=name, dtype=types.Array(scalar) if kind.endswith("_list") else scalar))
    return FeatureView(
        name=log.view,
        entities=[entities[{"pin_id": "pin", "query": "query"}[key]] for key in log.keys],
        schema=schema,
        source=FileSource(
            name=f"{log.view}_history",
            path=log.source,
            file_format=ParquetFormat(),
            timestamp_field=log.timestamp_field,
            created_timestamp_column=log.created_timestamp_column,
            field_mapping=dict(log.renamed),
        ),
        online=False,
    )
