"""The client over a real repository: vectors, features, search and lists, and what a look-up imports."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from client_catalogue import WHEN, WordEncoder, copy_of

from embedders.encoder import packaged_model_path
from feature_repo.board_text import Board
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.spaces import load_space, save_space
from materialize.stores.publication import open_writer
from serving_client import PinClient

pytest_plugins = ("client_repo",)


def test_pin_vectors_come_in_the_order_asked_with_a_mask(client, tower):
    answer = client.pin_embeddings(["fern1", "unknown", "sofa0", "wordless", "fern1"])
    assert answer.ids == ("fern1", "unknown", "sofa0", "wordless", "fern1")
    assert answer.found.tolist() == [True, False, True, False, True]
    assert answer.vectors.shape == (5, 384)
    assert answer.vectors.dtype == np.float32
    assert np.isnan(answer.vectors[[1, 3]]).all()
    assert np.array_equal(answer.vectors[0], answer.vectors[4])
    assert np.allclose(answer.vectors[0], WordEncoder().encode(["watering a fern"])[0], atol=1e-3)
    assert np.array_equal(answer.vectors[0], answer.vectors[0].astype(np.float16).astype(np.float32))
    assert answer.space == client.pin_embeddings([], space=answer.space).space
    assert answer.model == tower.fingerprint
    assert tower.encoded == []


def test_pin_vectors_say_how_old_what_they_say_is(client):
    answer = client.pin_embeddings(["sofa0", "unknown", "sofa1"])
    assert answer.event_timestamps[[0, 2]].tolist() == [
        datetime(2026, 5, 1, 13 + 2),
        datetime(2026, 5, 1, 12, 0, 1),
    ]
    hour = timedelta(hours=1)
    for now in (WHEN + 4 * hour, (WHEN + 4 * hour).replace(tzinfo=None), (WHEN + 4 * hour).astimezone(timezone(hour))):
        assert answer.age(now)[[0, 2]].tolist() == [hour, 4 * hour - timedelta(seconds=1)]
    assert np.isnat([answer.event_timestamps[1], answer.age()[1]]).all()
    assert (answer.age()[[0, 2]] > np.timedelta64(1, "D")).all()
    queries = client.embed_queries(["fern", "sofa"])
    assert queries.event_timestamps is None
    assert np.isnat(queries.age()).tolist() == [True, True]


def test_a_space_has_its_public_its_short_and_its_physical_name(client):
    live = client.pin_embeddings(["sofa0"])
    for name in ("live", LIVE_EMBEDDING, live.space):
        assert np.array_equal(client.pin_embeddings(["sofa0"], space=name).vectors, live.vectors)
    with pytest.raises(UsageError, match=rf"no space 'nope'; there are: live, {LIVE_EMBEDDING}, {live.space}"):
        client.pin_embeddings(["sofa0"], space="nope")
    for name in ("../../x", "repo@pin_id"):  # a collection of features is no space
        with pytest.raises(UsageError, match=f"no space '{re.escape(name)}'; there are: live"):
            client.pin_embeddings(["sofa0"], space=name)


def test_one_text_where_a_batch_is_wanted_says_so(client):
    with pytest.raises(UsageError, match="ids takes a list"):
        client.pin_embeddings("sofa0")


def test_query_vectors_are_computed_once_per_canonical_query(client, tower):
    first = client.embed_queries(["Green  Velvet SOFA", "", "fern", " \x00 ", "green velvet sofa"])
    assert first.ids == ("green velvet sofa", "", "fern", "", "green velvet sofa")
    assert first.found.tolist() == [True, False, True, False, True]
    assert np.isnan(first.vectors[[1, 3]]).all()
    assert np.array_equal(first.vectors[0], first.vectors[4])
    assert np.array_equal(first.vectors[0], first.vectors[0].astype(np.float16).astype(np.float32))
    second = client.embed_queries(["FERN", "lamp"])
    assert np.array_equal(second.vectors[0], first.vectors[2])
    assert tower.encoded == ["green velvet sofa", "fern", "lamp"]
    assert (client.query_cache.hits, client.query_cache.misses) == (1, 3)
    assert first.space == client.pin_embeddings([]).space


def test_eight_threads_with_the_same_query_encode_it_once(client, tower):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.search("velvet sofa", scorer="zero-shot"), range(24)))
    assert tower.encoded == ["velvet sofa"]
    assert len({tuple((hit.pin_id, hit.score) for hit in answer.hits) for answer in answers}) == 1


def test_no_cache_encodes_every_time(built, tower):
    with PinClient(built, encoder=tower, query_cache_bytes=0) as client:
        client.embed_queries(["fern"])
        client.embed_queries(["fern"])
    assert tower.encoded == ["fern", "fern"]


def test_boards_ask_for_pins_as_queries_do(client, tower):
    boards = client.embed_boards(["Living  Room", "", ["Sofas", "Velvet sofa", "Sofa bed", "sofa BED", "sofas"]])
    assert boards.ids == ("Living  Room", "", "Sofas")
    assert boards.found.tolist() == [True, False, True]
    assert tower.encoded == ["living room", "sofas, sofa bed, velvet sofa"]
    again = client.embed_boards([Board("", ("sofas",)), Board("SOFAS", ("sofa bed", "velvet sofa", "sofa bed"))])
    assert (again.found.tolist(), again.model) == ([True, True], tower.fingerprint)
    np.testing.assert_array_equal(again.vectors[1], boards.vectors[2])
    np.testing.assert_array_equal(client.embed_queries(["Living room"]).vectors[0], boards.vectors[0])
    assert tower.encoded[2:] == ["sofas"]
    with pytest.raises(UsageError, match="takes a list"):
        client.embed_boards("Living room")


def test_another_query_tower_is_refused_before_anything_is_computed(built):
    stranger = WordEncoder("another model")
    with PinClient(built, encoder=stranger) as client:
        with pytest.raises(PinfeatherError, match="not of another model"):
            client.embed_queries(["sofa"])
        scores = client.score("sofa", ["sofa0"], scorer="zero-shot")
        assert (scores.scorer, scores.degraded[0].partition(":")[0]) == ("bm25", "no_embedding")
        assert client.pin_embeddings(["sofa0"]).found.all()
    assert stranger.encoded == []


def test_a_changed_model_folder_is_refused(client_shop, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(packaged_model_path(), folder, copy_function=lambda s, d: Path(d).symlink_to(Path(s).resolve()))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}))
    space = load_space(client_shop, current_release(client_shop).live_space)
    save_space(client_shop, replace(space, model=str(folder)))
    with PinClient(client_shop.root) as client:
        assert client.pin_embeddings(["sofa0"]).found.all()
        with pytest.raises(PinfeatherError, match=str(folder)):
            client.embed_queries(["sofa"])


def test_features_by_service_with_mask_and_times(client):
    table = client.pin_features(["sofa0", "unknown", "wordless", "sofa0"])
    assert table.found.tolist() == [True, False, True, True]
    assert table.columns["pin_text__title"] == ["green velvet sofa", None, None, "green velvet sofa"]
    assert table.columns["pin_board_titles__board_titles"] == [["Living room"], None, None, ["Living room"]]
    assert table.columns["pin_engaged_queries__engaged_queries"][0] == ["green velvet sofa"]
    assert table.columns["pin_text__created_at"][0] == WHEN
    assert table.columns["pin_link_text__link_url"][2] == "https://example.org/1"
    assert table.event_timestamps["pin_text"][0] == np.datetime64("2026-05-01T12:00:00", "us")
    assert np.isnat(table.event_timestamps["pin_text"][1])
    assert table.row(1) == dict.fromkeys(table.columns)
    assert client.pin_features([]).found.tolist() == []
    with pytest.raises(
        UsageError, match="'nope'; there are: home_feed_v1, pin_content_v1, query_stats_v1, related_pins_v1"
    ):
        client.pin_features(["sofa0"], service="nope")


def test_features_of_queries_by_service(client):
    table = client.query_features(["GREEN velvet  sofa", "never asked", "", "green velvet sofa"])
    assert table.ids == ("green velvet sofa", "never asked", "", "green velvet sofa")
    assert table.found.tolist() == [True, False, False, True]
    assert table.columns["query_stats__searches"] == [8, None, None, 8]  # the requests r0impression to r3click
    assert table.columns["query_stats__clicks"][0] == 4
    assert np.isnat(table.event_timestamps["query_stats"]).tolist() == [False, True, True, False]
    assert client.query_features([]).found.tolist() == []
    with pytest.raises(UsageError, match="'nope'; there are: home_feed_v1"):
        client.query_features(["sofa"], "nope")
    with pytest.raises(UsageError, match=r"keyed by pin_id, not by query\. Ask with pin_features"):
        client.query_features(["sofa"], "pin_content_v1")
    with pytest.raises(UsageError, match="keyed by query: only pin_id"):
        client.pin_features(["sofa0"], "query_stats_v1")


@pytest.mark.parametrize("service", ["pin_content_v1", "relevance_v1", "home_feed_v1", "related_pins_v1"])
def test_the_straight_path_agrees_with_feast(client, service):
    asked = ["sofa0", "unknown", "wordless", "fern3", "sofa0"]
    ours = client.pin_features(asked, service)
    feast = client.pin_features(asked, service, slow_path=True)
    assert ours.ids == feast.ids
    assert list(ours.columns) == list(feast.columns)
    for name, values in ours.columns.items():
        assert values == feast.columns[name], name
    assert ours.found.tolist() == feast.found.tolist() == [True, False, True, True, True]
    for view, stamps in ours.event_timestamps.items():
        assert np.array_equal(stamps, feast.event_timestamps[view], equal_nan=True), view


def test_search_orders_filters_and_shows_content(client):
    found = client.search("green velvet sofa", limit=4, scorer="bm25", content=True)
    assert found.hits[0].pin_id == "sofa0"
    assert found.hits[0].content["pin_text__title"] == "green velvet sofa"
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    assert found.candidates == 19  # every pin with a vector
    assert client.search("sofa", limit=3, candidates=4).candidates == 4
    german = client.search("velvet sofa", lang="de").hits
    assert [hit.pin_id for hit in german] == ["sofa-de"]
    both = client.search("velvet sofa", limit=30, country=["DE", "US"]).hits
    assert len(both) == 19
    assert client.search("velvet sofa", lang="de", country="US").hits == ()
    for wrong in ({"limit": 0}, {"candidates": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            client.search("sofa", **wrong)


def test_related_pins_leave_out_the_pin_and_fold_duplicates(client):
    related = client.related_pins("twin", limit=19)
    shown = [hit.pin_id for hit in related.hits]
    assert related.found
    assert not {"twin", "twin-same", "twin-near"} & set(shown)
    assert len(shown) == len(set(shown)) == 16
    from_sofa = [hit.pin_id for hit in client.related_pins("sofa0", limit=19).hits]
    assert len({"twin", "twin-same", "twin-near"} & set(from_sofa)) == 1
    assert "sofa0" not in from_sofa
    plain = client.related_pins("sofa0", limit=5, diversity=0).hits
    assert [hit.similarity for hit in plain] == sorted((hit.similarity for hit in plain), reverse=True)
    assert all(hit.because == "sofa0" for hit in plain)
    assert [hit.pin_id for hit in client.related_pins("sofa0", lang="de", content=True).hits] == ["sofa-de"]


@pytest.fixture
def crowded(client_shop) -> RepoPaths:
    """Sixty copies of sofa1 fill the first page of whoever is near it; two pins share a text though not a vector."""
    sofa1, *aliases = WordEncoder().encode(["green velvet armchair", "striped hammock", "blue hammock"])
    points = [copy_of(f"copy{number}", sofa1, text_fp="armchair") for number in range(60)]
    points += [copy_of(f"alias{number}", vector, text_fp="hammock") for number, vector in enumerate(aliases)]
    with open_writer(client_shop.online) as writer:
        writer.upsert(current_release(client_shop).live_space, points)
        writer.publish()
    return client_shop


def test_related_pins_look_further_when_duplicates_fill_the_first_page(crowded, tower):
    with PinClient(crowded.root, encoder=tower) as client:
        assert len(client.related_pins("sofa1", limit=3).hits) == 3
        everything = [hit.pin_id for hit in client.related_pins("pasta0", limit=100).hits]
    assert len([pin for pin in everything if pin.startswith("alias")]) == 1
    assert len([pin for pin in everything if pin == "sofa1" or pin.startswith("copy")]) == 1


def test_home_feed_looks_further_for_an_interest_before_it_gives_its_share_away(crowded, tower, monkeypatch):
    def feed(limit: int) -> list[str]:
        with PinClient(crowded.root, encoder=tower) as client:
            return [hit.because for hit in client.home_feed(["sofa1", "fern0"], limit, exploration=0).hits]

    assert sorted(feed(6)) == ["fern0"] * 3 + ["sofa1"] * 3
    monkeypatch.setattr("serving_client.lists.home_feed.MOST_CANDIDATES", 26)
    assert feed(6) == ["fern0"] * 6


def test_more_diversity_means_less_alike(client):
    def alike(diversity: float) -> float:
        ids = [hit.pin_id for hit in client.related_pins("sofa0", limit=4, diversity=diversity).hits]
        vectors = client.pin_embeddings(ids).vectors
        return float(np.triu(vectors @ vectors.T, 1).sum())

    assert alike(0.9) < alike(0.0)


def test_an_unknown_pin_has_no_related_pins(client):
    for pin in ("unknown", "wordless"):
        answer = client.related_pins(pin)
        assert (answer.found, answer.hits) == (False, ())
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="diversity"):
            client.related_pins("sofa0", diversity=wrong)


def test_home_feed_serves_every_interest_and_shows_nothing_twice(client):
    feed = client.home_feed(["sofa0", "unknown", "fern0", "sofa0"], 6, ["sofa1", "fern1"], exploration=0)
    shown = [hit.pin_id for hit in feed.hits]
    assert feed.found.tolist() == [True, False, True, True]
    assert len(shown) == len(set(shown)) == 6
    assert not {"sofa0", "fern0", "sofa1", "fern1"} & set(shown)
    assert [hit.because for hit in feed.hits].count("sofa0") == 3
    assert feed.hits[0].because == "sofa0"  # the most recent interest leads
    assert {"fern2", "fern3", "fern4"} & set(shown)
    everything = client.home_feed(["sofa0", "fern0"], limit=50)
    assert len({"twin", "twin-same", "twin-near"} & {hit.pin_id for hit in everything.hits}) == 1
    assert len(everything.hits) == 15
    assert client.home_feed(["twin"], limit=50).hits
    assert not {"twin-same", "twin-near"} & {hit.pin_id for hit in client.home_feed(["twin"], limit=50).hits}


def test_home_feed_without_a_known_pin_is_empty(client):
    feed = client.home_feed(["unknown"])
    assert (feed.found.tolist(), feed.hits) == ([False], ())
    assert client.home_feed([]).hits == ()


def test_reading_vectors_imports_no_model_and_no_feast(built):
    code = """if True:
        import sys
        from serving_client import PinClient
        with PinClient(sys.argv[1]) as client:
            assert client.pin_embeddings(["sofa0"]).found.all()
            assert client.pin_features(["sofa0"]).found.all()
            assert client.related_pins("sofa0").hits
            assert client.score("sofa", ["sofa0"], scorer="bm25").ranking[0] > 0
        heavy = {"torch", "feast", "transformers", "sentence_transformers", "pandas", "duckdb", "sklearn", "scipy"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code, str(built)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
