"""Slices of judged pairs: language, popularity, age and missing fields, and the columns of a file that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedders.evaluation.metrics import LEVELS, Ints
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.report.measures import BANDS as AGES
from feature_repo.report.measures import UNKNOWN
from feature_repo.screening import guess_language, language_code
from feature_repo.switchboard import SOURCES, TEXT_SOURCES
from feature_repo.text import canonical_query

if TYPE_CHECKING:
    from embedders.evaluation.pairs import PairSet

SLICINGS = ("lang", "popularity", "age", "missing")
"""Language of the query, impressions of the pin, its age when it was judged, the sources of its text that it lacks."""
MIN_PAIRS, MIN_QUERIES = 30, 5
"""A smaller slice is counted, not judged: its figures would be chance."""
POPULARITY: tuple[tuple[str, float], ...] = (
    ("never shown", 1),
    ("1-9 impressions", 10),
    ("10-99 impressions", 100),
    ("100-999 impressions", 1000),
    ("1000 and more", float("inf")),
)
"""Popularity bands of a pin: name, and the impressions below which a pin is in it."""
LABELS = tuple(f"probability_{level}" for level in range(1, LEVELS + 1))
"""Columns of a teacher's labels."""
COLUMNS = ("query", "lang", "popularity", "age_days", "created_at", "event_timestamp", *LABELS)
"""Columns that :func:`read_slices` and :func:`read_teacher` read."""
_TOLD_BY = {
    "popularity": "`popularity` (impressions of the pin, or a name of your own)",
    "age": "`age_days`, or `created_at` of the pin and `event_timestamp` of the judgment",
}
_EVERY = "nothing missing"


def slice_rows(pairs: PairSet, by: str) -> dict[str, Ints]:
    """Rows of each slice by its name: bands in their order, else the largest slice first.

    :param by: one of :data:`SLICINGS`.
    :raises UsageError: for another name, or if the pairs do not tell.
    """
    values = np.array(_values(pairs, by))
    names, counts = np.unique(values, return_counts=True)
    bands = [name for name, _ in (*POPULARITY, *AGES)] if by in _TOLD_BY else []
    ranked = sorted((_place(name, bands), -count, name) for name, count in zip(names.tolist(), counts, strict=True))
    return {name: np.flatnonzero(values == name) for _, _, name in ranked}


def large_enough(queries: Iterable[str]) -> bool:
    """Whether pairs with these queries are enough to judge on: :data:`MIN_PAIRS` of :data:`MIN_QUERIES`."""
    given = [canonical_query(query) for query in queries]
    return len(given) >= MIN_PAIRS and len(set(given)) >= MIN_QUERIES


def band(value: float | None, bands: Sequence[tuple[str, float]]) -> str:
    """The band that ``value`` is in; ``unknown`` for none, NaN or below 0."""
    if value is None or not value >= 0:
        return UNKNOWN
    return next(name for name, below in bands if value < below or below == float("inf"))


def languages(queries: Sequence[str], given: Sequence[str | None] | None = None) -> list[str]:
    """ISO 639-1 code of each query: the given one, else a guess, else ``unknown``; short queries rarely tell."""
    known = given or [None] * len(queries)
    guessed = {query: guess_language(canonical_query(query)) for query in set(queries)}
    return [language_code(lang) or guessed[query] or UNKNOWN for query, lang in zip(queries, known, strict=True)]


def read_slices(path: Path, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Slices out of a file: ``lang``, ``popularity``, ``age_days`` or ``created_at`` with ``event_timestamp``.

    ``popularity`` is a number of impressions, which is put into a band, or a name that stays; empty is ``unknown``.

    :param columns: cells by lower-case name; others are left alone.
    :raises PinfeatherError: for an age that is no number, or a time that is none.
    """
    out: dict[str, list[str]] = {}
    if "lang" in columns:
        queries = ["" if query is None else str(query) for query in columns["query"]]
        out["lang"] = languages(queries, [None if lang is None else str(lang) for lang in columns["lang"]])
    if "popularity" in columns:
        out["popularity"] = [_popularity(cell) for cell in columns["popularity"]]
    if "age_days" in columns:
        out["age"] = [band(_number(path, row, cell), AGES) for row, cell in enumerate(columns["age_days"])]
    elif {"created_at", "event_timestamp"} <= columns.keys():
        times = zip(columns["created_at"], columns["event_timestamp"], strict=True)
        out["age"] = [band(_days(path, row, *pair), AGES) for row, pair in enumerate(times)]
    return out


def read_teacher(path: Path, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64] | None:
    """[n, 5] of the columns ``probability_1`` to ``probability_5``; None if they are not all there.

    :raises PinfeatherError: for a row that holds no probabilities.
    """
    if not columns.keys() >= set(LABELS):
        return None
    cells = [[_number(path, row, cell, name) for row, cell in enumerate(columns[name])] for name in LABELS]
    given = np.array(cells, dtype=np.float64).T
    wrong = ~((given >= 0).all(axis=1) & (np.abs(given.sum(axis=1) - 1) <= 1e-3))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise PinfeatherError(
            f"{path}, row {first + 1}: probability_1 to probability_5 are {given[first].tolist()}: "
            "give five that are not negative and sum to 1, or leave the columns out."
        )
    return given


def _values(pairs: PairSet, by: str) -> Sequence[str]:
    if by not in SLICINGS:
        raise UsageError(f"Cannot slice by {by!r}: allowed are {', '.join(SLICINGS)}.")
    if by == "missing":
        return _missing(pairs)
    if by in pairs.slices:
        return pairs.slices[by]
    if by == "lang":
        return languages(pairs.queries)
    raise UsageError(f"{pairs.name} does not tell the {by} of its pairs: add the column {_TOLD_BY[by]}.")


def _missing(pairs: PairSet) -> list[str]:
    """Of each pair, the sources of the pin text that its pin lacks, of those that some pin of the set has."""
    has = [
        {source for source in TEXT_SOURCES if any(getattr(pin, field) for field in SOURCES[source].fields)}
        for pin in pairs.pins
    ]
    there = [source for source in TEXT_SOURCES if any(source in each for each in has)]
    names = ["no " + ", ".join(gone) if (gone := [s for s in there if s not in each]) else _EVERY for each in has]
    return [names[pin] for pin in pairs.pin_of]


def _place(name: str, bands: Sequence[str]) -> int:
    return bands.index(name) if name in bands else len(bands)


def _popularity(cell: Any) -> str:
    try:
        return band(float(cell), POPULARITY)
    except (TypeError, ValueError):
        return str(cell or "").strip() or UNKNOWN


def _number(path: Path, row: int, cell: Any, name: str = "age_days") -> float:
    if cell in (None, ""):
        return float("nan")
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise PinfeatherError(f"{path}, row {row + 1}: {name} {cell!r} is no number: correct the row.") from None


def _days(path: Path, row: int, born: Any, judged: Any) -> float | None:
    times = []
    for cell in (born, judged):
        if cell in (None, ""):
            return None
        try:
            when = cell if isinstance(cell, datetime) else datetime.fromisoformat(str(cell))
        except ValueError:
            raise PinfeatherError(
                f"{path}, row {row + 1}: {cell!r} is no time: write it as 2026-11-01T12:00:00+00:00 (ISO 8601)."
            ) from None
        times.append(when if when.tzinfo else when.replace(tzinfo=UTC))
    return (times[1] - times[0]).total_seconds() / 86_400
