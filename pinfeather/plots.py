"""The feature report as pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import PinfeatherError
from feature_repo.report.figures import MOST_WORDS
from feature_repo.report.flags import CHANCES, DRIFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, PALE, ORANGE, GREY, GREEN = "#2f6db3", "#a9c8e8", "#d9730d", "#6b7280", "#3a8f5c"
"""Figures, their spread, bounds and losses, talk, gains."""

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.1,
}
"""How every picture looks."""


def load_pyplot() -> Any:
    """``matplotlib.pyplot`` on a canvas that needs no screen.

    :raises PinfeatherError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise PinfeatherError(
            "Plots need matplotlib, which is not installed. Run `pip install 'pinfeather[plots]'`, or give no --plots."
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw_report(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``coverage.png, freshness.png, lengths.png, duplicates.png`` into ``folder``, and ``change.png`` if known.

    The same report gives the same bytes with the same matplotlib.

    :raises PinfeatherError: if matplotlib is not installed, or the folder cannot be written.
    """
    plt = load_pyplot()
    subjects: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
        "coverage": _coverage,
        "freshness": _freshness,
        "lengths": _lengths,
        "duplicates": _duplicates,
    }
    if report["change"]:
        subjects["change"] = _change
    drawn = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with plt.rc_context(STYLE):
            for name, draw in subjects.items():
                figure = draw(plt, report)
                path = folder / f"{name}.png"
                save_png(figure, path)
                plt.close(figure)
                drawn.append(path)
    except OSError as error:
        raise PinfeatherError(f"Cannot draw into {folder} ({error}): name a folder that can be written.") from error
    return drawn


def save_png(figure: Any, path: Path) -> None:
    """Write a PNG of few colours, a quarter of the size, that is there only when it is whole."""
    from PIL import Image  # comes with matplotlib

    with io.BytesIO() as whole:
        figure.savefig(whole, format="png", metadata={"Software": None})
        with Image.open(whole) as image:
            small = image.convert("RGB").quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    small.save(part, format="png", optimize=True)
    os.replace(part, path)


def _coverage(plt: Any, report: Mapping[str, Any]) -> Any:
    sources = {name: name if name != "any" else "any text" for name in report["coverage"]}
    groups = [report["coverage_by_language"], report["coverage_by_age"]]
    rows = [len(group) for group in groups]
    figure, (all_pins, *maps) = plt.subplots(
        3, 1, figsize=(8.6, 2.9 + 0.36 * (sum(rows) + 4)), height_ratios=[5.5, *(count + 1.2 for count in rows)]
    )
    _bars(all_pins, list(sources.values()), [report["coverage"][name] for name in sources], "share of pins")
    all_pins.set_title(f"Pins that have each source, as of {report['as_of'][:10]} ({report['pins']:,} pins)")
    for axes, group, title in zip(maps, groups, ("By language", "By age of the pin"), strict=True):
        _heat(axes, group, sources, title)
    return figure


def _bars(axes: Axes, names: Sequence[str], shares: Sequence[float], label: str) -> None:
    places = range(len(names))
    axes.barh(places, shares, color=BLUE, height=0.68)
    for place, share in zip(places, shares, strict=True):
        axes.text(share + 0.01, place, f"{share:.0%}", va="center", color="#374151")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_xlabel(label)


def _heat(axes: Axes, group: Mapping[str, Mapping[str, Any]], sources: Mapping[str, str], title: str) -> None:
    shares = [[row[name] for name in sources] for row in group.values()]
    axes.imshow(shares or [[0.0] * len(sources)], cmap="Blues", vmin=0, vmax=1.35, aspect="auto")
    for place, row in enumerate(shares):
        for column, share in enumerate(row):
            colour = "white" if share > 0.78 else "#1f2937"
            axes.text(column, place, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_yticks(range(len(group)), [f"{name}  ({row['pins']:,})" for name, row in group.items()])
    axes.set_xticks(range(len(sources)), list(sources.values()))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def _freshness(plt: Any, report: Mapping[str, Any]) -> Any:
    views = {view: row for view, row in report["freshness"].items() if row["rows"]}
    figure, axes = plt.subplots(figsize=(8.6, 1.4 + 0.42 * len(views)))
    for place, row in enumerate(views.values()):
        low, tenth, middle, ninetieth, high = (max(row[key], _HOUR) for key in ("p0", "p10", "p50", "p90", "p100"))
        axes.plot([low, high], [place, place], color=PALE, linewidth=2, solid_capstyle="round")
        axes.plot([tenth, ninetieth], [place, place], color=BLUE, linewidth=7, solid_capstyle="butt")
        axes.plot(middle, place, "o", color="white", markeredgecolor="#1f2937", markersize=7, zorder=3)
    axes.set_yticks(range(len(views)), [f"{view}  ({row['rows']:,})" for view, row in views.items()])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks([_HOUR, 1, 7, 30, 365, 1826], ["1 hour", "1 day", "1 week", "1 month", "1 year", "5 years"])
    axes.minorticks_off()
    axes.grid(axis="x", color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.set_title(f"Age of the rows of each view, as of {report['as_of'][:10]}")
    axes.set_xlabel("line: newest to oldest; bar: middle 80%; dot: median")
    return figure


_HOUR = 1 / 24


def _lengths(plt: Any, report: Mapping[str, Any]) -> Any:
    lengths = report["lengths"]
    figure, grid = plt.subplots(4, 2, figsize=(8.6, 8.4))
    for axes, (name, row) in zip(grid.flat, lengths.items(), strict=True):
        counts = row["histogram"]
        last = max((number for number, count in enumerate(counts, start=1) if count), default=1)
        axes.bar(range(1, last + 1), counts[:last], width=0.9, color=BLUE)
        right = max(last, min(row["budget"] or 0, len(counts))) + 1.5
        axes.set_xlim(0, right)
        if row["budget"] and row["budget"] < right:
            axes.axvline(row["budget"] + 0.5, color=ORANGE, linewidth=1.5)
        title = "whole pin text" if name == "text" else name.replace("_", " ")
        axes.set_title(f"{title}  ({row['pins']:,} pins)", fontsize=10)
        share = f"{row['over_budget']:.1%}"
        if name == "text":  # it is shown as cut: the share is of pins of which a field was cut
            cut = f"some field cut in {share}"
        else:
            cut = "not in it" if row["budget"] is None else f"budget {row['budget']}, {share} cut"
        axes.set_title(cut, loc="right", fontsize=9, fontweight="normal", color=ORANGE)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(f"words ({MOST_WORDS}: and more)")
    figure.suptitle(
        "Words per field of the pins that have it; orange: the budget", x=0.01, ha="left", fontweight="bold"
    )
    return figure


def _duplicates(plt: Any, report: Mapping[str, Any]) -> Any:
    rows = report["duplicates"]
    figure, axes = plt.subplots(figsize=(8.6, 2.6))
    labels = list(next(iter(rows.values()))["sizes"])
    colours = plt.get_cmap("Blues")([0.18, 0.38, 0.58, 0.78, 0.98])
    for place, row in enumerate(rows.values()):
        left = 0.0
        for label, colour in zip(labels, colours, strict=True):
            share = row["sizes"][label] / row["pins"] if row["pins"] else 0.0
            axes.barh(place, share, left=left, color=colour, height=0.62, label=label if not place else None)
            left += share
    names = {"text": "pin text"}
    axes.set_yticks(
        range(len(rows)), [f"{names.get(name, name)}  (largest group {row['largest']:,})" for name, row in rows.items()]
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_xlabel("share of the pins that have one")
    axes.set_title("How many pins have the same text, caption or image")
    axes.legend(
        title="pins in the group", ncols=len(labels), loc="upper center", bbox_to_anchor=(0.5, -0.3), frameon=False
    )
    return figure


def _change(plt: Any, report: Mapping[str, Any]) -> Any:
    change = report["change"]
    figure, (coverage, drift) = plt.subplots(1, 2, figsize=(8.6, 4.2), width_ratios=[1, 1])
    points = {name: 100 * delta for name, delta in change["coverage"].items()}
    _signed(coverage, points)
    coverage.set_title("Coverage, in points")
    names = list(change["drift"])
    values = [change["drift"][name]["psi"] for name in names]
    bounds = [max(DRIFT, CHANCES * change["drift"][name]["chance"]) for name in names]
    drift.barh(
        range(len(names)), values, color=[ORANGE if v > b else BLUE for v, b in zip(values, bounds, strict=True)]
    )
    drift.plot(bounds, range(len(names)), "|", color="#1f2937", markersize=13, markeredgewidth=1.5)
    drift.set_yticks(range(len(names)), names)
    drift.invert_yaxis()
    drift.set_xlim(0, 1.15 * max([*values, *bounds]))
    drift.set_xlabel("population stability index; |: bound")
    drift.set_title("Drift of distributions")
    pins = change["pins"]
    moved = "" if pins["new"] is None else f", {pins['new']:,} new, {pins['gone']:,} gone"
    when = f"Change from {change['since'][:10]} to {report['as_of'][:10]}"
    figure.suptitle(
        f"{when}: {pins['before']:,} pins, now {pins['now']:,}{moved}",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    return figure


def _signed(axes: Axes, values: Mapping[str, float]) -> None:
    places = range(len(values))
    axes.barh(places, list(values.values()), color=[GREEN if value >= 0 else ORANGE for value in values.values()])
    widest = max(1.0, *(abs(value) for value in values.values()))
    for place, value in zip(places, values.values(), strict=True):
        side = "left" if value >= 0 else "right"
        axes.text(value + (0.03 if value >= 0 else -0.03) * widest, place, f"{value:+.1f}", va="center", ha=side)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(places, list(values))
    axes.invert_yaxis()
    low, high = min(0.0, *values.values()), max(0.0, *values.values())
    axes.set_xlim(low - 0.25 * widest, high + 0.25 * widest)
