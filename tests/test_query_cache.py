"""The query cache: what it keeps, what it forgets, and that a query is encoded once."""

import gc
import threading
import time
import tracemalloc
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType, ModuleType

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from feature_repo.errors import UsageError
from feature_repo.text import query_digest
from serving_client.queries.query_cache import ENTRY_OVERHEAD, QueryCache, entry_bytes

DIMENSION = 4


def vector_of(query: str, model: str = "m") -> np.ndarray:
    return np.array([len(query), sum(map(ord, query)), len(model), sum(map(ord, model))], dtype=np.float32)


class Encode:
    """An encoder at the edge of the cache that counts."""

    def __init__(self, model: str = "m"):
        self.model = model
        self.calls: list[list[str]] = []

    @property
    def encoded(self) -> list[str]:
        """Every query that was encoded, in order."""
        return [query for call in self.calls for query in call]

    def __call__(self, queries: list[str]) -> np.ndarray:
        self.calls.append(queries)
        return np.stack([vector_of(query, self.model) for query in queries])


def loaded(encode):
    """What gives ``encode``, whose model is there."""
    return lambda: encode


def size(query: str) -> int:
    return entry_bytes(vector_of(query))


def test_only_what_is_not_kept_is_encoded_and_each_query_once():
    cache, encode = QueryCache(1 << 20), Encode()
    first = cache.vectors("m", ["sofa", "lamp", "sofa"], loaded(encode))
    assert set(first) == {"sofa", "lamp"}
    assert np.array_equal(first["sofa"], vector_of("sofa"))
    second = cache.vectors("m", ["lamp", "rug"], loaded(encode))
    assert encode.calls == [["sofa", "lamp"], ["rug"]]
    assert np.array_equal(second["lamp"], vector_of("lamp"))
    assert (cache.stats.hits, cache.stats.misses, cache.stats.shared) == (1, 3, 0)
    assert cache.stats.hit_rate == 0.25
    assert cache.vectors("m", [], loaded(encode)) == {}
    assert len(encode.calls) == 2


def test_a_vector_is_never_found_under_another_model():
    cache, one, other = QueryCache(1 << 20), Encode("m"), Encode("other")
    cache.vectors("m", ["sofa"], loaded(one))
    found = cache.vectors("other", ["sofa"], loaded(other))
    assert np.array_equal(found["sofa"], vector_of("sofa", "other"))
    cache.keep_only({"other"})
    assert len(cache) == 1
    assert cache.stats.bytes == size("sofa")
    cache.vectors("m", ["sofa"], loaded(one))
    assert one.calls == [["sofa"], ["sofa"]]


def test_the_least_recently_used_goes_when_the_bytes_are_full():
    cache, encode = QueryCache(size("a") * 2), Encode()
    cache.vectors("m", ["a", "b"], loaded(encode))
    cache.vectors("m", ["a"], loaded(encode))
    cache.vectors("m", ["c"], loaded(encode))  # b was used longest ago
    assert [("m", query) in cache for query in "abc"] == [True, False, True]
    assert (cache.stats.evictions, cache.stats.bytes) == (1, size("a") * 2)


def test_what_does_not_fit_is_answered_and_pushes_nothing_out():
    cache, encode = QueryCache(size("a")), Encode()
    cache.vectors("m", ["a"], loaded(encode))
    wide = np.ones((1, 5000), np.float32)
    assert np.array_equal(cache.vectors("wide", ["b"], loaded(lambda queries: wide))["b"], wide[0])
    assert ("m", "a") in cache
    assert ("wide", "b") not in cache
    off = QueryCache(0)
    off.vectors("m", ["a"], loaded(encode))
    assert (len(off), off.stats.bytes) == (0, 0)
    with pytest.raises(UsageError, match="-1 bytes"):
        QueryCache(-1)


def test_vectors_are_shared_read_only_and_do_not_hold_their_batch():
    cache = QueryCache(1 << 20)
    vector = cache.vectors("m", ["a", "b"], loaded(Encode()))["a"]
    assert vector.base is None
    with pytest.raises(ValueError):
        vector[0] = 1


def texts_within(thing):
    """Every text that can be reached from ``thing`` without going through modules, classes and functions."""
    found, seen, todo = set(), set(), [thing]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, (ModuleType, FunctionType, type)):
            continue
        seen.add(id(one))
        if isinstance(one, str):
            found.add(one)
        todo.extend(gc.get_referents(one))
    return found


def test_no_text_of_a_query_is_kept():
    cache = QueryCache(1 << 20)
    cache.vectors("m", ["velvet sofa"], loaded(lambda queries: np.ones((1, 4), np.float32)))
    assert len(cache) == 1
    assert "m" in texts_within(cache)
    assert [text for text in texts_within(cache) if "velvet" in text] == []


def test_the_bytes_that_are_counted_are_those_that_are_taken():
    rows = np.ones((4000, 384), np.float16)
    queries = [f"query {number}" for number in range(4000)]
    tracemalloc.start()
    try:
        cache = QueryCache(1 << 30)
        cache.vectors("m", queries, loaded(lambda batch: rows[: len(batch)]))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert cache.stats.bytes == 4000 * (768 + ENTRY_OVERHEAD)
    assert 0.8 < taken / cache.stats.bytes <= 1


def test_vectors_stay_in_the_type_in_which_they_are_made():
    cache = QueryCache(1 << 20)
    half = cache.vectors("m", ["a"], loaded(lambda queries: np.ones((1, 8), np.float16)))["a"]
    assert half.dtype == np.float16
    assert cache.stats.bytes == 16 + ENTRY_OVERHEAD


def test_an_evicted_query_is_gone_under_every_tower():
    cache, one, other = QueryCache(1 << 20), Encode("m"), Encode("other")
    cache.vectors("m", ["sofa", "lamp"], loaded(one))
    cache.vectors("other", ["sofa"], loaded(other))
    assert cache.evict(["sofa", "never asked"]) == 2
    assert cache.evict(["sofa"]) == 0
    assert [("m", "sofa") in cache, ("other", "sofa") in cache, ("m", "lamp") in cache] == [False, False, True]
    assert (cache.stats.entries, cache.stats.bytes, cache.stats.evictions) == (1, size("lamp"), 0)
    assert cache.clear() == 1
    assert cache.stats.bytes == 0


@pytest.mark.parametrize("forget", ["evict", "clear", "keep_only"])
def test_what_is_forgotten_while_it_is_encoded_is_answered_and_not_kept(forget):
    cache = QueryCache(1 << 20)
    given = {"evict": (["sofa"],), "clear": (), "keep_only": (["other"],)}[forget]

    def encode(queries):
        getattr(cache, forget)(*given)
        return np.stack([vector_of(query) for query in queries])

    assert np.array_equal(cache.vectors("m", ["sofa"], loaded(encode))["sofa"], vector_of("sofa"))
    assert len(cache) == 0


def warm(cache, queries, tower="m"):
    return cache.warm(tower, list(map(query_digest, queries)), np.stack([vector_of(query, tower) for query in queries]))


def test_warmed_vectors_fill_free_room_only_and_leave_first_the_rarest_first():
    cache, encode = QueryCache(4 * size("a")), Encode()
    cache.vectors("m", ["used", "b"], loaded(encode))
    assert warm(cache, ["a", "b", "c", "d"]) == 2  # b is there, d finds no room
    assert (cache.stats.warmed, cache.stats.evictions, cache.stats.bytes) == (2, 0, 4 * size("a"))
    left = []
    for new in ("v", "w", "x"):
        before = {query for query in ("a", "b", "c", "used") if ("m", query) in cache}
        cache.vectors("m", [new], loaded(encode))
        left += sorted(query for query in before if ("m", query) not in cache)
    assert left == ["c", "a", "used"]
    assert np.array_equal(QueryCache(0).vectors("m", ["a"], loaded(encode))["a"], vector_of("a"))


def test_what_was_warmed_while_it_was_encoded_counts_once():
    cache = QueryCache(1 << 20)

    def encode(queries):
        assert warm(cache, queries) == 1
        return np.stack([vector_of(query) for query in queries])

    cache.vectors("m", ["sofa"], loaded(encode))
    assert (cache.stats.entries, cache.stats.bytes) == (1, size("sofa"))


def test_counts_between_two_moments():
    cache, encode = QueryCache(2 * size("a")), Encode()
    cache.vectors("m", ["a", "b"], loaded(encode))
    before = cache.stats
    cache.vectors("m", ["b", "c"], loaded(encode))
    now = cache.stats.since(before)
    assert (now.hits, now.misses, now.evictions, now.batches, now.encoded) == (1, 1, 1, 1, 1)
    assert (now.hit_rate, now.entries, now.bytes, now.max_bytes) == (0.5, 2, 2 * size("a"), 2 * size("a"))
    assert before.hit_rate == 0


def wait_for(condition):
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        threading.Event().wait(0.001)


def test_eight_threads_that_ask_at_once_encode_once():
    cache = QueryCache(1 << 20)
    calls = []

    def encode(queries):
        calls.append(queries)
        wait_for(lambda: cache.stats.shared == 7)
        return np.stack([vector_of(query) for query in queries])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: cache.vectors("m", ["sofa"], loaded(encode))["sofa"], range(8)))
    assert calls == [["sofa"]]
    assert all(np.array_equal(answer, vector_of("sofa")) for answer in answers)
    assert (cache.stats.hits, cache.stats.misses, cache.stats.shared) == (0, 1, 7)


def test_a_failure_reaches_everybody_who_waits_and_is_not_kept():
    cache = QueryCache(1 << 20)

    def fail(queries):
        wait_for(lambda: cache.stats.shared == 1)
        raise OSError("no model")

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(cache.vectors, "m", ["sofa"], loaded(fail)) for _ in range(2)]
        for future in futures:
            with pytest.raises(OSError, match="no model"):
                future.result()
    encode = Encode()
    assert np.array_equal(cache.vectors("m", ["sofa"], loaded(encode))["sofa"], vector_of("sofa"))
    assert encode.calls == [["sofa"]]


def test_an_encoder_that_returns_another_number_of_rows_is_an_error_not_a_wrong_vector():
    cache = QueryCache(1 << 20)
    with pytest.raises(ValueError, match="3 vectors for 1 texts"):  # nor alone
        cache.vectors("m", ["a", "b"], loaded(lambda queries: np.ones((3, DIMENSION), np.float32)))
    assert len(cache) == 0


QUERIES = st.lists(st.sampled_from(["a", "bb", "ccc", "d" * 50, "é" * 30, "長い"]), max_size=5)
MODELS = st.sampled_from(["m", "other"])
CAPACITY = 3 * size("d" * 50)


class CacheMachine(RuleBasedStateMachine):
    """The cache against an ordered dict with the same rules, written down plainly."""

    def __init__(self):
        super().__init__()
        self.cache = QueryCache(CAPACITY)
        self.model: OrderedDict[tuple[str, str], int] = OrderedDict()

    @rule(model=MODELS, queries=QUERIES)
    def ask(self, model, queries):
        encode = Encode(model)
        found = self.cache.vectors(model, queries, loaded(encode))
        distinct = list(dict.fromkeys(queries))
        expected = [query for query in distinct if (model, query) not in self.model]
        assert encode.calls == ([expected] if expected else [])
        assert set(found) == set(queries)
        for query, vector in found.items():
            assert np.array_equal(vector, vector_of(query, model))
        for query in distinct:
            if (model, query) in self.model:
                self.model.move_to_end((model, query))
        for query in expected:
            self.model[(model, query)] = size(query)
            while sum(self.model.values()) > CAPACITY:
                self.model.popitem(last=False)

    @rule(model=MODELS, queries=QUERIES)
    def warm(self, model, queries):
        queries = list(dict.fromkeys(queries))
        room = (CAPACITY - sum(self.model.values())) // size("a")
        new = [query for query in queries if (model, query) not in self.model]
        if queries:
            assert warm(self.cache, queries, model) <= min(len(new), room)
        for query in queries:
            if (CAPACITY - sum(self.model.values())) < size("a"):
                break
            if (model, query) not in self.model:
                self.model[(model, query)] = size(query)
                self.model.move_to_end((model, query), last=False)

    @rule(queries=QUERIES)
    def evict(self, queries):
        gone = [key for key in self.model if key[1] in queries]
        assert self.cache.evict(queries) == len(gone)
        for key in gone:
            del self.model[key]

    @rule(models=st.sets(MODELS))
    def keep_only(self, models):
        self.cache.keep_only(models)
        for key in [key for key in self.model if key[0] not in models]:
            del self.model[key]

    @invariant()
    def same(self):
        assert len(self.cache) == len(self.model)
        assert all(key in self.cache for key in self.model)
        assert [digest for _, digest in self.cache._entries] == [query_digest(query) for _, query in self.model]
        assert self.cache.stats.bytes == sum(self.model.values()) <= CAPACITY


CacheMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestCacheMachine = CacheMachine.TestCase
