"""Commands of whoever is on call: audit, runs."""

from __future__ import annotations

import sys
from typing import Any

import click

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from pinfeather.options import json_option, repo_option, run_options
from pinfeather.output import emit_json, progress, running_total, say, table


@click.command("audit")
@repo_option
@click.option(
    "--sample", type=click.IntRange(1), show_envvar=True, help="Look at this many pins and rows a view; default all."
)
@click.option("--seed", default=0, show_default=True, show_envvar=True, help="Of the sample.")
@click.option("--repair", is_flag=True, show_envvar=True, help="Heal what is found, then audit again.")
@run_options
@json_option
def audit_command(repo: str, sample: int | None, seed: int, repair: bool, as_json: bool, **given: Any) -> None:
    """Compare source, ledger, vector log and store, as readers see them; exit code 1 if they disagree.

    --repair takes the writer lease and heals: vectors come back from the vector log, or are encoded where it has none;
    feature rows from their sources; what nothing stands behind is deleted. The counts are then those of the audit after
    it, and `before` those of the one before. The options below --repair are about its run.

    \b
    Examples:
      pinfeather audit --repo my_repo
      pinfeather audit --repo my_repo --sample 1000 --json
      pinfeather audit --repo my_repo --repair
    """
    from materialize.audit import audit

    paths = RepoPaths.open(repo)
    with progress("audit", as_json) as tell:
        if repair:
            from materialize.repair import repair as heal
            from materialize.run import RunOptions

            if sample is not None:
                raise UsageError("--repair looks at everything: leave --sample out.")
            healed = heal(paths, RunOptions(**given, tell=say), running_total(tell))
            result, answer = healed.after, {**healed.after.to_json(), "before": healed.before.to_json()}
        else:
            result = audit(paths, sample, seed, running_total(tell))
            answer = result.to_json()
    if as_json:
        emit_json(answer)
    else:
        if "before" in answer:
            show_audit(answer["before"], "Found")
        show_audit(answer, "After the repair" if repair else "Audit")
        say("Clean." if result.clean else _STILL if repair else _NOT_CLEAN)
    if not result.clean:
        sys.exit(1)


_NOT_CLEAN = """Not clean. What is stale may only wait for the next `pinfeather materialize`. For the rest, and for what
that leaves: `pinfeather audit --repair`."""
_STILL = """Still not clean: another process may have written meanwhile, so audit again. If it stays, see
docs/operations.md."""


def show_audit(counts: dict[str, Any], title: str = "Audit") -> None:
    """Counts of an audit as a table, with a few names behind each finding."""
    names = ("checked", "missing", "extra", "stale", "wrong_space", "corrupted", "ahead", "quarantined", "repaired")
    table(title, [*names], [[counts[name] for name in names]])
    for kind, examples in counts["examples"].items():
        say(f"{kind}: {', '.join(examples)}")


@click.command("runs")
@repo_option
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), show_envvar=True, help="So many at most."
)
@json_option
def runs_command(repo: str, limit: int, as_json: bool) -> None:
    """Past runs, newest first: how they ended, what they wrote, how fast they encoded.

    JSON: {"runs": [{run, space, started, ended, status, seconds, rate, rejected, quarantined, error, new, changed,
    payload_only, unchanged, gone, upserted, deleted, encoded_texts, remaining}]}. A status is running, done,
    interrupted, refused, failed, repair, or killed: begun, never ended, and nobody holds the writer lease.

    \b
    Examples:
      pinfeather runs --repo my_repo
      pinfeather runs --repo my_repo --limit 100 --json
    """
    from materialize.runs import list_runs

    runs = list_runs(RepoPaths.open(repo), limit)
    if as_json:
        emit_json({"runs": runs})
        return
    columns = ("run", "space", "status", "started", "seconds", "new", "changed", "gone", "upserted", "rejected", "rate")
    rows = [[run["started"][:19] if name == "started" else run[name] for name in columns] for run in runs]
    table("Runs", columns, rows)
    for run in runs:
        if run["error"]:
            say(f"Run {run['run']} {run['status']}: {run['error']}")
    if not runs:
        say("None yet: `pinfeather materialize` makes the first.")
