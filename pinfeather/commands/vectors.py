"""Commands that keep Qdrant fresh: plan, materialize, audit."""

from __future__ import annotations

import sys
from typing import Any

import click

from feature_repo.paths import RepoPaths
from pinfeather.options import device_option, json_option, precision_option, repo_option
from pinfeather.output import emit_json, progress, running_total, say, table

model_option = click.option(
    "--model",
    envvar="PINFEATHER_MODEL",
    show_envvar=True,
    metavar="packaged|DIR",
    help="Model of the first space: the packaged MiniLM (default) or a sentence-transformers folder.",
)


@click.command("plan")
@repo_option
@model_option
@json_option
def plan_command(repo: str, model: str | None, as_json: bool) -> None:
    """Count what `materialize` would do now, without loading a model: pins, texts, tokens, seconds.

    \b
    Examples:
      pinfeather plan --repo my_repo
      pinfeather plan --repo my_repo --json
    """
    from materialize.plan import plan

    counts = plan(RepoPaths.open(repo), model).to_json()
    if as_json:
        emit_json(counts)
    else:
        show_counts("Plan", counts)
        if counts["texts_to_encode"]:
            say(f"About {counts['estimated_seconds']:.0f} s of encoding for {counts['tokens']:,} tokens.")
    _exit(counts)


@click.command("materialize")
@repo_option
@model_option
@device_option
@precision_option
@click.option(
    "--max-gone",
    default=0.2,
    show_default=True,
    show_envvar=True,
    type=click.FloatRange(0, 1),
    help="Stop if more than this share of pins is gone.",
)
@click.option(
    "--allow-deletes", is_flag=True, show_envvar=True, help="Believe a source that lost more than --max-gone."
)
@click.option(
    "--lock-timeout",
    default=10.0,
    type=click.FloatRange(0, 86_400),
    show_default=True,
    show_envvar=True,
    help="Seconds to wait for another writer.",
)
@json_option
def materialize_command(as_json: bool, repo: str, **given: Any) -> None:
    """Embed what changed, write features and vectors to Qdrant, delete what is gone, publish.

    Safe to kill and to repeat. Pins without any text are counted as rejected (exit code 3).

    \b
    Examples:
      pinfeather materialize --repo my_repo
      pinfeather materialize --repo my_repo --device cuda
    """
    from materialize.run import RunOptions, materialize

    paths = RepoPaths.open(repo)
    with progress("materialize", as_json) as tell:
        counts = materialize(paths, RunOptions(**given, progress=tell, tell=say)).to_json()
    if as_json:
        emit_json(counts)
    else:
        show_counts("Materialized", counts)
    _exit(counts)


def show_counts(title: str, counts: dict[str, Any]) -> None:
    """Counts of a plan or run as two small tables."""
    names = ("new", "changed", "payload_only", "unchanged", "gone", "rejected")
    work = ("texts_to_encode", "encoder_calls", "encoded_texts", "upserted", "deleted", "seconds")
    table(title, [*names], [[counts[name] for name in names]])
    table("", [*work], [[counts[name] for name in work]])
    say(f"Pins of space {counts['space']}.")
    rows = [
        (view, moved["changed"], moved["gone"]) for view, moved in counts["features"].items() if any(moved.values())
    ]
    if rows:
        table("Feature rows", ["view", "written", "removed"], rows)


def _exit(counts: dict[str, Any]) -> None:
    if counts["rejected"]:
        say(f"{counts['rejected']:,} pins are rejected: without text in any field, so without a vector; or with a row")
        say("that `validate` rejected, and so as they were.")
        sys.exit(3)


@click.command("audit")
@repo_option
@click.option(
    "--sample", type=click.IntRange(1), show_envvar=True, help="Look at this many pins and rows a view; default all."
)
@click.option("--seed", default=0, show_default=True, show_envvar=True, help="Of the sample.")
@json_option
def audit_command(repo: str, sample: int | None, seed: int, as_json: bool) -> None:
    """Compare source, ledger, vector log and store, as readers see them; exit code 1 if they disagree.

    \b
    Examples:
      pinfeather audit --repo my_repo
      pinfeather audit --repo my_repo --sample 1000 --json
    """
    from materialize.audit import audit

    with progress("audit", as_json) as tell:
        result = audit(RepoPaths.open(repo), sample, seed, running_total(tell))
    if as_json:
        emit_json(result.to_json())
    else:
        show_audit(result.to_json())
        say("Clean." if result.clean else _NOT_CLEAN)
    if not result.clean:
        sys.exit(1)


_NOT_CLEAN = """Not clean: run `pinfeather materialize`, then audit again; it writes what is pending and what was lost.
If a point was altered behind its back, delete the space's folder under data/ledger and materialize: all points are
then written again out of the vector log, and none is encoded."""


def show_audit(counts: dict[str, Any]) -> None:
    """Counts of an audit as a table, with a few names behind each finding."""
    names = ("checked", "missing", "extra", "stale", "wrong_space", "corrupted", "ahead", "repaired")
    table("Audit", [*names], [[counts[name] for name in names]])
    for kind, examples in counts["examples"].items():
        say(f"{kind}: {', '.join(examples)}")
