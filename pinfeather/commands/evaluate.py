"""The command that judges: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedders.evaluation.slices import SLICINGS
from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from feature_repo.switchboard import SOURCES, checked
from pinfeather.options import device_option, json_option, repo_option, without_option
from pinfeather.output import emit_json, progress, running_total, say
from pinfeather.writable import check_writable

if TYPE_CHECKING:
    from embedders.evaluation.pairs import PairSet
    from pinfeather.training import FileScores

SCORERS = ("bm25", "zero-shot", "student", "teacher")


@click.command("evaluate")
@repo_option
@click.option(
    "--scorer",
    "scorers",
    multiple=True,
    type=click.Choice(SCORERS),
    envvar="PINFEATHER_EVALUATE_SCORER",
    show_envvar=True,
    help="Repeatable (in the variable: by spaces); default bm25, zero-shot and student, or student with --pairs.",
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
    help="With --pairs: this student (a bundle's name or folder) instead of the release's; or, without --scorer "
    "student, this teacher.",
)
@click.option(
    "--teacher",
    metavar="NAME",
    show_envvar=True,
    help="With --pairs and --scorer teacher: this one (its name or folder); default: the only one.",
)
@click.option(
    "--scores",
    "scores_out",
    metavar="OUT",
    envvar="PINFEATHER_EVALUATE_SCORES",
    show_envvar=True,
    help="With --pairs: write a row per pair here.",
)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(SLICINGS),
    show_envvar=True,
    help="Figures of each slice, too. Repeatable (in the variable: by spaces).",
)
@click.option(
    "--against",
    type=click.Choice(SCORERS),
    show_envvar=True,
    help="Compare every scorer with this one, which is judged as well.",
)
@click.option("--trec", metavar="DIR", show_envvar=True, help="Write qrels and a run of each scorer here.")
@click.option(
    "--plots",
    metavar="DIR",
    show_envvar=True,
    help="Draw reliability and confusion of levels here, with --against also the differences.",
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
    teacher: str | None,
    scores_out: str | None,
    by: tuple[str, ...],
    against: str | None,
    trec: str | None,
    plots: str | None,
    without: tuple[str, ...],
    folds: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Judge scorers on human labels: ranking, levels and calibration, with 95 % intervals by bootstrap over queries.

    Without --pairs: the repository's judgments, by folds that share no query; the student is trained anew for each
    fold. With --pairs: the trained student (or another scorer) on a file. JSON is one object for one scorer, a list
    for several. --without measures what a source is worth: the student of a fold is trained without it too, while one
    that is trained already (--pairs) is asked with it masked. Labels of a teacher judge nobody: where a file has them
    (probability_1 to probability_5), `agreement` says how close a scorer is. docs/evaluation.md explains each figure.

    \b
    Examples:
      pinfeather evaluate --repo my_repo
      pinfeather evaluate --repo my_repo --without boards --without queries
      pinfeather evaluate --repo my_repo --scorer student --json
      pinfeather evaluate --repo my_repo --against bm25 --by lang --by age --plots figures
      pinfeather evaluate --repo my_repo --pairs held_out.parquet --scores scores.parquet
      pinfeather evaluate --pairs held_out.parquet --scorer teacher --bundle my_teacher --trec trec
    """
    _check_outputs(plots, trec)
    wanted = scorers or (SCORERS[:3] if pairs_file is None else ("student",))
    asked = _with_baseline(wanted, against)
    note = "95 % intervals by bootstrap over queries"
    if pairs_file is None:
        if bundle or scores_out or teacher:
            raise UsageError("--bundle, --teacher and --scores go with --pairs FILE.")
        pairs, answers = _of_repository(repo, asked, without, folds, seed, device, as_json)
        note = f"{folds} folds that share no query; {note}"
    else:
        out = _scores_path(scores_out, pairs_file, scorers)
        pairs = _read_pairs(pairs_file, by, without, plots)
        answers = _of_file(pairs, asked, repo, bundle, teacher, without, device)
        if out:
            _write_scores(out, pairs, next(one for one in answers if one.scorer == wanted[0]))
    rows = _judged(pairs, answers, by, against, seed, of_file=pairs_file is not None)
    _write(pairs, answers, rows, trec, plots)
    if as_json:
        emit_json(rows[0] if len(rows) == 1 else rows)
        return
    from pinfeather.evaluation_tables import show_figures

    show_figures(rows, note)


def _check_outputs(plots: str | None, trec: str | None) -> None:
    """What is missing for them is said before the work, not after it."""
    if plots is not None:
        from pinfeather.plots import load_pyplot

        load_pyplot()
        check_writable("--plots", plots)
    if trec is not None:
        check_writable("--trec", trec)


def _with_baseline(scorers: tuple[str, ...], against: str | None) -> tuple[str, ...]:
    """The scorers, each once, the baseline first if it is not among them."""
    return tuple(dict.fromkeys(scorers if against is None or against in scorers else (against, *scorers)))


def _of_repository(
    repo: str, scorers: tuple[str, ...], without: tuple[str, ...], folds: int, seed: int, device: str, quiet: bool
) -> tuple[PairSet, list[FileScores]]:
    from pinfeather.answers import cross_answers, refuse_teacher
    from pinfeather.judged import left_out
    from pinfeather.training import Judged

    refuse_teacher(scorers)  # before anything is encoded
    paths = RepoPaths.open(repo)
    with progress("encode", quiet) as tell:
        judged = Judged.read(paths, None, device, running_total(tell), without=without)
    judgments, queries = left_out(paths)
    if judgments:
        say(f"Left out: {judgments:,} judgments of pins not in the catalogue; {queries:,} queries have no other.")
    return judged.pairs, cross_answers(judged, scorers, folds, seed)


def _scores_path(scores_out: str | None, pairs_file: str, scorers: tuple[str, ...]) -> Path | None:
    from pinfeather.training import check_scores_path

    out = check_scores_path(scores_out, pairs_file) if scores_out else None
    if out and len(scorers) > 1:
        raise UsageError("--scores writes the rows of one scorer: give one --scorer.")
    return out


def _read_pairs(file: str, by: tuple[str, ...], without: tuple[str, ...], plots: str | None) -> PairSet:
    """The pairs, once it is sure that they can be judged as asked."""
    from embedders.evaluation.judging import contradictions
    from embedders.evaluation.pairs import PairSet
    from embedders.evaluation.slices import slice_rows

    checked(without)
    pairs = PairSet.from_file(file)
    for slicing in by:
        slice_rows(pairs, slicing)
    if plots is not None:
        pairs.require_levels()
    if pairs.teacher is not None:
        say(f"{file} has labels of a teacher (probability_1 to probability_5). Only people's labels judge a model: see")
        say("`agreement` for how close a scorer comes to the teacher.")
    if pairs.levels is None:
        say(f"{file} has no column `level`: scored, not judged.")
    elif found := contradictions(pairs):
        say(f"{found:,} rows come again with the same query and text and another level; each counts as it is.")
    return pairs


def _of_file(
    pairs: PairSet,
    scorers: tuple[str, ...],
    repo: str,
    bundle: str | None,
    teacher: str | None,
    without: tuple[str, ...],
    device: str,
) -> list[FileScores]:
    from pinfeather.training import score_file

    with progress("encode") as tell:
        return score_file(pairs, scorers, repo, bundle, device, running_total(tell), without, teacher)


def _judged(
    pairs: PairSet, answers: list[FileScores], by: tuple[str, ...], against: str | None, seed: int, of_file: bool
) -> list[dict[str, Any]]:
    """The figures of each scorer, with what it had to do without; of a file also how many rows contradict others."""
    from embedders.evaluation.judging import contradictions, judge

    rows = judge(pairs, answers, by, against, seed=seed)
    found = {"contradicting": contradictions(pairs)} if of_file and pairs.levels is not None else {}
    return [{**row, "without": list(answer.without), **found} for row, answer in zip(rows, answers, strict=True)]


def _write_scores(out: Path, pairs: PairSet, answer: FileScores) -> None:
    from pinfeather.training import write_scores

    write_scores(out, pairs, answer)
    say(f"Wrote {len(pairs):,} rows to {out}.")


def _write(
    pairs: PairSet, answers: list[FileScores], rows: list[dict[str, Any]], trec: str | None, plots: str | None
) -> None:
    if trec is not None:
        from embedders.evaluation.trec import MEASURE, write_trec

        for path in write_trec(pairs, answers, Path(trec)):
            say(f"Wrote {path}.")
        if pairs.levels is not None:
            say(f"Our nDCG@20 of them: ir_measures {trec}/qrels.txt {trec}/run.{answers[0].scorer}.txt '{MEASURE}'")
    if plots is not None:
        from pinfeather.plots_evaluation import draw_differences, draw_evaluation

        drawn = draw_evaluation(pairs.require_levels(), answers, Path(plots), pairs.name)
        differences = draw_differences(rows, Path(plots), pairs.name)
        for path in (*drawn, *([differences] if differences else [])):
            say(f"Drew {path}.")
