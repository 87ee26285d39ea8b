"""What all importers of public sets share: reading published files, writing pins and judgments as raw tables."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.contracts import MAX_TEXT_CHARACTERS
from feature_repo.errors import PinfeatherError

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

_BATCH = 20_000
_TEXTS_OF_PINS = ("link_url", "link_title", "link_description", "image_uri", "image_sha256")


@dataclass(frozen=True)
class PublicSet:
    """A set as the raw tables name it."""

    name: str
    """Of its files: ``pins/<name>.parquet``, ``judgments/<name>.parquet``."""
    annotator: str
    guideline: str
    published: datetime
    """The time that all rows get: these sets carry none."""

    def pin(self, pin_id: str, title: str, description: str, lang: str = "en", country: str | None = None) -> Row:
        """A row of ``pins``; texts beyond what the contract holds are cut."""
        return {
            "pin_id": pin_id,
            "title": title[:MAX_TEXT_CHARACTERS] or None,
            "description": description[:MAX_TEXT_CHARACTERS] or None,
            **dict.fromkeys(_TEXTS_OF_PINS),
            "lang": lang,
            "country": country,
            "created_at": self.published,
            "event_timestamp": self.published,
        }

    def judgment(
        self,
        query: str,
        pin_id: str,
        level: int,
        mean: float | None = None,
        variance: float | None = None,
        lang: str = "en",
    ) -> Row:
        """A row of ``judgments``; mean and variance of the raters on the scale of levels, None where not published."""
        return {
            "query": query,
            "pin_id": pin_id,
            "level": level,
            "level_mean": mean,
            "level_variance": variance,
            "annotator": self.annotator,
            "lang": lang,
            "guideline_version": self.guideline,
            "event_timestamp": self.published,
        }


@dataclass(frozen=True)
class Form:
    """How a file is published."""

    columns: Mapping[str, tuple[str, ...]]
    """Our name of each column that is read, and the names it may have."""
    expected: str
    """The file in words, for errors."""
    member: str = "train.csv"
    """The file to take out of a zip archive."""
    delimiter: str = ","


def part(folder: Path, names: tuple[str, ...], wanted: str) -> Path:
    """The first of ``names`` that lies in ``folder``.

    :raises PinfeatherError: if there is none; ``wanted`` says what belongs there.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise PinfeatherError(f"{folder} is no folder with {' or '.join(names)}. Expected {wanted}.")
    return found


def read_rows(path: Path, form: Form) -> Iterator[tuple[int, Row]]:
    """Number, from 1, and values of each row of a .csv, .csv.zip or .parquet file; cells of CSV are text.

    CSV that is no UTF-8 is read as Latin-1, as Kaggle's older sets are published.

    :raises PinfeatherError: if the file cannot be read, lacks a column, or has no rows.
    """
    import pyarrow as pa

    number = 0
    try:
        for batch in _batches(path, form):
            found = _find_columns(path, form, batch.schema.names)
            columns = [batch.column(name).to_pylist() for name in found.values()]
            for values in zip(*columns, strict=True):
                number += 1
                yield number, dict(zip(found, values, strict=True))
    except (pa.ArrowException, OSError, zipfile.BadZipFile, UnicodeError, ValueError) as error:
        raise PinfeatherError(
            f"{path} cannot be read ({error}). Expected {form.expected}, as CSV with a header row, zipped, or Parquet."
        ) from error
    if not number:
        raise PinfeatherError(f"{path} has columns but no rows. Expected {form.expected}.")


def level_of(path: Path, number: int, column: str, value: Any, levels: Mapping[Any, int]) -> int:
    """The level that ``levels`` gives a label.

    :raises PinfeatherError: for a label that it does not have.
    """
    try:
        key = value if value in levels else float(value)
        return levels[key]
    except (TypeError, ValueError, KeyError) as error:
        raise PinfeatherError(
            f"{path}, row {number}: {column} {value!r} is not one of {', '.join(str(each) for each in levels)}. "
            "Is this the published file?"
        ) from error


def write_set(of: PublicSet, raw: Path, pins: Iterable[Row], judgments: Iterable[Row]) -> dict[str, int]:
    """Write both tables and count ``pins``, ``judgments`` and ``queries``; an error writes nothing.

    The pins are read to their end before the first judgment; writing a set again replaces its two files, one after the
    other: a process that is killed between them leaves the former judgments, so write it again then.

    :raises PinfeatherError: if ``raw`` holds another catalogue, or what the rows come from cannot be read.
    """
    _must_be_alone(of, raw)
    queries: set[str] = set()
    counts: dict[str, int] = {}
    made: list[Path] = []
    whole: dict[Path, Path] = {}
    try:
        for table, rows in (("pins", pins), ("judgments", _noting(judgments, queries))):
            folder = Path(raw) / table
            made += [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f".{of.name}.parquet.{os.getpid()}"
            whole[unfinished] = folder / f"{of.name}.parquet"
            counts[table] = _write(unfinished, _schema(table), rows)
        for unfinished, finished in whole.items():
            unfinished.replace(finished)
    except BaseException:
        for unfinished in whole:
            unfinished.unlink(missing_ok=True)
        for folder in sorted(made, key=lambda each: len(each.parts), reverse=True):
            folder.rmdir()
        raise
    return {**counts, "queries": len(queries)}


def _must_be_alone(of: PublicSet, raw: Path) -> None:
    """Refuse to mix the set into another catalogue.

    :raises PinfeatherError: if the tables hold files that are not of this set.
    """
    for table in ("pins", "judgments"):
        folder = Path(raw) / table
        others = [file.name for file in folder.glob("*.parquet") if file.name != f"{of.name}.parquet"]
        if others:
            raise PinfeatherError(
                f"{folder} holds another catalogue already ({others[0]}): name a new folder, or remove it; nothing was "
                "written."
            )


def _noting(judgments: Iterable[Row], queries: set[str]) -> Iterator[Row]:
    for row in judgments:
        queries.add(row["query"])
        yield row


def _schema(table: str) -> pa.Schema:
    import pyarrow as pa

    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    if table == "pins":
        texts = ("pin_id", "title", "description", *_TEXTS_OF_PINS, "lang", "country")
        return pa.schema([*((name, text) for name in texts), ("created_at", time), ("event_timestamp", time)])
    return pa.schema(
        [
            ("query", text),
            ("pin_id", text),
            ("level", pa.int64()),
            ("level_mean", pa.float64()),
            ("level_variance", pa.float64()),
            *((name, text) for name in ("annotator", "lang", "guideline_version")),
            ("event_timestamp", time),
        ]
    )


def _write(path: Path, schema: pa.Schema, rows: Iterable[Row]) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    written, source = 0, iter(rows)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(source, _BATCH)):
            writer.write_table(pa.Table.from_pylist(some, schema))
            written += len(some)
    return written


def _batches(path: Path, form: Form) -> Iterable[pa.RecordBatch]:
    import pyarrow.parquet

    if not path.is_file():
        raise PinfeatherError(f"{path} does not exist or is no file. Give {form.expected}.")
    kind = path.suffix.lower()
    if kind == ".parquet":
        file = pyarrow.parquet.ParquetFile(path)
        found = _find_columns(path, form, file.schema_arrow.names)  # the others are never read
        return file.iter_batches(_BATCH, columns=list(found.values()))
    if kind == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if Path(name).name.lower() == form.member]
            if not names:
                raise PinfeatherError(
                    f"{path} holds no {form.member} but {archive.namelist()[:5]}. Is this the published file?"
                )
            return _read_csv(path, form, archive.read(names[0]))
    if kind == ".csv":
        return _read_csv(path, form, path.read_bytes())
    raise PinfeatherError(f"{path} ends in {kind or 'nothing'}: allowed are .csv, .zip and .parquet.")


def _read_csv(path: Path, form: Form, content: bytes) -> list[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.csv

    text = dict.fromkeys((name for names in form.columns.values() for name in names), pa.string())
    try:
        content.decode()
    except UnicodeDecodeError:
        content = content.decode("latin-1").encode()
    table = pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(block_size=1 << 24),
        parse_options=pyarrow.csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=text),
    )
    _find_columns(path, form, table.column_names)  # a file without rows has no batches to look at
    batches: list[pa.RecordBatch] = table.to_batches()
    return batches


def _find_columns(path: Path, form: Form, names: list[str]) -> dict[str, str]:
    found = {name: next((each for each in allowed if each in names), "") for name, allowed in form.columns.items()}
    missing = [" or ".join(form.columns[name]) for name, column in found.items() if not column]
    if missing:
        raise PinfeatherError(
            f"{path} has no column {'; no column '.join(missing)}. Found: {', '.join(names) or 'no columns'}. Expected "
            f"{form.expected}."
        )
    return found
