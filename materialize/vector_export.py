"""What changed in a space since a run, as Parquet, so that a consumer outside can follow it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.files import fsync_dir, write_parquet
from materialize.ledger import Ledger
from materialize.log_index import pin_digests
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.spaces import Space, Status, load_space

VECTORS, DELETIONS = "vectors.parquet", "deletions.parquet"


@dataclass(frozen=True)
class Export:
    """What was exported; the names are a contract."""

    space: str
    model_fingerprint: str
    dimension: int
    since: int
    """Runs after this one were exported."""
    next_since: int
    """What to give as ``since`` next time."""
    vectors: int
    deletions: int
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def export_vectors(paths: RepoPaths, since: int, out: str | Path, space: str | None = None) -> Export:
    """Write the vectors of runs after ``since`` and the pins deleted by them into the folder ``out``.

    ``vectors.parquet`` has the last row of each pin (columns of the vector log), ``deletions.parquet`` each deletion
    (pin_id, run, deleted_at). A consumer applies the deletions first, then the vectors. A run that is under way is left
    for the next time, so nothing of it is missed.

    Both files name the space and its model in their schema's metadata.

    :param since: 0 exports everything.
    :param space: default is the live one.
    :raises UsageError: for an unknown space, a run below 0, or one that has not been; without ``space``, if another
        one was live at ``since``.
    :raises PinfeatherError: if the space is being dropped, the log cannot be read or the files cannot be written.
    """
    last = _last_whole_run(paths)  # first: a promotion from here on has a later number
    named = _space(paths, space, since)
    if not 0 <= since <= last:
        raise UsageError(f"--since {since} is no run of {paths.root}: give 0 for everything, up to {last} for nothing.")
    folder = Path(out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        deletions = _deletions(paths, named, since, last)
        vectors = _write_vectors(paths, named, since, last, folder / VECTORS)
        write_parquet(folder / DELETIONS, deletions)
    except OSError as error:
        raise PinfeatherError(f"Cannot write {folder}: {error.strerror or error}. Name another --out DIR.") from error
    return Export(
        space=named.name,
        model_fingerprint=named.model_fingerprint,
        dimension=named.dimension,
        since=since,
        next_since=last,
        vectors=vectors,
        deletions=deletions.num_rows,
        files={"vectors": str(folder / VECTORS), "deletions": str(folder / DELETIONS)},
    )


def _space(paths: RepoPaths, name: str | None, since: int) -> Space:
    if name not in (None, "live"):
        space = load_space(paths, name)
        if space.status is Status.DROPPING:
            raise PinfeatherError(
                f"Space {name} is being dropped and cannot be exported: run `pinfeather spaces drop {name}` to end "
                "that, and name another space."
            )
        return space
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"Nothing was materialized in {paths.root} yet: run `pinfeather materialize` first.")
    before = vector_log.replaced_since(paths, LIVE_EMBEDDING, release.live_space, since)
    if since and before:
        raise UsageError(
            f"The live space is now {release.live_space}, and was {before} at --since {since}: export the new one "
            f"again from --since 0, or name the one that you follow: --space {before}."
        )
    return load_space(paths, release.live_space)


def _labelled(schema: pa.Schema, space: Space) -> pa.Schema:
    """``schema`` with the space in its metadata, so that no consumer mixes two."""
    names = {"space": space.name, "model_fingerprint": space.model_fingerprint}
    return schema.with_metadata({**(schema.metadata or {}), **names})


def _last_whole_run(paths: RepoPaths) -> int:
    """The last run before any that is under way; one that was killed counts as under way until the next run."""
    noted = vector_log.last_run(paths)  # first: a run that begins now is either not noted, or seen to be running
    with Ledger(paths) as ledger:
        rows = ledger.run_rows()
    running = [row.run for row in rows if row.status == "running"]
    newest = max([noted, *(row.run for row in rows)])
    return min(running) - 1 if running else newest


def _write_vectors(paths: RepoPaths, space: Space, since: int, last: int, target: Path) -> int:
    """The last row of each pin of the runs, part by part; how many."""
    whole = target.with_name(f".{target.name}.tmp")
    written = start = 0
    with (
        vector_log.Snapshot(paths, space.name) as snapshot,
        pq.ParquetWriter(whole, _labelled(vector_log.schema(space.dimension), space), compression="zstd") as writer,
    ):
        newest = _newest_rows(snapshot, since, last)
        for table in snapshot.tables():
            rows = _of_runs(table, since, last)
            kept = rows.filter(pa.array(newest[start : start + rows.num_rows]))
            start += rows.num_rows
            if kept.num_rows:
                writer.write_table(kept)
                written += kept.num_rows
    whole.replace(target)
    fsync_dir(target.parent)
    return written


def _newest_rows(snapshot: vector_log.Snapshot, since: int, last: int) -> np.ndarray:
    """Of the rows of the runs, in order, whether each is the last one of its pin."""
    found = [np.zeros(0, "S16")]
    for table in snapshot.tables(["pin_id", "run"]):
        found.append(pin_digests(_of_runs(table, since, last)["pin_id"]))
    digests = np.concatenate(found)
    _, first_from_behind = np.unique(digests[::-1], return_index=True)
    newest = np.zeros(len(digests), bool)
    newest[len(digests) - 1 - first_from_behind] = True
    return newest


def _of_runs(table: pa.Table, since: int, last: int) -> pa.Table:
    return table.filter(pc.and_(pc.greater(table["run"], since), pc.less_equal(table["run"], last)))


def _deletions(paths: RepoPaths, space: Space, since: int, last: int) -> pa.Table:
    notes = [_of_runs(table, since, last) for table in vector_log.read_deletions(paths, space.name)]
    found = pa.concat_tables(notes) if notes else vector_log.DELETIONS.empty_table()
    return found.replace_schema_metadata(_labelled(vector_log.DELETIONS, space).metadata)
