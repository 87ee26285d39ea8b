"""What of a report somebody should look at, by fixed bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

NO_TEXT = 0.05
"""Share of pins without any text."""
TRUNCATED = 0.2
"""Share of pin texts that a budget cut."""
LARGEST_GROUP = 0.01
"""Share of pins with one and the same text, caption or image."""
FEWEST_SHARING = 10
"""Smaller groups are never flagged."""
STALE_DAYS = 30.0
"""Age of the newest event of a view."""
BEHIND_DAYS = 2.0
"""Age of the aggregates themselves."""
COVERAGE_DROP = 0.02
"""Share of pins that lost a source since the last report."""
GONE = 0.05
"""Share of the former pins that are gone."""
DRIFT = 0.1
"""Population stability index; at least, and :data:`CHANCES` times what chance alone would show."""
CHANCES = 3.0
REJECTED = 0.01
"""Share of a table's rows that broke the contract."""
SCREENED = 0.05
"""Share of a table's valid rows that a screening rule left out."""


@dataclass(frozen=True)
class Flag:
    """A figure beyond its bound."""

    check: str
    value: float
    bound: float
    words: str


def flags(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The flags of a report, as plain data: ``check``, ``value``, ``bound``, ``words``."""
    found = [*_of_figures(report), *_of_tables(report), *_of_change(report.get("change") or {})]
    return [asdict(flag) for flag in found]


def _of_figures(report: Mapping[str, Any]) -> Iterator[Flag]:
    if (behind := report["behind_days"]) > BEHIND_DAYS:
        yield Flag("behind", behind, BEHIND_DAYS, f"the aggregates are of {behind:,.0f} days ago: run `aggregate`")
    if report["pins"] and (silent := 1 - report["coverage"]["any"]) > NO_TEXT:
        yield Flag("no text", silent, NO_TEXT, f"{silent:.1%} of the pins have no text at all, so no vector")
    if (cut := report["lengths"]["text"]["over_budget"]) > TRUNCATED:
        yield Flag("truncated", cut, TRUNCATED, f"{cut:.1%} of the pin texts are cut by a budget")
    for name, row in report["duplicates"].items():
        share = row["largest"] / report["pins"] if report["pins"] else 0.0
        if share > LARGEST_GROUP and row["largest"] >= FEWEST_SHARING:
            yield Flag(f"one {name}", share, LARGEST_GROUP, f"{row['largest']:,} pins have one and the same {name}")
    for view, row in report["freshness"].items():
        if row["p0"] > STALE_DAYS:
            yield Flag(f"stale {view}", row["p0"], STALE_DAYS, f"nothing new in {view} for {row['p0']:,.0f} days")


def _of_tables(report: Mapping[str, Any]) -> Iterator[Flag]:
    for table, row in report["tables"].items():
        bad = sum(row["rejected"].values())
        share = bad / (bad + row["accepted"])
        if share > REJECTED:
            yield Flag(f"rejected {table}", share, REJECTED, f"{bad:,} rows of {table} broke the contract")
    for table, reasons in (report["screened"] or {}).items():
        accepted = report["tables"].get(table, {}).get("accepted", 0)
        left_out = sum(reasons.values())
        if accepted and (share := left_out / accepted) > SCREENED:
            yield Flag(f"screened {table}", share, SCREENED, f"screening left out {left_out:,} of {table}")


def _of_change(change: Mapping[str, Any]) -> Iterator[Flag]:
    for name, delta in change.get("coverage", {}).items():
        if delta < -COVERAGE_DROP:
            yield Flag(f"coverage of {name}", delta, -COVERAGE_DROP, f"{name}: {100 * delta:+.1f} points of coverage")
    pins = change.get("pins", {})
    if pins.get("gone") and (share := pins["gone"] / pins["before"]) > GONE:
        yield Flag("gone", share, GONE, f"{pins['gone']:,} of {pins['before']:,} pins are gone")
    for name, drift in change.get("drift", {}).items():
        bound = max(DRIFT, CHANCES * drift["chance"])
        if drift["psi"] > bound:
            yield Flag(f"drift of {name}", drift["psi"], bound, f"{name} drifted: PSI {drift['psi']:.2f}")
