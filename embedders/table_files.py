"""Reads a file that people bring: a table as Parquet, or as text with commas or tabs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.errors import PinfeatherError

if TYPE_CHECKING:
    import pyarrow as pa

_PARQUET = (".parquet", ".pq")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_table_file(path: Path, of: str, columns: str, guessed: Collection[str] = ()) -> pa.Table:
    """The whole file. Columns of a CSV are texts, so that an id such as 007 stays one; an empty cell is null.

    :param of: what a row is, for the messages: ``pairs``.
    :param columns: what is expected in the header row, for the messages.
    :param guessed: columns of a CSV, in lower case, whose type is that of their values.
    :raises PinfeatherError: if there is no such file, or it cannot be read, or its name ends in something else.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise PinfeatherError(f"{path} does not exist or is no file: give a .parquet or .csv file of {of}.")
    ending = path.suffix.lower()
    try:
        if ending in _PARQUET:
            return pyarrow.parquet.read_table(path)
        if ending in _DELIMITERS:
            parsing = pyarrow.csv.ParseOptions(delimiter=_DELIMITERS[ending], newlines_in_values=True)
            names = pyarrow.csv.open_csv(path, parse_options=parsing).schema.names
            as_text = dict.fromkeys((name for name in names if name.strip().lower() not in guessed), pa.string())
            converting = pyarrow.csv.ConvertOptions(column_types=as_text, null_values=[""], strings_can_be_null=True)
            return pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=converting)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PinfeatherError(
            f"{path} cannot be read as {path.suffix[1:]} ({error}). Expected a Parquet file, or a CSV in UTF-8 with a "
            f"header row: {columns}."
        ) from error
    raise PinfeatherError(f"{path} ends in {path.suffix or 'nothing'}: allowed are .parquet, .pq, .csv and .tsv.")
