"""The client over a Qdrant server that is slow, away or wrong: the FAKE of fake_qdrant.py, which misbehaves on demand.

Nothing here waits for a clock of the world but the one test of a server that never answers, for a tenth of a second.
"""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from degraded_shop import Clock, codes
from fake_qdrant import move_store

from feature_repo.errors import PinfeatherError
from materialize.places import place_of
from materialize.run import RunOptions, materialize
from materialize.spaces import load_space, save_space
from materialize.stores import deadline as store_deadline
from materialize.stores import session as sessions
from materialize.stores.errors import StoreSlowError, StoreUnavailableError
from materialize.stores.place import Place
from materialize.stores.server_calls import Connection, Patience
from materialize.stores.server_session import ServerSession
from pinfeather.pipeline import fit_lexical
from serving_client import PinClient
from serving_client.degraded import UnavailableError
from serving_client.publications.parts import RETRY_SECONDS
from serving_client.stages import DeadlineError, deadline

pytest_plugins = ("server_fixtures",)
FOREVER = 10_000


@pytest.fixture
def shop(catalogue, encoder, fake):
    """A repository served from the fake; its store is patient for 5 seconds."""
    move_store(catalogue.paths.root, fake.url, 5)
    catalogue.put("a", "oak sofa").put("b", "green lamp").put("c", "red velvet sofa").save()
    materialize(catalogue.paths, RunOptions(encoder=encoder))
    fit_lexical(catalogue.paths)
    return catalogue.paths


@pytest.fixture
def clock(shop, monkeypatch):
    """The clock of every client that the test opens; servers are tried once a call, so that nothing sleeps."""
    from serving_client import opened as module
    from serving_client.publications.publications import Publications

    clock = Clock()
    sessions.close_all()
    monkeypatch.setattr(sessions, "_server_session", lambda place: ServerSession(place, Patience(tries=1), clock))
    monkeypatch.setattr(module, "Publications", lambda *args, **more: Publications(*args, **more, clock=clock))
    return clock


@contextmanager
def down(fake, pattern="", status=503):
    """Every request that matches fails within the block; without a status the connection is closed."""
    if status is None:
        fake.drop(pattern, times=FOREVER)
    else:
        fake.fail(pattern, status, times=FOREVER)
    try:
        yield
    finally:
        fake._faults.clear()


def vectors_of(fake):
    return next(name for name in fake.created if "minilm" in name)


@pytest.mark.parametrize(("status", "words"), [(500, "500"), (503, "503"), (None, "cannot be reached")])
def test_a_server_that_is_away_costs_errors_at_once_and_recovers(shop, encoder, fake, clock, status, words):
    with PinClient(shop.root, encoder=encoder) as client:
        before = client.score("oak sofa", ["a", "b"], scorer="zero-shot")
        with down(fake, status=status):
            clock.now += RETRY_SECONDS
            with pytest.raises(UnavailableError, match=words) as caught:
                client.score("oak sofa", ["a", "b"], scorer="zero-shot")
            assert caught.value.code == "store_gone"
            asked = len(fake.requests)
            for _ in range(5):
                with pytest.raises(UnavailableError, match=words):
                    client.score("oak sofa", ["a", "b"], scorer="zero-shot")
                with pytest.raises(UnavailableError, match=words):
                    client.pin_features(["a"])
            assert len(fake.requests) == asked
            assert codes(client.embed_queries(["oak sofa"])) == ["stale"]
            assert set(codes(client.status())) >= {"stale", "store_gone"}
        clock.now += RETRY_SECONDS
        after = client.score("oak sofa", ["a", "b"], scorer="zero-shot")
        assert after.degraded == ()
        np.testing.assert_array_equal(after.ranking, before.ranking)
        assert client.pin_features(["a"]).found.all()
        assert codes(client.status()) == ["no_student"]


def test_vectors_that_cannot_be_read_leave_the_words(shop, encoder, fake, clock):
    with PinClient(shop.root, encoder=encoder) as client:
        client.score("oak sofa", ["a"], scorer="zero-shot")
        with down(fake, f"POST /collections/{vectors_of(fake)}/points"):
            scores = client.score("velvet sofa", ["b", "a", "c"], scorer="zero-shot")
            assert (scores.scorer, scores.order(), codes(scores)) == ("bm25", [2, 1, 0], ["store_gone"])
            with pytest.raises(UnavailableError, match="503"):
                client.related_pins("a")


def test_a_space_that_was_dropped_is_not_named_as_one_that_cannot_be_read(shop, encoder, fake, clock):
    """Nobody promotes for it, so there is no newer release at which it would be forgotten."""
    name = vectors_of(fake)
    with sessions.session(place_of(shop)).writing("a test") as store:
        store.create("dropped", replace(store.collections()[name]))
    save_space(shop, replace(load_space(shop, name), name="dropped"))
    with PinClient(shop.root, encoder=encoder) as client:
        assert client.pin_embeddings(["a"], space="dropped").found.tolist() == [False]
        with sessions.session(place_of(shop)).writing("a test") as store:
            store.drop("dropped")
        (shop.spaces / "dropped.json").unlink()
        for _ in range(2):
            clock.now += RETRY_SECONDS
            with pytest.raises(PinfeatherError):
                client.pin_embeddings(["a"], space="dropped")
        status = client.status()
        assert codes(status) == ["no_student"]
        assert status.spaces == (name,)


def test_a_server_that_never_answers_ends_with_the_deadline(shop, encoder, fake):
    with PinClient(shop.root, encoder=encoder) as client:
        client.score("velvet sofa", ["b", "a", "c"], scorer="zero-shot")
        fake.hang(f"POST /collections/{vectors_of(fake)}/points", times=FOREVER)
        with deadline(0.2):
            scores = client.score("velvet sofa", ["b", "a", "c"], scorer="zero-shot")
        assert (scores.scorer, scores.order(), codes(scores)) == ("bm25", [2, 1, 0], ["store_slow"])
        with deadline(0.1), pytest.raises(UnavailableError) as caught:
            client.related_pins("a")
        assert caught.value.code == "store_slow"
        assert client.status().degraded == ("no_student: release 2 names no student bundle",)  # the callers were hasty


# --- the deadline in the adapter -----------------------------------------------------------------------------------


class Ticking:
    """A clock that moves by what is slept and by what each try takes."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patience(self) -> Patience:
        return Patience(sleep=self.sleep, clock=self, chance=lambda: 1.0)


def test_no_wait_goes_beyond_the_deadline(fake):
    ticking = Ticking()
    connection = Connection(Place(url=fake.url), ticking.patience())
    fake.fail("GET /collections$", 503, times=FOREVER)
    with store_deadline.deadline(0.7, ticking), pytest.raises(StoreUnavailableError, match="tried 3 times"):
        connection.call("Listing", lambda client: client.get_collections())
    assert ticking.slept == [0.2, 0.4]
    asked = len(fake.requests)
    with store_deadline.deadline(0.1, ticking):
        ticking.now += 0.2
        with pytest.raises(StoreSlowError, match="not begun"):
            connection.call("Listing", lambda client: client.get_collections())
    assert len(fake.requests) == asked
    connection.close()


def test_a_stage_after_the_deadline_is_not_begun(shop, encoder):
    ticking = Ticking()
    with PinClient(shop.root, encoder=encoder) as client, deadline(1.0, ticking):
        client.score("oak sofa", ["a"], scorer="zero-shot")
        ticking.now += 1.0
        with pytest.raises(DeadlineError, match="deadline"):
            client.score("oak sofa", ["a"], scorer="zero-shot")


def test_over_grpc_a_read_ends_within_whole_seconds(fake):
    connection = Connection(Place(url=fake.url))
    with store_deadline.deadline(1.2, Ticking()):
        assert connection.waits() == {}  # over HTTP it ends with the deadline itself
        connection.place = replace(connection.place, prefer_grpc=True)
        assert connection.waits() == {"timeout": 2}
    with store_deadline.deadline(0.1, Ticking()):
        assert connection.waits() == {"timeout": 1}
    assert connection.waits() == {}
    connection.close()
