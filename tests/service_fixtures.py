"""Fixtures of the HTTP service's tests, a pytest plugin beside ``client_repo``: one service for all tests of a file."""

from collections.abc import Iterator

import pytest
from client_catalogue import WordEncoder
from served import in_process
from starlette.testclient import TestClient

from serving_client import PinClient


@pytest.fixture(scope="module")
def pins(built) -> Iterator[PinClient]:
    """A client over the catalogue, for reading only."""
    with PinClient(built, encoder=WordEncoder()) as client:
        yield client


@pytest.fixture(scope="module")
def http(pins) -> TestClient:
    """Requests to a service over it, in process."""
    return in_process(pins)
