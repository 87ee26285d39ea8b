"""Fixtures of the online store's contract: a repository on every kind of place that it runs on.

"server-fake" is HTTP against tests/fake_qdrant.py, which is no Qdrant. "server" is a real one and runs where there is
one (conftest.py). Use them by ``pytest_plugins = ["feast_places"]``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_qdrant import FakeQdrant
from feast_shop import Shop

from materialize.stores import session as sessions

KINDS = ("edge", "memory", "server-fake", "server")


@pytest.fixture(scope="session", autouse=True)
def feast() -> Any:
    """Feast takes seconds to import; once a session is enough."""
    return importlib.import_module("feast")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of place that a test runs on; narrow it with ``feast_shop.LOCAL``."""
    return request.param


@pytest.fixture
def online(kind: str, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """``online_store`` for the kind of place, without its type."""
    if kind == "server-fake":
        fake = FakeQdrant()
        yield {"url": fake.url}
        sessions.close_all()
        fake.close()
    elif kind == "server":
        place = request.getfixturevalue("qdrant_server")()
        yield {"url": place.url, **({"api_key": place.api_key} if place.api_key else {})}
    else:
        yield {"path": "data/online" if kind == "edge" else ":memory:", "publish_interval": 3600, "lock_timeout": 0.1}


@pytest.fixture
def shop(tmp_path: Path, online: dict[str, Any]) -> Iterator[Shop]:
    """An empty repository on the kind of place."""
    yield Shop(tmp_path / "shop", **online)
    sessions.close_all()
