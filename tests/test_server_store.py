"""The server adapter's own promises: requests and their number, the ``collection`` mapping, marks, conversions.

Against a FAKE (tests/fake_qdrant.py) and the client's local mode. gRPC cannot be run without a server; what is checked
is that everything the adapter sends survives the client's own conversion to gRPC and back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest
from fake_qdrant import FakeQdrant
from qdrant_client import QdrantClient, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from store_samples import PINS, ROWS, fill, pin, unit

from materialize.stores.errors import BadInputError, CollectionMissingError, SpecMismatchError, StoreUnavailableError
from materialize.stores.place import Place
from materialize.stores.port import (
    And,
    CollectionSpec,
    Condition,
    Match,
    Not,
    Or,
    Point,
    Range,
    SparseVector,
    VectorSpec,
    VectorStore,
)
from materialize.stores.server import ServerStore
from materialize.stores.server_calls import Patience
from materialize.stores.server_models import older_than, to_filter, to_point

ROOT = Path(__file__).resolve().parents[1]


pytest_plugins = ("server_fixtures",)


@pytest.fixture
def store(fake: FakeQdrant) -> Iterator[VectorStore]:
    opened = ServerStore.open(Place(url=fake.url))
    yield opened
    opened.close()


# --- number of requests --------------------------------------------------------------------------------------------


def test_a_read_is_one_request(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store, 600)
    fake.requests.clear()
    assert all(store.get_many("pins", [pin(n) for n in range(500)], with_vectors=True))
    assert store.count("pins") == 600
    assert store.search("pins", [1, 0, 0, 0], 3)[0].id == pin(0)
    store.scroll("pins", limit=2)
    assert store.get_many("pins", []) == []
    store.delete("pins", ids=[])
    store.upsert("pins", [])
    store.flush()
    assert fake.requests == [f"POST /collections/pins/points{what}" for what in ("", "/count", "/query", "/scroll")]


def test_writes_go_in_batches(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store, 1200)
    assert fake.count("PUT /collections/pins/points$") == 3
    points = [Point(pin(n), {"n": n // 100}) for n in range(1200)]
    store.upsert("pins", points, unless_newer="n")
    assert fake.count("POST /collections/pins/points/batch$") == 3
    store.delete("pins", ids=[p.id for p in points])
    assert fake.count("POST /collections/pins/points/delete$") == 2
    store.create("wide", CollectionSpec({"vector": VectorSpec(50_000)}))
    store.upsert("wide", [Point(pin(n), {}, {"vector": np.ones(50_000, np.float32)}) for n in range(30)])
    assert fake.count("PUT /collections/wide/points$") == 2


def test_a_new_store_asks_once_for_a_collection(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store)
    other = ServerStore.open(Place(url=fake.url))
    fake.requests.clear()
    for _ in range(3):
        other.upsert("pins", [Point(pin(1), {"n": 1}, {"vector": unit(1, 0, 0, 0)})])
    assert fake.requests == ["GET /collections/pins", *["PUT /collections/pins/points"] * 3]
    other.close()


def test_indexes_are_made_before_the_first_point(fake: FakeQdrant, store: VectorStore) -> None:
    store.create("rows", CollectionSpec(indexes={"view": "keyword", "event_ts": "integer"}))
    store.upsert("rows", [Point(pin(1), {"view": "v"})])
    writes = [request for request in fake.requests if request.startswith("PUT")]
    assert writes == [f"PUT /collections/rows{what}" for what in ("", "/index", "/index", "/points")]
    store.create("rows", CollectionSpec(indexes={"view": "keyword", "event_ts": "integer"}))
    store.create("rows", ROWS)
    assert fake.count("/index") == 2
    store.create("rows", CollectionSpec(indexes={"view": "keyword", "f.lang": "keyword"}))
    assert fake.count("/index") == 3


def test_a_collection_killed_before_its_indexes_gets_them_later(fake: FakeQdrant, store: VectorStore) -> None:
    spec = CollectionSpec(indexes={"view": "keyword"})
    fake.fail("/index", 400, words="killed")
    with pytest.raises(BadInputError, match="Indexing rows failed"):
        store.create("rows", spec)
    assert store.collections()["rows"].indexes == {}
    store.create("rows", spec)
    assert store.collections()["rows"].indexes == {"view": "keyword"}


def test_two_processes_may_make_one_collection(fake: FakeQdrant, store: VectorStore) -> None:
    other = ServerStore.open(Place(url=fake.url))
    other.create("pins", PINS)
    fake.fail("GET /collections/pins$", 404, words="Not found: Collection `pins` doesn't exist!")
    store.create("pins", PINS)
    fake.fail("GET /collections/pins$", 404, words="Not found: Collection `pins` doesn't exist!")
    with pytest.raises(SpecMismatchError, match="exists with the vectors vector"):
        store.create("pins", ROWS)
    other.close()


# --- the collection mapping and marks ------------------------------------------------------------------------------


def test_the_mapping_reaches_create_collection_unchanged(fake: FakeQdrant) -> None:
    mapping = {
        "shard_number": 3,
        "replication_factor": 2,
        "on_disk_payload": False,
        "hnsw_config": {"m": 32, "on_disk": True},
        "quantization_config": {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}},
        "metadata": {"owner": "search"},
    }
    store = ServerStore.open(Place(url=fake.url, collection=json.dumps(mapping)))
    spec = CollectionSpec({"vector": VectorSpec(4, "euclid")}, ("text",), ("key",))
    store.create("pins", spec)
    assert without_none(fake.created["pins"]) == {
        **mapping,
        "metadata": {"owner": "search", "pinfeather": {"sparse": ["text"], "packed": ["key"]}},
        "vectors": {"vector": {"size": 4, "distance": "Euclid"}},
        "sparse_vectors": {"text": {"modifier": "idf"}},
    }
    assert store.collections() == {"pins": spec}
    store.close()


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return value


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ('{"vectors_config": {}}', "collection may not hold vectors_config"),
        ('{"sparse_vectors": {}, "collection_name": "x"}', "may not hold collection_name, sparse_vectors"),
        ('{"shards": 2, "repl": 1}', "holds repl, shards, which .* does not know; it knows .*replication_factor"),
        ('{"hnsw_config": {"em": 3}}', "hnsw_config.em: Extra inputs are not permitted"),
        ('{"shard_number": "many"}', "shard_number: .*valid integer"),
        ('{"metadata": {"pinfeather": {}}}', "may not hold metadata under 'pinfeather'"),
        ("[1]", r"collection is a mapping, such as \{replication_factor: 2\}, not '\[1\]'"),
        ("replication_factor: 2", "collection is a mapping"),
    ],
)
@pytest.mark.parametrize("place", [{"path": ":memory:"}, {"url": "http://127.0.0.1:1"}], ids=["memory", "url"])
def test_a_wrong_mapping_fails_before_anything_is_asked(place: dict, mapping: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        ServerStore.open(Place(**place, collection=mapping))


def test_collections_of_others_are_left_alone(fake: FakeQdrant, store: VectorStore) -> None:
    others = QdrantClient(url=fake.url, check_compatibility=False)
    others.create_collection("pins", vectors_config={"vector": models.VectorParams(size=4, distance="Dot")})
    others.create_collection("unnamed", vectors_config=models.VectorParams(size=4, distance="Dot"))
    assert store.collections() == {}
    with pytest.raises(SpecMismatchError, match=r"pins exists on the server, but was not made by this store\. Rename"):
        store.create("pins", PINS)
    with pytest.raises(CollectionMissingError, match="unnamed exists on the server, but was not made by this store"):
        store.count("unnamed")
    with pytest.raises(SpecMismatchError, match=r"not made by this store\. It is left as it is"):
        store.drop("pins")
    assert len(others.get_collections().collections) == 2
    others.close()


def test_a_collection_dropped_while_they_are_listed(fake: FakeQdrant, store: VectorStore) -> None:
    fill(store)
    store.create("rows", ROWS)
    fake.fail("GET /collections/pins$", 404, words="Not found: Collection `pins` doesn't exist!")
    assert store.collections() == {"rows": ROWS}


# --- memory --------------------------------------------------------------------------------------------------------


def test_threads_may_share_a_store_in_memory() -> None:
    store = ServerStore.open(Place(path=":memory:"))
    store.create("rows", ROWS)
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for n in range(25):
                store.upsert("rows", [Point(pin(100 * worker + n), {"w": worker})])
                assert len(store.scroll("rows", Match("w", worker))[0]) == n + 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.count("rows") == 200
    store.close()


def test_the_embedded_path_never_imports_the_client() -> None:
    script = (
        "import sys, materialize.stores.session, materialize.stores.publication\n"
        "from materialize.stores.session import session\n"
        "session(sys.argv[1]).number()\n"
        "assert not {'qdrant_client', 'grpc', 'httpx'} & set(sys.modules), 'the client was imported'"
    )
    subprocess.run([sys.executable, "-c", script, "/tmp/none"], cwd=ROOT, check=True)


# --- what is sent, as gRPC -----------------------------------------------------------------------------------------


def test_points_survive_the_conversion_to_grpc() -> None:
    payload = {
        "i": [2**63 - 1, -(2**63), 0],
        "x": [0.1, -0.0, 5e-324, 1e308, 1.0],
        "t": ["", "a\0b", "שלום 😀"],
        "o": {"a.b": None, "": {}, "l": [], "yes": True},
    }
    vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
    words = SparseVector(np.array([3, 2**32 - 1], np.uint32), np.array([0.1, 2.5], np.float32))
    sent = to_point(Point(pin(1), payload, {"vector": vector}, {"text": words}))
    wire = RestToGrpc.convert_point_struct(sent).SerializeToString()
    back = GrpcToRest.convert_point_struct(type(RestToGrpc.convert_point_struct(sent)).FromString(wire))
    assert back.id == pin(1)
    assert json.dumps(back.payload, sort_keys=True) == json.dumps(payload, sort_keys=True)
    assert np.array_equal(np.float32(back.vector["vector"]), vector)
    assert back.vector["text"].indices == [3, 2**32 - 1]
    assert np.array_equal(np.float32(back.vector["text"].values), words.values)


@pytest.mark.parametrize(
    "condition",
    [
        Match("f.lang", "fr"),
        Match("n", 3),
        Match("n", 3.5),
        Match("even", True),
        Match("n", any_of=[1, 2]),
        Match("t", any_of=["a"]),
        Match("n", any_of=[1, 2.0, "x", True]),
        Match("n", any_of=[]),
        Range("n", gte=1, lt=2.5),
        And((Match("t", "a"), Not(Range("n", gt=3)))),
        Or((Match("t", "a"), Match("t", "b"))),
        Or(()),
        And(()),
    ],
)
def test_filters_survive_the_conversion_to_grpc(condition: Condition) -> None:
    sent = to_filter(condition)
    back = GrpcToRest.convert_filter(RestToGrpc.convert_filter(sent))
    assert without_empty(back.model_dump()) == without_empty(sent.model_dump())


def without_empty(value: Any) -> Any:
    """gRPC has no null: what is not said comes back as an empty list."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if item is not None and item != []}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_the_empty_or_is_told_from_the_empty_and_over_grpc() -> None:
    nothing, everything = (RestToGrpc.convert_filter(to_filter(c)) for c in (Or(()), And(())))
    assert nothing.must[0].HasField("has_id")
    assert not everything.must
    assert not nothing.must[0].has_id.has_id


def test_conditional_writes_survive_the_conversion_to_grpc() -> None:
    points = models.PointsList(
        points=[to_point(Point(pin(1), {"t": 1}))], update_filter=older_than("t", 1_700_000_000_000_000)
    )
    wire = RestToGrpc.convert_update_operation(models.UpsertOperation(upsert=points)).upsert
    assert [point.id.uuid for point in wire.points] == [pin(1)]
    back = GrpcToRest.convert_filter(wire.update_filter)
    assert without_empty(back.model_dump()) == without_empty(points.update_filter.model_dump())
    assert back.must_not[0].range.gt == 1_700_000_000_000_000


def test_grpc_is_asked_for_with_its_port(fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gRPC server runs here, so the first call over it finds nobody at the port that was given."""
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        place = Place(url=fake.url, prefer_grpc=True, grpc_port=port, timeout=5)
        with pytest.raises(StoreUnavailableError, match=f"Asking for the version .*{port}"):
            ServerStore.open(place, Patience(tries=1))
    assert fake.requests == []
