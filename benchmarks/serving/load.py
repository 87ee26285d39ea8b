"""Requests at fixed times over keep-alive connections, for :mod:`benchmarks.serving.http`; a process of its own.

    python -m benchmarks.serving.load http://127.0.0.1:8080/v1/score bodies.jsonl --rate 150 --seconds 60

The schedule is open: request number i begins i / rate seconds after the start, whether or not those before it are
answered. A latency is counted from that time and not from when the request could be sent, so a stall counts for every
request that it held up. As the load shares the cores with what it measures, the bytes of all requests are made
beforehand, and of the answers only some are read as JSON. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 30.0
"""Seconds after which a request counts as failed."""
READ_EVERY = 100
"""One of so many answers is read as JSON."""
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) (?:.*?)\r\ncontent-length: *(\d+)(?:.*?)\r\n\r\n", re.DOTALL | re.IGNORECASE)
_NOT_DEGRADED = re.compile(rb'"degraded": ?\[\]')


class Load:
    """One run against one path of one server on this machine."""

    def __init__(self, url: str, bodies: Sequence[bytes]) -> None:
        parts = urlsplit(url)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SystemExit(f"{url} is not on this machine: this load is for one's own server only.")
        self.host, self.port = parts.hostname, parts.port or 80
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._requests = [
            f"POST {parts.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in bodies
        ]
        self.latencies: list[float] = []
        self.outcomes: Counter[str] = Counter()
        self.degraded = 0
        self.connections = 0
        self.begun_late = 0.0
        """Seconds by which the generator itself began a request too late, at worst."""
        self.cpu_seconds = 0.0
        """What the generator itself took of a core."""

    async def run(self, rate: float, seconds: float) -> float:
        """Send all; returns the seconds until the last answer."""
        start, cpu = perf_counter(), process_time()
        count = round(rate * seconds)
        opening: set[asyncio.Task[None]] = set()
        for number in range(count):
            due = start + number / rate
            wait = due - perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self.begun_late = max(self.begun_late, perf_counter() - due)
            request = self._requests[number % len(self._requests)]
            if self._idle:
                self._idle.pop().send(due, request)
            else:
                task = asyncio.create_task(self._connect(due, request))
                opening.add(task)
                task.add_done_callback(opening.discard)
        ends = perf_counter() + PATIENCE
        while len(self.latencies) < count and perf_counter() < ends:
            await asyncio.sleep(0.005)
        took = perf_counter() - start
        self.cpu_seconds = process_time() - cpu
        for connection in self._open.copy():
            connection.give_up()
        return took

    async def _connect(self, due: float, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), self.host, self.port)
        except OSError as error:
            self.note(due, type(error).__name__)
            return
        self.connections += 1
        self._open.add(connection)
        connection.send(due, request)

    def answered(self, connection: _Connection, due: float, status: int, body: bytes) -> None:
        """Hear of an answer; its connection is free again."""
        outcome = str(status)
        if len(self.latencies) % READ_EVERY == 0:
            try:
                json.loads(body)
            except ValueError:
                outcome = "no JSON"
        self.note(due, outcome)
        self.degraded += _NOT_DEGRADED.search(body) is None
        self._idle.append(connection)

    def note(self, due: float, outcome: str) -> None:
        """Hear of the end of a request."""
        self.outcomes[outcome] += 1
        self.latencies.append(perf_counter() - due)

    def gone(self, connection: _Connection) -> None:
        """Hear that a connection is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def report(self, rate: float, seconds: float) -> dict[str, Any]:
        """What came of it; latencies in milliseconds."""
        ordered = sorted(self.latencies)

        def at(share: float) -> float:
            return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1e3, 2)

        good = self.outcomes["200"]
        return {
            "rate": rate,
            "requests": len(ordered),
            "errors": len(ordered) - good,
            "outcomes": dict(self.outcomes),
            "degraded": self.degraded,
            "answered_a_second": round(len(ordered) / seconds, 1),
            "p50_ms": at(0.5),
            "p90_ms": at(0.9),
            "p99_ms": at(0.99),
            "max_ms": at(1.0),
            "connections": self.connections,
            "begun_late_ms": round(self.begun_late * 1e3, 2),
            "load_cpu_ms_a_request": round(self.cpu_seconds / len(ordered) * 1e3, 3),
        }


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next one."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._due: float | None = None
        """When the request was due that waits for its answer."""
        self._got = bytearray()
        self._head: re.Match[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def send(self, due: float, request: bytes) -> None:
        """Ask; the answer goes to the load."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._head is None:
            self._head = _HEAD.match(bytes(self._got))
        if self._head is None or self._due is None:
            return
        begin = self._head.end()
        if len(self._got) >= begin + int(self._head[2]):
            due, status, body = self._due, int(self._head[1]), bytes(self._got[begin:])
            self._due, self._head, self._got = None, None, bytearray()
            self._load.answered(self, due, status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.gone(self)
        if self._due is not None:
            self._load.note(self._due, "connection lost")
            self._due = None

    def give_up(self) -> None:
        """Close; what is not answered by now counts as such."""
        if self._due is not None:
            self._load.note(self._due, "no answer")
            self._due = None
        self._transport.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path, help="one JSON body a line; sent in turn, from the first again")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    load = Load(options.url, options.bodies.read_bytes().splitlines())
    took = asyncio.run(load.run(options.rate, options.seconds))
    json.dump(load.report(options.rate, took), sys.stdout)


if __name__ == "__main__":
    main()
