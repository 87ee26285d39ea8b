"""The command that lets a teacher label samples."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from feature_repo.paths import RepoPaths
from pinfeather.options import device_option, json_option, lock_timeout_option, precision_option, repo_option
from pinfeather.output import emit_json, progress, say, say_at_once, table

if TYPE_CHECKING:
    from pinfeather.labelling import LabelCounts


@click.command("label")
@repo_option
@click.option(
    "--teacher",
    metavar="NAME|DIR",
    show_envvar=True,
    help="A teacher of the repository, or a folder; default the only one there is.",
)
@click.option(
    "--sample",
    "samples",
    multiple=True,
    metavar="NAME",
    envvar="PINFEATHER_LABEL_SAMPLE",
    show_envvar=True,
    help="A sample. Repeatable (in the variable: by spaces); default all.",
)
@click.option("--limit", type=click.IntRange(1), show_envvar=True, help="So many pairs at most, the rest later.")
@click.option(
    "--chunk",
    default=2_048,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1),
    help="Pairs between two writes: what a kill costs at most.",
)
@device_option
@precision_option
@lock_timeout_option
@json_option
def label_command(
    repo: str,
    teacher: str | None,
    samples: tuple[str, ...],
    limit: int | None,
    chunk: int,
    device: str,
    precision: str,
    lock_timeout: float,
    as_json: bool,
) -> None:
    """Let a teacher give five probabilities to every pair of the samples; pairs whose text is unchanged are skipped.

    Labels lie in data/labels/<teacher version>, each with the hash of the pin text that was read and the time. Safe to
    kill and to repeat: Ctrl-C and SIGTERM end it after the chunk under way (exit code 130). What the columns mean:
    docs/labels.md.

    JSON: {teacher, teacher_version, pairs, labelled, relabelled, skipped, gone, textless, remaining, encoded_pairs,
    seconds, interrupted}.

    \b
    Examples:
      pinfeather label --repo my_repo --teacher teacher-1
      pinfeather label --repo my_repo --teacher teacher-1 --sample october --limit 10000
      pinfeather label --repo my_repo --teacher models/teacher --device cuda --precision bf16 --json
    """
    from embedders.teacher import Teacher
    from materialize.stopping import stop_on_signal
    from pinfeather.answers import named_models
    from pinfeather.labelling import LabelOptions, chosen_samples, label

    paths = RepoPaths.open(repo)
    chosen = chosen_samples(paths, samples)  # before the model is loaded
    _, folder = named_models(paths, ("teacher",), None, teacher)
    loaded = Teacher.load(str(folder), device, precision)
    with stop_on_signal(say_at_once) as stop, progress("label", as_json, lines=True) as tell:
        options = LabelOptions(chosen, limit, chunk, lock_timeout, tell, stop)
        counts = label(paths, loaded, options)
    if as_json:
        emit_json(counts.to_json())
    else:
        _show(counts)
    if counts.interrupted:
        say("Interrupted. What was labelled is kept: run the same command again to go on.")
        sys.exit(130)


def _show(counts: LabelCounts) -> None:
    answer = counts.to_json()
    names = ("pairs", "labelled", "relabelled", "skipped", "gone", "textless", "remaining", "encoded_pairs", "seconds")
    table(f"Labels by {counts.teacher}", names, [[answer[name] for name in names]])
    say(f"Teacher version {counts.teacher_version}.")
