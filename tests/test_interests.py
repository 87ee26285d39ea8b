"""Interests behind recent pins: clusters, medoids, importance, turns; and the diversifier that lists go through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from serving_client.lists.clusters import medoid, ward_clusters
from serving_client.lists.diversity import DUPLICATE, Diversifier, Pool
from serving_client.lists.interests import SmoothTurns, interests, newest_first

few = settings(max_examples=60, deadline=None)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def around(centre: int, count: int, seed: int, noise: float = 0.3) -> np.ndarray:
    """Unit vectors around one axis of 32."""
    rows = np.random.default_rng(seed).normal(size=(count, 32)) * noise / np.sqrt(32)
    rows[:, centre] += 1
    return unit(rows)


@few
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10_000), st.floats(0.01, 12))
def test_the_clusters_are_those_of_scipy(rows, spread, seed, cut):
    vectors = np.random.default_rng(seed).normal(size=(rows, 5)) * spread / 3
    labels = fcluster(linkage(vectors, "ward"), np.sqrt(cut), "distance")  # scipy's distance is the root of ours
    theirs = sorted(np.flatnonzero(labels == label).tolist() for label in set(labels))
    assert [cluster.tolist() for cluster in ward_clusters(vectors, cut)] == theirs


def test_equal_vectors_are_one_cluster_and_single_ones_are_alone():
    vectors = np.eye(4)[[0, 1, 0, 2, 0]]
    assert [rows.tolist() for rows in ward_clusters(vectors, 0.0)] == [[0, 2, 4], [1], [3]]
    assert ward_clusters(np.zeros((0, 3)), 1.0) == []
    assert [rows.tolist() for rows in ward_clusters(np.ones((1, 3)), 1.0)] == [[0]]


def test_the_medoid_is_the_pin_in_the_middle():
    line = np.array([[0.0], [1.0], [2.0], [3.0], [40.0]])
    assert medoid(line[:4]) == 1  # of equals the first
    assert medoid(line) == 3  # the mean is 9.2
    assert medoid(np.ones((3, 2))) == 0


def test_interests_by_place_are_led_by_the_most_recent():
    recent = np.concatenate([around(0, 3, 1), around(1, 3, 2), around(2, 6, 3)])
    found = interests(recent)
    assert [cluster.rows for cluster in found] == [tuple(range(6, 12)), (0, 1, 2), (3, 4, 5)]
    assert all(cluster.medoid in cluster.rows for cluster in found)
    weights = np.exp(-0.05 * np.arange(12))
    assert [cluster.share for cluster in found] == pytest.approx(
        [weights[6:].sum() / weights.sum(), weights[:3].sum() / weights.sum(), weights[3:6].sum() / weights.sum()]
    )


def test_interests_by_time_decay_by_the_day():
    recent = np.concatenate([around(0, 2, 1), around(1, 3, 2)])
    now = np.datetime64("2026-11-22T00:00:00", "us")
    days = np.array([0, 10, 300, 310, 320])
    old = interests(recent, now - days * np.timedelta64(1, "D"))
    weights = np.exp(-0.01 * days)
    assert [(cluster.rows, cluster.share) for cluster in old] == [
        ((0, 1), pytest.approx(weights[:2].sum() / weights.sum())),
        ((2, 3, 4), pytest.approx(weights[2:].sum() / weights.sum())),
    ]
    same = interests(recent, np.full(5, now))
    assert [cluster.share for cluster in same] == pytest.approx([0.6, 0.4])
    assert newest_first(3, np.array([5, 9, 9], dtype="datetime64[us]")).tolist() == [1, 2, 0]
    assert newest_first(3, None).tolist() == [0, 1, 2]
    assert interests(recent[:0]) == []
    far = interests(recent, np.array(["9999-12-31", *["2026-11-22"] * 4], dtype="datetime64[us]"))
    assert all(cluster.share > 0 for cluster in far)  # or it would never get a turn


@few
@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=6), st.integers(1, 200))
def test_turns_keep_to_the_shares_at_every_moment(weights, count):
    turns = SmoothTurns(np.array(weights))
    given_out = np.zeros(len(weights))
    for done in range(1, count + 1):
        given_out[turns.next()] += 1
        assert (np.abs(given_out - done * np.array(weights) / sum(weights)) < len(weights)).all()
    for turn in range(len(weights)):
        turns.leave(turn)
    assert turns.next() is None


@few
@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(0, 1))
def test_a_list_has_no_two_alike_and_leaves_no_room_empty(seed, rows, diversity):
    random = np.random.default_rng(seed)
    vectors = unit(random.normal(size=(rows, 3)))  # in three dimensions near-duplicates are common
    texts = [random.choice([None, "a", "b", "c"]) for _ in range(rows)]
    diversifier = Diversifier(Pool([str(row) for row in range(rows)], vectors, texts), diversity)
    shunned = unit(random.normal(size=(2, 3)))
    diversifier.fold(shunned, ["a", None])
    relevance = vectors @ unit([[1, 0, 0]])[0]
    taken = []
    while (row := diversifier.take(relevance)) is not None:
        taken.append(row)
    alike = vectors[taken] @ vectors[taken].T - 2 * np.eye(len(taken))
    assert (alike <= DUPLICATE + 1e-6).all()
    named = [texts[row] for row in taken if texts[row]]
    assert len(named) == len(set(named))
    assert "a" not in named
    assert (vectors[taken] @ shunned.T <= DUPLICATE + 1e-6).all()
    for row in set(range(rows)) - set(taken):  # each has a reason to be left out
        against = np.concatenate([shunned, vectors[taken]])
        assert (against @ vectors[row]).max() > DUPLICATE - 1e-6 or texts[row] in {"a", *named}


def test_what_is_left_out_is_compared_with_all_however_much_it_is():
    axes = np.eye(3, dtype=np.float32)
    shunned = np.concatenate([np.tile(axes[1], (3_000, 1)), axes[:1]])  # the last of them is like the first pin
    diversifier = Diversifier(Pool(list("abc"), axes, [None] * 3), 0.0)
    diversifier.fold(shunned, [None] * len(shunned))
    assert diversifier.open.tolist() == [False, False, True]


def test_the_greatest_marginal_relevance_is_taken_next():
    vectors = unit([[1, 0, 0], [0.9, 0.3, 0], [0, 0, 1], [0.5, 0, 0.5]])
    relevance = np.array([1.0, 0.95, 0.4, 0.7])
    pool = Pool(list("abcd"), vectors, [None] * 4)

    def order(diversity):
        diversifier = Diversifier(pool, diversity)
        return [diversifier.take(relevance) for _ in range(5)]

    assert order(0.0) == [0, 1, 3, 2, None]
    nearest, expected = [], []
    for _ in range(4):  # the formula, word by word
        marginal = [
            -np.inf if row in expected else 0.5 * relevance[row] - 0.5 * max([vectors[row] @ v for v in nearest] or [0])
            for row in range(4)
        ]
        expected.append(int(np.argmax(marginal)))
        nearest.append(vectors[expected[-1]])
    assert order(0.5) == [*expected, None] != order(0.0)
    only = np.array([False, True, False, True])
    diversifier = Diversifier(pool, 0.0)
    assert [diversifier.take(relevance, only) for _ in range(3)] == [1, 3, None]
    assert diversifier.open.tolist() == [True, False, True, False]
