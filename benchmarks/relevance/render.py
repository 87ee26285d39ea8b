"""The tables and plots of docs/results.md out of the JSON in benchmarks/results: no number there is typed by hand.

Run from the checkout's root, after any of the commands (a second; ``--check`` only says whether the page is old):

    .venv/bin/python -m benchmarks.relevance.render

Each table stands between ``<!-- relevance:NAME -->`` and ``<!-- /relevance:NAME -->``; the words around it are written
by hand and stay. A table whose JSON is not there says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, ROOT

PAGE, PLOTS = ROOT / "docs" / "results.md", ROOT / "docs" / "plots"
COMMANDS = {
    "training": "train",
    "backbones": "backbones",
    "folds": "folds",
    "sources": "sources",
    "distillation": "distillation",
    "distillation_small": "distillation --small",
    "amounts": "amounts",
    "languages": "languages",
    "features": "features",
}
"""The tables, and the command of each."""
TABLES = tuple(COMMANDS)
PICTURES = TABLES[1:]
"""Those that have a plot."""
Report = Mapping[str, Any]
Row = Mapping[str, Any]
TITLES = {
    "ndcg@20": "nDCG@20",
    "precision@8": "precision@8",
    "auroc_3": "AUROC 3+",
    "auroc_4": "AUROC 4+",
    "auroc_5": "AUROC 5+",
}


def figure(row: Row, key: str) -> str:
    """A figure with its interval, three digits; empty where it is not defined."""
    if row[key] is None:
        return ""
    low, high = row[f"{key}_ci"]
    return f"{row[key]:.3f} [{low:.3f}, {high:.3f}]"


def difference(row: Row, base: str, key: str) -> str:
    """A paired difference with its interval, bold where that excludes 0."""
    each = row["minus"].get(base, {}).get(key)
    if not each or each["difference"] is None:
        return ""
    text = f"{each['difference']:+.3f} [{each['ci'][0]:+.3f}, {each['ci'][1]:+.3f}]"
    return f"**{text}**" if each["significant"] else text


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _of(report: Report, dataset: str) -> list[Row]:
    return [row for row in report["rows"] if row["dataset"] == dataset]


def _datasets(report: Report) -> list[str]:
    return list(dict.fromkeys(row["dataset"] for row in report["rows"]))


def _size(row: Row) -> str:
    return f"{row['dataset']}: {row['pairs']:,} judged pairs, {row['queries']:,} queries"


def _training(report: Report) -> str:
    stages = {name: report[name] for name in ("teacher", "labels", "student", "whole") if name in report}
    lines = {name: [name, *_minutes(one), f"{one['pairs']:,}"] for name, one in stages.items()}
    used = [one for name, one in stages.items() if name != "whole"]
    total = {key: sum(one[key] for one in used) for key in ("seconds", "processor_seconds")}
    rows = [lines[name] for name in lines if name != "whole"]
    rows += [["all of these", *_minutes(total), ""]] if len(used) == 3 else []
    if "whole" in lines:
        rows.append(["student, all weights", *lines["whole"][1:]])
    return markdown(["stage", "minutes", "of processors", "pairs"], rows)


def _minutes(one: Mapping[str, Any]) -> list[str]:
    return [f"{one[key] / 60:.1f}" for key in ("seconds", "processor_seconds")]


def _backbones(report: Report) -> str:
    shown = ([one["name"], f"not run: {one['why']}"] for one in report["not_run"])
    return "\n\n".join([*_scorers(report), markdown(["backbone", "result"], shown)])


def _folds(report: Report) -> str:
    parts = _scorers(report)
    scorers = [scorer for scorer in dict.fromkeys(row["scorer"] for row in report["folds"]) if scorer != "BM25"]
    by_fold: dict[tuple[str, int], dict[str, Row]] = {}
    for row in report["folds"]:
        by_fold.setdefault((row["dataset"], row["fold"]), {})[row["scorer"]] = row
    lines = [
        [dataset, str(fold), f"{rows[scorers[0]]['queries']:,}"]
        + [f"{rows[scorer][key]:.3f}" for key in ("ndcg@20", "auroc_4") for scorer in scorers]
        for (dataset, fold), rows in by_fold.items()
    ]
    head = [f"{scorer}: {TITLES[key]}" for key in ("ndcg@20", "auroc_4") for scorer in scorers]
    parts += ["Each fold on its own:", markdown(["set", "fold", "queries", *head], lines)]
    return "\n\n".join(parts)


def _scorers(report: Report) -> list[str]:
    """The scorers of each set, their differences, and what students keep of the teacher's gain."""
    parts = []
    for dataset in _datasets(report):
        rows = _of(report, dataset)
        keys = ("ndcg@20", "precision@8", "accuracy", "auroc_3", "auroc_4", "auroc_5")
        parts.append(f"**{_size(rows[0])}**")
        parts.append(
            markdown(
                ["scorer", *(TITLES.get(key, key) for key in keys)],
                ([row["scorer"], *(figure(row, key) for key in keys)] for row in rows),
            )
        )
        head = ["scorer minus", "BM25: nDCG@20", "BM25: AUROC 4+", "zero-shot: nDCG@20", "zero-shot: AUROC 4+"]
        compared = [(base, key) for base in ("BM25", "zero-shot") for key in ("ndcg@20", "auroc_4")]
        parts.append(
            markdown(head, ([row["scorer"], *(difference(row, *each) for each in compared)] for row in rows[1:]))
        )
    if report["kept"]:
        shown = [
            [one["student"], one["dataset"], _share(one["ndcg@20"]), _share(one["auroc_4"])] for one in report["kept"]
        ]
        parts.append("Share of the teacher's gain over zero-shot that a student keeps:")
        parts.append(markdown(["student", "set", "of nDCG@20", "of AUROC 4+"], shown))
    return parts


def _share(one: Mapping[str, Any]) -> str:
    if one["share"] is None:
        return "the teacher gains nothing"
    return f"{one['share']:.0%}" + (f" [{one['ci'][0]:.0%}, {one['ci'][1]:.0%}]" if one["ci"] else "")


def _sources(report: Report) -> str:
    rows = report["rows"]
    human = markdown(
        ["scorer, text shown", "nDCG@20", "AUROC 4+", "AUROC 4+ minus both texts"],
        ([row["scorer"], figure(row, "ndcg@20"), figure(row, "auroc_4"), _minus_both(row)] for row in rows),
    )
    steps = report["generated"]["rows"]
    scorers = list(dict.fromkeys(row["scorer"] for row in steps))
    by_step: dict[str, dict[str, Row]] = {}
    for row in steps:
        by_step.setdefault(row["added"], {})[row["scorer"]] = row
    head = ["sources", *(f"{scorer}: {TITLES[key]}" for key in ("ndcg@20", "auroc_4") for scorer in scorers)]
    made = markdown(
        head,
        (
            [
                f"`{added}`" if not number else f"+ `{added}`",
                *(figure(each[scorer], key) for key in ("ndcg@20", "auroc_4") for scorer in scorers),
            ]
            for number, (added, each) in enumerate(by_step.items())
        ),
    )
    count = f"{report['generated']['pins']:,} pins, {steps[0]['pairs']:,} judged pairs of {steps[0]['queries']} queries"
    return "\n\n".join([f"**{_size(rows[0])}**", human, f"**Generated catalogue: {count}**", made])


def _minus_both(row: Row) -> str:
    base = row["scorer"].split(",")[0] + ", title and description"
    return difference(row, base, "auroc_4")


def _distillation(report: Report) -> str:
    draws = len(report["seeds"])
    parts = [f"x is {report['x']:,} pairs; {f'means of {draws} draws' if draws > 1 else 'one draw'}."]
    for dataset in _datasets(report):
        rows = {row["scorer"]: row for row in _of(report, dataset)}
        factors = [name.removeprefix("distilled ") for name in rows if name.startswith("distilled ")]
        parts.append(f"**{_size(next(iter(rows.values())))}**")
        head = ["amount", "pairs", "nDCG@20", "AUROC 4+", "nDCG@20 minus 1x", "AUROC 4+ minus 1x"]
        beside = "human 1x" in rows
        lines = []
        for factor in factors:
            soft = rows[f"distilled {factor}"]
            figures = [cell(soft, key) for cell in (figure, _minus_1x) for key in ("ndcg@20", "auroc_4")]
            hard = [figure(rows[f"human {factor}"], "auroc_4")] if beside else []
            lines.append([factor, f"{soft['train_pairs']:,}", *figures, *hard])
        parts.append(markdown([*head, *(["as many human labels: AUROC 4+"] if beside else [])], lines))
        others = [row for name, row in rows.items() if row["train_pairs"] is None]
        said = ", ".join(f"{row['scorer']} {row['ndcg@20']:.3f} and {row['auroc_4']:.3f}" for row in others)
        parts.append(f"Beside it, nDCG@20 and AUROC 4+: {said}.")
    return "\n\n".join(parts)


def _minus_1x(row: Row, key: str) -> str:
    return difference(row, "distilled 1x", key)


def _languages(report: Report) -> str:
    scorers = list(dict.fromkeys(row["scorer"] for row in report["rows"]))
    by_dataset = {dataset: {row["scorer"]: row for row in _of(report, dataset)} for dataset in _datasets(report)}
    lines = []
    for each in by_dataset.values():
        first = next(iter(each.values()))
        seen = "seen" if first["seen"] else "unseen"
        cells = [figure(each[name], "auroc_4") if name in each else "" for name in scorers]
        lines.append([first["set"], first["language"], seen, f"{first['queries']:,}", *cells])
    return markdown(["set", "query", "by the labels", "queries", *scorers], lines)


def _features(report: Report) -> str:
    parts = []
    for dataset in _datasets(report):
        rows = _of(report, dataset)
        parts.append(f"**{_size(rows[0])}, {rows[0]['train_pairs']:,} to train on**")
        head = ["features of the head", "nDCG@20", "AUROC 4+", "nDCG@20 minus all", "AUROC 4+ minus all"]
        lines = []
        for row in rows:
            minus = [difference(row, "all features", key) for key in ("ndcg@20", "auroc_4")]
            lines.append([row["scorer"], figure(row, "ndcg@20"), figure(row, "auroc_4"), *minus])
        parts.append(markdown(head, lines))
    return "\n\n".join(parts)


_RENDERERS: Mapping[str, Callable[[Report], str]] = {
    "training": _training,
    "backbones": _backbones,
    "folds": _folds,
    "sources": _sources,
    "distillation": _distillation,
    "distillation_small": _distillation,
    "amounts": _distillation,
    "languages": _languages,
    "features": _features,
}


def rendered(name: str, folder: Path = RESULTS) -> str:
    """What stands between the markers of one table."""
    path = folder / f"relevance_{name}.json"
    if not path.is_file():
        return f"Not run yet: `python -m benchmarks.relevance.{COMMANDS[name]}`."
    report = json.loads(path.read_text())
    commit = (report["commit"] or "unknown")[:7]
    source = (
        f"`{report['command']}`, size {report['size']}, {report['date'][:10]}, commit {commit} and the changes that "
        f"came with this page, {report['cpu']}, {report['processors']} processors; "
        f"[JSON](../benchmarks/results/relevance_{name}.json). In brackets 95 % intervals by bootstrap over queries; "
        "bold: a paired difference whose interval excludes 0."
    )
    return f"{_RENDERERS[name](report)}\n\n{source}"


def render(page: str, folder: Path = RESULTS) -> str:
    """The page with every table as of the JSON.

    :raises ValueError: if a marker is missing.
    """
    for name in TABLES:
        start, end = f"<!-- relevance:{name} -->\n", f"<!-- /relevance:{name} -->"
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"The page has no {start.strip()} with an end: put the markers back.")
        page = f"{before}{start}\n{rendered(name, folder)}\n\n{end}{after}"
    return page


def main() -> None:
    """Write page and plots, or check the page."""
    from benchmarks.relevance.plots import draw

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the page is not what would be written"
    )
    options = parser.parse_args()
    page = PAGE.read_text()
    new = render(page)
    if options.check:
        raise SystemExit(0 if new == page else f"{PAGE} is not as of the JSON: run `{parser.prog}`.")
    PAGE.write_text(new)
    for name in PICTURES:
        path = RESULTS / f"relevance_{name}.json"
        if path.is_file():
            print(draw(name, json.loads(path.read_text()), PLOTS))


if __name__ == "__main__":
    main()
