"""The vector log of a space: what each run wrote, as Parquet; the batch source of the space's Feast view.

Parts lie at ``vectors/<space>/``, one or more a run, named in order. A pin written twice has two rows; the later
(event_timestamp, created_timestamp) wins, as everywhere in Feast. Deleted pins leave every part, so that no Feast
command brings one back; that they were deleted is kept in ``vectors/<space>/deletions/``.

Small parts are merged with their neighbours (:func:`compact`), every row kept: the log is also the history that
as-of joins read.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.files import write_json, write_parquet

logger = logging.getLogger(__name__)

_TIME = pa.timestamp("us", tz="UTC")
MOST_PARTS = 64
"""More small parts than these are merged."""
MERGED_ROWS = 1 << 17
"""A part of so many rows is no longer small: 100 MB at 384 dimensions."""


_NUMBERS = ".runs.json"

DELETIONS = pa.schema([("pin_id", pa.string()), ("run", pa.int64()), ("deleted_at", _TIME)])
"""Columns of the notes of deleted pins."""


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


@dataclass(frozen=True)
class _Numbers:
    """What is kept of run numbers beside the logs, for who follows them and for when the ledger is lost."""

    last_run: int = 0
    """The highest number that was given to a run or to a switch of the live space."""
    live_since: int = 0
    """The number of the last such switch."""
    live_before: str | None = None
    """The space that it replaced."""


def _numbers(paths: RepoPaths) -> _Numbers:
    path = paths.vectors / _NUMBERS
    try:
        return _Numbers(**json.loads(path.read_text()))
    except FileNotFoundError:
        return _Numbers()
    except (ValueError, TypeError) as error:
        raise PinfeatherError(
            f"{path} cannot be read ({error}). Delete it; whoever follows `pinfeather export vectors` then begins "
            "again with --since 0."
        ) from error


def note_run(paths: RepoPaths, run: int) -> int:
    """``run``, once it is on disk that this number is taken."""
    write_json(paths.vectors / _NUMBERS, asdict(replace(_numbers(paths), last_run=run)))
    return run


def link_live(paths: RepoPaths, view: str, space: str) -> None:
    """Point the source of the Feast view ``view`` at the log of ``space``, in one rename.

    Where it was at another log, that takes a run number: whoever followed the live space so far must hear of it.
    """
    link = paths.vectors / view
    before = os.readlink(link) if link.is_symlink() else None
    if before == space:
        return
    if before is not None:
        number = last_run(paths) + 1
        write_json(paths.vectors / _NUMBERS, asdict(_Numbers(number, number, before)))
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


def _read(path: Path, columns: list[str] | None = None, source: Any = None) -> pa.Table:
    try:
        return pq.read_table(source or path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise PinfeatherError(
            f"The vector log part {path} cannot be read ({error}). Restore it from a backup; or run `pinfeather audit "
            "--repair`, which removes it and encodes again what is lost."
        ) from error


def last_run(paths: RepoPaths) -> int:
    """The highest run so far, 0 without one, as the logs know it: numbers go on if the ledger was lost."""
    files = [*paths.vectors.glob("*/part-*.parquet"), *paths.vectors.glob("*/deletions/run-*.parquet")]
    return max(_numbers(paths).last_run, *(_place(path)[0] for path in files), 0)


def replaced_since(paths: RepoPaths, view: str, space: str, run: int) -> str | None:
    """The space that was behind the live view ``view`` at ``run``, if it was another one than ``space``."""
    link = paths.vectors / view
    now = os.readlink(link) if link.is_symlink() else space
    if now != space:  # a promotion was killed, or is under way
        return now
    numbers = _numbers(paths)
    return numbers.live_before if run < numbers.live_since else None


def parts(paths: RepoPaths, space: str) -> list[Path]:
    """The parts of a log, oldest first."""
    return sorted((paths.vectors / space).glob("part-*.parquet"), key=_place)


def deletions(paths: RepoPaths, space: str) -> list[Path]:
    """The notes of deleted pins (columns of :data:`DELETIONS`), oldest first."""
    return sorted((paths.vectors / space / "deletions").glob("run-*.parquet"), key=_place)


def read_deletions(paths: RepoPaths, space: str) -> Iterator[pa.Table]:
    """The notes of deleted pins, file by file, oldest first.

    :raises PinfeatherError: if a file cannot be read.
    """
    for path in deletions(paths, space):
        try:
            yield pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise PinfeatherError(
                f"The note of deleted pins {path} cannot be read ({error}). Restore it from a backup; or run "
                "`pinfeather audit --repair`, which removes it, and have every consumer begin again with --since 0."
            ) from error


def _place(path: Path) -> tuple[int, int]:
    """Run and part of a file's name."""
    _, run, part = path.stem.split("-")
    return int(run), int(part)


class Snapshot:
    """The parts of a log as of one moment, oldest first: what is merged, purged or added later does not show.

    :raises PinfeatherError: if parts are merged again and again while they are opened.
    """

    def __init__(self, paths: RepoPaths, space: str) -> None:
        for _ in range(10):
            self._files, self._handles = parts(paths, space), []
            try:
                for file in self._files:
                    self._handles.append(file.open("rb"))  # an open file stays readable when it is removed
                if self._files == parts(paths, space):
                    return
            except FileNotFoundError:
                pass
            self.close()
        raise PinfeatherError(f"The vector log of space {space} is being rewritten all the time: try again later.")

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows, part by part; may be called again.

        :raises PinfeatherError: if a part cannot be read.
        """
        for file, handle in zip(self._files, self._handles, strict=True):
            handle.seek(0)
            yield _read(file, columns, handle)

    def close(self) -> None:
        """Let the files go."""
        for handle in self._handles:
            handle.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_parts(paths: RepoPaths, space: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a log, part by part, oldest first, as of one moment. Errors as :class:`Snapshot`."""
    with Snapshot(paths, space) as snapshot:
        yield from snapshot.tables(columns)


def compact(paths: RepoPaths, space: str) -> int:
    """Merge neighbouring small parts once there are more than :data:`MOST_PARTS` of them; how many parts went.

    The merged part takes the name of its last member, so order and run numbers stay. It is on disk before a member
    goes: after a kill in between some rows are there twice, equal, and read as one; the next merge drops them.
    A part that cannot be read stays as it is, with a warning, and so do those that it would be merged with.
    """
    files = parts(paths, space)
    if len(files) <= MOST_PARTS:
        return 0
    sizes = [_size(file) for file in files]
    if sum(size < MERGED_ROWS for size in sizes) <= MOST_PARTS:
        return 0
    gone = 0
    for group in _groups(files, sizes):
        try:
            table = _distinct(pa.concat_tables([_read(file) for file in group]))
        except PinfeatherError as error:  # a run goes on: merging can wait
            logger.warning("%s Until then it is not merged.", error)
            continue
        write_parquet(group[-1], table)
        for file in group[:-1]:
            file.unlink(missing_ok=True)
        gone += len(group) - 1
    return gone


def _size(file: Path) -> int:
    """Rows of a part; of one that cannot be read so many that it is merged with nothing."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        logger.warning("%s cannot be merged (%s): run `pinfeather audit --repair`.", file, error)
        return MERGED_ROWS + 1


def _groups(files: list[Path], sizes: list[int]) -> Iterator[list[Path]]:
    """Runs of neighbours that together have at most :data:`MERGED_ROWS` rows, two members or more."""
    group: list[Path] = []
    rows = 0
    for file, size in zip(files, sizes, strict=True):
        if group and rows + size > MERGED_ROWS:
            if len(group) > 1:
                yield group
            group, rows = [], 0
        group.append(file)
        rows += size
    if len(group) > 1:
        yield group


def _distinct(table: pa.Table) -> pa.Table:
    """``table`` without the earlier of rows that a killed merge left twice: same pin, run and times."""
    keys = ["pin_id", "run", "event_timestamp", "created_timestamp"]
    numbered = table.select(keys).append_column("row", pa.array(np.arange(table.num_rows)))
    last = numbered.group_by(keys).aggregate([("row", "max")])["row_max"]
    if len(last) == table.num_rows:
        return table
    return table.take(pa.array(np.sort(last.to_numpy())))


def drop(paths: RepoPaths, space: str) -> None:
    """Remove the whole log of ``space``."""
    shutil.rmtree(paths.vectors / space, ignore_errors=True)


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
    with Snapshot(paths, space) as snapshot:
        tables = list(snapshot.tables(["pin_id", "embedding", "text_fp"]))
    if not tables:
        return [], np.zeros((0, 0), np.float16), []
    table = pa.concat_tables(tables)
    dimension = int(table.schema.metadata[b"dimension"])
    pin_ids = table["pin_id"].to_pylist()
    last = {pin_id: row for row, pin_id in enumerate(pin_ids)}
    rows = np.fromiter(last.values(), np.int64, len(last))
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    fps = table["text_fp"].to_pylist()
    return list(last), flat.reshape(-1, dimension)[rows].astype(np.float16), [fps[row] for row in rows]
