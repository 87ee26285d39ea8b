"""The HTTP service in process: its answers, its document, its limits, and every error."""

import json
import re
import threading

import pyarrow as pa
import pytest
from client_catalogue import WordEncoder, copy_repository
from served import JSON, KEY, KEYS, SECRET, error_of, in_process, lines, logged
from starlette.routing import Route

from feature_repo.errors import PinfeatherError, UsageError
from serving_client import PinClient
from serving_client.http.errors import problem_of
from serving_client.http.settings import Settings
from serving_client.http.wire import ARROW, from_arrow
from serving_client.methods import served_methods

pytest_plugins = ("client_repo", "service_fixtures")


# --- answers --------------------------------------------------------------------------------------------------------


def test_an_answer_is_json_or_arrow(http, pins):
    answer = http.post("/v1/pin-embeddings", json={"ids": ["sofa0", "unknown"]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["found"] == [True, False]
    assert answer.json()["vectors"][1] == [None] * 384
    stream = http.post("/v1/pin-embeddings", json={"ids": ["sofa0", "unknown"]}, headers={"Accept": ARROW})
    assert stream.headers["content-type"] == ARROW
    assert from_arrow(stream.content).vectors[0].tolist() == answer.json()["vectors"][0]
    table = pa.ipc.open_stream(stream.content).read_all()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 384)
    assert table.column("vector").is_null().to_pylist() == [False, True]
    features = http.post("/v1/pin-features", json={"ids": ["sofa0"]}, headers={"Accept": ARROW})
    assert features.headers["content-type"] == "application/json"


def test_paths_of_the_client_are_answered_without_routing(http, monkeypatch):
    routed = []
    real = Route.matches
    monkeypatch.setattr(Route, "matches", lambda route, scope: routed.append(scope["path"]) or real(route, scope))
    for method in served_methods().values():
        assert http.request(method.verb, method.path, json={}).status_code in (200, 422)
    assert routed == []
    assert http.get("/healthz").status_code == 200
    assert "/healthz" in routed


def test_a_request_has_an_id(http):
    given = http.post("/v1/score", json={"query": "a", "pin_ids": []}, headers={"X-Request-Id": "from-a.gateway_7"})
    assert given.headers["x-request-id"] == "from-a.gateway_7"
    for unfit in ("", "a b", "x" * 129, 'a"b'):
        made = http.get("/healthz", headers={"X-Request-Id": unfit}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


def test_every_answer_says_that_it_is_not_kept_and_not_guessed_at(http):
    for answer in (http.get("/healthz"), http.get("/nowhere"), http.post("/v1/score", json={})):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_openapi_document_has_every_method_with_examples_that_work(http, pins):
    document = http.get("/openapi.json").json()
    assert {path for path in document["paths"] if path.startswith("/v1/")} == {
        method.path for method in served_methods().values()
    }
    for method in served_methods().values():
        operation = document["paths"][method.path][method.verb.lower()]
        assert operation["summary"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert "503" in operation["responses"]
        body = {}
        if method.parameters:
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = document["components"]["schemas"][reference.rpartition("/")[2]]
            assert schema["additionalProperties"] is False
            body = schema["examples"][0]
        answer = http.request(method.verb, method.path, json=body)
        assert answer.status_code == 200, (method.name, body, answer.text)
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert http.get("/docs").status_code == 404  # its page would load scripts from another host
    keys = in_process(pins, Settings(KEYS)).get("/openapi.json", headers={"X-Api-Key": KEY}).json()
    assert keys["components"]["securitySchemes"].keys() == {"key", "bearer"}
    assert "security" not in keys["paths"]["/healthz"]["get"]


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": "a", "pin_ids": ["b"], "colour": 1, "shape": 2}, 422, "'colour' is no key .*'shape' is no key"),
        ({"query": "a"}, 422, "'pin_ids' is missing"),
        ({"query": 7, "pin_ids": ["b"]}, 422, "query: .*string"),
        ({"query": "a", "pin_ids": "sofa0"}, 422, "pin_ids: .*list"),
        ({"query": "a", "pin_ids": [1]}, 422, r"pin_ids\.0: .*string"),
        ({"query": "a", "pin_ids": [], "explain": "yes"}, 422, "explain: .*boolean"),
        ({"query": "a", "pin_ids": [], "scorer": "magic"}, 422, "scorer: .*'student', 'zero-shot' or 'bm25'"),
        ([], 422, "the body: "),
        (None, 422, "the body"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(http, body, status, message):
    assert re.search(message, error_of(http.post("/v1/score", content=json.dumps(body), headers=JSON), status))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"\xff{", 400),
        (b"[" * 100_000, 400),
        (b'{"pin_id": "sofa0", "diversity": NaN}', 422),
        (b'{"pin_id": "sofa0", "diversity": Infinity}', 422),
        (b'{"pin_id": "sofa0", "diversity": 1e999}', 422),
        (b'{"pin_id": "sofa0", "diversity": true}', 422),
        (b'{"pin_id": "sofa0", "limit": ' + b"9" * 5000 + b"}", 400),
        (b'{"pin_id": "sofa0", "limit": 99999999999999999999}', 422),
        (b'{"pin_id": "sofa0", "limit": 1.5}', 422),
        (b'{"pin_id": "\\ud800"}', 200),
    ],
)
def test_bodies_that_are_hardly_json(http, content, status):
    answer = http.post("/v1/related-pins", content=content, headers=JSON)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert error_of(answer, status)


def test_other_spaces_paths_and_methods(http):
    assert "'nope'" in error_of(http.post("/v1/pin-embeddings", json={"ids": ["sofa0"], "space": "nope"}), 400)
    error_of(http.get("/v1/nothing"), 404)
    error_of(http.post("/v1/score/", json={}), 404)
    refused = http.get("/v1/score")
    error_of(refused, 405)
    assert refused.headers["allow"] == "POST"
    error_of(http.delete("/healthz"), 405)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"]
)
def test_another_content_type_is_refused(http, kind):
    assert "application/json" in error_of(http.post("/v1/score", content=b"{}", headers={"Content-Type": kind}), 415)


def test_lists_and_bodies_have_bounds(pins):
    http = in_process(pins, Settings(max_body=3000, max_candidates=5, max_queries=2))
    ids = [f"p{number}" for number in range(6)]
    assert http.post("/v1/score", json={"query": "a", "pin_ids": ids[:5], "scorer": "bm25"}).status_code == 200
    assert "pin_ids" in error_of(http.post("/v1/score", json={"query": "a", "pin_ids": ids}), 413)
    assert "queries" in error_of(http.post("/v1/embed-queries", json={"queries": ids[:3]}), 413)
    error_of(http.post("/v1/search", json={"query": "a", "candidates": 6}), 422)
    assert "3,000 bytes" in error_of(http.post("/v1/search", json={"query": "a" * 3000}), 413)
    chunks = (b" " * 1000 for _ in range(10))  # without Content-Length
    assert "3,000 bytes" in error_of(http.post("/v1/search", content=chunks, headers=JSON), 413)
    full = in_process(pins, Settings(max_held=500))
    for _ in range(2):  # and lets go of what it held
        assert full.post("/v1/search", json={"query": "a" * 100}).status_code == 200
        assert "at a time" in error_of(full.post("/v1/search", json={"query": "a" * 500}), 503)
    for wrong in ("max_body", "deadline"):
        with pytest.raises(UsageError, match=wrong):
            Settings(**{wrong: 0})


def test_of_many_wrong_items_the_first_is_told(http):
    """Each is not described, which takes seconds for a body that is full of them."""
    wrong = {"title": "a", "pin_titles": [1] * 2000}
    for path, body in (
        ("board-pins", {"board": wrong}),
        ("boards-for-pin", {"pin_id": "a", "boards": [wrong, wrong]}),
        ("pin-features", {"ids": [1] * 2000}),
    ):
        message = error_of(http.post(f"/v1/{path}", json=body), 422)
        assert "more" not in message, message
    too_many = {"board": {"title": "a", "pin_titles": ["b"] * 2001}}
    error_of(http.post("/v1/board-pins", json=too_many), 413)


def test_a_hundred_thousand_candidates_are_refused_and_a_long_query_is_not(http):
    ids = [str(number) for number in range(100_000)]
    assert "pin_ids" in error_of(http.post("/v1/score", json={"query": "a", "pin_ids": ids}), 413)
    for query in ("sofa " * 20_000, "\x00\x1b[2J\r\n\t" * 10_000, "ﷺ" * 30_000, ""):
        answer = http.post("/v1/search", json={"query": query, "scorer": "bm25"})
        assert answer.status_code == 200
        assert len(answer.json()["query"]) <= 20_000


def test_deadlines(built):
    stuck, go = threading.Event(), threading.Event()

    class StuckEncoder(WordEncoder):
        def encode(self, texts, progress=None):
            stuck.set()
            assert go.wait(20)
            return super().encode(texts, progress)

    with PinClient(built, encoder=StuckEncoder()) as client:
        http = in_process(client, Settings(threads=1, waiting=0))
        for unfit in ("0", "-1", "1.5", "soon", "9" * 10, "٣"):
            answer = http.post("/v1/embed-queries", json={"queries": ["a"]}, headers={"X-Deadline-Ms": unfit.encode()})
            assert "milliseconds" in error_of(answer, 400)
        late = http.post("/v1/embed-queries", json={"queries": ["a"]}, headers={"X-Deadline-Ms": "30"})
        assert "deadline" in error_of(late, 504)
        assert stuck.is_set()  # its thread still works, so the next one finds none
        busy = http.post("/v1/embed-queries", json={"queries": ["a"]})
        assert "try again" in error_of(busy, 503)
        assert busy.headers["retry-after"] == "1"
        go.set()
    error_of(in_process(client, Settings(deadline=1e-9)).get("/v1/status"), 504)


def test_what_is_missing_is_unavailable_and_names_no_folder(built, tmp_path, applied):
    empty = copy_repository(applied.root, tmp_path / "repo")
    with PinClient(empty, encoder=WordEncoder()) as client:
        answer = in_process(client).post("/v1/search", json={"query": "a"})
        message = error_of(answer, 503)
        assert "materialize" in message
        assert str(tmp_path) not in answer.text


def test_no_folder_outside_the_repository_is_told_either():
    error = PinfeatherError("its views read /srv/old/data. Run `apply --repo /srv/new/shop`, not '/opt/m/x'.")
    assert problem_of(error, "/srv/new/shop").message == (
        "its views read a folder of the server. Run `apply --repo the repository`, not 'a folder of the server'."
    )
    for plain in ("see https://pins.example/a/b", "500/600 pins", "give /readyz or en/US"):
        assert problem_of(PinfeatherError(plain)).message == plain


def test_a_fault_is_answered_as_one_and_told_without_its_message(built):
    class Broken(WordEncoder):
        def encode(self, texts, progress=None):
            raise ZeroDivisionError(f"cannot encode {texts}")

    class Faulty(PinClient):
        def status(self):
            raise ZeroDivisionError(SECRET)

    with Faulty(built, encoder=Broken()) as client, logged() as log:
        http = in_process(client)
        fault, missing = http.get("/v1/status"), http.post("/v1/embed-queries", json={"queries": [SECRET]})
    assert SECRET not in error_of(fault, 500)
    assert SECRET not in error_of(missing, 503)
    assert missing.json()["error"]["reason"] == "no_embedding"
    first, second = lines(log, "failed")
    assert (first["error"], first["level"]) == ("ZeroDivisionError", "error")
    assert first["request_id"] == fault.headers["x-request-id"]
    assert re.fullmatch(r"test_service\.py:\d+ status", first["frames"][-1])
    assert (second["error"], second["reason"]) == ("UnavailableError", "no_embedding")
    assert SECRET not in log.getvalue()
