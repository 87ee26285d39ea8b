"""Which images the pins have, which of them a captioner has not captioned yet, and in what order it shall."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates.session import parquet
from feature_repo.errors import ContractError, PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.rejected import rejected_sql
from materialize.captions.sources import WantedImage
from materialize.captions.stage import CaptionStage
from materialize.spill import spill_folder

if TYPE_CHECKING:
    import duckdb

_PAGE = 1_024
_URIS = 8
"""So many of the addresses that pins give for one image are tried."""


@dataclass(frozen=True)
class CaptionPlan:
    """What a run has before it. ``images`` counts the distinct images of the pins that are there."""

    images: int
    reused: int
    """Images that this captioner has captioned already."""
    new: int
    """Images that it has not: also those whose file was refused before."""
    without_hash: int
    """Pins that name an image and no hash of it: these are never captioned."""
    unknown: tuple[str, ...] = ()
    """Pins that were asked for by name, and have no image or are not there."""


class Wanted:
    """The images of one repository's pins as of now; made by :func:`open_wanted`."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def plan(self, stage: CaptionStage, only: Collection[str] | None = None) -> CaptionPlan:
        """Count, without looking at an image.

        :param only: the images of these pins alone are to be captioned.
        """
        self._note_done(stage)
        unknown: tuple[str, ...] = ()
        chosen = "SELECT image_sha256 FROM images"
        if only is not None:
            self._con.register("asked", pa.table({"pin_id": pa.array(sorted(only), pa.string())}))
            chosen = "SELECT DISTINCT image_sha256 FROM pins SEMI JOIN asked USING (pin_id) WHERE image_sha256 <> ''"
            missing = (
                "SELECT pin_id FROM asked ANTI JOIN (FROM pins WHERE image_sha256 <> '') USING (pin_id) ORDER BY 1"
            )
            unknown = tuple(pin_id for (pin_id,) in self._con.execute(missing).fetchall())
        self._con.execute(f"CREATE OR REPLACE TABLE chosen AS {chosen}")
        images = self._count("chosen")
        reused = self._count("chosen SEMI JOIN done USING (image_sha256)")
        nameless = self._count("pins WHERE coalesce(image_sha256, '') = '' AND image_uri <> ''")
        return CaptionPlan(images, reused, images - reused, nameless, unknown)

    def left(self, tried: Collection[str], limit: int | None = None) -> Iterator[WantedImage]:
        """The images of the last :meth:`plan` that have no caption yet, in their order.

        The newest and the most viewed take turns: an image's place is the better one of its place by the creation of
        its newest pin and its place by the impressions of all its pins, so after 2 n images the n newest and the n most
        viewed are done. Those ``tried`` before and refused come last.
        """
        cursor = self._con.cursor()  # its result is read while others ask
        cursor.register("tried", pa.table({"image_sha256": pa.array(sorted(tried), pa.string())}))
        found = cursor.execute(
            f"""WITH placed AS (
                  SELECT image_sha256, uris,
                         row_number() OVER (ORDER BY newest DESC, views DESC, image_sha256) AS by_age,
                         row_number() OVER (ORDER BY views DESC, newest DESC, image_sha256) AS by_views
                  FROM images SEMI JOIN chosen USING (image_sha256) ANTI JOIN done USING (image_sha256))
                SELECT image_sha256, uris FROM placed
                ORDER BY image_sha256 IN (SELECT image_sha256 FROM tried), least(by_age, by_views), by_age
                LIMIT {limit if limit is not None else "ALL"}"""
        )
        for batch in found.fetch_record_batch(_PAGE):
            for image, uris in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield WantedImage(image, tuple(uris or ()))

    def untried(self, tried: Collection[str]) -> int:
        """How many images of the last :meth:`plan` have neither a caption nor were ``tried`` before."""
        self._con.register("tried", pa.table({"image_sha256": pa.array(sorted(tried), pa.string())}))
        return self._count("chosen ANTI JOIN done USING (image_sha256) ANTI JOIN tried USING (image_sha256)")

    def remaining(self, stage: CaptionStage, refused: Collection[str]) -> int:
        """Images, of all pins, that have no caption of the stage and were not refused either."""
        self._note_done(stage)
        self._con.register("tried", pa.table({"image_sha256": pa.array(sorted(refused), pa.string())}))
        return self._count("images ANTI JOIN done USING (image_sha256) ANTI JOIN tried USING (image_sha256)")

    def lost(self, old: CaptionStage, new: CaptionStage) -> int:
        """Images of pins with a good caption of ``old`` and none, or a flagged one, of ``new``."""
        before, after = (_stage_sql(stage, "flag IS NULL") for stage in (old, new))
        return self._count(f"images SEMI JOIN ({before}) USING (image_sha256) ANTI JOIN ({after}) USING (image_sha256)")

    def gone(self, stage: CaptionStage) -> int:
        """Captioned images that no pin has any more."""
        return self._count(f"({_stage_sql(stage)}) ANTI JOIN kept USING (image_sha256)")

    def held(self, images: pa.ChunkedArray | pa.Array) -> pa.Array:
        """Of each image, whether a pin has it; also a pin whose row was rejected, which keeps what it had."""
        self._con.register(
            "asked_images", pa.table({"image_sha256": images, "row": pa.array(range(len(images)), pa.int64())})
        )
        found = self._con.execute(
            """SELECT k.image_sha256 IS NOT NULL AS held
               FROM asked_images a LEFT JOIN kept k ON k.image_sha256 = lower(a.image_sha256) ORDER BY a.row"""
        ).arrow()
        return found.column(0).combine_chunks()

    def _note_done(self, stage: CaptionStage) -> None:
        self._con.execute(f"CREATE OR REPLACE TABLE done AS {_stage_sql(stage)}")

    def _count(self, relation: str) -> int:
        found = self._con.execute(f"SELECT count(*) FROM {relation}").fetchone()
        return int(found[0]) if found else 0


@contextmanager
def open_wanted(paths: RepoPaths) -> Iterator[Wanted]:
    """The images of the pins that are there now, in memory or, beyond 1 GB, on disk.

    :raises ContractError: if the pins were not validated.
    :raises PinfeatherError: if a table is damaged, or there is no room for the work.
    """
    sources = paths.valid_files("pins")
    if not sources:
        raise ContractError(f"No valid pins in {paths.valid}. Run `pinfeather validate` first.")
    with _database(paths) as con:
        _load(con, paths, sources)
        yield Wanted(con)


def tally(paths: RepoPaths, stage: CaptionStage) -> tuple[int, int]:
    """Images that a stage has a caption of, and how many of these are flagged; as bounded as :func:`open_wanted`.

    :raises PinfeatherError: if a part of the stage cannot be read.
    """
    files = stage.files()
    if not files:
        return 0, 0
    stage.count()  # names a damaged part, which DuckDB would not
    with _database(paths) as con:
        counted = con.execute(
            f"""SELECT count(*), count(flag)
                FROM (SELECT max(flag) AS flag FROM {parquet(files)} GROUP BY lower(image_sha256))"""
        ).fetchone()
    return (int(counted[0]), int(counted[1])) if counted else (0, 0)


@contextmanager
def _database(paths: RepoPaths) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    with spill_folder(paths.data) as spill:
        con = duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(spill)})
        try:
            con.execute("SET enable_progress_bar = false")
            yield con
        except duckdb.Error as error:
            raise PinfeatherError(
                f"The images of the pins could not be listed; captions that were written are kept. DuckDB says: "
                f"{str(error).strip()}. A damaged file in data/valid is written anew by `pinfeather validate`."
            ) from error
        finally:
            con.close()


def _load(con: Any, paths: RepoPaths, sources: list[Path]) -> None:
    """Tables ``pins`` (there now), ``images`` and ``kept``; a hash means the same in capitals and is lowered."""
    views = "SELECT NULL::VARCHAR AS pin_id, 0::BIGINT AS impressions WHERE false"
    if (engagement := paths.views / "pin_engagement.parquet").is_file():
        views = f"SELECT pin_id, impressions FROM {parquet([engagement])}"
    con.execute(
        f"""CREATE TABLE pins AS
            SELECT pin_id, lower(image_sha256) AS image_sha256, image_uri,
                   epoch_us(coalesce(created_at, event_timestamp)) AS born
            FROM {parquet(sources)} WHERE deleted_at IS NULL OR deleted_at > now()"""
    )
    con.execute(
        f"""CREATE TABLE images AS
            SELECT image_sha256, max(born) AS newest, sum(coalesce(impressions, 0)) AS views,
                   list_sort(list(DISTINCT image_uri) FILTER (image_uri <> ''))[:{_URIS}] AS uris
            FROM pins LEFT JOIN ({views}) USING (pin_id) WHERE image_sha256 <> '' GROUP BY 1"""
    )
    con.execute("CREATE TABLE kept AS SELECT image_sha256 FROM images")
    for file in paths.rejected_files("pins"):
        if "image_sha256" in pq.read_schema(file).names:
            con.execute(
                f"""INSERT INTO kept SELECT DISTINCT image_sha256
                    FROM (SELECT pin_id, lower(image_sha256) AS image_sha256 FROM {parquet([file])})
                    SEMI JOIN (SELECT pin_id FROM ({rejected_sql(paths)}) WHERE deleted_at IS NULL) USING (pin_id)
                    ANTI JOIN kept USING (image_sha256) WHERE image_sha256 IS NOT NULL"""
            )


def _stage_sql(stage: CaptionStage, where: str = "true") -> str:
    files = stage.files()
    if not files:
        return "SELECT ''::VARCHAR AS image_sha256 WHERE false"
    stage.count()  # names a damaged part, which DuckDB would not
    return f"SELECT DISTINCT lower(image_sha256) AS image_sha256 FROM {parquet(files)} WHERE {where}"
