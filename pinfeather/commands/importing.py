"""The command group ``pinfeather import``."""

from __future__ import annotations

import click

from feature_repo.paths import RepoPaths
from pinfeather.importers.crowdflower import HELP
from pinfeather.options import json_option
from pinfeather.output import emit_json, say, table

_EXAMPLES = """Examples:
  pinfeather import crowdflower train.csv crowdflower
  pinfeather validate --repo crowdflower
"""


@click.group("import")
def import_command() -> None:
    """Turn a public data set into raw tables and judgments of a repository."""


@import_command.command("crowdflower", help=f"{HELP}\n\n\b\n{_EXAMPLES}")
@click.argument("path")
@click.argument("directory", metavar="DIR")
@json_option
def crowdflower_command(path: str, directory: str, as_json: bool) -> None:
    """Import CrowdFlower's graded pairs; the help is the importer's own text."""
    from pathlib import Path

    from pinfeather.importers.crowdflower import import_crowdflower
    from pinfeather.init import init_repository

    paths = RepoPaths(Path(directory).expanduser().absolute())
    is_new = not (paths.root / "feature_store.yaml").is_file()
    counts = import_crowdflower(Path(path), paths.raw)  # first: a file that cannot be read leaves nothing behind
    if is_new:
        init_repository(paths.root)
    if as_json:
        emit_json({"repo": str(paths.root), **counts})
        return
    table("CrowdFlower", ["what", "count"], list(counts.items()))
    say(f"Raw tables in {paths.raw}.")
    say(f"Next: validate, aggregate, apply, materialize, evaluate, each with --repo {directory}.")
