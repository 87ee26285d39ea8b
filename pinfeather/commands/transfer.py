"""Commands that move vectors and towers: export, restore."""

from __future__ import annotations

from typing import Any

import click

from feature_repo.paths import RepoPaths
from pinfeather.options import json_option, lock_timeout_option, repo_option
from pinfeather.output import emit_json, progress, say, table


@click.group("export")
def export_command() -> None:
    """Write what others follow."""


@export_command.command("vectors")
@repo_option
@click.option("--since", required=True, type=click.IntRange(0), show_envvar=True, metavar="RUN", help="0 for all.")
@click.option("--space", metavar="NAME", show_envvar=True, help="Default: the live one.")
@click.option(
    "--out", default="vectors", show_default=True, show_envvar=True, metavar="DIR", help="Folder to write to."
)
@json_option
def export_vectors_command(repo: str, since: int, space: str | None, out: str, as_json: bool) -> None:
    """Write the vectors of the runs after RUN, the last one of each pin, and the pins deleted since, as Parquet.

    Apply deletions.parquet (pin_id, run, deleted_at) first, then vectors.parquet (pin_id, embedding, text_fp, run,
    event_timestamp, created_timestamp). JSON: {space, model_fingerprint, dimension, since, next_since, vectors,
    deletions, files}; give next_since as --since next time.

    \b
    Examples:
      pinfeather export vectors --since 0 --out /data/vectors --repo my_repo
      pinfeather export vectors --since 12 --space small --repo my_repo --json
    """
    from materialize.vector_export import export_vectors

    done = export_vectors(RepoPaths.open(repo), since, out, space).to_json()
    if as_json:
        emit_json(done)
        return
    say(f"{done['vectors']:,} vectors and {done['deletions']:,} deletions of space {done['space']}:")
    for file in done["files"].values():
        click.echo(file)
    say(f"Next time: --since {done['next_since']}.")


@export_command.command("tower")
@click.argument("bundle")
@click.argument("out", metavar="OUT")
@repo_option
@click.option(
    "--tower",
    type=click.Choice(["query", "pin"]),
    default="pin",
    show_default=True,
    show_envvar=True,
    help="Which one; many students have one tower for both.",
)
@click.option(
    "--merged", is_flag=True, show_envvar=True, help="Write a whole model, for programs that know no tower folders."
)
@json_option
def export_tower_command(bundle: str, out: str, repo: str, tower: str, merged: bool, as_json: bool) -> None:
    """Write a tower of a student BUNDLE (its name or folder, or pretrained) to the new folder OUT.

    Without --merged it is the difference to its base model; with it, a folder in the layout of sentence-transformers,
    whose vectors are the same to 1e-5 and whose fingerprint is another. Needs no repository for a folder or pretrained.
    JSON: {bundle, tower, folder, fingerprint, dimension, merged}.

    \b
    Examples:
      pinfeather export tower pretrained my_tower
      pinfeather export tower student-2 my_model --tower query --merged --repo my_repo --json
    """
    from pinfeather.exporting import export_tower

    done = export_tower(bundle, out, repo, tower, merged)
    if as_json:
        emit_json(done)
        return
    say(f"The {tower} tower of {done['bundle']}, {done['dimension']} dimensions, {done['fingerprint']}:")
    click.echo(done["folder"])


@click.command("restore")
@repo_option
@click.option("--space", metavar="NAME", show_envvar=True, help="Default: every space, and the feature rows.")
@lock_timeout_option
@json_option
def restore_command(repo: str, space: str | None, lock_timeout: float, as_json: bool) -> None:
    """Refill a lost store from the vector log and the sources. Loads no model.

    A vector whose text has changed since comes back as it was; the next `materialize` encodes it anew. What the log
    lacks (not_in_log) is encoded by the next `materialize`, in a space that is being built by its backfill; a frozen
    space stays without. JSON: {spaces: [{space, restored, not_in_log, features, coverage, seconds}]}.

    \b
    Examples:
      pinfeather restore --repo my_repo
      pinfeather restore --repo my_repo --space live --json
    """
    from materialize.restore import restore
    from materialize.spaces import load_space

    paths = RepoPaths.open(repo)
    with progress("restore", as_json) as tell:
        done = restore(paths, space, lock_timeout=lock_timeout, progress=tell)
    rows: list[dict[str, Any]] = [
        {
            "space": counts.space,
            "restored": counts.upserted,
            "not_in_log": counts.waiting,
            "features": {view: moved["changed"] for view, moved in counts.features.items()},
            "coverage": counts.coverage,
            "seconds": round(counts.seconds, 3),
        }
        for counts in done
    ]
    if as_json:
        emit_json({"spaces": rows})
        return
    columns = ("space", "restored", "not_in_log", "coverage", "seconds")
    table("Restored", columns, [[row[key] for key in columns] for row in rows])
    for row in rows:
        if row["not_in_log"]:
            todo = _TODO[load_space(paths, row["space"]).status].format(row["space"])
            say(f"The log has no vector of {row['not_in_log']:,} pins of space {row['space']}: {todo}.")


_TODO = {
    "ready": "the next `pinfeather materialize` encodes them",
    "building": "`pinfeather spaces backfill {0}` encodes them",
    "frozen": "it is frozen; `pinfeather spaces unfreeze {0}` lets them in",
}
