"""A fixture, a pytest plugin: other processes on the test's folder, which end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_children import Child


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    children = []

    def start(script: str) -> Child:
        children.append(Child(script, tmp_path))
        return children[-1]

    yield start
    for started in children:
        started.process.kill()
        started.process.communicate()
