"""An adopter's repository through Feast itself: the same rows as the client's, before and after `feast materialize`."""

from datetime import UTC, datetime

import numpy as np
import pytest
from conftest import Catalogue, CountingEncoder
from made_once import copied

from materialize.audit import audit
from materialize.run import RunOptions, materialize
from materialize.stores.session import close_all
from pinfeather.apply import apply_definitions
from serving_client import PinClient

NOW = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def adopted(applied, tmp_path_factory):
    """(catalogue, Feast store) of a repository in a folder that is called like our package, applied a second time."""
    from feast import FeatureStore

    catalogue = Catalogue(copied(applied.root, tmp_path_factory.mktemp("somewhere") / "feature_repo"))
    for number in range(12):
        catalogue.put(f"p{number}", f"hat number {number}", lang="de" if number % 2 else "en")
    catalogue.save()
    apply_definitions(catalogue.paths)  # twice is once, and what was applied elsewhere is of here now
    materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    yield catalogue, FeatureStore(repo_path=str(catalogue.paths.root))
    close_all()


def online(store, service, *pins):
    entities = [{"pin_id": pin} for pin in pins]
    return store.get_online_features(store.get_feature_service(service), entities).to_dict()


def test_feast_reads_what_the_materializer_wrote(adopted):
    catalogue, store = adopted
    read = online(store, "relevance_v1", "p3", "nobody", "p1")
    with PinClient(catalogue.paths.root) as client:
        vectors = client.pin_embeddings(["p3", "nobody", "p1"])
        features = client.pin_features(["p3", "nobody", "p1"], "relevance_v1")
    assert vectors.found.tolist() == [True, False, True]
    np.testing.assert_array_equal(np.array(read["embedding"][0], np.float32), vectors.vectors[0])
    assert read["embedding"][1] is None
    assert read["tokens"] == features.columns["pin_relevance__tokens"]
    assert online(store, "pin_content_v1", "p3")["title"] == ["hat number 3"]


def test_feast_materialize_brings_nothing_back_and_breaks_nothing(adopted):
    catalogue, store = adopted
    del catalogue.pins["p5"]
    catalogue.put("p6", "another hat").save()
    ran = materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    assert (ran.changed, ran.deleted) == (1, 1)
    before = online(store, "relevance_v1", "p5", "p6", "p7")
    store.materialize(datetime(2020, 1, 1, tzinfo=UTC), NOW)
    close_all()
    assert online(store, "relevance_v1", "p5", "p6", "p7") == before
    assert before["embedding"][0] is None
    result = audit(catalogue.paths)
    assert result.clean, result
    with PinClient(catalogue.paths.root, encoder=CountingEncoder()) as client:
        german = client.related_pins("p1", 20, lang="de")
    assert sorted(hit.pin_id for hit in german.hits) == ["p11", "p3", "p7", "p9"]
    assert materialize(catalogue.paths, RunOptions(encoder=CountingEncoder())).quiet


def test_historical_features_come_from_sources_and_vector_log(adopted):
    import pandas as pd

    _, store = adopted
    wanted = pd.DataFrame({"pin_id": ["p1", "p5"], "event_timestamp": [NOW, NOW]})
    joined = store.get_historical_features(wanted, store.get_feature_service("home_feed_v1")).to_df()
    rows = joined.set_index("pin_id")
    assert rows.loc["p1", "title"] == "hat number 1"
    assert len(rows.loc["p1", "embedding"]) == 384
    assert rows.loc["p5", "embedding"] is None
