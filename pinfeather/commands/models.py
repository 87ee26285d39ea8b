"""Commands that train: the group ``pinfeather train`` and its ``student``."""

from __future__ import annotations

from typing import Any

import click

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from feature_repo.switchboard import SOURCES
from pinfeather.commands.examples import examples_command
from pinfeather.commands.train_teacher import pairs_option, train_teacher_command
from pinfeather.options import FiniteRange, device_option, json_option, repo_option, without_option
from pinfeather.output import emit_json, progress, running_total, say


@click.group("train")
def train_command() -> None:
    """Train models on judgments and labels."""


@train_command.command("student")
@repo_option
@pairs_option
@click.option("--out", metavar="DIR", show_envvar=True, help="With --pairs: folder of the bundle.")
@click.option("--name", show_envvar=True, help="Name of the bundle; default student-N.")
@click.option(
    "--teacher",
    metavar="NAME",
    show_envvar=True,
    help="Learn its labels, too: by name or version; with --pairs its folder, and it labels them first.",
)
@click.option(
    "--human-share",
    type=FiniteRange(0, 1),
    show_envvar=True,
    help="With --teacher: how much people's levels count where a pair has both; default 0.5.",
)
@click.option("--towers/--no-towers", default=False, show_default=True, show_envvar=True, help="Train towers (v2).")
@click.option(
    "--shared/--separate", default=None, show_envvar=True, help="One tower for query and pin (default), or two."
)
@click.option(
    "--dimension", type=click.IntRange(1), show_envvar=True, help="Of the towers; default 256, with 128 and 64."
)
@click.option(
    "--rank",
    type=click.IntRange(0),
    show_envvar=True,
    help="Of the low-rank differences; default 32. 0 trains all weights: the bundle holds a whole model then.",
)
@click.option("--epochs", type=click.IntRange(1), show_envvar=True, help="Of the towers; default 2.")
@click.option(
    "--learning-rate",
    type=FiniteRange(0, min_open=True),
    show_envvar=True,
    help="Of the towers; default 5e-4, or 5e-5 with --rank 0.",
)
@click.option("--contrastive", type=FiniteRange(0), show_envvar=True, help="Weight of the in-batch term; default 0.1.")
@click.option(
    "--dropout",
    default=0.2,
    show_default=True,
    type=FiniteRange(0, 1),
    show_envvar=True,
    help="Share of pairs that the head also sees as if sources or vectors were missing.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), show_envvar=True)
@click.option(
    "--space", metavar="NAME", show_envvar=True, help="Train on this space, to go live with it by promote --bundle."
)
@without_option(SOURCES, "Train without this source; the bundle never reads it.")
@click.option(
    "--live/--no-live",
    default=None,
    show_envvar=True,
    help="Let the release name it; default: yes, but not with --towers, --without or another --space.",
)
@device_option
@json_option
def train_student_command(
    repo: str,
    files: tuple[str, ...],
    out: str | None,
    name: str | None,
    teacher: str | None,
    human_share: float | None,
    towers: bool,
    dropout: float,
    seed: int,
    space: str | None,
    without: tuple[str, ...],
    live: bool | None,
    device: str,
    as_json: bool,
    **tower_options: Any,
) -> None:
    """Train the student on every judged pair, and on a teacher's labels, and write the bundle.

    Without --towers (v1) it is a head over the vectors of the space, and the release names it. With --towers (v2) it
    brings towers of its own and goes live with a space for them. With --without it is an experiment that readers do
    not see, unless you say --live.

    \b
    Examples:
      pinfeather train student --repo my_repo
      pinfeather train student --repo my_repo --teacher teacher-1 --towers
      pinfeather train student --repo my_repo --name no-boards --without boards --without engagement
      pinfeather train student --pairs judged.parquet --teacher teacher --towers --out student
      pinfeather evaluate --repo my_repo --pairs held_out.parquet --bundle no-boards
    """
    from pinfeather.training import Judged
    from pinfeather.training_student import check_student, train_student, train_student_on_files

    given = {key: value for key, value in tower_options.items() if value is not None}
    if given and not towers:
        raise UsageError(f"--{next(iter(given)).replace('_', '-')} is of towers: add --towers, or leave it out.")
    if "dimension" in given:
        whole = given["dimension"]
        given["nested"] = tuple(size for size in (whole, whole // 2, whole // 4) if size >= 1)
    how = {**given, "seed": seed} if towers else None
    if bool(files) != (out is not None):
        raise UsageError("--pairs and --out go together: a student of files is written to a folder.")
    if files and out is not None:
        if name or space or without or live:
            raise UsageError("--name, --space, --without and --live are of a repository: leave them out with --pairs.")
        trained = train_student_on_files(files, out, seed, teacher, human_share, how, dropout, device, say)
    else:
        paths = RepoPaths.open(repo)
        check_student(paths, name, teacher, human_share)
        with progress("encode", as_json) as tell:
            judged = Judged.read(paths, None, device, running_total(tell), space, without=without, reencode=False)
        trained = train_student(judged, name, seed, live, teacher, human_share, how, dropout, device, say)
    if as_json:
        emit_json(trained)
        return
    _show(trained, files)


def _show(trained: dict[str, Any], files: tuple[str, ...]) -> None:
    bundle = trained["bundle"]
    say(f"Bundle {bundle} of {trained['pairs']:,} pairs, {trained['queries']:,} queries.")
    say(f"It lies at {trained['folder']}.")
    if kept := trained["in_vectors"]:
        options = " ".join(f"--without {source}" for source in kept)
        say(f"It reads no {', '.join(kept)}, but the vectors of {trained['space']} are made with them.")
        say(f"For vectors without: `pinfeather spaces create {options}`, backfill it, then train with --space.")
    if trained["release"] is not None:
        say(f"Release {trained['release']} names it; readers see it now.")
    elif trained["has_towers"]:
        named = trained["folder"] if files else bundle
        say(f"Judge it: `pinfeather evaluate --pairs FILE --scorer student --bundle {named}`.")
        say(
            f"It goes live with a space: `pinfeather spaces create NAME --bundle {named}`, `pinfeather spaces backfill`"
        )
        say(f"NAME, `pinfeather promote NAME --bundle {bundle}`.")
    elif trained["space"] and trained["of_live"] is False:
        say(f"It goes live with its space: `pinfeather promote {trained['space']} --bundle {bundle}`.")
    else:
        say(f"Readers do not see it. Judge it: `pinfeather evaluate --pairs FILE --bundle {trained['folder']}`.")
        options = "".join(f" --without {source}" for source in trained["without"])
        if trained["space"]:
            say(f"One that goes live: `pinfeather train student{options} --live`.")


train_command.add_command(train_teacher_command)
train_command.add_command(examples_command)
