"""How a feature row lies in a store: point ids, collection names, payload.

Everything that reads or writes rows goes through this module (materializer, Feast online store, client), so all of
them see the same bytes. Feature values have their codec in :mod:`~materialize.stores.values`.

A row's payload::

    {"view": "pin_text", "key": {"pin_id": "p1"}, "event_ts": 1700000000000000,
     "created_ts": 1700000000000000, "f": {"title": "Oak shelf", "clicks": 3}, ...filterable extras}

Times are integer microseconds since 1970 in UTC. The project is in the collection's name and in the point id.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import numpy as np

from .errors import BadInputError
from .payload import path_of
from .points import DEFAULT_VECTOR, CollectionSpec, Hit, IndexKind, Point
from .values import (
    FEAST_TAG,
    NATURAL,
    SCALAR_TYPES,
    canonical_type,
    decode_numbers,
    decode_value,
    encode_value,
    from_micros,
    to_micros,
)

__all__ = [
    "FEAST_TAG",
    "NAMESPACE",
    "PACKED",
    "ROW_FIELDS",
    "SCALAR_TYPES",
    "KeyValue",
    "canonical_type",
    "decode_feature",
    "decode_key",
    "decode_numbers",
    "decode_value",
    "decode_values",
    "encode_key",
    "encode_value",
    "entity_collection",
    "entity_spec",
    "feature_path",
    "from_micros",
    "point_id",
    "point_ids",
    "row_payload",
    "stack_vectors",
    "to_micros",
    "view_collection",
]

KeyValue = str | int | bytes | bool | float
NAMESPACE = uuid.UUID("5f0c9a52-6c0e-5d0b-9a55-3d6a4f7c1e21")
"""Of every point id; changing it orphans every stored point."""
_HASHED_NAMESPACE = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_NATURAL_LISTS = frozenset(f"{kind}_list" for kind in NATURAL)
ROW_FIELDS = ("project", "view", "key", "event_ts", "created_ts", "f")
"""Payload keys that an extra may not use; "project" is reserved."""
PACKED = ("created_ts", "f", "key")
"""Payload keys of rows without vector: nobody searches these, so no filter looks at them."""
ROW_INDEXES: Mapping[str, IndexKind] = {"view": "keyword", "event_ts": "integer"}
"""What the store itself filters rows by: whose they are, and which are newer than those to be written."""
_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for every call
_quoted = json.encoder.encode_basestring_ascii


# --- names and ids -------------------------------------------------------------------------------------------------


def entity_collection(project: str, join_keys: Iterable[str]) -> str:
    """The collection that all views of one entity set share, such as ``shop@pin_id`` or ``shop@pin_id+query``.

    ``@`` and ``+`` never occur in an escaped name, so no view's own collection can have this name.
    """
    return _short(f"{_escape(project)}@{'+'.join(_escape(key) for key in sorted(join_keys))}")


def view_collection(project: str, view: str, names: Mapping[str, str] | None = None) -> str:
    """The collection of a view with a vector: the space that ``names`` gives the view, else ``project__view``.

    :param names: ``release["names"]`` of the store, or None.
    """
    if names and view in names:
        return names[view]
    start = _escape(project).replace("__", "_%5F")  # so that "a" and "b__c" make another name than "a__b" and "c"
    start = f"{start[:-1]}%5F" if start.endswith("_") else start
    return _short(f"{start}__{_escape(view)}")


def _escape(text: str) -> str:
    return quote(text, safe="").replace("~", "%7E")


def _short(name: str) -> str:
    if len(name) <= 200:
        return name
    return f"{name[:150]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def entity_spec() -> CollectionSpec:
    """What an :func:`entity_collection` is made with, by whoever writes to it first."""
    return CollectionSpec(packed=PACKED, indexes=dict(ROW_INDEXES))


def point_id(project: str, view: str, entity: Mapping[str, KeyValue]) -> str:
    """The UUID of a row: uuid5 over the canonical JSON of project, view and the entity key, keys sorted.

    The value's kind is part of it: the text "1" and the number 1 are two entities; int32 and int64 are one kind.
    """
    if len(entity) == 1:
        ((join_key, value),) = entity.items()
        if type(value) is str:
            return _uuid5(f"{_start(project, view, join_key)}{_quoted(value)}]]]")
    return _point_id(project, view, entity)


def point_ids(project: str, view: str, join_key: str, values: Iterable[KeyValue]) -> list[str]:
    """:func:`point_id` of many entities with one join key; for text several times as fast."""
    start = _start(project, view, join_key)
    return [
        _uuid5(f"{start}{_quoted(value)}]]]") if type(value) is str else _point_id(project, view, {join_key: value})
        for value in values
    ]


@lru_cache(maxsize=1024)
def _start(project: str, view: str, join_key: str) -> str:
    return _json([project, view, [[join_key, "s"]]])[:-3] + ","


def _point_id(project: str, view: str, entity: Mapping[str, KeyValue]) -> str:
    key = [[name, *_key_parts(name, entity[name])] for name in sorted(entity)]
    return _uuid5(_json([project, view, key]))


def _uuid5(text: str) -> str:
    """``str(uuid.uuid5(NAMESPACE, text))`` of ASCII text, without the UUID object that costs more than the hash."""
    hashed = _HASHED_NAMESPACE.copy()
    hashed.update(text.encode("ascii"))
    h = hashed.hexdigest()
    return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:32]}"


def _key_parts(name: str, value: KeyValue) -> tuple[str, Any]:
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case bool():
            return "o", value
        case str():
            return "s", value
        case int():
            return "i", value
        case bytes():
            return "b", base64.b64encode(value).decode("ascii")
        case float() if math.isfinite(value):
            return "f", value
        case _:
            raise BadInputError(
                f"The join key {name!r} has the value {value!r}; it may be text, a whole number, bytes, true or false, "
                "or a finite number."
            )


def encode_key(entity: Mapping[str, KeyValue]) -> dict[str, Any]:
    """An entity key as the JSON that a payload holds under ``key``."""
    if len(entity) == 1:
        ((name, value),) = entity.items()
        if type(value) is str:
            return {name: value}
    encoded = {}
    for name in sorted(entity):
        letter, value = _key_parts(name, entity[name])
        encoded[name] = {"$b64": value} if letter == "b" else {"$float": repr(value)} if letter == "f" else value
    return encoded


def decode_key(encoded: Mapping[str, Any]) -> dict[str, KeyValue]:
    """The entity key that :func:`encode_key` wrote."""
    return {name: _decode_key_value(value) if isinstance(value, dict) else value for name, value in encoded.items()}


def _decode_key_value(tagged: Mapping[str, str]) -> KeyValue:
    return base64.b64decode(tagged["$b64"]) if "$b64" in tagged else float(tagged["$float"])


# --- rows ----------------------------------------------------------------------------------------------------------


def row_payload(
    view: str,
    entity: Mapping[str, KeyValue],
    event_ts: int,
    features: Mapping[str, Any],
    created_ts: int | None = None,
    extras: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The payload of a row. ``features`` are encoded already (:func:`encode_value`).

    :param event_ts: microseconds since 1970, UTC (:func:`to_micros`); ``created_ts`` likewise.
    :param extras: JSON values kept at the top level, for filters; a None among them is left out.
    """
    payload: dict[str, Any] = {"view": view, "key": encode_key(entity), "event_ts": event_ts}
    if created_ts is not None:
        payload["created_ts"] = created_ts
    payload["f"] = dict(features)
    for name, value in (extras or {}).items():
        if name in ROW_FIELDS:
            raise BadInputError(f"An extra may not be called {name!r}; taken are {', '.join(ROW_FIELDS)}.")
        if value is not None:
            payload[name] = value
    return payload


def feature_path(name: str) -> str:
    """The payload path of a feature, for filters and ``with_payload``."""
    return path_of("f", name)


def decode_feature(points: Sequence[Point | Hit | None], name: str, type_name: str) -> list[Any]:
    """One feature of many points, in their order; None where the point, the feature or its value is missing."""
    try:  # as rows are; anything else, such as a row that is not there, takes half as long again
        found = [point.payload["f"].get(name) for point in points]  # type: ignore[union-attr]
    except (AttributeError, KeyError):
        found = [None if point is None else point.payload.get("f", {}).get(name) for point in points]
    return decode_values(found, type_name)


def decode_values(found: Sequence[Any], type_name: str) -> list[Any]:
    """:func:`decode_feature` of the stored values of a feature, None where there is none."""
    kind = canonical_type(type_name)
    if kind in NATURAL:
        plain = NATURAL[kind]
        return [value if type(value) is plain else decode_value(value, kind) for value in found]
    if kind == "float64":
        return [value if type(value) is float else decode_value(value, kind) for value in found]
    if kind == "float32":
        numbers = [value if type(value) is float else 0.0 for value in found]
        rounded = np.asarray(numbers, dtype=np.float32).tolist()  # all at once: this is on the way of every request
        pairs = zip(rounded, found, strict=True)
        return [near if type(value) is float else decode_value(value, kind) for near, value in pairs]
    if kind in _NATURAL_LISTS:
        plain = NATURAL[kind[:-5]]
        return [
            value.copy() if type(value) is list and {*map(type, value)} <= {plain} else decode_value(value, kind)
            for value in found
        ]
    return [None if value is None else decode_value(value, kind) for value in found]


def stack_vectors(points: Sequence[Point | Hit | None], size: int, name: str = DEFAULT_VECTOR) -> np.ndarray:
    """The vectors of many points as float32 [n, size]; a row of NaN where the point or its vector is missing."""
    rows = np.full((len(points), size), np.nan, dtype=np.float32)
    for row, point in zip(rows, points, strict=True):
        if point is not None and name in point.vectors:
            row[:] = point.vectors[name]
    return rows
