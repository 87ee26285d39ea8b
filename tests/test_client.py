"""The client over a real repository: what is found, what is computed, what happens when parts change or are missing."""

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedders.encoder import EncodingRecipe, model_fingerprint, packaged_model_path
from feature_repo.aggregates import aggregate
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.text import words
from feature_repo.validation import validate
from materialize.releases import LIVE_EMBEDDING, current_release, write_release
from materialize.run import RunOptions, materialize
from materialize.spaces import load_space, save_space
from materialize.stores.layout import point_id, row_payload
from materialize.stores.port import CollectionSpec, Point, VectorSpec
from materialize.stores.publication import open_writer
from pinfeather.apply import apply_definitions
from pinfeather.init import init_repository
from pinfeather.pipeline import fit_lexical
from serving_client import PinClient
from serving_client.publications import Publications

WHEN = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG = "linen brass walnut oak marble cotton wool jute cane teak glass steel clay slate cork felt silk rope tile moss"
MORE = "amber coral ivory olive plum rust sand teal mint rose navy onyx pearl ruby sage wine fern kelp lime mauve"
TOPICS = {
    "sofa": [
        "green velvet sofa",
        "green velvet armchair",
        "grey linen sofa",
        "velvet sofa with brass legs",
        "sofa bed",
    ],
    "pasta": ["tomato pasta", "pasta with garlic", "creamy pasta bake", "pasta salad with olives", "fresh pasta dough"],
    "fern": ["fern in a pot", "watering a fern", "fern for shade", "hanging fern basket", "dividing a fern"],
}


class WordEncoder:
    """Texts as sums of one fixed direction per word; counts what it encodes."""

    dimension = 384
    recipe = EncodingRecipe(device="cpu", precision="fp32", threads=1, token_budget=1, runtime="test")

    def __init__(self, fingerprint: str | None = None):
        self.fingerprint = fingerprint or model_fingerprint(packaged_model_path())
        self.encoded: list[str] = []

    def encode(self, texts, progress=None):
        self.encoded.extend(texts)
        rows = np.stack([sum((direction(word) for word in words(text.lower())), np.zeros(384)) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def direction(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384)


def pins() -> list[dict]:
    rows = [
        {"pin_id": f"{topic}{number}", "title": title, "lang": "en", "country": "US"}
        for topic, titles in TOPICS.items()
        for number, title in enumerate(titles)
    ]
    twin = {"title": "green velvet sofa room", "description": f"{LONG} {MORE}", "lang": "en", "country": "US"}
    rows += [
        {"pin_id": "twin", **twin},
        {"pin_id": "twin-same", **twin},
        {"pin_id": "twin-near", **twin, "description": f"{LONG} {MORE} tonight"},
        {"pin_id": "sofa-de", "title": "grünes sofa velvet", "lang": "de", "country": "DE"},
        {"pin_id": "wordless", "link_url": "https://example.org/1", "lang": "en", "country": "US"},
    ]
    return [{"created_at": WHEN, "event_timestamp": WHEN + timedelta(seconds=n), **r} for n, r in enumerate(rows)]


def write_raw(paths: RepoPaths) -> None:
    clicks = [
        {"request_id": f"r{user}{action}", "query": "Green  velvet sofa", "lang": "en", "country": "US"}
        | {"user_id": f"u{user}", "pin_id": "sofa0", "position": 0, "action": action, "dwell_s": 3.0}
        | {"event_timestamp": WHEN + timedelta(hours=user)}
        for user in range(4)
        for action in ("impression", "click")
    ]
    saves = [
        {"board_id": f"b{user}", "board_title": "Living room", "pin_id": "sofa0", "user_id": f"u{user}"}
        | {"saved_at": WHEN, "removed_at": None, "secret": False}
        for user in range(3)
    ]
    texts = ("title", "description", "link_url", "link_title", "link_description", "image_uri", "image_sha256")
    for table, rows in (("search_log", clicks), ("board_saves", saves)):
        (paths.raw / table).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), paths.raw / table / "part.parquet")
    (paths.raw / "pins").mkdir(parents=True)
    columns = {name: [pin.get(name) for pin in pins()] for name in ("pin_id", *texts, "lang", "country")}
    times = {name: [pin.get(name) for pin in pins()] for name in ("created_at", "event_timestamp", "deleted_at")}
    table = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    table |= {name: pa.array(values, pa.timestamp("us", tz="UTC")) for name, values in times.items()}
    pq.write_table(pa.table(table), paths.raw / "pins" / "part.parquet")


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A small catalogue through every step, for reading only."""
    paths = init_repository(tmp_path_factory.mktemp("client") / "repo")
    write_raw(paths)
    assert validate(paths).total_rejected == 0
    aggregate(paths)
    apply_definitions(paths)
    counts = materialize(paths, RunOptions(encoder=WordEncoder()))
    assert counts.rejected == 1
    fit_lexical(paths)
    return paths.root


@pytest.fixture()
def repo(built, tmp_path) -> RepoPaths:
    """A copy to change."""
    return RepoPaths.open(shutil.copytree(built, tmp_path / "repo", ignore=shutil.ignore_patterns("readers")))


@pytest.fixture()
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture()
def client(built, encoder) -> Iterator[PinClient]:
    with PinClient(built, encoder=encoder) as opened:
        yield opened


# --- vectors ------------------------------------------------------------------------------------------------------------


def test_pin_vectors_come_in_the_order_asked_with_a_mask(client, encoder):
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
    assert answer.model == encoder.fingerprint
    assert encoder.encoded == []


def test_a_space_has_its_public_its_short_and_its_physical_name(client):
    live = client.pin_embeddings(["sofa0"])
    for name in ("live", LIVE_EMBEDDING, live.space):
        assert np.array_equal(client.pin_embeddings(["sofa0"], space=name).vectors, live.vectors)
    with pytest.raises(UsageError, match=rf"no space 'nope'; there are: live, {LIVE_EMBEDDING}, {live.space}"):
        client.pin_embeddings(["sofa0"], space="nope")
    with pytest.raises(UsageError, match="no space '../../x'"):
        client.embed_queries(["sofa"], space="../../x")


def test_one_text_where_a_batch_is_wanted_says_so(client):
    with pytest.raises(UsageError, match="ids takes a list"):
        client.pin_embeddings("sofa0")


def test_query_vectors_are_computed_once_per_canonical_query(client, encoder):
    first = client.embed_queries(["Green  Velvet SOFA", "", "fern", " \x00 ", "green velvet sofa"])
    assert first.ids == ("green velvet sofa", "", "fern", "", "green velvet sofa")
    assert first.found.tolist() == [True, False, True, False, True]
    assert np.isnan(first.vectors[[1, 3]]).all()
    assert np.array_equal(first.vectors[0], first.vectors[4])
    assert np.array_equal(first.vectors[0], first.vectors[0].astype(np.float16).astype(np.float32))
    second = client.embed_queries(["FERN", "lamp"])
    assert np.array_equal(second.vectors[0], first.vectors[2])
    assert encoder.encoded == ["green velvet sofa", "fern", "lamp"]
    assert (client.query_cache.hits, client.query_cache.misses) == (1, 3)
    assert first.space == client.pin_embeddings([]).space


def test_eight_threads_with_the_same_query_encode_it_once(client, encoder):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.search("velvet sofa", scorer="zero-shot"), range(24)))
    assert encoder.encoded == ["velvet sofa"]
    assert len({tuple((hit.pin_id, hit.score) for hit in answer.hits) for answer in answers}) == 1


def test_no_cache_encodes_every_time(built, encoder):
    with PinClient(built, encoder=encoder, query_cache_bytes=0) as client:
        client.embed_queries(["fern"])
        client.embed_queries(["fern"])
    assert encoder.encoded == ["fern", "fern"]


def test_boards_are_written_as_a_pin_s_board_titles_are(client, encoder):
    boards = client.embed_boards(["Living room", ""])
    assert boards.ids == ("Living room", "")
    assert boards.found.tolist() == [True, False]
    assert encoder.encoded == ["boards: Living room"]


def test_another_query_tower_is_refused_before_anything_is_computed(built):
    stranger = WordEncoder("another model")
    with PinClient(built, encoder=stranger) as client:
        with pytest.raises(PinfeatherError, match="not of another model"):
            client.search("sofa", scorer="zero-shot")
        assert client.pin_embeddings(["sofa0"]).found.all()
    assert stranger.encoded == []


def test_a_changed_model_folder_is_refused(repo, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(packaged_model_path(), folder, copy_function=lambda s, d: Path(d).symlink_to(Path(s).resolve()))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}))
    space = load_space(repo, current_release(repo).live_space)
    save_space(repo, replace(space, model=str(folder)))
    with PinClient(repo.root) as client:
        assert client.pin_embeddings(["sofa0"]).found.all()
        with pytest.raises(PinfeatherError, match=str(folder)):
            client.embed_queries(["sofa"])


# --- features -----------------------------------------------------------------------------------------------------------


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
        UsageError, match="'nope'; there are: home_feed_v1, pin_content_v1, related_pins_v1, relevance_v1"
    ):
        client.pin_features(["sofa0"], service="nope")


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


# --- scores without a student -------------------------------------------------------------------------------------------


def test_bm25_ranks_without_any_model(client, encoder):
    scores = client.score("Velvet sofa", ["pasta0", "unknown", "sofa3", "wordless", "sofa4"], scorer="bm25")
    assert scores.query == "velvet sofa"
    assert scores.found.tolist() == [True, False, True, True, True]
    assert [scores.ids[row] for row in scores.order()] == ["sofa3", "sofa4", "pasta0", "wordless"]
    assert np.isnan(scores.ranking[1])
    assert np.isnan(scores.probabilities).all()
    assert np.isnan(scores.expected_level).all()
    assert scores.level.tolist() == [0, 0, 0, 0, 0]
    assert (scores.scorer, scores.bundle, scores.degraded) == ("bm25", None, ())
    assert encoder.encoded == []


def test_without_a_bundle_the_cosine_ranks_and_the_answer_says_so(client):
    scores = client.score("velvet sofa", ["pasta0", "sofa3", "unknown"])
    vectors = client.pin_embeddings(["pasta0", "sofa3"]).vectors
    query = client.embed_queries(["velvet sofa"]).vectors[0]
    assert scores.scorer == "zero-shot"
    assert np.allclose(scores.ranking[:2], vectors @ query, atol=1e-6)
    assert np.isnan(scores.ranking[2])
    assert scores.degraded == ("release 2 names no student bundle; scored by zero-shot",)
    assert client.score("velvet sofa", ["sofa3"], scorer="zero-shot").degraded == ()
    assert scores.explanations is None
    with pytest.raises(UsageError, match="no scorer 'magic'; there are: student, zero-shot, bm25"):
        client.score("velvet sofa", ["sofa3"], scorer="magic")


def test_without_a_space_bm25_ranks_and_without_statistics_nothing_can(repo, encoder):
    release = current_release(repo)
    with open_writer(repo.online) as writer:
        writer.publish(replace(release, number=9, names={}).to_json())
    with PinClient(repo.root, encoder=encoder) as client:
        scores = client.score("velvet sofa", ["sofa3"])
        assert scores.scorer == "bm25"
        assert [text.split(";")[0] for text in scores.degraded] == ["release 9 names no live space"] * 2
        with open_writer(repo.online) as writer:
            writer.publish(replace(release, number=10, names={}, lexical=None).to_json())
        assert client.refresh()
        with pytest.raises(PinfeatherError, match="Nothing can score .* pinfeather lexical fit"):
            client.score("velvet sofa", ["sofa3"])


def test_an_empty_query_scores_nothing_and_finds_nothing(client, encoder):
    scores = client.score(" \t", ["sofa0"], scorer="zero-shot")
    assert np.isnan(scores.ranking).all()
    assert scores.degraded == ("the query is empty",)
    assert client.search("").hits == ()
    assert encoder.encoded == []


# --- search -------------------------------------------------------------------------------------------------------------


def test_search_orders_filters_and_shows_content(client):
    found = client.search("green velvet sofa", limit=4, scorer="bm25", content=True)
    assert found.hits[0].pin_id == "sofa0"
    assert found.hits[0].content["pin_text__title"] == "green velvet sofa"
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    assert found.candidates == 19  # every pin with a vector
    assert client.search("sofa", candidates=3).candidates == 3
    german = client.search("velvet sofa", lang="de").hits
    assert [hit.pin_id for hit in german] == ["sofa-de"]
    both = client.search("velvet sofa", limit=30, country=["DE", "US"]).hits
    assert len(both) == 19
    assert client.search("velvet sofa", lang="de", country="US").hits == ()
    for wrong in ({"limit": 0}, {"candidates": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            client.search("sofa", **wrong)


# --- related pins and home feed -----------------------------------------------------------------------------------------


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


def test_related_pins_fetch_further_when_duplicates_fill_the_first_page(repo, encoder):
    space = load_space(repo, current_release(repo).live_space)
    vector = WordEncoder().encode(["green velvet sofa"])[0]
    with open_writer(repo.online) as writer:
        points = [copy_of(f"copy{n}", vector, text_fp="same") for n in range(60)]
        writer.upsert(space.name, points)
        writer.publish()
    with PinClient(repo.root, encoder=encoder) as client:
        assert len(client.related_pins("fern0", limit=3, diversity=0).hits) == 3
        assert len(client.related_pins("sofa0", limit=3).hits) == 3


def copy_of(pin_id: str, vector: np.ndarray, **extras) -> Point:
    entity = {"pin_id": pin_id}
    payload = row_payload("repo", LIVE_EMBEDDING, entity, 0, {}, extras=extras)
    return Point(point_id("repo", LIVE_EMBEDDING, entity), payload, {"vector": vector})


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
    feed = client.home_feed(["sofa0", "unknown", "fern0", "sofa0"], limit=6, seen=["sofa1", "fern1"])
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


# --- publications -------------------------------------------------------------------------------------------------------


def move_pin(repo: RepoPaths, pin_id: str, text: str) -> None:
    """Give a pin the vector of another text, and publish."""
    with open_writer(repo.online) as writer:
        writer.upsert(current_release(repo).live_space, [copy_of(pin_id, WordEncoder().encode([text])[0])])
        writer.publish()


def test_a_request_ends_on_the_publication_it_began_with(repo):
    class Interrupting(WordEncoder):
        """While the query is encoded, a run publishes and another thread switches."""

        def encode(self, texts, progress=None):
            if texts == ["fern"]:
                move_pin(repo, "pasta0", "fern")
                with ThreadPoolExecutor(1) as pool:
                    assert pool.submit(client.refresh).result()
            return super().encode(texts)

    with PinClient(repo.root, encoder=Interrupting()) as client:
        during = client.score("fern", ["pasta0"], scorer="zero-shot").similarity[0]
        after = client.score("fern", ["pasta0"], scorer="zero-shot").similarity[0]
    assert during < 0.5
    assert after > 0.99


def test_newer_publications_are_looked_for_once_a_second(repo):
    now, switched = [100.0], []
    publications = Publications(repo, lambda publication: switched.append(publication.number), 1.0, lambda: now[0])

    def serving() -> int:
        with publications.current() as publication:
            return publication.number

    first = serving()
    move_pin(repo, "pasta0", "fern")
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


def test_an_old_publication_is_closed_when_its_last_request_is_done(repo):
    publications = Publications(repo, lambda publication: None)
    with publications.current() as old:
        move_pin(repo, "pasta0", "fern")
        assert publications.refresh()
        assert not publications.refresh()
        assert old.vector_points(old.space(), ["pasta0"])[0] is not None
        with publications.current() as new:
            assert new is not old
    with pytest.raises(Exception, match="closed"):
        old.vector_points(old.space(), ["pasta0"])
    publications.close()
    assert [path for path in (repo.online / "readers").iterdir() if path.is_dir()] == []


def test_an_unreadable_new_publication_leaves_the_old_one_serving(repo):
    now = [0.0]
    publications = Publications(repo, lambda publication: None, 1.0, lambda: now[0])
    with publications.current() as good:
        number = good.number
    broken = repo.online / "publications" / f"{number + 1:06d}"
    broken.mkdir()
    (broken / "publication.json").write_text("{")
    now[0] += 2
    with publications.current() as still:
        assert still is good
    publications.close()


def test_a_release_with_another_model_drops_the_old_query_vectors(repo, encoder):
    with PinClient(repo.root, encoder=encoder) as client:
        client.embed_queries(["fern"])
        old = load_space(repo, current_release(repo).live_space)
        new = replace(old, name="next", model_fingerprint="next-model", query_towers=("next-model",))
        save_space(repo, new)
        with open_writer(repo.online) as writer:
            writer.create("next", CollectionSpec({"vector": VectorSpec(384)}))
            writer.upsert("next", [copy_of("fern0", np.eye(384, dtype=np.float32)[0])])
            writer.publish(write_release(repo, names={LIVE_EMBEDDING: "next"}).to_json())
        assert client.refresh()
        assert client.query_cache.entries == 0
        assert client.pin_embeddings(["fern0", "fern1"]).found.tolist() == [True, False]
        assert client.pin_embeddings(["fern1"], space=old.name).found.all()  # a consumer may stay with a space
        with pytest.raises(PinfeatherError, match="next-model"):
            client.embed_queries(["fern"])
        assert client.embed_queries(["fern"], space=old.name).space == old.name


# --- nothing there yet --------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_with_the_command_that_makes_it(repo, tmp_path):
    with pytest.raises(PinfeatherError, match="no Feast repository"):
        PinClient(tmp_path / "nowhere")
    with PinClient(init_repository(tmp_path / "fresh").root) as client, pytest.raises(PinfeatherError, match="apply"):
        client.pin_embeddings(["sofa0"])
    shutil.rmtree(repo.online)
    with PinClient(repo.root) as client:
        with pytest.raises(PinfeatherError, match="pinfeather materialize"):
            client.search("sofa")
        with open_writer(repo.online) as writer:
            writer.publish()
        with pytest.raises(PinfeatherError, match="No space is live .* pinfeather materialize"):
            client.pin_embeddings(["sofa0"])
        assert client.pin_features(["sofa0"]).found.tolist() == [False]


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
