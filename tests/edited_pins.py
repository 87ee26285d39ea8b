"""A source that a state machine edits, and what a space must make of it."""

from __future__ import annotations

from typing import Any

from conftest import Catalogue
from hypothesis import strategies as st

from feature_repo.paths import RepoPaths
from materialize.spaces import Space

ANCHOR = "p0"
"""A pin that never leaves: an empty table is another matter."""
PINS = (ANCHOR, "p1", "p2", "p3", "p4")
TITLES, WORDS = ("hat", "cap", "scarf", "glove"), (None, "wool", "felt")

pins = st.sampled_from(PINS)
edits = st.one_of(
    st.tuples(st.just("put"), pins, st.sampled_from(TITLES), st.sampled_from(WORDS)),
    st.tuples(st.just("swap"), pins, pins),
    st.tuples(st.just("duplicate"), pins, pins),
    st.tuples(st.just("empty"), pins),
    st.tuples(st.just("lang"), pins, st.sampled_from(["en", "de"])),
    st.tuples(st.sampled_from(["delete", "take down", "undelete"]), st.sampled_from(PINS[1:])),
)
some = st.lists(edits, min_size=1, max_size=4)


class EditedPins:
    """The catalogue as a dictionary, with the edits that a rule draws."""

    def __init__(self, paths: RepoPaths, start: Catalogue) -> None:
        self.catalogue = Catalogue(paths)
        self.catalogue.pins = self.copied(start.pins)

    @staticmethod
    def copied(pins: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {pin: dict(row) for pin, row in pins.items()}

    def apply(self, what: str, pin: str, *more: Any) -> None:
        known = self.catalogue.pins
        match what:
            case "put":
                self.catalogue.put(pin, more[0], description=more[1])
            case "swap" | "duplicate" if pin in known and more[0] in known:
                one, other = known[pin], known[more[0]]
                texts = {name: other[name] for name in ("title", "description")}
                if what == "swap":
                    other.update({name: one[name] for name in texts})
                one.update(texts)
            case "empty" if pin in known:
                known[pin].update(title=None, description=None)
            case "lang" if pin in known:
                known[pin]["lang"] = more[0]
            case "delete":
                known.pop(pin, None)
            case "take down" if pin in known:
                known[pin]["deleted_at"] = Catalogue.NOW
            case "undelete" if pin in known:
                known[pin].pop("deleted_at", None)

    def alive(self) -> dict[str, dict[str, Any]]:
        return {pin: row for pin, row in self.catalogue.pins.items() if not row.get("deleted_at")}

    def wanted(self, space: Space) -> dict[str, tuple[str, str]]:
        """Pins with text under the space's template: text and lang."""
        fields = [rule.name for rule in space.template.rules]
        texts = {
            pin: " | ".join(row[name] for name in ("title", "description") if name in fields and row[name])
            for pin, row in self.alive().items()
        }
        return {pin: (text, self.alive()[pin]["lang"]) for pin, text in texts.items() if text}
