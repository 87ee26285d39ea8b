"""The command group ``pinfeather import``."""

from __future__ import annotations

import click

from pinfeather.options import json_option
from pinfeather.output import emit_json, say, table


@click.group("import")
def import_command() -> None:
    """Turn a public data set into raw tables and judgments of a repository."""


@import_command.command("crowdflower")
@click.argument("path")
@click.argument("directory", metavar="DIR")
@json_option
def crowdflower_command(path: str, directory: str, as_json: bool) -> None:
    """CrowdFlower "Search Results Relevance" (Kaggle 2015) from PATH into the repository DIR, made if need be.

    PATH is the competition's train.csv or train.csv.zip, from https://www.kaggle.com/c/crowdflower-search-relevance
    (its competition rules apply), or a Parquet file with the same columns. Its median relevance 1 to 4 becomes the
    levels 1, 2, 4 and 5; it has no middle, so level 3 never occurs. Pins have title and description, nothing else.

    \b
    Examples:
      pinfeather import crowdflower train.csv crowdflower
      pinfeather validate --repo crowdflower && pinfeather aggregate --repo crowdflower
    """
    from pathlib import Path

    from pinfeather.importers.crowdflower import import_crowdflower
    from pinfeather.init import open_or_init

    paths = open_or_init(directory)
    counts = import_crowdflower(Path(path), paths.raw)
    if as_json:
        emit_json({"repo": str(paths.root), "tables": counts})
        return
    table("CrowdFlower", ["table", "rows"], list(counts.items()), str(paths.raw))
    say(f"Next: validate, aggregate, apply, materialize, evaluate, each with --repo {directory}.")
