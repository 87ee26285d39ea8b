"""Hashes of keys and rows as arrays: the order of the ledger, the buckets of a scan, and how fingerprints combine.

A key is known by its MD5, 128 bits. DuckDB, Python and every other engine compute the same, so no upgrade moves a key,
and two of n keys share one with a probability of n^2 / 2^129: 2e-25 for ten million keys, 4e-20 for five billion.
DuckDB's own ``hash`` would not do: texts that differ in two characters eight apart share it often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

Words = npt.NDArray[np.uint64]

HASH = pa.binary(16)
SIGN = np.uint64(1 << 63)
"""Flipped in a signed number, it sorts as an unsigned one."""


def key_hashes(keys: Iterable[str]) -> pa.Array:
    """MD5 of each key in UTF-8, as :data:`HASH`."""
    digests = [hashlib.md5(key.encode(), usedforsecurity=False).digest() for key in keys]
    return pa.Array.from_buffers(HASH, len(digests), [None, pa.py_buffer(b"".join(digests))])


def arrow(values: npt.NDArray[Any]) -> pa.Array:
    """Numbers or truths as an Arrow array without a null.

    ``pyarrow.array`` imports pandas first, which takes longer than the whole scan of a hundred thousand pins.
    """
    if values.dtype == np.bool_:
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def numbers_of(column: pa.Array | pa.ChunkedArray) -> Words:
    """Values of 64 bits, none of them null, by their bits; ``to_numpy`` imports pandas."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not len(column):
        return np.empty(0, np.uint64)
    return np.frombuffer(column.buffers()[1], np.uint64, len(column), 8 * column.offset)


def pairs(hashes: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Each hash as two numbers whose order is that of the bytes: an array (rows, 2) of big-endian words."""
    if isinstance(hashes, pa.ChunkedArray):
        hashes = hashes.combine_chunks()
    if isinstance(hashes, pa.ExtensionArray):
        hashes = hashes.storage
    if not len(hashes):
        return np.empty((0, 2), np.uint64)
    return np.frombuffer(hashes.buffers()[1], ">u8", 2 * len(hashes), 16 * hashes.offset).reshape(-1, 2)


def halves(hashes: pa.Array | pa.ChunkedArray) -> tuple[Words, Words]:
    """First and last eight bytes of each hash as numbers, apart."""
    both = pairs(hashes)
    return both[:, 0].astype(np.uint64), both[:, 1].astype(np.uint64)


def whole(high: Words, low: Words) -> pa.Array:
    """The hashes that :func:`halves` took apart."""
    both = np.stack([high, low], axis=1).astype(">u8")
    return pa.Array.from_buffers(HASH, len(high), [None, pa.py_buffer(both)])


def ordered(hashes: pa.Array) -> tuple[Words, Words]:
    """The halves of the distinct hashes, in their order."""
    high, low = halves(hashes)
    order = sorting(high, low)
    high, low = high[order], low[order]
    first = np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))[: len(high)]
    return high[first], low[first]


def prefixes(high: Words, bits: int) -> npt.NDArray[np.uint16]:
    """The top ``bits`` (at most 16) of each hash: its bucket."""
    if not bits:
        return np.zeros(len(high), np.uint16)
    return (high >> np.uint64(64 - bits)).astype(np.uint16)


def span(sorted_high: Words, bits: int, prefix: int) -> slice:
    """Where the hashes that begin with ``prefix`` lie among sorted ones."""
    if not bits:
        return slice(0, len(sorted_high))
    edges = np.array([prefix << (64 - bits), ((prefix + 1) << (64 - bits)) - 1], np.uint64)
    return slice(
        int(np.searchsorted(sorted_high, edges[0], "left")), int(np.searchsorted(sorted_high, edges[1], "right"))
    )


def bits_for(rows: int, per_bucket: int) -> int:
    """The fewest bits whose buckets hold ``per_bucket`` of ``rows`` evenly spread rows; 16 at most."""
    bits = 0
    while bits < 16 and (rows >> bits) > per_bucket:
        bits += 1
    return bits


def mixed(numbers: Words) -> Words:
    """SplitMix64's finaliser: one to one, and every bit depends on every other."""
    x = np.array(numbers)
    shifted = np.empty_like(x)  # in place: fresh memory would cost as much as the arithmetic
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        np.right_shift(x, np.uint64(shift), out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.multiply(x, np.uint64(factor), out=x)
    np.right_shift(x, np.uint64(31), out=shifted)
    return np.bitwise_xor(x, shifted, out=x)


def share(name: str, numbers: Words) -> Words:
    """What part ``name`` brings into a fingerprint: added up, parts neither cancel nor stand for one another."""
    return mixed(numbers ^ np.uint64(xxhash.xxh3_64_intdigest(name.encode())))


def raw_fingerprint(total: Words) -> Words:
    """The fingerprint of added shares; never 0, which marks a doubt in the ledger."""
    total = mixed(total)
    total[total == 0] = 1
    return total


def combined(parts: Mapping[str, Words]) -> Words:
    """One fingerprint a row out of several numbers a row, by name."""
    shares = [share(name, numbers) for name, numbers in parts.items()]
    for other in shares[1:]:
        np.add(shares[0], other, out=shares[0])
    return raw_fingerprint(shares[0])


def sorting(high: Words, low: Words, *ties: Words) -> npt.NDArray[np.int64]:
    """The order by (high, low, first tie, second tie ...)."""
    rows = len(high)
    if rows < 2:
        return np.arange(rows)
    # Sorting numbers that carry their place is several times faster than sorting places. What a bucket's hashes have in
    # common is shifted out, so that hardly two agree in all the bits that are left.
    place, common = (rows - 1).bit_length(), 64 - int(high.min() ^ high.max()).bit_length()
    mask = np.uint64((1 << place) - 1)
    packed = ((high << np.uint64(min(common, 63))) & ~mask) | np.arange(rows, dtype=np.uint64)
    packed.sort()
    order = (packed & mask).astype(np.int64)
    top = packed >> np.uint64(place)
    if not (top[1:] == top[:-1]).any():
        return order
    return np.lexsort((*reversed(ties), low, high))


def find(high: Words, low: Words, in_high: Words, in_low: Words) -> npt.NDArray[np.int64]:
    """Place of each hash among sorted, distinct ones, -1 where it is not there."""
    if not len(in_high) or not len(high):
        return np.full(len(high), -1)
    if len(high) == len(in_high) and np.array_equal(high, in_high) and np.array_equal(low, in_low):
        return np.arange(len(high))
    places = np.searchsorted(in_high, high)
    places[places == len(in_high)] = 0
    there = (np.take(in_high, places) == high) & (np.take(in_low, places) == low)
    if (in_high[1:] == in_high[:-1]).any():  # two keys share 64 bits: look at all that do
        for row in np.flatnonzero(~there):
            first, last = np.searchsorted(in_high, high[row], "left"), np.searchsorted(in_high, high[row], "right")
            same = np.flatnonzero(in_low[first:last] == low[row])
            if len(same):
                places[row], there[row] = first + same[0], True
    return np.where(there, places, -1)
