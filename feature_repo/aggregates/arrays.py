"""Between numpy and Arrow by their buffers: ``to_numpy`` and ``pa.array`` load pandas, which takes most of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def numbers(column: pa.Array) -> npt.NDArray[Any]:
    """The values of an Arrow array of numbers without nulls, not copied."""
    kind = column.type.to_pandas_dtype()
    if not len(column):
        return np.empty(0, kind)  # of no length there may be no buffer
    return np.frombuffer(column.buffers()[1], kind)[column.offset : column.offset + len(column)]


def column(values: npt.NDArray[Any]) -> pa.Array:
    """An Arrow array of contiguous numbers, not copied."""
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def strings(values: Sequence[str | None]) -> pa.Array:
    """An Arrow array of texts, which may hold more than 2 GiB."""
    return _long(pa.large_string(), [None if value is None else value.encode() for value in values])


def blobs(values: Sequence[bytes]) -> pa.Array:
    """An Arrow array of bytes, which may hold more than 2 GiB."""
    return _long(pa.large_binary(), values)


def _long(kind: pa.DataType, values: Sequence[bytes | None]) -> pa.Array:
    ends = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(value or b"") for value in values], out=ends[1:])
    there = np.packbits(np.array([value is not None for value in values], np.bool_), bitorder="little")
    parts = [pa.py_buffer(there), pa.py_buffer(ends), pa.py_buffer(b"".join(value or b"" for value in values))]
    return pa.Array.from_buffers(kind, len(values), parts)
