"""Arrays that a reader keeps: they answer as the stored points would, within their bytes, for any number of threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_samples import unit

from materialize.stores.columns import ColumnCache, Columns, Kind, read_columns, vector_kind
from materialize.stores.edge import EdgeStore
from materialize.stores.errors import CollectionMissingError
from materialize.stores.layout import point_ids, row_payload
from materialize.stores.points import DEFAULT_VECTOR, Point
from materialize.stores.port import CollectionSpec, VectorSpec
from materialize.stores.publication import open_reader, open_writer
from materialize.stores.reader import COLUMN_SHARE
from materialize.stores.row_cache import RowCache

WORDS = ("", "oak", "a longer text than the others", "é")


def arrays_of(keys: Sequence[str], exact: bool = True) -> dict[str, np.ndarray]:
    """What a store holds of ``keys``: a function of the key; a third of them is not there."""
    numbers = [int(key) for key in keys]
    there = np.array([number % 3 > 0 for number in numbers], dtype=np.bool_)
    vectors = np.array([[n, n / 2] for n in numbers], np.float32).reshape(-1, 2)
    if not exact:
        vectors = vectors + np.float32(1e-4)
    vectors[~there] = np.nan
    texts: list[Any] = [WORDS[n % 4].encode() if ok else None for n, ok in zip(numbers, there, strict=True)]
    lists = [[str(n)] * (n % 5) if ok else None for n, ok in zip(numbers, there, strict=True)]
    return {
        "found": there,
        "vector": vectors,
        "rate": np.array([n / 7 if ok else np.nan for n, ok in zip(numbers, there, strict=True)], np.float32),
        "text": np.fromiter(texts, dtype=object, count=len(texts)),
        "list": np.fromiter(lists, dtype=object, count=len(lists)),
    }


def assert_same(answer: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert answer.keys() == expected.keys()
    for name, array in expected.items():
        assert answer[name].dtype == array.dtype, name
        assert answer[name].shape == array.shape, name
        if array.dtype == object:
            assert answer[name].tolist() == array.tolist(), name
        else:
            assert np.array_equal(answer[name], array, equal_nan=True), name


class Loads:
    """Reads of the store, counted by key."""

    def __init__(self, exact: bool = True) -> None:
        self.exact = exact
        self.calls: list[list[str]] = []

    def __call__(self, keys: list[str]) -> dict[str, np.ndarray]:
        self.calls.append(keys)
        return arrays_of(keys, self.exact)


keys_asked = st.lists(st.integers(0, 40).map(str), max_size=12)


class ColumnMachine(RuleBasedStateMachine):
    """Two kinds of one cache against the store itself, for any order of reads and any size."""

    @initialize(size=st.sampled_from([0, 900, 4_000, 1 << 20]))
    def begin(self, size: int) -> None:
        self.told = 0
        self.cache = ColumnCache(size, self.tell)
        self.members = [self.cache.columns(), self.cache.columns()]
        self.loads = [Loads(), Loads(exact=False)]

    def tell(self, held: int) -> None:
        self.told = held

    @rule(which=st.integers(0, 1), keys=keys_asked)
    def read(self, which: int, keys: list[str]) -> None:
        columns, loads = self.members[which], self.loads[which]
        loads.calls.clear()
        known = set(columns._rows)
        answer = columns.read(keys, loads)
        assert_same(answer, arrays_of(keys, loads.exact))
        wanted = list(dict.fromkeys(key for key in keys if key not in known))
        if wanted:
            assert loads.calls == [wanted]
        elif keys:
            assert loads.calls == []
        for array in answer.values():  # the caller's own
            array[:] = 0

    @rule(which=st.integers(0, 1), keys=keys_asked, size=st.sampled_from([0, 800, 3_000, 1 << 20]))
    def fill(self, which: int, keys: list[str], size: int) -> None:
        columns, loads = self.members[which], self.loads[which]
        loads.calls.clear()
        known, former = set(columns._rows), [set(each._rows) for each in self.members]
        room = self.cache.bytes < min(size, self.cache.max_bytes)
        kept = columns.fill(keys, loads, size)
        wanted = list(dict.fromkeys(key for key in keys if key not in known))
        assert loads.calls == ([wanted] if wanted and room else [])
        assert kept == (columns._rows.keys() >= set(keys))
        if columns._arrays.get("vector", np.zeros(0, np.float16)).dtype == np.float16:  # else all may have become wider
            assert all(each._rows.keys() >= before for each, before in zip(self.members, former, strict=True))
            assert self.cache.bytes <= size or columns._rows.keys() == known
        assert all(columns._used[columns._rows[key]] == 1 for key in wanted if key in columns._rows)

    @rule(which=st.integers(0, 1), count=st.integers(0, 400))
    def expect(self, which: int, count: int) -> None:
        self.members[which].expect(count)

    @rule(which=st.integers(0, 1))
    def forget(self, which: int) -> None:
        self.members[which] = self.cache.columns()

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "cache"):
            return
        assert self.cache.bytes <= self.cache.max_bytes
        for columns in self.members:
            rows = sorted(columns._rows.values())
            assert columns.bytes == int(columns._sizes[rows].sum())
            assert sorted([*rows, *columns._free]) == list(range(len(columns._keys)))
            assert all(columns._keys[row] == key for key, row in columns._rows.items())
            assert (columns._used[rows] > 0).all()
            assert (columns._used[columns._free] == 0).all()


TestColumns = ColumnMachine.TestCase
TestColumns.settings = settings(deadline=None, max_examples=40, stateful_step_count=20)


def test_each_key_is_read_once_while_there_is_room() -> None:
    columns, loads = ColumnCache(1 << 20).columns(), Loads()
    columns.read(["1", "2", "1"], loads)
    columns.read(["2", "3", "7", "3"], loads)
    columns.read(["7", "1"], loads)
    assert loads.calls == [["1", "2"], ["3", "7"]]


def test_the_least_recently_used_rows_go_first() -> None:
    columns, loads = ColumnCache(1 << 20).columns(), Loads()
    columns.read([str(n) for n in range(10)], loads)
    columns._cache.max_bytes = columns.bytes
    columns.read(["0", "1", "2"], loads)
    columns.read(["20"], loads)
    assert {"0", "1", "2", "20"} <= columns._rows.keys()
    assert len(columns) < 11


def test_a_request_that_is_larger_than_everything_is_answered_and_kept_in_part() -> None:
    cache = ColumnCache(3_000)
    columns, keys = cache.columns(), [str(n) for n in range(200)]
    assert_same(columns.read(keys, Loads()), arrays_of(keys))
    assert 0 < cache.bytes <= 3_000


def test_vectors_take_half_the_bytes_where_that_changes_none_of_them() -> None:
    sizes = []
    for exact in (True, False):
        columns = ColumnCache(1 << 20).columns()
        columns.read(["1", "2"], Loads())
        columns.read(["4", "5"], Loads(exact))
        assert_same(
            columns.read(["1", "5"], Loads()),
            {name: np.concatenate([arrays_of(["1"])[name], arrays_of(["5"], exact)[name]]) for name in arrays_of([])},
        )
        sizes.append(columns._arrays["vector"].itemsize)
    assert sizes == [2, 4]


def test_kinds_and_collections_are_forgotten_with_their_owner() -> None:
    cache = ColumnCache(1 << 20)
    one, other = cache.columns(), cache.columns()
    one.read(["1"], Loads())
    other.read(["1", "2"], Loads())
    held = other.bytes
    assert cache.bytes == one.bytes + held
    del one  # no cycle keeps it until the collector comes by
    assert cache.bytes == held


def test_columns_that_others_pushed_out_give_their_memory_back() -> None:
    cache, keys = ColumnCache(1 << 20), [str(n) for n in range(5_000)]
    one, other = cache.columns(), cache.columns()
    for columns in (one, other):
        for start in range(0, len(keys), 250):
            columns.read(keys[start : start + 250], Loads())
            one.read(keys[-100:], Loads())
    assert len(other) > 2_000 > 4 * len(one) >= 400
    assert len(one._keys) <= 4 * len(one) + 3
    for columns in (one, other):
        kept = list(columns._rows)
        loads = Loads()
        assert_same(columns.read(kept, loads), arrays_of(kept))
        assert loads.calls == []
    assert_same(one.read(keys, Loads()), arrays_of(keys))


def test_what_was_read_ahead_goes_first_and_pushes_nothing_out() -> None:
    cache = ColumnCache(1 << 20)
    columns, loads = cache.columns(), Loads()
    columns.read(["1", "2"], loads)
    size = columns.bytes
    assert columns.fill(["2", "3", "4", "3"], loads, 1 << 20)
    assert loads.calls == [["1", "2"], ["3", "4"]]
    assert columns.fill(["4", "1"], loads, 0)  # they are there
    assert columns.keys() == ["1", "2", "3", "4"]
    columns.read(["4"], loads)
    assert columns.keys()[0] == "4"
    held = columns.bytes
    assert not columns.fill(["5"], loads, held)  # as much as may be is there: nothing is read
    assert not columns.fill(["5", "7", "8"], loads, held + size // 2)  # one of them fits
    assert held < cache.bytes <= held + size // 2
    assert columns.keys()[:4] == ["4", "1", "2", "3"]
    cache.max_bytes = cache.bytes
    columns.read(["20"], loads)
    assert columns._rows.keys() >= {"1", "2", "4", "20"}
    assert len(columns) < 6


def test_room_is_made_at_once_for_rows_that_are_expected() -> None:
    columns, loads = ColumnCache(1 << 20).columns(), Loads()
    columns.read(["1"], loads)
    columns.expect(5_000)
    made = set()
    for start in range(2, 3_000, 250):
        numbers = [str(n) for n in range(start, start + 250)]
        columns.fill(numbers, loads, 1 << 20)
        made.add(len(columns._keys))
        assert_same(columns.read(numbers, Loads()), arrays_of(numbers))
    assert made == {256, 5_000}


def test_rows_make_room_for_columns() -> None:
    rows = RowCache(10_000)
    kept = rows.rows_of(owner := Columns(ColumnCache(0)))
    kept.keep({str(n): (str(n), None, 100, True) for n in range(100)})
    assert rows.bytes == 10_000
    cache = ColumnCache(4_000, rows.leave)
    columns = cache.columns()
    columns.read([str(n) for n in range(100)], Loads())
    assert 3_000 < cache.bytes <= 4_000
    assert rows.bytes + cache.bytes <= 10_000
    assert rows.bytes > 5_000
    assert owner is not None


def test_threads_read_through_one_cache() -> None:
    cache = ColumnCache(4_000)  # some of the rows only, so that they come and go
    columns = [cache.columns(), cache.columns()]
    wrong: list[object] = []

    def read(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(150):
                keys = [str(chance.randrange(40)) for _ in range(6)]
                exact = chance.random() < 0.5
                assert_same(columns[exact].read(keys, Loads(exact)), arrays_of(keys, exact))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 0 < cache.bytes <= 4_000


# --- over a store ---

PROJECT, VIEW = "shop", "embedding"
KIND = vector_kind(PROJECT, VIEW, "pin_id", 4)


def points(pins: dict[str, int]) -> list[Point]:
    return [
        Point(point_id, row_payload(VIEW, {"pin_id": pin}, number, {}), {DEFAULT_VECTOR: unit(1, number, 3, 4)})
        for (pin, number), point_id in zip(pins.items(), point_ids(PROJECT, VIEW, "pin_id", pins), strict=True)
    ]


def assert_vectors(answer: dict[str, np.ndarray], numbers: list[int | None]) -> None:
    assert answer["event_ts"].tolist() == [
        None if n is None else np.datetime64(n, "us").astype(object) for n in numbers
    ]
    expected = [np.full(4, np.nan) if n is None else unit(1, n, 3, 4) for n in numbers]
    assert np.allclose(answer[DEFAULT_VECTOR], expected, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_readers_see_new_publications_and_keep_what_did_not_change(tmp_path: Path, cache_bytes: int) -> None:
    spec = CollectionSpec({DEFAULT_VECTOR: VectorSpec(4)})
    with open_writer(tmp_path) as writer:
        for name in ("pins", "others"):
            writer.create(name, spec)
            writer.upsert(name, points({"a": 1, "b": 2}))
        writer.publish()
        with open_reader(tmp_path, cache_bytes) as reader:
            former = reader.snapshot()
            for name in ("pins", "others"):
                assert_vectors(read_columns(reader, name, KIND, ["b", "x", "a", "b"]), [2, None, 1, 2])
            writer.upsert("pins", points({"b": 5, "x": 6}))
            writer.publish()
            assert_vectors(read_columns(writer, "pins", KIND, ["b"]), [5])  # a writer keeps nothing
            assert_vectors(read_columns(reader, "pins", KIND, ["b", "x"]), [2, None])
            reader.refresh()
            assert_vectors(read_columns(reader, "pins", KIND, ["b", "x", "a"]), [5, 6, 1])
            assert_vectors(read_columns(former, "pins", KIND, ["b", "x"]), [2, None])
            kept = reader._open("others")._columns
            assert [len(columns) for columns in kept.values()] == ([3] if cache_bytes else [])
            with pytest.raises(CollectionMissingError):
                read_columns(reader, "nothing", KIND, ["a"])


def test_a_store_that_keeps_nothing_answers_as_well(tmp_path: Path) -> None:
    class Bare:
        """A view without columns, such as a server's."""

        def get_many(self, *arguments: Any) -> list[Point | None]:
            return store.get_many(*arguments)

    store = EdgeStore(tmp_path)
    store.create("pins", CollectionSpec({DEFAULT_VECTOR: VectorSpec(4)}))
    store.upsert("pins", points({"a": 1, "b": 2}))
    assert_vectors(read_columns(Bare(), "pins", KIND, ["b", "x", "a", "b"]), [2, None, 1, 2])  # type: ignore[arg-type]
    store.close()


def test_columns_leave_whole_rows_their_share(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        writer.create("pins", CollectionSpec({DEFAULT_VECTOR: VectorSpec(4)}))
        writer.upsert("pins", points({str(n): n for n in range(300)}))
        writer.publish()
    with open_reader(tmp_path, 40_000) as reader:
        pins = [str(n) for n in range(300)]
        read_columns(reader, "pins", KIND, pins)
        process = reader.snapshot()._parts()[0]
        assert process.columns is not None
        assert process.cache is not None
        assert 20_000 < process.columns.bytes <= COLUMN_SHARE * 40_000
        reader.get_many("pins", point_ids(PROJECT, VIEW, "pin_id", pins), True, True)
        assert process.cache.bytes > 0
        assert process.cache.bytes + process.columns.bytes <= 40_000


@given(st.lists(st.integers(0, 30).map(str), max_size=20))
def test_kinds_of_any_arrays_are_read_in_the_order_asked(keys: list[str]) -> None:
    kind = Kind(
        "sample",
        lambda asked: [f"id {key}" for key in asked],
        False,
        False,
        lambda found: {"length": np.array([0 if each is None else len(each.id) for each in found], dtype=np.int64)},
    )
    read = kind.read(lambda ids, payload, vectors: [Point(each) for each in ids], keys)
    assert read["length"].tolist() == [len(key) + 3 for key in keys]
