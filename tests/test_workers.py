"""The threads behind an event loop: one call at a time, another one beside a slow one, and nothing left behind."""

import asyncio
import gc
import threading
import weakref

import pytest

from feature_repo.errors import PinfeatherError
from serving_client import workers as module
from serving_client.workers import BusyError, Workers


@pytest.fixture
def patient(monkeypatch):
    """No call is slow enough for another one to begin beside it."""
    monkeypatch.setattr(module, "OVERTAKE_SECONDS", 1e6)


@pytest.fixture
def hasty(monkeypatch):
    """Every call that is not done at once is slow."""
    monkeypatch.setattr(module, "OVERTAKE_SECONDS", 0.001)


class Stuck:
    """A call that ends when it is let."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.go.wait(20)
        return "stuck"


def test_calls_that_are_fast_run_one_after_the_other_in_their_order(patient):
    running, most, order = 0, 0, []

    def call(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        threading.Event().wait(0.002)
        order.append(number)
        running -= 1
        return number

    async def main():
        pool = Workers(4, 20)
        assert await asyncio.gather(*[pool.run(lambda n=n: call(n)) for n in range(20)]) == list(range(20))
        assert pool.pending == 0
        pool.close()

    asyncio.run(main())
    assert (most, order) == (1, list(range(20)))


def test_a_slow_call_holds_up_nobody_but_as_many_as_there_are_threads_do(hasty):
    async def main():
        pool, first, second = Workers(2, 5), Stuck(), Stuck()
        slow = asyncio.create_task(pool.run(first))
        assert await pool.run(lambda: "beside it") == "beside it"
        assert await pool.run(lambda: "again") == "again"
        also_slow = asyncio.create_task(pool.run(second))
        assert await asyncio.to_thread(second.begun.wait, 20)
        waiting = asyncio.create_task(pool.run(lambda: "after one of them"))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        assert pool.pending == 3
        second.go.set()
        assert await waiting == "after one of them"
        first.go.set()
        assert [await slow, await also_slow] == ["stuck", "stuck"]
        await asyncio.to_thread(pool.close)

    asyncio.run(main())


def test_a_loop_that_ended_watches_no_more(hasty):
    """The next loop looks for slow calls itself."""
    pool, stuck = Workers(2, 5), Stuck()

    async def leave():
        tasks = [asyncio.create_task(pool.run(stuck)), asyncio.create_task(pool.run(lambda: 1))]
        assert await asyncio.to_thread(stuck.begun.wait, 20)
        for task in tasks:
            task.cancel()

    async def come():
        return await pool.run(lambda: "in time")

    asyncio.run(leave())
    assert asyncio.run(come()) == "in time"
    stuck.go.set()
    pool.close()
    assert pool.pending == 0


def test_a_loop_that_stands_still_watches_no_more(patient, monkeypatch):
    stuck, pool = Stuck(), Workers(2, 4)
    still = asyncio.new_event_loop()

    async def leave_two():
        calls = [asyncio.ensure_future(pool.run(stuck))]
        assert await asyncio.to_thread(stuck.begun.wait, 20)
        calls.append(asyncio.ensure_future(pool.run(int)))
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()

    still.run_until_complete(leave_two())
    monkeypatch.setattr(module, "OVERTAKE_SECONDS", 0.001)
    assert asyncio.run(asyncio.wait_for(pool.run(lambda: "quick"), 10)) == "quick"
    stuck.go.set()
    pool.close()
    still.close()


def test_a_call_for_which_no_thread_can_be_started_is_refused_and_not_made_later(monkeypatch):
    made, pool = [], Workers(2, 4)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            asyncio.run(pool.run(lambda: made.append("refused")))
    assert pool.pending == 0
    for number in range(3):
        asyncio.run(pool.run(lambda number=number: made.append(number)))
    assert made == [0, 1, 2]
    pool.close()


def test_who_does_not_wait_any_more_is_not_worked_for(patient):
    made = []

    async def main():
        pool, stuck = Workers(1, 1), Stuck()
        running = asyncio.create_task(pool.run(stuck))
        assert await asyncio.to_thread(stuck.begun.wait, 20)
        gone = asyncio.create_task(pool.run(lambda: made.append("gone")))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await pool.run(lambda: made.append("too many"))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        after = asyncio.create_task(pool.run(lambda: made.append("after")))
        await asyncio.sleep(0)
        stuck.go.set()
        await asyncio.gather(running, after)
        pool.close()

    asyncio.run(main())
    assert made == ["after"]


def test_closing_at_once_drops_those_that_wait(patient):
    async def main():
        pool, stuck = Workers(1, 5), Stuck()
        running = asyncio.create_task(pool.run(stuck))
        assert await asyncio.to_thread(stuck.begun.wait, 20)
        waiting = asyncio.create_task(pool.run(lambda: pytest.fail("it was dropped")))
        await asyncio.sleep(0)
        pool.close(wait=False)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(PinfeatherError, match="closed"):
            await pool.run(lambda: 1)
        stuck.go.set()
        assert await running == "stuck"

    asyncio.run(main())


def test_an_error_keeps_nothing_in_memory():
    class Argument:
        pass

    def fail(argument):
        raise ValueError("no")

    async def main():
        pool, argument = Workers(1, 5), Argument()
        seen = weakref.ref(argument)
        failed = False
        try:  # pytest.raises would keep it
            await pool.run(lambda argument=argument: fail(argument))
        except ValueError:
            failed = True
        await asyncio.to_thread(pool.close)
        assert failed
        return seen

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()
