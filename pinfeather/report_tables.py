"""The feature report as tables for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feature_repo.report import FeatureReport
from pinfeather.output import say, show, table


def show_report(report: FeatureReport) -> None:
    """Print every part of the report; flags last, on stderr."""
    data = report.data
    change = report.change or {}
    _coverage(data, change)
    _freshness(data, change)
    _lengths(data)
    _duplicates(data, change)
    _tables(data)
    if report.change:
        _drift(report.change)
    for flag in report.flags:
        say(f"flag: {flag['words']} (bound {show(flag['bound'])})")
    if not report.flags:
        say("No figure is beyond its bound.")


def _coverage(data: Mapping[str, Any], change: Mapping[str, Any]) -> None:
    sources = list(data["coverage"])
    rows: list[list[Any]] = [["all", data["pins"], *(_percent(data["coverage"][name]) for name in sources)]]
    if change:
        rows.append([f"since {change['since'][:10]}", None, *(_points(change["coverage"][name]) for name in sources)])
    for group in ("coverage_by_language", "coverage_by_age"):
        rows += [
            [name, row["pins"], *(_percent(row[source]) for source in sources)] for name, row in data[group].items()
        ]
    table(f"Coverage as of {data['as_of'][:16]}", ["", "pins", *sources], rows)


def _freshness(data: Mapping[str, Any], change: Mapping[str, Any]) -> None:
    columns = ["view", "rows", "newest", "10 %", "median", "90 %", "oldest", "median changed"]
    rows = [
        [
            view,
            row["rows"],
            *(row[key] for key in ("p0", "p10", "p50", "p90", "p100")),
            change.get("freshness", {}).get(view),
        ]
        for view, row in data["freshness"].items()
    ]
    table("Age of events in days", columns, rows)


def _lengths(data: Mapping[str, Any]) -> None:
    columns = ["words of", "pins", "mean", "10 %", "median", "90 %", "99 %", "max", "budget", "over"]
    rows = [
        [
            name,
            row["pins"],
            row["mean"],
            *(row[key] for key in ("p10", "p50", "p90", "p99", "max", "budget")),
            _percent(row["over_budget"]),
        ]
        for name, row in data["lengths"].items()
    ]
    table(
        "Lengths",
        columns,
        rows,
        caption="text: the whole pin text as its budgets cut it; over: pins of which some field was cut",
    )


def _duplicates(data: Mapping[str, Any], change: Mapping[str, Any]) -> None:
    rows = [
        [
            name,
            row["pins"],
            row["distinct"],
            row["sharing"],
            _percent(row["share"]),
            row["largest"],
            _points(change["duplicates"][name]) if change else None,
        ]
        for name, row in data["duplicates"].items()
    ]
    table("Pins that share", ["", "pins", "distinct", "sharing", "share", "largest group", "changed"], rows)


def _tables(data: Mapping[str, Any]) -> None:
    screened = data["screened"] or {}
    names = [*data["tables"], *(name for name in screened if name not in data["tables"])]
    rows = []
    for name in names:
        row = data["tables"].get(name, {"accepted": 0, "rejected": {}})
        rows.append([name, row["accepted"], sum(row["rejected"].values()), sum(screened.get(name, {}).values())])
    table("Raw rows", ["table", "accepted", "rejected", "screened"], rows)
    for kind, reasons in (
        *(("rejected of " + name, row["rejected"]) for name, row in data["tables"].items()),
        *(("screened of " + name, found) for name, found in screened.items()),
    ):
        for reason, count in reasons.items():
            say(f"{kind}: {count:,} {reason}")


def _drift(change: Mapping[str, Any]) -> None:
    rows = [[name, row["psi"], row["chance"]] for name, row in change["drift"].items()]
    pins = change["pins"]
    caption = f"pins: {pins['before']:,} then, {pins['now']:,} now, {show(pins['new'])} new, {show(pins['gone'])} gone"
    table(f"Drift since the report as of {change['since'][:16]}", ["distribution", "PSI", "by chance"], rows, caption)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(delta: float) -> str:
    return f"{100 * delta:+.1f}"
