"""A catalogue of millions of pins for the scale benchmark, written in streams: four view sources of several files.

``pinfeather generate`` makes a small world that hangs together; this makes many rows fast. Ids are 20 random
characters, each view lies in an order of its own, and the sizes are those of pins: 6 text columns, about 570 bytes of
text a pin.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from materialize.definitions import RepoDefinitions, ViewDefinition

ROW_GROUP = 65_536
FILES = 6
WRITTEN, EDITED = 1_760_000_000_000_000, 1_770_000_000_000_000
"""Event times in microseconds: of the catalogue, and of the edits."""
POOL = 60_000
SHARES = {"pin_text": 1.0, "pin_captions": 0.95, "pin_link_text": 0.8, "pin_board_titles": 0.7}
"""View to the share of pins that have a row in it."""
_ALPHABET = np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_", np.uint8)
_TYPES = {
    "string": "string",
    "bool": "bool",
    "timestamp[us, tz=UTC]": "unix_timestamp",
    "list<item: string>": "string_list",
}


def mixed(numbers: npt.NDArray[np.uint64], salt: int) -> npt.NDArray[np.uint64]:
    """SplitMix64 of ``numbers``: 64 random-looking bits each, the same on every machine."""
    x = numbers + np.uint64((salt * 0x9E3779B97F4A7C15) & (2**64 - 1))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def pin_ids(numbers: npt.NDArray[np.uint64]) -> pa.Array:
    """Ids of 20 characters out of 64, 120 bits of them random."""
    parts = [(mixed(numbers, salt)[:, None] >> np.arange(0, 60, 6, dtype=np.uint64)) & np.uint64(63) for salt in (1, 2)]
    return _fixed(_ALPHABET[np.concatenate(parts, axis=1)])


@dataclass(frozen=True)
class Edit:
    """The pins whose title is another one since the catalogue was written: every ``step``-th."""

    step: int


class Catalogue:
    """``pins`` pins under ``folder``; the same numbers give the same rows."""

    def __init__(self, folder: Path, pins: int) -> None:
        self.folder, self.pins = folder, pins
        self._texts = _Texts()

    def definitions(self) -> RepoDefinitions:
        """The four views as a registry would define them, over patterns of several files."""
        views = {}
        for name in SHARES:
            schema = VIEW_SCHEMAS[name]
            features = {field.name: _TYPES[str(field.type)] for field in schema if field.name in schema.names[1:-2]}
            columns = {"pin_id": "pin_id", **{feature: feature for feature in features}}
            source = str(self.folder / name / "*.parquet")
            views[name] = ViewDefinition(
                name, ("pin_id",), features, columns, source, "event_timestamp", "created_timestamp", None, True, {}
            )
        return RepoDefinitions("scale", views, {})

    def write(self, names: tuple[str, ...] = tuple(SHARES), edit: Edit | None = None) -> None:
        """Write the sources of the views ``names``; with ``edit``, some titles are other ones."""
        for name in names:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            share = -(-self.pins // FILES)
            for file in range(FILES):
                path = self.folder / name / f"part-{file}.parquet"
                with pq.ParquetWriter(path, VIEW_SCHEMAS[name], compression="zstd") as writer:
                    for start in range(file * share, min((file + 1) * share, self.pins), ROW_GROUP):
                        stop = min(start + ROW_GROUP, (file + 1) * share, self.pins)
                        writer.write_table(self.rows(name, self._numbers(name, start, stop), edit))

    def size(self) -> int:
        """Bytes of all sources."""
        return sum(path.stat().st_size for path in self.folder.glob("*/*.parquet"))

    def edited(self, edit: Edit) -> Iterator[str]:
        """Ids of the pins that ``edit`` changes."""
        yield from pin_ids(np.arange(0, self.pins, edit.step, dtype=np.uint64)).to_pylist()

    def _numbers(self, view: str, start: int, stop: int) -> npt.NDArray[np.uint64]:
        """Numbers of the pins at these places of a view: each view has an order of its own, and lacks some pins."""
        places = np.arange(start, stop, dtype=np.uint64)
        salt = list(SHARES).index(view)
        step = np.uint64(_coprime(self.pins, 600_011 + 1_009 * salt))
        numbers = (places * step + np.uint64(salt * 7)) % np.uint64(self.pins)
        there = mixed(numbers, 3 + salt) < np.uint64(SHARES[view] * (2**64 - 2**12))
        return numbers[there]

    def rows(self, view: str, numbers: npt.NDArray[np.uint64], edit: Edit | None = None) -> pa.Table:
        """Rows of a view for pins by number."""
        text = self._texts.draw
        edited = numbers % np.uint64(edit.step) == 0 if edit else np.zeros(len(numbers), bool)
        events = pa.array(np.where(edited & (view == "pin_text"), EDITED, WRITTEN)).cast(pa.timestamp("us", "UTC"))
        made: dict[str, Callable[[], pa.Array]] = {
            "pin_id": lambda: pin_ids(numbers),
            "title": lambda: text(numbers, 10, (2, 4), edited),
            "description": lambda: text(numbers, 20, (10, 12)),
            "caption": lambda: text(numbers, 30, (5, 6)),
            "link_title": lambda: text(numbers, 40, (3, 4)),
            "link_description": lambda: text(numbers, 50, (9, 11)),
            "board_titles": lambda: self._texts.lists(numbers, 60),
            "lang": lambda: _choice(numbers, 70, ["en", "en", "en", "de", "fr", "pt", "es", "ja"]),
            "country": lambda: _choice(numbers, 71, ["US", "US", "GB", "DE", "FR", "BR", "ES", "JP"]),
            "safe": lambda: _choice(numbers, 74, [True, True, True, False]),
            "captioner": lambda: _choice(numbers, 72, ["captioner-1"]),
            "image_sha256": lambda: _hex(numbers),
            "link_url": lambda: pc.binary_join_element_wise("https://example.com/p/", pin_ids(numbers), ""),
            "created_at": lambda: pa.array(WRITTEN - (mixed(numbers, 73) % np.uint64(10**14)).astype(np.int64)),
        }
        schema = VIEW_SCHEMAS[view]
        made |= {"event_timestamp": lambda: events, "created_timestamp": lambda: events}
        return pa.table([made[field.name]().cast(field.type) for field in schema], schema=schema)


class _Texts:
    """Phrases of words drawn by Zipf's law, and texts that join two of them."""

    def __init__(self) -> None:
        random = np.random.default_rng(4)
        letters = np.frombuffer(b"etaoinshrdlucmfwypvbgk", np.uint8)
        lengths = random.integers(3, 11, 20_000)
        words = [letters[random.integers(0, len(letters), n)].tobytes().decode() for n in lengths]
        self._words = np.array(words)
        self._weights = 1 / np.arange(10, len(words) + 10)
        self._random = random
        self._pools: dict[int, pa.Array] = {}

    def _pool(self, words: int) -> pa.Array:
        """Phrases of about ``words`` words."""
        if words not in self._pools:
            places = np.cumsum(self._weights) / self._weights.sum()
            counts = np.maximum(1, self._random.poisson(words, POOL))
            drawn = self._words[np.searchsorted(places, self._random.random(int(counts.sum())))]
            phrases = np.split(drawn, np.cumsum(counts)[:-1])
            self._pools[words] = pa.array([" ".join(phrase) for phrase in phrases])
        return self._pools[words]

    def draw(
        self, numbers: npt.NDArray[np.uint64], salt: int, words: tuple[int, int], other: npt.NDArray[Any] | None = None
    ) -> pa.Array:
        """A text of two phrases a pin; another one where ``other``."""
        places = mixed(numbers, salt)
        if other is not None:
            places = np.where(other, mixed(numbers, salt + 1), places)
        halves = [
            self._pool(count).take(pa.array((places >> np.uint64(shift)) % np.uint64(POOL)))
            for count, shift in zip(words, (0, 32), strict=True)
        ]
        return pc.binary_join_element_wise(*halves, " ")

    def lists(self, numbers: npt.NDArray[np.uint64], salt: int) -> pa.Array:
        """One to six board titles a pin."""
        counts = (mixed(numbers, salt) % np.uint64(6)).astype(np.int64) + 1
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        keys = mixed(np.repeat(numbers, counts) * np.uint64(8) + within.astype(np.uint64), salt + 1)
        titles = self._pool(2).take(pa.array(keys % np.uint64(POOL)))
        return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(counts)), pa.int32()), titles)


def changed_copy(catalogue: Catalogue, folder: Path, edit: Edit) -> Catalogue:
    """The same catalogue after ``edit``: its own ``pin_text``, the other sources by link."""
    copy = Catalogue(folder, catalogue.pins)
    if folder.is_dir():
        return copy
    folder.mkdir(parents=True)
    for name in SHARES:
        if name != "pin_text":
            (folder / name).symlink_to(catalogue.folder / name)
    copy.write(("pin_text",), edit)
    return copy


def rewrite(catalogue: Catalogue, *, other_bytes: bool) -> None:
    """Put a copy of each source file in its place: the same rows in another file.

    :param other_bytes: append its footer a second time, which changes the file and nothing that is read of it.
    """
    for path in catalogue.folder.glob("*/*.parquet"):
        copy = path.with_suffix(".copy")
        shutil.copyfile(path, copy)
        if other_bytes:
            with copy.open("r+b") as file:
                file.seek(-8, os.SEEK_END)  # the footer, its length in four bytes, PAR1
                size = int.from_bytes(file.read(4), "little") + 8
                file.seek(-size, os.SEEK_END)
                footer = file.read()
                file.write(footer)
        copy.replace(path)


def exchange(one: Catalogue, other: Catalogue, view: str = "pin_text") -> None:
    """Let two catalogues exchange the sources of ``view``."""
    places = one.folder / view, one.folder / f"{view}-meanwhile", other.folder / view
    places[0].rename(places[1])
    places[2].rename(places[0])
    places[1].rename(places[2])


def limited(definitions: RepoDefinitions, view: str) -> RepoDefinitions:
    """``definitions`` with one view alone."""
    return replace(definitions, views={view: definitions.views[view]})


def _choice(numbers: npt.NDArray[np.uint64], salt: int, values: list[Any]) -> pa.Array:
    return pa.array(values).take(pa.array(mixed(numbers, salt) % np.uint64(len(values))))


def _hex(numbers: npt.NDArray[np.uint64]) -> pa.Array:
    words = np.stack([mixed(numbers, salt) for salt in range(80, 84)], axis=1)
    nibbles = (words[:, :, None] >> np.arange(0, 64, 4, dtype=np.uint64)) & np.uint64(15)
    return _fixed(np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles.reshape(len(numbers), 64)])


def _fixed(characters: npt.NDArray[np.uint8]) -> pa.Array:
    """Strings of equal length out of a matrix of bytes."""
    rows, width = characters.shape
    offsets = pa.array(np.arange(0, (rows + 1) * width, width, dtype=np.int32))
    return pa.StringArray.from_buffers(rows, offsets.buffers()[1], pa.py_buffer(np.ascontiguousarray(characters)))


def _coprime(pins: int, step: int) -> int:
    while np.gcd(pins, step) != 1:
        step += 1
    return step
