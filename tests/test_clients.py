"""One contract for every client: embedded, awaited, remote, and remote awaited give the same answers and errors."""

import asyncio
import inspect
import threading
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest
from client_catalogue import WordEncoder
from served import served

from feature_repo.board_text import Board
from feature_repo.errors import PinfeatherError, UsageError
from materialize.releases import LIVE_EMBEDDING
from serving_client import AsyncPinClient, AsyncRemotePinClient, PinClient, RemotePinClient, connect
from serving_client.degraded import UnavailableError
from serving_client.http.models import body_of
from serving_client.http.settings import Settings
from serving_client.methods import served_methods
from serving_client.remote_client import RemoteError
from serving_client.stages import DeadlineError, deadline
from serving_client.workers import BusyError, Workers

pytest_plugins = ("client_repo",)

FILTERS = {"lang": ["en", "de"], "country": "US"}
CALLS = [
    ("embed_queries", (["Green  velvet sofa", "", "fern", "fern"],), {}),
    ("embed_queries", ([],), {}),
    ("embed_boards", ([Board("Sofas", ("sofa bed",)), "Ferns", ["Pasta", "pasta salad"], ""],), {}),
    ("pin_embeddings", (["sofa0", "unknown", "sofa0"],), {"space": LIVE_EMBEDDING}),
    ("pin_embeddings", (("nobody", "\ud800"),), {}),
    ("pin_embeddings", (np.array([7, 8]),), {}),
    ("related_pins", (7,), {}),
    ("pin_features", (["sofa0", "unknown", "wordless"],), {}),
    ("pin_features", (["fern1"], "relevance_v1"), {}),
    ("query_features", (["Green velvet SOFA", "unknown"],), {}),
    ("score", ("velvet sofa", ["sofa0", "unknown", "fern1", "sofa0"]), {"scorer": "bm25"}),
    ("score", ("velvet sofa", ["sofa0", "fern1"]), {"scorer": "zero-shot", "explain": True}),
    ("score", ("velvet sofa", np.array(["sofa0", "fern1"])), {"scorer": "zero-shot"}),
    ("score", ("sofa", []), {}),
    ("search", ("velvet sofa", 3), {"content": True, "scorer": "bm25"} | FILTERS),
    ("search", ("", 3), {}),
    ("search", ("\x00\x1b[31m sofa \u202e",), {"scorer": "zero-shot", "retrieval": "vector"}),
    ("related_pins", ("sofa0", 3), {"diversity": 0.9, "content": True} | FILTERS),
    ("related_pins", ("unknown",), {}),
    ("home_feed", (["sofa0", "fern0", "unknown"],), {"limit": 4, "seen": {"sofa1"}, "exploration": 0.0}),
    (
        "home_feed",
        (["sofa0", "fern0"],),
        {"saved_at": [datetime(2026, 5, 1, tzinfo=UTC), "2026-04-01"], "limit": 4, "seed": 7},
    ),
    ("board_pins", ("Green velvet",), {"limit": 3, "pins": ["sofa0", "unknown"]}),
    ("boards_for_pin", ("sofa0", ["Ferns", Board("Velvet sofas")]), {"limit": 1}),
]
WRONG = [
    ("pin_embeddings", ("sofa0",), {}, UsageError),
    ("pin_embeddings", (["sofa0"], "../../etc"), {}, UsageError),
    ("pin_features", (["sofa0"], "nope"), {}, UsageError),
    ("score", ("sofa", ["sofa0"]), {"scorer": "magic"}, UsageError),
    ("search", ("sofa", 0), {}, UsageError),
    ("search", ("sofa",), {"cursor": "damaged"}, UsageError),
    ("search", ("sofa",), {"created_after": "yesterday"}, UsageError),
    ("related_pins", ("sofa0",), {"diversity": float("nan")}, UsageError),
    ("related_pins", ("sofa0",), {"diversity": 2}, UsageError),
    ("home_feed", (["sofa0"],), {"saved_at": ["noon"]}, UsageError),
    ("search", (), {}, TypeError),
    ("search", ("sofa",), {"colour": "red"}, TypeError),
]
KINDS = ("awaited", "remote", "remote awaited")


@pytest.fixture(scope="module")
def shop(built):
    """The embedded client, and the address of a service over another one."""
    ours, theirs = (PinClient(built, encoder=WordEncoder()) for _ in range(2))
    with ours, theirs, served(theirs) as (url, _):
        yield built, ours, url


def caller(kind, built, url):
    """Calls a method of a new client of this kind."""

    async def ask(client, name, args, kwargs):
        async with client:
            return await getattr(client, name)(*args, **kwargs)

    def call(name, args, kwargs):
        if kind == "remote":
            with RemotePinClient(url) as client:
                return getattr(client, name)(*args, **kwargs)
        client = AsyncPinClient(built, encoder=WordEncoder()) if kind == "awaited" else AsyncRemotePinClient(url)
        return asyncio.run(ask(client, name, args, kwargs))

    return call


def assert_same(left, right, where="answer"):
    """Field by field, NaN equal to NaN, of the same types."""
    assert type(left) is type(right), where
    if is_dataclass(left):
        for each in fields(left):
            assert_same(getattr(left, each.name), getattr(right, each.name), f"{where}.{each.name}")
    elif isinstance(left, np.ndarray):
        assert (left.dtype.kind, left.shape) == (right.dtype.kind, right.shape), where
        np.testing.assert_array_equal(left, right, where)
    elif isinstance(left, (tuple, list)):
        assert len(left) == len(right), where
        for number, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(left, dict):
        assert list(left) == list(right), where
        for key in left:
            assert_same(left[key], right[key], f"{where}[{key}]")
    else:
        assert left == right or (left != left and right != right), where


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_equal(shop, kind):
    built, ours, url = shop
    call = caller(kind, built, url)
    for name, args, kwargs in CALLS:
        assert_same(getattr(ours, name)(*args, **kwargs), call(name, args, kwargs), name)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_calls_raise_the_same(shop, kind):
    built, ours, url = shop
    call = caller(kind, built, url)
    for name, args, kwargs, error in WRONG:
        for ask in (lambda name, args, kwargs: getattr(ours, name)(*args, **kwargs), call):
            with pytest.raises(error):
                ask(name, args, kwargs)
    for ask in (getattr(ours, "score"), lambda *args: call("score", args, {})):  # noqa: B009
        with pytest.raises(DeadlineError), deadline(1e-9):
            ask("sofa", ["sofa0"])


@pytest.mark.parametrize("kind", KINDS)
def test_status_and_eviction(shop, kind):
    built, ours, url = shop
    call = caller(kind, built, url)
    status, other = ours.status(), call("status", (), {})
    assert isinstance(other.age, timedelta)
    assert other.published_at.tzinfo is not None
    plain = replace(other, age=status.age, query_cache=status.query_cache)
    assert_same(status, plain)
    if kind != "awaited":  # whose client is a new one each time
        call("embed_queries", (["evict me"],), {})
        assert [call("evict_queries", (["Evict  ME"],), {}) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("other", [AsyncPinClient, RemotePinClient, AsyncRemotePinClient])
def test_every_client_has_every_method(other):
    """Fails when the client gets a method or an argument that another one lacks."""
    for name in served_methods():
        ours, theirs = getattr(PinClient, name), getattr(other, name)
        assert inspect.signature(theirs) == inspect.signature(ours), name
        assert theirs.__doc__ == ours.__doc__
        assert inspect.iscoroutinefunction(theirs) == other.__name__.startswith("Async")
    public = {name for name, each in vars(PinClient).items() if inspect.isfunction(each) and name[0] != "_"}
    assert public == served_methods().keys()


def test_the_service_takes_every_argument_with_the_same_default():
    for method in served_methods().values():
        body = body_of(method, Settings())
        assert list(body.model_fields) == list(method.parameters), method.name
        for name, parameter in method.parameters.items():
            field = body.model_fields[name]
            assert field.is_required() == (parameter.default is inspect.Parameter.empty)
            if not field.is_required():
                default = parameter.default
                assert field.default == (list(default) if isinstance(default, tuple) else default)
            assert field.description, f"{method.name}.{name}"
            assert field.examples, f"{method.name}.{name}"


def test_the_awaited_client_is_made_as_the_embedded_one():
    ours, theirs = (inspect.signature(each.__init__).parameters for each in (PinClient, AsyncPinClient))
    assert ours.keys() <= theirs.keys()
    assert all(ours[name].default == theirs[name].default for name in ours)


def test_the_slow_path_is_for_the_own_process(shop):
    _, _, url = shop
    with RemotePinClient(url) as client:
        assert client.pin_features(["sofa0"], slow_path=False).found.all()
        with pytest.raises(UsageError, match="PinClient"):
            client.pin_features(["sofa0"], slow_path=True)
        with pytest.raises(UsageError, match="object cannot be sent"):
            client.score("sofa", [object()])


def test_connect_goes_by_where_the_pins_are(shop):
    built, _, url = shop
    for where, kind in ((built, PinClient), (str(built), PinClient), (url, RemotePinClient)):
        with connect(where) as client:
            assert type(client) is kind
            assert client.pin_embeddings(["sofa0"]).found.all()
    with pytest.raises(UsageError, match="no address"):
        RemotePinClient("127.0.0.1:8080")
    with pytest.raises(UsageError, match="timeout"):
        RemotePinClient(url, timeout=0)
    with pytest.raises(UsageError, match="no address"):
        RemotePinClient("http://pins:eighty")
    for key in ("a-key-with-a-line-end\n", "schlüssel-zum-dienst"):
        with pytest.raises(UsageError, match="API key") as caught:
            RemotePinClient(url, api_key=key)
        assert key not in str(caught.value)


# --- what can happen on the way -------------------------------------------------------------------------------------

ERROR = {"error": {"code": "unavailable", "message": "not now", "request_id": "r1"}}
GOOD = httpx.Response(200, json=3)


def remote(*answers, **options):
    """A remote client that gets ``answers`` one after another, the requests it sent and the pauses it made."""
    given, sent, pauses = iter(answers), [], []

    def handle(request):
        sent.append(request)
        answer = next(given)
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(handle)
    return RemotePinClient("http://pins/api/", transport=transport, pause=pauses.append, **options), sent, pauses


def test_lost_connections_and_busy_services_are_tried_once_more():
    busy = httpx.Response(503, json=ERROR, headers={"Retry-After": "1"})
    client, sent, pauses = remote(httpx.ConnectError("refused"), GOOD, busy, GOOD)
    assert client.evict_queries(["a"]) == 3
    assert (len(sent), pauses) == (2, [])
    assert client.evict_queries(["a"]) == 3
    assert (len(sent), pauses) == (4, [1.0])
    assert str(sent[0].url) == "http://pins/api/v1/evict-queries"
    assert sent[0].content == sent[1].content
    assert 0 < int(sent[0].headers["x-deadline-ms"]) <= 10_000


@pytest.mark.parametrize(
    ("answers", "error", "code", "tries"),
    [
        ([httpx.ConnectError("a"), httpx.ConnectError("b")], RemoteError, "", 2),
        ([httpx.Response(503, json=ERROR)], RemoteError, "unavailable", 1),
        ([httpx.Response(503, json=ERROR, headers={"Retry-After": "3600"})], RemoteError, "unavailable", 1),
        ([httpx.Response(503, json=ERROR, headers={"Retry-After": "1"})] * 2, RemoteError, "unavailable", 2),
        ([httpx.Response(500, json={"error": ERROR["error"] | {"code": "internal"}})], RemoteError, "internal", 1),
        ([httpx.Response(502, text="<html>")], RemoteError, "", 1),
        ([httpx.Response(200, text="<html>")], RemoteError, "", 1),
        (
            [httpx.Response(503, json={"error": ERROR["error"] | {"reason": "no_space"}})],
            UnavailableError,
            "no_space",
            1,
        ),
    ],
)
def test_what_stays_wrong_is_told(answers, error, code, tries):
    client, sent, _ = remote(*answers)
    with pytest.raises(error) as caught:
        client.evict_queries(["a"])
    assert caught.value.code == code
    assert len(sent) == tries
    assert "pins" in str(caught.value) or code == "no_space"


def test_other_errors_of_the_service_are_those_of_the_client():
    for code, kind in (("bad_request", UsageError), ("too_large", UsageError), ("deadline", DeadlineError)):
        client, _, _ = remote(httpx.Response(400, json={"error": ERROR["error"] | {"code": code}}))
        with pytest.raises(kind, match="not now"):
            client.evict_queries(["a"])
    client, _, _ = remote(httpx.Response(200, json={"hits": 3}))
    with pytest.raises(PinfeatherError, match="same version"):
        client.search("sofa")


def test_the_key_goes_with_every_request_and_the_earlier_deadline_counts():
    client, sent, _ = remote(GOOD, GOOD, api_key="the-key", timeout=5)
    client.evict_queries(["a"])
    with deadline(0.5):
        client.evict_queries(["a"])
    assert {request.headers["x-api-key"] for request in sent} == {"the-key"}
    assert [int(request.headers["x-deadline-ms"]) <= limit for request, limit in zip(sent, (5000, 500), strict=True)]


# --- threads --------------------------------------------------------------------------------------------------------


class StuckEncoder(WordEncoder):
    """Encodes when it is let."""

    def __init__(self):
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def encode(self, texts, progress=None):
        self.begun.set()
        assert self.go.wait(20)
        return super().encode(texts, progress)


def test_a_cancelled_task_leaves_the_client_whole(built):
    async def main():
        stuck = StuckEncoder()
        async with AsyncPinClient(built, encoder=stuck, threads=1, waiting=1) as client:
            running = asyncio.create_task(client.embed_queries(["first"]))
            await asyncio.to_thread(stuck.begun.wait, 20)
            waiting = asyncio.create_task(client.embed_queries(["second"]))
            await asyncio.sleep(0)
            with pytest.raises(BusyError):
                await client.embed_queries(["third"])
            with deadline(0.01), pytest.raises((DeadlineError, BusyError)):
                await client.embed_queries(["late"])
            running.cancel()
            waiting.cancel()
            for task in (running, waiting):
                with pytest.raises(asyncio.CancelledError):
                    await task
            stuck.go.set()
            assert (await client.embed_queries(["fourth"])).found.all()
            return stuck.encoded

    assert asyncio.run(main()) == ["first", "fourth"]


def test_the_deadline_ends_the_wait_while_the_thread_works():
    async def main():
        go = threading.Event()
        workers = Workers(1, 5)
        with deadline(0.01), pytest.raises(DeadlineError):
            await workers.run(lambda: go.wait(20))
        assert workers.pending == 1
        go.set()
        assert await workers.run(lambda: "next") == "next"
        with pytest.raises(TimeoutError):  # one of its own is no deadline
            await workers.run(_times_out)
        await asyncio.to_thread(workers.close)
        assert workers.pending == 0
        with pytest.raises(PinfeatherError, match="closed"):
            await workers.run(lambda: 1)

    asyncio.run(main())
    for wrong in ((0, 1), (1, -1)):
        with pytest.raises(UsageError):
            Workers(*wrong)


def _times_out():
    raise TimeoutError
