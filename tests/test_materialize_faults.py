"""Runs that end too early and stores that fail: what the next run pays, and that the ledger never claims too much."""

import hashlib

import pytest
from conftest import CountingEncoder
from fake_qdrant import Waits, move_store
from run_deaths import dying
from test_materialize import run

from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.ledger import DOUBTFUL_RAW, Ledger
from materialize.places import read_store
from materialize.points import pin_point_id
from materialize.releases import current_release
from materialize.run import RunOptions, materialize
from materialize.stores.errors import StoreUnavailableError
from materialize.stores.layout import entity_collection, point_id

pytestmark = pytest.mark.slow
pytest_plugins = ("server_fixtures",)


def in_scan_order(pins):
    """Pin ids as a run comes across them, by the MD5 of the id."""
    return sorted(pins, key=lambda pin: hashlib.md5(pin.encode()).digest())


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_text_that_a_killed_run_encoded_for_one_pin_is_there_for_the_others(catalogue, encoder, monkeypatch, written):
    monkeypatch.setattr("materialize.run.BATCH_TEXTS", 2)
    order = in_scan_order([f"p{number}" for number in range(8)])
    for place, pin in enumerate(order):  # the pins of the third and fourth batch carry the texts of the first two
        catalogue.put(pin, f"hat {place % 4}")
    catalogue.save()
    with dying(["store upsert"], written + 1, done=False) as killed:
        materialize(catalogue.paths, RunOptions(encoder=encoder))
    assert killed
    run(catalogue, encoder)
    assert set(encoder.texts) == {f"hat {number}" for number in range(4)}
    assert len(encoder.texts) - 4 <= 2  # one batch at most
    assert audit(catalogue.paths).clean


@pytest.fixture
def waits(monkeypatch):
    """The seconds that connections wait between tries, of which there are two; nothing sleeps."""
    waits = Waits()
    monkeypatch.setattr("materialize.stores.server_calls.Patience", lambda: waits.patience(tries=2))
    return waits


@pytest.fixture
def on_server(catalogue, fake, waits):
    """Twelve pins on the fake server; then the source has one edited, one added, two deleted: two points a write."""
    move_store(catalogue.paths.root, fake.url, 1)
    for number in range(12):
        catalogue.put(f"p{number}", f"hat {number}")
    run(catalogue, CountingEncoder())
    del catalogue.pins["p0"], catalogue.pins["p5"]
    catalogue.put("p1", "a cap").put("p12", "hat 12").save()
    return catalogue


def claimed_and_not_stored(paths):
    """What the ledger claims, without doubt, and the store does not hold."""
    definitions, missing = load_definitions(paths), []
    with Ledger(paths) as ledger, read_store(paths) as store:
        space = current_release(paths).live_space
        entries = [row for row in ledger.entries(space).to_pylist() if row["raw"] != DOUBTFUL_RAW and row["text_fp"]]
        points = store.get_many(space, [pin_point_id(definitions.project, row["key"]) for row in entries])
        for row, point in zip(entries, points, strict=True):
            if point is None or point.payload["text_fp"] != row["text_fp"].hex():
                missing.append(row["key"])
        for view in definitions.feature_views():
            rows = [row for row in ledger.entries(f"view:{view.name}").to_pylist() if row["raw"] != DOUBTFUL_RAW]
            collection = entity_collection(definitions.project, view.join_keys)
            ids = [point_id(definitions.project, view.name, {"pin_id": row["key"]}) for row in rows]
            for row, point in zip(rows, store.get_many(collection, ids) if ids else [], strict=True):
                if point is None or point.payload["fp"] != str(row["raw"]):
                    missing.append(f"{view.name}/{row['key']}")
    return missing


UPSERT, DELETE = r"PUT .*/points$", r"POST .*/points/delete"


def test_a_server_that_recovers_is_tried_again_and_the_run_goes_on(on_server, encoder, fake, waits):
    fake.fail(UPSERT, 503)
    fake.lose(DELETE)
    counts = materialize(on_server.paths, RunOptions(encoder=encoder))
    assert (counts.changed, counts.new, counts.deleted) == (1, 1, 2)
    assert waits == [0.2, 0.2]
    assert audit(on_server.paths).clean


@pytest.mark.parametrize(
    ("fault", "pattern", "spared"),
    [
        ("fails", UPSERT, 0),
        ("loses", UPSERT, 1),
        ("answers half", UPSERT, 0),
        ("answers half", UPSERT, 2),
        ("fails", DELETE, 0),
        ("loses", DELETE, 1),
    ],
)
def test_a_server_that_does_not_recover_ends_the_run_and_the_ledger_claims_no_more_than_the_store_has(
    on_server, encoder, fake, pattern, spared, fault
):
    match fault:
        case "fails":
            fake.fail(pattern, 503, times=99)
        case "loses":
            fake.lose(pattern, times=99)
        case "answers half":
            fake.halve(pattern, times=99)
    fake._faults[-1].after = spared
    with pytest.raises(StoreUnavailableError, match=r"tried 2 times.*Repeating the call is safe"):
        materialize(on_server.paths, RunOptions(encoder=encoder))
    fake._faults.clear()
    assert claimed_and_not_stored(on_server.paths) == []
    materialize(on_server.paths, RunOptions(encoder=encoder))
    assert claimed_and_not_stored(on_server.paths) == []
    assert sorted(set(encoder.texts)) == ["a cap", "hat 12"]
    result = audit(on_server.paths)
    assert (result.clean, result.ahead) == (True, 0), result


def test_a_server_that_hangs_ends_the_run_after_its_timeouts(on_server, encoder, fake):
    fake.hang(UPSERT, times=2)
    with pytest.raises(StoreUnavailableError, match=r"did not answer in time \(tried 2 times"):
        materialize(on_server.paths, RunOptions(encoder=encoder))
    assert claimed_and_not_stored(on_server.paths) == []
    with Ledger(on_server.paths) as ledger:
        assert ledger.run_rows(1)[0].status == "failed"
    assert materialize(on_server.paths, RunOptions(encoder=encoder)).upserted == 2
    assert audit(on_server.paths).clean
