"""Commands about a repository and its tables: init, generate, validate, aggregate, lexical fit, apply."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from feature_repo.paths import RepoPaths
from pinfeather.options import as_of_option, json_option, parse_time, repo_option
from pinfeather.output import emit_json, progress, running_total, say, table


@click.command("init")
@click.argument("directory", metavar="DIR")
@json_option
def init_command(directory: str, as_json: bool) -> None:
    """Write a repository of your own into DIR: feature_store.yaml, definitions.py and a data folder.

    \b
    Examples:
      pinfeather init my_repo
      pinfeather generate --repo my_repo --pins 1000
    """
    from pinfeather.init import init_repository

    paths = init_repository(directory)
    if as_json:
        emit_json({"repo": str(paths.root)})
        return
    say(f"Wrote {paths.root}: feature_store.yaml, definitions.py, data/.")
    say(f"Next: put raw tables under {paths.raw} (or `pinfeather generate --repo {directory}`), then validate.")


@click.command("generate")
@repo_option
@click.option("--pins", default=5000, show_default=True, type=click.IntRange(100, 100_000), show_envvar=True)
@click.option(
    "--seed", default=0, show_default=True, type=int, show_envvar=True, help="The same seed, the same tables."
)
@json_option
def generate_command(repo: str, pins: int, seed: int, as_json: bool) -> None:
    """Fill the raw tables of a repository with a synthetic catalogue: topics, languages, boards, a log, judgments.

    \b
    Examples:
      pinfeather generate --repo my_repo --pins 1000
      pinfeather generate --repo my_repo --pins 100000 --seed 7
    """
    from pinfeather.generate import generate_catalogue

    paths = RepoPaths.open(repo)
    with progress("generate", as_json) as tell:
        report = generate_catalogue(paths.raw, pins=pins, seed=seed, progress=running_total(tell, pins))
    if as_json:
        emit_json({"synthetic": True, "seed": seed, "tables": report.rows, "raw": str(paths.raw)})
        return
    table("Synthetic catalogue", ["table", "rows"], list(report.rows.items()))
    say(f"Raw tables in {paths.raw}.")


@click.command("validate")
@repo_option
@json_option
def validate_command(repo: str, as_json: bool) -> None:
    """Check every raw table against its contract; rows that break it go to data/rejected with the reason.

    \b
    Examples:
      pinfeather validate --repo my_repo
      duckdb -c "SELECT reason, count(*) FROM 'my_repo/data/rejected/pins.parquet' GROUP BY 1"
    """
    from feature_repo.history import remember_pins
    from feature_repo.validation import validate
    from materialize.erasure.pending import is_pending

    paths = RepoPaths.open(repo)
    if is_pending(paths):
        say(f"An erasure was begun and not ended: run `pinfeather erase --repo {repo}`.")
    with progress("validate", as_json) as tell:
        report = validate(paths, progress=lambda table, rows: tell(rows, None))
    remember_pins(paths)  # else an edit loses the text that labels of today were judged by
    if as_json:
        emit_json(report.to_json())
    else:
        rows = [(n, r.files, r.read, r.rows, r.accepted, r.total_rejected, r.erased) for n, r in report.tables.items()]
        table("Raw tables", ["table", "files", "read now", "rows", "accepted", "rejected", "erased"], rows)
        for name, one in report.tables.items():
            for reason, count in one.rejected.items():
                say(f"{name}: {count:,} rejected: {reason}")
    if report.total_rejected:
        if not as_json:
            say(f"Rejected rows are kept in {paths.rejected} with their reasons.")
        sys.exit(3)


@click.command("aggregate")
@repo_option
@as_of_option("Count only events up to this time (ISO 8601); default now.")
@click.option(
    "--min-users", default=2, show_default=True, show_envvar=True, help="Distinct people behind each title or query."
)
@click.option("--full", is_flag=True, show_envvar=True, help="Count the whole search log, not only its new files.")
@json_option
def aggregate_command(repo: str, as_of: str | None, min_users: int, full: bool, as_json: bool) -> None:
    """Make the sources of every feature view from the validated tables.

    New files of the search log are merged into what was counted of the others; the result is that of a full count.

    \b
    Examples:
      pinfeather aggregate --repo my_repo
      pinfeather aggregate --repo my_repo --as-of 2026-06-01
      pinfeather aggregate --repo my_repo --full
    """
    from feature_repo.aggregates import aggregate

    paths = RepoPaths.open(repo)
    with progress("aggregate", as_json) as tell:
        report = aggregate(
            paths,
            as_of=parse_time(as_of),
            min_users=min_users,
            progress=lambda stage, done, total: tell(done, total),
            full=full,
        )
    if as_json:
        emit_json(report.to_json())
        return
    table(
        "View sources", ["view", "rows"], list(report.views.items()), caption=f"as of {report.as_of:%Y-%m-%d %H:%M} UTC"
    )
    why = f", counted in full: {report.log_reason}" if report.log_reason else ", merged with what was counted before"
    say(f"Search log: {report.log_files:,} files read{why}.")
    left_out = [(name, "later, or no such pin", count) for name, count in report.left_out.items() if count]
    reasons = [(name, reason, count) for name, found in report.screened.items() for reason, count in found.items()]
    if left_out or reasons:
        table("Left out", ["table", "reason", "rows"], [*left_out, *reasons])


@click.group("lexical")
def lexical_command() -> None:
    """Statistics behind BM25: documents, document frequencies, average lengths."""


@lexical_command.command("fit")
@repo_option
@as_of_option("Fit on pins whose features are not newer than this time; default all.")
@json_option
def fit_command(repo: str, as_of: str | None, as_json: bool) -> None:
    """Fit a statistics snapshot on the catalogue and name it in the release.

    \b
    Examples:
      pinfeather lexical fit --repo my_repo
      pinfeather lexical fit --repo my_repo --as-of 2026-06-01 --json
    """
    from pinfeather.pipeline import fit_lexical

    paths = RepoPaths.open(repo)
    fitted = fit_lexical(paths, parse_time(as_of))
    if as_json:
        emit_json(fitted)
        return
    say(f"Statistics {fitted['digest']} over {fitted['documents']:,} pins and {fitted['terms']:,} terms,")
    say(f"named by release {fitted['release']}.")


@click.command("apply")
@repo_option
@json_option
def apply_command(repo: str, as_json: bool) -> None:
    """Apply the repository's Feast definitions; the same as `feast -c DIR apply`.

    \b
    Examples:
      pinfeather apply --repo my_repo
      feast -c my_repo ui
    """
    from pinfeather.apply import apply_definitions

    paths = RepoPaths.open(repo)
    applied = apply_definitions(paths)
    if as_json:
        emit_json(applied)
        return
    say(f"Project {applied['project']}: applied {len(applied['views'])} views, {len(applied['services'])} services.")
    for name in (*applied["views"], *applied["services"]):
        click.echo(name)
    say(f"Registry: {Path(applied['registry'])}")
