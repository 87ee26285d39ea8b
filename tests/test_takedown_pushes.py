"""A takedown, then the real `feast materialize`, then the real `push` of a push source: through Feast's own doors."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Catalogue, CountingEncoder
from test_takedowns import row_of, ten_hats

from materialize.audit import audit
from materialize.run import RunOptions, materialize
from materialize.stores.session import close_all

pytestmark = pytest.mark.slow
NOW = Catalogue.NOW
TAKEN_DOWN = NOW + timedelta(days=5)


@pytest.fixture(scope="module")
def shop(applied, tmp_path_factory):
    """(catalogue, Feast store) with ten pins written; ``pin_text`` takes pushes of the push source ``pin_events``."""
    from feast import FeatureStore
    from feast.data_source import PushSource

    catalogue = ten_hats(applied, tmp_path_factory)
    store = FeatureStore(repo_path=str(catalogue.paths.root))
    view = store.get_feature_view("pin_text")
    view.stream_source = PushSource(name="pin_events", batch_source=view.batch_source)
    store.apply([view])
    close_all()
    materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    yield catalogue, store
    close_all()


def push(store, pin, when, title):
    from feast.data_source import PushMode

    store.push("pin_events", row_of(pin, when, title), to=PushMode.ONLINE)
    close_all()  # published, as at the end of the process that pushes


def title_of(store, pin):
    return store.get_online_features(["pin_text:title"], [{"pin_id": pin}]).to_dict()["title"][0]


def test_a_push_that_is_older_than_the_takedown_stays_away_and_a_newer_one_is_ahead(shop):
    catalogue, store = shop
    catalogue.put("p3", "hat 3", deleted_at=TAKEN_DOWN, event_timestamp=TAKEN_DOWN)
    catalogue.put("p9", "hat 9", event_timestamp=TAKEN_DOWN)  # so that the deletion is not of the future
    catalogue.save()
    materialize(catalogue.paths, RunOptions(encoder=CountingEncoder()))
    feast = Path(sys.executable).with_name("feast")
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    done = subprocess.run(
        [feast, "-c", catalogue.paths.root, "materialize", start.isoformat(), end.isoformat()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert title_of(store, "p3") is None
    assert title_of(store, "p4") == "hat 4"

    push(store, "p3", TAKEN_DOWN - timedelta(seconds=1), "an older push")
    push(store, "p3", TAKEN_DOWN, "a push of the same moment")
    assert title_of(store, "p3") is None
    found = audit(catalogue.paths)
    assert (found.clean, found.ahead) == (True, 0), found

    push(store, "p3", TAKEN_DOWN + timedelta(seconds=1), "a newer push")
    assert title_of(store, "p3") == "a newer push"
    found = audit(catalogue.paths)
    assert (found.clean, found.ahead, found.examples["ahead"]) == (True, 1, ["pin_text/p3"]), found
