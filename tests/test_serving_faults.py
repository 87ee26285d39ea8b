"""Faults that showed only when publications switched, parts failed or lists grew long: each stays away."""

import gc
import json
import weakref

import numpy as np
import pytest
from client_catalogue import SwitchingEncoder, WordEncoder, copy_of, direction, move_pin
from degraded_shop import Clock, away, codes
from test_client_scores import live, student

from feature_repo.errors import PinfeatherError, UsageError
from materialize.releases import current_release, publish_release
from materialize.stores.errors import BadInputError
from materialize.stores.publication import open_writer
from serving_client import PinClient
from serving_client.publications import publications as module
from serving_client.publications.publications import Publications

pytest_plugins = ("client_repo",)


@pytest.fixture
def judged(client_shop):
    student(live(client_shop)).save(client_shop.bundles / "made-up")
    publish_release(client_shop, bundle="made-up")
    return client_shop


# --- switches ---


def test_what_a_request_over_a_former_publication_loaded_goes_when_it_ends(client_shop, monkeypatch):
    """Its tower, and the vectors that were encoded meanwhile: until the next switch nobody would ask for them."""
    kept = []

    def keep(towers, spaces):
        kept.append([space.name for space in spaces])
        return forget(towers, spaces)

    forget = module_towers().keep_only
    monkeypatch.setattr("serving_client.queries.towers.Towers.keep_only", keep)
    publications = []
    with PinClient(client_shop.root, encoder=WordEncoder()) as client:
        client.refresh()
        with client._publications.current() as old:
            publications.append(old.number)
            move_pin(client_shop, "pasta0", "fern")
            assert client.refresh()
            before = len(kept)
            assert not client.refresh()
            assert len(kept) == before  # the request is still under way
        assert not client.refresh()
        assert len(kept) == before + 1
        assert not client.refresh()
        assert len(kept) == before + 1  # once


def module_towers():
    from serving_client.queries.towers import Towers

    return Towers


def test_query_vectors_of_a_former_model_go_with_the_last_request_that_needs_them(client_shop):
    """A request holds its publication while it encodes, so that what it adds to the cache is found at its end."""
    with PinClient(client_shop.root, encoder=(tower := SwitchingEncoder(client_shop))) as client:
        tower.client, tidied = client, []
        client._publications._on_retired = lambda publication: tidied.append(publication.number)
        client.embed_queries(["fern"])
        assert tidied == []
        client.refresh()
        assert len(tidied) == 1
        client.embed_boards(["Ferns"])


def test_a_former_publication_goes_at_once_without_the_collector(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        asked = {"content": True, "explain": True}
        assert client.search("velvet sofa", **asked).scorer == "student"
        client.related_pins("sofa0", content=True)
        client.home_feed(["sofa0"], content=True)
        client.board_pins("Sofas", pins=["fern0"])
        old = client._publications._newest
        refs = [weakref.ref(each) for each in (old, old.view, old.bundle)]
        del old
        gc.collect()
        gc.disable()
        try:
            move_pin(judged, "pasta0", "fern")
            assert client.refresh()
            assert [ref() for ref in refs] == [None, None, None]
        finally:
            gc.enable()


def test_a_configuration_that_breaks_later_leaves_the_last_publication_serving(client_shop, monkeypatch):
    """On a server it is read at each look."""
    clock = Clock()
    publications = Publications(client_shop, lambda publication: None, 1.0, clock)
    with publications.current() as first:
        number = first.number

    def broken(before):
        raise BadInputError("online_store.url is 7; give http://host:port.")

    monkeypatch.setattr(publications, "_newer", broken)
    clock.now += 2
    with publications.current() as still:
        assert still.number == number
        assert "stale" in str(publications.stale(still))
    with pytest.raises(PinfeatherError, match=r"online_store\.url"):
        publications.refresh()
    publications.close()


def test_a_configuration_that_is_wrong_at_first_is_no_fault_of_who_asks(client_shop, monkeypatch):
    def broken(paths):
        raise BadInputError("online_store.url is 7; give http://host:port.")

    monkeypatch.setattr(module, "place_of", broken)
    with PinClient(client_shop.root) as client:
        for _ in range(2):
            with pytest.raises(PinfeatherError, match=r"online_store\.url") as caught:
                client.pin_embeddings(["sofa0"])
            assert not isinstance(caught.value, UsageError)


# --- what rows cannot give ---


def rows_of(shop):
    """The folder of the newest publication that holds feature rows."""
    marker = max(shop.online.glob("publications/*/publication.json"))
    place = json.loads(marker.read_text())["collections"]
    live_space = current_release(shop).live_space
    return shop.online / "publications" / next(at for name, at in place.items() if name != live_space)


def test_hits_come_without_content_where_rows_cannot_be_read(judged, tower):
    with away(rows_of(judged) / "edge_config.json"), PinClient(judged.root, encoder=tower) as client:
        found = client.search("velvet sofa", 3, content=True)
        assert len(found.hits) == 3
        assert [hit.content for hit in found.hits] == [None] * 3
        assert set(codes(found)) == {"store_gone"}
        assert any("given without" in text for text in found.degraded)
        for answer in (
            client.related_pins("sofa0", 3, content=True),
            client.home_feed(["sofa0"], 3, content=True),
            client.board_pins("sofa", 3, content=True),
        ):
            assert len(answer.hits) == 3
            assert codes(answer) == ["store_gone"]
    with PinClient(judged.root, encoder=tower) as client:
        found = client.search("velvet sofa", 3, content=True)
        assert all(hit.content["pin_text__title"] for hit in found.hits)
        assert found.degraded == ()


# --- long lists ---


@pytest.fixture
def crowded(client_shop):
    """2,400 pins nearer to the word "zanzibar" than five others; most of them are on one board."""
    axis = direction("zanzibar")
    axis /= np.linalg.norm(axis)
    draw = np.random.default_rng(0)

    def near(cosine):
        other = draw.standard_normal(384)
        other -= other @ axis * axis
        return (cosine * axis + (1 - cosine**2) ** 0.5 * other / np.linalg.norm(other)).astype(np.float32)

    with open_writer(client_shop.online) as writer:
        space = current_release(client_shop).live_space
        writer.upsert(space, [copy_of(f"own{number}", near(0.9)) for number in range(2_400)])
        writer.upsert(space, [copy_of(f"other{number}", near(0.8)) for number in range(5)])
        twin = near(0.85)
        writer.upsert(space, [copy_of("own-late", twin), copy_of("twin-of-late", twin)])
        writer.publish()
    return client_shop


def test_a_board_of_thousands_of_pins_still_gets_others(crowded, tower):
    own = [*(f"own{number}" for number in range(2_400)), "own-late"]
    with PinClient(crowded.root, encoder=tower) as client:
        fitting = client.board_pins("zanzibar", 5, pins=own)
    assert {hit.pin_id for hit in fitting.hits} == {f"other{number}" for number in range(5)}
    assert fitting.pins_found.sum() == 300


# --- values ---


@pytest.mark.parametrize("name", ["lang", "country"])
@pytest.mark.parametrize("wanted", ["x" * 101, ["x" * 101], "x" * 10_000_000])
def test_a_language_or_country_has_a_length(client, name, wanted):
    with pytest.raises(UsageError, match="up to 100 characters") as caught:
        client.search("sofa", **{name: wanted})
    assert len(str(caught.value)) < 300
    assert client.search("sofa", **{name: "x" * 100}).hits == ()
