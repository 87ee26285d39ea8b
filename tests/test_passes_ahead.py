"""Passes over the sources that run ahead of the comparison, two at a time."""

import threading

import duckdb
import pytest
from scan_world import World

from feature_repo.errors import PinfeatherError
from materialize import passes, sources
from materialize.scan import connect


@pytest.fixture
def world(tmp_path):
    return World(tmp_path).pins({f"pin {n}": {"title": "hat", "caption": "a hat"} for n in range(5)})


@pytest.fixture
def made(monkeypatch):
    """Names of the views of which a pass was made."""
    names: list[str] = []

    class Noted(passes.HashedView):
        def __init__(self, con, source, path, scratch):
            names.append(source.view.name)
            super().__init__(con, source, path, scratch)

    monkeypatch.setattr(sources, "HashedView", Noted)
    return names


def totals(con, world):
    return {name: con.hashed(view).total for name, view in world.views.items()}


def test_each_view_is_passed_over_once_whether_asked_for_in_the_block_or_after_it(world, made):
    *_, last = world.views.values()
    with connect(world.paths.ledger) as con:
        with con.ahead(list(world.views.values())):
            con.hashed(last)  # so all of them have begun
        assert sorted(made) == sorted(world.views)
        found = totals(con, world)
        with con.ahead(list(world.views.values())):
            assert totals(con, world) == found
    assert found["pin_text"] == found["pin_captions"] == 5
    assert sorted(made) == sorted(world.views)


def test_a_pass_that_two_at_a_time_leave_no_memory_for_is_made_again_alone(world, monkeypatch):
    starved: list[str] = []

    class Starved(passes.HashedView):
        def __init__(self, con, source, path, scratch):
            if threading.current_thread() is not threading.main_thread():
                starved.append(source.view.name)
                raise duckdb.OutOfMemoryException("there is not enough memory")
            super().__init__(con, source, path, scratch)

    with connect(world.paths.ledger) as con:
        expected = totals(con, world)
    monkeypatch.setattr(sources, "HashedView", Starved)
    with connect(world.paths.ledger) as con, con.ahead(list(world.views.values())):
        assert totals(con, world) == expected
    assert sorted(starved) == sorted(world.views)


def test_a_block_that_fails_ends_its_passes_and_leaves_the_session_usable(world):
    with connect(world.paths.ledger) as con:
        with pytest.raises(ZeroDivisionError), con.ahead(list(world.views.values())):
            raise ZeroDivisionError
        assert not [each for each in threading.enumerate() if each.name.startswith("ThreadPoolExecutor")]
        assert totals(con, world)["pin_text"] == 5


def test_a_file_that_cannot_be_read_is_named_by_the_view_that_asks_for_it(world):
    (world.folder / "pin_captions" / "0.parquet").write_bytes(b"no parquet")
    with (
        pytest.raises(PinfeatherError, match="pin_captions"),
        connect(world.paths.ledger) as con,
        con.ahead(list(world.views.values())),
    ):
        assert con.hashed(world.views["pin_text"]).total == 5
        con.hashed(world.views["pin_captions"])
