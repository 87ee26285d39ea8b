"""The switchboard of ablations: every source of what is known of a pin, under one name wherever it can be turned off.

``spaces create``, ``train student`` and ``evaluate`` take these names with ``--without``. A source that is off is as
one that the catalogue never had: no word of it in the pin text, no token of it in a lexical feature or in the
statistics, no rate in the student's head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feature_repo.errors import UsageError
from feature_repo.pin_text import PinTextTemplate


@dataclass(frozen=True, slots=True)
class Source:
    """What a source feeds.

    ``fields`` of the pin text, ``lexical`` field of the token blobs, ``rates`` of the head.
    """

    fields: tuple[str, ...] = ()
    lexical: str | None = None
    rates: tuple[str, ...] = ()


SOURCES: Mapping[str, Source] = {
    "title": Source(("title",), "title"),
    "description": Source(("description",), "description"),
    "caption": Source(("caption",), "caption"),
    "link": Source(("link_title", "link_description"), "link"),
    "boards": Source(("board_titles",), "boards"),
    "queries": Source(("engaged_queries",), "queries"),
    "engagement": Source(rates=("click_rate", "save_rate")),
}
"""Every source by its name, in the order of the pin text."""

TEXT_SOURCES = tuple(name for name, source in SOURCES.items() if source.fields)
"""The sources that the pin text is made of."""


def checked(names: Iterable[str], allowed: Iterable[str] = SOURCES) -> tuple[str, ...]:
    """The sources to turn off, each once, in the order of :data:`SOURCES`.

    :param allowed: the sources that can be turned off here.
    :raises UsageError: for a name that is not allowed, or if no source of the pin text would be left.
    """
    given, known = set(names), tuple(allowed)
    if unknown := sorted(given - set(known)):
        why = "; engagement is no part of the pin text" if "engagement" in unknown else ""
        raise UsageError(f"Cannot turn off {', '.join(unknown)}: the sources are {', '.join(known)}{why}.")
    if given.issuperset(TEXT_SOURCES):
        raise UsageError(f"Without {', '.join(TEXT_SOURCES)} nothing is left of the pin text: leave one in.")
    return tuple(name for name in SOURCES if name in given)


def template_without(template: PinTextTemplate, names: Iterable[str]) -> PinTextTemplate:
    """The template with the fields of these sources off; fields that it does not have anyway are no matter.

    :raises UsageError: if it has no other fields.
    """
    off = {field for name in names for field in SOURCES[name].fields}
    present = [rule.name for rule in template.rules]
    if off.issuperset(present):
        raise UsageError(f"This pin text has the fields {', '.join(present)} only, and all of them are off: leave one.")
    return template.without(*(field for field in present if field in off))


def lexical_off(names: Iterable[str]) -> tuple[str, ...]:
    """Lexical fields of these sources."""
    return tuple(field for name in names if (field := SOURCES[name].lexical))


def rates_off(names: Iterable[str]) -> frozenset[str]:
    """Rates of the head that come from these sources."""
    return frozenset(rate for name in names for rate in SOURCES[name].rates)


def text_read(template: PinTextTemplate, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the sources that ``template`` reads all the same."""
    present = {rule.name for rule in template.rules}
    return tuple(name for name in names if present.intersection(SOURCES[name].fields))
