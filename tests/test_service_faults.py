"""Faults of the HTTP service that showed only under odd requests and at odd starts: each stays away."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from client_catalogue import WordEncoder
from pydantic import ValidationError
from served import KEY, KEYS, OTHER_KEY, error_of, in_process
from test_client_scores import live

from materialize.releases import current_release, write_release
from materialize.spaces import save_space
from materialize.stores.publication import open_writer
from serving_client import PinClient
from serving_client.collector import settled
from serving_client.http import following
from serving_client.http.models import MOST_KEYS, body_of
from serving_client.http.settings import Settings
from serving_client.methods import served_methods

pytest_plugins = ("client_repo",)


@pytest.fixture(scope="module")
def pins(built):
    with PinClient(built, encoder=WordEncoder()) as client:
        yield client


# --- bodies ---


def test_of_a_hundred_thousand_keys_none_is_described():
    many = {f"k{number}": 1 for number in range(100_000)}
    for method in served_methods().values():
        if method.parameters:
            with pytest.raises(ValidationError) as caught:
                body_of(method, Settings()).model_validate(many)
            assert caught.value.error_count() == 1, method.name
    boards = {"pin_id": "a", "boards": [{"title": "b"} | many]}
    with pytest.raises(ValidationError) as caught:
        body_of(served_methods()["boards_for_pin"], Settings()).model_validate(boards)
    assert caught.value.error_count() <= 3  # one for each way in which a board may be given


def test_too_many_keys_are_told_as_such_and_a_few_by_name(pins):
    http = in_process(pins)
    many = {f"k{number}": 1 for number in range(MOST_KEYS + 1)}
    assert f"at most {MOST_KEYS} keys" in error_of(http.post("/v1/search", json={"query": "a"} | many), 422)
    assert f"at most {MOST_KEYS} keys" in error_of(http.post("/v1/board-pins", json={"board": many}), 422)
    few = {f"k{number}": 1 for number in range(3)}
    assert "'k2' is no key" in error_of(http.post("/v1/search", json={"query": "a"} | few), 422)


def test_a_filter_has_a_length_by_the_document_too(pins):
    http = in_process(pins)
    for wanted in ("x" * 101, ["x" * 101]):
        assert "at most 100 characters" in error_of(http.post("/v1/search", json={"query": "a", "lang": wanted}), 422)


# --- other keys ---


def test_evicting_tells_no_key_what_another_has_asked(pins):
    http = in_process(pins, Settings(KEYS))
    mine, other = {"X-Api-Key": KEY}, {"X-Api-Key": OTHER_KEY}
    http.post("/v1/embed-queries", json={"queries": ["asked by one"]}, headers=mine)
    body = {"queries": ["asked by one", "Asked  by ONE", "asked by nobody", ""]}
    answers = [http.post("/v1/evict-queries", json=body, headers=other).json() for _ in range(2)]
    assert answers == [2, 2]


# --- readiness ---


@pytest.fixture
def towerless(client_shop, tmp_path):
    """A repository whose query tower is not there; and what puts it there."""
    whole = live(client_shop)
    save_space(client_shop, replace(whole, model=str(tmp_path / "model")))
    return client_shop


def prepared(client, told=str):
    service = in_process(client).app.state.service
    with settled(), ThreadPoolExecutor(1) as executor:
        asyncio.run(service.readiness.prepare(client, executor, told))
    return service


def test_a_service_without_its_query_tower_is_ready_and_says_so(towerless, tmp_path):
    with PinClient(towerless.root) as client:
        http = in_process(client)
        service = http.app.state.service
        with settled(), ThreadPoolExecutor(1) as executor:
            asyncio.run(service.readiness.prepare(client, executor, service.tellable))
        answer = http.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["ready"] is True
        assert "cannot be embedded" in answer.json()["lacking"]
        assert str(tmp_path) not in answer.text
        assert http.post("/v1/related-pins", json={"pin_id": "sofa0"}).json()["hits"]


def test_without_words_too_it_is_ready_for_related_pins(towerless):
    manifest = replace(current_release(towerless), lexical=None)
    with open_writer(towerless.online) as writer:
        writer.publish(write_release(towerless, names=manifest.names).to_json() | {"lexical": None})
    with PinClient(towerless.root) as client:
        assert prepared(client).readiness.problem is None


def test_what_was_lacking_is_tried_again_beside_the_requests(built, monkeypatch):
    """And is no longer told once it is there."""
    tower = WordEncoder()
    broken = [True]

    class Failing(PinClient):
        def embed_queries(self, queries, space="live"):
            if broken[0]:
                from serving_client.degraded import UnavailableError

                raise UnavailableError("no model", "no_embedding")
            return super().embed_queries(queries, space)

    monkeypatch.setattr(following, "FOLLOW_SECONDS", 0.0)

    async def play():
        readiness = service.readiness
        await readiness.prepare(client, executor, str)
        assert readiness.lacking == "no model"
        looks = 0

        async def besides():
            nonlocal looks
            looks += 1
            broken[0] = looks < 3
            await readiness.complete(client, executor, str)
            if looks == 4:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await following.follow(client, executor, besides)
        assert readiness.lacking is None

    with settled(), Failing(built, encoder=tower) as client, ThreadPoolExecutor(1) as executor:
        service = in_process(client).app.state.service
        asyncio.run(play())


def test_metrics_wait_neither_for_a_tower_nor_for_the_first_publication(built, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    class StuckTower(PinClient):
        def embed_queries(self, queries, space="live"):
            begun.set()
            assert go.wait(20)
            return super().embed_queries(queries, space)

    monkeypatch.setattr("serving_client.http.metrics.STATUS_SECONDS", 0.01)
    with StuckTower(built, encoder=WordEncoder()) as client:
        http = in_process(client)
        service = http.app.state.service
        with client._publications._switching:  # as while the first one is loaded
            assert "pinfeather_served_publication_number" not in http.get("/metrics").text
        loading = service.aside.submit(client.embed_queries, ["ready"])
        assert begun.wait(20)
        assert "pinfeather_served_publication_number" in http.get("/metrics").text
        go.set()
        assert loading.result(20).found.all()
