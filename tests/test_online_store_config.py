"""Where a store is: by configuration alone, checked in words; several stores in one process; Feast's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fake_qdrant import FakeQdrant
from feast_shop import NOON, TYPE, Shop, entity_key, proto

from materialize.stores import session as sessions
from materialize.stores.errors import StoreError

pytest_plugins = ["feast_places"]

CHECKOUT = Path(__file__).resolve().parents[1]


def configured(root: Path, **online: Any) -> Any:
    """The configuration that Feast reads from a feature_store.yaml."""
    import yaml
    from feast.repo_config import load_repo_config

    config = {"project": "shop", "provider": "local", "registry": "registry.db", "entity_key_serialization_version": 3}
    (root / "feature_store.yaml").write_text(yaml.safe_dump({**config, "online_store": {"type": TYPE, **online}}))
    return load_repo_config(root, root / "feature_store.yaml")


def place(config: Any) -> Any:
    return config.online_store.place(config)


class TestPlaces:
    def test_a_folder(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        monkeypatch.setenv("PLACE", "/mnt")
        for given, found in (
            ({}, f"{tmp_path}/data/online"),
            ({"path": "elsewhere/x"}, f"{tmp_path}/elsewhere/x"),
            ({"path": "/abs/x"}, "/abs/x"),
            ({"path": "~/x"}, "/home/me/x"),
            ({"path": "$PLACE/x"}, "/mnt/x"),
        ):
            assert place(configured(tmp_path, **given)).path == found
        config = configured(tmp_path, cache_mb=2.5, lock_timeout=3, publish_interval=0)
        assert place(config).cache_bytes == 2_621_440
        assert (config.online_store.lock_timeout, config.online_store.publish_interval) == (3, 0)
        assert type(config.online_store).__name__ == "PinfeatherOnlineStoreConfig"

    def test_a_server(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
        mapping = {"replication_factor": 2, "hnsw_config": {"m": 32}}
        config = configured(
            tmp_path,
            url="https://host:6333",
            api_key="${QDRANT_API_KEY}",
            prefer_grpc=True,
            grpc_port=7334,
            timeout=5,
            tls_ca="/etc/ca.pem",
            collection=mapping,
        )
        found = place(config)
        assert (found.url, found.path, found.namespace, found.embedded) == ("https://host:6333", None, "shop", False)
        assert (found.api_key, found.prefer_grpc, found.grpc_port) == ("s3cret", True, 7334)
        assert (found.timeout, found.tls_ca) == (5, "/etc/ca.pem")
        assert found.collection == '{"hnsw_config": {"m": 32}, "replication_factor": 2}'
        assert "s3cret" not in repr(found) + repr(config.online_store)

    def test_memory(self, tmp_path: Path) -> None:
        found = place(configured(tmp_path, path=":memory:", collection={"on_disk_payload": True}))
        assert (found.path, found.root, found.collection) == (":memory:", str(tmp_path), '{"on_disk_payload": true}')

    @pytest.mark.parametrize(
        ("online", "words"),
        [
            (
                {"url": "http://host:6333", "path": "data/online"},
                r"has a url \(http://host:6333\) and a path \(data/online\)",
            ),
            ({"url": "host:6333"}, r"url is 'host:6333'; give http://host:port or https://host:port"),
            ({"api_key": "k"}, r"api_key is for a Qdrant server: give its url, or leave api_key out"),
            ({"path": ":memory:", "prefer_grpc": True}, r"prefer_grpc is for a Qdrant server"),
            ({"collection": {"shard_number": 2}}, r"collection is for a Qdrant server"),
            ({"url": "http://host", "api_key": "${NO_SUCH_VARIABLE}"}, r"NO_SUCH_VARIABLE\}: set that environment"),
            ({"url": "http://host", "timeout": 0}, r"timeout is 0; give a number above 0"),
            ({"url": "http://host", "grpc_port": 70000}, r"grpc_port\s+Input should be less than or equal to 65535"),
            ({"url": "http://host", "collection": [1]}, r"collection is \[1\]; give a mapping"),
            ({"lock_timeout": -1}, r"lock_timeout is -1; give a number of at least 0"),
            ({"lock_timeout": "soon"}, r"lock_timeout is 'soon'; give a number"),
            ({"publish_interval": -2}, r"publish_interval is -2; give a number"),
            ({"publish_interval": float("inf")}, r"publish_interval is inf; give a number"),
            ({"cache_mb": -1}, r"cache_mb is -1; give a number"),
            ({"cache_mb": float("inf")}, r"cache_mb is inf; give a number"),
            ({"path": ":memory:", "collection": {"made": date(2024, 1, 1)}}, r"collection is made of JSON values"),
            ({"path": 5}, r"path is 5; give a text"),
            ({"similarity": "cosine"}, r"no key 'similarity'; it has api_key"),
        ],
    )
    def test_wrong_ones_are_refused_in_words(self, tmp_path: Path, online: dict[str, Any], words: str) -> None:
        with pytest.raises(Exception, match=words):
            configured(tmp_path, **online).online_store.place  # noqa: B018

    @pytest.mark.parametrize("wrong", [{"url": "host:6333"}, {"url": "http://h", "path": "x"}, {"timeout": 0}])
    def test_errors_do_not_show_the_api_key(self, tmp_path: Path, wrong: dict[str, Any]) -> None:
        with pytest.raises(StoreError) as error:
            configured(tmp_path, **{"url": "http://h", "api_key": "s3cret", **wrong}).online_store.place  # noqa: B018
        assert "s3cret" not in str(error.value)


class TestSeveralStores:
    def one(self, shop: Shop, number: int) -> Any:
        from feast.types import Int64

        view = shop.view("counts", {"clicks": Int64})
        shop.write(view, (entity_key(pin_id="p1"), {"clicks": proto(number)}))
        return view

    def test_in_one_process(self, tmp_path: Path) -> None:
        fake = FakeQdrant()
        kinds = {"a": {}, "b": {}, "c": {"path": ":memory:"}, "d": {"path": ":memory:"}, "e": {"url": fake.url}}
        shops = {name: Shop(tmp_path / name, **options) for name, options in kinds.items()}
        views = {name: self.one(shop, number) for number, (name, shop) in enumerate(shops.items())}
        for number, (name, shop) in enumerate(shops.items()):
            read = shop.store.online_read(shop.config, views[name], [entity_key(pin_id="p1")])
            assert read == [(NOON, {"clicks": proto(number)})]
        assert len({id(shop.session) for shop in shops.values()}) == 5
        sessions.close_all()
        fake.close()

    @pytest.mark.parametrize("path", ["data/online", ":memory:"])
    def test_one_client_a_place(self, tmp_path: Path, path: str) -> None:
        first, second = (Shop(tmp_path / "shop", path=path, publish_interval=3600) for _ in range(2))
        assert first.store is not second.store
        view = self.one(first, 5)
        self.one(second, 6)
        assert first.session is second.session
        key = [entity_key(pin_id="p1")]
        for shop in (first, second):
            assert shop.store.online_read(shop.config, view, key) == [(NOON, {"clicks": proto(6)})]
        sessions.close_all()

    def test_the_fake_server_gets_one_request_a_read(self, tmp_path: Path) -> None:
        """Counted at a fake: collections are looked up once, rows of two views come in one request."""
        from feast.types import Int64

        fake = FakeQdrant()
        shop = Shop(tmp_path / "shop", url=fake.url)
        shop.apply(shop.view("counts", {"clicks": Int64}), shop.view("saves", {"saves": Int64}))
        shop.push("counts", {"pin_id": "p1", "clicks": 1})
        shop.read("counts:clicks", "saves:saves", pin_id=["p1", "p2"])
        before = fake.count("POST .*/points$"), fake.count(".")
        read = shop.read("counts:clicks", "saves:saves", pin_id=["p1", "p2"])
        assert read == {"pin_id": ["p1", "p2"], "clicks": [1, None], "saves": [None, None]}
        assert fake.count("POST .*/points$") - before[0] == 1
        sessions.close_all()
        fake.close()


DEFINITIONS = """
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Array, Float32, Int64, String

pin = Entity(name="pin_id", join_keys=["pin_id"])
source = FileSource(path="unused.parquet", timestamp_field="event_timestamp")
key = Field(name="pin_id", dtype=String)
counts = FeatureView(name="counts", entities=[pin], schema=[key, Field(name="clicks", dtype=Int64)], source=source)
vector = Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=2)
docs = FeatureView(name="docs", entities=[pin], schema=[key, vector], source=source)
"""


@pytest.mark.slow
def test_feasts_own_commands(tmp_path: Path) -> None:
    """Plan, apply, apply without a view, teardown, from another working directory."""
    repo = tmp_path / "repo"
    repo.mkdir()
    configured(repo)
    script = f"""
import pathlib, sys
from click.testing import CliRunner
from feast.cli.cli import cli
from materialize.stores.session import session, close_all

repo, definitions = pathlib.Path({str(repo)!r}), {DEFINITIONS!r}

def feast(*words):
    done = CliRunner().invoke(cli, ["-c", str(repo), *words])
    assert done.exit_code == 0, (words, done.output, done.exception)
    for name in [name for name, module in sys.modules.items() if str(repo) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]  # Feast imports the definitions, and would not do so again
    close_all()
    return done.output

def collections():
    with session(repo / "data/online").reading() as store:
        return sorted(store.collections())

(repo / "definitions.py").write_text(definitions)
assert "docs" in feast("plan")
assert not (repo / "data/online").exists()
for _ in range(2):
    assert "docs" in feast("apply") or _
    assert collections() == ["shop@pin_id", "shop__docs"], collections()
(repo / "definitions.py").write_text(definitions.split("vector =")[0] + "# without documents\\n")
feast("plan")
assert collections() == ["shop@pin_id", "shop__docs"]
feast("apply")
assert collections() == ["shop@pin_id"], collections()
feast("teardown")
assert collections() == []
print("all done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert done.stdout.splitlines()[-1:] == ["all done"], done.stdout + done.stderr
