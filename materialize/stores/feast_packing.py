"""Rows of Feast as packed payloads: JSON text straight from the value protos, without importing Feast.

The text is the one that :class:`~.payload.Packing` makes of :func:`.layout.row_payload`; no values are made in between.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from functools import cache, partial
from math import isfinite
from operator import attrgetter
from typing import Any

from .errors import BadInputError
from .feast_values import encoder, proto_field
from .layout import KeyValue, encode_key
from .payload import LatePayload, json_text, quoted
from .values import LONG, NATURAL, NUMBERS, surviving_digits

TextEncoder = Callable[[Any], str]
"""Turns a ``ValueProto`` into the JSON text of its stored value."""

_INTEGERS = ("int32", "int64", "unix_timestamp")


class RowPacker:
    """Makes the payloads of a view's rows.

    :param types: the view's features and their declared types.
    """

    def __init__(self, view: str, types: Mapping[str, str | None]) -> None:
        self._view = view
        self._forms = _Forms(types)
        self._starts = _Starts()

    def payload(
        self, entity: Mapping[str, KeyValue], event_ts: int, created_ts: int | None, values: Mapping[str, Any]
    ) -> LatePayload:
        """The payload of a row; ``values`` are value protos by feature, times as in :func:`.layout.row_payload`.

        :raises BadInputError: if a feature or the key cannot be stored; the values always can.
        """
        form = self._forms[tuple(values)]
        if len(entity) == 1:
            ((name, value),) = entity.items()
            key = self._starts[name] + (quoted(value) if type(value) is str else _key_text(entity, name))
        else:
            key = ",".join([self._starts[name] + json_text(value) for name, value in encode_key(entity).items()])
        created = "" if created_ts is None else f',"created_ts":{created_ts}'
        payload = LatePayload(view=self._view, event_ts=event_ts)
        payload.text = partial(_text, form, key, created, values)
        return payload


def _key_text(entity: Mapping[str, KeyValue], name: str) -> str:
    return json_text(encode_key(entity)[name])


_Form = tuple[str, list[TextEncoder]]
"""A row's text with a place for the key, the creation time and each feature, and the encoders of these."""


def _text(form: _Form, key: str, created: str, values: Mapping[str, Any]) -> str:
    text, encoders = form  # of just these features
    return text % (key, created, *[encode(value) for encode, value in zip(encoders, values.values(), strict=False)])


class _Starts(dict[str, str]):
    """The start of a member of a JSON object, by its name."""

    def __missing__(self, name: str) -> str:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadInputError(f"A feature or join key cannot be called {name!r}: that is no valid Unicode.") from None
        start = self[name] = f"{quoted(name)}:"
        return start


class _Forms(dict[tuple[str, ...], _Form]):
    """The form of rows with certain features, by these."""

    def __init__(self, types: Mapping[str, str | None]) -> None:
        self._types = types
        self._starts = _Starts()

    def __missing__(self, names: tuple[str, ...]) -> _Form:
        features = ",".join([self._starts[name].replace("%", "%%") + "%s" for name in names])
        encoders = [text_encoder(self._types.get(name)) for name in names]
        form = self[names] = (f'{{"key":{{%s}}%s,"f":{{{features}}}}}', encoders)
        return form


@cache
def text_encoder(type_name: str | None) -> TextEncoder:
    """A function that gives the JSON text of what :func:`~.feast_values.encoder` gives for a type."""
    encode = encoder(type_name)

    def exact(value: Any) -> str:
        return json_text(encode(value))

    if type_name is None:
        return exact
    if type_name in NUMBERS:
        return _float_list(type_name, exact)
    if type_name.endswith("_list"):
        return _text_list(type_name, exact) if NATURAL.get(type_name[:-5]) is str else exact
    return _scalar(type_name, exact)


def _scalar(type_name: str, exact: TextEncoder) -> TextEncoder:
    """Quick for the usual values: only one that reads as empty may be not set, or of another type."""
    field = proto_field(type_name)
    get = attrgetter(field)

    def text(value: Any) -> str:
        natural = get(value)
        return quoted(natural) if natural else exact(value)

    def integer(value: Any) -> str:
        natural = get(value)
        return repr(natural) if natural or value.WhichOneof("val") == field else exact(value)

    def boolean(value: Any) -> str:
        if get(value):
            return "true"
        return "false" if value.WhichOneof("val") == field else exact(value)

    def single(value: Any) -> str:
        natural = get(value)
        return repr(natural) if natural and isfinite(natural) else exact(value)

    def double(value: Any) -> str:
        return surviving_digits(get(value)) or exact(value)

    quick: dict[str, TextEncoder] = {"bool": boolean, "float32": single, "float64": double, "bytes": exact}
    return integer if type_name in _INTEGERS else quick.get(type_name, text)


def _text_list(type_name: str, exact: TextEncoder) -> TextEncoder:
    get = attrgetter(f"{proto_field(type_name)}.val")

    def texts(value: Any) -> str:
        natural = get(value)
        return f"[{','.join(map(quoted, natural))}]" if natural else exact(value)

    return texts


def _float_list(type_name: str, exact: TextEncoder) -> TextEncoder:
    get = attrgetter(proto_field(type_name))
    tag, dtype = NUMBERS[type_name]
    start = f'{{"{tag}":"'

    def numbers(value: Any) -> str:
        items = get(value)
        count = len(items.val)
        if count <= LONG:
            return exact(value)
        # They are the end of the proto's bytes, see feast_values.numbers_of.
        encoded = b2a_base64(items.SerializeToString()[-dtype.itemsize * count :], newline=False)
        return f'{start}{encoded.decode("ascii")}"}}'

    return numbers
