"""The service benchmarks: the load counts what went wrong and hides no stall, and bounds that are missed are named."""

import asyncio
import json

import pytest

from benchmarks.serving import http, load


class Server:
    """Answers in turn by what it is told: a status, ``drop`` for none, or an event to wait for."""

    def __init__(self, *turns):
        self.turns, self.bodies, self.connections = list(turns), [], 0

    async def serve(self, reader, writer):
        self.connections += 1
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            self.bodies.append(await reader.readexactly(length))
            turn = self.turns.pop(0) if self.turns else 200
            if turn == "drop":
                break
            if isinstance(turn, asyncio.Event):
                await turn.wait()
                turn = 200
            answer = b'{"degraded": []}' if turn == 200 else b'{"degraded": ["stale: x"]}'
            writer.write(f"HTTP/1.1 {turn} X\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer)
        writer.close()


def play(server, bodies, rate, seconds, meanwhile=None):
    async def run():
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        made = load.Load(f"http://127.0.0.1:{port}/v1/score", bodies)
        other = asyncio.create_task(meanwhile(made)) if meanwhile else None
        took = await made.run(rate, seconds)
        if other:
            await other
        listening.close()
        return made, made.report(rate, took)

    return asyncio.run(run())


def test_every_request_is_sent_once_and_every_failure_counts():
    server = Server(200, 503, "drop", 200)
    _, report = play(server, [b"a", b"b", b"c"], rate=400, seconds=0.02)
    assert sorted(server.bodies) == sorted([b"a", b"b", b"c", b"a", b"b", b"c", b"a", b"b"])
    assert (report["requests"], report["errors"], report["degraded"]) == (8, 2, 1)
    assert report["outcomes"] == {"200": 6, "503": 1, "connection lost": 1}
    assert server.connections == report["connections"] <= 8


def test_a_stall_counts_for_all_that_it_holds_up_from_when_they_were_due():
    async def end(made):
        while len(server.bodies) < 5:  # the schedule goes on while the first is not answered
            await asyncio.sleep(0)
        stall.set()

    stall = asyncio.Event()
    server = Server(*[stall] * 5)
    made, report = play(server, [b"a"], rate=1000, seconds=0.005, meanwhile=end)
    assert report["errors"] == 0
    assert report["connections"] == 5
    assert max(made.latencies) >= 0.004  # that of the first, due at 0 and answered when the fifth had arrived


def test_only_this_machine_is_loaded():
    with pytest.raises(SystemExit, match="not on this machine"):
        load.Load("http://example.org/v1/score", [b"{}"])


def report(**changes):
    case = {"errors": 0, "outcomes": {"200": 9}, "p50_ms": 1.0, "p99_ms": 99.0, "max_ms": 120.0, "rate": 150}
    return {"cases": {"score": case | {"memory_mib": [100, 101]} | changes}, "memory_mib": [100.0, 105.0]}


def test_missed_bounds_are_named():
    assert http.failures(report()) == []
    assert "p99 101 ms" in http.failures(report(p99_ms=101))[0]
    assert "2 errors" in http.failures(report(errors=2))[0]
    assert "memory grew" in http.failures(report() | {"memory_mib": [100.0, 120.0]})[0]
    assert "| score | 150 | 0 | 1.0 | 99.0 | 120.0 | 100, 101 |" in http.table(json.loads(json.dumps(report())))
