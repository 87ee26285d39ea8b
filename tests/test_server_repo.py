"""A whole repository whose feature_store.yaml names a Qdrant server: materialize, audit and client as with a folder.

Here the server is the FAKE of fake_qdrant.py; with QDRANT_URL (or a `qdrant` on the PATH) the same runs on a real one.
"""

import numpy as np
import pytest
from fake_qdrant import FakeQdrant, move_store

from materialize.audit import audit
from materialize.places import open_store, place_of
from materialize.plan import plan
from materialize.run import RunOptions, materialize
from materialize.stores import session as sessions
from materialize.stores.errors import StoreBusyError, StoreUnavailableError
from serving_client import PinClient


@pytest.fixture(params=["fake", "real"])
def server_url(request):
    """The url of a server without collections."""
    if request.param == "real":
        yield request.getfixturevalue("qdrant_server")().url
        return
    fake = FakeQdrant()
    request.node.fake = fake
    yield fake.url
    sessions.close_all()
    fake.close()


@pytest.fixture
def on_server(catalogue, server_url):
    """The catalogue of a repository on that server."""
    move_store(catalogue.paths.root, server_url, 5)
    yield catalogue
    sessions.close_all()


def run(catalogue, encoder, **options):
    catalogue.save()
    return materialize(catalogue.paths, RunOptions(encoder=encoder, **options))


def test_runs_audits_and_serves(on_server, encoder):
    first = run(on_server.put("a", "oak sofa").put("b", "green lamp").put("c", "oak sofa"), encoder)
    assert (first.new, first.encoder_calls, first.upserted) == (3, 1, 3)
    assert audit(on_server.paths).clean
    assert not (on_server.paths.data / "online").exists()

    second = run(on_server, encoder)
    assert (second.unchanged, second.encoder_calls, second.upserted) == (3, 0, 0)

    with PinClient(on_server.paths.root, encoder=encoder) as client:
        before = client.pin_embeddings(["a", "b", "nobody"])
        assert before.found.tolist() == [True, True, False]
        assert client.search("oak sofa", limit=2).hits[0].pin_id in ("a", "c")
        run(on_server.put("a", "red velvet sofa"), encoder)
        client.refresh()
        after = client.pin_embeddings(["a", "b"])
        assert not np.array_equal(before.vectors[0], after.vectors[0])
        np.testing.assert_array_equal(before.vectors[1], after.vectors[1])
        del on_server.pins["b"]
        assert run(on_server, encoder, allow_deletes=True).deleted == 1
        assert client.pin_embeddings(["a", "b"]).found.tolist() == [True, False]
    assert audit(on_server.paths).clean


def test_one_run_at_a_time(on_server, encoder):
    run(on_server.put("a", "oak sofa"), encoder)
    with open_store(on_server.paths, "a long run"), pytest.raises(StoreBusyError, match="a long run"):
        run(on_server, encoder, lock_timeout=0.0)


def test_collections_that_were_lost_are_filled_again_without_the_model(on_server, encoder):
    run(on_server.put("a", "oak sofa").put("b", "green lamp"), encoder)
    with open_store(on_server.paths, "lose everything") as store:
        for name in store.collections():
            store.drop(name)
    encoder.calls.clear()
    counts = run(on_server, encoder)
    assert (counts.encoder_calls, counts.upserted) == (0, 2)
    assert audit(on_server.paths).clean


@pytest.mark.parametrize("server_url", ["fake"], indirect=True)
@pytest.mark.slow
def test_a_server_that_fails_in_between_ends_the_run_and_the_next_one_heals(on_server, encoder, request):
    run(on_server.put("a", "oak sofa"), encoder)
    fake = request.node.fake
    fake.fail(r"PUT .*/points", 503, times=5)  # as often as a call is tried
    on_server.put("b", "green lamp").save()
    with pytest.raises(StoreUnavailableError, match="503"):
        materialize(on_server.paths, RunOptions(encoder=encoder))
    counts = materialize(on_server.paths, RunOptions(encoder=encoder))
    assert counts.upserted == 1
    assert audit(on_server.paths).clean


def test_planning_needs_no_server(on_server, encoder):
    on_server.put("a", "oak sofa").save()
    assert plan(on_server.paths).new == 1
    assert place_of(on_server.paths).url
