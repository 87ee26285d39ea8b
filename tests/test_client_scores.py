"""Scores: by the student, by what there is without one, and what the answer says about it."""

from dataclasses import replace

import numpy as np
import pytest

from embedders.bundle import StudentBundle
from embedders.relevance import RelevanceInputs, feature_names, relevance_features
from embedders.student import RelevanceHead
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LEXICAL_VERSION, LexicalStatistics, encode_blob
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields
from materialize.releases import current_release, publish_release
from materialize.spaces import Space, load_space
from materialize.stores.layout import decode_feature, encode_value, entity_collection, point_id
from materialize.stores.publication import open_writer
from serving_client import PinClient

pytest_plugins = ("client_repo",)


def test_bm25_ranks_without_any_model(client, tower):
    scores = client.score("Velvet sofa", ["pasta0", "unknown", "sofa3", "wordless", "sofa4"], scorer="bm25")
    assert scores.query == "velvet sofa"
    assert scores.found.tolist() == [True, False, True, True, True]
    assert [scores.ids[row] for row in scores.order()] == ["sofa3", "sofa4", "pasta0", "wordless"]
    assert np.isnan(scores.ranking[1])
    assert np.isnan(scores.probabilities).all()
    assert np.isnan(scores.expected_level).all()
    assert scores.level.tolist() == [0, 0, 0, 0, 0]
    assert (scores.scorer, scores.bundle, scores.degraded) == ("bm25", None, ())
    assert tower.encoded == []


def test_without_a_bundle_the_cosine_ranks_and_the_answer_says_so(client):
    scores = client.score("velvet sofa", ["pasta0", "sofa3", "unknown"])
    vectors = client.pin_embeddings(["pasta0", "sofa3"]).vectors
    query = client.embed_queries(["velvet sofa"]).vectors[0]
    assert scores.scorer == "zero-shot"
    assert np.allclose(scores.ranking[:2], vectors @ query, atol=1e-6)
    assert np.isnan(scores.ranking[2])
    assert scores.degraded == ("no_student: release 2 names no student bundle; scored by zero-shot",)
    assert client.score("velvet sofa", ["sofa3"], scorer="zero-shot").degraded == ()
    assert scores.explanations is None
    with pytest.raises(UsageError, match="no scorer 'magic'; there are: student, zero-shot, bm25"):
        client.score("velvet sofa", ["sofa3"], scorer="magic")


def test_without_a_space_bm25_ranks_and_without_statistics_nothing_can(client_shop, tower):
    release = current_release(client_shop)
    with open_writer(client_shop.online) as writer:
        writer.publish(replace(release, number=9, names={}).to_json())
    with PinClient(client_shop.root, encoder=tower) as client:
        scores = client.score("velvet sofa", ["sofa3"])
        assert scores.scorer == "bm25"
        assert scores.degraded == ("no_space: release 9 names no live space; scored by bm25",)
        with open_writer(client_shop.online) as writer:
            writer.publish(replace(release, number=10, names={}, lexical=None).to_json())
        assert client.refresh()
        with pytest.raises(PinfeatherError, match=r"Nothing can score.*`pinfeather lexical fit`"):
            client.score("velvet sofa", ["sofa3"])


def test_an_empty_query_scores_nothing_and_finds_nothing(client, tower):
    scores = client.score(" \t", ["sofa0"], scorer="zero-shot")
    assert np.isnan(scores.ranking).all()
    assert scores.degraded == ("empty_query: the query is empty",)
    assert client.search("").hits == ()
    assert tower.encoded == []


# --- with a student ---


def student(space: Space, seed: int = 5, **changes) -> StudentBundle:
    """A bundle with made-up weights: what it says is no use, how it is said is what these tests look at."""
    rng = np.random.default_rng(seed)
    names = feature_names(space.dimension)
    wide = len(names)
    head = RelevanceHead(
        names,
        np.zeros(wide, np.float32),
        np.full(wide, 0.5, np.float32),
        rng.standard_normal((wide, 5)).astype(np.float32),
        rng.standard_normal(5).astype(np.float32),
    )
    blobs = [encode_blob(PinFields(title=title)) for title in ("green velvet sofa", "tomato pasta")]
    given = {"query_tower": space.model_fingerprint, "spaces": (space.name,), "metrics": {}, "training": {}}
    statistics = LexicalStatistics.fit(blobs)
    return StudentBundle.make("made-up", head, statistics, space.template, **(given | changes))


@pytest.fixture
def judged(client_shop) -> RepoPaths:
    """The repository with a bundle in its release."""
    student(live(client_shop)).save(client_shop.bundles / "made-up")
    publish_release(client_shop, bundle="made-up")
    return client_shop


def live(client_shop: RepoPaths) -> Space:
    return load_space(client_shop, current_release(client_shop).live_space)


def test_the_student_scores_what_training_would_score(judged, tower):
    asked = ["pasta0", "unknown", "sofa0", "wordless", "pasta0"]
    with PinClient(judged.root, encoder=tower) as client:
        scores = client.score("Green velvet  sofa", asked)
        through_feast = client.pin_features(asked, "relevance_v1", slow_path=True).columns
        query = client.embed_queries(["green velvet sofa"]).vectors[0]
    vectors = np.full((5, 384), np.nan, dtype=np.float32)
    for row, vector in zip(vectors, through_feast["pin_student_embedding__embedding"], strict=True):
        row[:] = np.nan if vector is None else vector
    inputs = RelevanceInputs(
        "green velvet sofa",
        query,
        vectors,
        through_feast["pin_relevance__tokens"],
        np.array(through_feast["pin_relevance__click_rate"], dtype=np.float32),
        np.array(through_feast["pin_relevance__save_rate"], dtype=np.float32),
    )
    bundle = StudentBundle.load(judged.bundles / "made-up")
    features, _ = relevance_features(inputs, bundle.statistics)
    expected = bundle.head.probabilities(features)
    known = [0, 2, 3, 4]
    assert np.allclose(scores.probabilities[known], expected[known], atol=1e-6)
    assert np.allclose(scores.expected_level[known], expected[known] @ [1, 2, 3, 4, 5], atol=1e-6)
    assert scores.level[known].tolist() == np.floor(scores.expected_level[known] + 0.5).tolist()
    assert np.isfinite(inputs.click_rate[2])
    assert np.isnan(scores.probabilities[1]).all()
    assert (scores.level[1], scores.found.tolist()) == (0, [True, False, True, True, True])
    assert np.array_equal(scores.ranking, scores.expected_level, equal_nan=True)
    assert (scores.scorer, scores.bundle, scores.degraded) == ("student", "made-up", ())
    assert scores.space == live(judged).name
    assert tower.encoded == ["green velvet sofa"]


def test_explanations_sum_to_the_expected_level(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        scores = client.score("velvet sofa", ["sofa0", "unknown", "pasta1", "wordless"], explain=True)
        assert client.score("velvet sofa", ["sofa0"]).explanations is None
        hits = client.search("velvet sofa", limit=5, explain=True).hits
    assert scores.explanations[1] is None
    for row in (0, 2, 3):
        why = scores.explanations[row]
        assert abs(sum(why.contributions.values()) + why.bias - (scores.expected_level[row] - why.baseline)) < 1e-6
    top = scores.explanations[0].top(2)
    assert [abs(value) for _, value in top] == sorted(map(abs, scores.explanations[0].contributions.values()))[:-3:-1]
    for hit in hits:
        why = hit.explanation
        assert abs(sum(why.contributions.values()) + why.bias - (hit.expected_level - why.baseline)) < 1e-6


def test_search_with_a_student_ranks_by_expected_level_as_score_does(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        found = client.search("velvet sofa", limit=30)
        scores = client.score("velvet sofa", [hit.pin_id for hit in found.hits])
    levels = [hit.expected_level for hit in found.hits]
    assert len(levels) == 19
    assert levels == sorted(levels, reverse=True)
    assert np.allclose(levels, scores.expected_level, atol=1e-6)
    assert [hit.level for hit in found.hits] == scores.level.tolist()


def test_a_bundle_that_arrives_is_used_and_one_for_another_space_is_not(client_shop, tower):
    with PinClient(client_shop.root, encoder=tower) as client:
        assert client.score("sofa", ["sofa0"]).scorer == "zero-shot"
        student(live(client_shop)).save(client_shop.bundles / "one")
        publish_release(client_shop, bundle="one")
        assert client.refresh()
        assert client.score("sofa", ["sofa0"]).scorer == "student"
        student(live(client_shop), spaces=("elsewhere",)).save(client_shop.bundles / "two")
        publish_release(client_shop, bundle="two")
        assert client.refresh()
        scores = client.score("sofa", ["sofa0"])
        assert scores.scorer == "zero-shot"
        assert "reads elsewhere, not the space" in scores.degraded[0]
        student(live(client_shop), query_tower="other tower").save(client_shop.bundles / "three")
        publish_release(client_shop, bundle="three")
        assert client.refresh()
        assert "needs the query tower other tower" in client.score("sofa", ["sofa0"]).degraded[0]


def test_a_blob_of_another_lexical_version_is_masked_and_reported(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        before = client.score("velvet sofa", ["sofa0", "sofa1"])
        rewrite_blob(judged, "sofa0", lambda blob: bytes([LEXICAL_VERSION + 1]) + blob[1:])
        assert client.refresh()
        after = client.score("velvet sofa", ["sofa0", "sofa1"])
        masked = f"lexical_masked: lexical features of 1 pins are masked: lexical blob of version {LEXICAL_VERSION + 1}"
        assert masked in after.degraded[0]
        assert len(after.degraded) == 1
        assert after.found.all()
        assert after.expected_level[0] != before.expected_level[0]
        assert after.expected_level[1] == before.expected_level[1]
        by_words = client.score("velvet sofa", ["sofa0", "sofa1"], scorer="bm25")
        assert by_words.degraded[0].startswith("lexical_masked: lexical features of 1 pins are masked")
        assert by_words.ranking[1] > 0


def rewrite_blob(client_shop: RepoPaths, pin_id: str, change) -> None:
    collection = entity_collection("repo", ["pin_id"])
    with open_writer(client_shop.online) as writer:
        [point] = writer.get_many(collection, [point_id("repo", "pin_relevance", {"pin_id": pin_id})])
        blob = decode_feature([point], "tokens", "bytes")[0]
        point.payload["f"]["tokens"] = encode_value(change(blob), "bytes")
        writer.upsert(collection, [point])
        writer.publish()


def test_a_snapshot_of_another_lexical_version_falls_back_or_says_so(judged, tower):
    statistics = replace(StudentBundle.load(judged.bundles / "made-up").statistics, lexical_version=LEXICAL_VERSION + 1)
    replace(student(live(judged)), statistics=statistics).save(judged.bundles / "newer")
    publish_release(judged, bundle="newer", lexical=statistics.save(judged.lexical))
    with PinClient(judged.root, encoder=tower) as client:
        scores = client.score("velvet sofa", ["sofa0"])
        assert scores.scorer == "zero-shot"
        assert "bundle newer is of another lexical version" in scores.degraded[0]
        with pytest.raises(PinfeatherError, match="pinfeather lexical fit"):
            client.score("velvet sofa", ["sofa0"], scorer="bm25")
