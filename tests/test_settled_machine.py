"""Files that change in every way, runs that die, a ledger from a backup: with notes or without, scans say the same."""

import os
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from scan_world import NONE, NOW, VIEWS, World, make_small
from settled_world import FILES, answers, rewrite, write

from materialize.file_states import source_files


class Files(RuleBasedStateMachine):
    """Files that change in every way, runs that die, a ledger from a backup: both scans always say the same."""

    def __init__(self):
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.world = World(Path(self.place.name))
        self.pins = {f"pin {n}": {"title": f"hat {n}", "caption": "felt"} for n in range(5)}
        self.world.pins(self.pins, files=FILES)
        self.run, self.held = 1, NONE

    def path(self, view, file):
        paths = source_files(self.world.views[view].source)
        return paths[file % len(paths)]

    views = st.sampled_from(["pin_text", "pin_captions", "pin_link_text"])
    files = st.integers(0, 3)

    @rule(view=views, file=files, row=st.integers(0, 3), word=st.sampled_from(["cap", "hat", "fez", None]))
    def edit(self, view, file, row, word):
        def change(rows):
            feature = next(iter(VIEWS[view]))
            return [{**each, feature: word} if place == row else each for place, each in enumerate(rows)]

        rewrite(self.path(view, file), change)

    @rule(view=views, file=files)
    def touch(self, view, file):
        os.utime(self.path(view, file))

    @rule(view=views, file=files)
    def replace(self, view, file):
        path = self.path(view, file)
        copy = path.with_suffix(".copy")
        shutil.copy2(path, copy)
        copy.replace(path)

    @rule(view=views, file=files, pin=st.integers(0, 7), later=st.booleans())
    def add(self, view, file, pin, later):
        schema = pq.read_schema(self.path(view, 0))
        when = NOW.replace(year=2027) if later else NOW
        row = {
            "pin_id": f"pin {pin}",
            next(iter(VIEWS[view])): "new",
            "event_timestamp": when,
            "created_timestamp": when,
        }
        path = Path(self.world.views[view].source).with_name(f"more-{file}.parquet")
        pq.write_table(pa.Table.from_pylist([row], schema=schema), path)

    @rule(view=views, file=files)
    def remove(self, view, file):
        if len(source_files(self.world.views[view].source)) > 1:
            self.path(view, file).unlink()

    @rule(
        steps=st.sampled_from([99, 99, *range(1, 12)]),
        leave=st.sampled_from([NONE, NONE, frozenset({"pin 1"})]),
        pins=st.booleans(),
    )
    def write(self, steps, leave, pins):
        self.run += 1
        write(self.world, self.run, self.held, steps, leave, pins)

    @rule(pins=st.frozensets(st.sampled_from(["pin 0", "pin 1", "pin 7"])))
    def hold(self, pins):
        self.held = pins

    @rule()
    def back_up(self):
        shutil.rmtree(self.world.folder / "aside", ignore_errors=True)
        if self.world.paths.ledger.is_dir():
            shutil.copytree(self.world.paths.ledger, self.world.folder / "aside")

    @rule(renamed=st.booleans())
    def restore(self, renamed):
        if (self.world.folder / "aside").is_dir():
            shutil.rmtree(self.world.paths.ledger)
            (os.rename if renamed else shutil.copytree)(self.world.folder / "aside", self.world.paths.ledger)

    @rule(pins_first=st.booleans())
    def look(self, pins_first):
        answers(self.world, self.held, pins_first=pins_first)

    @invariant()
    def all_agree(self):
        read = answers(self.world, self.held, noting=False)[0]
        assert answers(self.world, self.held, pins_first=bool(self.run % 2))[0] == read

    def teardown(self):
        self.place.cleanup()


@pytest.mark.parametrize(
    ("examples", "steps"),
    [pytest.param(2, 6, id="few"), pytest.param(60, 25, id="many", marks=pytest.mark.slow)],
)
def test_both_scans_always_say_the_same(monkeypatch, examples, steps):
    make_small(monkeypatch)
    how = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Files, settings=how)
