"""Import of the CrowdFlower "Search Results Relevance" set (Kaggle, 2015): pins and judgments, no logs."""

from __future__ import annotations

import html
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import xxhash

from feature_repo.errors import PinfeatherError
from feature_repo.text import normalise

if TYPE_CHECKING:
    import pyarrow as pa

LEVEL_OF: Mapping[float, int] = {1: 1, 2: 2, 3: 4, 4: 5}
"""Five-level meaning of the set's median relevance; the set has no middle, so level 3 never occurs."""
ANNOTATOR = "crowdflower-median"
GUIDELINE = "crowdflower-2015"
PUBLISHED = datetime(2015, 5, 11, tzinfo=UTC)
"""The time all rows get: the start of the competition. The set itself carries no times."""

HELP = """\
Import the CrowdFlower "Search Results Relevance" set: real shopping queries, products, graded by people.

PATH is the set as published (train.csv, or train.csv.zip, of the Kaggle competition of 2015,
https://www.kaggle.com/c/crowdflower-search-relevance/data; columns id, query, product_title, product_description,
median_relevance, relevance_variance) or a Parquet file with query, title, description_text and median_relevance.
The set is not part of Pinfeather and is used under the rules of the competition: check them before you pass it on.

Each distinct (title, description) becomes a pin, each row a judgment. Labels are medians of at least three raters,
1 (irrelevant) to 4 (perfect), and map to five levels as 1 to 1, 2 to 2, 3 to 4, 4 to 5; no row has level 3. Markup in
descriptions is removed.
"""

_COLUMNS = {
    "query": ("query",),
    "title": ("product_title", "title"),
    "description": ("product_description", "description_text", "description_raw", "description"),
    "relevance": ("median_relevance",),
}
_TAG = re.compile(r"<[^>]*>")
_SKIPPED_TAGS = frozenset({"script", "style"})


def import_crowdflower(path: Path, repo_raw: Path) -> dict[str, int]:
    """Write ``pins/crowdflower.parquet`` and ``judgments/crowdflower.parquet`` into ``repo_raw``.

    Importing twice replaces the same two files. Gives ``pins``, ``judgments``, ``queries`` and ``skipped`` (rows
    without query or without any text) back.

    :raises PinfeatherError: if the file cannot be read, has no rows, lacks a column or has an unknown relevance; or
        if ``repo_raw`` holds another catalogue.
    """
    path = Path(path)
    table = _read(path)
    _must_be_alone(repo_raw)
    found = _find_columns(path, table.column_names)
    if not table.num_rows:
        raise PinfeatherError(f"{path} has columns but no rows. Expected the published train.csv with 10,158 rows.")
    columns = {name: table.column(column).to_pylist() for name, column in found.items()}
    pins: dict[str, dict[str, Any]] = {}
    judgments: list[dict[str, Any]] = []
    for row in range(table.num_rows):
        query = normalise(_text(columns["query"][row]))
        title, description = plain_text(columns["title"][row]), plain_text(columns["description"][row])
        level = _level(path, row, columns["relevance"][row])
        if not query or not (title or description):
            continue
        pin_id = "cf-" + xxhash.xxh3_64_hexdigest(f"{title}\x1f{description}".encode())
        pins.setdefault(pin_id, _pin(pin_id, title, description))
        judgments.append(_judgment(query, pin_id, level))
    _write(repo_raw, "pins", list(pins.values()))
    _write(repo_raw, "judgments", judgments)
    return {
        "pins": len(pins),
        "judgments": len(judgments),
        "queries": len({row["query"] for row in judgments}),
        "skipped": table.num_rows - len(judgments),
    }


def plain_text(markup: Any) -> str:
    """``markup`` without tags, scripts, styles and comments, entities resolved, whitespace folded."""
    text = _text(markup)
    if "<" not in text and "&" not in text:
        return normalise(text)
    reader = _TextOnly()
    try:
        reader.feed(text)
        reader.close()
    except AssertionError:  # the parser's answer to a broken declaration such as "<![x"
        return normalise(html.unescape(_TAG.sub(" ", text)))
    return normalise("".join(reader.parts))


class _TextOnly(HTMLParser):
    """Collects the text between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipping = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag separates words; scripts and styles are left out up to their end."""
        self.parts.append(" ")
        if tag in _SKIPPED_TAGS:
            self._skipping = tag

    def handle_endtag(self, tag: str) -> None:
        """As :meth:`handle_starttag`."""
        self.parts.append(" ")
        if tag == self._skipping:
            self._skipping = ""

    def handle_data(self, data: str) -> None:
        """Text outside scripts and styles."""
        if not self._skipping:
            self.parts.append(data)


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet

    if not path.is_file():
        raise PinfeatherError(f"{path} does not exist or is no file. Give train.csv, train.csv.zip or a Parquet file.")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            return pyarrow.parquet.read_table(path)
        if kind == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith("train.csv")]
                if not names:
                    raise PinfeatherError(f"{path} holds no train.csv but {archive.namelist()[:5]}.")
                with archive.open(names[0]) as stream:
                    return _read_csv(stream)
        if kind == ".csv":
            with path.open("rb") as stream:
                return _read_csv(stream)
    except (pa.ArrowException, OSError, zipfile.BadZipFile, ValueError) as error:
        raise PinfeatherError(
            f"{path} cannot be read ({error}). Expected the competition's train.csv (UTF-8, with a header row), "
            "train.csv.zip, or a Parquet file of it."
        ) from error
    raise PinfeatherError(f"{path} ends in {kind or 'nothing'}: allowed are .csv, .zip and .parquet.")


def _read_csv(stream: IO[bytes]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv

    text = dict.fromkeys((name for names in _COLUMNS.values() for name in names), pa.string())
    return pyarrow.csv.read_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=1 << 24),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=text),
    )


def _find_columns(path: Path, names: list[str]) -> dict[str, str]:
    found = {name: next((each for each in allowed if each in names), "") for name, allowed in _COLUMNS.items()}
    missing = [" or ".join(_COLUMNS[name]) for name, column in found.items() if not column]
    if missing:
        raise PinfeatherError(
            f"{path} has no column {'; no column '.join(missing)}. Found: {', '.join(names) or 'no columns'}. Expected "
            "the labelled train.csv: id, query, product_title, product_description, median_relevance, "
            "relevance_variance (test.csv has no labels)."
        )
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _level(path: Path, row: int, value: Any) -> int:
    try:
        return LEVEL_OF[float(value)]
    except (TypeError, ValueError, KeyError) as error:
        raise PinfeatherError(
            f"{path}, row {row + 1}: median_relevance {value!r} is not one of 1, 2, 3, 4. Is this the published file?"
        ) from error


def _pin(pin_id: str, title: str, description: str) -> dict[str, Any]:
    texts = {"title": title or None, "description": description or None}
    nothing = dict.fromkeys(("link_url", "link_title", "link_description", "image_uri", "image_sha256"))
    times = {"created_at": PUBLISHED, "event_timestamp": PUBLISHED}
    return {"pin_id": pin_id, **texts, **nothing, "lang": "en", "country": None, **times}


def _judgment(query: str, pin_id: str, level: int) -> dict[str, Any]:
    return {
        "query": query,
        "pin_id": pin_id,
        "level": level,
        "annotator": ANNOTATOR,
        "lang": "en",
        "guideline_version": GUIDELINE,
        "event_timestamp": PUBLISHED,
    }


def _must_be_alone(repo_raw: Path) -> None:
    """Refuse to mix the set into another catalogue.

    :raises PinfeatherError: if the tables hold files that are not of this importer.
    """
    for name in ("pins", "judgments"):
        others = [file.name for file in (Path(repo_raw) / name).glob("*.parquet") if file.name != "crowdflower.parquet"]
        if others:
            raise PinfeatherError(
                f"{Path(repo_raw) / name} holds another catalogue already ({others[0]}): name a new folder, or remove "
                "it; nothing was written."
            )


def _write(repo_raw: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """The rows as one Parquet file of the raw table; the name appears only with the whole file."""
    import pyarrow as pa
    import pyarrow.parquet

    times = {"created_at", "event_timestamp"}
    kinds = {"level": pa.int64(), **dict.fromkeys(times, pa.timestamp("us", tz="UTC"))}
    example = rows[0] if rows else {}
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in example])
    folder = Path(repo_raw) / name
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".crowdflower.parquet.tmp"
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), temporary)
    temporary.replace(folder / "crowdflower.parquet")
