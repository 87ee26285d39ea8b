"""The query cache: what it keeps, what it forgets, and that a query is encoded once."""

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from feature_repo.errors import UsageError
from serving_client.query_cache import QueryCache, entry_bytes

DIMENSION = 4


def vector_of(query: str, model: str = "m") -> np.ndarray:
    return np.array([len(query), sum(map(ord, query)), len(model), sum(map(ord, model))], dtype=np.float32)


class Encode:
    """An encoder at the edge of the cache that counts."""

    def __init__(self, model: str = "m"):
        self.model = model
        self.calls: list[list[str]] = []

    def __call__(self, queries: list[str]) -> np.ndarray:
        self.calls.append(queries)
        return np.stack([vector_of(query, self.model) for query in queries])


def size(query: str) -> int:
    return entry_bytes(query, vector_of(query))


def test_only_what_is_not_kept_is_encoded_and_each_query_once():
    cache, encode = QueryCache(1 << 20), Encode()
    first = cache.vectors("m", ["sofa", "lamp", "sofa"], encode)
    assert set(first) == {"sofa", "lamp"}
    assert np.array_equal(first["sofa"], vector_of("sofa"))
    second = cache.vectors("m", ["lamp", "rug"], encode)
    assert encode.calls == [["sofa", "lamp"], ["rug"]]
    assert np.array_equal(second["lamp"], vector_of("lamp"))
    assert (cache.stats.hits, cache.stats.misses, cache.stats.shared) == (1, 3, 0)
    assert cache.stats.hit_rate == 0.25
    assert cache.vectors("m", [], encode) == {}
    assert len(encode.calls) == 2


def test_a_vector_is_never_found_under_another_model():
    cache, one, other = QueryCache(1 << 20), Encode("m"), Encode("other")
    cache.vectors("m", ["sofa"], one)
    found = cache.vectors("other", ["sofa"], other)
    assert np.array_equal(found["sofa"], vector_of("sofa", "other"))
    cache.keep_only({"other"})
    assert len(cache) == 1
    assert cache.stats.bytes == size("sofa")
    cache.vectors("m", ["sofa"], one)
    assert one.calls == [["sofa"], ["sofa"]]


def test_the_least_recently_used_goes_when_the_bytes_are_full():
    cache, encode = QueryCache(size("a") * 2), Encode()
    cache.vectors("m", ["a", "b"], encode)
    cache.vectors("m", ["a"], encode)
    cache.vectors("m", ["c"], encode)  # b was used longest ago
    assert [("m", query) in cache for query in "abc"] == [True, False, True]
    assert (cache.stats.evictions, cache.stats.bytes) == (1, size("a") * 2)


def test_what_does_not_fit_is_answered_and_pushes_nothing_out():
    cache, encode = QueryCache(size("a")), Encode()
    cache.vectors("m", ["a"], encode)
    long = "z" * 5000
    assert np.array_equal(cache.vectors("m", [long], encode)[long], vector_of(long))
    assert ("m", "a") in cache
    off = QueryCache(0)
    off.vectors("m", ["a"], encode)
    assert (len(off), off.stats.bytes) == (0, 0)
    with pytest.raises(UsageError, match="-1 bytes"):
        QueryCache(-1)


def test_vectors_are_shared_read_only_and_do_not_hold_their_batch():
    cache = QueryCache(1 << 20)
    vector = cache.vectors("m", ["a", "b"], Encode())["a"]
    assert vector.base is None
    with pytest.raises(ValueError):
        vector[0] = 1


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
        answers = list(pool.map(lambda _: cache.vectors("m", ["sofa"], encode)["sofa"], range(8)))
    assert calls == [["sofa"]]
    assert all(np.array_equal(answer, vector_of("sofa")) for answer in answers)
    assert (cache.stats.hits, cache.stats.misses, cache.stats.shared) == (0, 1, 7)


def test_a_failure_reaches_everybody_who_waits_and_is_not_kept():
    cache = QueryCache(1 << 20)

    def fail(queries):
        wait_for(lambda: cache.stats.shared == 1)
        raise OSError("no model")

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(cache.vectors, "m", ["sofa"], fail) for _ in range(2)]
        for future in futures:
            with pytest.raises(OSError, match="no model"):
                future.result()
    encode = Encode()
    assert np.array_equal(cache.vectors("m", ["sofa"], encode)["sofa"], vector_of("sofa"))
    assert encode.calls == [["sofa"]]


def test_an_encoder_that_returns_too_few_rows_is_an_error_not_a_wrong_vector():
    cache = QueryCache(1 << 20)
    with pytest.raises(ValueError):
        cache.vectors("m", ["a", "b"], lambda queries: np.ones((1, DIMENSION), np.float32))
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
        found = self.cache.vectors(model, queries, encode)
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

    @rule(models=st.sets(MODELS))
    def keep_only(self, models):
        self.cache.keep_only(models)
        for key in [key for key in self.model if key[0] not in models]:
            del self.model[key]

    @invariant()
    def same(self):
        assert len(self.cache) == len(self.model)
        assert all(key in self.cache for key in self.model)
        assert self.cache.stats.bytes == sum(self.model.values()) <= CAPACITY


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestCacheMachine = CacheMachine.TestCase
