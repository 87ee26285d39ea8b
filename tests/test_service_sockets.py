"""The service behind a real socket: slow and broken senders, its end, and the command that runs it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from client_catalogue import WordEncoder
from served import KEY, served

from feature_repo.errors import UsageError
from serving_client import PinClient, RemotePinClient
from serving_client.http.connection import MOST_HEADER_BYTES, MOST_PIPELINED, SLICE
from serving_client.http.server import address_of, listen
from serving_client.http.settings import Settings

pytest_plugins = ("client_repo",)
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def pins(built):
    with PinClient(built, encoder=WordEncoder()) as client:
        yield client


def connection(url):
    opened = socket.create_connection(("127.0.0.1", httpx.URL(url).port), timeout=20)
    return opened


def everything(opened):
    """What comes until the service closes the connection."""
    with opened:
        parts = []
        while part := opened.recv(65536):
            parts.append(part)
        return b"".join(parts)


def test_slow_senders_are_let_go(pins, monkeypatch):
    monkeypatch.setattr("serving_client.http.connection.HEADER_SECONDS", 0.05)
    with served(pins, Settings(body_seconds=0.05)) as (url, _):
        silent, half, partial = connection(url), connection(url), connection(url)
        half.sendall(HEAD)
        partial.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"query"')
        assert everything(silent) == b""
        assert everything(half) == b""
        answer = everything(partial)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code": "deadline"' in answer
        again = connection(url)  # the second request of a connection, too
        again.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD[:40])
        told = everything(again)
        assert told.count(b"HTTP/1.1") == 1
        assert b"200 OK" in told


GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = HEAD.replace(b"search", b"pin-embeddings") + b"Transfer-Encoding: chunked\r\n\r\n"
IDS = b'f\r\n{"ids":["sofa0"\r\n2\r\n]}\r\n'


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_wish_for_another_protocol_changes_nothing(pins, at_once, chunked):
    head = CHUNKED if chunked else CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: 17")
    head = head.replace(b"\r\n\r\n", b"\r\n" + UPGRADE + b"\r\n")
    body = IDS + b"0\r\n\r\n" if chunked else b'{"ids":["sofa0"]}'
    with served(pins) as (url, _):
        wishing = connection(url)
        if at_once:
            wishing.sendall(head + body + LAST)
        else:
            wishing.sendall(head)
            wishing.sendall(body)
            wishing.sendall(GET[:-2] + UPGRADE + b"\r\n" + LAST)
        told = everything(wishing)
        assert told.count(b"HTTP/1.1 200") == (2 if at_once else 3)
        assert b"sofa0" in told
        smuggled = connection(url)  # a body that reads like a request is a body
        smuggled.sendall(head.replace(b"17", b"%d" % len(LAST)) if not chunked else head + b"%x\r\n" % len(LAST))
        smuggled.sendall(LAST + (b"\r\n0\r\n\r\n" if chunked else b"") + LAST)
        told = everything(smuggled)
        assert told.count(b"HTTP/1.1") == 2
        assert told.startswith(b"HTTP/1.1 422")


def test_headers_have_a_size_however_they_come(pins):
    with served(pins) as (url, _):
        many = connection(url)
        many.sendall(HEAD + b"A: " + b"b" * 1000 + b"\r\n")
        for _ in range(MOST_HEADER_BYTES // 1000):
            many.sendall(b"A: " + b"b" * 1000 + b"\r\n")
        assert everything(many).startswith(b"HTTP/1.1 400")
        whole = connection(url)
        whole.sendall(GET[:-2] + b"A: bcd\r\n" * (MOST_HEADER_BYTES // 4) + b"\r\n")
        assert everything(whole).startswith(b"HTTP/1.1 400")
        second = connection(url)
        second.sendall(GET)
        assert second.recv(1) == b"H"
        second.sendall(HEAD + b"X-Long: " + b"a" * MOST_HEADER_BYTES)
        assert b"HTTP/1.1 400" in everything(second)
        blank = connection(url)
        blank.sendall(b"\r\n" * MOST_HEADER_BYTES)
        assert everything(blank).startswith(b"HTTP/1.1 400")
        fitting = connection(url)
        fitting.sendall(LAST[:-2] + b"A: " + b"b" * (MOST_HEADER_BYTES - 1000) + b"\r\n\r\n")
        assert everything(fitting).startswith(b"HTTP/1.1 200")


def test_what_follows_a_body_has_a_size_and_is_no_header(pins):
    with served(pins) as (url, _):
        late = connection(url)  # read when the headers were looked at already
        late.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + IDS)
        late.sendall(b"0\r\nX-Deadline-Ms: 0\r\n\r\n")
        assert everything(late).startswith(b"HTTP/1.1 200")
        endless = connection(url)
        endless.sendall(CHUNKED + IDS + b"0\r\nA: " + b"b" * (MOST_HEADER_BYTES + SLICE))
        assert everything(endless).startswith(b"HTTP/1.1 400")
        extended = connection(url)
        extended.sendall(CHUNKED + IDS + b"1;" + b"a" * (MOST_HEADER_BYTES + SLICE))
        assert everything(extended).startswith(b"HTTP/1.1 400")


def test_requests_may_come_before_the_one_before_is_answered_but_not_many(pins):
    with served(pins) as (url, _):
        few = connection(url)
        few.sendall(GET * MOST_PIPELINED + LAST)
        answers = everything(few)
        assert answers.count(b"HTTP/1.1 200") == MOST_PIPELINED + 1
        many = connection(url)
        many.sendall(GET * (MOST_PIPELINED + 2))
        assert b"HTTP/1.1 400" in everything(many)


def test_blanks_after_an_answer_do_not_keep_a_connection(pins, monkeypatch):
    monkeypatch.setattr("serving_client.http.connection.HEADER_SECONDS", 0.05)
    with served(pins) as (url, _):
        idle = connection(url)
        idle.sendall(GET)
        assert idle.recv(4) == b"HTTP"
        idle.sendall(b"\r\n")
        assert everything(idle).count(b"HTTP/1.1") == 0
        partial = connection(url)
        partial.sendall(GET + GET[:10])  # what came while the first was answered
        assert everything(partial).count(b"HTTP/1.1 200") == 1


def test_bodies_that_are_too_large_or_break_off(pins):
    with served(pins, Settings(max_body=1000)) as (url, _):
        declared, chunked, gone = connection(url), connection(url), connection(url)
        declared.sendall(HEAD + b"Content-Length: 1001\r\n\r\n")
        assert everything(declared).startswith(b"HTTP/1.1 413")
        chunked.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"258\r\n" + b" " * 600 + b"\r\n")
        chunked.sendall(b"258\r\n" + b" " * 600 + b"\r\n")
        assert everything(chunked).startswith(b"HTTP/1.1 413")
        long = connection(url)
        long.sendall(HEAD + b"X-Long: " + b"a" * MOST_HEADER_BYTES)  # and no more: what is unread would break it off
        assert everything(long).startswith(b"HTTP/1.1 400")
        gone.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        gone.close()
        with httpx.Client(base_url=url) as http:
            assert http.get("/healthz").status_code == 200
            route = '{route="/v1/search",status="499"}'
            metrics = ""
            for _ in range(100):  # until the service has seen that it went
                metrics = http.get("/metrics").text
                if route in metrics:
                    break
            assert f"pinfeather_http_requests_total{route} 1.0" in metrics


def test_who_reads_nothing_and_who_goes_on_sending_is_let_go(pins):
    with served(pins, Settings(send_seconds=0.05)) as (url, server):
        deaf = connection(url)
        body = json.dumps({"ids": ["sofa0"] * 2000}).encode()
        head = HEAD.replace(b"/v1/search", b"/v1/pin-embeddings")
        deaf.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert deaf.recv(1) == b"H"
        waiting = threading.Event()
        for _ in range(2000):  # until the service has broken the connection
            if not server.server_state.connections:
                break
            waiting.wait(0.01)
        assert not server.server_state.connections
        deaf.close()
        chatty = connection(url)  # nobody reads this body, and its bytes must not keep the connection
        chatty.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\na")
        assert everything(chatty).startswith(b"HTTP/1.1 200")


def test_what_is_under_way_is_finished_at_the_end(built):
    begun, go = threading.Event(), threading.Event()

    class StuckEncoder(WordEncoder):
        def encode(self, texts, progress=None):
            if texts == ["ready"]:
                return super().encode(texts, progress)
            begun.set()
            assert go.wait(20)
            return super().encode(texts, progress)

    answers = []
    with PinClient(built, encoder=StuckEncoder()) as client, served(client, drain_delay=3600) as (url, server):

        def ask():
            with RemotePinClient(url) as remote:
                answers.append(remote.embed_queries(["slow"]))

        asking = threading.Thread(target=ask)
        asking.start()
        assert begun.wait(20)
        server.handle_exit(signal.SIGTERM, None)
        with httpx.Client(base_url=url) as http:  # requests are still taken, though none should come
            ending = http.get("/readyz")
            assert (ending.status_code, ending.headers["connection"]) == (503, "close")
            assert "end" in ending.json()["error"]["message"]
            assert http.post("/v1/pin-embeddings", json={"ids": ["sofa0"]}).status_code == 200
        server.handle_exit(signal.SIGTERM, None)  # the second one does not wait
        assert server.should_exit
        go.set()
        asking.join(20)
    assert answers[0].found.all()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_places_to_listen():
    with listen("127.0.0.1", 0) as first:
        assert address_of(first) == f"http://127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(UsageError, match="--port"):
            listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(UsageError, match=r"Cannot listen on 203\.0\.113\.7"):
        listen("203.0.113.7", 0)
    with pytest.raises(UsageError, match="Cannot listen on aaa"):
        listen("a" * 64, 0)
    with pytest.raises(UsageError, match=r"Cannot listen on no\.such\.host"):
        listen("no.such.host.invalid", 0)


def test_the_command_refuses_to_be_open_to_all(pinfeather, built, tmp_path, monkeypatch):
    monkeypatch.delenv("PINFEATHER_API_KEYS", raising=False)
    code, _, talk = pinfeather("serve", "--repo", built, "--host", "0.0.0.0")
    assert code == 2
    assert "--api-key-file" in talk
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    code, _, talk = pinfeather("serve", "--repo", built, "--api-key-file", keys)
    assert code == 2
    assert KEY not in talk


@pytest.mark.slow
def test_the_command_serves_until_sigterm_and_ends_well(built, tmp_path):
    command = [sys.executable, "-m", "pinfeather", "serve", "--repo", str(built), "--port", "0", "--json"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PINFEATHER_API_KEYS": f"page:{KEY}"}
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen(
            [*command, "--drain-delay", "0"], stdout=subprocess.PIPE, stderr=log, text=True, env=env
        )
        try:
            head = ""
            while not head.endswith("}\n"):
                head += process.stdout.readline()
            told = json.loads(head)
            assert told["keys"] == ["page"]
            with httpx.Client(base_url=told["url"], headers={"X-Api-Key": KEY}, timeout=30) as http:
                while http.get("/readyz").status_code != 200:
                    assert process.poll() is None
                assert http.post("/v1/search", json={"query": "velvet sofa"}).json()["hits"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
        log.seek(0)
        lines = [json.loads(line) for line in log]
    assert any(line["event"] == "request" and line["route"] == "/v1/search" for line in lines)
    assert KEY not in json.dumps(lines)
    assert not [line for line in lines if "frames" in line]
