"""The vector log by pin: what was logged last of each, for many pins at once and without holding all vectors in memory.

A log is in the order in which it was written, and whoever refills a store asks in the order of the pins. So the vectors
go into one unnamed file, mapped into memory, and 28 bytes a row say where each pin's last one is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from feature_repo.paths import RepoPaths
from materialize import vector_log


@dataclass(frozen=True, slots=True)
class Logged:
    """The last logged vector of a pin [dimension], and the fingerprint of the text it was made of."""

    text_fp: bytes
    vector: npt.NDArray[np.float16]


class LogIndex:
    """The log of a space as of now; later writes do not show.

    :raises PinfeatherError: if a part cannot be read.
    """

    def __init__(self, paths: RepoPaths, space: str) -> None:
        keys: list[npt.NDArray[np.bytes_]] = []
        fps: list[npt.NDArray[np.uint8]] = []
        self._vectors: npt.NDArray[np.float16] = np.zeros((0, 0), np.float16)
        folder = paths.vectors / space
        folder.mkdir(parents=True, exist_ok=True)
        rows, dimension = 0, 0
        # The file has no name, so a kill leaves nothing behind.
        with tempfile.TemporaryFile(dir=folder) as file, vector_log.Snapshot(paths, space) as snapshot:
            for table in snapshot.tables(["pin_id", "embedding", "text_fp"]):
                if not table.num_rows:
                    continue
                dimension = int(table.schema.metadata[b"dimension"])
                rows += table.num_rows
                keys.append(pin_digests(table["pin_id"]))
                fps.append(np.frombuffer(bytes.fromhex("".join(table["text_fp"].to_pylist())), np.uint8))
                file.write(vector_matrix(table, dimension).tobytes())
            file.flush()
            if rows:
                self._vectors = np.memmap(file, np.float16, "r", shape=(rows, dimension))
        self._fps = (np.concatenate(fps) if fps else np.zeros(0, np.uint8)).reshape(-1, 16)
        digests = np.concatenate(keys) if keys else np.zeros(0, "S16")
        order = np.argsort(digests, kind="stable")
        last = np.append(digests[order][1:] != digests[order][:-1], True)[: len(order)]
        self._rows = order[last].astype(np.int64)
        self._digests = digests[order][last]
        self._texts: tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, pin_ids: Sequence[str]) -> list[Logged | None]:
        """What was logged last of each pin, in their order; None where the log has nothing."""
        if not len(self._rows) or not pin_ids:
            return [None] * len(pin_ids)
        wanted = pin_digests(pa.array(pin_ids, pa.string()))
        places = np.minimum(np.searchsorted(self._digests, wanted), len(self._digests) - 1)
        found: list[Logged | None] = []
        for place, known in zip(places.tolist(), (self._digests[places] == wanted).tolist(), strict=True):
            row = self._rows[place]
            found.append(Logged(self._fps[row].tobytes(), np.array(self._vectors[row])) if known else None)
        return found

    def find_texts(self, text_fps: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float16]]:
        """Text fingerprint to the vector [dimension] that was logged for it, of those that some pin's last row has."""
        if not len(self._rows) or not text_fps:
            return {}
        if self._texts is None:
            fps = np.ascontiguousarray(self._fps[self._rows]).view("S16").reshape(-1)
            order = np.argsort(fps, kind="stable")
            self._texts = fps[order], self._rows[order]
        fps, rows = self._texts
        wanted = np.array(text_fps, "S16")
        places = np.minimum(np.searchsorted(fps, wanted), len(fps) - 1)
        known = fps[places] == wanted
        return {
            fp: np.array(self._vectors[rows[place]])
            for fp, place, there in zip(text_fps, places.tolist(), known.tolist(), strict=True)
            if there
        }


def pin_digests(pin_ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """xxh3-128 of each pin id, ``S16``: sorts and compares fast, and no two pins of a catalogue share one."""
    return np.array([xxhash.xxh3_128_digest(pin_id.encode()) for pin_id in pin_ids.to_pylist()], "S16")


def vector_matrix(table: pa.Table, dimension: int) -> npt.NDArray[np.float16]:
    """The vectors of log rows, [n, dimension]."""
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(-1, dimension), np.float16)
