"""The table ``pin_topics``: what a classifier of the platform would say a pin is about."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pinfeather.generate.lexicon import Ints
from pinfeather.generate.output import TIME, Clock
from pinfeather.generate.world import World

PIN_TOPICS = pa.schema(
    [("pin_id", pa.string()), ("topic", pa.string()), ("weight", pa.float64()), ("event_timestamp", TIME)]
)
UNKNOWN = 0.04
"""Share of pins that the classifier has nothing to say of."""


def topics_chunk(world: World, start: int, stop: int, seed: int, clock: Clock) -> pa.Table:
    """Topics of pins ``start`` to ``stop``: the true one with most of the weight, for one in three a sibling as well.

    The weights of a pin sum to 1. No row is older than its pin.
    """
    rng = np.random.default_rng([seed, 11, start])
    pins = np.arange(start, stop)[rng.random(stop - start) >= UNKNOWN]
    sure = np.round(rng.uniform(0.6, 0.95, len(pins)), 2)
    sibling = _siblings(world, pins, rng)
    shared = (sibling >= 0) & (rng.random(len(pins)) < 1 / 3)
    seen = clock.ago(world.age[pins] * rng.uniform(0.9, 0.999, len(pins)))
    rows = np.concatenate([np.arange(len(pins)), np.flatnonzero(shared)])
    topics = np.concatenate([world.topic[pins], sibling[shared]])
    weights = np.concatenate([np.where(shared, sure, 1.0), np.round(1 - sure[shared], 2)])
    order = np.argsort(rows, kind="stable")
    names = np.array([topic.key for topic in world.lexicon.topics])
    arrays = [
        pa.array(world.ids[pins[rows[order]]], pa.string()),
        pa.array(names[topics[order]], pa.string()),
        pa.array(weights[order], pa.float64()),
        clock.times(seen[rows[order]]),
    ]
    return pa.Table.from_arrays(arrays, schema=PIN_TOPICS)


def _siblings(world: World, pins: Ints, rng: np.random.Generator) -> Ints:
    """Another topic of the same group for each pin, -1 where the group has no other."""
    group = world.lexicon.group
    members = [
        np.flatnonzero((group == group[topic]) & (np.arange(len(group)) != topic)) for topic in range(len(group))
    ]
    picks = rng.random(len(pins))
    found = [
        others[int(pick * len(others))] if len(others := members[topic]) else -1
        for topic, pick in zip(world.topic[pins], picks, strict=True)
    ]
    return np.array(found, dtype=np.int64)
