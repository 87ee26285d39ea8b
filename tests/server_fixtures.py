"""A fake Qdrant server, and a clock for what waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_qdrant import FakeQdrant, Waits

from materialize.stores import session as sessions


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def fake() -> Iterator[FakeQdrant]:
    opened = FakeQdrant()
    yield opened
    sessions.close_all()
    opened.close()
