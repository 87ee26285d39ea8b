"""The command ``pinfeather train examples``: labels with the features as they were."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from pinfeather.options import device_option, json_option, parse_time, precision_option, repo_option
from pinfeather.output import emit_json, progress, say, table

if TYPE_CHECKING:
    from pinfeather.label_sources import Labels


@click.command("examples")
@repo_option
@click.option("--out", required=True, metavar="FILE", show_envvar=True, help="The Parquet file to write.")
@click.option(
    "--labels",
    "labels_file",
    metavar="FILE",
    envvar="PINFEATHER_TRAIN_EXAMPLES_LABELS",
    show_envvar=True,
    help="Parquet or CSV: query, pin_id, event_timestamp, and level or label. Default: the judgments.",
)
@click.option(
    "--from-log",
    type=click.Choice(["click", "save"]),
    show_envvar=True,
    help="Instead: every pin that was shown, label 1 where people did this.",
)
@click.option(
    "--from-teacher",
    metavar="NAME",
    show_envvar=True,
    help="Instead: the pairs that this teacher (by name or version) labelled, with its five probabilities.",
)
@click.option(
    "--every",
    default=1,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1, 3650),
    help="Days between snapshots: as often as you aggregate in production.",
)
@click.option("--since", metavar="TIME", show_envvar=True, help="Only labels from this time on (ISO 8601).")
@click.option("--until", metavar="TIME", show_envvar=True, help="Only labels before this time.")
@click.option(
    "--min-users",
    default=2,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1),
    help="Distinct people behind each title or query, as in aggregate.",
)
@click.option(
    "--template-from",
    metavar="SPACE",
    show_envvar=True,
    help="Render the pin text as this space does; default is the live one.",
)
@click.option("--vectors", is_flag=True, show_envvar=True, help="Add vectors of pin text and query, by its model.")
@device_option
@precision_option
@json_option
@click.pass_context
def examples_command(
    context: click.Context,
    repo: str,
    out: str,
    labels_file: str | None,
    from_log: str | None,
    from_teacher: str | None,
    every: int,
    since: str | None,
    until: str | None,
    min_users: int,
    template_from: str | None,
    vectors: bool,
    device: str,
    precision: str,
    as_json: bool,
) -> None:
    """Write a training set: one row a label, with the features, the pin text and the lexical blob as they were.

    Every feature is that of the last snapshot strictly before its label; snapshots are kept in data/history and taken
    again only when what lies before them has changed. What the columns and the keys of FILE.json mean:
    docs/training_sets.md.

    \b
    Examples:
      pinfeather train examples --repo my_repo --out train.parquet
      pinfeather train examples --repo my_repo --out clicks.parquet --from-log click --every 7 --until 2026-10-01
      pinfeather train examples --repo my_repo --out train.parquet --labels labels.csv --vectors --json
      pinfeather train examples --repo my_repo --out soft.parquet --from-teacher teacher-1
    """
    from materialize.spaces import live_space, load_space
    from pinfeather.training_set import TrainingSetOptions, build_training_set, check_out

    named = {"--labels": labels_file, "--from-log": from_log, "--from-teacher": from_teacher}
    if len(given := [option for option, value in named.items() if value]) > 1:
        raise UsageError(f"{' and '.join(given)} are {len(given)} sources of labels: give one of them, or none.")
    for name in () if vectors else ("device", "precision"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name} is of the model that --vectors runs: give --vectors as well, or leave it out.")
    path = Path(labels_file) if labels_file else None
    target = check_out(Path(out), path)
    paths = RepoPaths.open(repo)
    start, end = _moment("--since", since), _moment("--until", until)
    space = load_space(paths, template_from) if template_from else live_space(paths)
    labels = _labels(paths, path, from_log, from_teacher, start, end)
    encoder = None
    if vectors:
        from materialize.encoders import Encoders

        encoder = Encoders(device, precision, tell=None if as_json else say).of(space)
    options = TrainingSetOptions(space.template, every, min_users, encoder)
    with progress("train examples", as_json) as tell:
        note = build_training_set(paths, labels, target, options, lambda stage, done, total: tell(done, total))
    if as_json:
        emit_json(note)
        return
    _show(note)


def _labels(
    paths: RepoPaths,
    file: Path | None,
    from_log: str | None,
    from_teacher: str | None,
    start: datetime | None,
    end: datetime | None,
) -> Labels:
    """The labels from ``start`` on and before ``end``, of the source that was named, or else the judgments."""
    from pinfeather import label_sources

    if from_log:
        return label_sources.from_log(paths, from_log, start, end)
    if from_teacher:
        return label_sources.from_teacher(paths, from_teacher).between(start, end)
    labels = label_sources.from_file(file) if file else label_sources.judgments(paths)
    return labels.between(start, end)


def _moment(option: str, text: str | None) -> datetime | None:
    try:
        return parse_time(text)
    except UsageError as error:
        raise UsageError(str(error).replace("--as-of", option)) from error


def _show(note: dict[str, Any]) -> None:
    from feature_repo.history import MASKED_REASONS

    rows, made, lexical = note["rows"], note["history"], note["lexical"]
    found = [(view, count, count / rows) for view, count in note["found"].items()]
    table(f"{rows:,} labels", ["view", "found", "share"], found)
    say(f"{note['rows_with_text']:,} have the pin text of then.")
    for reason, count in note["masked"].items():
        say(f"{count:,} masked, {reason}: {MASKED_REASONS[reason]}.")
    for reason, count in note["left_out"].items():
        say(f"{count:,} left out: {reason}.")
    say(f"Snapshots: {made['made']} taken, {made['reused']} kept, {made['megabytes']:,} MB, {made['seconds']:,} s.")
    say(f"Lexical statistics {lexical['digest']} as of {lexical['as_of']}, over {lexical['documents']:,} pins.")
    if not lexical["documents"]:
        say("No pin was known before the first label, so BM25 knows no word: leave early labels out with --since.")
    say(f"Wrote {note['out']} and {note['out']}.json.")
