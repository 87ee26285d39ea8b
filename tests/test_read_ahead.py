"""Rows read before anybody asks: then requests read none, what was kept comes first, and the bound holds."""

import sys
import threading
import time

import pytest
from client_catalogue import move_pin, pins
from served import in_process

from feature_repo.errors import PinfeatherError
from materialize.releases import publish_release
from materialize.stores.edge_collection import EdgeCollection
from materialize.stores.layout import entity_collection
from materialize.stores.publication import open_writer
from pinfeather.init import init_repository
from serving_client import PinClient
from serving_client.http.app import SWITCH_SECONDS
from serving_client.http.metrics import Metrics
from serving_client.http.settings import Settings
from serving_client.publications import read_ahead
from serving_client.publications.publications import Publications
from serving_client.publications.read_ahead import ReadAhead
from serving_client.workers import Workers

pytest_plugins = ("client_repo",)

PINS = [pin["pin_id"] for pin in pins()]
LIVE_PINS = [pin for pin in PINS if pin != "wordless"]  # it has no text, so no vector
ALL = 1 << 30


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Several steps for the small catalogue."""
    monkeypatch.setattr(read_ahead, "CHUNK", 4)


@pytest.fixture
def reads(monkeypatch):
    """How many rows each read of the engine asked for, of those that give whole rows."""
    asked = []
    real = EdgeCollection._points

    def points(collection, ids, payload, vectors):
        asked.append(len(ids))
        return real(collection, ids, payload, vectors)

    monkeypatch.setattr(EdgeCollection, "_points", points)
    return asked


def read_all(ahead):
    """Steps until there is nothing more to read; how many there were."""
    steps = 1
    while ahead.step():
        steps += 1
        assert steps < 100
    return steps


def ask(client):
    """Everything that a score and related pins read of any pin."""
    found = client.score("green velvet sofa", PINS, scorer="zero-shot").found
    client.related_pins("sofa0")
    return found.tolist()


def test_requests_read_nothing_once_all_was_read_ahead(client, reads):
    ahead = ReadAhead(client._publications, ALL)
    assert read_all(ahead) == -(-len(LIVE_PINS) // 4)
    assert ahead.pins == len(LIVE_PINS)
    assert sum(reads) == 3 * len(LIVE_PINS)  # vector, row of pin_relevance, and which pin a point is, once each
    assert max(reads) <= 4
    reads.clear()
    found = ask(client)
    assert found == [True] * len(PINS)
    assert sum(reads) == 2  # the pin without a vector is not in the space
    assert not ahead.step()
    assert sum(reads) == 2


def test_no_more_is_read_than_may_be_kept(client, reads):
    ask(client)  # what requests asked for stays
    kept = [columns.bytes for columns in columns_of(client)]
    reads.clear()
    ahead = ReadAhead(client._publications, sum(kept))
    assert not any(ahead.step() for _ in range(4)) or ahead.pins
    assert reads == []
    assert [columns.bytes for columns in columns_of(client)] == kept


def test_reading_goes_on_when_there_is_room_again(client, reads):
    ahead = ReadAhead(client._publications, 9_000)
    assert read_all(ahead) < len(LIVE_PINS) / 4
    had = ahead.pins
    assert 0 < had < len(LIVE_PINS)
    assert sum(columns.bytes for columns in columns_of(client)) <= 9_000
    assert not ahead.step()
    assert ahead.pins == had
    ahead.max_bytes = ALL
    read_all(ahead)
    assert ahead.pins == len(LIVE_PINS)
    reads.clear()
    ask(client)
    assert sum(reads) == 2


def columns_of(client):
    with client._publications.current() as publication:
        wanted = read_ahead._wanted(publication, publication.space())
        return [publication.view.kept(each.collection, each.kind) for each in wanted]


def test_what_was_kept_before_is_read_first_in_a_new_publication(client_shop, tower, reads):
    with PinClient(client_shop.root, encoder=tower) as client:
        ahead = ReadAhead(client._publications, ALL)
        client.pin_embeddings(["pasta0", "fern2", "sofa1"])
        client.pin_embeddings(["fern2", "fern0"])
        read_all(ahead)
        move_pin(client_shop, "pasta0", "fern")  # a new collection of the space; that of the rows stays
        client.refresh()
        reads.clear()
        assert ahead.step()
        vectors, points, rows = columns_of(client)
        assert set(vectors.keys()) == {"fern2", "fern0", "pasta0", "sofa1"}
        assert (len(points), len(rows)) == (4, len(LIVE_PINS))
        assert reads == [4, 4]
        read_all(ahead)
        assert sum(reads) == 2 * len(LIVE_PINS)
        assert ahead.pins >= len(LIVE_PINS)
        reads.clear()
        vector = client.pin_embeddings(["pasta0"]).vectors[0]
        assert vector @ tower.encode(["fern"])[0] > 0.99  # no row of the publication before is left
        assert reads == []


def test_a_publication_that_changes_no_row_is_not_read_again(client_shop, tower, reads):
    with PinClient(client_shop.root, encoder=tower) as client:
        ahead = ReadAhead(client._publications, ALL)
        assert ahead.step()
        publish_release(client_shop)
        with open_writer(client_shop.online) as writer:
            writer.publish({**writer.release, "created_at": "2026-11-22T00:00:00+00:00"})
        assert client.refresh()
        assert ahead.step()  # goes on where it was
        assert ahead.pins == 8
        read_all(ahead)
        assert sum(reads) == 3 * len(LIVE_PINS)


def test_a_publication_that_is_let_go_is_not_kept(client_shop, tower):
    """Between two steps nothing holds the one before: its files and arrays go."""
    with PinClient(client_shop.root, encoder=tower) as client:
        ahead = ReadAhead(client._publications, ALL)
        ahead.step()
        former = ahead._seen
        assert former() is not None
        move_pin(client_shop, "pasta0", "fern")
        client.refresh()
        assert former() is None


def wait_for_all(client):
    ends = time.monotonic() + 30
    while client.pins_read_ahead < len(LIVE_PINS) and time.monotonic() < ends:
        threading.Event().wait(0.01)
    assert client.pins_read_ahead == len(LIVE_PINS)


def test_the_thread_reads_all_and_ends_with_its_client(built, tower):
    with PinClient(built, encoder=tower, read_ahead_bytes=ALL) as client:
        client.pin_embeddings([])
        thread = client._ahead._thread
        assert thread.is_alive()
        wait_for_all(client)
        client.read_ahead(ALL)
        assert client._ahead._thread is thread  # one is enough
        text = Metrics(client, Workers(1)).text().decode()
        assert f"pinfeather_read_ahead_pins {len(LIVE_PINS)}.0" in text
    assert not thread.is_alive()


def test_a_service_reads_ahead_once_it_is_ready(built, tower, reads):
    before = sys.getswitchinterval()
    with PinClient(built, encoder=tower) as client:
        with in_process(client, Settings(read_ahead=ALL)) as http:
            assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
            wait_for_all(client)
            assert http.get("/readyz").status_code == 200
            reads.clear()
            answer = http.post("/v1/related-pins", json={"pin_id": "sofa0"})
            assert answer.json()["hits"]
            assert reads == []
        assert sys.getswitchinterval() == before


@pytest.mark.parametrize("size", [0, -1])
def test_without_room_nothing_is_started(built, tower, size):
    with PinClient(built, encoder=tower, read_ahead_bytes=size) as client:
        client.pin_embeddings(["sofa0"])
        assert client._ahead is None
        client.read_ahead(size)
        assert client._ahead._thread is None


def test_an_empty_repository_is_waited_for(tmp_path):
    ahead = ReadAhead(Publications(init_repository(tmp_path / "shop"), lambda publication: None), ALL)
    with pytest.raises(PinfeatherError):
        ahead.step()
    looked = threading.Event()
    real, ahead.step = ahead.step, lambda: looked.set() or real()
    ahead.start()
    assert looked.wait(20)
    ahead.close()
    assert ahead.pins == 0


def test_a_space_without_rows_is_read_for_its_vectors(client_shop, tower, reads):
    with open_writer(client_shop.online) as writer:
        writer.drop(entity_collection("repo", ["pin_id"]))
        writer.publish()
    with PinClient(client_shop.root, encoder=tower) as client:
        read_all(ReadAhead(client._publications, ALL))
        assert sum(reads) == 2 * len(LIVE_PINS)
