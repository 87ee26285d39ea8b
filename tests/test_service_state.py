"""What the HTTP service tells those who run it: readiness, metrics, logs, its documentation."""

import asyncio
import gc
import re
import shutil
from dataclasses import fields
from pathlib import Path

from client_catalogue import WordEncoder, copy_repository
from served import KEY, KEYS, OTHER_KEY, SECRET, error_of, in_process, lines, logged

from serving_client import PinClient
from serving_client.collector import THRESHOLDS, settled
from serving_client.http.errors import STATUSES
from serving_client.http.readiness import Readiness
from serving_client.http.routes_state import STATE_PATHS
from serving_client.http.settings import Settings
from serving_client.methods import served_methods

pytest_plugins = ("client_repo", "service_fixtures")


# --- readiness, metrics, logs ---------------------------------------------------------------------------------------


def test_ready_when_the_model_has_answered_and_not_when_it_ends(pins):
    http = in_process(pins)
    assert http.get("/healthz").json() == {"alive": True}
    assert "starting" in error_of(http.get("/readyz"), 503)
    service = http.app.state.service
    with settled():
        asyncio.run(service.readiness.prepare(pins, service.aside, service.tellable))
    assert http.get("/readyz").json() == {"ready": True}
    service.readiness.draining = True
    ending = http.get("/readyz")
    assert "end" in error_of(ending, 503)
    assert ending.headers["connection"] == "close"
    assert http.get("/healthz").status_code == 200


def test_readiness_names_what_is_missing_and_tries_again(built, tmp_path, applied, monkeypatch):
    empty = copy_repository(applied.root, tmp_path / "repo")
    seen = []

    async def sleep(_):
        seen.append(readiness.missing)
        shutil.rmtree(empty)
        copy_repository(built, empty)
        await asyncio.to_thread(client.refresh)  # else it looks again when a second has passed

    monkeypatch.setattr("serving_client.http.readiness.asyncio.sleep", sleep)
    readiness = Readiness()
    with PinClient(empty, encoder=WordEncoder()) as client, settled():
        service = in_process(client).app.state.service
        asyncio.run(readiness.prepare(client, service.aside, service.tellable))
    assert len(seen) == 1
    assert "materialize" in seen[0]
    assert str(tmp_path) not in seen[0]
    assert readiness.problem is None


def test_a_fault_at_the_start_is_tried_again(built, monkeypatch):
    class Faulty(PinClient):
        faults = 1

        def search(self, *args, **kwargs):
            self.faults -= 1
            if self.faults >= 0:
                raise ZeroDivisionError(SECRET)
            return super().search(*args, **kwargs)

    seen = []

    async def sleep(_):
        seen.append(readiness.missing)

    monkeypatch.setattr("serving_client.http.readiness.asyncio.sleep", sleep)
    readiness = Readiness()
    with Faulty(built, encoder=WordEncoder()) as client, settled():
        service = in_process(client).app.state.service
        asyncio.run(readiness.prepare(client, service.aside, service.tellable))
    assert seen == ["The first search failed (ZeroDivisionError)."]
    assert readiness.problem is None


def test_the_collector_is_as_it_was_after_the_service(pins):
    gc.unfreeze()
    before = gc.get_threshold()
    gc.set_threshold(701, 11, 12)
    try:
        with in_process(pins) as http:
            while http.get("/readyz").status_code != 200:
                pass
            assert gc.get_freeze_count() > 0
            assert gc.get_threshold() == THRESHOLDS
        assert (gc.get_freeze_count(), gc.get_threshold()) == (0, (701, 11, 12))
    finally:
        gc.set_threshold(*before)


def numbers(http, **headers):
    """Sample to its value."""
    text = http.get("/metrics", headers=headers).text
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
    }


def test_metrics_count_requests_stages_and_reasons(built):
    with PinClient(built, encoder=WordEncoder()) as client:
        http = in_process(client)
        for _ in range(2):
            http.post("/v1/search", json={"query": "velvet sofa"})
        http.post("/v1/search", json={"query": 1})
        http.get("/invented/" + SECRET)
        told = numbers(http)
        assert told['pinfeather_http_requests_total{route="/v1/search",status="200"}'] == 2
        assert told['pinfeather_http_requests_total{route="/v1/search",status="422"}'] == 1
        assert told['pinfeather_http_requests_total{route="other",status="404"}'] == 1
        assert told['pinfeather_http_request_seconds_count{route="/v1/search"}'] == 3
        assert told['pinfeather_stage_seconds_count{stage="store"}'] >= 2
        assert told['pinfeather_stage_seconds_count{stage="embed"}'] == 1
        assert told['pinfeather_degraded_total{code="no_student"}'] == 2
        assert told['pinfeather_degraded_total{code="other"}'] == 0
        assert (told["pinfeather_query_cache_misses_total"], told["pinfeather_query_cache_hits_total"]) == (1, 1)
        assert told["pinfeather_query_cache_bytes"] > 0
        assert told["pinfeather_http_in_flight"] == 1  # this one
        assert told["pinfeather_calls_pending"] == 0
        status = client.status()
        assert told["pinfeather_served_publication_number"] == status.publication
        assert told["pinfeather_served_release_number"] == status.release
        assert 0 < told["pinfeather_served_publication_age_seconds"] <= status.age.total_seconds()


def test_neither_log_nor_metrics_tell_what_was_asked_nor_a_key(pins):
    http = in_process(pins, Settings(KEYS, max_candidates=20))
    bodies = (
        {"query": SECRET, "pin_ids": ["pin-of-somebody"]},
        {"query": SECRET, "pin_ids": ["pin-of-somebody"] * 21},
        {"query": SECRET, SECRET: 1},
        {"query": SECRET, "pin_ids": ["pin-of-somebody"], "scorer": SECRET},
    )
    with logged() as log:
        for headers in ({"X-Api-Key": KEY}, {"X-Api-Key": f"guess-{KEY}"}, {"Authorization": f"Bearer {OTHER_KEY}"}):
            for body in bodies:
                http.post(f"/v1/score?q={SECRET}", json=body, headers=headers)
            http.post("/v1/embed-queries", json={"queries": [SECRET]}, headers=headers)
            http.get(f"/{SECRET}", headers=headers)
            http.request("ODD" + SECRET[:3].upper(), "/", headers=headers)
        metrics = http.get("/metrics", headers={"X-Api-Key": KEY}).text
    for text in (log.getvalue(), metrics):
        for word in (SECRET, SECRET.partition(" ")[0], "pin-of-somebody", KEY, OTHER_KEY, "guess"):
            assert word not in text
    told = lines(log, "request")
    assert {line["key"] for line in told} == {"page", "batch", None}
    first = told[0]
    assert (first["route"], first["method"], first["status"], first["degraded"]) == (
        "/v1/score",
        "POST",
        200,
        ["no_student"],
    )
    assert first["ms"] > 0
    assert first["time"].endswith("Z")
    assert re.fullmatch("[0-9a-f]{32}", first["request_id"])


def test_no_key_sees_the_requests_of_another(pins):
    http = in_process(pins, Settings(KEYS))
    other = {"X-Api-Key": OTHER_KEY}

    def told():
        """What the other key gets from the paths that hold anything between requests, but counts and age."""
        answers = [
            http.post("/v1/embed-queries", json={"queries": [SECRET]}, headers=other),
            http.post("/v1/search", json={"query": "sofa", "limit": 3}, headers=other),
            http.post("/v1/search", json={"query": 1}, headers=other),
            http.get("/v1/status", headers=other),
            http.get("/openapi.json", headers=other),
        ]
        bodies = [answer.json() for answer in answers]
        assert bodies[2]["error"].pop("request_id") == answers[2].headers["x-request-id"]
        assert bodies[3].pop("age") >= 0
        assert {type(count) for count in bodies[3].pop("query_cache").values()} == {int}
        return bodies, "".join(str(answer.headers) for answer in answers)

    before, _ = told()
    mine = {"X-Api-Key": KEY, "X-Request-Id": "of-the-page"}
    for body in ({"query": SECRET}, {"query": SECRET, "pin_ids": ["sofa0"]}, {"query": SECRET, SECRET: 1}, {}):
        for path in ("search", "score"):
            assert http.post(f"/v1/{path}", json=body, headers=mine).headers["x-request-id"] == "of-the-page"
    after, headers = told()
    assert after == before
    for text in (headers, http.get("/metrics", headers=other).text):
        assert SECRET not in text
        assert "of-the-page" not in text


def test_the_documentation_names_every_path_argument_metric_option_and_error(http):
    text = (Path(__file__).resolve().parents[1] / "docs" / "service.md").read_text()
    for method in served_methods().values():
        arguments = f"`{', '.join(method.parameters)}`" if method.parameters else ""
        assert f"| `{method.verb} {method.path}` | {arguments}" in text, method.name
    for path in STATE_PATHS:
        assert f"| `GET {path}` |" in text
    for status, (code, _) in STATUSES.items():
        assert re.search(rf"^\| `{code}` \|.*\b{status}\b", text, re.MULTILINE), status
    families = re.findall("^# TYPE (pinfeather_[a-z_]+) ", http.get("/metrics").text, re.MULTILINE)
    for name in families:
        assert f"`{name}`" in text or name.endswith("_created"), name
    defaults = {each.name: each.default for each in fields(Settings) if each.name != "keys"}
    assert f"| {defaults['max_candidates']:,} | `--max-candidates` |" in text
    assert f"| {defaults['max_queries']} | `--max-queries` |" in text
    assert f"| {defaults['deadline']:g} | `--deadline` |" in text
    assert f"| {defaults['threads']}; {defaults['waiting']} |" in text
