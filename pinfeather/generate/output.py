"""Where rows go: one streamed Parquet file a table, and the clock that turns ages into timestamps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

TIME = pa.timestamp("us", tz="UTC")
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Clock:
    """The moment the catalogue was taken, in microseconds since 1970 UTC."""

    now: int

    @classmethod
    def at(cls, moment: datetime) -> Clock:
        """A clock stopped at an aware ``moment``."""
        return cls(int(moment.timestamp() * 1_000_000))

    def ago(self, days: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Microseconds since 1970 of ``days`` before now, cut to whole seconds."""
        moments = self.now - (days * _DAY).astype(np.int64)
        return moments - moments % 1_000_000

    @staticmethod
    def times(micros: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
        """Microseconds as a UTC timestamp column; null where ``valid`` is false."""
        return pa.array(micros, pa.int64(), mask=None if valid is None else ~valid).cast(TIME)


@dataclass
class Tables:
    """Writers of ``out/<table>/part-0000.parquet``; a file is replaced only when the whole table is there."""

    out: Path
    rows: dict[str, int] = field(default_factory=dict)
    _writers: dict[str, pq.ParquetWriter] = field(default_factory=dict)

    def write(self, table: str, rows: pa.Table) -> None:
        """Appends ``rows`` as row groups."""
        if table not in self._writers:
            (self.out / table).mkdir(parents=True, exist_ok=True)
            self._writers[table] = pq.ParquetWriter(self._partial(table), rows.schema, compression="zstd")
            self.rows[table] = 0
        self._writers[table].write_table(rows)
        self.rows[table] += rows.num_rows

    def _partial(self, table: str) -> Path:
        return self.out / table / ".part-0000.parquet.partial"

    def __enter__(self) -> Tables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for table, writer in self._writers.items():
            writer.close()
            if error is None:
                self._partial(table).replace(self.out / table / "part-0000.parquet")
            else:
                self._partial(table).unlink(missing_ok=True)
