"""The ledger against a plain dictionary, through writes, removals, folds and reopening."""

import sqlite3

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from feature_repo.paths import RepoPaths
from materialize.ledger import MIGRATIONS, SCHEMA, Ledger, LedgerError

keys = st.sampled_from([f"pin {n}" for n in range(8)] + ["", "é", "\U0001f331"])
values = st.integers(0, 2**64 - 1)


def entries(rows):
    fields = ("key", "raw", "text_fp", "payload_fp", "event_timestamp")
    columns = {
        "key": list(rows),
        "raw": list(rows.values()),
        "text_fp": [None if raw % 5 == 0 else raw.to_bytes(16, "big") for raw in rows.values()],
        "payload_fp": list(rows.values()),
        "event_timestamp": [None] * len(rows),
    }
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in fields})


class LedgerMachine(RuleBasedStateMachine):
    """Two spaces; what the dictionary says, the ledger says."""

    @initialize()
    def start(self):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.paths = RepoPaths(Path(self.folder.name))
        self.ledger = Ledger(self.paths)
        self.model = {"space": {}, "view:pin_text": {}}

    @rule(space=st.sampled_from(["space", "view:pin_text"]), rows=st.dictionaries(keys, values, max_size=5))
    def write(self, space, rows):
        self.ledger.write(space, 1, entries(rows))
        self.model[space].update(rows)

    @rule(space=st.sampled_from(["space", "view:pin_text"]), gone=st.lists(keys, max_size=4, unique=True))
    def remove(self, space, gone):
        self.ledger.remove(space, 1, gone)
        for key in gone:
            self.model[space].pop(key, None)

    @rule(space=st.sampled_from(["space", "view:pin_text"]))
    def fold(self, space):
        self.ledger.fold(space)

    @rule(space=st.sampled_from(["space", "view:pin_text"]))
    def forget(self, space):
        self.ledger.forget(space)
        self.model[space].clear()

    @rule()
    def reopen(self):
        self.ledger.close()
        self.ledger = Ledger(self.paths)

    @invariant()
    def agree(self):
        for space, rows in self.model.items():
            table = self.ledger.entries(space)
            assert dict(zip(table["key"].to_pylist(), table["raw"].to_pylist(), strict=True)) == rows
            assert table["hash"].to_pylist() == sorted(table["hash"].to_pylist())
            assert len(set(table["key"].to_pylist())) == table.num_rows

    def teardown(self):
        self.ledger.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestLedger = LedgerMachine.TestCase


def test_shards_are_split_and_only_live_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("materialize.ledger.ROWS_PER_SHARD", 3)
    with Ledger(RepoPaths(tmp_path)) as ledger:
        for start in (0, 5):
            ledger.write("space", 1, entries({f"k{n}": n + 1 for n in range(start, start + 5)}))
            ledger.fold("space")
        assert len(list((tmp_path / "data/ledger/space").iterdir())) == 4
        assert ledger.entries("space").num_rows == 10


def test_a_damaged_database_says_what_to_do(tmp_path):
    folder = RepoPaths(tmp_path).ledger
    folder.mkdir(parents=True)
    (folder / "ledger.db").write_bytes(b"this is not a database, it is a text that is long enough" * 20)
    with pytest.raises(LedgerError, match="Move the folder"):
        Ledger(RepoPaths(tmp_path))


def test_a_newer_ledger_is_refused(tmp_path):
    Ledger(RepoPaths(tmp_path)).close()
    with sqlite3.connect(RepoPaths(tmp_path).ledger / "ledger.db") as db:
        db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    with pytest.raises(LedgerError, match="upgrade Pinfeather"):
        Ledger(RepoPaths(tmp_path))


def test_a_crashed_run_is_marked_when_the_next_begins(tmp_path):
    with Ledger(RepoPaths(tmp_path)) as ledger:
        first = ledger.start_run("space")
        second = ledger.start_run("space")
        ledger.finish_run(second, "done", {"tokens": 100, "encode_seconds": 2.0})
        assert ledger.tokens_per_second("space") == 50.0
    with sqlite3.connect(RepoPaths(tmp_path).ledger / "ledger.db") as db:
        assert dict(db.execute("SELECT run, status FROM runs")) == {first: "crashed", second: "done"}
