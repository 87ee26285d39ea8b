"""A ``pinfeather serve`` of its own process, for the benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.02
START_SECONDS = 120.0


@dataclass(frozen=True)
class Service:
    """A service that is ready."""

    url: str
    pid: int
    seconds_to_ready: float
    """From the start of its process to the first 200 of /readyz."""

    def memory_mib(self) -> float:
        """What it has in memory now, files that are mapped included."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024, 1)

    def cpu_seconds(self) -> float:
        """What its threads have taken of the cores since it began."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def has_loaded(self, library: str) -> bool:
        """Whether a file whose name has ``library`` in it is mapped into its memory."""
        return library in Path(f"/proc/{self.pid}/maps").read_text()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to one request."""
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=60) as answer:
            return json.load(answer)


@contextmanager
def serving(repo: Path, *options: str) -> Iterator[Service]:
    """A service over ``repo`` on a free port of this machine, until the end of the block.

    :raises RuntimeError: if it ends or is not ready within :data:`START_SECONDS`; the message ends with its log.
    """
    command = [sys.executable, "-m", "pinfeather", "serve", "--repo", str(repo), "--port", "0", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    start = perf_counter()
    process = subprocess.Popen(
        [*command, "--log-level", "warning", *options], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"pinfeather serve ended with {process.wait()} before it listened.")
            said += line
        url = json.loads(said)["url"]
        _wait(url, process, start)
        yield Service(url, process.pid, perf_counter() - start)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(url: str, process: subprocess.Popen[str], start: float) -> None:
    said = "nothing"
    while perf_counter() - start < START_SECONDS:
        if process.poll() is not None:
            raise RuntimeError(f"pinfeather serve ended with {process.returncode} before it was ready.")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except urllib.error.HTTPError as error:
            said = error.read().decode()
        except OSError as error:
            said = str(error)
        sleep(POLL_SECONDS)
    raise RuntimeError(f"pinfeather serve was not ready within {START_SECONDS:g} s; it last said: {said}")
