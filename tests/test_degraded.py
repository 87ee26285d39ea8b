"""What is answered while a part of what serves is missing, and that it comes back without a restart."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from client_catalogue import WordEncoder, move_pin
from degraded_shop import Clock, away, codes, spoil_next
from test_client_scores import live, student

from feature_repo.errors import PinfeatherError
from feature_repo.lexical import LEXICAL_VERSION
from materialize.releases import current_release, publish_release
from materialize.spaces import save_space
from materialize.stores.publication import open_writer
from serving_client import PinClient
from serving_client.degraded import UnavailableError
from serving_client.publications.parts import RETRY_SECONDS
from serving_client.publications.publications import Publications
from serving_client.stages import deadline

pytest_plugins = ("client_repo",)


@pytest.fixture
def clock(monkeypatch):
    """The clock of every client that the test opens."""
    from serving_client import opened as module

    clock = Clock()
    monkeypatch.setattr(module, "Publications", lambda *args, **more: Publications(*args, **more, clock=clock))
    return clock


@pytest.fixture
def judged(client_shop):
    student(live(client_shop)).save(client_shop.bundles / "made-up")
    publish_release(client_shop, bundle="made-up")
    return client_shop


def test_without_its_bundle_the_cosine_ranks_until_it_is_back(judged, tower, clock):
    with PinClient(judged.root, encoder=tower) as client:
        with away(judged.bundles / "made-up"):
            scores = client.score("velvet sofa", ["sofa0", "pasta0"])
            assert (scores.scorer, scores.bundle, codes(scores)) == ("zero-shot", None, ["no_student"])
            assert np.isfinite(scores.ranking).all()
            assert str(judged.root) not in scores.degraded[0]
            assert codes(client.search("velvet sofa", limit=2)) == ["no_student"]
            assert codes(client.status()) == ["no_student"]
            assert client.status().scorers == ("zero-shot", "bm25")
        assert client.score("velvet sofa", ["sofa0"]).scorer == "zero-shot"  # not tried at every request
        clock.now += RETRY_SECONDS
        scores = client.score("velvet sofa", ["sofa0"])
        assert (scores.scorer, scores.degraded) == ("student", ())
        assert client.status().scorers == ("student", "zero-shot", "bm25")


@pytest.mark.parametrize("damage", [b"x", b""])
@pytest.mark.parametrize("file", ["head.safetensors", "manifest.json", "lexical.json"])
def test_a_damaged_bundle_falls_back_and_other_scorers_do_not_mind(judged, tower, file, damage):
    (judged.bundles / "made-up" / file).write_bytes(damage)
    with PinClient(judged.root, encoder=tower) as client:
        scores = client.score("sofa", ["sofa0"])
        assert (scores.scorer, codes(scores)) == ("zero-shot", ["no_student"])
        assert client.score("sofa", ["sofa0"], scorer="bm25").degraded == ()


# --- queries that cannot be embedded -------------------------------------------------------------------------------


class FailingTower(WordEncoder):
    """A tower that breaks on demand."""

    broken = False

    def encode(self, texts, progress=None):
        if self.broken:
            raise PinfeatherError("out of memory")
        return super().encode(texts, progress)


def test_a_query_that_cannot_be_embedded_is_scored_by_its_words(judged):
    tower = FailingTower()
    with PinClient(judged.root, encoder=tower) as client:
        client.embed_queries(["sofa"])
        tower.broken = True
        scores = client.score("velvet sofa", ["pasta0", "sofa0", "unknown"])
        assert (scores.scorer, codes(scores)) == ("bm25", ["no_embedding"])
        assert (scores.order(), scores.bundle) == ([1, 0], None)
        assert np.isnan(scores.similarity).all()
        assert client.score("sofa", ["sofa0"]).scorer == "student"  # kept from before
        with pytest.raises(PinfeatherError, match=r"query tower of space .* failed"):
            client.embed_queries(["velvet sofa"])
        tower.broken = False
        assert client.score("velvet sofa", ["sofa0"]).degraded == ()


def test_a_model_folder_that_is_gone_or_changed_costs_the_vectors_only(judged, tmp_path):
    save_space(judged, replace(live(judged), model=str(tmp_path / "model")))
    with PinClient(judged.root) as client:
        scores = client.score("velvet sofa", ["sofa0", "pasta0"])
        assert (scores.scorer, codes(scores)) == ("bm25", ["no_embedding"])
        assert scores.order() == [0, 1]
        assert client.related_pins("sofa0", 3).hits
        with pytest.raises(UnavailableError) as caught:
            client.embed_queries(["velvet sofa"])
    assert caught.value.code == "no_embedding"


def test_a_tower_that_the_space_takes_and_the_bundle_does_not_costs_the_student(judged):
    space = live(judged)
    save_space(judged, replace(space, query_towers=(*space.query_towers, "other")))
    with PinClient(judged.root, encoder=WordEncoder("other")) as client:
        scores = client.score("velvet sofa", ["sofa0", "pasta0"])
    assert (scores.scorer, scores.bundle, codes(scores)) == ("zero-shot", None, ["no_student"])
    assert np.isfinite(scores.ranking).all()


def test_neither_vectors_nor_words_is_an_error_at_once(judged):
    publish_release(judged, bundle="made-up", lexical="0" * 16)
    shutil.rmtree(judged.bundles / "made-up")
    tower = FailingTower()
    tower.broken = True
    with PinClient(judged.root, encoder=tower) as client:
        with pytest.raises(UnavailableError, match=r"Nothing can score in repo: no_embedding: .*; no_lexical: "):
            client.score("velvet sofa", ["sofa0"])
        with pytest.raises(UnavailableError, match=r"no_lexical: .*`pinfeather lexical fit`"):
            client.score("velvet sofa", ["sofa0"], scorer="bm25")


# --- words ---------------------------------------------------------------------------------------------------------


def test_a_lost_snapshot_is_replaced_by_the_copy_in_the_bundle(judged, tower, clock):
    snapshot = judged.lexical / f"{current_release(judged).lexical}.json"
    with PinClient(judged.root, encoder=tower) as client:
        with away(snapshot):
            scores = client.score("velvet sofa", ["pasta0", "sofa0"], scorer="bm25")
            assert (scores.order(), codes(scores)) == ([1, 0], ["no_lexical"])
            assert client.score("velvet sofa", ["sofa0"]).degraded == ()  # the student reads its own copy
        clock.now += RETRY_SECONDS
        assert client.score("velvet sofa", ["sofa0"], scorer="bm25").degraded == ()


def test_a_snapshot_of_another_lexical_version_is_not_used(client_shop, tower):
    statistics = student(live(client_shop)).statistics
    newer = replace(statistics, lexical_version=LEXICAL_VERSION + 1)
    publish_release(client_shop, lexical=newer.save(client_shop.lexical))
    with PinClient(client_shop.root, encoder=tower) as client:
        with pytest.raises(UnavailableError, match="no_lexical"):
            client.score("velvet sofa", ["sofa0"], scorer="bm25")
        assert client.score("velvet sofa", ["sofa0"], scorer="zero-shot").degraded == ()
        status = client.status()
        assert (status.scorers, codes(status)) == (("zero-shot",), ["no_student", "no_lexical"])


def test_a_damaged_publication_makes_every_answer_stale_until_there_is_a_good_one(judged, tower, clock, caplog):
    with PinClient(judged.root, encoder=tower) as client:
        number = client.status().publication
        broken = spoil_next(judged, number)
        clock.now += 1
        asked = [
            client.score("sofa", ["sofa0"]),
            client.search("sofa", limit=1),
            client.pin_embeddings(["sofa0"]),
            client.pin_features(["sofa0"]),
            client.related_pins("sofa0", 2),
            client.home_feed(["sofa0"], 2),
            client.embed_queries(["sofa"]),
            client.status(),
        ]
        assert [codes(answer) for answer in asked] == [["stale"]] * len(asked)
        assert f"publication {number}, made " in asked[0].degraded[0]
        assert str(judged.root) not in asked[0].degraded[0]
        assert len([each for each in caplog.records if "goes on serving" in each.message]) == 1
        with pytest.raises(UnavailableError, match="marker"):
            client.refresh()
        shutil.rmtree(broken)
        move_pin(judged, "pasta0", "fern")
        assert codes(client.score("sofa", ["sofa0"])) == ["stale"]  # not looked for at every request
        clock.now += RETRY_SECONDS
        assert client.score("sofa", ["sofa0"]).degraded == ()
        assert client.status().publication > number


def test_a_release_that_cannot_be_understood_leaves_the_old_one_serving(judged, tower):
    release = current_release(judged)
    with PinClient(judged.root, encoder=tower) as client:
        client.pin_embeddings(["sofa0"])
        with open_writer(judged.online) as writer:
            writer.publish(release.to_json() | {"number": 99, "of a later version": 1})
        with pytest.raises(UnavailableError, match="TypeError"):
            client.refresh()
        answer = client.score("sofa", ["sofa0"])
        assert (answer.scorer, codes(answer)) == ("student", ["stale"])


def test_a_store_that_is_gone_is_served_from_what_is_loaded_and_followed_again(judged, tower, clock):
    with PinClient(judged.root, encoder=tower) as client:
        before = client.score("velvet sofa", ["sofa0", "pasta0"])
        with away(judged.online):
            clock.now += 1
            during = client.score("velvet sofa", ["sofa0", "pasta0"])
            assert codes(during) == ["stale"]
            assert np.array_equal(during.probabilities, before.probabilities)
        move_pin(judged, "pasta0", "fern")
        clock.now += RETRY_SECONDS
        assert client.score("velvet sofa", ["sofa0", "pasta0"]).degraded == ()


def test_a_first_load_that_hangs_holds_nobody_up_beyond_his_deadline(client_shop):
    loading, ending = threading.Event(), threading.Event()

    def hang(publication):
        loading.set()
        ending.wait()

    publications = Publications(client_shop, hang)

    def number():
        with publications.current() as publication:
            return publication.number

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(number)
        loading.wait()
        with deadline(0.01), pytest.raises(UnavailableError, match="still being loaded"):
            number()
        ending.set()
        assert first.result() == number()
    publications.close()


def test_a_collection_that_cannot_be_loaded_costs_what_it_holds(judged, tower, clock):
    release = current_release(judged)
    marker = max(judged.online.glob("publications/*/publication.json"))
    place = json.loads(marker.read_text())["collections"]
    vectors = judged.online / "publications" / place[release.live_space]
    rows = judged.online / "publications" / next(at for name, at in place.items() if name != release.live_space)
    with PinClient(judged.root, encoder=tower) as client, away(vectors / "edge_config.json"):
        scores = client.score("velvet sofa", ["pasta0", "sofa0"])
        assert (scores.scorer, scores.order(), codes(scores)) == ("bm25", [1, 0], ["store_gone"])
        with pytest.raises(UnavailableError) as caught:
            client.related_pins("sofa0")
        assert caught.value.code == "store_gone"
        assert codes(client.status()) == ["store_gone"]
    with PinClient(judged.root, encoder=tower) as client:
        with away(rows / "edge_config.json"):
            scores = client.score("velvet sofa", ["pasta0", "sofa0"])
            assert (scores.scorer, codes(scores)) == ("student", ["store_gone"])
            assert np.isfinite(scores.expected_level).all()
            with pytest.raises(UnavailableError):
                client.pin_features(["sofa0"])
        clock.now += RETRY_SECONDS
        assert client.score("velvet sofa", ["sofa0"]).degraded == ()
        assert client.status().degraded == ()


def test_the_status_of_a_client_that_has_nothing_to_serve(client_shop):
    shutil.rmtree(client_shop.online)
    with PinClient(client_shop.root) as client:
        status = client.status()
    assert (status.publication, status.age, status.scorers, codes(status)) == (None, None, (), ["store_gone"])
    assert "pinfeather materialize" in status.degraded[0]


def test_the_status_says_what_serves(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        client.embed_queries(["sofa"])
        status = client.status()
    release = current_release(judged)
    assert (status.release, status.live_space, status.bundle) == (release.number, release.live_space, "made-up")
    assert (status.lexical, status.spaces, status.degraded) == (release.lexical, (release.live_space,), ())
    assert status.query_cache.entries == 1
    assert 0 <= status.age.total_seconds() < 3600
