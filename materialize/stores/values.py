"""The codec of feature values, and of times: what a payload's JSON holds for each type.

It knows nothing of Feast; types are plain names (:func:`canonical_type`).
"""

from __future__ import annotations

import base64
import math
import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from .errors import BadInputError

FEAST_TAG = "$feast"
"""Tags a value that only Feast's protos can express; written and read by the online store."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FLOAT32 = struct.Struct("f")
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
LONG = 32
"""Lists of more floats than that are kept as base64."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
NUMBERS: dict[str, tuple[str, np.dtype[Any]]] = {
    "float32_list": ("$f32", np.dtype("<f4")),
    "float64_list": ("$f64", np.dtype("<f8")),
}
"""The tag and the numbers of such base64, by the list's type."""
SCALAR_TYPES = (*sorted(_TEXT_TYPES), "bytes", "bool", "float32", "float64", "int32", "int64", "unix_timestamp")
"""Names of the scalar types; ``<scalar>_list`` names the lists."""
_POWERS = [float(f"1e{scale}") for scale in range(309)]
_CANONICAL: dict[str, str] = {}
NATURAL: dict[str, type] = {**dict.fromkeys(_TEXT_TYPES, str), "bool": bool, "int64": int}
"""Types whose JSON is the value itself, and their Python type."""


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970; a time without zone counts as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The moment in UTC, exact."""
    return _EPOCH + timedelta(microseconds=micros)


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


def encode_value(value: Any, type_name: str) -> Any:
    """A feature value as JSON: natural where that is lossless and cheap, else tagged. None stays None.

    float32 values are rounded to float32; a float64 that the engine's JSON would change by its last bit is kept as
    ``{"$float": "<digits>", "n": number}`` (filters look at ``n``); timestamps become whole seconds, as in Feast;
    bytes become base64. Float lists of more than 32 numbers, such as vectors, become ``{"$f32": "<base64>"}`` or
    ``"$f64"``, little-endian: exact, and a store pays for every single value. No filter looks into these.

    :raises BadInputError: if the value is not of that type.
    """
    kind = canonical_type(type_name)
    if value is None:
        return None
    if kind.endswith("_list"):
        if kind in NUMBERS and len(value) > LONG and (numbers := _as_floats(value, NUMBERS[kind][1])) is not None:
            return {NUMBERS[kind][0]: base64.b64encode(numbers.tobytes()).decode("ascii")}
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (list, tuple)):
            raise BadInputError(f"{_show(value)} is no {kind}.")
        return [_encode_scalar(item, kind[:-5]) for item in value]
    return _encode_scalar(value, kind)


def decode_value(encoded: Any, type_name: str) -> Any:
    """The value that :func:`encode_value` wrote; a ``unix_timestamp`` as a datetime in UTC.

    None for a value of another type, written before the feature's type was changed.
    """
    kind = canonical_type(type_name)
    if encoded is None:
        return None
    if isinstance(encoded, dict) and FEAST_TAG in encoded:
        raise BadInputError("This value has a type of Feast's own (a map, a set, ...): read it through Feast.")
    if not fits(encoded, kind):
        return None
    if kind.endswith("_list"):
        if isinstance(encoded, dict):
            return decode_numbers(encoded, kind).tolist()
        if kind[:-5] in NATURAL:
            return list(encoded)
        return [_decode_scalar(item, kind[:-5]) for item in encoded]
    return _decode_scalar(encoded, kind)


def fits(encoded: Any, kind: str) -> bool:
    """Whether :func:`encode_value` may have written this for the type; text and bytes cannot be told apart."""
    if kind.endswith("_list"):
        if isinstance(encoded, dict):
            return kind in NUMBERS and NUMBERS[kind][0] in encoded
        return isinstance(encoded, list) and all(item is None or fits(item, kind[:-5]) for item in encoded)
    if kind in ("float32", "float64"):
        number = isinstance(encoded, (int, float)) and not isinstance(encoded, bool)
        return number or (isinstance(encoded, dict) and "$float" in encoded)
    if kind in _INT_LIMITS:
        whole = isinstance(encoded, int) and not isinstance(encoded, bool)
        return whole and -(1 << _INT_LIMITS[kind]) <= encoded < 1 << _INT_LIMITS[kind]
    if kind == "bytes":
        return isinstance(encoded, str) and _BASE64.fullmatch(encoded) is not None and len(encoded) % 4 == 0
    return isinstance(encoded, bool if kind == "bool" else str)


def decode_numbers(encoded: Any, type_name: str) -> np.ndarray:
    """A stored list of floats as a read-only array of its own type."""
    tag, dtype = NUMBERS[canonical_type(type_name)]
    if isinstance(encoded, dict) and tag in encoded:
        return np.frombuffer(base64.b64decode(encoded[tag]), dtype=dtype)
    return np.asarray(decode_value(encoded, type_name), dtype=dtype)


def _as_floats(value: Any, dtype: np.dtype) -> np.ndarray | None:
    """A list of nothing but numbers as an array; None for any other, which is looked at item by item."""
    if isinstance(value, np.ndarray):
        if value.dtype == dtype and value.ndim == 1:
            return value
        plain = value.ndim == 1 and value.dtype.kind in "iuf"
    else:
        plain = isinstance(value, (list, tuple)) and {*map(type, value)} <= {float, int}
    if not plain:
        return None
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=dtype)
    except OverflowError:
        return None


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
        number = _rounded(number)
        return number if math.isfinite(number) else {"$float": str(number)}
    if not math.isfinite(number):
        return {"$float": str(number)}
    return number if _survives(number) else {"$float": repr(number), "n": number}


def _rounded(number: float) -> float:
    """The nearest float32."""
    try:
        return _FLOAT32.unpack(_FLOAT32.pack(number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)


def surviving_digits(number: float) -> str | None:
    """A float64 as the digits that :func:`encode_value` keeps as a number; None where that takes a longer look."""
    if not 1e-4 <= abs(number) < 1e16:  # others have an exponent, or are no number
        return None
    digits = repr(number)
    whole, _, fraction = digits.partition(".")
    return digits if float(whole + fraction) / _POWERS[len(fraction)] == number else None


def _survives(number: float) -> bool:
    """Whether the engine reads this float64 back exactly: it parses JSON as digits / 10**k, an ulp off at times."""
    number = abs(number)
    if number == 0 or not 1e-290 <= number < 1e16:
        return number == 0
    mantissa, _, exponent = repr(number).partition("e")
    whole, _, fraction = mantissa.partition(".")
    scale = len(fraction) - int(exponent) if exponent else len(fraction)
    return int(whole + fraction) / _POWERS[scale] == number


def _decode_scalar(encoded: Any, kind: str) -> Any:
    if kind == "bytes":
        return base64.b64decode(encoded)
    if kind == "float32":  # rounding undoes what the engine's JSON parser loses
        return float(encoded["$float"]) if isinstance(encoded, dict) else _rounded(encoded)
    if kind == "float64":
        return float(encoded["$float"]) if isinstance(encoded, dict) else float(encoded)
    if kind == "unix_timestamp":
        return _EPOCH + timedelta(seconds=encoded)
    return encoded


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
