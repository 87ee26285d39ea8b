"""Edits, kills, spaces, promotions and readers in any order: after the next clean run all agrees with the source.

Hypothesis drives a repository on a real store and a dictionary. Batches have two texts, so that a run has many steps.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from conftest import Catalogue, CountingEncoder
from edited_pins import PINS, TITLES, EditedPins, some
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from run_deaths import BATCH_SEAMS, EVERYWHERE, dying

from embedders.encoder import as_stored
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.encoders import fitted
from materialize.ledger import Ledger
from materialize.promotion import Gate, promote, rollback
from materialize.releases import LIVE_EMBEDDING, current_release, past_release
from materialize.run import RunOptions, materialize
from materialize.space_admin import backfill, create_space
from materialize.spaces import Space, Status, freeze_space, load_space, load_spaces, unfreeze_space
from materialize.stores.layout import entity_collection
from materialize.stores.port import Match
from materialize.stores.publication import open_reader

BATCH = 2
LAX = Gate(overlap_min=0.0)
SMALL = "small"
"""The space of another tower, the first eight dimensions; made on the way."""


class Answers(NamedTuple):
    """What a reader answers: space to pin to (vector, lang), and pin to (title, description)."""

    spaces: dict[str, dict[str, tuple[bytes, str]]]
    rows: dict[str, tuple[str | None, str | None]]


def copy_repository(source: RepoPaths, target: RepoPaths) -> None:
    """With the store, whose files are sparse and are to stay so."""
    subprocess.run(["cp", "-a", "--sparse=always", source.root, target.root], check=True)
    cache = target.data / "definitions.json"
    cache.write_text(cache.read_text().replace(str(source.root), str(target.root)))


class Repository(RuleBasedStateMachine):
    """``source`` is the catalogue; ``held`` what each space must hold: pin to (text, lang)."""

    start: Catalogue
    encoder: CountingEncoder
    vectors: ClassVar[dict[tuple[str, str], bytes]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.paths = RepoPaths(Path(self.folder.name) / "repo")
        copy_repository(self.start.paths, self.paths)
        self.source = EditedPins(self.paths, self.start)
        self.held = {space.name: self.source.wanted(space) for space in load_spaces(self.paths)}
        self.settled = True
        """Whether a clean run came after the last edit, kill or change of a space."""
        self.kills = 0
        self.touched: dict[str, set[str]] = {}
        """Space to the pins that differed at a kill since the last clean run: what holds of them is not known."""
        self.paid: Counter[str] | None = Counter()
        """Texts that killed runs encoded since the last clean run; None once the source was edited after one."""
        self.reader: tuple[Any, Answers] | None = None

    # --- the source -------------------------------------------------------------------------------------------------

    def edit(self, changes: list[tuple[Any, ...]]) -> None:
        for change in changes:
            self.source.apply(*change)
        self.source.catalogue.save()
        for path in self.paths.views.rglob("*.parquet"):
            os.utime(path, (0, 0))  # as a copy that keeps times: the time of modification tells nothing
        self.settled = False
        self.paid = None if self.kills else Counter()

    # --- runs -------------------------------------------------------------------------------------------------------

    @rule(changes=some)
    def edit_and_run(self, changes: list[tuple[Any, ...]]) -> None:
        self.edit(changes)
        self.run()

    @precondition(lambda self: self.settled)
    @rule()
    def run_again(self) -> None:
        """A run after which nothing is to be done; then the next one leaves all files out that it would scan first."""
        self.run()
        counts = materialize(self.paths, RunOptions(encoder=self.encoder))
        assert counts.files_unchanged == counts.files > 0
        self.agree()

    def run(self) -> None:
        before = {space.name: space for space in load_spaces(self.paths)}
        self.materialize()
        self.check_run(before)

    def materialize(self, filled: str = "", turn: int = 99) -> None:
        self.encoder.calls = []
        options = RunOptions(encoder=self.encoder, allow_deletes=True)
        for _ in backfill(self.paths, filled, options, turn) if filled else [materialize(self.paths, options)]:
            pass

    @precondition(lambda self: self.unready())
    @rule(data=st.data(), turn=st.sampled_from([1, 3, 99]))
    def fill(self, data: st.DataObject, turn: int) -> None:
        name = data.draw(st.sampled_from(self.unready()))
        before = {space.name: space for space in load_spaces(self.paths)}
        self.materialize(name, turn)
        assert load_space(self.paths, name).status is Status.READY
        self.check_run(before, filled=name)

    def unready(self) -> list[str]:
        return [space.name for space in load_spaces(self.paths) if space.status is Status.BUILDING]

    def check_run(self, before: dict[str, Space], filled: str = "") -> None:
        """A run came to its end: whatever it says now, and what it paid, against the dictionary."""
        needed: Counter[str] = Counter()
        allowed: Counter[str] = Counter()
        for space in load_spaces(self.paths):
            old, wanted = self.held.get(space.name, {}), self.source.wanted(space)
            touched = self.touched.get(space.name, set())
            match before[space.name].status if space.name in before else Status.READY:
                case Status.FROZEN:
                    now = {pin: what for pin, what in old.items() if pin in wanted}
                    paying: set[str] = set()
                    touched = set()
                case Status.BUILDING if space.name != filled:
                    now = {pin: wanted[pin] for pin in old if pin in wanted}
                    paying = set(now)
                case _:
                    now, paying = wanted, set(wanted)
            texts = {now[pin][0] for pin in paying if old.get(pin, ("",))[0] != now[pin][0]}
            needed.update(texts)
            allowed.update(texts | {wanted[pin][0] for pin in touched & wanted.keys()})
            self.held[space.name] = self.unsure(space, now, self.touched.get(space.name, set()))
        encoded, self.encoder.calls = Counter(self.encoder.texts), []
        if self.kills:
            assert encoded <= allowed, (encoded, allowed)
            if self.paid is not None and not filled:
                twice = (self.paid + encoded) - needed
                assert twice.total() <= BATCH * self.kills, (twice, self.kills)
        elif not filled:  # turns share no texts
            assert encoded == needed
        self.kills, self.touched, self.paid, self.settled = 0, {}, Counter(), True
        self.agree()

    def unsure(self, space: Space, now: dict[str, tuple[str, str]], touched: set[str]) -> dict[str, tuple[str, str]]:
        """``now``, but for pins that a kill met in a space that follows no source: found as they were, or lost."""
        if space.status in (Status.READY,) or not touched:
            return now
        with open_reader(self.paths.online) as reader:
            stored = self.answers(reader).spaces[space.name]
        wanted = self.source.wanted(space)
        for pin in touched:
            if pin not in stored:
                now.pop(pin, None)
            elif pin not in now and pin in wanted:  # added by the backfill that was killed
                now[pin] = wanted[pin]
            elif space.status is Status.FROZEN and pin in now:
                now[pin] = (now[pin][0], stored[pin][1])  # with the payload of today
        return now

    # --- kills ------------------------------------------------------------------------------------------------------

    @rule(changes=some, call=st.integers(1, 40), done=st.booleans(), revert=st.booleans(), again=st.booleans())
    def kill_anywhere(self, changes: list[tuple[Any, ...]], call: int, done: bool, revert: bool, again: bool) -> None:
        former = self.source.copied(self.source.catalogue.pins)
        self.edit(changes)
        self.kill(EVERYWHERE, call, done)
        if revert:
            self.source.catalogue.pins = former
            self.edit([])
        if again:
            self.run()

    @rule(changes=some, seam=st.sampled_from(BATCH_SEAMS), call=st.integers(1, 3), done=st.booleans())
    def kill_at_a_seam(self, changes: list[tuple[Any, ...]], seam: str, call: int, done: bool) -> None:
        self.edit(changes)
        self.kill((seam,), call, done)

    @precondition(lambda self: self.unready())
    @rule(data=st.data(), call=st.integers(1, 20), done=st.booleans())
    def kill_a_backfill(self, data: st.DataObject, call: int, done: bool) -> None:
        self.kill(EVERYWHERE, call, done, filled=data.draw(st.sampled_from(self.unready())))

    @precondition(lambda self: self.settled and self.candidates())
    @rule(data=st.data(), call=st.integers(1, 5), done=st.booleans())
    def kill_a_promotion(self, data: st.DataObject, call: int, done: bool) -> None:
        name = data.draw(st.sampled_from(self.candidates()))
        with dying(EVERYWHERE, call, done):
            promote(self.paths, name, LAX)
        self.settled = False
        self.kills += 1
        self.same_answers()

    def kill(self, seams: Sequence[str], call: int, done: bool, filled: str = "") -> None:
        """Die in a run; one that never comes to that call ends as ever, and is judged as such."""
        before = {space.name: space for space in load_spaces(self.paths)}
        differing = {space.name: self.differing(space) for space in load_spaces(self.paths)}
        with dying(seams, call, done) as killed:
            self.materialize(filled, 99)
        if not killed:
            self.check_run(before, filled)
            return
        self.settled = False
        self.kills += 1
        for space, those in differing.items():
            self.touched.setdefault(space, set()).update(those)
        self.paid = None if filled or self.paid is None else self.paid + Counter(self.encoder.texts)
        self.same_answers()

    def differing(self, space: Space) -> set[str]:
        """Pins that a run over the space may touch."""
        old, wanted = self.held.get(space.name, {}), self.source.wanted(space)
        return {pin for pin in {*old, *wanted} if old.get(pin) != wanted.get(pin)}

    # --- spaces and releases ----------------------------------------------------------------------------------------

    def live(self) -> str:
        release = current_release(self.paths)
        assert release is not None
        assert release.live_space is not None
        return release.live_space

    @rule(data=st.data(), what=st.sampled_from(["new model", "promote", "roll back", "freeze or thaw"]))
    def administer(self, data: st.DataObject, what: str) -> None:
        if what == "new model" and SMALL not in self.held:
            create_space(self.paths, SMALL, dimension=8)
            self.held[SMALL] = {}
        elif what == "promote" and self.settled and self.candidates():
            self.go_live(data.draw(st.sampled_from(self.candidates())))
        elif what == "roll back" and self.settled and current_release(self.paths).number > 1:
            self.go_back()
        elif what == "freeze or thaw" and self.settled:
            others = [space for space in load_spaces(self.paths) if space.name != self.live()]
            self.freeze_or_thaw(data.draw(st.sampled_from(others)))

    def go_live(self, name: str) -> None:
        assert promote(self.paths, name, LAX).switched
        assert self.live() == name
        self.agree()

    def candidates(self) -> list[str]:
        spaces = load_spaces(self.paths)
        return [space.name for space in spaces if space.status is Status.READY and space.name != self.live()]

    def go_back(self) -> None:
        release = current_release(self.paths)
        former = past_release(self.paths, release.number - 1).live_space
        if load_space(self.paths, former).status is not Status.READY:
            with pytest.raises(PinfeatherError):
                rollback(self.paths)
            return
        assert rollback(self.paths).space == former == self.live()
        self.agree()

    def freeze_or_thaw(self, space: Space) -> None:
        if space.status is Status.FROZEN:
            unfreeze_space(self.paths, space.name)
            self.settled = False
        else:
            freeze_space(self.paths, space.name)

    # --- readers ----------------------------------------------------------------------------------------------------

    @rule()
    def open_a_reader(self) -> None:
        if self.reader is not None:
            self.reader[0].close()
        reader = open_reader(self.paths.online)
        self.reader = (reader, self.answers(reader))

    def same_answers(self) -> None:
        if self.reader is not None:
            reader, before = self.reader
            assert self.answers(reader, before.spaces) == before

    def answers(self, reader: Any, spaces: Any = None) -> Answers:
        project = load_definitions(self.paths).project
        names = spaces or [space.name for space in load_spaces(self.paths)]
        held = {}
        for name in names:
            points, _ = reader.scroll(name, limit=99, with_payload=["key", "lang"], with_vectors=True)
            held[name] = {
                point.payload["key"]["pin_id"]: (point.vectors["vector"].tobytes(), point.payload["lang"])
                for point in points
            }
            assert len(held[name]) == len(points)
        rows, _ = reader.scroll(entity_collection(project, ["pin_id"]), Match("view", "pin_text"), limit=99)
        found = {row.payload["key"]["pin_id"]: row.payload["f"] for row in rows}
        assert len(found) == len(rows)
        return Answers(held, {pin: (row.get("title"), row.get("description")) for pin, row in found.items()})

    # --- everything agrees ------------------------------------------------------------------------------------------

    def agree(self) -> None:
        """Store, features, ledger, vector log and release say what the dictionary says; the audit is clean."""
        self.same_answers()
        with open_reader(self.paths.online) as reader:
            now = self.answers(reader)
            assert reader.release == current_release(self.paths).to_json()
        assert now.rows == {pin: (row["title"], row["description"]) for pin, row in self.source.alive().items()}
        assert now.spaces.keys() == self.held.keys()
        for space in load_spaces(self.paths):
            held = self.held[space.name]
            vectors = {pin: self.vector(space, text) for pin, (text, _) in held.items()}
            assert {pin: lang for pin, (_, lang) in now.spaces[space.name].items()} == {
                pin: lang for pin, (_, lang) in held.items()
            }, space.name
            assert {pin: vector for pin, (vector, _) in now.spaces[space.name].items()} == vectors, space.name
            with Ledger(self.paths) as ledger:
                entries = ledger.entries(space.name)
            known = [key for key, fp in zip(entries["key"].to_pylist(), entries["text_fp"], strict=True) if fp.is_valid]
            assert sorted(known) == sorted(held), space.name
            logged, rows, _ = vector_log.read_live(self.paths, space.name)
            found = {pin: row.astype(np.float32).tobytes() for pin, row in zip(logged, rows, strict=True)}
            assert found == vectors, space.name
        assert (self.paths.vectors / LIVE_EMBEDDING).resolve().name == self.live()
        result = audit(self.paths)
        assert (result.clean, result.ahead) == (True, 0), result

    def vector(self, space: Space, text: str) -> bytes:
        if (space.name, text) not in self.vectors:
            row = as_stored(fitted(space, self.encoder).encode([text]))[0]
            self.vectors[space.name, text] = row.tobytes()
        return self.vectors[space.name, text]

    def teardown(self) -> None:
        if not self.settled:
            self.run()
        if self.reader is not None:
            self.reader[0].close()
        self.folder.cleanup()


@pytest.mark.parametrize(
    ("examples", "steps"),
    [pytest.param(2, 6, id="small"), pytest.param(25, 20, id="large", marks=pytest.mark.slow)],
)
def test_everything_agrees_after_the_next_run(catalogue, encoder, monkeypatch, examples: int, steps: int) -> None:
    monkeypatch.setattr("materialize.run.BATCH_TEXTS", BATCH)
    monkeypatch.setattr("materialize.ledger.ROWS_PER_SHARD", 4)
    monkeypatch.setattr("materialize.vector_log.MOST_PARTS", 4)
    for pin, title in zip(PINS, TITLES, strict=False):
        catalogue.put(pin, title, description="wool")
    catalogue.save()
    materialize(catalogue.paths, RunOptions(encoder=encoder))
    create_space(catalogue.paths, "titles", without=["description"])
    for _ in backfill(catalogue.paths, "titles", RunOptions(encoder=encoder)):
        pass
    machine = type("Machine", (Repository,), {"start": catalogue, "encoder": encoder})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
