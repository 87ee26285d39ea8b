"""The real service for tests, over the client's catalogue: in process, and in a thread behind a real socket."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.testclient import TestClient

from serving_client.http.app import create_app
from serving_client.http.auth import Keys
from serving_client.http.errors import STATUSES
from serving_client.http.logs import json_handler
from serving_client.http.server import Server, address_of, listen

KEY, OTHER_KEY = "a-key-of-the-page-0001", "a-key-of-the-batch-002"
KEYS = Keys([f"page:{KEY}", f"batch:{OTHER_KEY}"])
LOCAL = "http://127.0.0.1"
JSON = {"Content-Type": "application/json"}
SECRET = "zanzibar honeymoon"
"""A query that nobody but its asker may read."""


@contextmanager
def served(client, settings=None, **options) -> Iterator[tuple[str, Server]]:
    """The address of a service over ``client``, and its server, run in a thread."""
    app = create_app(client, settings)
    server = Server(app, **{"drain_delay": 0, "drain_seconds": 5} | options)
    opened = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        yield address_of(opened), server
    finally:
        server.should_exit = True
        thread.join(20)
        opened.close()
        assert not thread.is_alive()


def in_process(client, settings=None, **headers) -> TestClient:
    """Requests to a service without a socket; its start and end run only in a ``with`` block."""
    app = create_app(client, settings)
    return TestClient(app, base_url=LOCAL, headers=headers, raise_server_exceptions=False)


@contextmanager
def logged(level=logging.DEBUG) -> Iterator[io.StringIO]:
    """What the process logs, of every package, as the service writes it."""
    stream = io.StringIO()
    handler, root = json_handler(stream), logging.getLogger()
    handler.addFilter(lambda record: not record.name.startswith("httpx"))  # the test's own client
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def lines(stream: io.StringIO, event=None) -> list[dict]:
    """The lines of a log, those of one event if it is given."""
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in told if event in (None, line["event"])]


def error_of(response, status):
    """The error of an answer, which has the form that all have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() - {"reason"} == {"code", "message", "request_id"}
    assert error["code"] == STATUSES[status][0]
    assert error["request_id"] == response.headers["x-request-id"]
    return error["message"]
