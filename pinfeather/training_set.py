"""Training sets without leaks: labels, the features as they were before each, and the pin text of then.

What a label's row may know ends strictly before the label: features are those of the last snapshot before it, the
lexical statistics are fitted on the snapshot of the first label, and vectors are encoded from the text of then, never
read from the live space.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history import (
    FeatureHistory,
    HistoryOptions,
    history_lock,
    snapshot_time,
    snapshot_times,
    take_snapshots,
)
from feature_repo.history.features import JOINED_TYPES, EmbeddingLog
from feature_repo.history.grid import interval
from feature_repo.history.snapshots import NAMELESS, as_datetime
from feature_repo.lexical import LEXICAL_VERSION, LexicalStatistics
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields, PinTextTemplate
from feature_repo.screening import Screening
from feature_repo.text import TEXT_VERSION
from materialize.files import write_json
from materialize.releases import LIVE_EMBEDDING
from materialize.scan import TEXT_COLUMNS
from pinfeather import __version__
from pinfeather.label_sources import Labels
from pinfeather.training_vectors import TextVectors
from pinfeather.writable import check_writable

if TYPE_CHECKING:
    import pyarrow as pa

    from embedders.encoder import Encoder

FORMAT = 1
BATCH_ROWS = 50_000
"""Labels that are joined at a time."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, the steps done and the steps in all."""


@dataclass(frozen=True)
class TrainingSetOptions:
    """How a training set is made, beside its labels."""

    template: PinTextTemplate
    every_days: int = 1
    min_users: int = 2
    encoder: Encoder | None = None
    """Gives every row the vectors of its texts; None leaves them out."""
    batch_rows: int = BATCH_ROWS


@dataclass
class _Rows:
    """Turns labels into finished rows, batch by batch, and counts what the sidecar says of them."""

    past: FeatureHistory
    folders: Mapping[int, Path]
    every: int
    template: PinTextTemplate
    vectors: TextVectors | None
    rows: int = 0
    texts: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)

    def of(self, batch: pa.Table) -> pa.Table:
        """The rows of one batch of labels, in its order."""
        import pyarrow as pa

        asked = self._with_snapshots(batch)
        joined = self.past.join(asked)
        texts = list(_texts(joined, self.template))
        columns = {
            **{name: asked[name] for name in asked.column_names if name != "row"},
            "masked": joined["masked"],
            "pin_text": pa.array([text for text, _ in texts], pa.string()),
            "pin_text_fingerprint": pa.array([fingerprint for _, fingerprint in texts], pa.string()),
            **{name: joined[name] for name in joined.column_names if name not in ("row", "masked")},
        }
        if self.vectors:
            columns["pin_vector"] = self.vectors.pins([text for text, _ in texts])
            columns["query_vector"] = self.vectors.queries(batch["query"].to_pylist())
        self._count(joined, texts)
        return pa.table(columns)

    def _with_snapshots(self, batch: pa.Table) -> pa.Table:
        """Labels with the time of their snapshot, where there is one, and a number."""
        import pyarrow as pa

        from feature_repo.columns import TIMESTAMP

        moments = snapshot_times(batch["label_time"].cast("int64").to_numpy(), self.every).tolist()
        there = pa.array([moment if moment in self.folders else None for moment in moments], pa.int64())
        batch = batch.append_column("snapshot_time", there.cast(TIMESTAMP))
        return batch.append_column("row", pa.array(np.arange(len(batch))))

    def _count(self, joined: pa.Table, texts: list[tuple[str | None, str | None]]) -> None:
        import pyarrow.compute as pc

        self.rows += len(joined)
        self.texts += sum(text is not None for text, _ in texts)
        self.masked.update(reason for reason in joined["masked"].to_pylist() if reason)
        for name in joined.column_names:
            if name.endswith("__found"):
                self.found[name.removesuffix("__found")] += pc.sum(joined[name]).as_py() or 0


def check_out(out: Path, labels: Path | None = None) -> Path:
    """``out`` before anything is computed.

    :raises UsageError: if it does not end in .parquet, is a folder or lies in none, or is the file of labels.
    :raises PinfeatherError: if its folder cannot be written.
    """
    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: the name must end in .parquet.")
    if not out.resolve().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.resolve().parent}; make it first.")
    if labels is not None and labels.resolve() == out.resolve():
        raise UsageError(f"--out {out} is the file of labels itself, which would be overwritten: name another file.")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file in it.")
    check_writable("--out", out.resolve().parent)
    return out


def build_training_set(
    paths: RepoPaths, labels: Labels, out: Path, options: TrainingSetOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Write one row per label to ``out`` and what it is made of to ``<out>.json``, which is given back.

    The sidecar is written last. The same labels, tables and options give the same Parquet bytes.

    :raises PinfeatherError: without a label, or if another process is at the history.
    :raises ContractError: if valid tables are missing.
    """
    every = interval(options.every_days)
    _require_labels(labels)
    moments = labels.table["label_time"].cast("int64").to_numpy()
    embeddings, logs = embedding_logs(paths)
    with history_lock(paths):
        history = take_snapshots(
            paths,
            snapshot_times(moments, every).tolist(),
            HistoryOptions(every, options.min_users),
            _stage(progress, "snapshots"),
        )
        first = snapshot_time(int(moments.min()), every)
        statistics = LexicalStatistics.fit(_blobs(history.folders.get(first)))
        vectors = TextVectors(options.encoder) if options.encoder else None
        past = FeatureHistory(paths, history.folders, logs)
        rows = _Rows(past, history.folders, every, options.template, vectors)
        _write(out, labels.table, rows, options.batch_rows, _stage(progress, "labels"))
    digest = statistics.save(paths.lexical)
    note = {
        "format": FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "out": str(out),
        "source": labels.source,
        "rows": rows.rows,
        "rows_with_text": rows.texts,
        "left_out": dict(labels.left_out.most_common()),
        "masked": dict(rows.masked.most_common()),
        "found": dict(sorted(rows.found.items())),
        "first_label": as_datetime(int(moments.min())).isoformat(),
        "last_label": as_datetime(int(moments.max())).isoformat(),
        "every_days": options.every_days,
        "min_users": options.min_users,
        "snapshots": [as_datetime(moment).isoformat() for moment in sorted(history.folders)],
        "history": history.to_json(),
        "lexical": {
            "digest": digest,
            "as_of": as_datetime(first).isoformat(),
            "documents": int(statistics.documents[-1]),
            "lexical_version": LEXICAL_VERSION,
        },
        "template": {**options.template.to_json(), "fingerprint": options.template.fingerprint},
        "embeddings": embeddings,
        "vectors": vectors.to_json() if vectors else None,
        "versions": _versions(paths),
    }
    write_json(sidecar(out), note)
    return note


def _require_labels(labels: Labels) -> None:
    if not len(labels.table):
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in labels.left_out.most_common())
        raise PinfeatherError(
            f"There is no label in {labels.source} ({reasons or 'no rows'}): nothing was written. Give other labels, "
            "or other times by --since and --until."
        )


def sidecar(out: Path) -> Path:
    """Where the description of the training set ``out`` lies."""
    return out.with_name(f"{out.name}.json")


def embedding_logs(paths: RepoPaths) -> tuple[dict[str, str], list[EmbeddingLog]]:
    """What becomes of every embedding view of the registry, and those whose log is joined as of each label.

    A student's vectors are never joined: a training row gets the vector of its own text, from the model to be trained.
    Other embeddings come from their own log, by the time they were written.
    """
    from materialize.definitions import load_definitions

    said = {LIVE_EMBEDDING: "never joined: encode pin_text, which --vectors does"}
    logs: list[EmbeddingLog] = []
    views = load_definitions(paths).views if paths.registry.is_file() else {}
    for name, view in sorted(views.items()):
        if name.startswith(LIVE_EMBEDDING) or not (view.tags.get("kind") == "embedding" or view.vector_field):
            continue
        renamed = {column: new for new, column in view.columns.items() if column != new}
        log = EmbeddingLog(
            name,
            view.source,
            view.join_keys,
            view.features,
            view.timestamp_field,
            view.created_timestamp_column,
            renamed,
        )
        why = _unjoinable(log)
        said[name] = f"masked: {why}" if why else "joined from its log, rows written before the label"
        if not why:
            logs.append(log)
    return said, logs


def _unjoinable(log: EmbeddingLog) -> str:
    """Why an embedding cannot be joined as of a label; empty where it can."""
    if not log.keys or not set(log.keys) <= {"pin_id", "query"}:
        return f"a label has no {', '.join(log.keys) or 'key'}"
    if not log.created_timestamp_column:
        return "its source has no created_timestamp_column, so nobody knows when a row was written"
    if strange := [kind for kind in log.features.values() if kind.removesuffix("_list") not in JOINED_TYPES]:
        return f"a feature has type {strange[0]}"
    return "" if log.there else "its log has no file yet"


def _write(out: Path, labels: pa.Table, rows: _Rows, batch_rows: int, tell: Callable[[int, int], None]) -> None:
    """Writes the rows of all labels; ``out`` appears as a whole, after the sidecar of a former one has gone."""
    import pyarrow.parquet as pq

    part = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with ExitStack() as stack:
        stack.callback(part.unlink, missing_ok=True)
        writer: pq.ParquetWriter | None = None
        for start in range(0, len(labels), batch_rows):
            batch = labels.slice(start, batch_rows)
            table = rows.of(batch)
            with _writing(out):
                writer = writer or stack.enter_context(pq.ParquetWriter(part, table.schema, compression="zstd"))
                writer.write_table(table)
            tell(start + len(batch), len(labels))
        with _writing(out):
            if writer:
                writer.close()
            sidecar(out).unlink(missing_ok=True)
            os.replace(part, out)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PinfeatherError(f"Cannot write {out} ({error}): name a file in a folder that can be written.") from error


def _texts(joined: pa.Table, template: PinTextTemplate) -> Iterator[tuple[str | None, str | None]]:
    """Text and fingerprint of every row; null where the text of then is not known, or has no word."""
    columns = {name: joined[f"{view}__{feature}"].to_pylist() for name, (view, feature) in TEXT_COLUMNS.items()}
    known = joined["pin_text__found"].to_pylist()
    for number, there in enumerate(known):
        row = {name: values[number] for name, values in columns.items()}
        rendered = template.render(PinFields.from_row(row)) if there else None
        yield (rendered.text, rendered.fingerprint) if rendered and rendered.text else (None, None)


def _blobs(folder: Path | None) -> Iterator[bytes]:
    """Lexical blobs of the pins of a snapshot whose text is known; none without a snapshot."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if folder is None:
        return
    nameless = pq.read_table(folder / NAMELESS)["pin_id"].combine_chunks()
    with pq.ParquetFile(folder / "pin_relevance.parquet") as file:
        for batch in file.iter_batches(columns=["pin_id", "tokens"]):
            known = batch.filter(pc.invert(pc.is_in(batch["pin_id"], nameless)))
            yield from known["tokens"].to_pylist()


def _versions(paths: RepoPaths) -> Mapping[str, Any]:
    return {
        "pinfeather": __version__,
        "feast": version("feast"),
        "text": TEXT_VERSION,
        "lexical": LEXICAL_VERSION,
        "screening": Screening.load(paths.root).fingerprint,
    }


def _stage(progress: Progress | None, stage: str) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if progress:
            progress(stage, done, total)

    return tell
