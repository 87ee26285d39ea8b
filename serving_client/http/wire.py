"""Answers as JSON and as Arrow, and back: what the service writes and the remote client reads.

The JSON of an answer is an object with its fields. NaN and infinities are null; times are ISO 8601 in UTC; arrays are
lists, a vector that is not there a list of null. Features (``columns``, ``content``) may hold values that JSON has no
type for: their names and kinds stand beside them, as ``content_types: {"pin_text__created_at": "time"}``.
"""

from __future__ import annotations

import base64
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import PinfeatherError
from serving_client.answers import Embeddings

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
_TRAILING = {"probabilities": 5, "vectors": 0}
"""Matrices to their columns, for those of no rows, whose JSON does not show them; 0 where only Arrow keeps it."""
_METADATA = b"pinfeather"
_encoded = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def to_bytes(answer: Any) -> bytes:
    """The JSON document of an answer, in ASCII: no text of a pin can make it invalid."""
    import pydantic_core  # not for the remote client, which only reads

    data = to_json(answer)
    try:  # ten times as fast as Python's own, which takes a microsecond for a number
        return pydantic_core.to_json(data, ensure_ascii=True, inf_nan_mode="null")
    except pydantic_core.PydanticSerializationError:  # half a character, which Python's own writes
        return _encoded(data).encode("ascii")


def to_json(value: Any) -> Any:
    """An answer as what :func:`json.dumps` takes."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return _array_to_json(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _dataclass_to_json(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        if set(map(type, value)) == {str}:  # the ids of hundreds of pins
            return list(value)
        return [to_json(item) for item in value]
    return _scalar_to_json(value)


def _scalar_to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, np.generic):
        return to_json(value.item())
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _array_to_json(array: NDArray[Any]) -> Any:
    if array.dtype.kind == "M":
        texts = np.datetime_as_string(array.astype("datetime64[us]"), timezone="UTC").tolist()
        return [None if text == "NaT" else text for text in texts]
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        array = array.astype(object)
        array[~finite] = None
    return array.tolist()


def _dataclass_to_json(answer: Any) -> dict[str, Any]:
    data = {}
    kind: Any = type(answer)
    for name, loose in _loose_fields(kind).items():
        value = getattr(answer, name)
        data[name] = to_json(value)
        if loose and value and (kinds := {key: what for key, item in value.items() if (what := _kind(item))}):
            data[f"{name}_types"] = kinds
    return data


@cache
def _loose_fields(kind: Any) -> Mapping[str, bool]:
    """Field to whether it maps names to values of any type."""
    hints = get_type_hints(kind)
    return {each.name: is_loose(hints[each.name]) for each in fields(kind)}


def is_loose(hint: Any) -> bool:
    """Whether values of this type map names to anything."""
    if is_union(hint):
        return any(is_loose(each) for each in get_args(hint))
    return get_origin(hint) in (Mapping, dict) and get_args(hint)[1] in (Any, list[Any])


def _kind(value: Any) -> str | None:
    """What JSON does not say of a value, or of the first in a list that has any."""
    if isinstance(value, list):
        return next((kind for item in value if (kind := _kind(item))), None)
    return "time" if isinstance(value, datetime) else "bytes" if isinstance(value, bytes) else None


# --- and back -------------------------------------------------------------------------------------------------------

_Decoder = Callable[[Any], Any]


def from_json(kind: Any, data: Any) -> Any:
    """The answer of type ``kind`` out of its JSON. Unknown keys, as of a newer service, are left out.

    :raises PinfeatherError: if ``data`` is no such answer.
    """
    try:
        return _decoder(kind)(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = getattr(kind, "__name__", kind)
        raise PinfeatherError(
            f"That is no {name}: the service and this client do not have the same version."
        ) from error


@cache
def _decoder(kind: Any) -> _Decoder:
    origin, args = get_origin(kind), get_args(kind)
    if is_union(kind):
        return _union_decoder(args)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_decoder(kind)
    if origin is np.ndarray:
        return _array_decoder(get_args(args[1])[0])
    if origin is tuple:
        decoders = [_decoder(each) for each in args if each is not Ellipsis]
        if len(args) == 2 and args[1] is Ellipsis:
            return lambda data: tuple(map(decoders[0], data))
        return lambda data: tuple(decode(each) for decode, each in zip(decoders, data, strict=True))
    if origin in (list, Sequence):
        item = _decoder(args[0])
        return lambda data: [item(each) for each in data]
    if origin in (dict, Mapping):
        value = _decoder(args[1])
        return lambda data: {key: value(each) for key, each in data.items()}
    return _PLAIN.get(kind, lambda data: data)


_PLAIN: Mapping[Any, _Decoder] = {
    float: lambda data: math.nan if data is None else float(data),
    datetime: lambda data: datetime.fromisoformat(data),
    timedelta: lambda data: timedelta(seconds=data),
}


def is_union(kind: Any) -> bool:
    """Whether this is a type out of several."""
    return get_origin(kind) in (Union, types.UnionType)


def _union_decoder(args: tuple[Any, ...]) -> _Decoder:
    some = [each for each in args if each is not type(None)]
    decode = _decoder(some[0]) if len(some) == 1 else lambda data: data
    return lambda data: None if data is None else decode(data)


def _array_decoder(scalar: type[np.generic]) -> _Decoder:
    if issubclass(scalar, np.datetime64):
        return lambda data: np.array([(text or "NaT").removesuffix("Z") for text in data], dtype="datetime64[us]")
    return lambda data: np.array(data, dtype=scalar)  # None is NaN where the numbers are floats


def _dataclass_decoder(kind: type) -> _Decoder:
    hints = get_type_hints(kind)
    decoders = {each.name: _decoder(hints[each.name]) for each in fields(kind)}
    loose = [name for name, is_loose in _loose_fields(kind).items() if is_loose]
    optional = {
        each.name for each in fields(kind) if each.default is not MISSING or each.default_factory is not MISSING
    }

    def decode(data: Mapping[str, Any]) -> Any:
        known = {name: decoders[name](data[name]) for name in decoders if name in data or name not in optional}
        for name in loose:
            for column, value_kind in data.get(f"{name}_types", {}).items():
                known[name][column] = _restored(known[name][column], value_kind)
        for name in _TRAILING.keys() & known.keys():
            if isinstance(known[name], np.ndarray) and not known[name].size:
                known[name] = known[name].reshape(0, _TRAILING[name])
        return kind(**known)

    return decode


def _restored(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_restored(each, kind) for each in value]
    return base64.b64decode(value) if kind == "bytes" else datetime.fromisoformat(value).astimezone(UTC)


# --- vectors as Arrow -----------------------------------------------------------------------------------------------


def to_arrow(answer: Embeddings) -> bytes:
    """An Arrow IPC stream: ``id``, ``vector`` [d] (null where nothing was found), ``found``, and a column for each
    other array of the answer; what is not of one row stands as JSON in the schema's metadata under ``pinfeather``.
    """
    import pyarrow as pa

    rows = {each.name: getattr(answer, each.name) for each in fields(answer)}
    ids, vectors = rows.pop("ids"), rows.pop("vectors")
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    missing = pa.array(~answer.found)
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=missing),
    }
    columns |= {name: pa.array(value) for name, value in rows.items() if isinstance(value, np.ndarray)}
    rest = {name: to_json(value) for name, value in rows.items() if name not in columns}
    batch = pa.record_batch(columns)
    batch = batch.replace_schema_metadata({_METADATA: json.dumps(rest).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def from_arrow(data: bytes) -> Embeddings:
    """What :func:`to_arrow` wrote.

    :raises PinfeatherError: if it is no such stream.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(data).read_all().combine_chunks()
        columns = {name: table.column(name) for name in table.column_names}
        found = columns["found"].to_numpy(zero_copy_only=False)
        vectors = np.full((len(found), columns["vector"].type.list_size), np.nan, dtype=np.float32)
        vectors[found] = columns["vector"].combine_chunks().flatten().to_numpy().reshape(-1, vectors.shape[1])
        known = json.loads(table.schema.metadata[_METADATA])
        arrays = {name: column.to_numpy() for name, column in columns.items() if name not in ("id", "vector", "found")}
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise PinfeatherError("That is no Arrow stream of vectors of this service.") from error
    decoders = {each.name: _decoder(get_type_hints(Embeddings)[each.name]) for each in fields(Embeddings)}
    rest = {name: decoders[name](value) for name, value in known.items() if name in decoders}
    return Embeddings(ids=tuple(columns["id"].to_pylist()), vectors=vectors, found=found, **arrays, **rest)
