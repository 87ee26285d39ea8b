"""How a feature row lies in a store: point ids, collection names, payload, and the codec of feature values.

Everything that reads or writes rows goes through this module (materializer, Feast online store, client), so all of
them see the same bytes. It knows nothing of Feast; types are plain names (:func:`canonical_type`).

A row's payload::

    {"project": "shop", "view": "pin_text", "key": {"pin_id": "p1"}, "event_ts": 1700000000000000,
     "created_ts": 1700000000000000, "f": {"title": "Oak shelf", "clicks": 3}, ...filterable extras}

Times are integer microseconds since 1970 in UTC.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import numpy as np

from .errors import BadInputError
from .port import DEFAULT_VECTOR, Hit, Point

KeyValue = str | int | bytes | bool | float
NAMESPACE = uuid.UUID("5f0c9a52-6c0e-5d0b-9a55-3d6a4f7c1e21")
"""Of every point id; changing it orphans every stored point."""
_NAMESPACE_BYTES = NAMESPACE.bytes
ROW_FIELDS = ("project", "view", "key", "event_ts", "created_ts", "f")
"""Payload keys that an extra may not use."""
FEAST_TAG = "$feast"
"""Tags a value that only Feast's protos can express; written and read by the online store."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ALIASES = {
    "float": "float32",
    "double": "float64",
    "unixtimestamp": "unix_timestamp",
    "timestamp": "unix_timestamp",
    "pdfbytes": "bytes",
    "imagebytes": "bytes",
    "pdf_bytes": "bytes",
    "image_bytes": "bytes",
    "timeuuid": "time_uuid",
    "binary": "bytes",
}
_TEXT_TYPES = frozenset({"string", "json", "uuid", "time_uuid", "decimal"})
_INT_LIMITS = {"int32": 31, "int64": 63, "unix_timestamp": 63}
SCALAR_TYPES = (*sorted(_TEXT_TYPES), "bytes", "bool", "float32", "float64", "int32", "int64", "unix_timestamp")
"""Names of the scalar types; ``<scalar>_list`` names the lists."""


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
    return _short(f"{_escape(project)}__{_escape(view)}")


def _escape(text: str) -> str:
    return quote(text, safe="").replace("~", "%7E")


def _short(name: str) -> str:
    if len(name) <= 200:
        return name
    return f"{name[:150]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def point_id(project: str, view: str, entity: Mapping[str, KeyValue]) -> str:
    """The UUID of a row: uuid5 over the canonical JSON of project, view and the entity key, keys sorted.

    The value's kind is part of it: the text "1" and the number 1 are two entities; int32 and int64 are one kind.
    """
    key = [[name, *_key_parts(name, entity[name])] for name in sorted(entity)]
    return _uuid5(json.dumps([project, view, key], separators=(",", ":")))


def point_ids(project: str, view: str, join_key: str, values: Iterable[KeyValue]) -> list[str]:
    """:func:`point_id` of many entities with one join key; for text several times as fast."""
    start = json.dumps([project, view, [[join_key, "s"]]], separators=(",", ":"))[:-3] + ","
    return [
        _uuid5(f"{start}{json.dumps(value)}]]]") if type(value) is str else point_id(project, view, {join_key: value})
        for value in values
    ]


def _uuid5(text: str) -> str:
    """``str(uuid.uuid5(NAMESPACE, text))`` of ASCII text, without the UUID object that costs more than the hash."""
    digest = bytearray(hashlib.sha1(_NAMESPACE_BYTES + text.encode("ascii"), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    h = digest.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


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
    project: str,
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
    payload: dict[str, Any] = {"project": project, "view": view, "key": encode_key(entity), "event_ts": event_ts}
    if created_ts is not None:
        payload["created_ts"] = created_ts
    payload["f"] = dict(features)
    for name, value in (extras or {}).items():
        if name in ROW_FIELDS:
            raise BadInputError(f"An extra may not be called {name!r}; taken are {', '.join(ROW_FIELDS)}.")
        if value is not None:
            payload[name] = value
    return payload


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970; a time without zone counts as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The moment in UTC, exact."""
    return _EPOCH + timedelta(microseconds=micros)


def feature_path(name: str) -> str:
    """The payload path of a feature, for filters and ``with_payload``."""
    plain = name.replace("_", "").replace("-", "").isalnum()
    return f"f.{name}" if plain else f'f."{name}"'


def decode_feature(points: Sequence[Point | Hit | None], name: str, type_name: str) -> list[Any]:
    """One feature of many points, in their order; None where the point, the feature or its value is missing."""
    kind = canonical_type(type_name)
    found = [None if point is None else point.payload.get("f", {}).get(name) for point in points]
    if kind in _NATURAL:
        return [value if type(value) is not dict else decode_value(value, kind) for value in found]
    return [None if value is None else decode_value(value, kind) for value in found]


def stack_vectors(points: Sequence[Point | Hit | None], size: int, name: str = DEFAULT_VECTOR) -> np.ndarray:
    """The vectors of many points as float32 [n, size]; a row of NaN where the point or its vector is missing."""
    rows = np.full((len(points), size), np.nan, dtype=np.float32)
    for row, point in zip(rows, points, strict=True):
        if point is not None and name in point.vectors:
            row[:] = point.vectors[name]
    return rows


# --- values --------------------------------------------------------------------------------------------------------


def canonical_type(type_name: str) -> str:
    """``string``, ``float32``, ``int64_list``, ... from any usual spelling (``String``, ``Array(Int64)``, ``DOUBLE``).

    :raises BadInputError: if no scalar or list type is called so.
    """
    known = _CANONICAL.get(type_name)
    if known is not None:
        return known
    name = type_name.strip().lower()
    is_list = False
    for opening, closing in (("array(", ")"), ("list<", ">"), ("", "_list")):
        if name.startswith(opening) and name.endswith(closing):
            name, is_list = name[len(opening) : -len(closing)], True
            break
    name = _ALIASES.get(name, name)
    if name not in SCALAR_TYPES:
        raise BadInputError(
            f"{type_name!r} is no type of a stored value; there are {', '.join(SCALAR_TYPES)} and lists."
        )
    return _CANONICAL.setdefault(type_name, f"{name}_list" if is_list else name)


_CANONICAL: dict[str, str] = {}
# What JSON gives back is the value itself.
_NATURAL = frozenset({*_TEXT_TYPES, "bool", "int32", "int64"})


def encode_value(value: Any, type_name: str) -> Any:
    """A feature value as JSON: natural where that is lossless, else tagged. None stays None.

    float32 values are rounded to float32; a float64 that the engine's JSON would change by its last bit is kept as
    ``{"$float": "<digits>", "n": number}`` (filters look at ``n``); timestamps become whole seconds, as in Feast;
    bytes become base64.

    :raises BadInputError: if the value is not of that type.
    """
    kind = canonical_type(type_name)
    if value is None:
        return None
    if kind.endswith("_list"):
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (list, tuple)):
            raise BadInputError(f"{_show(value)} is no {kind}.")
        return [_encode_scalar(item, kind[:-5]) for item in value]
    return _encode_scalar(value, kind)


def decode_value(encoded: Any, type_name: str) -> Any:
    """The value that :func:`encode_value` wrote; a ``unix_timestamp`` as a datetime in UTC."""
    kind = canonical_type(type_name)
    if encoded is None:
        return None
    if isinstance(encoded, dict) and FEAST_TAG in encoded:
        raise BadInputError("This value has a type of Feast's own (a map, a set, ...): read it through Feast.")
    if kind.endswith("_list"):
        return [_decode_scalar(item, kind[:-5]) for item in encoded]
    return _decode_scalar(encoded, kind)


def _encode_scalar(value: Any, kind: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if kind in _TEXT_TYPES and isinstance(value, str):
        return value
    if kind == "bytes" and isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind in ("float32", "float64") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _encode_float(value, kind)
    if kind == "unix_timestamp" and isinstance(value, datetime):
        micros = to_micros(value)
        return micros // 1_000_000 if micros >= 0 else -(-micros // 1_000_000)  # towards zero, as Feast rounds
    limit = 1 << _INT_LIMITS.get(kind, 0)
    if kind in _INT_LIMITS and isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit:
        return value
    raise BadInputError(f"{_show(value)} is no {kind}.")


def _encode_float(value: float, kind: str) -> Any:
    try:
        number = float(value)
    except OverflowError:
        raise BadInputError(f"{_show(value)} is no {kind}.") from None
    if kind == "float32":
        with np.errstate(over="ignore"):
            number = float(np.float32(number))
        return number if math.isfinite(number) else {"$float": str(number)}
    if not math.isfinite(number):
        return {"$float": str(number)}
    return number if _survives(number) else {"$float": repr(number), "n": number}


def _survives(number: float) -> bool:
    """Whether the engine reads this float64 back exactly: it parses JSON as digits / 10**k, an ulp off at times."""
    if number == 0 or not 1e-290 <= abs(number) < 1e16:
        return number == 0
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    scale = len(fraction) - int(exponent or 0)
    return int(whole + fraction) / float(f"1e{scale}") == abs(number)


def _decode_scalar(encoded: Any, kind: str) -> Any:
    if kind == "bytes":
        return base64.b64decode(encoded)
    if kind == "float32":  # rounding undoes what the engine's JSON parser loses
        return float(encoded["$float"]) if isinstance(encoded, dict) else float(np.float32(encoded))
    if kind == "float64":
        return float(encoded["$float"]) if isinstance(encoded, dict) else float(encoded)
    if kind == "unix_timestamp":
        return _EPOCH + timedelta(seconds=encoded)
    return encoded


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
