"""The vector log of a space: what each run wrote, as Parquet; the batch source of the space's Feast view.

Parts lie at ``vectors/<space>/``, one or more a run, named in order. A pin written twice has two rows; the later
(event_timestamp, created_timestamp) wins, as everywhere in Feast. Deleted pins leave every part, so that no Feast
command brings one back; that they were deleted is kept in ``vectors/<space>/deletions/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.files import write_parquet

_TIME = pa.timestamp("us", tz="UTC")


def schema(dimension: int) -> pa.Schema:
    """Columns of a log part."""
    return pa.schema(
        [
            ("pin_id", pa.string()),
            ("embedding", pa.list_(pa.float16())),
            ("text_fp", pa.string()),
            ("run", pa.int64()),
            ("event_timestamp", _TIME),
            ("created_timestamp", _TIME),
        ],
        metadata={"dimension": str(dimension)},
    )


def prepare(paths: RepoPaths, space: str, dimension: int) -> None:
    """Make the log of ``space`` readable before its first vector: Feast's sources want at least one file."""
    write_parquet(paths.vectors / space / "part-000000-0000.parquet", schema(dimension).empty_table())


def link_live(paths: RepoPaths, view: str, space: str) -> None:
    """Point the source of the Feast view ``view`` at the log of ``space``, in one rename."""
    link = paths.vectors / view
    if link.is_symlink() and os.readlink(link) == space:
        return
    temporary = paths.vectors / f".{view}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(space, target_is_directory=True)
    temporary.replace(link)


def append(
    paths: RepoPaths,
    space: str,
    run: int,
    part: int,
    pin_ids: Sequence[str],
    vectors: npt.NDArray[np.float16],
    text_fps: Sequence[str],
    event_timestamps: Sequence[datetime],
    created: datetime,
) -> None:
    """Write one part: ``vectors`` is [n, dimension]; on return it is on disk."""
    dimension = vectors.shape[1]
    offsets = pa.array(np.arange(len(pin_ids) + 1, dtype=np.int32) * dimension)
    embedding = pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors).reshape(-1)))
    table = pa.table(
        [
            pa.array(pin_ids, pa.string()),
            embedding,
            pa.array(text_fps, pa.string()),
            pa.array([run] * len(pin_ids), pa.int64()),
            pa.array(event_timestamps, _TIME),
            pa.array([created] * len(pin_ids), _TIME),
        ],
        schema=schema(dimension),
    )
    write_parquet(paths.vectors / space / f"part-{run:06d}-{part:04d}.parquet", table)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise PinfeatherError(
            f"The vector log part {path} cannot be read ({error}). Restore it from a backup; or delete it, and the "
            "folder of the same space in the ledger, and run `pinfeather materialize`: what is lost is encoded again."
        ) from error


def last_run(paths: RepoPaths) -> int:
    """The highest run that has a part in any log, 0 without one: numbers go on even if the ledger was lost."""
    return max((int(path.name.split("-")[1]) for path in paths.vectors.glob("*/part-*.parquet")), default=0)


def parts(paths: RepoPaths, space: str) -> list[Path]:
    """The parts of a log, oldest first."""
    return sorted((paths.vectors / space).glob("part-*.parquet"))


def purge(paths: RepoPaths, space: str, run: int, pin_ids: Iterable[str], when: datetime) -> None:
    """Take every row of ``pin_ids`` out of the log, and note the deletions."""
    gone = pa.array(sorted(pin_ids), pa.string())
    if not len(gone):
        return
    for path in parts(paths, space):
        if not pc.any(pc.is_in(_read(path, ["pin_id"])["pin_id"], gone)).as_py():
            continue
        table = _read(path)
        write_parquet(path, table.filter(pc.invert(pc.is_in(table["pin_id"], gone))))
    note = pa.table(
        {"pin_id": gone, "run": pa.array([run] * len(gone)), "deleted_at": pa.array([when] * len(gone), _TIME)}
    )
    folder = paths.vectors / space / "deletions"
    part = len(list(folder.glob(f"run-{run:06d}-*.parquet")))
    write_parquet(folder / f"run-{run:06d}-{part:04d}.parquet", note)


def read_live(paths: RepoPaths, space: str) -> tuple[list[str], npt.NDArray[np.float16], list[str]]:
    """Pin ids, the last written vector of each [n, dimension] and its text fingerprint; empty for an unknown space."""
    files = parts(paths, space)
    if not files:
        return [], np.zeros((0, 0), np.float16), []
    table = pa.concat_tables([_read(file) for file in files])
    dimension = int(table.schema.metadata[b"dimension"])
    pin_ids = table["pin_id"].to_pylist()
    last = {pin_id: row for row, pin_id in enumerate(pin_ids)}
    rows = np.fromiter(last.values(), np.int64, len(last))
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    fps = table["text_fp"].to_pylist()
    return list(last), flat.reshape(-1, dimension)[rows].astype(np.float16), [fps[row] for row in rows]
