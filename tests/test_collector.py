"""The garbage collector while a service serves: what lives is set aside, garbage goes, all is undone afterwards."""

import gc
import weakref

from serving_client.collector import THRESHOLDS, settle, settled


class Node:
    """Something that may be in a cycle."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_set_aside_and_everything_is_undone_afterwards():
    gc.unfreeze()
    before = gc.get_threshold()
    kept = [Node() for _ in range(100)]
    with settled():
        assert gc.get_freeze_count() > 100
        assert not any(each is kept for each in gc.get_objects())
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


def test_garbage_of_before_goes_when_it_is_set_aside_anew():
    with settled():
        old = Node()
        gone = weakref.ref(old)
        settle()
        del old
        gc.collect()
        assert gone() is not None  # set aside: not looked at
        settle()
        assert gone() is None


def test_new_cycles_are_still_collected():
    with settled():
        gone = weakref.ref(Node())
        gc.collect()
        assert gone() is None
