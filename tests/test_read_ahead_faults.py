"""Reading ahead when something fails, and a client that nobody closes."""

import gc
import threading
import weakref

import pytest
from client_catalogue import pins
from served import logged
from test_read_ahead import ALL, LIVE_PINS, read_all

from materialize.stores.errors import StoreError
from materialize.stores.reader import Snapshot
from serving_client import PinClient
from serving_client.publications import read_ahead
from serving_client.publications.read_ahead import ReadAhead

pytest_plugins = ("client_repo",)


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    monkeypatch.setattr(read_ahead, "CHUNK", 4)
    monkeypatch.setattr(read_ahead, "IDLE_SECONDS", 0.001)


@pytest.fixture
def failing(monkeypatch):
    """Errors that the next reads raise, one each."""
    errors = []
    real = Snapshot.read_ahead

    def read(self, *args):
        if errors:
            raise errors.pop(0)
        return real(self, *args)

    monkeypatch.setattr(Snapshot, "read_ahead", read)
    return errors


def test_what_the_store_could_not_give_is_read_at_the_next_step(client, failing):
    ahead = ReadAhead(client._publications, ALL)
    assert ahead.step()
    failing += [StoreError("not now"), StoreError("nor now")]
    for _ in range(2):
        with pytest.raises(StoreError):
            ahead.step()
    read_all(ahead)
    assert ahead.pins == len(LIVE_PINS)


def test_a_fault_is_told_and_the_others_are_read(client, failing):
    ahead = ReadAhead(client._publications, ALL)
    failing.append(ZeroDivisionError("of a row"))
    with logged() as log:
        assert ahead.step_and_rest() == read_ahead.IDLE_SECONDS
    assert "4 pins cannot be read ahead (ZeroDivisionError)" in log.getvalue()
    assert "of a row" not in log.getvalue()
    read_all(ahead)
    assert ahead.pins == len(LIVE_PINS) - 4


def test_the_thread_outlives_a_fault(built, tower, failing):
    failing += [ZeroDivisionError(), StoreError("not now")]
    with PinClient(built, encoder=tower, read_ahead_bytes=ALL) as client:
        client.pin_embeddings([])
        waiting = threading.Event()
        for _ in range(20_000):
            if client.pins_read_ahead == len(LIVE_PINS) - 4:
                break
            waiting.wait(0.001)
        assert client.pins_read_ahead == len(LIVE_PINS) - 4


def test_a_client_that_nobody_closes_is_let_go(built, tower):
    client = PinClient(built, encoder=tower, read_ahead_bytes=ALL)
    client.pin_embeddings([pins()[0]["pin_id"]])
    thread, seen = client._ahead._thread, weakref.ref(client)
    assert thread.is_alive()
    del client
    for _ in range(1000):  # a step that is under way ends first
        gc.collect()
        if seen() is None:
            break
        threading.Event().wait(0.01)
    assert seen() is None
    thread.join(20)
    assert not thread.is_alive()
