"""The client while publications and releases change under it, and where there is none yet."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from client_catalogue import SwitchingEncoder, copy_of, move_pin

from embedders.cut import cut_fingerprint
from feature_repo.errors import PinfeatherError
from materialize.releases import LIVE_EMBEDDING, current_release, write_release
from materialize.spaces import load_space, save_space
from materialize.stores.port import CollectionSpec, VectorSpec
from materialize.stores.publication import open_writer
from pinfeather.init import init_repository
from serving_client import PinClient
from serving_client.publications.publications import Publications

pytest_plugins = ("client_repo",)


def test_a_request_ends_on_the_publication_it_began_with(client_shop):
    with PinClient(client_shop.root, encoder=(tower := SwitchingEncoder(client_shop))) as client:
        tower.client = client
        during = client.score("fern", ["pasta0"], scorer="zero-shot").similarity[0]
        after = client.score("fern", ["pasta0"], scorer="zero-shot").similarity[0]
    assert during < 0.5
    assert after > 0.99


def test_newer_publications_are_looked_for_once_a_second(client_shop):
    now, switched = [100.0], []
    publications = Publications(
        client_shop, lambda publication: switched.append(publication.number), 1.0, lambda: now[0]
    )

    def serving() -> int:
        with publications.current() as publication:
            return publication.number

    first = serving()
    move_pin(client_shop, "pasta0", "fern")
    now[0] += 0.9
    assert serving() == first
    now[0] += 0.2
    second = serving()
    assert second > first
    now[0] += 5
    assert serving() == second
    assert switched == [first, second]
    publications.close()
    with pytest.raises(PinfeatherError, match="closed"):
        serving()


def test_an_old_publication_is_closed_when_its_last_request_is_done(client_shop):
    publications = Publications(client_shop, lambda publication: None)
    with publications.current() as old:
        move_pin(client_shop, "pasta0", "fern")
        assert publications.refresh()
        assert not publications.refresh()
        assert old.vector_points(old.space(), ["pasta0"])[0] is not None
        with publications.current() as new:
            assert new is not old
    with pytest.raises(Exception, match="closed"):
        old.vector_points(old.space(), ["pasta0"])
    publications.close()
    assert [path for path in (client_shop.online / "readers").iterdir() if path.is_dir()] == []


def test_an_unreadable_new_publication_leaves_the_old_one_serving(client_shop):
    now = [0.0]
    publications = Publications(client_shop, lambda publication: None, 1.0, lambda: now[0])
    with publications.current() as good:
        number = good.number
    broken = client_shop.online / "publications" / f"{number + 1:06d}"
    broken.mkdir()
    (broken / "publication.json").write_text("{")
    now[0] += 2
    with publications.current() as still:
        assert still is good
    publications.close()


def test_a_release_with_another_model_drops_the_old_query_vectors(client_shop, tower):
    with PinClient(client_shop.root, encoder=tower) as client:
        client.embed_queries(["fern"])
        old = load_space(client_shop, current_release(client_shop).live_space)
        new = replace(old, name="next", model_fingerprint="next-model", query_towers=("next-model",))
        save_space(client_shop, new)
        with open_writer(client_shop.online) as writer:
            writer.create("next", CollectionSpec({"vector": VectorSpec(384)}))
            writer.upsert("next", [copy_of("fern0", np.eye(384, dtype=np.float32)[0])])
            writer.publish(write_release(client_shop, names={LIVE_EMBEDDING: "next"}).to_json())
        assert client.refresh()
        assert client.query_cache.entries == 0
        assert client.pin_embeddings(["fern0", "fern1"]).found.tolist() == [True, False]
        assert client.pin_embeddings(["fern1"], space=old.name).found.all()  # a consumer may stay with a space
        with pytest.raises(PinfeatherError, match="next-model"):
            client.embed_queries(["fern"])
        assert client.embed_queries(["fern"], space=old.name).space == old.name


def cut_space(client_shop, name="small", dimension=16):
    """A further space in the store, of the packaged model's first components, with one pin."""
    live = load_space(client_shop, current_release(client_shop).live_space)
    fingerprint = cut_fingerprint(live.model_fingerprint, dimension)
    small = replace(live, name=name, dimension=dimension, tower=live.model_fingerprint)
    save_space(client_shop, small := replace(small, model_fingerprint=fingerprint, query_towers=(fingerprint,)))
    with open_writer(client_shop.online) as writer:
        writer.create(name, CollectionSpec({"vector": VectorSpec(dimension)}))
        writer.upsert(name, [copy_of("fern0", np.eye(dimension, dtype=np.float32)[0])])
        writer.publish(current_release(client_shop).to_json())
    return small


def test_query_vectors_of_a_space_that_was_asked_for_outlive_a_publication(client_shop, tower):
    cut_space(client_shop)
    with PinClient(client_shop.root, encoder=tower) as client:
        client.embed_queries(["fern"])
        client.embed_queries(["fern"], space="small")
        tower.encoded.clear()
        move_pin(client_shop, "pasta0", "fern")
        assert client.refresh()
        assert client.embed_queries(["fern"], space="small").vectors.shape == (1, 16)
        assert tower.encoded == []
        with open_writer(client_shop.online) as writer:
            writer.drop("small")
            writer.publish(current_release(client_shop).to_json())
        assert client.refresh()
        assert client.query_cache.entries == 1  # that of the live space


def test_a_publication_goes_with_the_manifests_of_when_it_was_opened(client_shop, tower):
    small = cut_space(client_shop)
    with PinClient(client_shop.root, encoder=tower) as client:
        client.pin_embeddings(["fern1"])
        save_space(client_shop, replace(small, dimension=8, model_fingerprint="anew"))
        found = client.pin_embeddings(["fern0"], space="small")
        assert (found.vectors.shape, found.model) == ((1, 16), small.model_fingerprint)
        with PinClient(client_shop.root, encoder=tower) as late:
            assert late.pin_embeddings(["fern1"]).found.all()  # the other spaces are read nevertheless
            with pytest.raises(PinfeatherError, match=r"small has 16 .*manifest says 8.*ask again"):
                late.pin_embeddings(["fern0"], space="small")
        (client_shop.spaces / "small.json").unlink()
        assert client.pin_embeddings(["fern0"], space="small").found.all()


def test_what_is_missing_is_named_with_the_command_that_makes_it(client_shop, tmp_path):
    with pytest.raises(PinfeatherError, match="no Feast repository"):
        PinClient(tmp_path / "nowhere")
    with PinClient(init_repository(tmp_path / "fresh").root) as client, pytest.raises(PinfeatherError, match="apply"):
        client.pin_embeddings(["sofa0"])
    shutil.rmtree(client_shop.online)
    with PinClient(client_shop.root) as client:
        with pytest.raises(PinfeatherError, match="pinfeather materialize"):
            client.search("sofa")
        with open_writer(client_shop.online) as writer:
            writer.publish()
        with pytest.raises(PinfeatherError, match=r"No space is live.*`pinfeather materialize"):
            client.pin_embeddings(["sofa0"])
        assert client.pin_features(["sofa0"]).found.tolist() == [False]
