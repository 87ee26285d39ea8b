"""Any mix of writes and deletes leaves every adapter with what a dict would hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from conftest import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from store_samples import pin

from materialize.stores.edge import EdgeStore
from materialize.stores.place import Place
from materialize.stores.port import CollectionSpec, Match, Point, Range, SparseVector, VectorSpec, VectorStore
from materialize.stores.server import ServerStore

SPEC = CollectionSpec({"vector": VectorSpec(2)}, sparse=("text",), packed=("key",), indexes={"colour": "keyword"})
IDS = st.integers(0, 6)
ROWS = st.lists(st.tuples(IDS, st.integers(-3, 3), st.sampled_from(["red", "blue", None]), st.booleans()), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab.é", max_size=2), inner, max_size=2),
    max_leaves=4,
)


def point(row: tuple[int, int, str | None, bool], key: Any) -> Point:
    number, t, colour, whole = row
    payload = {"t": t, "key": {"of": number, "more": key}, **({"colour": colour} if colour else {})}
    if not whole:
        return Point(pin(number), payload)
    words = SparseVector(np.array([number], np.uint32), np.array([1 + t % 2], np.float32))
    return Point(pin(number), payload, {"vector": np.float32([number, t])}, {"text": words})


class Stores(RuleBasedStateMachine):
    """Every store gets every change; ``model`` is what they are to hold, by id."""

    stores: dict[str, VectorStore]

    @initialize()
    def empty(self) -> None:
        self.model: dict[str, Point] = {}
        for store in self.stores.values():
            store.drop("rows")
            store.create("rows", SPEC)

    @rule(rows=ROWS, key=JSON)
    def upsert(self, rows: list, key: Any) -> None:
        points = [point(row, key) for row in rows]
        for store in self.stores.values():
            store.upsert("rows", points)
        self.model |= {p.id: p for p in points}

    @rule(rows=ROWS, key=JSON)
    def upsert_unless_newer(self, rows: list, key: Any) -> None:
        points = [point(row, key) for row in rows]
        for store in self.stores.values():
            store.upsert("rows", points, unless_newer="t")
        for p in points:
            if p.id not in self.model or self.model[p.id].payload["t"] <= p.payload["t"]:
                self.model[p.id] = p

    @rule(numbers=st.lists(IDS, max_size=3))
    def delete(self, numbers: list[int]) -> None:
        for store in self.stores.values():
            store.delete("rows", ids=[pin(n) for n in numbers])
        for n in numbers:
            self.model.pop(pin(n), None)

    @rule(colour=st.sampled_from(["red", "blue"]))
    def delete_by_colour(self, colour: str) -> None:
        for store in self.stores.values():
            store.delete("rows", filter=Match("colour", colour))
        self.model = {i: p for i, p in self.model.items() if p.payload.get("colour") != colour}

    @rule(limit=st.integers(1, 4))
    def pages(self, limit: int) -> None:
        for name, store in self.stores.items():
            seen: list[str] = []
            after = None
            while not seen or after is not None:
                page, after = store.scroll("rows", limit=limit, after=after, with_payload=False)
                seen += [p.id for p in page]
                if not page:
                    break
            assert seen == sorted(self.model), name

    @invariant()
    def same(self) -> None:
        ids = [pin(n) for n in range(7)]
        with_vectors = {i for i, p in self.model.items() if p.vectors}
        for name, store in self.stores.items():
            assert store.count("rows") == len(self.model), name
            late = sum(p.payload["t"] > 0 for p in self.model.values())
            assert store.count("rows", Range("t", gt=0)) == late, name
            for found, expected in zip(
                store.get_many("rows", ids, with_vectors=True), map(self.model.get, ids), strict=True
            ):
                assert (found and found.payload) == (expected and expected.payload), name
                assert vectors(found) == vectors(expected), name
            hits = store.search("rows", [1, 0], 10)
            assert {h.id for h in hits} == with_vectors, name
            assert [h.score for h in hits] == sorted((float(ids.index(i)) for i in with_vectors), reverse=True), name
            words = SparseVector(np.arange(7, dtype=np.uint32), np.ones(7, np.float32))
            near = store.search("rows", words, 10, using="text", with_payload=False)
            assert {h.id for h in near} == with_vectors, name


def vectors(found: Point | None) -> dict[str, list[float]]:
    return {} if found is None else {name: values.tolist() for name, values in found.vectors.items()}


@examples(8, 60)
def test_stores_hold_what_a_dict_would(tmp_path: Path, examples: int) -> None:
    stores = {"edge": EdgeStore(tmp_path / "edge"), "memory": ServerStore.open(Place(path=":memory:"))}
    machine = type("Stores", (Stores,), {"stores": stores})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=10, deadline=None))
    for store in stores.values():
        store.close()
