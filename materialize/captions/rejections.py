"""Images that could not be captioned, with the reason: ``data/rejected/images.parquet``, as of the last try.

A file that is missing, broken or another picture's is refused to every captioner, so its row names none. Where one's
model failed at an image, the row names it, and holds for no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.captions.sources import WantedImage
from materialize.files import write_parquet

SCHEMA = pa.schema(
    [
        ("image_sha256", pa.string()),
        ("image_uri", pa.string()),
        ("reason", pa.string()),
        ("captioner", pa.string()),
        ("event_timestamp", pa.timestamp("us", "UTC")),
    ]
)


class Rejections:
    """The images that were refused and not captioned since."""

    def __init__(self, paths: RepoPaths) -> None:
        """Reads them.

        :raises PinfeatherError: if their file cannot be read.
        """
        self._file: Path = paths.rejected / "images.parquet"
        try:
            self._rows = pq.read_table(self._file).cast(SCHEMA)
        except FileNotFoundError:
            self._rows = SCHEMA.empty_table()
        except (pa.ArrowException, OSError) as error:
            raise PinfeatherError(
                f"{self._file} cannot be read ({error}). Delete it; it only says what failed."
            ) from error

        self._new: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._settled: set[tuple[str, str | None]] = set()

    @property
    def images(self) -> set[str]:
        """Keys of all of them."""
        self._settle()
        return set(self._rows["image_sha256"].to_pylist())

    def of(self, captioner: str) -> set[str]:
        """Keys of the images whose file was refused, or that this captioner's model failed at."""
        self._settle()
        whose = self._rows["captioner"]
        rows = self._rows.filter(pc.or_(pc.is_null(whose), pc.fill_null(pc.equal(whose, captioner), False)))
        return set(rows["image_sha256"].to_pylist())

    def note(
        self,
        captioner: str,
        refused: Sequence[tuple[WantedImage, str]],
        failed: Sequence[tuple[WantedImage, str]],
        captioned: Sequence[str],
    ) -> None:
        """Note the last try of some images, which replaces what was noted of them before.

        :param refused: images that cannot be opened, with the reason.
        :param failed: images that ``captioner`` was shown and failed at.
        :param captioned: images that it captioned.
        """
        now = datetime.now(UTC)
        keys = [*captioned, *(image.image_sha256 for image, _ in (*refused, *failed))]
        for key in keys:
            for whose in (None, captioner):
                self._settled.add((key, whose))
                self._new.pop((key, whose), None)
        for whose, found in ((None, refused), (captioner, failed)):
            for image, reason in found:
                self._new[image.image_sha256, whose] = {
                    "image_sha256": image.image_sha256,
                    "image_uri": image.uris[0] if image.uris else None,
                    "reason": reason,
                    "captioner": whose,
                    "event_timestamp": now,
                }

    def keep(self, kept: Callable[[pa.ChunkedArray], pa.Array]) -> None:
        """Forget the images that ``kept`` says no of."""
        self._settle()
        self._rows = self._rows.filter(kept(self._rows["image_sha256"]))

    def save(self) -> None:
        """Write them, or remove the file where none are left."""
        self._settle()
        if self._rows.num_rows:
            order = [("image_sha256", "ascending"), ("captioner", "ascending")]
            write_parquet(self._file, self._rows.sort_by(order))
        else:
            self._file.unlink(missing_ok=True)

    def _settle(self) -> None:
        """Bring what was noted into the table."""
        if self._settled:
            keys = zip(self._rows["image_sha256"].to_pylist(), self._rows["captioner"].to_pylist(), strict=True)
            old = self._rows.filter(pa.array([key not in self._settled for key in keys], pa.bool_()))
            new = pa.Table.from_pylist(list(self._new.values()), SCHEMA)
            self._rows = pa.concat_tables([old, new]).combine_chunks()
            self._new, self._settled = {}, set()
