"""Fixtures of the client's tests, a pytest plugin: the catalogue built once, a copy to change, a client over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from client_catalogue import WordEncoder, copy_repository, write_raw
from made_once import made_once

from feature_repo.aggregates import aggregate
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize.run import RunOptions, materialize
from pinfeather.pipeline import fit_lexical
from serving_client import PinClient


@pytest.fixture(scope="session")
def built(applied, tmp_path_factory) -> Path:
    """The catalogue after every step, for reading only."""

    def make(folder: Path) -> None:
        paths = RepoPaths.open(copy_repository(applied.root, folder))
        write_raw(paths)
        assert validate(paths).total_rejected == 0
        aggregate(paths)
        counts = materialize(paths, RunOptions(encoder=WordEncoder()))
        assert counts.rejected == 1
        fit_lexical(paths)

    return made_once(tmp_path_factory, "client", make)


@pytest.fixture
def client_shop(built, tmp_path) -> RepoPaths:
    """A copy of the catalogue to change."""
    return RepoPaths.open(copy_repository(built, tmp_path / "repo"))


@pytest.fixture
def tower() -> WordEncoder:
    """A query tower that counts."""
    return WordEncoder()


@pytest.fixture
def client(built, tower) -> Iterator[PinClient]:
    """A client over the catalogue."""
    with PinClient(built, encoder=tower) as opened:
        yield opened
