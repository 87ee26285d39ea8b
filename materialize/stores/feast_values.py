"""Feast's value protos to and from the stored values of :mod:`~materialize.stores.layout`.

Feast is imported on first use only. A value that the layout cannot hold naturally (a map, a set, a value of another
type than its field declares) is stored as its serialised proto under a tag, so every Feast value round trips.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from .errors import BadInputError
from .layout import FEAST_TAG, KeyValue, canonical_type, decode_value, encode_value

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


def declared_type(dtype: Any) -> str | None:
    """The layout's name for a Feast field type, None where values of it are stored as protos."""
    try:
        return canonical_type(dtype.to_value_type().name)
    except BadInputError:
        return None


def encode_proto(value: Any, type_name: str | None) -> Any:
    """A ``ValueProto`` as a stored value."""
    field = value.WhichOneof("val")
    if field is None:
        return None
    if type_name is None or field != _proto_field(type_name):
        return {FEAST_TAG: base64.b64encode(value.SerializeToString(deterministic=True)).decode("ascii")}
    natural = getattr(value, field)
    return encode_value(list(natural.val) if type_name.endswith("_list") else natural, type_name)


@cache
def decoder(type_name: str | None) -> Callable[[Any], Any]:
    """A function that turns stored values of a type into ``ValueProto``."""
    from feast.protos.feast.types.Value_pb2 import Value

    field = None if type_name is None else _proto_field(type_name)
    as_seconds = type_name is not None and type_name.startswith("unix_timestamp")  # stored as Feast has it
    is_list = type_name is not None and type_name.endswith("_list")
    as_stored = as_seconds or type_name in ("string", "int32", "int64", "bool")

    def decode(stored: Any) -> Any:
        if stored is None:
            return Value()
        if type(stored) is dict and FEAST_TAG in stored:
            return Value.FromString(base64.b64decode(stored[FEAST_TAG]))
        if field is None or type_name is None:
            raise BadInputError(f"The stored value {str(stored)[:60]!r} has no declared type to read it with.")
        natural: Any = stored if as_stored else decode_value(stored, type_name)
        if is_list:
            natural = {"val": natural}
        return Value(**{field: natural})

    return decode


def _proto_field(type_name: str) -> str:
    if type_name.endswith("_list"):
        return _PROTO_FIELDS[type_name[:-5]].replace("_val", "_list_val")
    return _PROTO_FIELDS[type_name]


def entity_of(entity_key: Any) -> dict[str, KeyValue]:
    """An ``EntityKeyProto`` as join key -> value."""
    entity = {}
    for join_key, value in zip(entity_key.join_keys, entity_key.entity_values, strict=True):
        field = value.WhichOneof("val")
        if field is None:
            raise BadInputError(f"The join key {join_key!r} has no value; an entity key may not be null.")
        entity[join_key] = getattr(value, field)
    return entity


def entity_key_of(entity: Mapping[str, KeyValue], types: Mapping[str, str | None]) -> Any:
    """The ``EntityKeyProto`` of an entity; ``types`` declares the join keys."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    values = [decoder(types.get(name) or _natural_type(value))(value) for name, value in entity.items()]
    return EntityKey(join_keys=list(entity), entity_values=values)


def _natural_type(value: KeyValue) -> str:
    kinds = {bool: "bool", str: "string", int: "int64", bytes: "bytes"}
    return kinds.get(type(value), "float64")
