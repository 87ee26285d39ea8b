"""Decoded rows that a reader keeps: they answer as the engine would, within their bytes, for any number of threads."""

from __future__ import annotations

import gc
import json
import marshal
import random
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import fill, pin, unit

from materialize.stores import reader
from materialize.stores.edge import EdgeStore
from materialize.stores.edge_collection import EdgeCollection
from materialize.stores.errors import BadInputError
from materialize.stores.port import CollectionSpec, Point, SparseVector, VectorSpec
from materialize.stores.publication import open_reader, open_writer
from materialize.stores.row_cache import ABSENT, RowCache, cached_row

SPEC = CollectionSpec({"vector": VectorSpec(4), "other": VectorSpec(2)}, ("text",), ("key", "f"))
ROWS = 12
NOTHING = marshal.dumps({})


def make(folder: Path, name: str = "rows", number: int = 0) -> None:
    """Points of all kinds: both vectors, one, none; nested, empty and tall payloads."""
    store = EdgeStore(folder)
    store.create(name, SPEC)
    payloads = [
        {},
        {"view": "v", "key": {"k": 1}, "f": {"title": "Oak", "n": 3, "tags": ["a", {"x": 1}], "none": None}},
        {"f": {}, "n": [1, [2]], "key": {"é": 0.1}},
    ]
    words = SparseVector(np.array([1], np.uint32), np.ones(1, np.float32))
    vectors = [{"vector": unit(1, 2, 3, 4), "other": unit(1, 1)}, {"vector": unit(0, 1, 0, 0)}, {}]
    store.upsert(
        name,
        [
            Point(pin(n), {**payloads[n % 3], "id": n + number}, vectors[n // 3 % 3], {"text": words})
            for n in range(ROWS)
        ],
    )
    store.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    make(path)
    return path / "rows"


@pytest.fixture(scope="module")
def collection(folder: Path) -> Iterator[EdgeCollection]:
    """A collection whose cache a test may replace; the engine lets one object have it open."""
    opened = EdgeCollection(folder)
    yield opened
    opened.close()


def cached(collection: EdgeCollection, max_bytes: int = 1 << 20) -> RowCache:
    cache = RowCache(max_bytes)
    collection._rows = cache.rows_of(collection)
    return cache


def uncached(collection: EdgeCollection) -> None:
    collection._rows = None


ids = st.lists(st.integers(0, ROWS + 2).map(pin) | st.just(pin(1).upper()), max_size=8)
fields = st.booleans() | st.lists(
    st.sampled_from(
        ["f", "f.title", "f.tags", "f.tags[].x", "f.none", "key", "n", "n[]", "id", "nothing", "f.no", "view"]
    ),
    max_size=3,
)
requests = st.lists(st.tuples(ids, fields, st.booleans()), min_size=1, max_size=6)


@settings(deadline=None)
@given(requests, st.sampled_from([0, 2000, 1 << 20]))
def test_cached_reads_are_what_the_engine_gives(
    collection: EdgeCollection, asked: list[tuple[list[str], object, bool]], max_bytes: int
) -> None:
    uncached(collection)
    expected = [[as_text(point) for point in collection.get_many(*request)] for request in asked]  # type: ignore[arg-type]
    cache = cached(collection, max_bytes)
    for request, answer in zip(asked, expected, strict=True):
        points = collection.get_many(*request)  # type: ignore[arg-type]
        assert [as_text(point) for point in points] == answer
        assert cache.bytes <= max_bytes
    again = [[as_text(point) for point in collection.get_many(*request)] for request in asked]  # type: ignore[arg-type]
    assert again == expected


def as_text(point: Point | None) -> str | None:
    if point is None:
        return None
    vectors = {name: (vector.dtype.name, vector.tolist()) for name, vector in sorted(point.vectors.items())}
    return json.dumps([point.id, point.payload, vectors], sort_keys=True)


def test_rows_are_kept_whole_whatever_was_asked_for(collection: EdgeCollection) -> None:
    cache = cached(collection)
    collection.get_many([pin(1), pin(99)], ["id"], False)
    held = cache.bytes
    assert len(cache) == 2  # that there is no pin 99 is worth knowing too
    first = collection.get_many([pin(1), pin(99)], True, False)
    again = collection.get_many([pin(1), pin(99)], True, False)
    assert first == again
    assert cache.bytes == held
    collection.get_many([pin(1)], False, True)
    assert len(cache) == 2
    assert cache.bytes > held  # with its vectors now
    (point,) = collection.get_many([pin(1)], False, True)
    assert point is not None
    assert not any(vector.flags.writeable for vector in point.vectors.values())


def test_the_least_recently_used_rows_go_first() -> None:
    cache = RowCache(1000)
    rows = cache.rows_of(owner := Owner())
    row = ("x", NOTHING, 300, False)
    for point_id in ("a", "b", "c"):
        rows.keep({point_id: row})
    assert rows.find(["a"], False) == {"a": row}
    rows.keep({"d": row})
    assert list(rows.find(["a", "b", "c", "d"], False)) == ["a", "c", "d"]
    rows.keep({"c": ("x", NOTHING, 500, False)})
    assert cache.bytes == 800
    assert list(rows.find(["a", "c", "d"], False)) == ["c", "d"]
    rows.keep({"e": ("x", NOTHING, 1001, False)})
    assert (len(cache), cache.bytes) == (0, 0)
    assert owner is not None


class Owner:
    """Stands for a collection."""


def test_rows_without_vectors_do_not_answer_for_vectors() -> None:
    rows = RowCache(1000).rows_of(owner := Owner())
    rows.keep({"a": ("a", NOTHING, 1, False), "b": ("b", NOTHING, 1, True)})
    assert list(rows.find(["a", "b"], True)) == ["b"]
    assert list(rows.find(["a", "b"], False)) == ["a", "b"]
    assert owner is not None


def test_collections_share_the_bytes_and_not_the_rows() -> None:
    cache = RowCache(1000)
    first, second = Owner(), Owner()
    one, other = cache.rows_of(first), cache.rows_of(second)
    one.keep({"a": ("of one", NOTHING, 100, False)})
    other.keep({"a": ("of the other", NOTHING, 100, False)})
    assert one.find(["a"], False)["a"][0] == "of one"
    del first
    gc.collect()
    assert other.find(["a"], False)["a"][0] == "of the other"
    assert (len(cache), cache.bytes) == (1, 100)  # what nobody can ask for any more is gone
    assert one.find(["a"], False) == {}


@pytest.mark.parametrize(("features", "numbers"), [(10, 384), (10, 0), (1, 4), (1, 0), (0, 0)])
def test_the_estimate_is_about_what_rows_take(collection: EdgeCollection, features: int, numbers: int) -> None:
    cache = RowCache(1 << 30)
    rows = cache.rows_of(collection)
    tracemalloc.start()
    for n in range(2000):
        payload = {"event_ts": 1 << 50, "f": {f"feature {k}": f"{n} {k}" for k in range(features)}}
        vectors = {"vector": np.full(numbers, n, np.float32)} if numbers else {}
        rows.keep({pin(n): cached_row(pin(n), payload, vectors, True) if features else ABSENT})
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(cache) == 2000
    assert 0.7 < cache.bytes / taken < 1.3


def test_the_garbage_collector_does_not_look_at_kept_rows(collection: EdgeCollection) -> None:
    uncached(collection)
    cache = cached(collection, 1 << 30)
    gc.collect()
    before = len(gc.get_objects())
    collection.get_many([pin(n) for n in range(ROWS)], True, True)
    gc.collect()
    assert len(cache) == ROWS
    assert len(gc.get_objects()) - before < ROWS / 2


def test_threads_read_through_one_cache(collection: EdgeCollection) -> None:
    uncached(collection)
    expected = {pin(n): as_text(collection.get_many([pin(n)], True, True)[0]) for n in range(ROWS + 3)}
    cache = cached(collection, 6000)  # some of the rows only, so that they come and go
    wrong: list[object] = []

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(200):
            wanted = [pin(chance.randrange(ROWS + 3)) for _ in range(5)]
            for point_id, point in zip(wanted, collection.get_many(wanted, True, True), strict=True):
                if as_text(point) != expected[point_id]:
                    wrong.append((point_id, point))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 0 < cache.bytes <= 6000
    assert cache.bytes == sum(row[2] for row in cache._rows.values())


def test_bad_paths_and_ids_are_refused_with_a_cache_too(collection: EdgeCollection) -> None:
    cached(collection)
    collection.get_many([pin(1)], True, True)
    with pytest.raises(BadInputError, match="no payload path"):
        collection.get_many([pin(1)], ["f..x"], False)
    with pytest.raises(BadInputError, match="is a UUID as text, not 'pin-1'"):
        collection.get_many([pin(1), "pin-1"], True, False)


def test_readers_see_new_publications_and_keep_what_did_not_change(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        fill(writer)
        writer.create("rows", CollectionSpec())
        writer.upsert("rows", [Point(pin(1), {"n": 1})])
        writer.publish()
        with open_reader(tmp_path, cache_bytes=1 << 20) as reader:
            former = reader.get_many("pins", [pin(1)], with_vectors=True)
            assert reader.get_many("rows", [pin(1), pin(2)]) == [Point(pin(1), {"n": 1}), None]
            writer.upsert("rows", [Point(pin(1), {"n": 2}), Point(pin(2), {"n": 3})])
            assert writer.get_many("rows", [pin(1)]) == [Point(pin(1), {"n": 2})]  # a writer keeps nothing
            writer.publish()
            assert reader.get_many("rows", [pin(1)]) == [Point(pin(1), {"n": 1})]
            reader.refresh()
            assert reader.get_many("rows", [pin(1), pin(2)]) == [Point(pin(1), {"n": 2}), Point(pin(2), {"n": 3})]
            kept = reader.get_many("pins", [pin(1)], with_vectors=True)
            assert former[0] is not None
            assert kept[0] is not None
            assert kept[0].vectors["vector"] is former[0].vectors["vector"]


@pytest.mark.parametrize(("cache_bytes", "most"), [(0, None), (1, 1), (1 << 20, 1 << 20)])
def test_payloads_are_read_ahead_as_far_as_rows_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_bytes: int, most: int | None
) -> None:
    asked: list[tuple[str, int]] = []

    def noting(path: Path, most: int) -> int:
        asked.append((path.parent.name, most))
        return 1

    monkeypatch.setattr(reader, "read_ahead", noting)
    with open_writer(tmp_path) as writer:
        fill(writer)
        writer.publish()
    with open_reader(tmp_path, cache_bytes=cache_bytes) as opened:
        opened.get_many("pins", [pin(1)])
        opened.get_many("pins", [pin(2)])
    assert asked == ([] if most is None else [("payload_storage", most)])
