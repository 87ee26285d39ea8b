"""A client goes on, and tells no lies, while another process materializes, promotes and rolls back."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_materialize import run
from test_spaces import fill

from embedders.encoder import as_stored
from materialize.releases import current_release
from materialize.space_admin import create_space
from serving_client import PinClient

TESTS = Path(__file__).resolve().parent
PINS = [f"p{number}" for number in range(12)]
ROUNDS = 4
WRITER = f"""
import sys
import numpy as np
sys.path.insert(0, {str(TESTS)!r})
from conftest import Catalogue, CountingEncoder
from test_spaces_release import LAX
from feature_repo.paths import RepoPaths
from materialize.promotion import promote, rollback
from materialize.releases import current_release
from materialize.run import RunOptions, materialize
from serving_client import PinClient

root, titles, out = sys.argv[1:]
catalogue, encoder = Catalogue(RepoPaths.open(root)), CountingEncoder()
first = current_release(catalogue.paths).live_space
states = {{first: [], titles: []}}

def remember():
    with PinClient(root, encoder=encoder) as client:
        for name, seen in states.items():
            seen.append(client.pin_embeddings({PINS!r}, space=name).vectors)

remember()
for turn in range({ROUNDS}):
    for number in range(12):
        word = f"round {{turn}}" if number < 6 else "still"
        catalogue.put(f"p{{number}}", f"hat {{number}} {{word}}", description=f"wool {{number}} {{word}}")
    catalogue.save()
    materialize(catalogue.paths, RunOptions(encoder=encoder))
    remember()
    promote(catalogue.paths, titles, LAX) if turn % 2 == 0 else rollback(catalogue.paths)
np.savez(out, **{{name: np.stack(seen) for name, seen in states.items()}})
"""


@pytest.mark.slow
def test_answers_are_of_one_state_while_another_process_writes_and_promotes(catalogue, encoder, tmp_path, monkeypatch):
    for number in range(12):
        catalogue.put(f"p{number}", f"hat {number}", description=f"wool {number}")
    run(catalogue, encoder)
    titles = create_space(catalogue.paths, "titles", without=["description"]).name
    fill(catalogue.paths, titles, encoder)
    monkeypatch.setattr("serving_client.opened.FRESH_SECONDS", 0.0)
    out, root = tmp_path / "states.npz", catalogue.paths.root
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), titles, str(out)], env={**os.environ, "PYTHONPATH": str(TESTS.parent)}
    )
    seen, releases = [], []
    with PinClient(root, encoder=encoder) as client:
        query = as_stored(encoder.encode(["wool hat"]))[0]
        while writer.poll() is None:
            vectors, scores = client.pin_embeddings(PINS), client.score("wool hat", PINS, scorer="zero-shot")
            found, near = client.search("wool hat", scorer="zero-shot", limit=3), client.related_pins("p0", 3)
            assert [each.degraded for each in (vectors, scores, near)] == [()] * 3
            assert vectors.found.all()
            assert len(found.hits) == len(near.hits) == 3
            assert np.isfinite(scores.ranking).all()
            seen.append((vectors.space, vectors.vectors))
            releases.append(client.status().release)
        assert writer.returncode == 0
        client.refresh()
        last, scores = client.pin_embeddings(PINS), client.score("wool hat", PINS, scorer="zero-shot")
    states = np.load(out)
    for space, vectors in seen:
        assert any(np.array_equal(vectors, state) for state in states[space]), f"a mixture of states in {space}"
    assert last.space == current_release(catalogue.paths).live_space == scores.space
    np.testing.assert_array_equal(last.vectors, states[last.space][-1])
    np.testing.assert_allclose(scores.ranking, last.vectors @ query, atol=1e-6)
    assert releases == sorted(releases)
