"""Raw Arrow columns cast to the type of their contract, vectorised; what cannot be cast is marked row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.contracts import (
    EARLIEST_YEAR,
    FUTURE_DAYS,
    MAX_ID_CHARACTERS,
    MAX_LIST_ITEMS,
    MAX_TEXT_CHARACTERS,
    Column,
    Kind,
)

Mask = npt.NDArray[np.bool_]

TIMESTAMP = pa.timestamp("us", tz="UTC")
_STORED: dict[Kind, pa.DataType] = {
    Kind.ID: pa.string(),
    Kind.TEXT: pa.string(),
    Kind.TEXTS: pa.list_(pa.string()),
    Kind.TIME: TIMESTAMP,
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_CONTROL = r"[\x00-\x1f\x7f\x{80}-\x{9f}]"
_VISIBLE = r"[^\pZ\pC]"
_INTEGER = r"^[+-]?[0-9]{1,18}$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_TRUE, _FALSE = ["true", "t", "yes", "1"], ["false", "f", "no", "0"]
_EXACT_FLOAT = 2.0**53


@dataclass
class Cast:
    """A column in its stored type, null where a row failed, and the problems found: (rows, reason), first one wins."""

    values: pa.Array
    problems: list[tuple[Mask, str]] = field(default_factory=list)

    def fail(self, rows: Any, reason: str) -> None:
        """Marks ``rows`` (null counts as fine) and empties their values, so that later steps cannot trip on them."""
        mask = as_mask(rows)
        if mask.any():
            self.problems.append((mask, reason))
            self.values = pc.if_else(pa.array(~mask), self.values, pa.scalar(None, self.values.type))


def arrow_type(kind: Kind) -> pa.DataType:
    """The type that a kind of column is stored with."""
    return _STORED[kind]


def as_mask(rows: Any) -> Mask:
    """A numpy mask of an Arrow or numpy one; null is False."""
    if isinstance(rows, np.ndarray):
        return rows
    return pc.fill_null(rows, False).to_numpy(zero_copy_only=False)


def understood(kind: Kind, found: pa.DataType) -> bool:
    """Whether a column of type ``found`` can be read as ``kind`` at all; single rows may still fail."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if kind is Kind.TEXTS:
        return pa.types.is_null(found) or (_is_list(found) and understood(Kind.TEXT, found.value_type))
    if pa.types.is_null(found) or _is_text(found):
        return True
    number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    return {
        Kind.ID: number,
        Kind.TEXT: number,
        Kind.TIME: pa.types.is_timestamp(found) or pa.types.is_date(found),
        Kind.INTEGER: number,
        Kind.NUMBER: number,
        Kind.BOOLEAN: pa.types.is_boolean(found) or pa.types.is_integer(found),
    }[kind]


def plain(raw: pa.Array) -> pa.Array:
    """``raw`` without the encodings that Arrow cannot compute on: dictionaries decoded, views copied."""
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    return as_strings(raw) if _is_text(raw.type) else raw


def cast(raw: pa.Array, column: Column, now: datetime) -> Cast:
    """``raw`` as the column's stored type, with every check of the contract that looks at one value.

    ``raw`` is :func:`plain` and its type :func:`understood`; ``now`` bounds timestamps.
    """
    if pa.types.is_null(raw.type):
        result = Cast(pa.nulls(len(raw), arrow_type(column.kind)))
    elif column.kind is Kind.TIME:
        result = _cast_time(raw, column.name, now)
    else:
        result = _CASTS[column.kind](raw, column.name)
    _check_value(result, column)
    return result


def _check_value(result: Cast, column: Column) -> None:
    """Bounds, allowed values and nulls."""
    name = column.name
    if column.low is not None:
        wanted = f"{column.low:g} to {column.high:g}" if column.high is not None else f"{column.low:g} or more"
        low = as_mask(pc.less(result.values, column.low))
        high = as_mask(pc.greater(result.values, column.high)) if column.high is not None else np.zeros_like(low)
        result.fail(low | high, f"{name}: outside {wanted}; correct the value")
    if column.allowed:
        known = pc.or_kleene(pc.is_null(result.values), pc.is_in(result.values, pa.array(column.allowed)))
        result.fail(pc.invert(known), f"{name}: unknown value; use one of {', '.join(column.allowed)}")
    if not column.nullable:
        result.fail(pc.is_null(result.values), f"{name}: null; give a value or drop the row")
        if column.kind is Kind.TEXT:
            visible = pc.match_substring_regex(result.values, _VISIBLE)
            result.fail(pc.invert(visible), f"{name}: empty; give a value or drop the row")


# Texts ----------------------------------------------------------------------------------------------------------------


def _is_text(found: pa.DataType) -> bool:
    return (
        pa.types.is_string(found)
        or pa.types.is_large_string(found)
        or pa.types.is_string_view(found)
        or pa.types.is_binary(found)
        or pa.types.is_large_binary(found)
        or pa.types.is_binary_view(found)
    )


def _is_list(found: pa.DataType) -> bool:
    return pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)


def as_strings(raw: pa.Array) -> pa.Array:
    """Texts or bytes as an Arrow string array whose bytes are NOT checked: they may be no UTF-8."""
    if pa.types.is_string(raw.type):
        return raw
    if not pa.types.is_binary(raw.type):
        raw = raw.cast(pa.binary())
    return raw.view(pa.string())


def invalid_utf8(strings: pa.Array) -> Mask | None:
    """Rows whose bytes are no UTF-8 (so also lone surrogates), or None; only a bad batch takes the slow path."""
    try:
        strings.validate(full=True)
        return None
    except pa.ArrowInvalid:
        return np.array([not _decodes(value) for value in strings.view(pa.binary()).to_pylist()], dtype=np.bool_)


def _decodes(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def has_control(strings: pa.Array) -> pa.Array | None:
    """Rows with a control character, or None where no byte of the whole batch can be one."""
    data = strings.buffers()[2]
    if data is None:
        return None
    octets = np.frombuffer(data, dtype=np.uint8)
    if not ((octets < 0x20) | (octets == 0x7F) | (octets == 0xC2)).any():  # 0xC2 leads U+0080 to U+009F
        return None
    return pc.match_substring_regex(strings, _CONTROL)


def _checked_text(raw: pa.Array, name: str, limit: int) -> Cast:
    result = Cast(as_strings(raw))
    bad = invalid_utf8(result.values)
    if bad is not None:
        result.fail(bad, f"{name}: bytes that are no UTF-8, or a lone surrogate; write the text as UTF-8")
    if (pc.max(pc.binary_length(result.values)).as_py() or 0) > limit:
        longer = pc.greater(pc.utf8_length(result.values), limit)
        result.fail(longer, f"{name}: longer than {limit:,} characters; shorten it")
    return result


def _numbers_as_text(raw: pa.Array, name: str) -> Cast:
    """Whole numbers without a decimal point: pandas turns integer ids with a gap into floats."""
    if not pa.types.is_floating(raw.type):
        return Cast(raw.cast(pa.string()))
    whole = _cast_integer(raw, name)
    return Cast(whole.values.cast(pa.string()), whole.problems)


def _cast_id(raw: pa.Array, name: str) -> Cast:
    if not _is_text(raw.type):
        return _numbers_as_text(raw, name)
    result = _checked_text(raw, name, MAX_ID_CHARACTERS)
    control = has_control(result.values)
    if control is not None:
        result.fail(control, f"{name}: NUL or another control character; remove it")
    result.fail(pc.equal(pc.utf8_trim_whitespace(result.values), ""), f"{name}: empty; give a value or drop the row")
    return result


def _cast_text(raw: pa.Array, name: str) -> Cast:
    if pa.types.is_floating(raw.type):  # a text may be 1.5, an id may not
        whole, numbers = _cast_integer(raw, name).values, _without_nan(raw.cast(pa.float64())).values
        return Cast(pc.coalesce(whole.cast(pa.string()), numbers.cast(pa.string())))
    if not _is_text(raw.type):
        return _numbers_as_text(raw, name)
    return _checked_text(raw, name, MAX_TEXT_CHARACTERS)


def _cast_texts(raw: pa.Array, name: str) -> Cast:
    """Lists of texts: a row fails with any of its items."""
    raw = raw.cast(pa.list_(raw.type.value_type))
    items = _cast_text(raw.flatten(), name) if not pa.types.is_null(raw.type.value_type) else None
    if items is None:
        return Cast(raw.cast(pa.list_(pa.string())))
    lengths = pc.fill_null(pc.list_value_length(raw), 0)
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int32)
    result = Cast(pa.ListArray.from_arrays(pa.array(offsets), items.values, mask=pc.is_null(raw)))
    parents = pc.list_parent_indices(raw).to_numpy()
    for mask, reason in items.problems:
        result.fail(np.isin(np.arange(len(raw)), parents[mask]), reason)
    result.fail(pc.greater(lengths, MAX_LIST_ITEMS), f"{name}: more than {MAX_LIST_ITEMS:,} items; keep the first ones")
    return result


# Numbers --------------------------------------------------------------------------------------------------------------


def _parsed(raw: pa.Array, name: str, pattern: str, wanted: str) -> Cast:
    """Trimmed strings that match ``pattern``; an empty one is null, as in a CSV file."""
    texts = _checked_text(raw, name, MAX_TEXT_CHARACTERS)
    trimmed = pc.utf8_trim_whitespace(texts.values)
    texts.values = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    texts.fail(pc.invert(pc.match_substring_regex(texts.values, pattern)), f"{name}: not {wanted}; correct the value")
    return texts


def _cast_integer(raw: pa.Array, name: str) -> Cast:
    wanted = "a whole number"
    if _is_text(raw.type):
        texts = _parsed(raw, name, _INTEGER, wanted)
        return Cast(pc.replace_substring_regex(texts.values, r"^\+", "").cast(pa.int64()), texts.problems)
    if pa.types.is_integer(raw.type) and raw.type != pa.uint64():
        return Cast(raw.cast(pa.int64()))
    # uint64 and decimals go through float as well: what is not exact there is no id or level of ours
    result = _without_nan(raw.cast(pa.float64(), safe=False))
    exact = pc.and_(pc.equal(pc.floor(result.values), result.values), pc.less(pc.abs(result.values), _EXACT_FLOAT))
    result.fail(pc.invert(exact), f"{name}: not {wanted}; correct the value")
    result.values = result.values.cast(pa.int64())
    return result


def _cast_number(raw: pa.Array, name: str) -> Cast:
    if _is_text(raw.type):
        texts = _parsed(raw, name, _NUMBER, "a number")
        result = Cast(pc.replace_substring_regex(texts.values, r"^\+", "").cast(pa.float64()), texts.problems)
    else:
        result = _without_nan(raw.cast(pa.float64(), safe=False))
    result.fail(pc.is_inf(result.values), f"{name}: infinite; correct the value")
    return result


def _without_nan(values: pa.Array) -> Cast:
    """NaN is how pandas writes a missing number."""
    return Cast(pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values))


def _cast_boolean(raw: pa.Array, name: str) -> Cast:
    if pa.types.is_boolean(raw.type):
        return Cast(raw)
    texts = _checked_text(raw if _is_text(raw.type) else raw.cast(pa.string()), name, MAX_TEXT_CHARACTERS)
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(texts.values))
    true = pc.is_in(lower, pa.array(_TRUE))
    known = pc.or_(pc.is_null(lower), pc.or_(true, pc.is_in(lower, pa.array(_FALSE))))
    result = Cast(pc.if_else(pc.is_valid(lower), true, pa.scalar(None, pa.bool_())), texts.problems)
    result.fail(pc.invert(known), f"{name}: neither true nor false; correct the value")
    return result


# Timestamps -----------------------------------------------------------------------------------------------------------


def _cast_time(raw: pa.Array, name: str, now: datetime) -> Cast:
    """Any unit and zone as UTC microseconds; without a zone it is UTC already."""
    if _is_text(raw.type):
        result = _parsed(raw, name, r"[0-9]", "a timestamp")
        result.values, bad = _parse_times(result.values)
        result.fail(bad, f"{name}: not a timestamp; write it as 2025-01-31T12:00:00Z")
    else:
        result = Cast(raw if pa.types.is_timestamp(raw.type) else raw.cast(pa.timestamp("ms"), safe=False))
    per_second = _PER_SECOND[result.values.type.unit]
    first = int(datetime(EARLIEST_YEAR, 1, 1, tzinfo=UTC).timestamp()) * per_second
    last = int((now + timedelta(days=FUTURE_DAYS)).timestamp()) * per_second
    ticks = result.values.cast(pa.int64())  # compared in its own unit: a cast to microseconds may overflow
    late, early = pc.greater(ticks, last), pc.less(ticks, first)
    result.fail(late, f"{name}: in the future; correct the clock or the unit")
    result.fail(early, f"{name}: before {EARLIEST_YEAR}; correct the unit")
    result.values = result.values.cast(TIMESTAMP, safe=False)
    return result


def _parse_times(texts: pa.Array) -> tuple[pa.Array, Mask]:
    """ISO 8601 strings as timestamps, and which could not be read; one odd value costs the fast path, not the batch."""
    for fast in (pa.timestamp("us"), TIMESTAMP):
        try:
            return texts.cast(fast).cast(TIMESTAMP), np.zeros(len(texts), dtype=np.bool_)
        except pa.ArrowInvalid:
            continue
    coded = texts.dictionary_encode()
    times = pa.array([_parse_time(text) for text in coded.dictionary.to_pylist()], TIMESTAMP)
    values = times.take(coded.indices)
    return values, as_mask(pc.and_(pc.is_valid(texts), pc.is_null(values)))


def _parse_time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_CASTS: dict[Kind, Callable[[pa.Array, str], Cast]] = {
    Kind.ID: _cast_id,
    Kind.TEXT: _cast_text,
    Kind.TEXTS: _cast_texts,
    Kind.INTEGER: _cast_integer,
    Kind.NUMBER: _cast_number,
    Kind.BOOLEAN: _cast_boolean,
}
