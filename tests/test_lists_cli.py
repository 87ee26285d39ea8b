"""The commands that list pins and boards: options, JSON, what people read."""

import json

import pytest
from client_catalogue import WordEncoder

pytest_plugins = ("client_repo",)


@pytest.fixture
def ask(built, pinfeather, monkeypatch):
    """Runs a command over the catalogue with a model at hand; (exit code, stdout, stderr)."""
    monkeypatch.setattr("embedders.encoder.load_encoder", lambda *args, **kwargs: WordEncoder())
    return lambda *words: pinfeather(*words, "--repo", built)


def test_related_keeps_its_keys_and_takes_the_filters(ask):
    code, out, _ = ask("related", "sofa0", "--limit", "3", "--created-after", "2026-01-01", "--lang", "en", "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found) == ["pin_id", "found", "space", "release", "degraded", "hits"]
    assert found["hits"][0].keys() >= {"pin_id", "because", "similarity", "content"}
    assert len(found["hits"]) == 3
    _, out, _ = ask("related", "sofa0", "--lang", "de", "--space", found["space"], "--diversity", "0", "--json")
    assert [hit["pin_id"] for hit in json.loads(out)["hits"]] == ["sofa-de"]
    _, out, _ = ask("related", "sofa0", "--created-after", "2030-01-01", "--json")
    assert json.loads(out)["hits"] == []
    code, _, err = ask("related", "sofa0", "--created-after", "soon")
    assert (code, "created_after is 'soon'" in err) == (2, True)
    code, _, err = ask("related", "sofa0", "--space", "nope")
    assert (code, "no space 'nope'" in err) == (2, True)


def test_home_feed_keeps_its_keys_and_shows_interests(ask):
    words = ("home-feed", "fern0", "sofa0", "--saved-at", "2026-01-01", "--saved-at", "2026-11-01", "--limit", "6")
    code, out, _ = ask(*words, "--exploration", "0.5", "--seed", "monday", "--seen", "sofa1", "--json")
    feed = json.loads(out)
    assert code == 0
    assert list(feed) == ["recent_pins", "found", "interests", "space", "release", "degraded", "hits"]
    assert [interest["pin_id"] for interest in feed["interests"]] == ["sofa0", "fern0"]
    assert [hit["exploration"] for hit in feed["hits"]].count(True) == 3
    assert "sofa1" not in {hit["pin_id"] for hit in feed["hits"]}
    code, _, err = ask("home-feed", "sofa0", "fern0", "--saved-at", "2026-01-01")
    assert (code, "saved_at has 1 time for 2 pins" in err) == (2, True)
    code, out, err = ask("home-feed", "sofa0", "nobody", "--limit", "50", "--exploration", "0")
    assert code == 0
    assert "of no use here: nobody" in err
    assert "not enough unseen pins near sofa0" in err


def test_boards_by_title_and_by_pins(ask):
    code, out, _ = ask("boards", "pins", "Fern", "--pin", "fern0", "--pin", "fern1", "--limit", "3", "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found) == ["board", "found", "pins", "pins_found", "space", "release", "degraded", "hits"]
    assert {hit["pin_id"] for hit in found["hits"]} == {"fern2", "fern3", "fern4"}
    code, out, _ = ask("boards", "pins", "Velvet", "--limit", "2")
    assert "velvet" in out
    code, _, err = ask("boards", "pins", "")
    assert (code, "Nothing is known of this board" in err) == (0, True)


def test_boards_that_fit_a_pin(ask, tmp_path):
    code, out, _ = ask("boards", "fit", "fern0", "--board", "Pasta", "--board", "Fern corner", "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found) == ["pin_id", "found", "space", "release", "degraded", "hits"]
    assert [(hit["board"], hit["position"]) for hit in found["hits"]] == [("Fern corner", 1), ("Pasta", 0)]
    file = tmp_path / "boards.txt"
    file.write_text('Pasta\n["Green", "fern in a pot"]\n')
    code, out, _ = ask("boards", "fit", "fern0", "--file", file, "--limit", "1")
    assert "Green" in out
    code, _, err = ask("boards", "fit", "nobody", "--board", "Pasta")
    assert (code, "has no vector" in err) == (0, True)
    for wrong in ((), ("--board", "Pasta", "--file", file)):
        code, _, err = ask("boards", "fit", "fern0", *wrong)
        assert (code, "either with --board TITLE" in err) == (2, True)


def test_vectors_of_pins_have_times(ask):
    _, out, _ = ask("embed", "sofa1", "nobody", "--what", "pin", "--json")
    assert json.loads(out)["event_timestamps"] == ["2026-05-01T12:00:01.000000+00:00", None]
    _, out, _ = ask("embed", "sofa", "--json")
    assert list(json.loads(out)) == ["space", "model", "ids", "found", "vectors"]
