"""Commands that train and judge: train student, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from feature_repo.switchboard import SOURCES, checked
from pinfeather.commands.examples import examples_command
from pinfeather.options import device_option, json_option, repo_option, without_option
from pinfeather.output import emit_json, progress, running_total, say, table

FIGURES = ("ndcg@20", "precision@8", "accuracy", "within_one", "auroc_3", "auroc_4", "auroc_5")


@click.group("train")
def train_command() -> None:
    """Train models on the judgments."""


@train_command.command("student")
@repo_option
@click.option("--name", show_envvar=True, help="Name of the bundle; default student-N.")
@click.option("--seed", default=0, show_default=True, show_envvar=True)
@click.option(
    "--space", metavar="NAME", show_envvar=True, help="Train on this space, to go live with it by promote --bundle."
)
@without_option(SOURCES, "Train without this source; the bundle never reads it.")
@click.option(
    "--live/--no-live",
    default=None,
    show_envvar=True,
    help="Let the release name it; default: yes, but not with --without or another --space.",
)
@device_option
@json_option
def train_student_command(
    repo: str,
    name: str | None,
    seed: int,
    space: str | None,
    without: tuple[str, ...],
    live: bool | None,
    device: str,
    as_json: bool,
) -> None:
    """Fit the student's head on every judged pair, write the bundle and let the release name it.

    With --without it is an experiment that readers do not see, unless you say --live.

    \b
    Examples:
      pinfeather train student --repo my_repo
      pinfeather train student --repo my_repo --name no-boards --without boards --without engagement
      pinfeather evaluate --repo my_repo --pairs held_out.parquet --bundle no-boards
    """
    from materialize.spaces import live_space
    from pinfeather.training import Judged, train_student

    with progress("encode", as_json) as tell:
        judged = Judged.read(
            RepoPaths.open(repo), None, device, running_total(tell), space, without=without, reencode=False
        )
    trained = train_student(judged, name, seed, live)
    if as_json:
        emit_json(trained)
        return
    say(f"Bundle {trained['bundle']} of {trained['pairs']:,} pairs, {trained['queries']:,} queries.")
    say(f"It lies at {trained['folder']}.")
    if kept := trained["in_vectors"]:
        options = " ".join(f"--without {source}" for source in kept)
        say(f"It reads no {', '.join(kept)}, but the vectors of {trained['space']} are made with them.")
        say(f"For vectors without: `pinfeather spaces create {options}`, backfill it, then train with --space.")
    if trained["release"] is not None:
        say(f"Release {trained['release']} names it; readers see it now.")
    elif live_space(judged.paths).name != trained["space"]:
        say(f"It goes live with its space: `pinfeather promote {trained['space']} --bundle {trained['bundle']}`.")
    else:
        say(f"Readers do not see it. Judge it: `pinfeather evaluate --pairs FILE --bundle {trained['bundle']}`.")
        options = "".join(f" --without {source}" for source in trained["without"])
        say(f"One that goes live: `pinfeather train student{options} --live`.")


train_command.add_command(examples_command)


@click.command("evaluate")
@repo_option
@click.option(
    "--scorer",
    "scorers",
    multiple=True,
    type=click.Choice(["bm25", "zero-shot", "student"]),
    envvar="PINFEATHER_EVALUATE_SCORER",
    show_envvar=True,
    help="Repeatable (in the variable: by spaces); default all three, or student with --pairs.",
)
@click.option(
    "--pairs",
    "pairs_file",
    metavar="FILE",
    envvar="PINFEATHER_EVALUATE_PAIRS",
    show_envvar=True,
    help="Parquet or CSV: query, title, description?, level?, and any other field of the pin text.",
)
@click.option(
    "--bundle",
    metavar="NAME",
    show_envvar=True,
    help="With --pairs: this student (a bundle's name or folder) instead of the release's.",
)
@click.option(
    "--scores",
    "scores_out",
    metavar="OUT",
    envvar="PINFEATHER_EVALUATE_SCORES",
    show_envvar=True,
    help="With --pairs: write a row per pair here.",
)
@without_option(SOURCES, "Judge without this source: masked, and the pin text encoded without it.")
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2, 50), show_envvar=True)
@click.option("--seed", default=0, show_default=True, show_envvar=True)
@device_option
@json_option
def evaluate_command(
    repo: str,
    scorers: tuple[str, ...],
    pairs_file: str | None,
    bundle: str | None,
    scores_out: str | None,
    without: tuple[str, ...],
    folds: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Judge scorers on human labels: nDCG@20, precision@8, accuracy, AUROC at each level, with 95 % intervals.

    Without --pairs: the repository's judgments, by folds that share no query; the student is trained anew for each
    fold. With --pairs: the trained student (or another scorer) on a file. JSON is one object for one scorer, a list
    for several. --without measures what a source is worth: the student of a fold is trained without it too, while one
    that is trained already (--pairs) is asked with it masked.

    \b
    Examples:
      pinfeather evaluate --repo my_repo
      pinfeather evaluate --repo my_repo --without boards --without queries
      pinfeather evaluate --repo my_repo --scorer student --json
      pinfeather evaluate --repo my_repo --pairs held_out.parquet --scores scores.parquet
    """
    if pairs_file is None:
        if bundle or scores_out:
            raise UsageError("--bundle and --scores go with --pairs FILE.")
        from pinfeather.training import Judged, cross_validate_judged

        with progress("encode", as_json) as tell:
            judged = Judged.read(RepoPaths.open(repo), None, device, running_total(tell), without=without)
        figures = cross_validate_judged(judged, scorers or ("bm25", "zero-shot", "student"), folds, seed)
        note = f"{folds} folds that share no query; 95 % intervals by bootstrap over queries"
    else:
        figures = _evaluate_file(pairs_file, scorers or ("student",), repo, bundle, scores_out, without, device, seed)
        note = "95 % intervals by bootstrap over queries"
    if as_json:
        emit_json(figures[0] if len(figures) == 1 else figures)
        return
    show_figures(figures, note)


def _evaluate_file(
    file: str,
    scorers: tuple[str, ...],
    repo: str,
    bundle: str | None,
    scores_out: str | None,
    without: tuple[str, ...],
    device: str,
    seed: int,
) -> list[dict[str, Any]]:
    from embedders.evaluation.evaluate import evaluate_scores
    from embedders.evaluation.pairs import PairSet
    from pinfeather.training import check_scores_path, score_file, write_scores

    checked(without)  # before the file is read
    out: Path | None = check_scores_path(scores_out, file) if scores_out else None
    if out and len(scorers) > 1:
        raise UsageError("--scores writes the rows of one scorer: give one --scorer.")
    pairs = PairSet.from_file(file)
    with progress("encode") as tell:
        answers = score_file(pairs, scorers, repo, bundle, device, running_total(tell), without)
    if out:
        write_scores(out, pairs, answers[0])
        say(f"Wrote {len(pairs):,} rows to {out}.")
    if pairs.levels is None:
        say(f"{file} has no column `level`: scored, not judged.")
        empty = dict.fromkeys([name for figure in FIGURES for name in (figure, f"{figure}_ci")])
        queries = len(set(pairs.queries))
        head = {"dataset": pairs.name, "pairs": len(pairs), "queries": queries, **empty}
        return [{**head, "without": list(answer.without), "scorer": answer.scorer} for answer in answers]
    levels = pairs.levels
    return [
        {
            **evaluate_scores(pairs.name, one.scorer, pairs.queries, levels, one.probabilities, one.scores, seed=seed),
            "without": list(one.without),
        }
        for one in answers
    ]


def show_figures(figures: list[dict[str, Any]], note: str) -> None:
    """Figures of each scorer, each with its interval below."""
    rows: list[list[Any]] = []
    for one in figures:
        rows.append([one["scorer"], *(one[name] for name in FIGURES)])
        rows.append(["", *(_interval(one[f"{name}_ci"]) for name in FIGURES)])
    first = figures[0]
    title = f"{first['dataset']}: {first['pairs']:,} pairs, {first['queries']:,} queries"
    table(title, ["scorer", *FIGURES], rows, note)
    for one in figures:
        if one.get("without"):
            say(f"{one['scorer']}: without {', '.join(one['without'])}")


def _interval(bounds: Any) -> str:
    return f"{bounds[0]:.2f}-{bounds[1]:.2f}" if bounds and bounds[0] is not None else ""
