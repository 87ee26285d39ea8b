"""The vector log: parts merged and read meanwhile, purged, indexed by pin, exported for followers."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_materialize import CHECKOUT, run, vector_of

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.ledger import Ledger
from materialize.log_index import LogIndex
from materialize.promotion import Gate, promote
from materialize.releases import LIVE_EMBEDDING
from materialize.repair import repair
from materialize.run import RunOptions
from materialize.space_admin import backfill, create_space
from materialize.vector_export import export_vectors

NOW = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


def unit(number):
    row = np.random.default_rng(number).normal(size=8)
    return (row / np.linalg.norm(row)).astype(np.float16)


def append(paths, run, part, *pins):
    """Write a part of (pin, version); its vector and text fingerprint are made of the version."""
    vector_log.append(
        paths,
        "hats",
        run,
        part,
        [pin for pin, _ in pins],
        np.stack([unit(version) for _, version in pins]),
        [f"{version:032x}" for _, version in pins],
        [NOW + timedelta(minutes=run)] * len(pins),
        NOW + timedelta(minutes=run),
    )


def rows(paths):
    return [row for table in vector_log.read_parts(paths, "hats") for row in table.to_pylist()]


def test_small_parts_are_merged_once_there_are_many_and_every_row_stays(paths):
    for number in range(1, 66):
        append(paths, number, 1, (f"p{number}", number), ("again", number))
        assert vector_log.compact(paths, "hats") == (64 if number == 65 else 0)
    assert [path.name for path in vector_log.parts(paths, "hats")] == ["part-000065-0001.parquet"]
    assert vector_log.last_run(paths) == 65
    assert [row["pin_id"] for row in rows(paths)] == [pin for n in range(1, 66) for pin in (f"p{n}", "again")]
    pins, vectors, fps = vector_log.read_live(paths, "hats")
    assert len(pins) == 66
    np.testing.assert_array_equal(vectors[pins.index("again")], unit(65))
    assert fps[pins.index("p7")] == f"{7:032x}"
    assert pq.read_schema(vector_log.parts(paths, "hats")[0]).metadata[b"dimension"] == b"8"


def test_large_parts_are_left_alone_and_order_holds(paths, monkeypatch):
    monkeypatch.setattr(vector_log, "MERGED_ROWS", 3)
    monkeypatch.setattr(vector_log, "MOST_PARTS", 2)
    append(paths, 1, 1, ("a", 1), ("b", 1), ("c", 1))
    append(paths, 2, 1, ("a", 2))
    append(paths, 3, 1, ("a", 3))
    append(paths, 9, 1, ("d", 4), ("e", 5))
    append(paths, 10, 10_000, ("a", 6))
    append(paths, 10, 9_999, ("a", 5))
    before = rows(paths)
    vector_log.compact(paths, "hats")
    assert [path.name for path in vector_log.parts(paths, "hats")] == [
        "part-000001-0001.parquet",
        "part-000003-0001.parquet",
        "part-000010-9999.parquet",
        "part-000010-10000.parquet",
    ]
    assert rows(paths) == before
    assert LogIndex(paths, "hats").find(["a"])[0].text_fp.hex() == f"{6:032x}"


def kill_while_merging(paths, patch):
    script = f"""
        import os, signal
        from pathlib import Path
        from feature_repo.paths import RepoPaths
        from materialize import vector_log
        def bang(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)
        {patch}
        vector_log.MOST_PARTS = 2
        vector_log.compact(RepoPaths(Path({str(paths.root)!r})), "hats")
    """
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "patch",
    [
        "vector_log.write_parquet = bang",
        "Path.unlink = bang",
        "plain = Path.unlink; left = [bang, plain]; Path.unlink = lambda *a, **k: left.pop()(*a, **k)",
    ],
    ids=["before the merged part", "before any member goes", "between two members"],
)
def test_a_merge_that_is_killed_loses_nothing_and_the_next_one_ends_it(paths, patch, monkeypatch):
    for run_number in range(1, 5):
        append(paths, run_number, 1, ("a", run_number), (f"p{run_number}", run_number))
    before, live = rows(paths), vector_log.read_live(paths, "hats")
    kill_while_merging(paths, patch)
    pins, vectors, fps = vector_log.read_live(paths, "hats")
    assert (dict(zip(pins, fps, strict=True))) == dict(zip(live[0], live[2], strict=True))
    np.testing.assert_array_equal(vectors[pins.index("a")], unit(4))
    monkeypatch.setattr(vector_log, "MOST_PARTS", 1)
    vector_log.compact(paths, "hats")
    assert rows(paths) == before


def test_a_purge_reaches_merged_parts_and_keeps_its_note(paths, monkeypatch):
    monkeypatch.setattr(vector_log, "MOST_PARTS", 2)
    for run_number in range(1, 5):
        append(paths, run_number, 1, ("a", run_number), (f"p{run_number}", run_number))
    vector_log.compact(paths, "hats")
    vector_log.purge(paths, "hats", 7, ["a"], NOW)
    assert [row["pin_id"] for row in rows(paths)] == ["p1", "p2", "p3", "p4"]
    (note,) = vector_log.deletions(paths, "hats")
    assert pq.read_table(note).to_pylist() == [{"pin_id": "a", "run": 7, "deleted_at": NOW}]
    assert vector_log.last_run(paths) == 7


def test_a_reader_that_opened_the_log_before_a_merge_reads_it_to_the_end(paths, monkeypatch):
    monkeypatch.setattr(vector_log, "MOST_PARTS", 2)
    for run_number in range(1, 5):
        append(paths, run_number, 1, ("a", run_number))
    before = rows(paths)
    tables = vector_log.read_parts(paths, "hats")
    seen = next(tables).to_pylist()
    assert vector_log.compact(paths, "hats") == 3
    assert [*seen, *(row for table in tables for row in table.to_pylist())] == before


def test_the_index_finds_the_last_vector_of_each_pin(paths):
    assert LogIndex(paths, "hats").find(["a"]) == [None]
    vector_log.prepare(paths, "hats", 8)
    append(paths, 1, 1, *((f"p{number}", number) for number in range(50)))
    append(paths, 2, 1, ("p7", 99), ("ü", 51))
    index = LogIndex(paths, "hats")
    append(paths, 3, 1, ("p8", 77))  # later than the index
    assert len(index) == 51
    found = index.find(["ü", "nobody", "p7", "p8", "p7"])
    assert [each and int(each.text_fp.hex(), 16) for each in found] == [51, None, 99, 8, 99]
    for each, version in zip(found, (51, None, 99, 8, 99), strict=True):
        if each is not None:
            np.testing.assert_array_equal(each.vector, unit(version))
    assert sorted(path.name for path in (paths.vectors / "hats").iterdir()) == [
        "part-000000-0000.parquet",
        "part-000001-0001.parquet",
        "part-000002-0001.parquet",
        "part-000003-0001.parquet",
    ]


def test_a_long_run_merges_its_parts_as_it_goes(catalogue, encoder, monkeypatch):
    monkeypatch.setattr("materialize.run.BATCH_TEXTS", 2)
    monkeypatch.setattr(vector_log, "MOST_PARTS", 3)
    for number in range(25):
        catalogue.put(f"p{number}", f"hat {number}")
    counts = run(catalogue, encoder)
    assert len(vector_log.parts(catalogue.paths, counts.space)) <= 3
    assert sorted(vector_log.read_live(catalogue.paths, counts.space)[0]) == sorted(catalogue.pins)
    from materialize.audit import audit

    assert audit(catalogue.paths).clean


def follow(state, exported):
    """What a consumer does with an export."""
    for row in pq.read_table(exported.files["deletions"]).to_pylist():
        state.pop(row["pin_id"], None)
    for row in pq.read_table(exported.files["vectors"]).to_pylist():
        state[row["pin_id"]] = row["embedding"]
    return exported.next_since


def test_a_consumer_that_follows_the_exports_has_what_the_space_has(catalogue, encoder, tmp_path):
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    space = run(catalogue, encoder).space
    state = {}
    first = export_vectors(catalogue.paths, 0, tmp_path / "out")
    assert (first.vectors, first.deletions, first.space, first.dimension) == (10, 0, space, 384)
    since = follow(state, first)
    del catalogue.pins["p3"]
    run(catalogue.put("p1", "cap"), encoder)
    run(catalogue.put("p1", "bonnet").put("p3", "back again").put("p11", "new"), encoder)
    second = export_vectors(catalogue.paths, since, tmp_path / "out")
    assert (second.vectors, second.deletions) == (3, 1)  # p1 once, in its last form
    assert follow(state, second) == second.next_since > since
    pins, vectors, _ = vector_log.read_live(catalogue.paths, space)
    assert {pin: np.array(row, np.float16).tolist() for pin, row in state.items()} == {
        pin: row.tolist() for pin, row in zip(pins, vectors, strict=True)
    }
    assert np.array(state["p1"], np.float32).tolist() == vector_of(encoder, "bonnet").tolist()
    third = export_vectors(catalogue.paths, second.next_since, tmp_path / "out")
    assert (third.vectors, third.deletions, third.next_since) == (0, 0, second.next_since)


def test_a_run_that_is_under_way_is_left_for_the_next_export(catalogue, encoder, tmp_path, monkeypatch):
    space = run(catalogue.put("p1", "hat"), encoder).space
    with Ledger(catalogue.paths) as ledger:
        number = ledger.start_run(space)
        vector_log.append(
            catalogue.paths, space, number, 1, ["p2"], vector_of(encoder, "cap")[None].astype(np.float16),
            ["00" * 16], [NOW], NOW,
        )  # fmt: skip
        early = export_vectors(catalogue.paths, 0, tmp_path / "out")
        assert (early.vectors, early.next_since) == (1, number - 1)
        ledger.finish_run(number, "failed", {})
    late = export_vectors(catalogue.paths, early.next_since, tmp_path / "out")
    assert (late.vectors, late.next_since) == (1, number)
    plain = Ledger.run_rows

    def another_begins(ledger):
        rows = plain(ledger)
        vector_log.note_run(catalogue.paths, ledger.start_run(space))
        return rows

    monkeypatch.setattr(Ledger, "run_rows", another_begins)
    assert export_vectors(catalogue.paths, 0, tmp_path / "out").next_since == number


def test_an_export_that_cannot_be_is_refused_in_words(catalogue, encoder, tmp_path):
    with pytest.raises(PinfeatherError, match="pinfeather materialize"):
        export_vectors(catalogue.paths, 0, tmp_path / "out")
    run(catalogue.put("p1", "hat"), encoder)
    with pytest.raises(UsageError, match="--since 7 is no run"):
        export_vectors(catalogue.paths, 7, tmp_path / "out")
    with pytest.raises(UsageError, match="There is no space 'small'"):
        export_vectors(catalogue.paths, 0, tmp_path / "out", "small")
    (tmp_path / "file").write_text("")
    with pytest.raises(PinfeatherError, match="--out DIR"):
        export_vectors(catalogue.paths, 0, tmp_path / "file")


@pytest.mark.slow
def test_run_numbers_go_on_after_the_ledger_was_lost(catalogue, encoder, tmp_path):
    for number in range(4):
        catalogue.put(f"p{number}", f"hat {number}")
    run(catalogue, encoder)
    run(catalogue, encoder)  # writes nothing into the log
    first = export_vectors(catalogue.paths, 0, tmp_path / "out")
    shutil.rmtree(catalogue.paths.ledger)
    run(catalogue.put("p1", "cap"), encoder)
    second = export_vectors(catalogue.paths, first.next_since, tmp_path / "out")
    assert (second.vectors, second.next_since > first.next_since) == (1, True)
    (catalogue.paths.vectors / ".runs.json").write_text("null")
    with pytest.raises(PinfeatherError, match=r"\.runs\.json cannot be read .* --since 0"):
        run(catalogue, encoder)


def test_who_follows_the_live_space_hears_of_a_promotion(catalogue, encoder, tmp_path):
    for number in range(4):
        catalogue.put(f"p{number}", f"hat {number}", description="wool")
    before = run(catalogue, encoder).space
    create_space(catalogue.paths, "titles", without=["description"])
    list(backfill(catalogue.paths, "titles", RunOptions(encoder=encoder)))
    first = export_vectors(catalogue.paths, 0, tmp_path / "out")
    promote(catalogue.paths, "titles", Gate(overlap_min=0))
    for late in (1, first.next_since):
        with pytest.raises(UsageError, match=f"now titles, and was {before} .* --since 0, or .* --space {before}"):
            export_vectors(catalogue.paths, late, tmp_path / "out")
    assert export_vectors(catalogue.paths, first.next_since, tmp_path / "out", before).vectors == 0
    anew = export_vectors(catalogue.paths, 0, tmp_path / "out", "live")
    assert (anew.space, anew.vectors) == ("titles", 4)
    for file in anew.files.values():
        metadata = pq.read_schema(file).metadata
        assert (metadata[b"space"], metadata[b"model_fingerprint"]) == (b"titles", encoder.fingerprint.encode())
    assert pq.read_schema(anew.files["vectors"]).metadata[b"dimension"] == b"384"
    run(catalogue.put("p1", "cap", description="wool"), encoder)
    assert export_vectors(catalogue.paths, anew.next_since, tmp_path / "out").vectors == 1
    (catalogue.paths.vectors / LIVE_EMBEDDING).unlink()
    (catalogue.paths.vectors / LIVE_EMBEDDING).symlink_to(before)  # as where a promotion is killed before its link
    with pytest.raises(UsageError, match="now titles"):
        export_vectors(catalogue.paths, anew.next_since, tmp_path / "out")


@pytest.mark.parametrize("damage", ["file", "page"])
def test_a_part_that_cannot_be_read_is_not_merged_and_stops_nothing(paths, monkeypatch, caplog, damage):
    monkeypatch.setattr(vector_log, "MERGED_ROWS", 6)
    monkeypatch.setattr(vector_log, "MOST_PARTS", 2)
    for number in range(1, 7):
        append(paths, number, 1, ("a", number), (f"p{number}", number))
    bad = vector_log.parts(paths, "hats")[1]
    if damage == "file":
        bad.write_bytes(b"garbage")
    else:
        whole = bytearray(bad.read_bytes())
        whole[4:200] = bytes(196)
        bad.write_bytes(bytes(whole))
    vector_log.compact(paths, "hats")
    assert "pinfeather audit --repair" in caplog.text
    left = [path.name for path in vector_log.parts(paths, "hats")]
    assert left == (
        ["part-000001-0001.parquet", "part-000002-0001.parquet", "part-000005-0001.parquet", "part-000006-0001.parquet"]
        if damage == "file"
        else [f"part-00000{number}-0001.parquet" for number in (1, 2, 3, 6)]
    )
    with pytest.raises(PinfeatherError, match="pinfeather audit --repair"):
        rows(paths)


@pytest.mark.slow
def test_damaged_notes_of_deletions_are_named_found_and_repaired(catalogue, encoder, tmp_path):
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    space = run(catalogue, encoder).space
    del catalogue.pins["p3"]
    run(catalogue, encoder)
    (note,) = vector_log.deletions(catalogue.paths, space)
    note.write_bytes(b"garbage")
    with pytest.raises(PinfeatherError, match=r"note of deleted pins .* `pinfeather audit --repair`.* --since 0"):
        export_vectors(catalogue.paths, 0, tmp_path / "out")
    encoder.calls = []
    done = repair(catalogue.paths, RunOptions(encoder=encoder))
    assert (done.before.corrupted, done.after.clean, encoder.calls) == (1, True, [])
    assert export_vectors(catalogue.paths, 0, tmp_path / "out").vectors == 9
