"""Queries with their intent, and the table ``search_log``: Zipf traffic, clicks that follow relevance and appeal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.text import canonical_query
from pinfeather.generate.lexicon import Floats, Ints
from pinfeather.generate.output import TIME, Clock
from pinfeather.generate.vocabulary import LANGUAGES
from pinfeather.generate.wording import Words
from pinfeather.generate.world import COUNTRIES, Intent, World, random_ids, true_levels

PAGE = 10
REQUESTS_PER_PIN = 1.35
QUERIES_PER_PIN = 0.14
ZIPF_SHIFT, ZIPF_EXPONENT = 4.0, 0.8
SPREAD = 6.0  # how strongly the head of the curve avoids repeating a topic
CHUNK = 40_000  # requests rendered at a time
# By level 1 to 5, for an average pin in first position.
CLICK_RATE = np.array([0.02, 0.05, 0.16, 0.40, 0.50])
LONG_SHARE = np.array([0.05, 0.10, 0.25, 0.50, 0.60])
SAVE_SHARE = np.array([0.01, 0.03, 0.08, 0.18, 0.24])
LONG_CLICK_SECONDS = 30.0

LOG = pa.schema(
    [("request_id", pa.string()), ("query", pa.string()), ("lang", pa.string()), ("country", pa.string()),
     ("user_id", pa.string()), ("pin_id", pa.string()), ("position", pa.int64()), ("action", pa.string()),
     ("dwell_s", pa.float64()), ("event_timestamp", TIME)]
)  # fmt: skip


@dataclass(frozen=True)
class Queries:
    """Distinct queries, most frequent first: text, intent and number of requests."""

    texts: tuple[str, ...]
    intents: tuple[Intent, ...]
    requests: Ints


def draw_queries(world: World, seed: int) -> Queries:
    """Queries after pins of the catalogue; broad ones tend to the head of a Zipf curve."""
    rng = np.random.default_rng([seed, 4])
    words = Words(world.lexicon, f"{seed}/queries")
    wanted = max(40, round(QUERIES_PER_PIN * world.pins))
    found: dict[str, tuple[str, Intent]] = {}
    for pin in rng.integers(0, world.pins, size=wanted * 2).tolist():
        values = [int(number) for number in world.attributes[pin] if number >= 0]
        asked = sorted(words.random.sample(values, words.pick((0, 1, 1, 1, 2, 2))), key=values.index)
        lang = int(world.lang[pin]) if words.chance(0.9) else 0
        topic = world.lexicon.topics[world.topic[pin]]
        text = words.query(topic, [world.lexicon.values[number] for number in asked], LANGUAGES[lang])
        found.setdefault(canonical_query(text), (text, Intent(int(world.topic[pin]), tuple(asked), lang)))
        if len(found) == wanted:
            break
    pairs = list(found.values())
    breadth = np.array([len(intent.values) for _, intent in pairs])
    foreign = np.array([intent.lang != 0 for _, intent in pairs])
    liking = breadth * 0.8 + foreign * 0.8 + rng.gumbel(0.0, 1.0, len(pairs))
    # A topic that has a head query already leaves the head to others.
    turn = np.empty(len(pairs))
    topics = np.array([intent.topic for _, intent in pairs])
    for topic in np.unique(topics):
        members = np.flatnonzero(topics == topic)
        turn[members[np.argsort(liking[members])]] = np.arange(len(members))
    order = np.argsort(liking + SPREAD * turn * len(np.unique(topics)) / len(pairs))
    ranks = np.arange(1, len(pairs) + 1)
    share = 1.0 / (ranks + ZIPF_SHIFT) ** ZIPF_EXPONENT
    total = round(REQUESTS_PER_PIN * world.pins)
    requests = np.sort(rng.multinomial(total, share / share.sum()))[::-1].astype(np.int64)
    return Queries(tuple(pairs[i][0] for i in order), tuple(pairs[i][1] for i in order), requests)


def _result_lists(world: World, queries: Queries, seed: int) -> tuple[Ints, Ints, Ints]:
    """What the engine would show: flat pin numbers and levels, offsets [queries + 1]; the engine errs and explores."""
    rng = np.random.default_rng([seed, 5])
    by_topic = [np.flatnonzero(world.topic == topic) for topic in range(len(world.lexicon.topics))]
    shown = np.zeros(world.pins)
    flat, levels, offsets = [], [], [0]
    for intent, requests in zip(queries.intents, queries.requests.tolist(), strict=True):
        siblings = np.flatnonzero(world.lexicon.group == world.lexicon.group[intent.topic]).tolist()
        near = np.concatenate([by_topic[topic] for topic in siblings if topic != intent.topic] or [by_topic[0][:0]])
        near = near[rng.integers(0, len(near), size=30)] if len(near) else near
        stray = rng.integers(0, world.pins, size=6)
        pool = np.unique(np.concatenate([by_topic[intent.topic], near, stray]))
        level = true_levels(world, intent, pool)
        same_language = world.lang[pool] == intent.lang
        score = level + 1.0 * same_language + rng.gumbel(0.0, 0.55, len(pool)) - np.minimum(shown[pool], 4.0) * 1.5
        best = np.argsort(-score, kind="stable")[: max(PAGE + 4, min(len(pool), round(requests * PAGE / 8)))]
        chosen, chosen_level = pool[best], level[best]
        if requests >= 3:
            shown[chosen[chosen_level >= 4]] += 1.0
        flat.append(chosen)
        levels.append(chosen_level)
        offsets.append(offsets[-1] + len(chosen))
    return np.concatenate(flat), np.concatenate(levels), np.array(offsets)


def log_chunks(
    world: World, queries: Queries, users: npt.NDArray[np.str_], seed: int, clock: Clock
) -> Iterator[pa.Table]:
    """The search log, a chunk of requests at a time, each request with its impressions and what followed them."""
    lists = _result_lists(world, queries, seed)
    rng = np.random.default_rng([seed, 6])
    asked = np.repeat(np.arange(len(queries.texts)), queries.requests)
    rng.shuffle(asked)
    age = np.sort(np.clip(rng.exponential(80.0, len(asked)), 0.02, 700.0))[::-1]
    for start in range(0, len(asked), CHUNK):
        chunk_rng = np.random.default_rng([seed, 7, start])
        yield _log_chunk(world, queries, lists, users, asked[start : start + CHUNK], age[start : start + CHUNK],
                         chunk_rng, clock)  # fmt: skip


def _log_chunk(
    world: World,
    queries: Queries,
    lists: tuple[Ints, Ints, Ints],
    users: npt.NDArray[np.str_],
    asked: Ints,
    age: Floats,
    rng: np.random.Generator,
    clock: Clock,
) -> pa.Table:
    """Rows of some requests: impressions, then clicks, long clicks and saves, in the order of time."""
    flat, levels, offsets = lists
    length = (offsets[1:] - offsets[:-1])[asked]
    # People mostly see the first page; deeper pages share the rest.
    first = (length * rng.random(len(asked)) ** 1.3).astype(np.int64)
    request = np.repeat(np.arange(len(asked)), PAGE)
    slot = np.tile(np.arange(PAGE), len(asked))
    entry = offsets[asked][request] + (first[request] + slot) % length[request]
    alive = world.age[flat[entry]] > age[request]
    request, entry = request[alive], entry[alive]
    starts = np.flatnonzero(np.diff(request, prepend=-1))
    position = np.arange(len(request)) - np.repeat(starts, np.diff(np.append(starts, len(request)))) + 1
    actions, rows, dwell = _actions(world, flat[entry], levels[entry], position, rng)
    order = np.lexsort((actions, rows))
    actions, rows, dwell = actions[order], rows[order], dwell[order]
    request, pin, position = request[rows], flat[entry[rows]], position[rows]
    seconds = actions * 2.0 + position * 1.5 + np.where(actions >= 2, np.nan_to_num(dwell), 0.0)
    user = (len(users) * rng.random(len(asked)) ** 1.5).astype(np.int64)
    country, text, lang = _request_columns(queries, asked, rng)
    columns = [
        _take(random_ids(rng, len(asked), 14).tolist(), request),
        _take(text, request),
        _take(lang, request),
        _take(country, request),
        _take(users.tolist(), user[request]),
        _take(world.ids.tolist(), pin),
        pa.array(position, pa.int64()),
        _take(["impression", "click", "long_click", "save"], actions),
        pa.array(
            np.where(np.isin(actions, (1, 2)), np.round(dwell, 1), 0.0), pa.float64(), mask=~np.isin(actions, (1, 2))
        ),
        clock.times(np.minimum(clock.ago(age)[request] + (seconds * 1_000_000).astype(np.int64), clock.now)),
    ]
    return pa.Table.from_arrays(columns, schema=LOG)


def _actions(
    world: World, pin: Ints, level: Ints, position: Ints, rng: np.random.Generator
) -> tuple[Ints, Ints, Floats]:
    """Action numbers (0 impression to 3 save), the impression each belongs to, and seconds of dwell."""
    appeal = CLICK_RATE[level - 1] * world.appeal[pin] / (1.0 + 0.05 * (position - 1))
    clicked = rng.random(len(pin)) < np.minimum(appeal, 0.9)
    stays = clicked & (rng.random(len(pin)) < LONG_SHARE[level - 1])
    saved = clicked & (rng.random(len(pin)) < SAVE_SHARE[level - 1])
    short = np.minimum(rng.lognormal(1.9, 0.6, len(pin)), LONG_CLICK_SECONDS - 1.0)
    dwell = np.where(stays, LONG_CLICK_SECONDS + rng.lognormal(3.2, 0.8, len(pin)), short)
    parts = [np.arange(len(pin)), np.flatnonzero(clicked), np.flatnonzero(stays), np.flatnonzero(saved)]
    rows = np.concatenate(parts)
    actions = np.repeat(np.arange(4), [len(part) for part in parts])
    return actions, rows, dwell[rows]


def _request_columns(queries: Queries, asked: Ints, rng: np.random.Generator) -> tuple[list[str], list[str], list[str]]:
    """Country, query text and language of each request."""
    langs = [LANGUAGES[queries.intents[query].lang] for query in asked.tolist()]
    spin = rng.random(len(asked)).tolist()
    country = [COUNTRIES[lang][int(len(COUNTRIES[lang]) * u)] for lang, u in zip(langs, spin, strict=True)]
    return country, [queries.texts[query] for query in asked.tolist()], langs


def _take(values: list[str], rows: Ints) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(rows))
