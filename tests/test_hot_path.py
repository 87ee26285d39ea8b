"""What serving reads as kept arrays is what Feast gives for the same rows, bit by bit, the first time and again."""

import numpy as np
import pytest
from test_client_scores import live, student

from embedders.bundle import StudentBundle
from embedders.relevance import RelevanceInputs, relevance_features
from embedders.student import RelevanceHead
from feature_repo.lexical import lexical_features
from materialize.releases import publish_release
from serving_client import PinClient

pytest_plugins = ("client_repo",)

PINS = ["pasta0", "unknown", "sofa0", "wordless", "pasta0", "twin", "sofa-de", "fern3"]
QUERIES = ["green velvet sofa", "pasta", "velvet velvet sofa with brass legs", "nothing of this sort"]


@pytest.fixture
def judged(client_shop):
    """The repository with a bundle in its release."""
    student(live(client_shop)).save(client_shop.bundles / "made-up")
    publish_release(client_shop, bundle="made-up")
    return client_shop


@pytest.fixture
def inputs(monkeypatch):
    """Every matrix that the head is given."""
    seen = []
    real = RelevanceHead.probabilities

    def probabilities(head, features):
        seen.append(features.copy())
        return real(head, features)

    monkeypatch.setattr(RelevanceHead, "probabilities", probabilities)
    return seen


def through_feast(client, query, statistics):
    """The head's inputs out of what Feast's get_online_features gives."""
    columns = client.pin_features(PINS, "relevance_v1", slow_path=True).columns
    vectors = np.array(
        [[np.nan] * 384 if each is None else each for each in columns["pin_student_embedding__embedding"]], np.float32
    )
    rates = [np.array(columns[f"pin_relevance__{name}"], np.float32) for name in ("click_rate", "save_rate")]
    vector = client.embed_queries([query]).vectors[0]
    given = RelevanceInputs(query, vector, vectors, columns["pin_relevance__tokens"], *rates)
    return relevance_features(given, statistics)[0]


def set_cache(paths, megabytes):
    file = paths.root / "feature_store.yaml"
    text = file.read_text()
    assert text.count("online_store:\n") == 1
    file.write_text(text.replace("online_store:\n", f"online_store:\n  cache_mb: {megabytes}\n"))


@pytest.mark.parametrize("megabytes", [0, 0.001, 64])
def test_head_inputs_and_probabilities_are_those_through_feast(judged, tower, inputs, megabytes):
    set_cache(judged, megabytes)
    bundle = StudentBundle.load(judged.bundles / "made-up")
    with PinClient(judged.root, encoder=tower) as client:
        for query in QUERIES:
            expected = through_feast(client, query, bundle.statistics)
            inputs.clear()
            first, again = client.score(query, PINS), client.score(query, PINS)
            assert len(inputs) == 2
            for given in inputs:
                assert np.allclose(given, expected, rtol=0, atol=1e-6, equal_nan=True)
            known = np.array([pin != "unknown" for pin in PINS])
            assert np.allclose(
                first.probabilities[known], bundle.head.probabilities(expected)[known], rtol=0, atol=1e-6
            )
            assert np.isnan(first.probabilities[~known]).all()
            assert np.array_equal(first.probabilities, again.probabilities, equal_nan=True)
            explained = client.score(query, PINS, explain=True)
            assert np.array_equal(explained.probabilities, first.probabilities, equal_nan=True)
            for level, why in zip(explained.expected_level, explained.explanations, strict=True):
                if why is not None:
                    assert abs(sum(why.contributions.values()) + why.bias + why.baseline - level) < 1e-6


def test_words_at_hand_give_the_features_that_words_read_now_give(judged, tower):
    statistics = StudentBundle.load(judged.bundles / "made-up").statistics
    with PinClient(judged.root, encoder=tower) as client:
        blobs = client.pin_features(PINS, "relevance_v1").columns["pin_relevance__tokens"]
        vector, vectors = client.embed_queries(["sofa"]).vectors[0], client.pin_embeddings(PINS).vectors
    read, names = relevance_features(RelevanceInputs("sofa", vector, vectors, blobs), statistics)
    words = lexical_features("sofa", blobs, statistics)[0]
    given, _ = relevance_features(RelevanceInputs("sofa", vector, vectors, [], lexical=words), None)
    assert np.array_equal(read, given, equal_nan=True)
    assert np.isnan(relevance_features(RelevanceInputs("sofa", None, vectors, blobs), statistics)[0][:, -384:]).all()
    assert len(names) == read.shape[1]


def test_what_a_caller_does_to_an_answer_is_not_seen_by_the_next(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        before = client.pin_features(["sofa0"], "pin_content_v1").columns["pin_board_titles__board_titles"]
        before[0].append("changed")
        client.pin_embeddings(["sofa0"]).vectors[:] = 0
        assert client.pin_features(["sofa0"], "pin_content_v1").columns["pin_board_titles__board_titles"] == [
            ["Living room"]
        ]
        assert np.linalg.norm(client.pin_embeddings(["sofa0"]).vectors) > 0.9


def test_rows_that_were_read_are_not_read_again(judged, tower, monkeypatch):
    from materialize.stores.edge_collection import EdgeCollection

    asked = []
    real = EdgeCollection._read
    monkeypatch.setattr(
        EdgeCollection, "_read", lambda self, ids, *rest: asked.append(len(ids)) or real(self, ids, *rest)
    )
    with PinClient(judged.root, encoder=tower) as client:
        client.score("sofa", PINS)
        assert asked == [7, 7]  # distinct pins: their vectors, their words and counts
        client.score("green velvet sofa", PINS[:3])
        client.pin_embeddings(PINS)
        assert asked == [7, 7]
        client.score("sofa", [*PINS, "sofa1"])
        assert asked == [7, 7, 1, 1]
