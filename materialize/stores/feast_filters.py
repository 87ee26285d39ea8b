"""Feast's ``ComparisonFilter`` and ``CompoundFilter`` as conditions of the store port, without importing Feast.

A filter names a feature or a join key of the view; its value is taken for what the field's declared type can hold. Of a
list any item may match. ``ne`` and ``nin`` also hold where there is no value; no infinity lies within any bound.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from .conditions import And, Condition, Match, Not, Or, Range
from .errors import BadInputError
from .feast_rows import FeastView, key_path
from .layout import encode_value, to_micros
from .payload import path_of

_WORDS: Mapping[str, str] = {
    "float32": "a number",
    "float64": "a number",
    "int32": "a whole number",
    "int64": "a whole number",
    "unix_timestamp": "a datetime or whole seconds since 1970",
    "bool": "true or false",
    "bytes": "bytes",
}
_NOTHING = Or(())
_FLOATS = ("float32", "float64")
_NUMBERS = (*_FLOATS, "int32", "int64", "unix_timestamp")


def condition_of(view: FeastView, filters: Any) -> Condition:
    """A Feast filter on features and join keys of ``view`` as the port's condition.

    :raises BadInputError: naming the key, if the view has none such or its type cannot be compared like this.
    """
    if hasattr(filters, "filters"):
        inner = tuple(condition_of(view, part) for part in filters.filters)
        return And(inner) if filters.type == "and" or not inner else Or(inner)
    field = _Field.of(view, filters.key)
    match filters.type:
        case "eq":
            return field.equals(filters.value)
        case "ne":
            return Not(field.equals(filters.value))
        case "in":
            return field.among(filters.value)
        case "nin":
            return Not(field.among(filters.value))
        case "gt" | "gte" | "lt" | "lte" as bound:
            return field.bounded(bound, filters.value)
        case other:
            raise BadInputError(f"Filters are eq, ne, gt, gte, lt, lte, in and nin, not {other!r}.")


class _Field:
    """A feature or join key that a filter looks at."""

    def __init__(self, view: FeastView, name: str, kind: str, *, is_key: bool) -> None:
        self.owner = f"{view.name}.{name}"
        self.name = name
        self.kind = kind.removesuffix("_list")
        self.is_key = is_key
        self.in_list = kind.endswith("_list")

    @classmethod
    def of(cls, view: FeastView, name: str) -> _Field:
        declared = view.types if name in view.types else view.keys
        if name not in declared:
            raise BadInputError(
                f"{view.name} cannot be filtered by {name!r}: it is neither a feature ({', '.join(view.types)}) "
                f"nor a join key ({', '.join(view.keys)})."
            )
        kind = declared[name]
        if kind is None or kind in ("float32_list", "float64_list"):
            raise BadInputError(
                f"{view.name} cannot be filtered by {name!r}: values of its type are stored as a whole. "
                "Filter by a text, a number, a time, true or false, bytes, or lists of these that are no floats."
            )
        return cls(view, name, kind, is_key=declared is view.keys)

    def equals(self, value: Any) -> Condition:
        stored = self._stored(value)
        if stored is None:
            return _NOTHING
        if self.is_key:
            if self.kind in _FLOATS:
                stored = repr(float(np.float32(stored) if self.kind == "float32" else stored))
            return Match(key_path(self.name, self.kind), stored)
        encoded = stored if self.kind == "bytes" else encode_value(stored, self.kind)
        return Match(self._path("$float"), encoded["$float"]) if type(encoded) is dict else Match(self._path(), encoded)

    def among(self, values: Any) -> Condition:
        if not isinstance(values, (list, tuple, set, frozenset)):
            raise BadInputError(f"The filter on {self.owner} is `in` or `nin`; give it a list, not {values!r}.")
        return Or(tuple(self.equals(value) for value in values))

    def bounded(self, bound: str, value: Any) -> Condition:
        if self.kind not in _NUMBERS or (self.is_key and self.kind in _FLOATS):
            raise BadInputError(
                f"The filter {bound} on {self.owner} compares numbers and times only; compare with eq, ne, in or nin."
            )
        given = _number(value)
        if given is None or not -sys.float_info.max <= given <= sys.float_info.max:
            raise self._refused(value)
        if isinstance(given, int) and abs(given) > 1 << 53:
            raise BadInputError(
                f"The filter {bound} on {self.owner} compares with {given}; bounds beyond 2**53 are not exact in "
                "Qdrant. Compare with eq, ne, in or nin, or keep the number as a text too."
            )
        number = float(np.float32(given)) if self.kind == "float32" else float(given)
        if self.is_key:
            return Range(key_path(self.name, self.kind), **{bound: number})
        plain = Range(self._path(), **{bound: number})
        if self.kind != "float64":
            return plain
        return Or((plain, Range(self._path("n"), **{bound: number})))  # see layout.encode_value

    def _path(self, *below: str) -> str:
        if not below:
            return path_of("f", self.name)
        return f"{path_of('f', self.name)}{'[]' if self.in_list else ''}.{path_of(*below)}"

    def _stored(self, value: Any) -> Any:
        """``value`` as the field's type has it; None if no value of the type equals it."""
        kind = self.kind
        if kind in _FLOATS or kind in ("int32", "int64", "unix_timestamp"):
            number = _number(value)
            if number is None:
                raise self._refused(value)
            if kind in _FLOATS:
                return number
            whole = int(number) if isinstance(number, int) or number.is_integer() else None
            limit = 1 << (31 if kind == "int32" else 63)
            return whole if whole is not None and -limit <= whole < limit else None
        if kind == "bool" and isinstance(value, (bool, np.bool_)):
            return bool(value)
        if kind == "bytes" and isinstance(value, bytes):
            return base64.b64encode(value).decode("ascii")
        if kind not in _WORDS and isinstance(value, str):
            return value
        raise self._refused(value)

    def _refused(self, value: Any) -> BadInputError:
        return BadInputError(
            f"The filter on {self.owner} compares with {value!r}; give {_WORDS.get(self.kind, 'a text')}."
        )


def _number(value: Any) -> Any:
    """A number, or seconds since 1970 for a time; None for anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime):
        return to_micros(value) / 1_000_000
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
