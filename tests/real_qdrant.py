"""A real Qdrant server for the tests that want one: that of QDRANT_URL, or a `qdrant` binary on the PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from qdrant_client import QdrantClient

from materialize.stores.place import Place

NONE = "it did not run: QDRANT_URL is not set and there is no qdrant binary on the PATH"


@contextmanager
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str | None, str]]:
    """Url and a line that says what it is; None and the reason where there is no server."""
    url, binary = os.environ.get("QDRANT_URL"), shutil.which("qdrant")
    if url:
        client = _client(url)
        held = [c.name for c in client.get_collections().collections]
        if held:
            pytest.fail(f"QDRANT_URL is to name an empty server, whose collections tests may drop; it has: {held}")
        yield url, f"it ran against {url}, Qdrant {client.info().version}"
    elif binary:
        with _started(binary, tmp_path_factory) as own:
            yield own, f"it ran against {binary}, Qdrant {_client(own).info().version}"
    else:
        yield None, NONE


def place(url: str, **more: Any) -> Place:
    """Where that server is, with the key of QDRANT_API_KEY if there is one."""
    return Place(url=url, api_key=os.environ.get("QDRANT_API_KEY"), **more)


def empty(url: str) -> None:
    """Drop every collection."""
    client = _client(url)
    for collection in client.get_collections().collections:
        client.delete_collection(collection.name)


@contextmanager
def _started(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("qdrant")
    http, grpc = _free_port(), _free_port()
    server = subprocess.Popen(
        [binary],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(http),
            "QDRANT__SERVICE__GRPC_PORT": str(grpc),
            "QDRANT__STORAGE__STORAGE_PATH": str(home / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(home / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
            "QDRANT__LOG_LEVEL": "INFO",
        },
    )
    said: list[str] = []
    settled = threading.Event()

    def listen() -> None:
        assert server.stdout is not None
        for line in server.stdout:  # to the end, so that a full pipe never stops the server
            said.append(line)
            if "HTTP listening" in line:
                settled.set()
        settled.set()

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        if not settled.wait(60) or server.poll() is not None:
            pytest.fail(f"{binary} did not come up:\n{''.join(said)}")
        yield f"http://127.0.0.1:{http}"
    finally:
        server.terminate()
        server.wait()
        reader.join()


def _client(url: str) -> QdrantClient:
    return QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
