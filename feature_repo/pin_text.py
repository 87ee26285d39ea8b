"""The only place where a pin's fields become a model's input: teacher, student, materializer and serving alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from feature_repo.errors import PinfeatherError
from feature_repo.text import first_words, normalise

FIELDS = ("title", "description", "caption", "link_title", "link_description", "board_titles", "engaged_queries")
"""Fields of a pin in the fixed order of the canonical text."""

LIST_FIELDS = frozenset({"board_titles", "engaged_queries"})


@dataclass(frozen=True, slots=True)
class PinFields:
    """What is known of a pin in words; ``None`` and empty mean the field is missing."""

    title: str | None = None
    description: str | None = None
    caption: str | None = None
    link_title: str | None = None
    link_description: str | None = None
    board_titles: tuple[str, ...] = ()
    engaged_queries: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> PinFields:
        """Fields out of a joined row of views; columns that are not there count as missing."""
        known: dict[str, Any] = {name: row.get(name) for name in FIELDS}
        for name in LIST_FIELDS:
            known[name] = tuple(item for item in (known[name] or ()) if item)
        return cls(**known)


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How one field enters the text: its name, the marker before it, and its budget in words."""

    name: str
    budget: int
    marker: str = ""


@dataclass(frozen=True, slots=True)
class PinText:
    """A canonical text, and whether a budget cut something off."""

    text: str
    truncated: bool

    @property
    def fingerprint(self) -> str:
        """xxh3-128 of the text, 32 hexadecimal characters: decides whether to embed."""
        return xxhash.xxh3_128_hexdigest(self.text.encode())


@dataclass(frozen=True)
class PinTextTemplate:
    """Which fields are on, in the fixed order, with marker and budget; belongs to a space and a bundle.

    A change of a template means a new space; an ablation is a template with fewer rules.

    :raises PinfeatherError: for an unknown or repeated field, a wrong order or a budget below 1.
    """

    version: int
    rules: tuple[FieldRule, ...]

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if not names or names != [name for name in FIELDS if name in names]:
            raise PinfeatherError(
                f"A pin text template cannot have the fields {names}: allowed are {list(FIELDS)}, "
                "each at most once and in this order."
            )
        if bad := [rule for rule in self.rules if rule.budget < 1]:
            raise PinfeatherError(
                f"Budget of {bad[0].name} is {bad[0].budget} words: give at least 1, or drop the field."
            )

    def render(self, fields: PinFields) -> PinText:
        """The canonical text: NFC, whitespace folded, lists sorted, missing fields without a trace."""
        parts = []
        truncated = False
        for rule in self.rules:
            value = getattr(fields, rule.name)
            if rule.name in LIST_FIELDS:
                text, cut = _join(value, rule.budget)
            else:
                text, cut = first_words(normalise(value), rule.budget)
            truncated |= cut
            if text:
                parts.append(f"{rule.marker} {text}" if rule.marker else text)
        return PinText(" | ".join(parts), truncated)

    def without(self, *names: str) -> PinTextTemplate:
        """The same template with some fields off, for ablations.

        :raises PinfeatherError: if a name is no field of this template, or none would be left.
        """
        if unknown := sorted(set(names) - {rule.name for rule in self.rules}):
            raise PinfeatherError(f"Cannot turn off {unknown}: this template has {[rule.name for rule in self.rules]}.")
        return PinTextTemplate(self.version, tuple(rule for rule in self.rules if rule.name not in names))

    @property
    def fingerprint(self) -> str:
        """xxh3-64 of the template's JSON, 16 hexadecimal characters."""
        return xxhash.xxh3_64_hexdigest(json.dumps(self.to_json(), sort_keys=True).encode())

    def to_json(self) -> dict[str, Any]:
        """Plain data for a manifest."""
        return {"version": self.version, "rules": [asdict(rule) for rule in self.rules]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PinTextTemplate:
        """The template of a manifest.

        :raises PinfeatherError: if the data is no template.
        """
        try:
            return cls(int(data["version"]), tuple(FieldRule(**rule) for rule in data["rules"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PinfeatherError(f"Not a pin text template ({error!r}): expected version and rules.") from error


def _join(items: Iterable[str], budget: int) -> tuple[str, bool]:
    """Distinct items in canonical order, whole items only, within ``budget`` words."""
    texts = sorted({text for item in items if (text := normalise(item))}, reverse=True)
    seen = {text.casefold(): text for text in texts}
    kept: list[str] = []
    cut = False
    for _, item in sorted(seen.items()):
        text, over = first_words(", ".join([*kept, item]), budget)
        if over:
            cut = True
            if not kept:
                return text, True
            continue
        kept.append(item)
    return ", ".join(kept), cut


DEFAULT_TEMPLATE = PinTextTemplate(
    version=1,
    rules=(
        FieldRule("title", 24),
        FieldRule("description", 40),
        FieldRule("caption", 24),
        FieldRule("link_title", 10),
        FieldRule("link_description", 20),
        FieldRule("board_titles", 30, "boards:"),
        FieldRule("engaged_queries", 30, "searches:"),
    ),
)
"""178 words at most, about 230 word pieces in English: within the 256 of the packaged model."""
