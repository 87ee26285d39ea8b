"""Feast's value protos to and from the stored values of :mod:`~materialize.stores.layout`.

Feast is imported on first use only. A value that the layout cannot hold naturally (a map, a set, a value of another
type than its field declares) is stored as its serialised proto under a tag, so every Feast value round trips.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from math import isfinite
from typing import Any

import numpy as np

from .errors import BadInputError
from .layout import FEAST_TAG, KeyValue, canonical_type, decode_numbers, decode_value, encode_value
from .values import fits

_PROTO_FIELDS = {
    "bytes": "bytes_val",
    "string": "string_val",
    "int32": "int32_val",
    "int64": "int64_val",
    "float64": "double_val",
    "float32": "float_val",
    "bool": "bool_val",
    "unix_timestamp": "unix_timestamp_val",
    "json": "json_val",
    "uuid": "uuid_val",
    "time_uuid": "time_uuid_val",
    "decimal": "decimal_val",
}
NO_ENTITY = "__dummy_id"
"""The join key that Feast gives to views without entities, in some calls and not in others; it is left out of keys."""

# Stored exactly as the proto has them; timestamps are whole seconds in both.
_AS_STORED = frozenset(_PROTO_FIELDS) - {"bytes", "float32", "float64"}
_FLOATS = {"float32": "<f4", "float64": "<f8"}
_OTHERS: dict[str, type] = {"bool": bool, "int32": int, "int64": int, "unix_timestamp": int}
# The Python type of a stored value that is the proto's own.
_PLAIN = dict.fromkeys(_PROTO_FIELDS.keys() - {"bytes"}, str) | _OTHERS | {"float32": float, "float64": float}


_KEY_TYPES = {bool: "bool", str: "string", int: "int64", bytes: "bytes", float: "float64"}


def declared_type(dtype: Any) -> str | None:
    """The layout's name for a Feast field type, None where values of it are stored as protos."""
    try:
        return canonical_type(dtype.to_value_type().name)
    except BadInputError:
        return None


@cache
def encoder(type_name: str | None) -> Callable[[Any], Any]:
    """A function that turns a ``ValueProto`` into the stored value of a type; see :func:`declared_type`."""
    if type_name is None:
        return _as_proto
    expected = proto_field(type_name)
    item_type = type_name.removesuffix("_list")
    numbers_type = _FLOATS.get(item_type)

    def encode_scalar(value: Any) -> Any:
        if value.WhichOneof("val") != expected:
            return _as_proto(value)
        natural = getattr(value, expected)
        if as_stored or (type_name == "float32" and isfinite(natural)):
            return natural
        return encode_value(natural, type_name)

    def encode_list(value: Any) -> Any:
        if value.WhichOneof("val") != expected:
            return _as_proto(value)
        items = getattr(value, expected)
        if as_stored:
            return list(items.val)
        if numbers_type is None:
            return encode_value(list(items.val), type_name)
        return encode_value(numbers_of(items, numbers_type), type_name)

    as_stored = item_type in _AS_STORED
    return encode_list if type_name.endswith("_list") else encode_scalar


def _as_proto(value: Any) -> Any:
    if value.WhichOneof("val") is None:
        return None
    return {FEAST_TAG: base64.b64encode(value.SerializeToString(deterministic=True)).decode("ascii")}


def numbers_of(items: Any, dtype: str) -> np.ndarray:
    """The numbers of a ``FloatList`` ("<f4") or ``DoubleList`` ("<f8") as a read-only array [n]."""
    count = len(items.val)
    # They are the end of the proto's bytes: a fifth of the time of asking for each.
    return np.frombuffer(items.SerializeToString()[-int(dtype[2]) * count :] if count else b"", dtype=dtype)


@cache
def decoder(type_name: str | None) -> Callable[[Any], Any]:
    """A function that turns stored values of a type into ``ValueProto``; null for those of another type."""
    from feast.protos.feast.types.Value_pb2 import Value

    field = None if type_name is None else proto_field(type_name)
    is_list = type_name is not None and type_name.endswith("_list")
    plain = _PLAIN.get(type_name or "")
    limit = 1 << (31 if type_name == "int32" else 63)

    def decode(stored: Any) -> Any:
        if type(stored) is plain and (type(stored) is not int or -limit <= stored < limit):
            return make({field: stored})
        if stored is None:
            return Value()
        if type(stored) is dict and FEAST_TAG in stored:
            return Value.FromString(base64.b64decode(stored[FEAST_TAG]))
        if field is None or type_name is None:
            raise BadInputError(f"The stored value {str(stored)[:60]!r} has no declared type to read it with.")
        if not fits(stored, type_name):
            return Value()
        if is_list and type(stored) is dict:
            return vector_proto(decode_numbers(stored, type_name))
        natural = stored if type_name.startswith("unix_timestamp") else decode_value(stored, type_name)
        return make({field: {"val": natural} if is_list else natural})

    def make(value: dict[Any, Any]) -> Any:
        return Value(**value)

    return decode


def vector_proto(numbers: np.ndarray) -> Any:
    """A ``ValueProto`` with a list of floats, float32 or float64 as the array's; a tenth of the time of a list's."""
    from feast.protos.feast.types.Value_pb2 import Value

    field = "double_list_val" if numbers.dtype.itemsize == 8 else "float_list_val"
    value = Value()
    getattr(value, field).MergeFromString(_packed_header(numbers.nbytes) + numbers.tobytes())
    return value


@lru_cache(maxsize=64)
def _packed_header(length: int) -> bytes:
    """What comes before the bytes of a packed repeated field number 1: its tag and its length."""
    digits = [0x0A]
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*digits, length])


def proto_field(type_name: str) -> str:
    """The field of a ``ValueProto`` that holds values of a type."""
    if type_name.endswith("_list"):
        return _PROTO_FIELDS[type_name[:-5]].replace("_val", "_list_val")
    return _PROTO_FIELDS[type_name]


def entity_of(entity_key: Any) -> dict[str, KeyValue]:
    """An ``EntityKeyProto`` as join key -> value.

    :raises BadInputError: if a join key has no value.
    """
    names, values = entity_key.join_keys, entity_key.entity_values
    if len(names) == 1:
        name = names[0]
        text = values[0].string_val  # empty where it is no text
        if text and name != NO_ENTITY:
            return {name: text}
    return key_values(zip(names, values, strict=True))


def key_values(protos: Any) -> dict[str, KeyValue]:
    """Pairs of a join key and its ``ValueProto`` as join key -> value; see :func:`entity_of`."""
    entity = {}
    for join_key, value in protos:
        if join_key == NO_ENTITY:
            continue
        field = value.WhichOneof("val")
        if field is None or field == "null_val":
            raise BadInputError(f"The join key {join_key!r} has no value; an entity key may not be null.")
        entity[join_key] = getattr(value, field)
    return entity


def entity_key_of(entity: Mapping[str, KeyValue], types: Mapping[str, str | None]) -> Any:
    """The ``EntityKeyProto`` of an entity; ``types`` declares the join keys.

    None if a value is of another type than its join key: a row from before that was changed.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    values = []
    for name, value in entity.items():
        kind = types.get(name) or _KEY_TYPES[type(value)]
        if type(value) is not (bytes if kind == "bytes" else _PLAIN.get(kind)):
            return None
        natural: dict[str, Any] = {proto_field(kind): value}
        values.append(Value(**natural))
    return EntityKey(join_keys=list(entity), entity_values=values)
