"""A DuckDB connection whose errors, and those of Parquet files read beside it, say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo.aggregates import Resources
from feature_repo.errors import PinfeatherError
from feature_repo.history.tables import connected
from feature_repo.paths import RepoPaths

if TYPE_CHECKING:
    import duckdb


@contextmanager
def duck_session(paths: RepoPaths, remedy: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own, which spills into ``paths.data``.

    :param remedy: what to do about a file that cannot be read.
    :raises PinfeatherError: for whatever DuckDB or Arrow stops at.
    """
    import duckdb
    import pyarrow as pa

    try:
        with connected(paths, Resources()) as con:
            yield con
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except RuntimeError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # how DuckDB passes Ctrl-C on
            raise KeyboardInterrupt from error
        raise
    except (duckdb.Error, pa.ArrowException) as error:
        why = str(error).strip().rstrip(".")
        raise PinfeatherError(
            f"This stopped, and what is on disk stays as it was: {why}. {remedy} For want of memory or disk give more."
        ) from error
