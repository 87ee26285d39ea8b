"""Token-id blobs: a pin's lexical fields as bytes, and many blobs as flat arrays.

Layout, little-endian: version (1 byte), number of fields (1 byte), magic ``PL`` (2 bytes), one uint16 token count per
field, then the uint32 ids of all fields in the order of ``LEXICAL_FIELDS``. The header has 16 bytes, so ids are
aligned and hundreds of blobs decode as one array. A field without a word has count 0 and counts as missing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from feature_repo.errors import UsageError
from feature_repo.lexical.errors import LexicalBlobError, LexicalVersionError
from feature_repo.lexical.tokens import FIELD_TOKENS, LEXICAL_VERSION, token_id, tokenize

if TYPE_CHECKING:
    from feature_repo.pin_text import PinFields

LEXICAL_FIELDS = ("title", "description", "caption", "link", "boards", "queries")

_MAGIC = b"PL"
_HEADER = struct.Struct(f"<BB2s{len(LEXICAL_FIELDS)}H")
_WORDS = _HEADER.size // 4  # the header as uint32 words


@dataclass(frozen=True)
class CandidateTokens:
    """Tokens of n candidates in F fields, ready for array arithmetic.

    The tokens of candidate ``row`` in field ``column`` are the ``ids`` whose ``segments`` equal ``row * F + column``;
    tokens of one segment are neighbours, in the order of the text.
    """

    fields: tuple[str, ...]
    """Names of the F columns."""
    ids: npt.NDArray[np.uint32]
    """Token ids, flat."""
    segments: npt.NDArray[np.int32]
    """Candidate and field of each id."""
    lengths: npt.NDArray[np.int64]
    """Tokens per candidate and field, shape (n, F); 0 where the field is missing."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Where a candidate lacks a field, shape (n, F); a whole row where there is no blob."""
        return self.lengths == 0

    def without(self, fields: Sequence[str]) -> CandidateTokens:
        """The same candidates as if no pin had these fields; the columns stay.

        :raises UsageError: if a field is unknown.
        """
        if not fields:
            return self
        if unknown := sorted(set(fields) - set(LEXICAL_FIELDS)):
            raise UsageError(f"Lexical fields {unknown} cannot be left out: allowed are {', '.join(LEXICAL_FIELDS)}.")
        off = np.isin(self.fields, fields)
        kept = ~off[self.segments % len(self.fields)]
        return CandidateTokens(self.fields, self.ids[kept], self.segments[kept], np.where(off, 0, self.lengths))


def encode_blob(fields: PinFields) -> bytes:
    """The lexical blob of a pin: a pure function of its fields and ``LEXICAL_VERSION``.

    Link title and description are one field, and so are all board titles and all engaged queries. Of each field the
    first ``FIELD_TOKENS`` tokens are kept.
    """
    texts = (
        fields.title,
        fields.description,
        fields.caption,
        " ".join(filter(None, (fields.link_title, fields.link_description))),
        " ".join(fields.board_titles),
        " ".join(fields.engaged_queries),
    )
    tokens = [tokenize(text)[:FIELD_TOKENS] for text in texts]
    ids = [token_id(token) for field in tokens for token in field]
    header = _HEADER.pack(LEXICAL_VERSION, len(LEXICAL_FIELDS), _MAGIC, *map(len, tokens))
    return header + np.array(ids, dtype="<u4").tobytes()


def own_ids(blob: bytes) -> npt.NDArray[np.uint32]:
    """The token ids of all fields of one blob that :func:`encode_blob` has just made; nothing is checked."""
    return np.frombuffer(blob, dtype="<u4", offset=_HEADER.size).astype(np.uint32, copy=False)


def decode_blobs(blobs: Sequence[bytes | None], fields: Sequence[str] = LEXICAL_FIELDS) -> CandidateTokens:
    """Blobs as arrays, one row each in the order given; ``None`` is a candidate without lexical data.

    :param fields: the columns wanted, any of ``LEXICAL_FIELDS``, in any order.
    :raises UsageError: if a field is unknown or named twice, or none is named.
    :raises LexicalVersionError: if blobs are of another ``LEXICAL_VERSION``; its ``rows`` say which.
    :raises LexicalBlobError: if blobs are cut off, garbled or no bytes; its ``rows`` say which.
    """
    unknown = sorted(set(fields) - set(LEXICAL_FIELDS))
    if unknown or not fields or len(set(fields)) < len(fields):
        raise UsageError(f"Lexical fields {list(fields)}: name one or more of {', '.join(LEXICAL_FIELDS)}, each once.")
    data, starts, found = _joined(blobs)
    counts = _checked_counts(data, starts, found)

    body = np.ones(len(data), dtype=np.bool_)
    body[starts[:-1][found, None] + np.arange(_WORDS)] = False
    ids = data[body]
    columns = np.array([fields.index(name) if name in fields else -1 for name in LEXICAL_FIELDS])
    rows = np.arange(len(blobs))[:, None] * len(fields)
    segments = np.repeat(np.where(columns < 0, -1, rows + columns).ravel().astype(np.int32), counts.ravel())
    if len(fields) < len(LEXICAL_FIELDS):
        wanted = segments >= 0
        ids, segments = ids[wanted], segments[wanted]
    lengths = counts[:, [LEXICAL_FIELDS.index(name) for name in fields]]
    return CandidateTokens(tuple(fields), ids, segments, lengths)


def _joined(
    blobs: Sequence[bytes | None],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """All bytes as uint32 words, where each blob starts (n + 1 positions, in words), and which blobs there are."""
    try:
        parts = [b"" if blob is None else blob for blob in blobs]
        joined = b"".join(parts)
    except TypeError:
        rows = [row for row, blob in enumerate(blobs) if not isinstance(blob, bytes | bytearray | memoryview | None)]
        kind = type(blobs[rows[0]]).__name__
        raise LexicalBlobError(f"a lexical blob is bytes or None, not {kind}. {_REMEDY}", rows) from None
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    found = np.array([blob is not None for blob in blobs], dtype=np.bool_)
    bad = found & ((sizes < _HEADER.size) | (sizes % 4 != 0))
    if bad.any():
        rows = np.flatnonzero(bad).tolist()
        raise LexicalBlobError(f"{int(sizes[rows[0]])} bytes are no whole lexical blob. {_REMEDY}", rows)
    starts = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum(sizes // 4, out=starts[1:])
    return np.frombuffer(joined, dtype="<u4").astype(np.uint32, copy=False), starts, found


def _checked_counts(
    data: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64], found: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Token counts, shape (n, all fields), after every header was checked."""
    headers = data[starts[:-1][found, None] + np.arange(_WORDS)].astype("<u4", copy=False).view(np.uint8)
    rows = np.flatnonzero(found)
    garbled = (headers[:, 2] != _MAGIC[0]) | (headers[:, 3] != _MAGIC[1])
    if garbled.any():
        raise LexicalBlobError(f"bytes that do not begin like a lexical blob. {_REMEDY}", rows[garbled])
    other = headers[:, 0] != LEXICAL_VERSION
    if other.any():
        raise LexicalVersionError(
            f"lexical blob of version {headers[other][0, 0]}, this Pinfeather reads {LEXICAL_VERSION}. "
            "Run `pinfeather aggregate` and `pinfeather materialize` to write current ones.",
            rows[other],
        )
    counts = headers[:, 4:].copy().view("<u2").astype(np.int64)
    whole = (counts.sum(axis=1) + _WORDS == np.diff(starts)[found]) & (counts.max(axis=1, initial=0) <= FIELD_TOKENS)
    whole &= headers[:, 1] == len(LEXICAL_FIELDS)
    if not whole.all():
        raise LexicalBlobError(f"a lexical blob whose length differs from its header. {_REMEDY}", rows[~whole])
    all_counts = np.zeros((len(found), len(LEXICAL_FIELDS)), dtype=np.int64)
    all_counts[found] = counts
    return all_counts


_REMEDY = "Run `pinfeather aggregate` and `pinfeather materialize` to write it anew, or pass None to leave it out."
