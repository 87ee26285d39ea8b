"""Queries of several threads share a call of the model, and what goes wrong with one of them is its own affair."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_query_cache import Encode, loaded, vector_of, wait_for

from feature_repo.text import query_digest
from serving_client.queries.micro_batch import MAX_BATCH, Job
from serving_client.queries.query_cache import QueryCache
from serving_client.stages import DeadlineError, deadline, listening, seconds_left

LIMIT = 20
"""Seconds after which a thread that hangs fails its test."""


class Gate(Encode):
    """An encoder whose first call waits to be let on."""

    def __init__(self):
        super().__init__()
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, queries):
        rows = super().__call__(queries)
        if not self.entered.is_set():
            self.entered.set()
            assert self.open.wait(LIMIT)
        return rows


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def cache():
    return QueryCache(1 << 20)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as made:
        yield made


def ask(cache, queries, load, seconds=None):
    with deadline(seconds):
        return cache.vectors("m", queries, load)


def test_what_arrives_while_a_call_runs_is_encoded_in_the_next_one(cache, gate, pool):
    first = pool.submit(ask, cache, ["q0"], loaded(gate))
    assert gate.entered.wait(LIMIT)
    others = [pool.submit(ask, cache, [f"q{number}"], loaded(gate)) for number in range(1, 8)]
    wait_for(lambda: cache.stats.misses == 8)
    gate.open.set()
    for number, future in enumerate([first, *others]):
        assert np.array_equal(future.result(LIMIT)[f"q{number}"], vector_of(f"q{number}"))
    assert [len(call) for call in gate.calls] == [1, 7]
    assert sorted(gate.encoded) == sorted(f"q{number}" for number in range(8))
    assert (cache.stats.batches, cache.stats.encoded, cache.stats.entries) == (2, 8, 8)


def test_overlapping_requests_encode_no_query_twice(cache, gate, pool):
    first = pool.submit(ask, cache, ["a", "b"], loaded(gate))
    assert gate.entered.wait(LIMIT)
    others = [pool.submit(ask, cache, each, loaded(gate)) for each in (["b", "c"], ["c", "d"], ["d", "a"])]
    wait_for(lambda: cache.stats.misses + cache.stats.shared == 8)
    gate.open.set()
    assert [sorted(future.result(LIMIT)) for future in [first, *others]] == [
        ["a", "b"],
        ["b", "c"],
        ["c", "d"],
        ["a", "d"],
    ]
    assert gate.calls == [["a", "b"], ["c", "d"]]
    assert (cache.stats.misses, cache.stats.shared) == (4, 4)


def test_a_lone_query_is_encoded_at_once_by_its_asker(cache):
    threads = []

    def encode(queries):
        threads.append(threading.current_thread())
        return np.stack([vector_of(query) for query in queries])

    ask(cache, ["sofa"], loaded(encode))
    ask(cache, ["lamp"], loaded(encode))
    assert threads == [threading.current_thread()] * 2


def test_batches_are_bounded_and_a_newcomer_is_in_the_next_one(cache, gate, pool):
    many = [f"many {number}" for number in range(3 * MAX_BATCH)]
    bulk = pool.submit(ask, cache, many, loaded(gate))
    assert gate.entered.wait(LIMIT)
    one = pool.submit(ask, cache, ["sofa"], loaded(gate))
    wait_for(lambda: cache.stats.misses == len(many) + 1)
    gate.open.set()
    assert set(one.result(LIMIT)) == {"sofa"}
    assert set(bulk.result(LIMIT)) == set(many)
    assert [len(call) for call in gate.calls] == [MAX_BATCH, MAX_BATCH, MAX_BATCH, 1]
    assert "sofa" in gate.calls[1]
    assert sorted(gate.encoded) == sorted([*many, "sofa"])


class Poisoned(Gate):
    """Cannot encode anything together with the query "poison"."""

    def __call__(self, queries):
        rows = super().__call__(queries)
        if "poison" in queries:
            raise OSError("poisoned")
        return rows


def test_one_poisonous_query_fails_for_its_asker_alone(cache, pool):
    gate = Poisoned()
    first = pool.submit(ask, cache, ["first"], loaded(gate))
    assert gate.entered.wait(LIMIT)
    others = {name: pool.submit(ask, cache, [name], loaded(gate)) for name in ("a", "poison", "b")}
    both = pool.submit(ask, cache, ["a", "poison"], loaded(gate))
    wait_for(lambda: cache.stats.misses + cache.stats.shared == 6)
    gate.open.set()
    assert np.array_equal(first.result(LIMIT)["first"], vector_of("first"))
    for name in ("a", "b"):
        assert np.array_equal(others[name].result(LIMIT)[name], vector_of(name))
    for bad in (others["poison"], both):
        with pytest.raises(OSError, match="poisoned"):
            bad.result(LIMIT)
    assert [sorted(call) for call in gate.calls[:2]] == [["first"], ["a", "b", "poison"]]
    assert sorted(gate.calls[2:]) == [["a"], ["b"], ["poison"]]
    assert [("m", name) in cache for name in ("a", "b", "poison")] == [True, True, False]


def test_a_model_that_cannot_be_loaded_is_tried_once_for_all_who_wait(cache, pool):
    entered, go, loads = threading.Event(), threading.Event(), []

    def load():
        loads.append(1)
        entered.set()
        assert go.wait(LIMIT)
        raise OSError("no model")

    first = pool.submit(ask, cache, ["a"], load)
    assert entered.wait(LIMIT)
    others = [pool.submit(ask, cache, [name], load) for name in ("b", "c", "d")]
    wait_for(lambda: cache.stats.misses == 4)
    go.set()
    for future in [first, *others]:
        with pytest.raises(OSError, match="no model"):
            future.result(LIMIT)
    assert (len(loads), cache.stats.batches, len(cache)) == (2, 0, 0)
    encode = Encode()
    assert set(ask(cache, ["a", "b"], loaded(encode))) == {"a", "b"}


def test_who_gives_up_waiting_leaves_the_others_alone(cache, gate, pool):
    first = pool.submit(ask, cache, ["first"], loaded(gate))
    assert gate.entered.wait(LIMIT)
    hasty = pool.submit(ask, cache, ["shared", "alone", "first"], loaded(gate), 0.05)
    wait_for(lambda: cache.stats.misses == 3)
    patient = pool.submit(ask, cache, ["shared"], loaded(gate), LIMIT)
    wait_for(lambda: cache.stats.shared == 2)
    with pytest.raises(DeadlineError, match="deadline passed"):
        hasty.result(LIMIT)
    gate.open.set()
    assert set(first.result(LIMIT)) == {"first"}
    assert set(patient.result(LIMIT)) == {"shared"}
    assert gate.calls == [["first"], ["shared"]]  # nobody waited for "alone" any more
    assert set(ask(cache, ["alone"], loaded(gate))) == {"alone"}


def test_the_deadline_of_the_one_who_encodes_is_not_that_of_the_others(cache, pool):
    entered = threading.Event()

    def encode(queries):
        if not entered.is_set():
            entered.set()
            wait_for(lambda: cache.stats.misses == 2 and seconds_left() == 0)
        return np.stack([vector_of(query) for query in queries])

    hasty = pool.submit(ask, cache, ["a"], loaded(encode), 0.05)
    assert entered.wait(LIMIT)
    patient = pool.submit(ask, cache, ["b"], loaded(encode), LIMIT)
    assert set(patient.result(LIMIT)) == {"b"}
    assert set(hasty.result(LIMIT)) == {"a"}  # it is there; the next stage says that it is late


def test_a_deadline_that_is_over_leaves_nothing_behind(cache):
    encode = Encode()

    def slow_first_stage(name, seconds):
        if name == "cache":
            wait_for(lambda: seconds_left() == 0)

    with listening(slow_first_stage), pytest.raises(DeadlineError, match="'embed'"):
        ask(cache, ["a"], loaded(encode), 0.01)
    assert encode.calls == []
    assert set(ask(cache, ["a"], loaded(encode))) == {"a"}
    assert encode.calls == [["a"]]


def test_another_thread_takes_over_from_one_that_is_interrupted(cache, pool):
    gate = Gate()
    interrupted = threading.Event()

    def encode(queries):
        rows = gate(queries)
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        return rows

    first = pool.submit(ask, cache, ["a"], loaded(encode))
    assert gate.entered.wait(LIMIT)
    second = pool.submit(ask, cache, ["a", "b"], loaded(encode))
    wait_for(lambda: cache.stats.shared == 1)
    gate.open.set()
    with pytest.raises(KeyboardInterrupt):
        first.result(LIMIT)
    assert set(second.result(LIMIT)) == {"a", "b"}
    assert gate.calls == [["a"], ["a", "b"]]


def test_what_an_interrupted_thread_had_for_one_who_left_is_begun_anew(cache, pool):
    lane, left = cache._lane("m"), Job(query_digest("b"), "b")
    lane.add([left])

    def encode(queries):
        assert queries == ["b", "a"]
        with cache._lock:
            lane.leave([left])  # as one does whose deadline passes while it runs
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(cache, ["a"], loaded(encode))
    assert lane.jobs == {}
    for query in ("c", "b"):
        assert set(pool.submit(ask, cache, [query], loaded(Encode()), LIMIT / 4).result(LIMIT)) == {query}


def test_stages_tell_a_hit_from_a_miss(cache):
    heard = []
    with listening(lambda name, seconds: heard.append(name)):
        ask(cache, ["a"], loaded(Encode()))
        ask(cache, ["a"], loaded(Encode()))
    assert heard == ["cache", "embed", "cache"]


def test_many_threads_and_few_queries_end_with_one_call_each_at_most(cache, pool):
    encode = Encode()
    queries = [f"q{number}" for number in range(20)]
    orders = [list(np.random.default_rng(seed).permutation(queries)) for seed in range(64)]
    answers = list(pool.map(lambda order: [ask(cache, [query], loaded(encode))[query] for query in order], orders))
    for order, answer in zip(orders, answers, strict=True):
        assert all(np.array_equal(row, vector_of(query)) for query, row in zip(order, answer, strict=True))
    assert sorted(encode.encoded) == sorted(queries)
    stats = cache.stats
    assert (stats.misses, stats.encoded, stats.batches) == (20, 20, len(encode.calls))
    assert stats.hits + stats.shared + stats.misses == 64 * 20
