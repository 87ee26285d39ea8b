"""Payload paths such as ``f.title``: reading them, the parts of a payload that they name, and packed payloads.

Paths are the engine's: keys joined by dots, a key with other characters than letters, digits, ``_`` and ``-`` in double
quotes, ``[]`` for the items of a list. A path selects whatever lies on it or below it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from .errors import BadInputError

PACKED_KEY = "_packed"
"""The payload key under which packed keys are kept together as one JSON text."""

_EACH = object()  # the items of a list
_NEVER = object()  # one item of a list: the engine selects by [] only
_STEP = re.compile(r'([\w-]+)|"([^"\\]*)"')
_ITEM = re.compile(r"\[(\d{0,18})\]")
json_text = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
quoted = json.encoder.encode_basestring
"""The JSON text of a text, as :data:`json_text` makes it."""

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_LONG = 200

Selection = dict[Any, Any]
"""Wanted keys; the value None takes everything below, a further selection parts of it."""


def parse_path(path: str) -> tuple[Any, ...]:
    """The steps of a path; the first is always a key.

    :raises BadInputError: if it is no path.
    """
    steps: list[Any] = []
    place = 0
    while isinstance(path, str):
        key = _STEP.match(path, place)
        if key is None or not (key[1] is None or _is_bare(key[1])):
            break
        steps.append(key[2] if key[1] is None else key[1])
        place = key.end()
        while item := _ITEM.match(path, place):
            steps.append(_NEVER if item[1] else _EACH)
            place = item.end()
        if place == len(path):
            return tuple(steps)
        if path[place] != ".":
            break
        place += 1
    raise BadInputError(
        f"{path!r} is no payload path: join keys by dots as in f.title, and put a key with other characters than "
        'letters, digits, _ and - in double quotes as in f."my title" (see layout.feature_path).'
    )


def _is_bare(key: str) -> bool:
    return key.isascii() or key.replace("_", "").replace("-", "").isalnum()


def path_of(*keys: str) -> str:
    """The path of a key inside keys: ``path_of("f", "my title")`` is ``f."my title"``.

    :raises BadInputError: if a key holds a quote or a backslash, for which Qdrant's paths have no form.
    """
    if odd := [key for key in keys if '"' in key or "\\" in key]:
        raise BadInputError(f"{odd[0]!r} cannot be filtered by, for its quote or backslash: rename that feature.")
    return ".".join(key if key.replace("_", "").replace("-", "").isalnum() else f'"{key}"' for key in keys)


def first_key(path: str) -> str:
    """The top-level key that a path starts at."""
    return parse_path(path)[0]


def selection(paths: Sequence[str]) -> Selection:
    """What ``paths`` select, for :func:`select`.

    :raises BadInputError: if one of them is no path, or ``paths`` is a text.
    """
    if isinstance(paths, str):
        raise BadInputError(f"with_payload takes true, false or a list of payload paths, not the text {paths!r}.")
    return _selection(tuple(paths))


@lru_cache(maxsize=256)
def _selection(paths: tuple[str, ...]) -> Selection:
    wanted: Selection = {}
    for path in paths:
        steps, node = parse_path(path), wanted
        for step in steps[:-1]:
            node = node.setdefault(step, {})
            if node is None:
                break
        else:
            node[steps[-1]] = None
    return wanted


def select(payload: Mapping[str, Any], wanted: Selection) -> dict[str, Any]:
    """The parts of ``payload`` that the engine would give; unchanged parts are shared, not copied."""
    return {
        key: payload[key] if below is None else _below(payload[key], below)
        for key, below in wanted.items()
        if key in payload
    }


def _below(value: Any, wanted: Selection) -> Any:
    if isinstance(value, dict):
        return select(value, wanted)
    if isinstance(value, list):
        if _EACH not in wanted:
            return []
        below = wanted[_EACH]
        return value if below is None else [_below(item, below) for item in value]
    return value


def _text(payload: dict[str, Any]) -> str:
    """The JSON text of a checked payload."""
    features = payload.get("f")
    if not isinstance(features, dict):
        return json_text(payload)
    for name, value in features.items():
        if type(value) is not dict or len(value) != 1:
            continue
        ((tag, numbers),) = value.items()
        # The encoder takes 5 ns for every character of a vector's base64; looking for any other takes less than 1.
        if type(numbers) is str and len(numbers) > _LONG and not numbers.encode().translate(None, _BASE64):
            others = {key: other for key, other in features.items() if key != name}
            start = json_text({**{key: other for key, other in payload.items() if key != "f"}, "f": others})[:-2]
            return f'{start}{"," if others else ""}{json_text(name)}:{{{json_text(tag)}:"{numbers}"}}}}}}'
    return json_text(payload)


class LatePayload(dict[str, Any]):
    """The payload of a row whose packed keys are made, as one JSON text, when a store writes it.

    Until then it holds the other keys only. Whoever makes one vouches for its values, and for the id of its point:
    a store that packs does not look at them.
    """

    __slots__ = ("text",)
    text: Callable[[], str]
    """Makes the JSON text of the packed keys; set by whoever makes the payload, and cannot fail."""

    def whole(self) -> dict[str, Any]:
        """The payload with its packed keys, for stores that keep these as any others."""
        return {**self, **json.loads(self.text())}


class Packing:
    """Keeps some top-level keys of a payload together as one JSON text, where a store pays for every single value.

    The text is exact: floats keep their last bit, which the engine's own JSON does not promise.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = frozenset([*keys, PACKED_KEY]) if keys else frozenset()

    def pack(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What is stored for ``payload``."""
        if type(payload) is LatePayload:
            return {**payload, PACKED_KEY: payload.text()}
        inside = self.keys & payload.keys()
        if not inside:
            return payload
        stored = {key: value for key, value in payload.items() if key not in inside}
        stored[PACKED_KEY] = _text({key: payload[key] for key in payload if key in inside})
        return stored

    def unpack(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The payload that :meth:`pack` was given; changes and returns ``stored``."""
        text = stored.pop(PACKED_KEY, None) if self.keys else None
        if text is not None:
            stored.update(json.loads(text))
        return stored

    def fields(self, paths: Sequence[str]) -> list[str]:
        """The stored paths that hold what ``paths`` ask for, where some of it is packed."""
        return [PACKED_KEY, *(path for path in paths if first_key(path) not in self.keys)]
