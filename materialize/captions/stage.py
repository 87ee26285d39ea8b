"""The stage of one captioner: ``data/captions/<fingerprint>``, a note of who it is and its captions as Parquet parts.

A part is written whole or not at all, and never changes but by being replaced; so what is there is always right, and a
kill costs the batch under way. Small parts are merged from time to time; between the merged part and the removal of
the small ones a caption may be there twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.aggregates import caption_files
from feature_repo.errors import PinfeatherError
from materialize.files import fsync_dir, write_json, write_parquet

NOTE = "captioner.json"
MOST_PARTS = 64
"""More small parts are merged."""
SMALL_ROWS = 1 << 16


class CaptionStage:
    """The captions of one captioner. One writer at a time: its caller holds the lease of the captions."""

    def __init__(self, captions: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.folder = captions / fingerprint
        self._captions = captions

    def files(self) -> list[Path]:
        """The parts, by name."""
        return caption_files.parts(self._captions, self.fingerprint)

    def note(self) -> dict[str, Any]:
        """What is noted of the captioner; empty before its first run."""
        try:
            found = json.loads((self.folder / NOTE).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_note(self, **more: Any) -> None:
        """Note of the captioner what is given, beside what is noted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / NOTE, {**self.note(), **more})

    @property
    def name(self) -> str:
        """Name of the captioner, as it stands beside its captions."""
        return str(self.note().get("name", self.fingerprint))

    def append(self, rows: pa.Table) -> None:
        """Add a batch of captions as a part of its own; merge parts where there are many."""
        files = self.files()
        write_parquet(self._part(_number(files[-1]) + 1 if files else 1), rows.cast(caption_files.SCHEMA))
        if len(files) >= MOST_PARTS:
            self.merge()

    def merge(self) -> None:
        """Small parts into one."""
        small = [file for file in self.files() if self._rows_of(file) < SMALL_ROWS]
        if len(small) > 1:
            rows = pa.concat_tables([self._read(file) for file in small])
            write_parquet(self._part(_number(self.files()[-1]) + 1), _once(rows))
            for file in small:
                file.unlink()
            fsync_dir(self.folder)

    def rows(self) -> Iterator[pa.Table]:
        """The captions, part by part."""
        for file in self.files():
            yield self._read(file)

    def count(self) -> int:
        """Captions, from the parts' footers alone: one that is there twice counts twice.

        :raises PinfeatherError: if a part cannot be read.
        """
        return sum(map(self._rows_of, self.files()))

    def table(self) -> pa.Table:
        """All captions in memory, each image once."""
        return _once(pa.concat_tables([caption_files.SCHEMA.empty_table(), *self.rows()]))

    def judge(self, reason: Callable[[str], str | None]) -> int:
        """Flag every caption anew; how many have another flag now."""
        return self._rewrite(lambda rows: _judged(rows, reason))

    def keep(self, kept: Callable[[pa.ChunkedArray], pa.ChunkedArray | pa.Array]) -> int:
        """Drop the captions of all images but those that ``kept`` says true of; how many were dropped."""
        return self._rewrite(lambda rows: rows.filter(kept(rows["image_sha256"])))

    def drop(self) -> None:
        """Remove the stage."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _rewrite(self, change: Callable[[pa.Table], pa.Table]) -> int:
        changed = 0
        for file in self.files():
            before = self._read(file)
            after = change(before)
            if after.equals(before):
                continue
            changed += before.num_rows - after.num_rows or _differing(before, after)
            if after.num_rows:
                write_parquet(file, after)
            else:
                file.unlink()
        return changed

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:09d}.parquet"

    def _read(self, file: Path) -> pa.Table:
        with _named(file):
            return pq.read_table(file).cast(caption_files.SCHEMA)

    def _rows_of(self, file: Path) -> int:
        with _named(file):
            return int(pq.read_metadata(file).num_rows)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Errors of the block name the part."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise PinfeatherError(
            f"The captions in {file} cannot be read ({error}). Delete that file and run the same `pinfeather caption` "
            "again: its images, and no others, are captioned again."
        ) from error


def stages(captions: Path) -> list[CaptionStage]:
    """Every stage there is, by fingerprint."""
    return [CaptionStage(captions, note.parent.name) for note in sorted(captions.glob(f"*/{NOTE}"))]


def _once(rows: pa.Table) -> pa.Table:
    """Each image once, in the order of their keys."""
    rows = rows.sort_by([("image_sha256", "ascending"), ("event_timestamp", "descending"), ("caption", "ascending")])
    if rows.num_rows < 2:
        return rows
    keys = pa.concat_arrays(rows["image_sha256"].chunks)
    first = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))
    return rows.filter(pa.concat_arrays([pa.array([True]), first]))


def _judged(rows: pa.Table, reason: Callable[[str], str | None]) -> pa.Table:
    flags = pa.array([reason(text) for text in rows["caption"].to_pylist()], pa.string())
    return rows.set_column(rows.column_names.index("flag"), caption_files.SCHEMA.field("flag"), flags)


def _differing(before: pa.Table, after: pa.Table) -> int:
    old, new = before["flag"].to_pylist(), after["flag"].to_pylist()
    return sum(a != b for a, b in zip(old, new, strict=True))


def _number(file: Path) -> int:
    return int(file.stem.removeprefix("part-"))
