"""Processes that read and write a store folder, and what their tests have in common."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np

from materialize.stores.points import CollectionSpec, Point, SparseVector, VectorSpec
from materialize.stores.port import VectorStore
from materialize.stores.publication import open_writer

RICH = CollectionSpec(
    {"vector": VectorSpec(2)}, sparse=("text",), packed=("f",), indexes={"n": "integer", "word": "keyword"}
)
"""A collection with everything that a collection can have."""
CODE = Path(__file__).resolve().parents[1]
SPEC = CollectionSpec({"vector": VectorSpec(2)})
PRELUDE = """
import os, signal, sys, uuid
from materialize.stores import files, following, published, reader as readers
from materialize.stores.points import CollectionSpec, Point, SparseVector, VectorSpec
from materialize.stores.publication import open_reader, open_writer
from materialize.stores.session import session
root = sys.argv[1]
SPEC = CollectionSpec({'vector': VectorSpec(2)})
def pin(n): return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pin/{n}"))
def points(*numbers): return [Point(pin(n), {"n": n}, {"vector": [1.0, n]}) for n in numbers]
def found(store, name='pins'): return sorted(p.payload['n'] for p in store.scroll(name)[0])
def say(*words): print(*words, flush=True)
def wait(): sys.stdin.readline()
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
"""


class Child:
    """A Python process that runs a script on a store folder and talks over its pipes."""

    def __init__(self, script: str, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, str(root)],
            cwd=CODE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.communicate("\n" * 9)
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def died(self) -> bool:
        """Whether it killed itself."""
        return self.process.wait() == -signal.SIGKILL


def pin(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"pin/{number}"))


def points(*numbers: int) -> list[Point]:
    return [Point(pin(n), {"n": n}, {"vector": [1.0, n]}) for n in numbers]  # type: ignore[dict-item]


def rich_points(*numbers: int) -> list[Point]:
    words = {n: SparseVector(np.array([n, 1000 + n], np.uint32), np.array([1, 2], np.float32)) for n in numbers}
    return [
        Point(p.id, {**p.payload, "word": f"w{n % 3}", "f": {"x": n}}, p.vectors, {"text": words[n]})
        for n, p in zip(numbers, points(*numbers), strict=True)
    ]


def publish(root: Path, *numbers: int, collection: str = "pins", release: dict | None = None) -> int:
    with open_writer(root) as writer:
        writer.create(collection, SPEC)
        writer.upsert(collection, points(*numbers))
        return writer.publish(release)


def found(store: VectorStore, collection: str = "pins") -> list[int]:
    return sorted(p.payload["n"] for p in store.scroll(collection)[0])


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def folders(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "publications").iterdir())


def copies(root: Path) -> set[str]:
    return {f"{p.parent.name}/{p.name}" for p in (root / "publications").glob("*/*") if p.is_dir()}


def shadows(root: Path) -> list[str]:
    """What the readers have loaded."""
    return sorted(p.name for p in (root / "readers").glob("*/*") if p.is_dir())
