"""Sessions on a server or in memory: one client, releases as one point. Over a FAKE server and the local mode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from fake_qdrant import FakeQdrant
from store_samples import PINS, ROWS, fill, pin

from materialize.stores.errors import StoreBusyError, StoreError
from materialize.stores.place import Place
from materialize.stores.port import Point, VectorStore
from materialize.stores.server_session import ServerSession

pytest_plugins = ("server_fixtures",)


class Clock:
    """Seconds that pass when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "server-fake", "server"])
def place(request: pytest.FixtureRequest) -> Place:
    match request.param:
        case "memory":
            return Place(path=":memory:", namespace="my shop")
        case "server":
            return request.getfixturevalue("qdrant_server")(namespace="my shop")
    return Place(url=request.getfixturevalue("fake").url, namespace="my shop")


@pytest.fixture
def session(place: Place) -> Iterator[ServerSession]:
    opened = ServerSession(place)
    yield opened
    opened.close()


def test_what_is_written_is_read_at_once(session: ServerSession) -> None:
    with session.writing("a test") as writer:
        fill(writer)
        with session.reading() as reader:
            assert isinstance(reader, VectorStore)
            assert reader.count("pins") == 10
            reader.close()
            for change in (
                lambda: reader.create("rows", ROWS),
                lambda: reader.drop("pins"),
                lambda: reader.upsert("pins", []),
                lambda: reader.delete("pins", ids=[pin(1)]),
            ):
                with pytest.raises(StoreError, match=r"write in its writing\(\) block"):
                    change()
        assert writer.count("pins") == 10
    session.publish()


def test_releases_are_numbered_when_they_change(session: ServerSession) -> None:
    with session.reading() as reader:
        assert (reader.release, reader.number, session.number()) == (None, 0, 0)
    with session.writing("a test") as writer:
        assert writer.publish() == 0
        assert writer.publish({"names": {"v": "space-1"}, "share": 0.1 + 0.2}) == 1
        assert writer.publish({"share": 0.1 + 0.2, "names": {"v": "space-1"}}) == 1
        assert writer.publish() == 1
        assert (writer.release, writer.number) == ({"names": {"v": "space-1"}, "share": 0.1 + 0.2}, 1)
        assert writer.publish({}) == 2
        assert writer.publish({"names": {"v": "space-1"}, "share": 0.1 + 0.2}) == 3
        assert writer.collections() == {}
    assert session.number() == 3
    with session.reading() as reader:
        assert (reader.release, reader.number) == ({"names": {"v": "space-1"}, "share": 0.1 + 0.2}, 3)
    with session.writing("a test") as writer, pytest.raises(StoreError, match="made of JSON values"):
        writer.publish({"x": object()})


def test_a_block_sees_one_release(session: ServerSession) -> None:
    with session.writing("a test") as writer:
        writer.publish({"a": 1})
        with session.reading() as reader:
            assert reader.number == 1
            writer.publish({"a": 2})
            assert (reader.number, reader.release) == (1, {"a": 1})
        with session.reading() as reader:
            assert (reader.number, reader.release) == (2, {"a": 2})


def test_the_release_collection_is_no_collection_of_rows(session: ServerSession) -> None:
    with session.writing("a test") as writer:
        writer.publish({"a": 1})
        writer.create("rows", ROWS)
        assert writer.collections() == {"rows": ROWS}
        with pytest.raises(StoreError, match=r"no collection 'pins'; there are: rows\.$"):
            writer.count("pins")


def test_releases_of_two_projects_on_one_server(fake: FakeQdrant) -> None:
    numbers = {}
    for namespace in ("", "shop", "other"):
        session = ServerSession(Place(url=fake.url, namespace=namespace))
        with session.writing("a test") as writer:
            assert writer.release is None
            for n in range(3):
                writer.publish({"of": namespace, "n": n})
            numbers[namespace] = (writer.number, writer.release)
        session.close()
    assert numbers == {name: (3, {"of": name, "n": 2}) for name in ("", "shop", "other")}


def test_other_processes_releases_are_seen_within_a_second(fake: FakeQdrant, clock: Clock) -> None:
    place = Place(url=fake.url)
    ours, theirs = ServerSession(place, clock=clock), ServerSession(place)
    with theirs.writing("theirs") as writer:
        writer.publish({"n": 1})
        assert ours.number() == 1
        writer.publish({"n": 2})
        looked = fake.count("POST .*/points$")
        assert [ours.number() for _ in range(50)] == [1] * 50
        with ours.reading() as reader:
            assert (reader.number, reader.release) == (1, {"n": 1})
        assert fake.count("POST .*/points$") == looked
        clock.now += 1.0
        assert ours.number() == 2
        assert fake.count("POST .*/points$") == looked + 1
        writer.publish({"n": 3})
        with ours.writing("ours") as own:
            assert (own.number, own.release) == (3, {"n": 3})
    ours.close()
    theirs.close()


def test_a_reading_block_that_wants_no_release_asks_for_none(fake: FakeQdrant, clock: Clock) -> None:
    session = ServerSession(Place(url=fake.url), clock=clock)
    with session.writing("a test") as writer:
        writer.create("rows", ROWS)
        writer.upsert("rows", [Point(pin(1), {"n": 1})])
    fake.requests.clear()
    clock.now += 10
    with session.reading() as reader:
        assert reader.get_many("rows", [pin(1)]) == [Point(pin(1), {"n": 1})]
    assert fake.requests == ["POST /collections/rows/points"]
    session.close()


def test_publishers_at_one_time_lose_no_number(fake: FakeQdrant) -> None:
    """The second has read the release before the first writes it; its write does not count and is made again."""
    first, second = ServerSession(Place(url=fake.url)), ServerSession(Place(url=fake.url))
    with first.writing("one") as one, second.writing("two") as two:
        one.publish({"by": "one"})
        interfere(second, lambda: one.publish({"by": "one", "again": True}))
        assert two.publish({"by": "two"}) == 3
        assert first.put_release(None) == (3, {"by": "two"})
        with pytest.raises(StoreBusyError, match="replaced by others 20 times"):
            interfere(second, lambda: one.publish({"n": len(fake.requests)}), times=99)
            two.publish({"by": "two", "never": True})
    first.close()
    second.close()


def interfere(session: ServerSession, change: Callable[[], object], times: int = 1) -> None:
    """Let ``change`` happen right before each of the next writes of a release."""
    write, left = session._write, [times]

    def late(*arguments: object) -> None:
        if left[0]:
            left[0] -= 1
            change()
        write(*arguments)  # type: ignore[arg-type]

    session._write = late  # type: ignore[method-assign]


def test_one_client_a_session_closed_and_opened_again(fake: FakeQdrant) -> None:
    session = ServerSession(Place(url=fake.url))
    assert fake.requests == []
    for _ in range(3):
        with session.writing("a test") as writer:
            fill(writer)
    assert fake.count("GET /$") == 1
    session.close()
    session.close()
    with pytest.raises(StoreError, match="was closed"):
        writer.count("pins")
    with session.reading() as reader:
        assert reader.collections() == {"pins": PINS}
    assert fake.count("GET /$") == 2
    session.close()


def test_memory_is_kept_while_the_session_is() -> None:
    session = ServerSession(Place(path=":memory:"))
    with session.writing("a test") as writer:
        fill(writer)
        writer.publish({"a": 1})
    session.close()
    with session.reading() as reader:
        assert (reader.count("pins"), reader.number) == (10, 1)
    with ServerSession(Place(path=":memory:")).reading() as reader:
        assert (reader.collections(), reader.number) == ({}, 0)


def in_a_child(work: Callable[[], object]) -> str:
    """What ``work`` gives, or raises, in a forked process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, repr(work()).encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 10_000).decode()
    os.close(read)
    os.close(write)
    return said


def test_a_session_opens_its_own_client_in_a_forked_process(fake: FakeQdrant) -> None:
    session = ServerSession(Place(url=fake.url))
    with session.writing("a test") as writer:
        fill(writer)

    def child() -> int:
        with session.reading() as reader:
            return reader.count("pins")

    assert in_a_child(child) == "10"
    assert in_a_child(lambda: writer.count("pins")).startswith("StoreError: This store at http")
    assert fake.count("GET /$") == 2
    assert writer.count("pins") == 10
    session.close()


def test_memory_is_not_in_a_forked_process() -> None:
    session = ServerSession(Place(path=":memory:"))
    with session.writing("a test") as writer:
        fill(writer)
        assert session.number() == writer.number == 0

    def child() -> list[str]:
        said = []
        for _ in range(2):
            try:
                session.number()
            except StoreError as error:
                said.append(str(error))
        return said

    assert in_a_child(child).count("belongs to the process that wrote it") == 2
