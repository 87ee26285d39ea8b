"""What the server adapter does when things go wrong, against a FAKE that misbehaves (tests/fake_qdrant.py).

Waits are taken from a clock of the tests' own, so nothing sleeps; one test waits for the client's real timeout.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import grpc
import pytest
from fake_qdrant import FakeQdrant, Waits
from store_samples import PINS, ROWS, fill, pin, unit

from materialize.stores.errors import (
    BadInputError,
    CollectionMissingError,
    StoreAccessError,
    StoreError,
    StoreSlowError,
    StoreUnavailableError,
)
from materialize.stores.place import Place
from materialize.stores.port import Point, VectorStore
from materialize.stores.server import ServerStore
from materialize.stores.server_calls import Connection, Patience

UPSERT = "PUT .*/points"
pytest_plugins = ("server_fixtures",)


@pytest.fixture
def store(fake: FakeQdrant, waits: Waits) -> Iterator[VectorStore]:
    opened = ServerStore.open(Place(url=fake.url), waits.patience())
    yield opened
    opened.close()


# --- failures that pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_failures_that_pass_are_tried_again(fake: FakeQdrant, store: VectorStore, waits: Waits, status: int) -> None:
    fill(store)
    fake.fail("POST .*/count", status, times=3)
    assert store.count("pins") == 10
    assert fake.count("POST .*/count") == 4
    assert waits == [0.2, 0.4, 0.8]


def test_half_of_each_wait_is_left_to_chance() -> None:
    assert [Patience(chance=lambda: 0.0).pause(n) for n in (1, 2, 3, 10)] == [0.1, 0.2, 0.4, 2.5]
    assert len({Patience().pause(3) for _ in range(20)}) > 10


def test_a_server_may_say_how_long_to_wait(fake: FakeQdrant, store: VectorStore, waits: Waits) -> None:
    fill(store)
    fake.fail("POST .*/count", 429, headers={"Retry-After": "7"})
    fake.fail("POST .*/count", 429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    assert store.count("pins") == 10
    assert waits == [7, 0.4]


def test_a_wait_beyond_the_patience_is_not_begun(fake: FakeQdrant, store: VectorStore, waits: Waits) -> None:
    fill(store)
    fake.fail("POST .*/count", 429, headers={"Retry-After": "3600"})
    with pytest.raises(StoreUnavailableError, match=r"too busy \(429\) and asks to wait 3600 s \(tried 1 times"):
        store.count("pins")
    assert waits == []


def test_the_last_failure_names_url_tries_and_what_to_do(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store)
    fake.fail("POST .*/query", 503, words="Consensus is away", times=99)
    with pytest.raises(StoreUnavailableError) as caught:
        store.search("pins", [1, 0, 0, 0], 1)
    assert str(caught.value) == (
        f"Searching pins failed: Qdrant at {fake.url} answers 503 (Consensus is away) (tried 5 times in 3.0 s). Check "
        "that the server runs and that url leads to it; if it is only busy, try again later or raise timeout, now "
        "30 s. Repeating the call is safe."
    )
    assert fake.count("POST .*/query") == 5
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_dropped_connections_and_lost_answers(fake: FakeQdrant, store: VectorStore, waits: Waits) -> None:
    fake.lose("PUT /collections/pins$")
    fake.lose(UPSERT)
    fill(store)
    fake.drop("POST .*/count", times=2)
    assert store.count("pins") == 10
    assert store.collections() == {"pins": PINS}
    assert (fake.count("PUT /collections/pins$"), fake.count(UPSERT)) == (2, 2)
    assert len(waits) == 4
    fake.lose("DELETE /collections/pins$")
    store.drop("pins")
    assert store.collections() == {}


def test_a_hanging_server_is_left_after_the_timeout(fake: FakeQdrant, waits: Waits) -> None:
    store = ServerStore.open(Place(url=fake.url, timeout=1), waits.patience(tries=2))
    fill(store)
    fake.hang("POST .*/count", times=2)
    with pytest.raises(StoreUnavailableError, match=r"Counting in pins .* did not answer in time \(tried 2 times"):
        store.count("pins")
    assert store.count("pins") == 10
    assert fake.count("POST .*/count") == 3
    store.close()


def test_nobody_listens(waits: Waits) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError, match=f"Qdrant at {url} cannot be reached .* 5 times"):
            ServerStore.open(Place(url=url), waits.patience())
    assert waits == [0.2, 0.4, 0.8, 1.6]


# --- half-done writes ----------------------------------------------------------------------------------------------


def test_a_half_applied_batch_is_written_again(fake: FakeQdrant, store: VectorStore) -> None:
    fake.halve(UPSERT)
    fill(store, 100)
    assert store.count("pins") == 100
    fake.halve(".*/points/batch")
    store.upsert("pins", [Point(pin(n), {"n": n + n % 2}) for n in range(100)], unless_newer="n")
    assert sum(p.payload["n"] for p in store.scroll("pins")[0]) == sum(range(100)) + 50


def test_a_write_that_fails_half_way_raises_and_may_be_repeated(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store, 0)
    points = [Point(pin(n), {"n": n}, {"vector": unit(1, n, 0, 0)}) for n in range(1200)]
    fake.halve(UPSERT, times=5, after=1)
    with pytest.raises(StoreUnavailableError, match=r"half of it was done.*Repeating the call is safe"):
        store.upsert("pins", points)
    assert store.count("pins") == 750
    store.upsert("pins", points)
    assert store.count("pins") == 1200
    assert [p and p.payload["n"] for p in store.get_many("pins", [p.id for p in points])] == list(range(1200))


def test_a_batch_that_is_too_large_is_parted(waits: Waits) -> None:
    fake = FakeQdrant(largest=4000)
    store = ServerStore.open(Place(url=fake.url), waits.patience())
    fill(store, 100)
    assert store.count("pins") == 100
    assert fake.count(UPSERT) > 4
    before = fake.count(UPSERT)
    with pytest.raises(BadInputError, match="Payload Too Large"):
        store.upsert("pins", [Point(pin(1), {"text": "x" * 5000})])
    assert fake.count(UPSERT) == before + 1
    assert waits == []
    store.close()
    fake.close()


# --- failures that stay --------------------------------------------------------------------------------------------


def test_the_servers_own_words_on_a_refused_request(fake: FakeQdrant, store: VectorStore, waits: Waits) -> None:
    fill(store)
    fake.fail(UPSERT, 400, words="Wrong input: Vector dimension error: expected dim: 4, got 5")
    with pytest.raises(BadInputError, match=r"Writing to pins .* refuses the request: Wrong input: Vector dimension"):
        store.upsert("pins", [Point(pin(1))])
    assert waits == []


def test_a_collection_that_went_away_or_came_back_otherwise(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store)
    other = ServerStore.open(Place(url=fake.url))
    other.drop("pins")
    other.create("texts", ROWS)
    with pytest.raises(CollectionMissingError, match="There is no collection 'pins'; there are: texts"):
        store.count("pins")
    other.create("pins", ROWS)
    store.upsert("pins", [Point(pin(1), {"n": 1})])
    with pytest.raises(BadInputError, match="the collection has: none"):
        store.upsert("pins", [Point(pin(1), {}, {"vector": unit(1, 0, 0, 0)})])
    other.close()


def test_odd_statuses_are_store_errors(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store)
    fake.fail("POST .*/count", 418, words=b"<h1>I am a\n teapot</h1>")
    with pytest.raises(StoreError, match=r"Counting in pins failed: Qdrant at .* answers 418 \(I am a teapot\)"):
        store.count("pins")
    fake.fail("POST .*/count", 200, words=b'{"result": 7}')
    with pytest.raises(StoreError, match="does not answer as a Qdrant server does: the answer lacks the fields"):
        store.count("pins")


@pytest.mark.parametrize("version", ["1.15.5", "v0.11.0", "1.9.0-dev"])
def test_old_servers_are_named_with_both_versions(version: str) -> None:
    fake = FakeQdrant(version=version)
    with pytest.raises(StoreError, match=rf"at {fake.url} has version {version}; 1\.16 or newer is needed"):
        ServerStore.open(Place(url=fake.url))
    assert fake.requests == ["GET /"]
    fake.close()


@pytest.mark.parametrize("version", ["1.16.0", "v1.17.2", "2.0.1-rc.1"])
def test_newer_servers_are_taken(version: str, recwarn: pytest.WarningsRecorder) -> None:
    fake = FakeQdrant(version=version)
    store = ServerStore.open(Place(url=fake.url))
    fill(store)
    store.close()
    fake.close()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html><body>Welcome to nginx!</body></html>", "the answer is no JSON"),
        (200, b'{"name": "node-1", "tagline": "You Know, for Search"}', "the answer lacks the fields of Qdrant's"),
        (200, b'{"title": "weaviate", "version": "1.30"}', "it calls itself 'weaviate' '1.30'"),
        (200, b'{"title": "qdrant", "version": "new"}', "it calls itself 'qdrant' 'new'"),
        (404, b"<html>nothing <b>here</b></html>", r"404 \(nothing here\)"),
    ],
)
def test_something_else_than_qdrant(fake: FakeQdrant, status: int, body: bytes, words: str) -> None:
    fake.fail("GET /", status, body)
    with pytest.raises(StoreError, match=f"at {fake.url} does not answer as a Qdrant server does: {words}.*REST port"):
        ServerStore.open(Place(url=fake.url))


# --- processes, gRPC ------------------------------------------------------------------------------------------------


def test_a_store_of_before_a_fork(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store)
    before = len(fake.requests)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.count("pins")
            os.write(write, b"counted")
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 10_000).decode()
    assert said == f"StoreError: This store at {fake.url} was opened before a fork; open it in the new process."
    assert len(fake.requests) == before
    assert store.count("pins") == 10


class GrpcFailure(grpc.RpcError, grpc.Call):
    """What the gRPC half of the client raises, made by hand: no gRPC server runs here."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "Not found: Collection `pins` doesn't exist!" if self._code.name == "NOT_FOUND" else "said so"

    def _nothing(self, *_: object) -> None:
        raise NotImplementedError

    initial_metadata = trailing_metadata = is_active = time_remaining = cancel = add_callback = _nothing


GrpcFailure.__abstractmethods__ = frozenset()


@pytest.mark.parametrize(
    ("code", "kind", "tries"),
    [
        ("UNAVAILABLE", StoreUnavailableError, 5),
        ("DEADLINE_EXCEEDED", StoreSlowError, 5),
        ("RESOURCE_EXHAUSTED", StoreUnavailableError, 5),
        ("INTERNAL", StoreUnavailableError, 5),
        ("UNAUTHENTICATED", StoreAccessError, 1),
        ("PERMISSION_DENIED", StoreAccessError, 1),
        ("NOT_FOUND", CollectionMissingError, 1),
        ("INVALID_ARGUMENT", BadInputError, 1),
        ("DATA_LOSS", StoreError, 1),
    ],
)
def test_failures_of_grpc(fake: FakeQdrant, waits: Waits, code: str, kind: type[StoreError], tries: int) -> None:
    connection = Connection(Place(url=fake.url), waits.patience())
    calls = []

    def fail(client: object) -> None:
        calls.append(client)
        raise GrpcFailure(grpc.StatusCode[code])

    with pytest.raises(kind) as caught:
        connection.call("Counting in pins", fail)
    assert type(caught.value) is kind
    assert len(calls) == tries
    connection.close()
