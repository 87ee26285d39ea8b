"""Commands that decide what serves: promote, rollback."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from pinfeather.options import FiniteRange, device_option, json_option, lock_timeout_option, repo_option
from pinfeather.output import emit_json, progress, say, table

if TYPE_CHECKING:
    from materialize.promotion import Switch


@click.command("promote")
@click.argument("space")
@repo_option
@click.option(
    "--overlap-min",
    default=0.3,
    show_default=True,
    show_envvar=True,
    type=FiniteRange(0, 1),
    help="Least share of a pin's ten neighbours that stay its neighbours.",
)
@click.option(
    "--ndcg-drop-max",
    default=0.01,
    show_default=True,
    show_envvar=True,
    type=FiniteRange(0, 1),
    help="Most that nDCG@20 by cosine may lose on the judgments.",
)
@click.option(
    "--sample", default=200, show_default=True, type=click.IntRange(1), show_envvar=True, help="Pins compared."
)
@click.option("--seed", default=0, show_default=True, show_envvar=True, help="Of the sample.")
@click.option(
    "--bundle",
    metavar="NAME",
    show_envvar=True,
    help="Student of this space, to go live with it: its name or folder, or pretrained.",
)
@click.option("--no-bundle", is_flag=True, show_envvar=True, help="Go live without a student: rank by cosine.")
@click.option(
    "--warm",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(0),
    show_envvar=True,
    help="Before the switch, encode the N most searched queries, for clients to begin with.",
)
@click.option("--force", is_flag=True, show_envvar=True, help="Promote although a check of the gate fails.")
@device_option
@lock_timeout_option
@json_option
def promote_command(
    space: str,
    repo: str,
    overlap_min: float,
    ndcg_drop_max: float,
    sample: int,
    seed: int,
    bundle: str | None,
    no_bundle: bool,
    warm: int,
    force: bool,
    device: str,
    lock_timeout: float,
    as_json: bool,
) -> None:
    """Make a space the live one, if it passes the gate: coverage 100 %, neighbours, nDCG where there are judgments.

    Exit code 1 if a check fails; then nothing changes. The former live space stays, for `rollback`.

    Clients that switch encode every query anew, unless the space has the query tower of the former one. --warm N has
    them begin with the vectors of the N queries of query_stats that were searched most. They are made before the gate
    is asked, and kept for the next attempt where it refuses.

    JSON: {space, former_space, release, former_release, switched, bundle, lexical, warmed, checks: [{name, value,
    bound, passed, words}], apply_needed}; warmed: queries whose vectors are ready, null without --warm.

    \b
    Examples:
      pinfeather promote small --repo my_repo
      pinfeather promote small --repo my_repo --bundle student-2 --json
      pinfeather promote small --repo my_repo --warm 10000
    """
    from materialize.encoders import Encoders
    from materialize.promotion import Gate, GateError, promote
    from materialize.space_admin import physical_name
    from pinfeather.promoting import judge_by_cosine, warm_head

    if bundle and no_bundle:
        raise UsageError("--bundle NAME and --no-bundle exclude each other.")
    paths = RepoPaths.open(repo)
    space, encoders = physical_name(paths, space), Encoders(device, few=True)
    try:
        with progress("head queries", as_json) as tell:
            switch = promote(
                paths,
                space,
                Gate(overlap_min, ndcg_drop_max, sample, seed, force),
                judge_by_cosine(paths, encoders),
                warm=warm_head(paths, warm, encoders, tell) if warm else None,
                bundle=bundle,
                without_bundle=no_bundle,
                lock_timeout=lock_timeout,
            )
    except GateError as error:
        switch = error.switch
    _tell(switch, space, as_json)
    if not switch.switched:
        sys.exit(1)


@click.command("rollback")
@repo_option
@click.option("--to", type=click.IntRange(1), show_envvar=True, help="Number of the release; default the one before.")
@lock_timeout_option
@json_option
def rollback_command(repo: str, to: int | None, lock_timeout: float, as_json: bool) -> None:
    """Let a former release serve again, written as a new one: its space, its student, its statistics.

    Refused if its space is gone, frozen or staler than the live one. What `promote --warm` made for it serves again.
    JSON: as of `promote`, without checks and warmed.

    \b
    Examples:
      pinfeather rollback --repo my_repo
      pinfeather rollback --repo my_repo --to 3 --json
    """
    from materialize.promotion import rollback

    switch = rollback(RepoPaths.open(repo), to, lock_timeout)
    if as_json:
        emit_json({key: value for key, value in switch.to_json().items() if key not in ("checks", "warmed")})
        return
    student = f"student {switch.bundle}" if switch.bundle else "no student"
    say(f"Release {switch.release} serves {switch.space}, with {student}.")
    _say_apply(switch.apply_needed)


def _tell(switch: Switch, space: str, as_json: bool) -> None:
    """What the gate found, and what serves now."""
    if as_json:
        emit_json(switch.to_json())
    else:
        rows = [[check.name, check.value, check.bound, check.passed] for check in switch.checks]
        table("Gate", ["check", "value", "bound", "passed"], rows)
    for check in switch.checks:
        say(check.words)
    if not switch.switched:
        failed = ", ".join(check.name for check in switch.checks if not check.passed)
        say(f"Error: Space {space} is not promoted ({failed}); release {switch.release} goes on serving.")
        say("--force promotes in spite of that.")
    elif not as_json:
        if switch.warmed is not None:
            say(f"Clients begin with the vectors of {switch.warmed:,} head queries.")
        say(f"Release {switch.release} serves {switch.space}; `pinfeather rollback` brings {switch.former_space} back.")
        _say_apply(switch.apply_needed)


def _say_apply(needed: bool) -> None:
    if needed:
        say("The live Feast view declares another dimension until you run `pinfeather apply`.")
