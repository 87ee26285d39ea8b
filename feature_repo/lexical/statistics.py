"""Statistics snapshot: what BM25 has to know of the whole catalogue, as one content-addressed file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from feature_repo.errors import UsageError
from feature_repo.lexical.blobs import LEXICAL_FIELDS, CandidateTokens, decode_blobs
from feature_repo.lexical.errors import LexicalBlobError, LexicalStatisticsError, LexicalVersionError
from feature_repo.lexical.tokens import LEXICAL_VERSION

ALL_FIELDS = "all"
"""The column that takes a pin's six fields as one document."""

COLUMNS = (*LEXICAL_FIELDS, ALL_FIELDS)

Variant = Literal["lucene", "okapi"]

OKAPI_EPSILON = 0.25  # rank-bm25's default

_CHUNK = 20_000  # blobs decoded at once while fitting
_ID_BITS = np.uint64(32)


@dataclass(frozen=True, eq=False)
class LexicalStatistics:
    """Documents, lengths and document frequencies of a catalogue, per field and over all fields as one.

    A document of a field is a pin that has at least one token there, as Lucene counts; pins that lack the field do not
    lower its average length or raise its IDF.
    """

    documents: npt.NDArray[np.int64]
    """Pins that have the field, shape (columns,)."""
    tokens: npt.NDArray[np.int64]
    """Tokens of the field over all pins, shape (columns,)."""
    vocabulary: npt.NDArray[np.uint32]
    """Distinct token ids, ascending, shape (terms,)."""
    document_frequency: npt.NDArray[np.uint32]
    """Documents that hold a term, shape (terms, columns)."""
    lexical_version: int = LEXICAL_VERSION

    @classmethod
    def fit(cls, blobs: Iterable[bytes | None], without: Sequence[str] = ()) -> LexicalStatistics:
        """Statistics of these blobs; ``None`` is skipped, an empty catalogue is allowed.

        The order of the blobs does not matter.

        :param without: lexical fields to leave out, as if no pin had them.
        :raises LexicalVersionError, LexicalBlobError: for blobs that cannot be counted, with their row numbers.
        """
        documents = np.zeros(len(COLUMNS), dtype=np.int64)
        tokens = np.zeros(len(COLUMNS), dtype=np.int64)
        keys, counts = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        source, read = iter(blobs), 0
        while chunk := list(islice(source, _CHUNK)):
            candidates = _decode_from(chunk, read).without(without)
            read += len(chunk)
            lengths = np.column_stack([candidates.lengths, candidates.lengths.sum(axis=1)])
            documents += (lengths > 0).sum(axis=0)
            tokens += lengths.sum(axis=0)
            more_keys, more_counts = _document_frequencies(candidates)
            keys, counts = _add_up(np.concatenate([keys, more_keys]), np.concatenate([counts, more_counts]))
        vocabulary, rows = np.unique((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), return_inverse=True)
        frequency = np.zeros((len(vocabulary), len(COLUMNS)), dtype=np.uint32)
        frequency[rows, (keys >> _ID_BITS).astype(np.int64)] = counts
        return cls(documents, tokens, vocabulary, frequency)

    @cached_property
    def average_length(self) -> npt.NDArray[np.float64]:
        """Tokens per document of each column; 1 where there is no document, so that it can divide."""
        return np.where(self.documents > 0, self.tokens / np.maximum(self.documents, 1), 1.0)

    def idf(self, ids: npt.NDArray[np.uint32], variant: Variant = "lucene") -> npt.NDArray[np.float64]:
        """Inverse document frequency of tokens, shape (len(ids), columns).

        ``lucene``: ln(1 + (N - df + 0.5) / (df + 0.5)), never negative; a token new to the catalogue has df 0.
        ``okapi``: ln(N - df + 0.5) - ln(df + 0.5); where negative, 0.25 times the mean over the column's vocabulary
        (rank-bm25's ``BM25Okapi``); 0 for a token the column has never seen.

        :raises UsageError: for another variant.
        """
        frequency = np.zeros((len(ids), len(COLUMNS)))
        if len(self.vocabulary):
            places = np.minimum(np.searchsorted(self.vocabulary, ids), len(self.vocabulary) - 1)
            known = self.vocabulary[places] == ids
            frequency[known] = self.document_frequency[places[known]]
        if variant == "lucene":
            return np.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))
        if variant != "okapi":
            raise UsageError(f"BM25 variant {variant!r}: allowed are {' and '.join(get_args(Variant))}.")
        raw = _okapi_idf(self.documents, frequency)
        floor = np.broadcast_to(OKAPI_EPSILON * self._okapi_mean_idf, raw.shape)
        return np.where(frequency == 0, 0.0, np.where(raw < 0, floor, raw))

    @cached_property
    def _okapi_mean_idf(self) -> npt.NDArray[np.float64]:
        """Mean Okapi IDF over each column's own vocabulary, negative ones included, shape (columns,)."""
        used = self.document_frequency > 0
        total = np.where(used, _okapi_idf(self.documents, self.document_frequency), 0.0).sum(axis=0)
        return total / np.maximum(used.sum(axis=0), 1)

    @cached_property
    def _content(self) -> bytes:
        """The four arrays as little-endian bytes, one after the other."""
        arrays = (
            (self.documents, "<i8"),
            (self.tokens, "<i8"),
            (self.vocabulary, "<u4"),
            (self.document_frequency, "<u4"),
        )
        return b"".join(array.astype(kind).tobytes() for array, kind in arrays)

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal characters of BLAKE2b over version, columns and arrays: the snapshot's name."""
        head = json.dumps([self.lexical_version, COLUMNS, len(self.vocabulary)]).encode()
        return hashlib.blake2b(head + self._content, digest_size=16).hexdigest()

    def save(self, directory: str | Path) -> str:
        """Write ``<digest>.json`` into ``directory`` (made if need be) and give the digest back.

        An existing file of that name is left as it is: the name says what it holds.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.digest}.json"
        if path.is_file():
            return self.digest
        description = {
            "kind": "pinfeather lexical statistics",
            "lexical_version": self.lexical_version,
            "columns": COLUMNS,
            "documents": self.documents.tolist(),
            "average_length": [round(float(value), 3) for value in self.average_length],
            "terms": len(self.vocabulary),
            "digest": self.digest,
            "arrays": base64.b64encode(zlib.compress(self._content)).decode(),
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(description, indent=1) + "\n")
        temporary.replace(path)  # the name appears only with the whole content
        return self.digest

    @classmethod
    def load(cls, path: str | Path) -> LexicalStatistics:
        """Read a snapshot and check that it holds what its digest says.

        :raises LexicalStatisticsError: if the file is missing, cut off or changed.
        :raises LexicalVersionError: if it was fitted under another ``LEXICAL_VERSION``.
        """
        try:
            description = json.loads(Path(path).read_text())
            version, digest = description["lexical_version"], description["digest"]
            if version == LEXICAL_VERSION:
                statistics = _from_arrays(description)
        except (OSError, ValueError, KeyError, TypeError, zlib.error, binascii.Error) as error:
            raise LexicalStatisticsError(
                f"{path} is no readable statistics snapshot ({type(error).__name__}: {error}). {_REMEDY}"
            ) from error
        if version != LEXICAL_VERSION:
            raise LexicalVersionError(
                f"{path} was fitted under lexical version {version}, this Pinfeather reads {LEXICAL_VERSION}. {_REMEDY}"
            )
        if statistics.digest != digest:
            raise LexicalStatisticsError(f"{path} was changed: its content does not match its digest. {_REMEDY}")
        return statistics


_REMEDY = "Make a new one with `pinfeather lexical fit`."


def _from_arrays(description: dict[str, Any]) -> LexicalStatistics:
    """The snapshot of a parsed file; its digest is not checked yet."""
    terms, width = int(description["terms"]), len(COLUMNS)
    size = 16 * width + 4 * terms * (width + 1)
    if terms < 0 or tuple(description["columns"]) != COLUMNS:
        raise ValueError(f"{terms} terms in columns {description['columns']}")
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(base64.b64decode(description["arrays"], validate=True), max_length=size + 1)
    if len(content) != size or not unpacker.eof:
        raise ValueError(f"{len(content)} bytes of arrays where {size} belong, or cut off")
    totals = np.frombuffer(content, dtype="<i8", count=2 * width).reshape(2, width)
    numbers = np.frombuffer(content, dtype="<u4", offset=16 * width)
    return LexicalStatistics(
        documents=totals[0].astype(np.int64),
        tokens=totals[1].astype(np.int64),
        vocabulary=numbers[:terms].astype(np.uint32),
        document_frequency=numbers[terms:].astype(np.uint32).reshape(terms, width),
    )


def _decode_from(chunk: list[bytes | None], first_row: int) -> CandidateTokens:
    """``decode_blobs`` whose errors count rows from the first blob of all."""
    try:
        return decode_blobs(chunk)
    except (LexicalBlobError, LexicalVersionError) as error:
        if not first_row:
            raise
        raise type(error)(error.reason, [first_row + row for row in error.rows]) from None


def _document_frequencies(candidates: CandidateTokens) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Keys ``column << 32 | id`` and in how many of the candidates each occurs."""
    width, low = np.uint64(len(LEXICAL_FIELDS)), np.uint64(0xFFFFFFFF)
    in_field = _distinct(candidates.segments.astype(np.uint64) << _ID_BITS | candidates.ids)
    column, row = (in_field >> _ID_BITS) % width, (in_field >> _ID_BITS) // width
    in_pin = _distinct(row << _ID_BITS | in_field & low)
    keys = np.sort(np.concatenate([column << _ID_BITS | in_field & low, width << _ID_BITS | in_pin & low]))
    first = _first_of_each(keys)
    return keys[first], np.diff(first, append=len(keys))


def _add_up(
    keys: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Distinct keys, ascending, with the sums of their counts."""
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    first = _first_of_each(keys)
    return keys[first], np.add.reduceat(counts, first) if len(first) else counts


def _distinct(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Ascending; several times faster than ``np.unique`` on millions of values."""
    values = np.sort(values)
    return values[_first_of_each(values)]


def _first_of_each(ascending: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Positions where a new value begins."""
    return np.flatnonzero(np.diff(ascending, prepend=~ascending[:1]) != 0)


def _okapi_idf(documents: npt.NDArray[np.int64], frequency: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.log(documents - frequency.astype(np.float64) + 0.5) - np.log(frequency + 0.5)
