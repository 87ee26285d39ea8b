"""A teacher's labels on disk: ``data/labels/<teacher version>/part-*.parquet``, each part written whole, then renamed.

Parts are only added, so of several labels of a (query, pin) the one with the latest time counts. Small parts are merged
once there are many; of a merge that was killed both are there, which says nothing twice, since the rows are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedders.evaluation.metrics import LEVELS
from feature_repo.aggregates.session import parquet
from feature_repo.erasures import Erasures, unless_erased
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinTextTemplate
from materialize.files import fsync_dir, write_json, write_parquet
from pinfeather.duck_session import duck_session

PROBABILITIES = tuple(f"probability_{level}" for level in range(1, LEVELS + 1))
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("pin_id", pa.string()),
        *((name, pa.float32()) for name in PROBABILITIES),
        ("teacher", pa.string()),
        ("teacher_version", pa.string()),
        ("text_fingerprint", pa.string()),
        ("sample", pa.string()),
        ("weight", pa.float64()),
        ("event_timestamp", _TIME),
        ("labelled_at", _TIME),
    ]
)
"""Columns of a label. ``query`` is canonical, ``text_fingerprint`` that of the pin text that the teacher read;
``sample, weight, event_timestamp`` are of the first sample that has the pair, in the order they were given."""

MOST_PARTS = 64
"""With more small parts than these they are merged."""
MERGED_ROWS = 1 << 17
_PART = re.compile(r"part-(\d+)\.parquet")
_NOTE = "teacher.json"
_REMEDY = "Delete a damaged part: `pinfeather label` makes its labels again."


class LabelFolder:
    """The labels of one teacher version."""

    def __init__(self, paths: RepoPaths, version: str) -> None:
        self.paths, self.version = paths, version
        self.folder = paths.labels / version

    def parts(self) -> list[Path]:
        """The parts, oldest first."""
        return sorted(path for path in self.folder.glob("part-*.parquet") if _PART.fullmatch(path.name))

    def note(self, about: dict[str, Any]) -> None:
        """Write what is known of the teacher beside its labels."""
        write_json(self.folder / _NOTE, about)

    def teacher(self) -> str:
        """The name of the teacher. Errors as :meth:`template`."""
        return str(self._noted("teacher"))

    def template(self) -> PinTextTemplate:
        """The pin text that the teacher read.

        :raises PinfeatherError: if the note beside the labels cannot be read.
        """
        return PinTextTemplate.from_json(self._noted("template"))

    def _noted(self, key: str) -> Any:
        path = self.folder / _NOTE
        try:
            return json.loads(path.read_text(encoding="utf-8"))[key]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PinfeatherError(
                f"{path} cannot be read ({error}), so it is not known which pin text these labels are of. Restore it, "
                "or run `pinfeather label` with that teacher, which writes it anew."
            ) from error

    def latest(self) -> datetime | None:
        """The time of the latest label, by the statistics in the files; None without labels."""
        found = []
        for part in self.parts():
            metadata = _metadata(part)
            column = metadata.schema.to_arrow_schema().get_field_index("labelled_at")
            groups = (metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups))
            found += [group.max for group in groups if group is not None and group.has_min_max]
        return max(found, default=None)

    def append(self, rows: pa.Table, erasures: Erasures) -> None:
        """Add a part; on return it is on disk.

        :raises PinfeatherError: if something was erased since ``erasures`` was read; nothing is written.
        """
        with unless_erased(self.paths, erasures):
            write_parquet(self._next(), rows)

    def merge(self, erasures: Erasures) -> int:
        """Merge small parts where there are many; how many parts went. Errors as :meth:`append`."""
        small = [part for part in self.parts() if _metadata(part).num_rows < MERGED_ROWS]
        if len(small) <= MOST_PARTS:
            return 0
        merged = 0
        with unless_erased(self.paths, erasures):
            while small:
                batch, rows = [], 0
                while small and rows < MERGED_ROWS:
                    batch.append(small.pop(0))
                    rows += _metadata(batch[-1]).num_rows
                table = pa.concat_tables([pq.read_table(part) for part in batch])
                write_parquet(self._next(), table.group_by(SCHEMA.names).aggregate([]).select(SCHEMA.names))
                for part in batch:
                    part.unlink()
                merged += len(batch)
            fsync_dir(self.folder)
        return merged

    def _next(self) -> Path:
        numbers = [int(found[1]) for part in self.parts() if (found := _PART.fullmatch(part.name))]
        return self.folder / f"part-{max(numbers, default=0) + 1:06d}.parquet"


def _metadata(part: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(part)
    except (pa.ArrowException, OSError) as error:
        raise PinfeatherError(f"{part} cannot be read ({error}). {_REMEDY}") from error


def newest_sql(parts: Sequence[Path]) -> str:
    """SQL of the newest label of every (query, pin)."""
    return f"""SELECT * FROM {parquet(parts)}
               QUALIFY row_number() OVER (PARTITION BY query, pin_id ORDER BY labelled_at DESC) = 1"""


def label_versions(paths: RepoPaths) -> list[str]:
    """The teacher versions that there are labels of."""
    folders = sorted(folder for folder in paths.labels.glob("*") if folder.is_dir())
    return [folder.name for folder in folders if LabelFolder(paths, folder.name).parts()]


def find_labels(paths: RepoPaths, name: str) -> str:
    """The teacher version that there are labels of, by itself or by the teacher's name.

    :raises UsageError: if there is none, or several of that name.
    """
    versions = label_versions(paths)
    if name in versions:
        return name
    found = [version for version in versions if LabelFolder(paths, version).teacher() == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"There are labels of {len(found)} versions of the teacher {name}: name one of {_list(found)}."
        )
    others = f"there are labels of the versions {_list(versions)}" if versions else "there are none of any teacher yet"
    raise UsageError(
        f"There are no labels of a teacher {name!r}; {others}. Make them with `pinfeather label --teacher NAME`."
    )


def _list(versions: Sequence[str]) -> str:
    return ", ".join(versions)


def labels_of(paths: RepoPaths, version: str) -> LabelFolder:
    """The labels of a teacher version.

    :raises UsageError: if there are none.
    """
    if version not in (known := label_versions(paths)):
        raise UsageError(
            f"There are no labels of a teacher version {version}; there are: {_list(known) or 'none yet'}. Make "
            "them with `pinfeather label --teacher NAME`."
        )
    return LabelFolder(paths, version)


def read_labels(paths: RepoPaths, version: str) -> pa.Table:
    """The newest label of every (query, pin), columns of :data:`SCHEMA`, in the order of query and pin.

    :raises UsageError: if there are no labels of that teacher version.
    """
    labels = labels_of(paths, version)
    with duck_session(paths, _REMEDY) as con:
        found = con.execute(f"{newest_sql(labels.parts())} ORDER BY query, pin_id").fetch_arrow_table()
    return found.cast(SCHEMA)


def time_after(latest: datetime | None) -> datetime:
    """Now, or a moment after the latest label if a clock ran ahead: the later label must have the later time."""
    now = datetime.now(UTC)
    return now if latest is None else max(now, latest + timedelta(microseconds=1))
