"""Words for what the world holds: noun phrases, titles, descriptions, captions, queries and board titles."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TypeVar

from pinfeather.generate.lexicon import Lexicon
from pinfeather.generate.phrases_en import ATTRIBUTE_NOTES
from pinfeather.generate.vocabulary import Phrases, Topic, Value

T = TypeVar("T")
_LOOK = re.compile(r"\{look(?:/([^}]*))?\} ?")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_EMOJI = {
    "decor": "🤍",
    "garden": "🌿",
    "recipes": "😋",
    "travel": "✈️",
    "fashion": "🖤",
    "beauty": "💅",
    "crafts": "🧶",
    "party": "🎉",
}
_SMALL = frozenset(
    ["a", "an", "and", "at", "by", "for", "in", "my", "no", "of", "on", "our", "the", "to", "with", "who", "that"]
)
_NUMBERS = ("3", "5", "7", "9", "10", "12", "15", "17", "20", "21", "25")


class Words:
    """Renders text with its own random stream; English knows two places for an attribute, other languages one."""

    def __init__(self, lexicon: Lexicon, stream: str) -> None:
        self.lexicon = lexicon
        self.random = random.Random(stream)

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return self.random.random() < probability

    def pick(self, items: Sequence[T], bias: float = 1.0) -> T:
        """One of ``items``; a bias above 1 prefers the first ones, below 1 the last."""
        return items[int(len(items) * self.random.random() ** bias)]

    def noun(self, topic: Topic, lang: str, bias: float = 1.0) -> str:
        """A noun of the topic."""
        return self.pick(topic.nouns[lang], bias)

    def form(self, value: Value, lang: str, bias: float = 1.0, after: bool = False) -> str:
        """The value in words; ``after`` asks for the English form that follows a noun."""
        if lang != "en":
            return self.pick(value.forms[lang], bias)
        return self.pick(value.after if after else value.before, bias)

    def noun_phrase(
        self, topic: Topic, values: Sequence[Value], lang: str, bias: float = 1.0, may_follow: bool = True
    ) -> str:
        """Noun and attributes in the order of the language; ``values`` come in adjective order."""
        noun = self.noun(topic, lang, bias)
        if lang == "ja":
            return "".join(self.form(value, lang, bias) for value in values) + noun
        if lang != "en":
            return " ".join([noun, *(self.form(value, lang, bias) for value in reversed(values))])
        follows = may_follow and bool(values) and topic.key != "travel.plan.packing" and self.chance(0.5)
        last = self.pick(values) if follows else None
        before = [self.form(value, lang, bias) for value in values if value is not last]
        tail = [self.form(last, lang, bias, after=True)] if last else []
        return " ".join([*before, noun, *tail])

    def fill(self, pattern: str, topic: Topic, values: Sequence[Value], lang: str, bias: float = 1.0) -> str:
        """A pattern with its noun phrase, noun, attribute and number put in."""
        text = pattern
        if "{np}" in text:
            phrase = self.noun_phrase(topic, values, lang, bias, may_follow=text.endswith("{np}"))
            text = text.replace("{np}", phrase)
        if "{n}" in text:
            text = text.replace("{n}", self.noun(topic, lang, bias))
        if "{a}" in text:
            text = text.replace("{a}", self.form(self.pick(values), lang, bias))
        return text.replace("{k}", self.pick(_NUMBERS)) if "{k}" in text else text

    def phrases(self, topic: Topic, lang: str) -> Phrases:
        """The patterns of the topic's domain."""
        return self.lexicon.phrases[topic.domain, lang]

    def title(self, topic: Topic, values: Sequence[Value], lang: str) -> str:
        """A title as people write them: plain, listicle or personal, now and then without the noun."""
        phrases = self.phrases(topic, lang)
        bare = self.chance(0.12)
        text = self.fill(self.pick(phrases.bare_titles if bare else phrases.titles), topic, values, lang, bias=1.5)
        text = text[:1].upper() + text[1:]
        if lang == "en" and not bare and self.chance(0.55):
            text = " ".join(w if w in _SMALL or not w.islower() else w[0].upper() + w[1:] for w in text.split())
        elif lang == "en" and self.chance(0.2):
            text = text.lower()
        return f"{text} {_EMOJI[topic.domain]}" if self.chance(0.04) else text

    def attribute_note(self, topic: Topic, value: Value, lang: str) -> str:
        """A sentence about one attribute."""
        if lang != "en":
            text = self.pick(self.phrases(topic, lang).attribute_notes).replace("{a}", self.form(value, lang, 1.2))
        else:
            text = self.pick(ATTRIBUTE_NOTES[value.dimension])
            text = text.replace("{a}", self.form(value, "en", after=True)).replace("{b}", self.form(value, "en", 1.2))
        return text[:1].upper() + text[1:]

    def description(self, topic: Topic, values: Sequence[Value], lang: str, other: Value | None) -> str:
        """One or two short sentences; ``other`` is an attribute that the pin does not have and says so."""
        notes = self.phrases(topic, lang).notes
        parts = [self.attribute_note(topic, value, lang) for value in values[:2]]
        if other is not None and lang == "en":
            wrong = self.form(other, "en")
            excuse = self.pick((f"Not another {wrong} one.", f"Done with {wrong}.", f"First I wanted {wrong}."))
            parts = [excuse, *parts[:1]]
        if len(parts) < 2:
            own = self.pick(topic.notes) if lang == "en" and self.chance(0.6) else self.pick(notes)
            parts.insert(int(self.random.random() * (len(parts) + 1)), own)
        if lang == "en" and self.chance(0.06):
            parts.append("#" + re.sub(r"\W", "", self.noun(topic, "en").lower()))
        return ("" if lang == "ja" else " ").join(parts)

    def caption(self, topic: Topic, values: Sequence[Value]) -> str:
        """What a captioner would say of the picture, in plain English."""
        looks = " ".join(dict.fromkeys(value.look for value in values if value.look))
        text = _LOOK.sub(lambda m: f"{looks or m.group(1) or ''} ".lstrip(), self.pick(topic.scenes))
        if text.startswith("a ") and self.chance(0.15):
            text = self.pick(("there is ", "a photo of ")) + text
        return _ARTICLE.sub(r"\1n ", " ".join(text.split()))

    def query(self, topic: Topic, values: Sequence[Value], lang: str) -> str:
        """A query; a narrow one prefers other words than the pins use, and now and then a letter is missing."""
        text = self.fill(
            self.pick(self.phrases(topic, lang).queries, 1.3), topic, values, lang, 0.85 if values else 1.4
        )
        text = text if self.chance(0.12) else text.lower()
        if lang != "ja" and len(text) > 8 and self.chance(0.02):
            cut = 2 + int(self.random.random() * (len(text) - 4))
            text = text[:cut] + text[cut + 1 :]
        return text

    def board(self, topic: Topic, values: Sequence[Value], lang: str) -> str:
        """A board title about the topic, with an attribute where one is given."""
        patterns = [p for p in self.phrases(topic, lang).boards if ("{a}" in p) == bool(values)]
        text = self.fill(self.pick(patterns), topic, values, lang, bias=1.2)
        return text if self.chance(0.25) else text[:1].upper() + text[1:]
