"""Requests at fixed times over keep-alive connections, for :mod:`benchmarks.serving.http`; a process of its own.

    python -m benchmarks.serving.load http://127.0.0.1:8080/v1/score bodies.jsonl --rate 150 --seconds 60

The schedule is open: request number i begins i / rate seconds after the start, whether or not those before it are
answered. A latency is counted from that time and not from when the request could be sent, so a stall counts for every
request that it held up. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 30.0
"""Seconds after which a request counts as failed."""


class Load:
    """One run against one path of one server on this machine."""

    def __init__(self, url: str, bodies: Sequence[bytes]) -> None:
        parts = urlsplit(url)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SystemExit(f"{url} is not on this machine: this load is for one's own server only.")
        self.host, self.port = parts.hostname, parts.port or 80
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
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

    async def run(self, rate: float, seconds: float) -> float:
        """Send all; returns the seconds until the last answer."""
        start = perf_counter()
        tasks: set[asyncio.Task[None]] = set()
        for number in range(round(rate * seconds)):
            due = start + number / rate
            wait = due - perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self.begun_late = max(self.begun_late, perf_counter() - due)
            task = asyncio.create_task(self._one(due, self._requests[number % len(self._requests)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()
        return perf_counter() - start

    async def _one(self, due: float, request: bytes) -> None:
        try:
            status, degraded = await asyncio.wait_for(self._exchange(request), PATIENCE)
            outcome = str(status)
            self.degraded += degraded
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1
        self.latencies.append(perf_counter() - due)

    async def _exchange(self, request: bytes) -> tuple[int, bool]:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            self.connections += 1
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            length = next(int(line.partition(":")[2]) for line in head if line.startswith("content-length:"))
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(head[0].split()[1]), b'"degraded":[]' not in body.replace(b": ", b":")

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
        }


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
