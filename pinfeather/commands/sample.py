"""The command that draws a sample of the search log for labelling."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Any

import click

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from pinfeather.options import FiniteRange, device_option, json_option, repo_option
from pinfeather.output import emit_json, say, table

_SCORERS = ["auto", "student", "zero-shot", "bm25"]


@click.command("sample")
@repo_option
@click.option(
    "--from", "first", metavar="DATE", show_envvar=True, help="First UTC day; default the last day of the log."
)
@click.option("--to", "last", metavar="DATE", show_envvar=True, help="Last UTC day; default that of --from.")
@click.option(
    "--count", default=1_000, show_default=True, show_envvar=True, type=click.IntRange(1), help="Pairs to draw."
)
@click.option("--seed", default=0, show_default=True, show_envvar=True, type=click.IntRange(0))
@click.option("--name", show_envvar=True, help="Name of the sample; default is its day or days.")
@click.option(
    "--unshown",
    default=0.2,
    show_default=True,
    show_envvar=True,
    type=FiniteRange(0, 1),
    help="Share of pairs that were retrieved and shown to nobody.",
)
@click.option(
    "--quota",
    "quotas",
    multiple=True,
    metavar="DIM=RULE",
    envvar="PINFEATHER_SAMPLE_QUOTA",
    show_envvar=True,
    help="lang, band, freshness or level by equal, sqrt (default) or proportional. Repeatable (in the variable: by "
    "spaces).",
)
@click.option(
    "--scorer",
    type=click.Choice(_SCORERS),
    default="auto",
    show_default=True,
    show_envvar=True,
    help="Who predicts levels and retrieves; auto takes the first that there is.",
)
@click.option(
    "--retrieved",
    default=50,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1, 1_000),
    help="Pins that a query is searched for.",
)
@click.option(
    "--min-users",
    default=1,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1),
    help="Distinct people that must have asked a query on these days.",
)
@device_option
@json_option
def sample_command(
    repo: str,
    first: str | None,
    last: str | None,
    quotas: tuple[str, ...],
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Draw pairs of the search log for labelling, spread over languages, popularity, freshness and predicted level.

    Distinct (query, pin) pairs that were shown on the days asked for, and pairs that the search finds and showed to
    nobody. Every pair has a weight, so that weighted sums estimate those over all of them: docs/labels.md. The same
    log, release and options give the same bytes. A sample is never overwritten by another.

    JSON: {sample, pairs, queries, shown, unshown, seed, from, to, file, strata: [{lang, band, freshness, level, size,
    pool, pool_level, taken, weight}], searched: [{lang, band, queries, searched, candidates, taken}], log_pairs,
    left_out, scored_by, scored_with, and the options}.

    \b
    Examples:
      pinfeather sample --repo my_repo --count 5000
      pinfeather sample --repo my_repo --from 2026-10-01 --to 2026-10-31 --name october --quota lang=equal
      pinfeather sample --repo my_repo --count 500 --unshown 0 --scorer bm25 --json
    """
    from pinfeather.sampling import SampleOptions, sample
    from pinfeather.sampling_rankers import open_ranker

    paths = RepoPaths.open(repo)
    options = SampleOptions(first=_day("--from", first), last=_day("--to", last), quotas=_quotas(quotas), **given)
    ranker = partial(open_ranker, paths, options.scorer, device)
    drawn = sample(paths, options, ranker, None if as_json else lambda step: say(f"sample: {step}"))
    if as_json:
        emit_json(drawn)
        return
    _show(drawn)


def _day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is no day: write it as 2026-11-01.") from error


def _quotas(given: tuple[str, ...]) -> dict[str, str]:
    rules: dict[str, str] = {}
    for text in given:
        dimension, _, rule = text.partition("=")
        if rules.setdefault(dimension, rule) != rule:
            raise UsageError(f"--quota {dimension} is given as {rules[dimension]} and as {rule}: give one of them.")
    return rules


def _show(drawn: dict[str, Any]) -> None:
    _table(drawn, "strata", f"Shown pairs of {drawn['from']} to {drawn['to']}")
    _table(drawn, "searched", "Retrieved and shown to nobody")
    for reason, count in drawn["left_out"].items():
        say(f"{count:,} left out: {reason}.")
    say(f"Levels by {drawn['scored_by']}. {drawn['pairs']:,} pairs of {drawn['queries']:,} queries: {drawn['file']}.")
    say(f"Label them: `pinfeather label --teacher NAME --sample {drawn['sample']}`.")


def _table(drawn: dict[str, Any], part: str, title: str) -> None:
    if rows := drawn[part]:
        table(title, list(rows[0]), [["any" if value is None else value for value in row.values()] for row in rows])
