"""What ``pinfeather evaluate`` found as pictures: reliability, confusion of levels, differences of scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedders.evaluation import metrics
from embedders.evaluation.levels import confusion, reliability
from embedders.evaluation.metrics import LEVELS, Floats, Ints
from feature_repo.errors import PinfeatherError
from pinfeather.plots import BLUE, GREEN, GREY, ORANGE, PALE, STYLE, load_pyplot, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from embedders.evaluation.judging import Answer

_COLOURS = {"bm25": GREY, "zero-shot": GREEN, "student": BLUE, "teacher": ORANGE}
_INK = "#1f2937"
_RANKING = "ndcg@20"
_TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])


def draw_evaluation(levels: Ints, answers: Sequence[Answer], folder: Path, title: str) -> list[Path]:
    """Write ``reliability.png`` and ``confusion.png`` of all scorers that know levels into ``folder``.

    :param levels: [n] judged levels. :param title: the set they are of.
    :raises PinfeatherError: if no scorer knows levels, matplotlib is not installed, or the folder cannot be written.
    """
    known = {answer.scorer: np.asarray(answer.probabilities) for answer in answers if answer.probabilities is not None}
    if not known:
        raise PinfeatherError(
            "There is nothing to draw: no scorer here gives probabilities of levels. Add --scorer student, or name a "
            "repository with judgments with --repo."
        )
    plt = load_pyplot()
    with plt.rc_context(STYLE):
        figures = {
            "reliability": _reliability(plt, levels, known, title),
            "confusion": _confusion(plt, levels, known, title),
        }
        return [_saved(plt, figure, folder / f"{name}.png") for name, figure in figures.items()]


def draw_differences(rows: Sequence[Mapping[str, Any]], folder: Path, title: str) -> Path | None:
    """Write ``differences.png``, what each scorer has more or less nDCG@20 than the one it is compared with.

    :param rows: of :func:`embedders.evaluation.judging.judge`. None is drawn, and given, where no difference is known.
    :raises PinfeatherError: if matplotlib is not installed, or the folder cannot be written.
    """
    compared = {row["scorer"]: row["against"] for row in rows if "against" in row}
    shown = {name: each[_RANKING] for name, each in compared.items() if each[_RANKING]["difference"] is not None}
    if not shown:
        return None
    (baseline,) = {each["scorer"] for each in compared.values()}
    plt = load_pyplot()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.6, 1.5 + 0.42 * len(shown)))
        difference_bars(axes, list(shown.values()))
        for place, each in enumerate(shown.values()):
            value, beside = f"{each['difference']:+.3f}", axes.get_yaxis_transform()
            axes.text(1.02, place, value, va="center", color=_INK, transform=beside, fontsize=9)
        axes.set_yticks(range(len(shown)), list(shown))
        axes.set_title(f"Against {baseline}: {title}")
        axes.set_xlabel(f"nDCG@20 less that of {baseline}; line: 95 % interval, pale: it holds 0")
        return _saved(plt, figure, folder / "differences.png")


def difference_bars(axes: Axes, differences: Sequence[Mapping[str, Any]]) -> None:
    """A bar for each difference with its interval, the first on top; pale where the interval holds 0.

    :param differences: ``difference``, ``ci`` and ``significant`` of :func:`embedders.evaluation.evaluate.compare`.
    """
    for place, each in enumerate(differences):
        colour = PALE if not each["significant"] else GREEN if each["difference"] > 0 else ORANGE
        axes.barh(place, each["difference"], color=colour, height=0.66)
        axes.plot(each["ci"], [place, place], color=_INK, linewidth=1.4)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.invert_yaxis()


def _reliability(plt: Any, levels: Ints, known: Mapping[str, Floats], title: str) -> Any:
    figure, (predicted, relevant) = plt.subplots(1, 2, figsize=(8.6, 4.55))
    for name, probabilities in known.items():
        hit = metrics.correct(levels, probabilities) > 0
        _line(predicted, name, probabilities.max(axis=1), hit)
        chance = metrics.at_least(probabilities, metrics.RELEVANT_LEVEL)
        _line(relevant, name, chance, np.asarray(levels) >= metrics.RELEVANT_LEVEL)
    for axes, what, came in (
        (predicted, "most probable level", "share of pairs judged so"),
        (relevant, "level 4 or more", "share of pairs judged 4 or more"),
    ):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks(*_TICKS)
        axes.set_yticks(*_TICKS)
        axes.set_title(what.capitalize())
        axes.set_xlabel("probability it is given")
        axes.set_ylabel(came)
        axes.legend(title="calibration error", loc="upper left", frameon=False, fontsize=9, title_fontsize=9)
    figure.suptitle(f"Do the probabilities come true? {title}, {len(levels):,} pairs", x=0.01, ha="left", weight="bold")
    return figure


def _line(axes: Axes, name: str, confidence: Floats, true: Any) -> None:
    curve = reliability(confidence, true)
    colour, label = _COLOURS.get(name, _INK), f"{name} {curve.error:.3f}"
    axes.plot(curve.confidence, curve.share, "o-", color=colour, linewidth=1.5, markersize=4.5, label=label)


def _confusion(plt: Any, levels: Ints, known: Mapping[str, Floats], title: str) -> Any:
    width = max(5.6, 3.1 * len(known))
    figure, panels = plt.subplots(1, len(known), figsize=(width, 3.7), squeeze=False)
    for axes, (name, probabilities) in zip(panels[0], known.items(), strict=True):
        counts = confusion(levels, metrics.predicted_levels(probabilities))
        rows = counts.sum(axis=1, keepdims=True)
        shares = counts / np.maximum(rows, 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
        for row, column in np.ndindex(LEVELS, LEVELS):
            if rows[row, 0]:
                colour = "white" if shares[row, column] > 0.6 else _INK
                axes.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(LEVELS), range(1, LEVELS + 1))
        axes.set_yticks(range(LEVELS), [f"{level + 1}  ({count:,})" for level, count in enumerate(rows[:, 0])])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("most probable level")
        axes.set_title(name)
    panels[0, 0].set_ylabel("judged level (pairs)")
    figure.suptitle(f"What judged levels are taken for: {title}", x=0.01, ha="left", weight="bold")
    return figure


def _saved(plt: Any, figure: Any, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(figure, path)
    except OSError as error:
        raise PinfeatherError(f"Cannot draw {path} ({error}): name a folder that can be written.") from error
    finally:
        plt.close(figure)
    return path
