"""Deadlines and stages: the earliest end counts, nothing begins after it, and whoever listens hears of each stage."""

import threading
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import UsageError
from serving_client.stages import STAGES, DeadlineError, deadline, listening, seconds_left, stage

SECONDS = st.one_of(st.none(), st.integers(1, 100))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(SECONDS, st.integers(0, 60)), max_size=6))
def test_of_nested_deadlines_the_earliest_counts_and_ends_with_its_block(steps):
    clock, ends, lefts = Clock(), [], []
    with ExitStack() as blocks:
        for seconds, passes in steps:
            lefts.append((seconds_left(), clock.now))
            blocks.enter_context(deadline(seconds, clock))
            if seconds is not None:
                ends.append(clock.now + seconds)
            clock.now += passes
            assert seconds_left() == (max(min(ends) - clock.now, 0) if ends else None)
            if ends and min(ends) <= clock.now:
                with pytest.raises(DeadlineError, match="before the stage 'store'"), stage("store"):
                    raise AssertionError("a stage began too late")
            else:
                with stage("store"):
                    pass
    assert seconds_left() is None


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_deadline_is_above_zero(seconds):
    with pytest.raises(UsageError, match="above 0"), deadline(seconds):
        pass


def test_a_listener_hears_of_each_stage_also_of_one_that_failed():
    heard = []
    with listening(lambda name, seconds: heard.append((name, seconds >= 0))):
        for name in STAGES:
            with stage(name):
                pass
        with pytest.raises(ZeroDivisionError), stage("head"):
            raise ZeroDivisionError
    with stage("cache"):
        pass
    assert heard == [(name, True) for name in (*STAGES, "head")]


def test_a_deadline_is_that_of_its_thread():
    seen = []
    with deadline(5.0, Clock()):
        other = threading.Thread(target=lambda: seen.append(seconds_left()))
        other.start()
        other.join()
    assert seen == [None]
