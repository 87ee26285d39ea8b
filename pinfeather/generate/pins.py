"""The tables ``pins`` and ``captions``, rendered chunk by chunk."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pinfeather.generate.lexicon import Ints
from pinfeather.generate.output import TIME, Clock
from pinfeather.generate.vocabulary import LANGUAGES, Topic, Value
from pinfeather.generate.wording import Words
from pinfeather.generate.world import COUNTRIES, World

CAPTIONER = "synthetic-captions"

PINS = pa.schema(
    [(name, pa.string()) for name in (
        "pin_id", "title", "description", "link_url", "link_title", "link_description", "image_uri", "image_sha256",
        "lang", "country",
    )]
    + [("created_at", TIME), ("event_timestamp", TIME), ("deleted_at", TIME), ("link_fetched_at", TIME)]
    + [("safe", pa.bool_())]
)  # fmt: skip
CAPTIONS = pa.schema(
    [("image_sha256", pa.string()), ("captioner", pa.string()), ("caption", pa.string()), ("event_timestamp", TIME)]
)


def image_hash(seed: int, image: int) -> str:
    """The sha256 that stands for an image, stable for a seed."""
    return hashlib.sha256(f"pinfeather image {seed}/{image}".encode()).hexdigest()


def values_of(world: World, pin: int) -> list[Value]:
    """The attributes of a pin in adjective order."""
    return [world.lexicon.values[number] for number in world.attributes[pin] if number >= 0]


def pins_chunk(world: World, start: int, stop: int, seed: int, clock: Clock) -> pa.Table:
    """Rows ``start`` to ``stop`` of ``pins``; about 30 % have neither title nor description."""
    words = Words(world.lexicon, f"{seed}/pins/{start}")
    columns: dict[str, list[str | None]] = {name: [] for name in PINS.names[:10]}
    for pin in range(start, stop):
        topic = world.lexicon.topics[world.topic[pin]]
        lang = LANGUAGES[world.lang[pin]]
        sha = image_hash(seed, int(world.image[pin]))
        texts = _texts(words, world, pin, topic, lang)
        row = (str(world.ids[pin]), *texts, f"https://images.example/{sha[:2]}/{sha[2:18]}.jpg", sha, lang,
               words.pick(COUNTRIES[lang]))  # fmt: skip
        for name, text in zip(PINS.names[:10], row, strict=True):
            columns[name].append(text)
    created = clock.ago(world.age[start:stop])
    # One pin in five was edited since.
    rng = np.random.default_rng([seed, 2, start])
    edited = np.where(rng.random(stop - start) < 0.2, rng.random(stop - start), 1.0)
    arrays: list[pa.Array] = [pa.array(columns[name], pa.string()) for name in PINS.names[:10]]
    arrays += [clock.times(created), clock.times(clock.ago(world.age[start:stop] * edited))]
    linked = np.array([title is not None for title in columns["link_title"]], bool)  # read when the pin was made
    arrays += [pa.nulls(stop - start, TIME), clock.times(created, linked), _safe(stop - start, [seed, 12, start])]
    return pa.Table.from_arrays(arrays, schema=PINS)


def _safe(rows: int, seed: list[int]) -> pa.Array:
    """Of a hundred pins, two are not safe and three were judged by nobody yet."""
    drawn = np.random.default_rng(seed).random(rows)
    return pa.array(drawn >= 0.02, mask=(drawn >= 0.02) & (drawn < 0.05))


def _texts(words: Words, world: World, pin: int, topic: Topic, lang: str) -> Sequence[str | None]:
    """Title, description, link url, link title and link description; attributes spread over them."""
    values = values_of(world, pin)
    in_title = [value for value in values if words.chance(0.55)][:2]
    left = [value for value in values if value not in in_title]
    kind = words.random.random()
    title = words.title(topic, in_title, lang) if kind >= 0.40 or 0.30 <= kind < 0.34 else None
    description = None
    if kind >= 0.52 or 0.34 <= kind < 0.40:
        other = _other_value(words, world, pin, values) if words.chance(0.15) else None
        described = [value for value in left if words.chance(0.85)]
        description = words.description(topic, described, lang, other)
    url = link_title = link_description = None
    if words.chance(0.65):
        linked = [value for value in values if words.chance(0.5)][:2]
        site = words.pick(world.lexicon.sites[lang])
        phrase = words.noun_phrase(topic, linked, lang, may_follow=False)
        url = f"https://{_slug(site) or 'blog'}.example/{_slug(phrase) or f'post-{pin}'}"
        if words.chance(0.5):
            link_title = f"{phrase[:1].upper() + phrase[1:]} {words.pick(('|', '–', '·'))} {site}"
        if link_title and words.chance(0.25):
            link_description = words.pick(words.phrases(topic, lang).notes)
    return title, description, url, link_title, link_description


def _other_value(words: Words, world: World, pin: int, values: Sequence[Value]) -> Value | None:
    """A colour, material or style that the topic knows and this pin does not have."""
    near = {value.family for value in values}
    dimension = words.pick(("color", "material", "style", "ingredient"))
    choices = [
        value
        for row in world.lexicon.allowed[world.topic[pin]]
        for value in (world.lexicon.values[number] for number in row)
        if value.dimension == dimension and value.family not in near
    ]
    return words.pick(choices) if choices and any(value.dimension == dimension for value in values) else None


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def captions_chunk(world: World, images: Ints, seed: int, clock: Clock) -> pa.Table:
    """One caption an image for nearly all of ``images`` (numbers of the pin that had the image first)."""
    if not len(images):
        return CAPTIONS.empty_table()
    words = Words(world.lexicon, f"{seed}/captions/{images[0]}")
    kept, texts = [], []
    for image in images:
        if words.chance(0.03):
            continue
        shown = [value for value in values_of(world, int(image)) if words.chance(0.9)]
        kept.append(int(image))
        texts.append(words.caption(world.lexicon.topics[world.topic[image]], shown))
    ages = np.maximum(world.age[kept] - 0.5, 0.25)
    arrays = [
        pa.array([image_hash(seed, image) for image in kept], pa.string()),
        pa.array([CAPTIONER] * len(kept), pa.string()),
        pa.array(texts, pa.string()),
        clock.times(clock.ago(ages)),
    ]
    return pa.Table.from_arrays(arrays, schema=CAPTIONS)
