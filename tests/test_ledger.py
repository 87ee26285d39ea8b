"""The ledger against a plain dictionary, through writes, removals, folds and reopening; its files and their past."""

import hashlib
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from feature_repo.paths import RepoPaths
from materialize import ledger as module
from materialize import spill
from materialize.ledger import DOUBTFUL_RAW, DOUBTFUL_TEXT, MIGRATIONS, SCHEMA, Ledger, LedgerError

DOCS = Path(__file__).resolve().parents[1] / "docs" / "ledger.md"
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
    """Two spaces in shards of three entries; what the dictionary says, the ledger says."""

    @initialize()
    def start(self):
        import tempfile
        from pathlib import Path

        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "ROWS_PER_SHARD", 3)
        self.patch.setattr(module, "_PER_BUCKET", 2)
        self.patch.setattr(spill, "_HELD_BYTES", 400)
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

    @rule(space=st.sampled_from(["space", "view:pin_text"]), gone=st.lists(keys, max_size=4, unique=True))
    def doubt(self, space, gone):
        self.ledger.doubt(space, 2, gone)
        self.model[space].update(dict.fromkeys(gone, DOUBTFUL_RAW))

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
            assert table["hash"].to_pylist() == [hashlib.md5(key.encode()).digest() for key in table["key"].to_pylist()]
            assert len(set(table["key"].to_pylist())) == table.num_rows
            pages = list(self.ledger.pages(space, ["raw", "key"]))
            read = [
                pair for page in pages for pair in zip(page["key"].to_pylist(), page["raw"].to_pylist(), strict=True)
            ]
            assert (dict(read), len(read)) == (rows, len(rows))
            summary, texts = self.ledger.summary(space), table["text_fp"].to_pylist()
            assert (summary.rows, summary.vectors) == (len(rows), len(rows) - texts.count(None))
            assert (summary.doubtful, summary.unmatched) == (texts.count(DOUBTFUL_TEXT), list(rows.values()).count(0))

    def teardown(self):
        self.patch.undo()
        self.ledger.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestLedger = LedgerMachine.TestCase


def files(paths, space="space"):
    return sorted((paths.ledger / space).iterdir())


def test_shards_are_split_and_only_live_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 3)
    paths = RepoPaths(tmp_path)
    with Ledger(paths) as ledger:
        for start in (0, 5):
            ledger.write("space", 1, entries({f"k{n}": n + 1 for n in range(start, start + 5)}))
            ledger.fold("space")
        tables = [pq.read_table(file) for file in files(paths)]
        assert len(tables) > 3
        assert all(0 < table.num_rows <= 3 for table in tables)
        assert sum(table.num_rows for table in tables) == ledger.entries("space").num_rows == 10


def test_a_fold_leaves_shards_alone_that_nothing_changed_in(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 20)
    paths = RepoPaths(tmp_path)
    with Ledger(paths) as ledger:
        ledger.write("space", 1, entries({f"k{n}": n + 1 for n in range(200)}))
        ledger.fold("space")
        before = {file: file.stat().st_mtime_ns for file in files(paths)}
        ledger.write("space", 2, entries({"k7": 7777}))
        ledger.fold("space")
        after = {file: file.stat().st_mtime_ns for file in files(paths)}
        assert len(after) == len(before) > 8
        assert len(before.items() - after.items()) == 1
        ledger.write("space", 3, entries({"k7": 8888}))
        ledger.remove("space", 3, ["k7"])
        ledger.fold("space")
        assert len(files(paths)) == len(before)
        assert ledger.entries("space").num_rows == 199


def test_what_a_killed_fold_left_is_swept_by_the_next(tmp_path):
    paths = RepoPaths(tmp_path)
    with Ledger(paths) as ledger:
        ledger.write("space", 1, entries({"a": 1}))
        ledger.fold("space")
        left = [paths.ledger / "space" / name for name in ("shard-000000009-00-0000.parquet", ".shard-1.parquet.7.tmp")]
        for file in left:
            file.write_bytes(b"half")
        ledger.write("space", 2, entries({"b": 2}))
        ledger.fold("space")
        assert len(files(paths)) == 1
        assert ledger.entries("space").num_rows == 2


def test_the_file_of_a_long_journal_shrinks_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_VACUUM_BYTES", 100_000)
    paths = RepoPaths(tmp_path)
    with Ledger(paths) as ledger:
        for start in range(0, 10_000, 500):
            ledger.write("space", 1, entries({f"k{n}": n + 1 for n in range(start, start + 500)}))
        ledger.fold("space")
        assert ledger.entries("space").num_rows == 10_000
    assert (paths.ledger / "ledger.db").stat().st_size < 100_000


def test_a_lost_shard_is_told_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 3)
    paths = RepoPaths(tmp_path)
    with Ledger(paths) as ledger:
        ledger.write("space", 1, entries({f"k{n}": n + 1 for n in range(10)}))
        ledger.fold("space")
        ledger.set_engine("space", "engine")
        assert not ledger.incomplete("space")
        lost = files(paths)[0]
        rows = pq.read_table(lost).num_rows
        lost.unlink()
        assert ledger.incomplete("space")
        assert ledger.entries("space").num_rows == ledger.summary("space").rows == 10 - rows
        ledger.write("space", 2, entries({"new": 5}))
        ledger.fold("space")
        assert not ledger.incomplete("space")
        assert ledger.entries("space").num_rows == 11 - rows


def old_ledger(paths):
    """A ledger as the first version wrote it: sorted by xxh3-64, shards by number, batches without their size."""
    paths.ledger.mkdir(parents=True)
    schema = pa.schema([("hash", pa.uint64()), *((field.name, field.type) for field in list(SCHEMA)[1:])])

    def table(rows, run):
        content = entries(rows)
        hashes = [xxhash.xxh3_64_intdigest(key.encode()) for key in rows]
        content = content.append_column("hash", pa.array(hashes, pa.uint64()))
        return content.append_column("run", pa.array([run] * len(rows))).select(schema.names).cast(schema)

    db = sqlite3.connect(paths.ledger / "ledger.db", isolation_level=None)
    db.execute(
        "CREATE TABLE runs (run INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, started_at TEXT NOT NULL, "
        "finished_at TEXT, status TEXT NOT NULL, counts TEXT)"
    )
    db.execute("CREATE TABLE shards (space TEXT NOT NULL, file TEXT NOT NULL, rows INTEGER NOT NULL)")
    db.execute(
        "CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, run INTEGER NOT NULL, "
        "removed INTEGER NOT NULL, entries BLOB NOT NULL)"
    )
    db.execute("CREATE TABLE engines (space TEXT PRIMARY KEY, engine TEXT NOT NULL, definition TEXT NOT NULL)")
    for space, folder in (("space", "space"), ("view:pin_text", "view--pin_text")):
        (paths.ledger / folder).mkdir()
        file = f"shard-{1:09d}-{0:05d}.parquet"
        pq.write_table(table({f"{space} {n}": n + 1 for n in range(20)}, 3), paths.ledger / folder / file)
        db.execute("INSERT INTO shards VALUES (?, ?, 20)", (space, file))
        db.execute("INSERT INTO engines VALUES (?, 'old', 'what it was')", (space,))
    for removed, rows in ((0, {"space 3": 333, "space new": 444}), (1, {"space 4": 5})):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table(rows, 4))
        db.execute(
            "INSERT INTO journal (space, run, removed, entries) VALUES ('space', 4, ?, ?)",
            (removed, sink.getvalue().to_pybytes()),
        )
    db.execute("PRAGMA user_version=1")
    db.close()


def test_a_ledger_of_the_first_form_is_taken_over_once(tmp_path):
    paths = RepoPaths(tmp_path)
    old_ledger(paths)
    wanted = {f"space {n}": n + 1 for n in range(20) if n != 4} | {"space 3": 333, "space new": 444}
    for _ in range(2):
        with Ledger(paths) as ledger:
            found = ledger.entries("space")
            assert dict(zip(found["key"].to_pylist(), found["raw"].to_pylist(), strict=True)) == wanted
            assert set(found["run"].to_pylist()) == {3, 4}
            fps = dict(zip(found["key"].to_pylist(), found["text_fp"].to_pylist(), strict=True))
            assert (fps["space 9"], fps["space 1"]) == (None, (2).to_bytes(16, "big"))
            assert ledger.entries("view:pin_text").num_rows == 20
            assert (ledger.engine("space"), ledger.definition("space")) == ("old", "what it was")
            assert not ledger.incomplete("space")
            for space in ledger.spaces():
                ledger.fold(space)
    assert [file.name for file in files(paths)] == ["shard-000000004-00-0000.parquet"]
    assert len(files(paths, "view--pin_text")) == 1


def test_a_lost_shard_of_the_first_form_makes_its_space_incomplete(tmp_path):
    paths = RepoPaths(tmp_path)
    old_ledger(paths)
    files(paths)[0].unlink()
    with Ledger(paths) as ledger:
        assert ledger.incomplete("space")
        assert not ledger.incomplete("view:pin_text")
        assert sorted(ledger.entries("space")["key"].to_pylist()) == ["space 3", "space new"]


def test_a_broken_shard_of_the_first_form_is_named_and_nothing_is_lost(tmp_path):
    paths = RepoPaths(tmp_path)
    old_ledger(paths)
    whole = files(paths)[0].read_bytes()
    files(paths)[0].write_bytes(whole[:50])
    with pytest.raises(LedgerError, match=r"shard-000000001-00000\.parquet cannot be read"):
        Ledger(paths)
    files(paths)[0].write_bytes(whole)
    with Ledger(paths) as ledger:
        assert ledger.entries("space").num_rows == 20


def test_the_documented_query_reads_the_ledger(tmp_path, monkeypatch):
    (query,) = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 3)
    paths = RepoPaths(tmp_path)
    with Ledger(paths) as ledger:
        ledger.write("SPACE", 5, entries({f"pin-{n}": n + 1 for n in range(20)}))
        ledger.fold("SPACE")
    monkeypatch.chdir(tmp_path)
    query = query.replace("REPO/", "")
    rows = duckdb.sql(query.replace("PIN", "pin-6")).fetchall()
    assert [(row[0], row[1], row[-1]) for row in rows] == [("pin-6", (7).to_bytes(16, "big").hex(), 5)]
    assert duckdb.sql(query.replace("PIN", "none")).fetchall() == []


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


def test_a_killed_run_is_marked_when_the_next_begins(tmp_path):
    with Ledger(RepoPaths(tmp_path)) as ledger:
        first = ledger.start_run("space")
        second = ledger.start_run("space")
        ledger.finish_run(second, "done", {"tokens": 100, "encode_seconds": 2.0})
        assert ledger.tokens_per_second("space") == 50.0
    with sqlite3.connect(RepoPaths(tmp_path).ledger / "ledger.db") as db:
        assert dict(db.execute("SELECT run, status FROM runs")) == {first: "killed", second: "done"}
        db.execute("UPDATE runs SET status='crashed' WHERE status='killed'")  # as Pinfeather once wrote
    with Ledger(RepoPaths(tmp_path)) as ledger:
        assert [row.status for row in ledger.run_rows()] == ["done", "killed"]


def test_the_journal_that_a_killed_reader_laid_out_is_swept_by_the_next(tmp_path):
    script = (
        "import sys; from pathlib import Path; from feature_repo.paths import RepoPaths\n"
        "from materialize.ledger import Ledger\n"
        "with Ledger(RepoPaths(Path(sys.argv[1]))).reader('space'):\n    print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout.readline().strip() == "in"
        killed.kill()
    folder = RepoPaths(tmp_path).ledger
    assert len(list(folder.glob(".*"))) == 1
    with Ledger(RepoPaths(tmp_path)) as ledger, ledger.reader("space"):
        assert len(list(folder.glob(".*"))) == 1  # its own
    assert list(folder.glob(".*")) == []
