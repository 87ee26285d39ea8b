"""Shapes of the hand-written vocabulary: attribute values, topics and the phrases of a domain.

A surface list is written as one string, alternatives parted by ``|``; the first is the plainest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LANGUAGES: tuple[str, ...] = ("en", "de", "fr", "es", "ja")


def surfaces(text: str) -> tuple[str, ...]:
    """The alternatives of one surface string."""
    return tuple(part.strip() for part in text.split("|") if part.strip())


@dataclass(frozen=True)
class Value:
    """One value of an attribute dimension.

    ``before`` and ``after`` are English forms around a noun ("linen sofa", "sofa in linen"); ``forms`` holds the
    other languages, whose form follows the noun (German, French, Spanish) or precedes it (Japanese). ``look`` is the
    plain word that a captioner would use, empty if a picture does not show it. Values of one ``family`` are near.
    """

    key: str
    dimension: str
    family: str
    look: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    forms: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Topic:
    """One thing people look for: nouns per language, its siblings' group, and how a picture of it is described."""

    key: str
    domain: str
    group: str
    nouns: Mapping[str, tuple[str, ...]]
    scenes: tuple[str, ...]
    notes: tuple[str, ...]
    dimensions: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Phrases:
    """Patterns of one domain in one language; ``{np}`` is a noun phrase, ``{n}`` the bare noun, ``{a}`` an attribute.

    ``shelves`` are board titles as wide as the domain. English has its ``attribute_notes`` by dimension instead.
    """

    titles: tuple[str, ...]
    bare_titles: tuple[str, ...]
    notes: tuple[str, ...]
    attribute_notes: tuple[str, ...]
    queries: tuple[str, ...]
    boards: tuple[str, ...]
    shelves: tuple[str, ...]


def value(
    key: str,
    en: str,
    after: str,
    de: str,
    fr: str,
    es: str,
    ja: str,
    *,
    look: str = "",
    family: str = "",
) -> Value:
    """A :class:`Value` from surface strings; ``key`` is ``dimension.name``."""
    return Value(
        key=key,
        dimension=key.split(".")[0],
        family=family or key,
        look=look,
        before=surfaces(en),
        after=surfaces(after),
        forms={"de": surfaces(de), "fr": surfaces(fr), "es": surfaces(es), "ja": surfaces(ja)},
    )


def topic(
    key: str,
    en: str,
    de: str,
    fr: str,
    es: str,
    ja: str,
    *,
    scenes: str,
    notes: str,
    dims: str,
) -> Topic:
    """A :class:`Topic`; ``key`` is ``domain.group.name``, ``dims`` reads ``color: sage navy; space: small``."""
    domain, group, _ = key.split(".")
    dimensions = {}
    for part in surfaces(dims.replace(";", "|")):
        dimension, _, names = part.partition(":")
        dimensions[dimension.strip()] = tuple(names.split())
    nouns = {"en": en, "de": de, "fr": fr, "es": es, "ja": ja}
    return Topic(
        key=key,
        domain=domain,
        group=f"{domain}.{group}",
        nouns={lang: surfaces(text) for lang, text in nouns.items()},
        scenes=surfaces(scenes),
        notes=surfaces(notes),
        dimensions=dimensions,
    )
