"""The table ``board_saves``: people keep pins on boards with human titles, some secret, some saves taken back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pinfeather.generate.lexicon import Floats, Ints
from pinfeather.generate.output import TIME, Clock
from pinfeather.generate.vocabulary import LANGUAGES
from pinfeather.generate.wording import Words
from pinfeather.generate.world import LANGUAGE_SHARES, World, random_ids

ON_NO_BOARD = 0.10
SAVED_ONCE = 0.08
REMOVED = 0.04
SECRET = 0.08
CROWD = 8  # at least so many people care for a topic
POINTED = 0.5  # of people keep a board of its own for an attribute

SAVES = pa.schema(
    [("board_id", pa.string()), ("board_title", pa.string()), ("pin_id", pa.string()), ("user_id", pa.string()),
     ("saved_at", TIME), ("removed_at", TIME), ("secret", pa.bool_())]
)  # fmt: skip


@dataclass(frozen=True)
class Savers:
    """People who save: ids, and who cares for which topic in which language, and how each calls a board."""

    ids: npt.NDArray[np.str_]
    by_topic: tuple[Ints, ...]
    by_topic_and_language: tuple[tuple[Ints, ...], ...]
    naming: Floats
    pointed: npt.NDArray[np.bool_]


def draw_savers(world: World, seed: int) -> Savers:
    """One person for sixteen pins, each with a language and about three topics; no topic without a small crowd."""
    rng = np.random.default_rng([seed, 9])
    count, topics = max(80, world.pins // 16), len(world.lexicon.topics)
    lang = rng.choice(len(LANGUAGES), size=count, p=LANGUAGE_SHARES)
    cares = rng.random((count, topics)) < 3.0 / topics
    for topic in np.flatnonzero(cares.sum(axis=0) < CROWD):
        cares[rng.choice(count, size=CROWD, replace=False), topic] = True
    by_topic = tuple(np.flatnonzero(cares[:, topic]) for topic in range(topics))
    return Savers(
        ids=random_ids(rng, count, 10),
        by_topic=by_topic,
        by_topic_and_language=tuple(
            tuple(people[lang[people] == n] for n in range(len(LANGUAGES))) for people in by_topic
        ),
        naming=rng.random((count, topics)),
        pointed=rng.random((count, len(world.lexicon.values))) < POINTED,
    )


def saves_chunk(world: World, savers: Savers, start: int, stop: int, seed: int, clock: Clock) -> pa.Table:
    """All saves of the pins ``start`` to ``stop``."""
    rng = np.random.default_rng([seed, 3, start])
    pin = np.repeat(np.arange(start, stop), _saves_per_pin(world, rng, start, stop))
    user = _who(world, savers, pin, rng)
    first = np.unique(pin * len(savers.ids) + user, return_index=True)[1]
    pin, user = pin[first], user[first]
    titles = _titles(world, savers, pin, user, seed)
    saver = savers.ids[user].tolist()
    boards = [_board(seed, who, title) for who, title in zip(saver, titles, strict=True)]
    age = np.maximum(world.age[pin] * rng.random(len(pin)) ** 0.8, 0.05)
    removed = rng.random(len(pin)) < REMOVED
    arrays = [
        pa.array([board for board, _ in boards], pa.string()),
        pa.array(titles, pa.string()),
        pa.array(world.ids[pin].tolist(), pa.string()),
        pa.array(saver, pa.string()),
        clock.times(clock.ago(age)),
        clock.times(clock.ago(age * rng.random(len(pin))), valid=removed),
        pa.array([secret for _, secret in boards], pa.bool_()),
    ]
    return pa.Table.from_arrays(arrays, schema=SAVES)


def _saves_per_pin(world: World, rng: np.random.Generator, start: int, stop: int) -> Ints:
    """How many people saved each pin: nobody, one, or a number that grows with its appeal."""
    many = 2 + rng.poisson(3.8 * world.appeal[start:stop])
    draw = rng.random(stop - start)
    return np.select([draw < ON_NO_BOARD, draw < ON_NO_BOARD + SAVED_ONCE], [0, 1], many)


def _who(world: World, savers: Savers, pin: Ints, rng: np.random.Generator) -> Ints:
    """A saver for each row: someone who cares for the topic, mostly of the pin's language, some far more active."""
    spin, same = rng.random(len(pin)) ** 1.5, rng.random(len(pin)) < 0.85
    user = np.empty(len(pin), dtype=np.int64)
    for topic, people in enumerate(savers.by_topic):
        for lang, speakers in enumerate(savers.by_topic_and_language[topic]):
            rows = np.flatnonzero((world.topic[pin] == topic) & (world.lang[pin] == lang))
            crowd = speakers if len(speakers) >= 4 else people
            own = crowd[(spin[rows] * len(crowd)).astype(np.int64)]
            user[rows] = np.where(same[rows], own, people[(spin[rows] * len(people)).astype(np.int64)])
    return user


def _board(seed: int, user: str, title: str) -> tuple[str, bool]:
    """Id of the user's board with that title, and whether it is secret."""
    digest = hashlib.blake2b(f"{seed}/{user}/{title}".encode(), digest_size=8).digest()
    return digest.hex(), digest[0] < 256 * SECRET


class _Names:
    """Board titles that people agree on: a few for each topic, or for a topic with an attribute, in a language."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.seed = world, seed
        self.known: dict[tuple[int, int, int], tuple[str, ...]] = {}

    def of(self, topic: int, lang: int, value: int = -1) -> tuple[str, ...]:
        """Titles for a topic, the commonest first; with ``value`` the two titles that show the attribute."""
        key = (topic, lang, value)
        if key not in self.known:
            words = Words(self.world.lexicon, f"{self.seed}/boards/{topic}/{lang}/{value}")
            what, code = self.world.lexicon.topics[topic], LANGUAGES[lang]
            if value >= 0:
                titles = [words.board(what, [self.world.lexicon.values[value]], code) for _ in range(2)]
            else:
                shelves = words.phrases(what, code).shelves
                titles = [words.board(what, [], code), shelves[0], words.board(what, [], code), words.pick(shelves),
                          words.pick(self.world.lexicon.generic_boards[code]), words.board(what, [], code)]  # fmt: skip
            self.known[key] = tuple(dict.fromkeys(titles))
        return self.known[key]


def _titles(world: World, savers: Savers, pin: Ints, user: Ints, seed: int) -> list[str]:
    """The title of the board of each save: the saver's own for the topic, or one for what the pin is known for."""
    names = _Names(world, seed)
    words = Words(world.lexicon, f"{seed}/saves/{pin[0] if len(pin) else 0}")
    titles, seen, fame = [], -1, -1
    for number, who in zip(pin.tolist(), user.tolist(), strict=True):
        topic, lang = int(world.topic[number]), int(world.lang[number])
        if number != seen:
            seen = number
            fame = words.pick([int(value) for value in world.attributes[number] if value >= 0])
        taste = float(savers.naming[who, topic])
        if savers.pointed[who, fame]:
            titles.append(words.pick(names.of(topic, lang, fame), 3.0))
        else:
            own = names.of(topic, lang)
            titles.append(own[int(len(own) * taste**2.6)])
    return titles
