"""The hidden truth behind a catalogue: topic, language, attributes and image of every pin, and its level for a query.

The guideline that the judgments follow (version ``GUIDELINE``): a query asks for a topic and up to two attributes.

* 5: the topic, with everything that was asked for
* 4: the topic, with something close to it (sage for olive), or one of two attributes not shown
* 3: the topic with half of what was asked, or a sibling topic (coffee table for sofa) that has the attributes
* 2: the topic with the wrong attributes, a sibling without them, or the same interest with just the same attributes
* 1: nothing in common that helps
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pinfeather.generate.lexicon import DIMENSIONS, Floats, Ints, Lexicon
from pinfeather.generate.vocabulary import LANGUAGES

GUIDELINE = "2026-05"
LANGUAGE_SHARES = (0.66, 0.12, 0.09, 0.09, 0.04)
COUNTRIES: dict[str, tuple[str, ...]] = {
    "en": ("US", "US", "US", "GB", "GB", "CA", "AU", "IN"),
    "de": ("DE", "DE", "DE", "AT", "CH"),
    "fr": ("FR", "FR", "FR", "BE", "CA"),
    "es": ("ES", "MX", "MX", "AR", "CO"),
    "ja": ("JP",),
}
SHARED_IMAGES = 0.06


@dataclass(frozen=True)
class World:
    """Arrays over n pins: topic, language, value number per dimension (-1: none) [n, D], image, ages in days."""

    lexicon: Lexicon
    topic: Ints
    lang: Ints
    attributes: Ints
    image: Ints
    age: Floats
    appeal: Floats
    ids: npt.NDArray[np.str_]

    @property
    def pins(self) -> int:
        """Number of pins."""
        return len(self.topic)


@dataclass(frozen=True)
class Intent:
    """What a query asks for: a topic and value numbers."""

    topic: int
    values: tuple[int, ...]
    lang: int


def random_ids(rng: np.random.Generator, count: int, length: int = 12) -> npt.NDArray[np.str_]:
    """``count`` different strings of ``length`` lower-case letters and digits."""
    alphabet = np.frombuffer(b"abcdefghijkmnpqrstuvwxyz23456789", dtype=np.uint8)
    while True:
        codes = alphabet[rng.integers(0, len(alphabet), size=(count, length))]
        ids = np.frombuffer(codes.tobytes(), dtype=f"S{length}").astype(f"U{length}")
        if len(np.unique(ids)) == count:
            return ids


def draw_world(lexicon: Lexicon, pins: int, seed: int) -> World:
    """Pins with topics of uneven popularity, two to four attributes each, some of them reposts of one image."""
    rng = np.random.default_rng([seed, 1])
    weights = 1.0 / (rng.permutation(len(lexicon.topics)) + 12.0)
    topic = rng.choice(len(lexicon.topics), size=pins, p=weights / weights.sum()).astype(np.int64)
    lang = rng.choice(len(LANGUAGES), size=pins, p=LANGUAGE_SHARES).astype(np.int64)
    attributes = _draw_attributes(lexicon, topic, rng)
    image = np.arange(pins, dtype=np.int64)
    for repost in np.flatnonzero(rng.random(pins) < SHARED_IMAGES):
        if repost:
            source = int(rng.integers(0, repost))
            image[repost], topic[repost], attributes[repost] = image[source], topic[source], attributes[source]
    return World(
        lexicon=lexicon,
        topic=topic,
        lang=lang,
        attributes=attributes,
        image=image,
        age=np.clip(rng.exponential(420.0, pins), 1.0, 1500.0),
        appeal=rng.lognormal(0.0, 0.45, pins),
        ids=random_ids(rng, pins),
    )


def _draw_attributes(lexicon: Lexicon, topic: Ints, rng: np.random.Generator) -> Ints:
    """Value numbers [n, D]: each pin has two to four of the dimensions that its topic knows."""
    attributes = np.full((len(topic), len(DIMENSIONS)), -1, dtype=np.int64)
    wanted = rng.choice([2, 3, 4], size=len(topic), p=[0.35, 0.45, 0.2])
    keys = rng.random((len(topic), len(DIMENSIONS)))
    picks = rng.random((len(topic), len(DIMENSIONS)))
    for number, choices in enumerate(lexicon.allowed):
        members = np.flatnonzero(topic == number)
        known = np.array([d for d, values in enumerate(choices) if values])
        ranks = keys[members][:, known].argsort(axis=1).argsort(axis=1)
        for column, dimension in enumerate(known):
            values = np.array(choices[dimension])
            # Earlier values of a list are somewhat more common.
            chosen = values[(len(values) * picks[members, dimension] ** 1.15).astype(np.int64)]
            attributes[members, dimension] = np.where(ranks[:, column] < wanted[members], chosen, -1)
    return attributes


def true_levels(world: World, intent: Intent, pins: Ints) -> Ints:
    """Level 1 to 5 [len(pins)] of each pin for ``intent``, by the guideline above."""
    lexicon = world.lexicon
    topic = world.topic[pins]
    met = np.ones(len(pins))
    if intent.values:
        total = np.zeros(len(pins))
        for asked in intent.values:
            have = world.attributes[pins, lexicon.dimension[asked]]
            near = lexicon.family[have] == lexicon.family[asked]
            total += np.select([have == asked, have < 0, near], [1.0, 0.5, 0.7], 0.0)
        met = total / len(intent.values)
    same = np.select([met > 0.99, met > 0.69, met > 0.39], [5, 4, 3], 2)
    sibling = np.where(met > 0.69, 3, 2)
    interest = np.where((met > 0.99) & bool(intent.values), 2, 1)
    level = np.where(lexicon.domain[topic] == lexicon.domain[intent.topic], interest, 1)
    level = np.where(lexicon.group[topic] == lexicon.group[intent.topic], sibling, level)
    return np.where(topic == intent.topic, same, level).astype(np.int64)
