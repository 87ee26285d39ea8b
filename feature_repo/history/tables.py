"""The valid tables as DuckDB reads them, and a repository whose pins are those of a past time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.aggregates import Resources
from feature_repo.aggregates.session import parquet
from feature_repo.errors import ContractError, PinfeatherError
from feature_repo.leftovers import scratch_folder
from feature_repo.paths import RepoPaths

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class PastPaths(RepoPaths):
    """A repository as it is, but with the valid tables of another folder."""

    past_valid: Path

    @property
    def valid(self) -> Path:
        """The valid tables of the past time."""
        return self.past_valid


@contextmanager
def connected(paths: RepoPaths, resources: Resources) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own, which spills into ``paths.data``."""
    import duckdb

    with scratch_folder(paths.data, "spill") as spill:
        con = duckdb.connect(config={"memory_limit": resources.memory, "temp_directory": str(spill)})
        try:
            con.execute("SET enable_progress_bar = false")
            con.execute("SET preserve_insertion_order = false")
            if resources.threads:
                con.execute(f"SET threads = {int(resources.threads)}")
            yield con
        finally:
            con.close()


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """``folder`` under a path that Feast can be given: of folders called ``key=value`` on it DuckDB makes columns.

    :raises PinfeatherError: if temporary files lie under such a folder, too.
    """
    if "=" not in str(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pinfeather-") as place:
        if "=" in place:
            raise PinfeatherError(
                f"Feast takes the folders of {folder} that are called key=value for columns, and those of {place}, "
                "too: set TMPDIR to a folder without = in its path."
            )
        link = Path(place) / "linked"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def files_sql(files: Sequence[Path]) -> str:
    """``read_parquet`` over these files."""
    return parquet(files, ", union_by_name = true")


def pins_sql(paths: RepoPaths) -> str:
    """The valid pins.

    :raises ContractError: before the first `validate`.
    """
    files = paths.valid_files("pins")
    if not files:
        raise ContractError(f"No valid pins in {paths.valid}: run `pinfeather validate --repo {paths.root}` first.")
    return files_sql(files)


def count(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    """The only value of a result, an integer."""
    found = con.execute(sql).fetchone()
    return int(found[0]) if found and found[0] is not None else 0
