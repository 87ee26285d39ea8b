"""The tables as pictures, one each: ``docs/plots/relevance_<table>.png``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinfeather.plots import BLUE, GREEN, GREY, ORANGE, PALE, STYLE, load_pyplot, save_png
from pinfeather.plots_evaluation import difference_bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Report = Mapping[str, Any]
INK = "#1f2937"
KEYS = {"ndcg@20": "nDCG@20", "auroc_4": "AUROC 4+"}
LINES = (BLUE, ORANGE, GREEN, GREY, PALE)
EVERYTHING = "all features"


def draw(name: str, report: Report, folder: Path) -> Path:
    """Write the picture of one table into ``folder`` and give its path back.

    :raises PinfeatherError: if matplotlib is not installed.
    """
    drawers: Mapping[str, Callable[[Any, Report], Any]] = {
        "backbones": _backbones,
        "folds": _backbones,
        "sources": _sources,
        "distillation": _distillation,
        "distillation_small": _distillation,
        "amounts": _distillation,
        "languages": _languages,
        "features": _features,
    }
    plt = load_pyplot()
    path = folder / f"relevance_{name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure = drawers[name](plt, report)
        save_png(figure, path)
        plt.close(figure)
    return path


def _groups(report: Report) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by data set."""
    out: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        out.setdefault(row["dataset"], []).append(row)
    return out


def _grid(plt: Any, report: Report, height: float) -> tuple[Any, list[tuple[str, list[Any], str, Axes]]]:
    """One row of axes a data set, one column a figure."""
    groups = _groups(report)
    figure, grid = plt.subplots(len(groups), len(KEYS), figsize=(8.6, height * len(groups)), squeeze=False)
    cells = [
        (dataset, rows, key, grid[line][column])
        for line, (dataset, rows) in enumerate(groups.items())
        for column, key in enumerate(KEYS)
    ]
    return figure, cells


def _dots(axes: Axes, names: list[str], values: list[tuple[float, Any]], colour: str) -> None:
    for place, (value, ci) in enumerate(values):
        axes.plot(ci, [place, place], color=PALE, linewidth=5, solid_capstyle="butt")
        axes.plot(value, place, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="#e5e7eb")
    axes.set_axisbelow(True)


def _backbones(plt: Any, report: Report) -> Any:
    figure, cells = _grid(plt, report, 2.6)
    for dataset, rows, key, axes in cells:
        _dots(axes, [row["scorer"] for row in rows], [(row[key], row[f"{key}_ci"]) for row in rows], BLUE)
        axes.set_title(f"{dataset}: {KEYS[key]}")
    return figure


def _sources(plt: Any, report: Report) -> Any:
    steps = report["generated"]["rows"]
    figure, pair = plt.subplots(1, 2, figsize=(8.6, 4.2))
    added = list(dict.fromkeys(row["added"] for row in steps))
    labels = [name if not number else f"+ {name}" for number, name in enumerate(added)]
    for axes, key in zip(pair, KEYS, strict=True):
        for scorer, colour in zip(dict.fromkeys(row["scorer"] for row in steps), LINES, strict=False):
            rows = [row for row in steps if row["scorer"] == scorer]
            _curve(axes, list(range(len(rows))), rows, key, colour, scorer)
        axes.set_xticks(range(len(added)), labels, rotation=35, ha="right")
        axes.set_title(f"Generated catalogue: {KEYS[key]}")
    pair[0].legend(frameon=False)
    return figure


def _curve(axes: Axes, places: list[Any], rows: list[Any], key: str, colour: str, name: str) -> None:
    axes.plot(places, [row[key] for row in rows], "o-", color=colour, label=name, markersize=5)
    low, high = zip(*(row[f"{key}_ci"] for row in rows), strict=True)
    axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.grid(axis="y", color="#e5e7eb")


def _distillation(plt: Any, report: Report) -> Any:
    figure, cells = _grid(plt, report, 3.2)
    for dataset, rows, key, axes in cells:
        for kind, colour in (("distilled", BLUE), ("human", ORANGE)):
            if not (shown := [row for row in rows if row["scorer"].startswith(f"{kind} ")]):
                continue
            _curve(axes, [row["train_pairs"] for row in shown], shown, key, colour, f"{kind} labels")
        for row in rows:
            if row["train_pairs"] is None and row["scorer"] != "BM25":
                axes.axhline(row[key], color=GREY, linewidth=1, linestyle="--")
                axes.text(report["x"], row[key], row["scorer"], va="bottom", color=GREY, fontsize=9)
        axes.set_xscale("log")
        amounts = [row["train_pairs"] for row in rows if row["scorer"].startswith("distilled ")]
        axes.set_xticks(amounts, [f"{amount / report['x']:.0f}x" for amount in amounts])
        axes.minorticks_off()
        axes.set_title(f"{dataset}: {KEYS[key]}")
    cells[0][3].legend(frameon=False, loc="lower right")
    return figure


def _languages(plt: Any, report: Report) -> Any:
    groups = _groups(report)
    figure, axes = plt.subplots(figsize=(8.6, 4.4))
    scorers = list(dict.fromkeys(row["scorer"] for row in report["rows"]))
    width = 0.8 / len(scorers)
    for number, (scorer, colour) in enumerate(zip(scorers, (GREY, GREEN, BLUE, PALE, ORANGE), strict=False)):
        for place, rows in enumerate(groups.values()):
            row = next((each for each in rows if each["scorer"] == scorer), None)
            if row is None:
                continue
            at = place - 0.4 + width * (number + 0.5)
            axes.bar(at, row["auroc_4"] - 0.5, width, bottom=0.5, color=colour, label=None if place else scorer)
            axes.plot([at, at], row["auroc_4_ci"], color=INK, linewidth=1)
    marks = [f"{dataset}\n{'seen' if rows[0]['seen'] else 'unseen'}" for dataset, rows in groups.items()]
    axes.set_xticks(range(len(groups)), marks)
    axes.axhline(0.5, color=GREY, linewidth=0.8)
    axes.set_title("Queries by language against English captions: AUROC (0.5 is chance)")
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def _features(plt: Any, report: Report) -> Any:
    figure, cells = _grid(plt, report, 3.0)
    for dataset, rows, key, axes in cells:
        shown = [row for row in rows if EVERYTHING in row["minus"]]
        compared = [row["minus"][EVERYTHING][key] for row in shown]
        difference_bars(axes, compared)
        names = [row["scorer"] for row in shown] if key == next(iter(KEYS)) else [""] * len(shown)
        axes.set_yticks(range(len(shown)), names)
        axes.set_title(f"{dataset}: {KEYS[key]}", fontsize=10)
    figure.suptitle("What the head loses without a group of features (pale: the interval holds 0)", x=0.01, ha="left")
    return figure
