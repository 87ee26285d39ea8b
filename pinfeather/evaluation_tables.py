"""What ``pinfeather evaluate`` found as tables for a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedders.evaluation.evaluate import LOWER_IS_BETTER, METRICS
from embedders.evaluation.slices import MIN_PAIRS, MIN_QUERIES
from pinfeather.output import say, show, table

_OF_SLICES = ("ndcg@20", "auroc_4", "accuracy", "kappa", "calibration_error")
_BY = {
    "lang": "language of the query",
    "popularity": "impressions of the pin",
    "age": "age of the pin",
    "missing": "what the pin lacks",
}


def show_figures(rows: Sequence[Mapping[str, Any]], note: str) -> None:
    """Figures of each scorer with their intervals; then differences, slices and agreement where they were asked for."""
    first = rows[0]
    title = f"{first['dataset']}: {first['pairs']:,} pairs, {first['queries']:,} queries"
    note += f"; lower is better for {', '.join(metric for metric in METRICS if metric in LOWER_IS_BETTER)}"
    lines = [[metric, *(_with_interval(row, metric) for row in rows)] for metric in METRICS]
    table(title, ["", *(row["scorer"] for row in rows)], lines, note)
    _differences(rows)
    for slicing in first.get("slices", {}):
        _slices(rows, slicing)
    _agreement(rows)
    for row in rows:
        if row.get("without"):
            say(f"{row['scorer']}: without {', '.join(row['without'])}")


def _differences(rows: Sequence[Mapping[str, Any]]) -> None:
    compared = [row for row in rows if "against" in row]
    if not compared:
        return
    baseline = compared[0]["against"]["scorer"]
    lines = [[metric, *(_difference(row["against"][metric]) for row in compared)] for metric in METRICS]
    note = "* the 95 % interval of the paired bootstrap over queries excludes 0; p: two-sided"
    table(f"less {baseline}", ["", *(row["scorer"] for row in compared)], lines, note)


def _slices(rows: Sequence[Mapping[str, Any]], slicing: str) -> None:
    lines: list[list[Any]] = []
    for name, counts in rows[0]["slices"][slicing].items():
        head = [name, show(counts["pairs"]), show(counts["queries"])]
        judged = [(row["scorer"], row["slices"][slicing][name]) for row in rows]
        if all(figures[metric] is None for _, figures in judged for metric in METRICS):
            judged = [("", counts)]  # too small: one line says so
        for scorer, figures in judged:
            lines.append([*head, scorer, *(_marked(figures, metric) for metric in _OF_SLICES)])
            head = ["", "", ""]
    baseline = next((row["against"]["scorer"] for row in rows if "against" in row), None)
    note = f"no figures: under {MIN_PAIRS} pairs or {MIN_QUERIES} queries"
    note += f"; * differs from {baseline}, as above" if baseline else ""
    table(f"by {_BY[slicing]}", ["", "pairs", "queries", "scorer", *_OF_SLICES], lines, note)


def _agreement(rows: Sequence[Mapping[str, Any]]) -> None:
    names = ("accuracy", "kl", "expected_level_correlation")
    known = [row for row in rows if row.get("agreement")]
    if known:
        lines = [[row["scorer"], *(row["agreement"][name] for name in names)] for row in known]
        table("agreement with the teacher's labels", ["", *names], lines, "no figure of quality: nobody judged these")


def _with_interval(row: Mapping[str, Any], metric: str) -> str:
    bounds = row[f"{metric}_ci"]
    return show(row[metric]) + (f" ({bounds[0]:.2f}-{bounds[1]:.2f})" if bounds else "")


def _difference(found: Mapping[str, Any]) -> str:
    if found["difference"] is None or found["ci"] is None:
        return "-"
    low, high = found["ci"]
    mark = " *" if found["significant"] else ""
    return f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f}) p {found['p']:.3f}{mark}"


def _marked(figures: Mapping[str, Any], metric: str) -> str:
    significant = figures.get("against", {}).get(metric, {}).get("significant")
    return show(figures[metric]) + (" *" if significant else "")
