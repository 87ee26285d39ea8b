"""The command group ``pinfeather import``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from feature_repo.paths import RepoPaths
from pinfeather.importers import crowdflower, esci, homedepot, wands
from pinfeather.options import Decorator, json_option
from pinfeather.output import emit_json, say, table

Importer = Callable[[Path, Path], dict[str, int]]


@click.group("import")
def import_command() -> None:
    """Turn a public data set into raw tables and judgments of a repository."""


def _data_set(name: str, text: str, path: str) -> Decorator:
    """A command of the group that takes PATH and DIR; its help is the importer's own ``text``, with examples.

    :param path: as the examples name what is imported.
    """
    help_ = f"{text}\n\n\b\nExamples:\n  pinfeather import {name} {path} {name}\n  pinfeather validate --repo {name}\n"

    def command(function: Callable[..., Any]) -> click.Command:
        taking = click.argument("path")(click.argument("directory", metavar="DIR")(function))
        return import_command.command(name, help=help_)(taking)

    return command


@_data_set("crowdflower", crowdflower.HELP, "train.csv")
@json_option
def crowdflower_command(path: str, directory: str, as_json: bool) -> None:
    """Import CrowdFlower's graded pairs."""
    _import("CrowdFlower", crowdflower.import_crowdflower, path, directory, as_json)


@_data_set("homedepot", homedepot.HELP, "train.csv.zip")
@json_option
def homedepot_command(path: str, directory: str, as_json: bool) -> None:
    """Import Home Depot's graded pairs."""
    _import("Home Depot", homedepot.import_homedepot, path, directory, as_json)


@_data_set("esci", esci.HELP, "--locale es shopping_queries_dataset")
@click.option(
    "--locale",
    "locales",
    type=click.Choice(list(esci.LANGUAGES)),
    multiple=True,
    show_envvar=True,
    help="Only this locale; may be repeated. Without it all three are taken: 1.8 million products.",
)
@json_option
def esci_command(path: str, directory: str, locales: tuple[str, ...], as_json: bool) -> None:
    """Import Amazon's graded pairs."""
    wanted = locales or tuple(esci.LANGUAGES)
    _import("ESCI", lambda source, raw: esci.import_esci(source, raw, wanted), path, directory, as_json)


@_data_set("wands", wands.HELP, "WANDS/dataset")
@json_option
def wands_command(path: str, directory: str, as_json: bool) -> None:
    """Import Wayfair's graded pairs."""
    _import("WANDS", wands.import_wands, path, directory, as_json)


def _import(title: str, importer: Importer, path: str, directory: str, as_json: bool) -> None:
    from pinfeather.init import init_repository

    paths = RepoPaths(Path(directory).expanduser().absolute())
    is_new = not (paths.root / "feature_store.yaml").is_file()
    counts = importer(Path(path), paths.raw)  # first: a file that cannot be read leaves nothing behind
    if is_new:
        init_repository(paths.root)
    if as_json:
        emit_json({"repo": str(paths.root), **counts})
        return
    table(title, ["what", "count"], list(counts.items()))
    say(f"Raw tables in {paths.raw}.")
    say(f"Next: validate, aggregate, apply, materialize, evaluate, each with --repo {directory}.")
