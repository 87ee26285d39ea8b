"""Commands about spaces: list, create, backfill, freeze, unfreeze, diff, pin, unpin, drop."""

from __future__ import annotations

import sys
from typing import Any

import click

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.switchboard import TEXT_SOURCES
from pinfeather.commands.vectors import exit_if_rejected
from pinfeather.options import json_option, lock_timeout_option, repo_option, run_options, without_option
from pinfeather.output import emit_json, progress, say, say_at_once, table


@click.group("spaces")
def spaces_command() -> None:
    """Spaces: each one collection, bound to one model, one pin text template and one dimension."""


@spaces_command.command("list")
@repo_option
@json_option
def list_command(repo: str, as_json: bool) -> None:
    """List the spaces: which is live, how complete they are, who pins them.

    JSON: {"spaces": [{name, live, status, points, coverage, dimension, model, model_fingerprint, fields, template,
    words, pinned_by, view, created_at}]}.

    \b
    Examples:
      pinfeather spaces list --repo my_repo
      pinfeather spaces list --repo my_repo --json
    """
    from materialize.space_admin import list_spaces

    spaces = list_spaces(RepoPaths.open(repo))
    if as_json:
        emit_json({"spaces": spaces})
        return
    columns = ("name", "live", "status", "points", "coverage", "dimension", "pinned_by")
    rows = [[*(one[key] for key in columns[:-1]), ", ".join(one["pinned_by"]) or None] for one in spaces]
    table("Spaces", columns, rows)
    for one in spaces:
        if not one["words"]:
            say(f"Space {one['name']} is from before pins were found by words; `pinfeather spaces create` makes one.")
    if not spaces:
        say("None yet: the first `pinfeather materialize` makes one.")


@spaces_command.command("create")
@click.argument("name", required=False)
@repo_option
@click.option(
    "--model",
    metavar="packaged|DIR",
    show_envvar=True,
    help="A model folder or a tower folder; default: the model of the live space.",
)
@click.option(
    "--bundle",
    metavar="NAME",
    show_envvar=True,
    help="Pin tower, query tower and template of this student: its name or folder, or pretrained.",
)
@without_option(TEXT_SOURCES, "Leave this source out of the pin text.")
@click.option(
    "--dimension",
    type=click.IntRange(1),
    show_envvar=True,
    help="Keep the first components of the model's vectors only, scaled back to unit length.",
)
@lock_timeout_option
@json_option
def create_command(
    name: str | None,
    repo: str,
    model: str | None,
    bundle: str | None,
    without: tuple[str, ...],
    dimension: int | None,
    lock_timeout: float,
    as_json: bool,
) -> None:
    """Make a new, empty space beside the live one. JSON: a row of `spaces list`, and apply_needed.

    \b
    Examples:
      pinfeather spaces create --repo my_repo --without caption
      pinfeather spaces create small --repo my_repo --dimension 128
      pinfeather spaces create next --repo my_repo --bundle pretrained
    """
    from materialize.new_spaces import untrained_cut
    from materialize.space_admin import create_space, describe

    paths = RepoPaths.open(repo)
    space = create_space(
        paths, name, model=model, without=without, dimension=dimension, bundle=bundle, lock_timeout=lock_timeout
    )
    if warning := untrained_cut(space):
        say(f"Warning: {warning}")
    if as_json:
        emit_json({**describe(space, None, 0), "apply_needed": True})
        return
    say(f"Space {space.name}, dimension {space.dimension}, of {', '.join(r.name for r in space.template.rules)}.")
    say(f"Next: `pinfeather spaces backfill {space.name}`. `pinfeather apply` makes its Feast view.")
    if space.bundle:
        say(f"Then `pinfeather promote {space.name} --bundle {space.bundle}` takes both live.")


@spaces_command.command("backfill")
@click.argument("name")
@repo_option
@click.option(
    "--turn",
    type=click.IntRange(1),
    show_envvar=True,
    help="Pins added before the other spaces are brought up to date and other writers let in; default 65,536, and more "
    "while that takes less time than the scans.",
)
@run_options
@json_option
def backfill_command(name: str, repo: str, turn: int | None, as_json: bool, **given: Any) -> None:
    """Fill a new space while the live one serves and is kept up to date. Kill it at will: it goes on where it was.

    JSON: {space, new, changed, payload_only, encoded_texts, encoder_calls, upserted, deleted, seconds, turns, status,
    coverage, rejected, quarantined, interrupted}: the counts up to seconds summed over the turns, the others as of the
    last. Exit code 130 if a signal ended it between two batches; 3 if pins were rejected, as in `materialize`.

    \b
    Examples:
      pinfeather spaces backfill small --repo my_repo
      pinfeather spaces backfill small --repo my_repo --device cuda --json
    """
    from materialize.run import RunOptions
    from materialize.space_admin import backfill
    from materialize.spaces import load_space
    from materialize.stopping import stop_on_signal

    asked = name
    paths, name = _open(repo, name)
    total: dict[str, Any] = {key: 0 for key in _SUMMED}
    with stop_on_signal(say_at_once) as stop, progress(f"backfill {name}", as_json) as tell:
        options = RunOptions(**given, stop=stop, progress=tell, tell=say)
        for turns, counts in enumerate(backfill(paths, name, options, turn), 1):
            total = {key: total[key] + getattr(counts, key) for key in _SUMMED}
            last = {key: getattr(counts, key) for key in ("rejected", "quarantined", "interrupted")}
            if not as_json and counts.new:
                say(f"Turn {turns}: {counts.new:,} pins added, {counts.coverage or 0:.1%} of the space is there.")
    space = load_space(paths, name)
    if as_json:
        shown = {"turns": turns, "status": str(space.status), "coverage": space.coverage, **last}
        emit_json({"space": name, **total, "seconds": round(total["seconds"], 3), **shown})
    else:
        columns = [*_SUMMED, "rejected", "coverage"]
        table(f"Backfill of {name}", columns, [[*total.values(), last["rejected"], space.coverage]])
        say(f"It is {space.status}.")
    if last["interrupted"]:
        say("Interrupted. What was committed stays; run the same command again to go on.")
        sys.exit(130)
    if not as_json and asked != "live":
        say(f"Next: `pinfeather spaces diff live {name}`, then `pinfeather promote {name}`.")
    exit_if_rejected(last)


_SUMMED = ("new", "changed", "payload_only", "encoded_texts", "encoder_calls", "upserted", "deleted", "seconds")


@spaces_command.command("freeze")
@click.argument("name")
@repo_option
@json_option
def freeze_command(name: str, repo: str, as_json: bool) -> None:
    """Keep a space as it is: deleted pins still leave it, nothing else changes. JSON: a row of `spaces list`.

    \b
    Examples:
      pinfeather spaces freeze old-space --repo my_repo
      pinfeather spaces unfreeze old-space --repo my_repo
    """
    from materialize.spaces import freeze_space

    paths, name = _open(repo, name)
    _show(freeze_space(paths, name), f"Space {name} is frozen.", as_json)


@spaces_command.command("unfreeze")
@click.argument("name")
@repo_option
@json_option
def unfreeze_command(name: str, repo: str, as_json: bool) -> None:
    """Keep a frozen space fresh again, from the next run on. JSON: a row of `spaces list`.

    \b
    Examples:
      pinfeather spaces unfreeze old-space --repo my_repo
      pinfeather materialize --repo my_repo
    """
    from materialize.spaces import unfreeze_space

    paths, name = _open(repo, name)
    space = unfreeze_space(paths, name)
    todo = "materialize" if space.status == "ready" else f"spaces backfill {name}"
    _show(space, f"Space {name} is {space.status}; `pinfeather {todo}` brings it up to date.", as_json)


@spaces_command.command("diff")
@click.argument("a")
@click.argument("b")
@repo_option
@click.option("--sample", default=200, show_default=True, type=click.IntRange(1), show_envvar=True, help="Pins.")
@click.option("--seed", default=0, show_default=True, show_envvar=True, help="Of the sample.")
@json_option
def diff_command(a: str, b: str, repo: str, sample: int, seed: int, as_json: bool) -> None:
    """Compare two spaces: pins, coverage, neighbours (exact searches), cosine; `live` names a space too.

    JSON: {a, b, points_a, points_b, common, coverage_a, coverage_b, sample, overlap@10, mean_cosine, seed}.

    \b
    Examples:
      pinfeather spaces diff live small --repo my_repo
      pinfeather spaces diff live small --repo my_repo --sample 1000 --json
    """
    from materialize.comparison import diff_spaces
    from materialize.stores.errors import NoPublicationError

    paths = RepoPaths.open(repo)
    try:
        found = diff_spaces(paths, a, b, sample, seed)
    except NoPublicationError as error:
        raise PinfeatherError(
            f"The store of {paths.root} holds nothing: run `pinfeather restore` to refill it from the vector log."
        ) from error
    if as_json:
        emit_json(found)
        return
    sides = [[found[side], found[f"points_{side}"], found[f"coverage_{side}"]] for side in ("a", "b")]
    table("Spaces", ["space", "points", "coverage"], sides)
    shared = ["common", "sample", "overlap@10", "mean_cosine"]
    table("", shared, [[found[key] for key in shared]])


@spaces_command.command("pin")
@click.argument("name")
@repo_option
@click.option("--for", "who", required=True, metavar="WHO", show_envvar=True, help="Who reads the space.")
@json_option
def pin_command(name: str, repo: str, who: str, as_json: bool) -> None:
    """Say that somebody reads a space: it can be neither dropped nor frozen meanwhile. JSON: a row of `spaces list`.

    \b
    Examples:
      pinfeather spaces pin old-space --for related-pins --repo my_repo
      pinfeather spaces unpin old-space --for related-pins --repo my_repo
    """
    from materialize.spaces import pin_space

    paths, name = _open(repo, name)
    _show(pin_space(paths, name, who), f"Space {name} is pinned for {who}.", as_json)


@spaces_command.command("unpin")
@click.argument("name")
@repo_option
@click.option("--for", "who", required=True, metavar="WHO", show_envvar=True, help="Who no longer reads the space.")
@json_option
def unpin_command(name: str, repo: str, who: str, as_json: bool) -> None:
    """Take a pin back. JSON: a row of `spaces list`.

    \b
    Examples:
      pinfeather spaces unpin old-space --for related-pins --repo my_repo
      pinfeather spaces drop old-space --repo my_repo
    """
    from materialize.spaces import unpin_space

    paths, name = _open(repo, name)
    _show(unpin_space(paths, name, who), f"Space {name} is no longer pinned for {who}.", as_json)


@spaces_command.command("drop")
@click.argument("name")
@repo_option
@lock_timeout_option
@json_option
def drop_command(name: str, repo: str, lock_timeout: float, as_json: bool) -> None:
    """Remove a space: collection, ledger, vector log. Refused while anybody reads it.

    JSON: {space, points, apply_needed}.

    \b
    Examples:
      pinfeather spaces drop old-space --repo my_repo
      pinfeather apply --repo my_repo
    """
    from materialize.space_admin import drop_space

    paths, name = _open(repo, name)
    dropped = drop_space(paths, name, lock_timeout)
    if as_json:
        emit_json(dropped)
        return
    say(f"Space {name} is gone, with {dropped['points']:,} points.")
    if dropped["apply_needed"]:
        say("`pinfeather apply` takes its Feast view out of the registry.")


def _open(repo: str, name: str) -> tuple[RepoPaths, str]:
    from materialize.space_admin import physical_name

    paths = RepoPaths.open(repo)
    return paths, physical_name(paths, name)


def _show(space: Any, words: str, as_json: bool) -> None:
    from materialize.space_admin import describe

    if as_json:
        row = describe(space, None)
        emit_json({key: value for key, value in row.items() if key not in ("live", "points")})
    else:
        say(words)
