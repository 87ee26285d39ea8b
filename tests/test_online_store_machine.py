"""Writes, drops, partial applies, changed entities and teardown of views that share entities: no other view changes.

Hypothesis drives the store and a dictionary; after every step both hold the same rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast_shop import NOON, Shop, entity_key, pinned, proto
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from materialize.stores import session as sessions
from materialize.stores.errors import NoPublicationError

pytest_plugins = ["feast_places"]

ONE, TWO = ("pin_id",), ("query", "pin_id")
PLAIN = ("alpha", "beta", "gamma")
VIEWS = (*PLAIN, "docs")
PINS, QUERIES = ("p1", "p2", "p3"), ("q1", "q2")
names = st.sampled_from(VIEWS)
some = st.lists(names, unique=True, max_size=4)


class Views(RuleBasedStateMachine):
    """``alpha`` and ``beta`` are of pins, ``gamma`` of pairs, ``docs`` has a vector; plain views may change sides."""

    options: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.shop = Shop(Path(self.folder.name), **self.options)
        self.keys: dict[str, Sequence[str]] = {"alpha": ONE, "beta": ONE, "gamma": TWO, "docs": ONE}
        self.rows: dict[str, dict[tuple[str, ...], tuple[int, int]]] = {name: {} for name in VIEWS}

    def view(self, name: str) -> Any:
        from feast.types import Int64

        schema = pinned() if name == "docs" else {"n": Int64}
        return self.shop.view(name, schema, keys=self.keys[name])

    def update(self, keep: Sequence[str], delete: Sequence[str], partial: bool) -> None:
        kept, gone = [self.view(name) for name in keep], [self.view(name) for name in delete]
        self.shop.store.update(self.shop.config, gone, kept, [], [], partial)

    @initialize(known=some)
    def start(self, known: list[str]) -> None:
        self.update(known, [], True)

    @rule(keep=some, partial=st.booleans())
    def apply(self, keep: list[str], partial: bool) -> None:
        self.update(keep, [], partial)

    @rule(
        views=st.lists(names, unique=True, min_size=1),
        pins=st.lists(st.sampled_from(PINS), min_size=1, max_size=4),
        query=st.sampled_from(QUERIES),
        hours=st.integers(0, 4),
        number=st.integers(0, 99),
    )
    def write(self, views: list[str], pins: list[str], query: str, hours: int, number: int) -> None:
        for name in views:
            entities = [({"query": query} if self.keys[name] == TWO else {}) | {"pin_id": pin} for pin in pins]
            batch = list(zip(entities, range(number, number + len(pins)), strict=True))
            data = [(entity_key(**entity), self.values(name, value)) for entity, value in batch]
            self.shop.write(self.view(name), *data, at=NOON + timedelta(hours=hours))
            for key, value in {tuple(entity.values()): value for entity, value in batch}.items():
                if key not in self.rows[name] or self.rows[name][key][0] <= hours:
                    self.rows[name][key] = (hours, value)

    @staticmethod
    def values(name: str, value: int) -> dict[str, Any]:
        if name == "docs":
            return {"vector": proto([1.0, float(value)]), "title": proto(f"t{value}")}
        return {"n": proto(value)}

    @rule(delete=some, keep=some)
    def drop(self, delete: list[str], keep: list[str]) -> None:
        self.update([name for name in keep if name not in delete], delete, False)
        for name in delete:
            self.rows[name] = {}

    @rule(gone=some)
    def teardown_views(self, gone: list[str]) -> None:
        self.shop.store.teardown(self.shop.config, [self.view(name) for name in gone], [])
        for name in gone:
            self.rows[name] = {}

    @rule(name=st.sampled_from(PLAIN), others=some)
    def change_entities(self, name: str, others: list[str]) -> None:
        self.keys[name] = TWO if self.keys[name] == ONE else ONE
        self.update([*others, *([] if name in others else [name])], [], True)
        self.rows[name] = {}

    @precondition(lambda self: any(self.rows.values()))
    @rule(pin=st.sampled_from(PINS))
    def search(self, pin: str) -> None:
        found = self.shop.store.retrieve_online_documents_v2(
            self.shop.config, self.view("docs"), ["title"], [1.0, 0.0], 99, query_string=None
        )
        assert {key.entity_values[0].string_val: features["title"].string_val for _, key, features in found} == {
            key[0]: f"t{value}" for key, (_, value) in self.rows["docs"].items()
        }

    @invariant()
    def same_rows(self) -> None:
        for name in VIEWS:
            pairs = (
                [(query, pin) for query in QUERIES for pin in PINS]
                if self.keys[name] == TWO
                else [(pin,) for pin in PINS]
            )
            keys = [entity_key(**dict(zip(self.keys[name], pair, strict=True))) for pair in pairs]
            try:
                read = self.shop.store.online_read(self.shop.config, self.view(name), keys)
            except NoPublicationError:
                assert not any(self.rows.values())
                return
            for pair, (when, features) in zip(pairs, read, strict=True):
                at, value = self.rows[name].get(pair, (None, None))
                assert when == (None if at is None else NOON + timedelta(hours=at))
                got = features and (features["title"].string_val if name == "docs" else features["n"].int64_val)
                assert got == (None if value is None else f"t{value}" if name == "docs" else value), (name, pair)

    def teardown(self) -> None:
        counts = self.shop.collections() if any(self.rows.values()) else {}
        assert sum(counts.values()) == sum(map(len, self.rows.values()))  # nothing is left that no view reads
        sessions.close_all()
        self.folder.cleanup()


MEMORY, EDGE = {"path": ":memory:"}, {"path": "data/online", "publish_interval": 3600}


@pytest.mark.parametrize(
    ("options", "examples", "steps"),
    [
        pytest.param(MEMORY, 8, 12, id="memory"),
        pytest.param(EDGE, 3, 8, id="edge"),
        pytest.param(MEMORY, 40, 20, id="memory-large", marks=pytest.mark.slow),
        pytest.param(EDGE, 15, 15, id="edge-large", marks=pytest.mark.slow),
    ],
)
def test_no_other_view_changes(options: dict[str, Any], examples: int, steps: int) -> None:
    machine = type("Machine", (Views,), {"options": options})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
