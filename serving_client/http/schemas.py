"""JSON Schema of the answers, for the OpenAPI document: what :mod:`serving_client.http.wire` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from serving_client.http.wire import is_loose, is_union

_NUMBER = {"type": ["number", "null"]}
_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: _NUMBER,
    datetime: {"type": "string", "format": "date-time"},
    timedelta: {"type": "number", "description": "Seconds."},
}


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of an answer of type ``kind``; anything goes where the type says so."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_schema(kind)
    if is_union(kind):
        return {"anyOf": [{"type": "null"} if each is type(None) else schema_of(each) for each in args]}
    if origin is np.ndarray:
        return _array_schema(get_args(args[1])[0])
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": schema_of(args[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    if origin is Literal:
        return {"enum": list(args)}
    return {}


def _dataclass_schema(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind)]
    properties = {name: schema_of(hints[name]) for name in names}
    properties |= {
        f"{name}_types": {"type": "object", "additionalProperties": {"enum": ["time", "bytes"]}}
        for name in names
        if is_loose(hints[name])
    }
    return {"title": kind.__name__, "type": "object", "properties": properties, "required": names}


def _array_schema(scalar: type[np.generic]) -> dict[str, Any]:
    if issubclass(scalar, np.datetime64):
        return {"type": "array", "items": {"type": ["string", "null"], "format": "date-time"}}
    if issubclass(scalar, np.bool_):
        return {"type": "array", "items": {"type": "boolean"}}
    if issubclass(scalar, np.integer):
        return {"type": "array", "items": {"type": "integer"}}
    return {"type": "array", "items": {"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER}]}}
