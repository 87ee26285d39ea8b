"""Commands that keep Qdrant fresh: plan, materialize."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from pinfeather.options import json_option, repo_option, run_options
from pinfeather.output import emit_json, progress, say, say_at_once, table

if TYPE_CHECKING:
    from materialize.run import RunOptions
    from materialize.standing import RunCounts

model_option = click.option(
    "--model",
    envvar="PINFEATHER_MODEL",
    show_envvar=True,
    metavar="packaged|DIR|bundle:NAME",
    help="Model of the first space: the packaged MiniLM (default), a model or tower folder, or a student's towers.",
)
space_option = click.option(
    "--space", metavar="NAME", show_envvar=True, help="This space alone; default every space that is kept."
)


rescan_option = click.option(
    "--rescan", is_flag=True, show_envvar=True, help="Read source files, too, that are as the last scan left them."
)


@click.command("plan")
@repo_option
@model_option
@space_option
@click.option(
    "--explain", metavar="PIN", show_envvar=True, help="Say of one pin what was written last and what is new."
)
@rescan_option
@json_option
def plan_command(
    repo: str, model: str | None, space: str | None, explain: str | None, rescan: bool, as_json: bool
) -> None:
    """Count what `materialize` would do now, without loading a model: pins, texts, tokens, seconds.

    Source files that are as the last scan left them are not read again.

    With --explain, compare one pin with what was written of it last. JSON: {pin_id, space, state, meaning, reason,
    written: {run, started, text_fp, event_timestamp}, source: {event_timestamp, text_fp}, text: {old, new}, fields:
    [{view, feature, old, new, old_run, old_event, new_event, changed, pushed}]}.

    \b
    Examples:
      pinfeather plan --repo my_repo
      pinfeather plan --repo my_repo --json
      pinfeather plan --repo my_repo --explain pin-17
    """
    paths = RepoPaths.open(repo)
    if explain is not None:
        if space is not None or rescan:
            raise UsageError("--explain reads all of one pin in the live space: leave --space and --rescan out.")
        _explain(paths, explain, model, as_json)
        return
    from materialize.plan_spaces import plan_spaces

    counts = plan_spaces(paths, model, space, rescan=rescan).to_json()
    if as_json:
        emit_json(counts)
    else:
        show_counts("Plan", counts)
        if counts["texts_to_encode"]:
            say(f"About {counts['estimated_seconds']:.0f} s of encoding for {counts['tokens']:,} tokens.")
        if counts["logged_texts"]:
            say(f"The ledger was lost: the vector log has {counts['logged_texts']:,} of the texts, which are not")
            say("encoded again for the pins that it has them of.")
    exit_if_rejected(counts)


def _explain(paths: RepoPaths, pin_id: str, model: str | None, as_json: bool) -> None:
    from materialize.explain import explain

    found = explain(paths, pin_id, model)
    if as_json:
        emit_json(found)
    else:
        show_explanation(found)
    if found["state"] == "unknown":
        sys.exit(1)


def show_explanation(found: dict[str, Any]) -> None:
    """A pin's fields as a table: what changed first, with the run that wrote the old and the time of the new value."""
    say(f"Pin {found['pin_id']}: {found['meaning']}.")
    if found["reason"]:
        say(f"Reason: {found['reason']}.")
    if found["written"]:
        written = found["written"]
        say(f"Its vector in {found['space']} was written by run {written['run']} ({written['started'] or 'unknown'}).")
    fields = sorted(found["fields"], key=lambda each: not each["changed"])
    rows = [
        (
            "*" if each["changed"] else "",
            f"{each['view']}.{each['feature']}",
            _cell(each["old"]),
            _cell(each["new"]),
            "pushed" if each["pushed"] else each["old_run"],
            each["new_event"],
        )
        for each in fields
        if each["changed"] or each["old"] is not None or each["new"] is not None
    ]
    if rows:
        table(f"Pin {found['pin_id']}", ("", "field", "old", "new", "old by run", "new since"), rows)


def _cell(value: Any) -> str | None:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else None if value is None else str(value)
    return text if text is None or len(text) <= 200 else f"{text[:199]}…"


@click.command("materialize")
@repo_option
@model_option
@space_option
@click.option("--only", multiple=True, metavar="PIN", show_envvar=True, help="These pins alone; repeatable.")
@click.option("--limit", type=click.IntRange(1), show_envvar=True, help="Write so many pins at most, the rest later.")
@rescan_option
@click.option("--retry-quarantined", is_flag=True, show_envvar=True, help="Try texts again that failed in the encoder.")
@click.option(
    "--metrics",
    type=click.Path(path_type=Path, dir_okay=False),
    show_envvar=True,
    help="Write the run's metrics there, as a Prometheus textfile.",
)
@run_options
@json_option
def materialize_command(as_json: bool, repo: str, only: tuple[str, ...], metrics: Path | None, **given: Any) -> None:
    """Embed what changed, write features and vectors to Qdrant, delete what is gone, publish.

    Safe to kill and to repeat. Ctrl-C and SIGTERM end it after the batch under way (exit code 130); running it again
    goes on. Pins without text, and pins whose text fails in the encoder, are counted as rejected (exit code 3).

    \b
    Examples:
      pinfeather materialize --repo my_repo
      pinfeather materialize --repo my_repo --device cuda --metrics /var/lib/node_exporter/pinfeather.prom
      pinfeather materialize --repo my_repo --only pin-17 --only pin-18
      pinfeather materialize --repo my_repo --limit 100000
    """
    from materialize.run import RunOptions
    from materialize.stopping import stop_on_signal

    paths = RepoPaths.open(repo)
    with stop_on_signal(say_at_once) as stop, progress("materialize", as_json, lines=True) as tell:
        options = RunOptions(**given, only=frozenset(only) or None, stop=stop, progress=tell, tell=say)
        counts = _run(paths, options, metrics).to_json()
    if as_json:
        emit_json(counts)
    else:
        show_counts("Materialized", counts)
    if counts["unknown"]:
        say(f"No such pins, neither in the sources nor in the ledger: {', '.join(counts['unknown'])}.")
    if counts["interrupted"]:
        say(
            f"Interrupted. {counts['upserted']:,} pins were written and published, {counts['remaining']:,} are left, "
            "and maybe deletions and feature rows: run the same command again to go on."
        )
        sys.exit(130)
    if counts["remaining"]:
        say(f"{counts['remaining']:,} pins are left for the next run.")
    exit_if_rejected(counts)


def _run(paths: RepoPaths, options: RunOptions, metrics: Path | None) -> RunCounts:
    """The run; its metrics are written however it ends."""
    from materialize.metrics import write_metrics
    from materialize.run import materialize
    from materialize.stores.errors import StoreError

    try:
        counts = materialize(paths, options)
    except BaseException:
        with suppress(PinfeatherError, StoreError):  # what ended the run is the news
            if metrics is not None and paths.ledger.is_dir():
                write_metrics(paths, metrics)
        raise
    if metrics is not None:
        write_metrics(paths, metrics)
    return counts


def show_counts(title: str, counts: dict[str, Any]) -> None:
    """Counts of a plan or run as two small tables."""
    names = ("new", "changed", "payload_only", "unchanged", "gone", "rejected")
    work = ("texts_to_encode", "encoder_calls", "encoded_texts", "upserted", "deleted", "seconds")
    table(title, [*names], [[counts[name] for name in names]])
    table("", [*work], [[counts[name] for name in work]])
    say(f"Pins of space {counts['space']}.")
    if counts["files_unchanged"]:
        same, files = counts["files_unchanged"], counts["files"]
        say(f"{same:,} of {files:,} source files are as the last scan left them: not read again (--rescan reads all).")
    rows = [
        (view, moved["changed"], moved["gone"]) for view, moved in counts["features"].items() if any(moved.values())
    ]
    if rows:
        table("Feature rows", ["view", "written", "removed"], rows)
    others = counts.get("spaces") or {}
    if others:
        rows = [(name, *(other[each] for each in (*names, "encoded_texts"))) for name, other in others.items()]
        table("Other spaces", ["space", *names, "encoded_texts"], rows)


def exit_if_rejected(counts: dict[str, Any]) -> None:
    """Say what was rejected, and end the process with code 3, if anything was."""
    if counts["rejected"]:
        say(f"{counts['rejected']:,} pins are rejected: without text in any field, so without a vector; or with a row")
        say("that `validate` rejected, or a text that the encoder cannot take, and so as they were.")
        if counts["quarantined"]:
            say(f"{counts['quarantined']:,} of them are in quarantine; `pinfeather plan --explain PIN` says why.")
        sys.exit(3)
