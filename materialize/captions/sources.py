"""Where images come from: a folder of files, or a Parquet table with their bytes. Nothing is fetched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow.parquet as pq

from embedders.captions.images import ImageLimits, ImageRefused
from feature_repo.aggregates.session import parquet
from feature_repo.errors import UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_NOT_THERE = "no image file"
_PIECE = 16


class WantedImage(NamedTuple):
    """An image that pins have: its key in the pins table, and where these say that it is."""

    image_sha256: str
    uris: tuple[str, ...]


Reader = Callable[[], bytes]


class ImageSource(Protocol):
    """Finds images. ``open`` is called by one thread, the readers that it gives by several."""

    def open(self, images: Sequence[WantedImage]) -> list[Reader]:
        """One reader an image; it gives bytes whose SHA-256 is the key, or raises ``ImageRefused`` with the reason."""
        ...


class FolderImages:
    """Images as files: ``<sha256>.*`` directly in the folder, or ``image_uri`` as a path inside it."""

    def __init__(self, folder: Path, limits: ImageLimits | None = None) -> None:
        """Lists the folder once.

        :raises UsageError: if there is no such folder.
        """
        if not folder.is_dir():
            raise UsageError(f"--images {str(folder)!r} is no folder: give the one that the image files are in.")
        self._folder, self._limits = folder.resolve(), limits or ImageLimits()
        files = (entry for entry in self._folder.iterdir() if _SHA256.fullmatch(entry.name.partition(".")[0].lower()))
        self._by_hash = {file.name.partition(".")[0].lower(): file.name for file in sorted(files, reverse=True)}

    def open(self, images: Sequence[WantedImage]) -> list[Reader]:
        """One reader an image; files are read when it is called."""
        return [partial(self._read, image) for image in images]

    def _read(self, image: WantedImage) -> bytes:
        _check_key(image.image_sha256)
        refused = ImageRefused(_NOT_THERE)
        named = self._by_hash.get(image.image_sha256.lower())
        for place in ([named] if named else []) + list(image.uris):
            try:
                return _checked(self._bytes(place), image.image_sha256)
            except ImageRefused as error:
                refused = error
        raise refused

    def _bytes(self, place: str) -> bytes:
        if scheme := _URL.match(place):
            raise ImageRefused(f"image_uri is a {scheme[1].lower()} address: fetching images is not done here")
        with suppress(ValueError, OSError):  # a name with a null byte, or too long for a file
            file = (self._folder / place).resolve()
            if not file.is_relative_to(self._folder):
                raise ImageRefused("image_uri leads out of the image folder")
            if file.is_file():
                if file.stat().st_size > self._limits.max_bytes:
                    raise ImageRefused(f"larger than {self._limits.max_bytes >> 20} MiB")
                return file.read_bytes()
        raise ImageRefused(_NOT_THERE)


class TableImages:
    """Images as bytes in Parquet: columns ``image_sha256`` and ``bytes``, one file or a folder of them.

    An image costs the reading of its row group up to it: write tables with row groups of a few hundred images.
    """

    def __init__(self, path: Path, scratch: Path, limits: ImageLimits | None = None) -> None:
        """Notes where each image lies.

        :param scratch: a folder for what does not fit into memory.
        :raises UsageError: if there is no such table, or it lacks a column.
        """
        import duckdb

        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
        if not files:
            raise UsageError(f"--image-table {str(path)!r} is no Parquet file, nor a folder of them.")
        for file in files:
            _check_columns(file)
        self._files, self._limits = files, limits or ImageLimits()
        self._con = duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(scratch)})
        self._con.execute("CREATE TABLE places (image VARCHAR, file INTEGER, row_number BIGINT)")
        for number, file in enumerate(files):
            self._con.execute(
                f"INSERT INTO places SELECT lower(image_sha256), {number}, file_row_number "
                f"FROM {parquet([file], ', file_row_number = true')} WHERE image_sha256 IS NOT NULL"
            )

    def open(self, images: Sequence[WantedImage]) -> list[Reader]:
        """One reader an image; the bytes are read now, row group by row group."""
        keys = [image.image_sha256.lower() for image in images]
        data = self._bytes(keys, "= 1")
        if empty := [key for key in keys if key not in data]:  # a row without bytes may be followed by one with them
            data |= self._bytes(empty, "> 1")
        return [partial(self._read, image, data.get(key)) for image, key in zip(images, keys, strict=True)]

    def _bytes(self, keys: list[str], place: str) -> dict[str, bytes]:
        """Image to bytes, from those of its rows whose place among them is so; without the images that have none."""
        found = self._con.execute(
            "SELECT image, file, row_number FROM places WHERE image IN (SELECT unnest(?)) "
            f"QUALIFY row_number() OVER (PARTITION BY image ORDER BY file, row_number) {place}",
            [keys],
        ).fetchall()
        rows: dict[int, dict[int, str]] = {}
        for image, file, row in found:
            rows.setdefault(file, {})[row] = image
        data: dict[str, bytes] = {}
        for file, wanted in sorted(rows.items()):
            for image, value in self._rows(file, wanted):
                if value is not None:
                    data.setdefault(image, value)
        return data

    def _rows(self, file: int, wanted: dict[int, str]) -> Iterator[tuple[str, bytes | None]]:
        """The bytes of some rows of a file, a few rows in memory at a time."""
        with pq.ParquetFile(self._files[file]) as table:
            first = 0
            for group in range(table.num_row_groups):
                end = first + table.metadata.row_group(group).num_rows
                last = max((row for row in wanted if first <= row < end), default=-1)
                start = first
                batches = table.iter_batches(_PIECE, row_groups=[group], columns=["bytes"]) if last >= 0 else ()
                for batch in batches:
                    for row in range(start, start + len(batch)):
                        if row in wanted:
                            yield wanted[row], batch.column(0)[row - start].as_py()
                    start += len(batch)
                    if start > last:
                        break
                first = end

    def _read(self, image: WantedImage, data: bytes | None) -> bytes:
        _check_key(image.image_sha256)
        if data is None:
            raise ImageRefused("no row in the image table")
        if len(data) > self._limits.max_bytes:
            raise ImageRefused(f"larger than {self._limits.max_bytes >> 20} MiB")
        return _checked(data, image.image_sha256)


def _check_columns(file: Path) -> None:
    import pyarrow as pa

    try:
        schema: Any = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"--image-table: {file} cannot be read as Parquet ({error}).") from error
    binary = (pa.types.is_binary, pa.types.is_large_binary)
    wanted = {"image_sha256": (pa.types.is_string, pa.types.is_large_string), "bytes": binary}
    wrong = [
        name
        for name, allowed in wanted.items()
        if name not in schema.names or not any(fits(schema.field(name).type) for fits in allowed)
    ]
    if wrong:
        raise UsageError(
            f"--image-table: {file} has no column {' and '.join(wrong)} of the right type. It needs image_sha256 "
            "(text) and bytes (binary, the file as it is)."
        )


def _check_key(key: str) -> None:
    if not _SHA256.fullmatch(key.lower()):
        raise ImageRefused("image_sha256 is no SHA-256")


def _checked(data: bytes, key: str) -> bytes:
    """``data``, if it is what the pins table means."""
    if hashlib.sha256(data).hexdigest() != key.lower():
        raise ImageRefused("its SHA-256 is not that of the pins table")
    return data
