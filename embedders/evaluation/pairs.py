"""Pairs of a query and a pin to train on, to score or to judge with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation.metrics import LEVELS, Floats, Ints
from embedders.evaluation.slices import COLUMNS, read_slices, read_teacher
from embedders.table_files import read_table_file
from embedders.targets import soft_targets
from feature_repo.errors import PinfeatherError
from feature_repo.lexical import encode_blob
from feature_repo.pin_text import FIELDS, LIST_FIELDS, PinFields

if TYPE_CHECKING:
    import pyarrow as pa

_BY_PAIR = ("pin_of", "levels", "teacher", "targets", "weights")
_BY_PIN = ("blobs", "pin_vectors", "click_rate", "save_rate", "pin_ids")


@dataclass(frozen=True, eq=False)
class PairSet:
    """n (query, pin) pairs over P distinct pins, in the order of their source.

    Vectors and rates that are not given are missing; vectors are then encoded from the fields.
    """

    name: str
    queries: tuple[str, ...]
    """n queries as they came."""
    pins: tuple[PinFields, ...]
    """P distinct pins."""
    pin_of: Ints
    """[n] number of each pair's pin."""
    levels: Ints | None = None
    """[n] judged levels 1..5."""
    blobs: tuple[bytes | None, ...] | None = None
    """P lexical blobs; made from the fields where None."""
    pin_vectors: NDArray[np.floating] | None = None
    """[P, d] vectors as stored, NaN rows missing; encoded from the fields where None."""
    click_rate: Floats | None = None
    """[P]"""
    save_rate: Floats | None = None
    """[P]"""
    source: str = ""
    """Where the pairs come from, for a bundle's manifest."""
    pin_ids: tuple[str, ...] | None = None
    """P ids of the pins, where they have some."""
    teacher: Floats | None = None
    """[n, 5] probabilities of a teacher; no judgment."""
    targets: Floats | None = None
    """[n, 5] what training aims at: soft levels of raters, or a teacher's."""
    weights: Floats | None = None
    """[n] how much each pair counts in training; None: all alike."""
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name of a slicing (:data:`embedders.evaluation.slices.SLICINGS`) to the n slices of the pairs."""

    def __post_init__(self) -> None:
        lengths: dict[str, tuple[Any, int]] = {name: (getattr(self, name), len(self.queries)) for name in _BY_PAIR}
        lengths |= {name: (values, len(self.queries)) for name, values in self.slices.items()}
        for name in _BY_PIN:
            lengths[name] = (getattr(self, name), len(self.pins))
        for name, (value, expected) in lengths.items():
            if value is not None and len(value) != expected:
                raise PinfeatherError(f"Pairs {self.name}: {name} has {len(value)} rows, expected {expected}.")

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def from_rows(
        cls,
        name: str,
        queries: Sequence[str],
        fields: Sequence[PinFields],
        levels: Sequence[int] | Ints | None = None,
        source: str = "",
    ) -> PairSet:
        """Pairs from one :class:`PinFields` a row; equal fields become one pin, so each text is encoded once."""
        numbers: dict[PinFields, int] = {}
        pin_of = np.array([numbers.setdefault(each, len(numbers)) for each in fields], dtype=np.int64)
        judged = None if levels is None else np.asarray(levels, dtype=np.int64)
        return cls(name, tuple(queries), tuple(numbers), pin_of, judged, source=source)

    @classmethod
    def from_file(cls, path: str | Path) -> PairSet:
        """Pairs of a Parquet or CSV file: ``query``, ``title``, optional ``description`` and ``level``; in its order.

        Any other field of :data:`feature_repo.pin_text.FIELDS` may be a column too: ``board_titles`` and
        ``engaged_queries`` as lists, or as text with ``|`` between two items. Empty cells are missing texts. Without a
        column ``level`` the pairs can be scored, not judged. ``level_mean`` and ``level_variance`` are those of several
        raters and soften what training aims at. ``probability_1`` to ``probability_5`` are a teacher's
        labels, and the columns of :func:`embedders.evaluation.slices.read_slices` say which slice a pair is of.

        :raises PinfeatherError: if the file cannot be read, lacks a column, has no rows, or holds a level outside 1..5.
        """
        path = Path(path)
        table = read_table_file(path, "pairs", "query, title, optional description and level", guessed=("level",))
        columns = {str(name).strip().lower(): name for name in table.column_names}
        if len(columns) < len(table.column_names):
            raise PinfeatherError(
                f"{path} has two columns of one name ({', '.join(table.column_names)}; case does not count): leave one "
                "out."
            )
        missing = [name for name in ("query", "title") if name not in columns]
        if missing:
            raise PinfeatherError(
                f"{path} has no column {' and '.join(missing)}. Needed: query, title; optional: description, level; "
                f"found: {', '.join(table.column_names) or 'no columns'}. Rename the columns of your file."
            )
        if not table.num_rows:
            raise PinfeatherError(f"{path} has columns but no rows: give at least one pair.")
        known: dict[str, list[Any]] = {
            name: (_lists if name in LIST_FIELDS else _texts)(table.column(columns[name]))
            for name in FIELDS
            if name in columns
        }
        fields = [PinFields(**dict(zip(known, row, strict=True))) for row in zip(*known.values(), strict=True)]
        queries = [query or "" for query in _texts(table.column(columns["query"]))]
        levels = _levels(path, table.column(columns["level"])) if "level" in columns else None
        given = {name: table.column(columns[name]).to_pylist() for name in COLUMNS if name in columns}
        pairs = cls.from_rows(path.stem, queries, fields, levels, source=path.name)
        if levels is not None:
            raters = [_numbers(path, table, columns, name, len(levels)) for name in ("level_mean", "level_variance")]
            pairs = replace(pairs, targets=soft_targets(levels, *raters))
        return replace(pairs, teacher=read_teacher(path, given), slices=read_slices(path, given))

    def with_blobs(self) -> PairSet:
        """The same pairs with lexical blobs, made from the fields where they were not given."""
        return self if self.blobs is not None else replace(self, blobs=tuple(encode_blob(pin) for pin in self.pins))

    def subset(self, rows: NDArray[np.bool_] | Ints) -> PairSet:
        """The pairs of ``rows`` (a mask [n], or row numbers), in their order, with their pins only."""
        given = np.asarray(rows)
        chosen = np.flatnonzero(given) if given.dtype == bool else given
        kept, pin_of = np.unique(self.pin_of[chosen], return_inverse=True)
        changed: dict[str, Any] = {"pin_of": pin_of.astype(np.int64)}
        changed["slices"] = {name: [values[int(row)] for row in chosen] for name, values in self.slices.items()}
        for names, places in (((*_BY_PAIR, "queries"), chosen), ((*_BY_PIN, "pins"), kept)):
            for name in names:
                value = getattr(self, name)
                if value is not None and name not in changed:
                    changed[name] = (
                        value[places] if isinstance(value, np.ndarray) else tuple(value[int(i)] for i in places)
                    )
        return replace(self, **changed)

    def require_levels(self) -> Ints:
        """The judged levels.

        :raises PinfeatherError: if there are none.
        """
        if self.levels is None:
            raise PinfeatherError(f"The pairs of {self.name} carry no levels: add a column `level` with 1 to 5.")
        return self.levels

    def require_targets(self) -> Floats:
        """``targets``, or the levels as such: [n, 5].

        :raises PinfeatherError: if there are neither.
        """
        return self.targets if self.targets is not None else np.eye(LEVELS)[self.require_levels() - 1]


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _lists(column: pa.ChunkedArray) -> list[tuple[str, ...]]:
    """Items of lists, or of texts with ``|`` between two items."""
    rows = (value if isinstance(value, list) else str(value or "").split("|") for value in column.to_pylist())
    return [tuple(text for item in row if (text := str(item or "").strip())) for row in rows]


def _numbers(path: Path, table: pa.Table, columns: Mapping[str, str], name: str, rows: int) -> Floats:
    """A column of numbers [n], NaN where it is empty or missing."""
    values = table.column(columns[name]).to_pylist() if name in columns else [None] * rows
    try:
        return np.array([np.nan if value in (None, "") else float(value) for value in values], np.float64)
    except (TypeError, ValueError) as error:
        raise PinfeatherError(f"{path}: column {name} holds {error}, which is no number: correct it.") from error


def _levels(path: Path, column: pa.ChunkedArray) -> Ints:
    """Levels 1..5 of a column of whole numbers, also where they came as text or float."""
    levels = np.zeros(len(column), dtype=np.int64)
    for row, value in enumerate(column.to_pylist()):
        try:
            level = float(value)
        except (TypeError, ValueError):
            level = float("nan")
        if level not in range(1, LEVELS + 1):
            raise PinfeatherError(
                f"{path}, row {row + 1}: level {value!r} is not one of 1, 2, 3, 4, 5. Correct the row, "
                "or leave the column `level` out to score without judging."
            )
        levels[row] = int(level)
    return levels
