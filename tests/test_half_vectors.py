"""Vectors kept as float16, on every adapter: those that float16 holds come back to the last bit; the spec remembers."""

from __future__ import annotations

import numpy as np
import pytest
from store_samples import pin

from embedders.encoder import as_stored
from materialize.stores.errors import SpecMismatchError
from materialize.stores.port import CollectionSpec, Point, VectorSpec, VectorStore

pytest_plugins = ("store_adapters",)

SPEC = CollectionSpec({"vector": VectorSpec(24, half=True)})
ROWS = 60


def vectors() -> np.ndarray:
    random = np.random.default_rng(0).standard_normal((ROWS, 24))
    return as_stored(random / np.linalg.norm(random, axis=1, keepdims=True))


def test_vectors_that_float16_holds_come_back_to_the_last_bit(store: VectorStore) -> None:
    given = vectors()
    store.create("pins", SPEC)
    store.upsert("pins", [Point(pin(n), {"n": n}, {"vector": row}) for n, row in enumerate(given)])
    found = store.get_many("pins", [pin(n) for n in range(ROWS)], with_vectors=True)
    assert all(np.array_equal(point.vectors["vector"], row) for point, row in zip(found, given, strict=True) if point)
    assert None not in found
    for query in given[:5]:
        exact = given @ query
        hits = store.search("pins", query, 10)
        assert [hit.payload["n"] for hit in hits] == np.argsort(-exact)[:10].tolist()
        assert np.allclose([hit.score for hit in hits], np.sort(exact)[::-1][:10], atol=1e-5)


def test_the_collection_remembers_it_and_takes_no_other(store: VectorStore) -> None:
    store.create("pins", SPEC)
    store.create("pins", SPEC)
    assert store.collections()["pins"] == SPEC
    assert store.collections()["pins"].vectors["vector"].half
    with pytest.raises(SpecMismatchError, match=r"24 dimensions, dot, float16\).*not with.*24 dimensions, dot\)"):
        store.create("pins", CollectionSpec({"vector": VectorSpec(24)}))


def test_specs_read_back_what_they_wrote_and_what_was_written_before_there_was_half() -> None:
    assert CollectionSpec.from_json(SPEC.to_json()) == SPEC
    plain = CollectionSpec({"vector": VectorSpec(24)})
    assert plain.to_json()["vectors"] == {"vector": {"size": 24, "distance": "dot"}}
    assert CollectionSpec.from_json(plain.to_json()) == plain != SPEC
