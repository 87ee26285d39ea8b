"""The figures of a report, out of the tables that :mod:`feature_repo.report.measures` makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.aggregates.session import parquet
from feature_repo.contracts import CONTRACTS
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import FIELDS, PinTextTemplate
from feature_repo.report.measures import BANDS, UNKNOWN
from feature_repo.switchboard import SOURCES

if TYPE_CHECKING:
    import duckdb

LANGUAGES = 12
"""Languages that a report names; the rarer ones are summed up as ``other``."""
OTHER = "other"

MOST_WORDS = 80
"""Length histograms count every number of words up to here; the last count is of these and longer ones."""

SHARED = ("text", "caption", "image")
"""What two pins may have in common."""

GROUP_SIZES = (("1", 1), ("2", 2), ("3-5", 5), ("6-20", 20), ("21+", None))
"""Sizes of groups of pins with the same text, caption or image: name, and the largest size in it."""

_AGES = (0.0, 0.1, 0.5, 0.9, 1.0)
_LENGTHS = (0.1, 0.5, 0.9, 0.99)


def coverage(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Pins and the share that has each source: ``coverage``, ``coverage_by_language``, ``coverage_by_age``.

    ``any`` is a pin text with at least one word or sign.
    """
    conditions = {**{name: f"has_{name}" for name in SOURCES}, "any": "text IS NOT NULL"}
    counts = ", ".join(f"count(*) FILTER ({condition})" for condition in conditions.values())

    def by(group: str) -> dict[str, dict[str, Any]]:
        rows = con.execute(f"SELECT {group}, count(*), {counts} FROM measured GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
        return {str(name): {"pins": pins, **dict(zip(conditions, found, strict=True))} for name, pins, *found in rows}

    languages = by("lang")
    rare = [name for name in languages if name != UNKNOWN][LANGUAGES:]
    if rare:
        languages[OTHER] = _sum([languages.pop(name) for name in rare])
    ages = by("band")
    total = _sum(list(ages.values())) if ages else dict.fromkeys(("pins", *conditions), 0)
    return {
        "pins": total["pins"],
        "coverage": {name: _share(total, name) for name in conditions},
        "coverage_by_language": {name: _shares(row) for name, row in languages.items()},
        "coverage_by_age": {name: _shares(ages[name]) for name in (*dict(BANDS), UNKNOWN) if name in ages},
    }


def _sum(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(row[name] for row in rows) for name in rows[0]}


def _share(row: dict[str, Any], name: str) -> float:
    return row[name] / row["pins"] if row["pins"] else 0.0


def _shares(row: dict[str, Any]) -> dict[str, Any]:
    return {"pins": row["pins"], **{name: _share(row, name) for name in row if name != "pins"}}


def freshness(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """Rows of each view and the age of their events in days: ``p0`` (the newest) to ``p100``; None without rows."""
    quantiles = f"quantile_disc(age, [{', '.join(map(str, _AGES))}])"
    rows = con.execute(f"SELECT view, count(*), {quantiles} FROM events GROUP BY view ORDER BY view").fetchall()
    return {view: {"rows": count, **_named(_AGES, values, 3)} for view, count, values in rows}


def lengths(con: duckdb.DuckDBPyConnection, template: PinTextTemplate) -> dict[str, dict[str, Any]]:
    """Words of each field of the pins that have it, and of the whole pin text (``text``) as its budgets cut it.

    Keys: ``pins``, ``mean``, quantiles, ``max``, ``budget`` in words (None for a field that the template leaves out),
    ``over_budget`` (share of those pins), ``histogram`` (pins with 1, 2 ... words, see :data:`MOST_WORDS`).
    """
    budgets = {rule.name: rule.budget for rule in template.rules}
    columns = {**{field: f"words_{field}" for field in FIELDS}, "text": "words"}
    return {name: _length(con, column, name, budgets) for name, column in columns.items()}


def _length(con: duckdb.DuckDBPyConnection, column: str, name: str, budgets: dict[str, int]) -> dict[str, Any]:
    budget = sum(budgets.values()) if name == "text" else budgets.get(name)
    over = "truncated" if name == "text" else f"{column} > {budget}" if budget else "FALSE"
    (row,) = con.execute(
        f"SELECT count(*), avg({column}), quantile_disc({column}, [{', '.join(map(str, _LENGTHS))}]), max({column}), "
        f"count(*) FILTER ({over}) FROM measured WHERE {column} > 0"
    ).fetchall()
    pins, mean, quantiles, most, cut = row
    histogram = [0] * MOST_WORDS
    for words, count in con.execute(
        f"SELECT least({column}, {MOST_WORDS}), count(*) FROM measured WHERE {column} > 0 GROUP BY 1"
    ).fetchall():
        histogram[words - 1] = count
    return {
        "pins": pins,
        "mean": round(mean, 3) if pins else None,
        **_named(_LENGTHS, quantiles, 0),
        "max": most,
        "budget": budget,
        "over_budget": cut / pins if pins else 0.0,
        "histogram": histogram,
    }


def _named(levels: tuple[float, ...], values: Sequence[float | None] | None, digits: int) -> dict[str, float | None]:
    known: Sequence[float | None] = values or [None] * len(levels)
    rounded = [None if value is None else round(value, digits) for value in known]
    return {f"p{round(100 * level)}": value for level, value in zip(levels, rounded, strict=True)}


def duplicates(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    """Pins that share their pin text (before a budget cuts it), caption or image with another.

    Keys: ``pins`` (that have one), ``distinct``, ``sharing`` (pins that are not alone), ``share`` of them, ``largest``
    group, ``sizes`` (pins by the size of their group).
    """
    found = {}
    for name in SHARED:
        cases = " ".join(f"WHEN n <= {most} THEN '{label}'" for label, most in GROUP_SIZES if most)
        rows = con.execute(
            f"WITH g AS (SELECT count(*) AS n FROM measured WHERE {name} IS NOT NULL GROUP BY {name}) "
            f"SELECT CASE {cases} ELSE '{GROUP_SIZES[-1][0]}' END, count(*), sum(n)::BIGINT, max(n) FROM g GROUP BY 1"
        ).fetchall()
        pins = sum(row[2] for row in rows)
        sizes = {label: 0 for label, _ in GROUP_SIZES} | {label: count for label, _, count, _ in rows}
        sharing = pins - sizes["1"]
        found[name] = {
            "pins": pins,
            "distinct": sum(row[1] for row in rows),
            "sharing": sharing,
            "share": sharing / pins if pins else 0.0,
            "largest": max((row[3] for row in rows), default=0),
            "sizes": sizes,
        }
    return found


def fingerprint(con: duckdb.DuckDBPyConnection) -> str:
    """16 hexadecimal characters that change with the set of pins."""
    (value,) = con.execute("SELECT coalesce(bit_xor(pin), 0)::UBIGINT FROM measured").fetchone() or (0,)
    return f"{value:016x}"


def rejected(con: duckdb.DuckDBPyConnection, paths: RepoPaths) -> dict[str, dict[str, Any]]:
    """What the last ``validate`` made of each raw table that it found: ``accepted`` rows, ``rejected`` by reason."""
    found = {}
    for table in CONTRACTS:
        accepted = sum(_rows(con, path) for path in paths.valid_files(table))
        files = paths.rejected_files(table)
        reasons = (
            con.execute(f"SELECT reason, count(*) FROM {parquet(files)} GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
            if files
            else []
        )
        if accepted or reasons:
            found[table] = {"accepted": accepted, "rejected": dict(reasons)}
    return found


def _rows(con: duckdb.DuckDBPyConnection, file: Path) -> int:
    return int((con.execute(f"SELECT count(*) FROM {parquet([file])}").fetchone() or (0,))[0])
