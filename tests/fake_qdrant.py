"""A FAKE Qdrant server, which misbehaves on demand: no claim about a real server rests on it.

It speaks as much of Qdrant's REST API as ``ServerStore`` uses, in front of the local mode of ``qdrant_client``, which
is another implementation than the server's. It is good for the adapter's requests, their number, and failures.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client import QdrantClient, models

from materialize.stores.server_calls import Patience

ROUTES: list[tuple[str, str, str]] = [
    ("GET", "/", "version"),
    ("GET", "/collections", "collections"),
    ("GET", "/collections/NAME", "collection"),
    ("PUT", "/collections/NAME", "create"),
    ("DELETE", "/collections/NAME", "remove"),
    ("PUT", "/collections/NAME/index", "index"),
    ("PUT", "/collections/NAME/points", "upsert"),
    ("POST", "/collections/NAME/points", "retrieve"),
    ("POST", "/collections/NAME/points/batch", "batch"),
    ("POST", "/collections/NAME/points/count", "count"),
    ("POST", "/collections/NAME/points/delete", "delete"),
    ("POST", "/collections/NAME/points/query", "query"),
    ("POST", "/collections/NAME/points/scroll", "scroll"),
]


def move_store(root: Path, url: str, timeout: int) -> None:
    """Let the repository's ``feature_store.yaml`` name the server at ``url``, with this timeout in seconds."""
    config = root / "feature_store.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["online_store"] = {"type": settings["online_store"]["type"], "url": url, "timeout": timeout}
    config.write_text(yaml.safe_dump(settings))


@dataclass
class Fault:
    """What happens to ``times`` requests whose ``METHOD path`` matches ``pattern``, after so many that it spares."""

    pattern: str
    times: int
    kind: str
    after: int = 0
    status: int = 500
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeQdrant:
    """Listens on a free port of this machine until :meth:`close`.

    :param tls: of a server that speaks https.
    :param largest: bytes of the largest request it takes.
    """

    def __init__(
        self,
        version: str = "1.16.3",
        title: str = "qdrant - vector search engine",
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        largest: int = 32 << 20,
    ) -> None:
        self.version, self.title, self.api_key, self.largest = version, title, api_key, largest
        self.requests: list[str] = []
        self.created: dict[str, dict[str, Any]] = {}
        self._indexes: dict[str, dict[str, Any]] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._engine = QdrantClient(":memory:")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    # --- faults ----------------------------------------------------------------------------------------------------

    def fail(
        self,
        pattern: str,
        status: int,
        words: str | bytes = "the fake was told to fail",
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with a status and these words, as Qdrant's JSON, or as bytes that are the whole body."""
        body = words if isinstance(words, bytes) else json.dumps({"status": {"error": words}, "time": 0.0}).encode()
        self._faults.append(Fault(pattern, times, "fail", 0, status, body, headers or {}))

    def hang(self, pattern: str, times: int = 1) -> None:
        """Take the request and never answer."""
        self._faults.append(Fault(pattern, times, "hang"))

    def drop(self, pattern: str, times: int = 1) -> None:
        """Close the connection instead of answering."""
        self._faults.append(Fault(pattern, times, "drop"))

    def lose(self, pattern: str, times: int = 1) -> None:
        """Do what is asked, then close the connection instead of answering."""
        self._faults.append(Fault(pattern, times, "lose"))

    def halve(self, pattern: str, times: int = 1, after: int = 0) -> None:
        """Do the first half of a write, then answer 500."""
        self._faults.append(Fault(pattern, times, "halve", after))

    def count(self, pattern: str) -> int:
        """How many requests came in whose ``METHOD path`` matches."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def close(self) -> None:
        """Stop listening; hanging requests end."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- one request -----------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, dict]:
        """Status, body and headers; :class:`ConnectionError` where the connection is to be closed."""
        line = f"{method} {unquote(path)}"
        with self._lock:
            self.requests.append(line)
            fault = self._fault(line)
        kind = fault.kind if fault else ""
        if kind == "hang":
            self._released.wait()
        if kind in ("hang", "drop"):
            raise ConnectionError
        if fault is not None and kind == "fail":
            return fault.status, fault.body, dict(fault.headers)
        status, result = self._do(method, path, headers, body, halve=kind == "halve")
        if kind == "lose":
            raise ConnectionError
        return status, json.dumps(result).encode(), {}

    def _fault(self, line: str) -> Fault | None:
        for fault in self._faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _do(self, method: str, path: str, headers: Mapping[str, str], body: bytes, halve: bool) -> tuple[int, Any]:
        if len(body) > self.largest:
            return 413, _error("Payload Too Large")
        action, names = _route(method, path)
        if not action:
            return 404, _error("no such path")
        if self.api_key is not None and action != "version" and headers.get("api-key") != self.api_key:
            return 401, _error("Must provide an API key or an Authorization bearer token")
        run: Callable[..., Any] = getattr(self, f"_{action}")
        try:
            with self._lock:
                if action in ("upsert", "batch"):
                    result = run(*names, json.loads(body), halve)
                else:
                    result = run(*names, *([json.loads(body)] if body else []))
        except ValidationError as error:
            return 400, _error(f"Format error in JSON body: {error.errors()[0]['msg']}")
        except ValueError as error:
            if "not found" in str(error):
                return 404, _error(f"Not found: Collection `{names[0]}` doesn't exist!")
            return (409 if "already exists" in str(error) else 400), _error(f"Wrong input: {error}")
        if halve:
            return 500, _error("Service internal error: half of it was done")
        if action == "version":
            return 200, result
        return 200, {"result": _plain(result), "status": "ok", "time": 0.0}

    def _version(self) -> dict[str, str]:
        return {"title": self.title, "version": self.version, "commit": "fake"}

    def _collections(self) -> Any:
        return self._engine.get_collections()

    def _collection(self, name: str) -> Any:
        info = _plain(self._engine.get_collection(name))
        return {**info, "payload_schema": self._indexes.get(name, {})}

    def _create(self, name: str, body: dict[str, Any]) -> bool:
        wanted = models.CreateCollection.model_validate(body)
        self._engine.create_collection(
            name, vectors_config=wanted.vectors, sparse_vectors_config=wanted.sparse_vectors, metadata=wanted.metadata
        )
        self.created[name] = body
        return True

    def _remove(self, name: str) -> bool:
        self._indexes.pop(name, None)
        return self._engine.delete_collection(name)

    def _index(self, name: str, body: dict[str, Any]) -> Any:
        self._engine.get_collection(name)
        wanted = models.CreateFieldIndex.model_validate(body)
        self._indexes.setdefault(name, {})[wanted.field_name] = {"data_type": _plain(wanted.field_schema), "points": 0}
        return _done()

    def _upsert(self, name: str, body: dict[str, Any], halve: bool) -> Any:
        wanted = models.PointsList.model_validate(body)
        points = wanted.points[: len(wanted.points) // 2] if halve else wanted.points
        return self._engine.upsert(name, points, update_filter=wanted.update_filter)

    def _batch(self, name: str, body: dict[str, Any], halve: bool) -> Any:
        operations = models.UpdateOperations.model_validate(body).operations
        return self._engine.batch_update_points(name, operations[: len(operations) // 2] if halve else operations)

    def _retrieve(self, name: str, body: dict[str, Any]) -> Any:
        wanted = models.PointRequest.model_validate(body)
        return self._engine.retrieve(name, wanted.ids, wanted.with_payload, wanted.with_vector or False)

    def _count(self, name: str, body: dict[str, Any]) -> Any:
        return self._engine.count(name, models.CountRequest.model_validate(body).filter)

    def _delete(self, name: str, body: dict[str, Any]) -> Any:
        return self._engine.delete(name, TypeAdapter(models.PointsSelector).validate_python(body))

    def _query(self, name: str, body: dict[str, Any]) -> Any:
        wanted = models.QueryRequest.model_validate(body)
        return self._engine.query_points(
            name,
            query=wanted.query.nearest if isinstance(wanted.query, models.NearestQuery) else wanted.query,
            using=wanted.using,
            query_filter=wanted.filter,
            limit=wanted.limit or 10,
            with_payload=wanted.with_payload or False,
            with_vectors=wanted.with_vector or False,
        )

    def _scroll(self, name: str, body: dict[str, Any]) -> Any:
        wanted = models.ScrollRequest.model_validate(body)
        points, following = self._engine.scroll(
            name,
            scroll_filter=wanted.filter,
            limit=wanted.limit or 10,
            offset=wanted.offset,
            with_payload=wanted.with_payload or False,
            with_vectors=wanted.with_vector or False,
        )
        return {"points": _plain(points), "next_page_offset": following}


def _route(method: str, path: str) -> tuple[str, list[str]]:
    for wanted, pattern, action in ROUTES:
        found = re.fullmatch(pattern.replace("NAME", "([^/]+)"), path)
        if wanted == method and found:
            return action, [unquote(name) for name in found.groups()]
    return "", []


class Waits(list):
    """The seconds that were waited; its clock moves by them alone."""

    def patience(self, tries: int = 5) -> Patience:
        return Patience(tries=tries, sleep=self.append, clock=lambda: sum(self), chance=lambda: 1.0)


def _handler(fake: FakeQdrant) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                status, content, headers = fake.answer(self.command, urlsplit(self.path).path, self.headers, body)
            except ConnectionError:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = respond  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    return Handler


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return getattr(value, "value", value)


def _error(words: str) -> dict[str, Any]:
    return {"status": {"error": words}, "time": 0.0}


def _done() -> dict[str, Any]:
    return {"operation_id": 0, "status": "completed"}
