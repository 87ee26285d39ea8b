"""The table ``judgments``: several annotators with their own strictness look at chosen pairs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pinfeather.generate.lexicon import Floats, Ints
from pinfeather.generate.output import TIME, Clock
from pinfeather.generate.searches import Queries
from pinfeather.generate.vocabulary import LANGUAGES
from pinfeather.generate.world import GUIDELINE, Intent, World, true_levels

ANNOTATORS = 12
NOISE = 0.42
SAMPLE = 300  # of a large pool, before languages are weighed
# How many of a query's pairs come from where.
CANDIDATES = {"on_target": 4, "same_topic": 5, "sibling": 3, "same_attribute": 2, "anything": 2}

JUDGMENTS = pa.schema(
    [("query", pa.string()), ("pin_id", pa.string()), ("level", pa.int64()), ("level_mean", pa.float64()),
     ("level_variance", pa.float64()), ("annotator", pa.string()),
     ("lang", pa.string()), ("guideline_version", pa.string()), ("event_timestamp", TIME)]
)  # fmt: skip


def judgments(world: World, queries: Queries, seed: int, clock: Clock) -> pa.Table:
    """About 250 queries x 16 pins x 1 to 3 annotators at 5,000 pins; fewer and more with the size of the catalogue."""
    rng = np.random.default_rng([seed, 8])
    chosen = _judged_queries(world, queries, rng)
    query, pin, truth = [], [], []
    pools = _Pools(world)
    for number in chosen.tolist():
        intent = queries.intents[number]
        pins = _candidates(world, pools.of(intent), intent.lang, rng)
        query.append(np.full(len(pins), number))
        pin.append(pins)
        truth.append(true_levels(world, intent, pins))
    return _annotate(world, queries, (np.concatenate(query), np.concatenate(pin), np.concatenate(truth)), rng, clock)


def _judged_queries(world: World, queries: Queries, rng: np.random.Generator) -> Ints:
    """Query numbers: mostly those that ask for attributes, over head and tail alike."""
    wanted = min(len(queries.texts), max(30, round(250 * (world.pins / 5000) ** 0.75)))
    weight = np.array([0.35 if not intent.values else 1.0 for intent in queries.intents])
    chosen = rng.choice(len(queries.texts), size=wanted, replace=False, p=weight / weight.sum())
    return np.sort(chosen).astype(np.int64)


class _Pools:
    """Pins by topic and by attribute, so that a query looks only where it has to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.by_topic = [np.flatnonzero(world.topic == topic) for topic in range(len(world.lexicon.topics))]
        self.by_value = [
            np.flatnonzero(world.attributes[:, dimension] == value)
            for value, dimension in enumerate(world.lexicon.dimension.tolist())
        ]

    def of(self, intent: Intent) -> dict[str, Ints]:
        """Where each kind of :data:`CANDIDATES` comes from."""
        group = self.world.lexicon.group
        same = self.by_topic[intent.topic]
        level = true_levels(self.world, intent, same)
        nowhere = np.empty(0, dtype=np.int64)
        siblings = [t for t in np.flatnonzero(group == group[intent.topic]).tolist() if t != intent.topic]
        attribute = np.concatenate([nowhere, *(self.by_value[asked] for asked in intent.values)])
        return {
            "on_target": same[level >= 4],
            "same_topic": same[level < 4] if intent.values else same,
            "sibling": np.concatenate([nowhere, *(self.by_topic[topic] for topic in siblings)]),
            "same_attribute": attribute[self.world.topic[attribute] != intent.topic],
            "anything": np.arange(self.world.pins),
        }


def _candidates(world: World, pools: dict[str, Ints], lang: int, rng: np.random.Generator) -> Ints:
    """Pins to judge: on target, same topic, sibling topic, same attributes elsewhere, anything."""
    picked = [_draw(world, pools[name], lang, count, rng) for name, count in CANDIDATES.items()]
    pins = np.unique(np.concatenate(picked))
    missing = sum(CANDIDATES.values()) - len(pins)
    if missing > 0:
        pins = np.unique(np.concatenate([pins, _draw(world, pools["anything"], lang, missing, rng)]))
    return rng.permutation(pins)


def _draw(world: World, pool: Ints, lang: int, count: int, rng: np.random.Generator) -> Ints:
    """Up to ``count`` of ``pool``, the language of the query eight times as likely as others."""
    if len(pool) > SAMPLE:
        pool = pool[np.unique(rng.integers(0, len(pool), SAMPLE))]
    if not len(pool):
        return pool
    weight = np.where(world.lang[pool] == lang, 8.0, 1.0)
    return rng.choice(pool, size=min(count, len(pool)), replace=False, p=weight / weight.sum())


def _annotate(
    world: World, queries: Queries, pairs: tuple[Ints, Ints, Ints], rng: np.random.Generator, clock: Clock
) -> pa.Table:
    """One row an annotator: the true level, moved by the annotator's strictness and by the moment."""
    query, pin, truth = pairs
    times = rng.choice([1, 2, 3], size=len(query), p=[0.35, 0.35, 0.30])
    row = np.repeat(np.arange(len(query)), times)
    strictness = rng.normal(0.0, 0.2, ANNOTATORS)
    # Different annotators for one pair: consecutive ones from a random start.
    turn = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    who = (rng.integers(0, ANNOTATORS, len(query))[row] + turn) % ANNOTATORS
    level = _seen(truth[row], strictness[who], rng)
    age: Floats = 3.0 + 60.0 * rng.random(len(row))
    lang = [LANGUAGES[queries.intents[number].lang] for number in query[row].tolist()]
    columns = [
        pa.array([queries.texts[number] for number in query[row].tolist()], pa.string()),
        pa.array(world.ids[pin[row]].tolist(), pa.string()),
        pa.array(level, pa.int64()),
        *(pa.nulls(len(row), pa.float64()) for _ in range(2)),  # every annotator has a row of his own
        pa.array([f"annotator-{number + 1:02d}" for number in who.tolist()], pa.string()),
        pa.array(lang, pa.string()),
        pa.array([GUIDELINE] * len(row), pa.string()),
        clock.times(clock.ago(age)),
    ]
    return pa.Table.from_arrays(columns, schema=JUDGMENTS)


def _seen(truth: Ints, strictness: Floats, rng: np.random.Generator) -> Ints:
    """Levels as annotated: noise around the truth, and one label in a hundred that is a slip."""
    noisy = np.clip(np.rint(truth + strictness + rng.normal(0.0, NOISE, len(truth))), 1, 5).astype(np.int64)
    return np.where(rng.random(len(truth)) < 0.01, rng.integers(1, 6, len(truth)), noisy)
