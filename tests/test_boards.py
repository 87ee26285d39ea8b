"""Boards over a real repository: pins that fit one, and which of somebody's boards fit a pin."""

import numpy as np
import pytest
from client_catalogue import WordEncoder

from feature_repo.board_text import Board
from feature_repo.errors import PinfeatherError, UsageError
from serving_client import PinClient
from serving_client.lists import boards, neighbours
from serving_client.lists.boards import board_vector
from serving_client.stages import DeadlineError

pytest_plugins = ("client_repo",)


def test_pins_that_fit_a_title(client, tower):
    fitting = client.board_pins("Velvet  sofas", 3, diversity=0, content=True)
    vector = client.embed_boards(["Velvet  sofas"]).vectors[0]
    pins = client.pin_embeddings([hit.pin_id for hit in fitting.hits]).vectors
    assert [hit.similarity for hit in fitting.hits] == pytest.approx((pins @ vector).tolist())
    assert [hit.similarity for hit in fitting.hits] == sorted((hit.similarity for hit in fitting.hits), reverse=True)
    assert all("velvet" in hit.content["pin_text__title"] for hit in fitting.hits)
    assert (fitting.board, fitting.found, fitting.pins, fitting.pins_found.tolist()) == ("Velvet  sofas", True, (), [])
    assert (fitting.space, fitting.release, fitting.degraded) == (client.pin_embeddings([]).space, 2, ())
    assert tower.encoded == ["velvet sofas"]
    titled = client.board_pins(["Green things", "fern in a pot", "hanging fern basket"], 3)
    assert {hit.pin_id[:-1] for hit in titled.hits} == {"fern"}
    assert [hit.pin_id for hit in client.board_pins("sofa", lang="de").hits] == ["sofa-de"]


def test_the_pins_of_a_board_count_and_are_left_out(client, tower):
    given = ["fern1", "unknown", "fern0", "fern1"]
    fitting = client.board_pins("", 3, pins=given)
    assert tower.encoded == []  # no words, no model
    assert fitting.pins == tuple(given)
    assert fitting.pins_found.tolist() == [True, False, True, True]
    assert {hit.pin_id for hit in fitting.hits} == {"fern2", "fern3", "fern4"}
    both = client.board_pins("pasta", 30, pins=["fern0", "fern1"])
    words = client.embed_boards(["pasta"]).vectors[0]
    vector = board_vector(words, client.pin_embeddings(["fern0", "fern1"]).vectors)
    found = client.pin_embeddings([hit.pin_id for hit in both.hits]).vectors @ vector
    assert [hit.similarity for hit in both.hits] == pytest.approx(found.tolist(), abs=1e-6)
    assert not {"twin-same", "twin-near"} & {hit.pin_id for hit in client.board_pins("sofa", 30, pins=["twin"]).hits}


def test_a_board_of_which_nothing_is_known_has_no_pins(client, tower):
    nothing = client.board_pins(" ", pins=["unknown"])
    assert (nothing.found, nothing.hits, nothing.pins_found.tolist()) == (False, (), [False])
    assert tower.encoded == []


def test_one_strange_pin_does_not_pull_a_board():
    axis = np.eye(8, dtype=np.float32)
    near = np.array([[1, 0.1, 0, 0, 0, 0, 0, 0], [1, 0, 0.1, 0, 0, 0, 0, 0], [1, 0.1, 0.1, 0, 0, 0, 0, 0]], np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    pins = np.concatenate([near, axis[7:]])
    middle = 3 * near[np.argmin(((near[:, None] - near) ** 2).sum(axis=(1, 2)))] + axis[7]
    middle /= np.linalg.norm(middle)
    assert board_vector(None, pins) == pytest.approx(middle)
    whole = axis[4] + middle
    assert board_vector(axis[4], pins) == pytest.approx(whole / np.linalg.norm(whole))
    assert board_vector(axis[4], pins[:0]) == pytest.approx(axis[4])
    assert board_vector(None, pins[:0]) is None
    assert board_vector(axis[0], -axis[:1]) is None  # they cancel out: no direction is left


def test_the_boards_that_fit_a_pin_come_best_first(client, tower):
    boards = ["Pasta", "", ["Living room", "green velvet sofa"], Board("Velvet"), "Pasta"]
    fitting = client.boards_for_pin("sofa0", boards)
    assert [(hit.board, hit.position) for hit in fitting.hits] == [
        ("Living room", 2),
        ("Velvet", 3),
        ("Pasta", 0),
        ("Pasta", 4),
    ]
    vectors = client.embed_boards([boards[hit.position] for hit in fitting.hits]).vectors
    pin = client.pin_embeddings(["sofa0"]).vectors[0]
    assert [hit.similarity for hit in fitting.hits] == pytest.approx((vectors @ pin).tolist())
    assert sorted(tower.encoded) == ["living room, green velvet sofa", "pasta", "velvet"]
    assert [hit.position for hit in client.boards_for_pin("sofa0", boards, 1).hits] == [2]
    assert client.boards_for_pin("sofa0", []).hits == ()
    assert (fitting.pin_id, fitting.found, fitting.release) == ("sofa0", True, 2)


def test_a_pin_without_vector_fits_no_board_and_loads_no_model(client, tower):
    for pin in ("unknown", "wordless"):
        answer = client.boards_for_pin(pin, ["Sofas"])
        assert (answer.found, answer.hits) == (False, ())
    assert tower.encoded == []


def test_wrong_wishes_are_refused(client):
    with pytest.raises(UsageError, match="boards takes a list"):
        client.boards_for_pin("sofa0", "Sofas")
    with pytest.raises(UsageError, match="limit is 0"):
        client.boards_for_pin("sofa0", ["Sofas"], 0)
    with pytest.raises(UsageError, match="limit is 0"):
        client.board_pins("Sofas", 0)
    with pytest.raises(UsageError, match="diversity is 2"):
        client.board_pins("Sofas", diversity=2)
    with pytest.raises(UsageError, match="boards are 1001: give up to 1000"):
        client.boards_for_pin("sofa0", ["Sofas"] * 1001)
    with pytest.raises(UsageError, match="pins takes a list"):
        client.board_pins("Sofas", pins="sofa0")


def test_the_pins_of_a_board_take_no_place_among_those_that_are_looked_at(client, monkeypatch):
    monkeypatch.setattr(neighbours, "MOST_CANDIDATES", 2)
    ferns = [f"fern{number}" for number in range(4)]
    assert [hit.pin_id for hit in client.board_pins("", 1, pins=[*ferns, "fern0", "pasta0"], diversity=0).hits] == [
        "fern4"
    ]


def test_a_board_whose_time_is_over_is_not_answered_without_its_words(client, monkeypatch):
    def late(board, embed, without_pins):
        def embed_late(asked):
            raise DeadlineError("too late")

        return words(board, embed_late, without_pins)

    words = boards._words
    monkeypatch.setattr(boards, "_words", late)
    with pytest.raises(DeadlineError, match="too late"):
        client.board_pins("Ferns", 3, pins=["fern0", "fern1"])


def test_without_a_query_tower_the_pins_of_a_board_decide(built):
    with PinClient(built, encoder=WordEncoder("another model")) as client:
        fitting = client.board_pins("Ferns", 3, pins=["fern0", "fern1"])
        assert {hit.pin_id for hit in fitting.hits} == {"fern2", "fern3", "fern4"}
        assert [text.partition(":")[0] for text in fitting.degraded] == ["no_embedding"]
        assert fitting.degraded[0].endswith("The board's own pins decided.")
        with pytest.raises(PinfeatherError, match="not of another model"):
            client.board_pins("Ferns", pins=["unknown"])
