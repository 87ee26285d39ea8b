"""Runs that take a part, that are asked to stop, and what is told of them: runs table, metrics."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import CountingEncoder, held_store
from test_materialize import CHECKOUT, killed_run, run, stored

from feature_repo.errors import PinfeatherError
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.ledger import Ledger
from materialize.metrics import metrics_text, write_metrics
from materialize.run import RunOptions, materialize
from materialize.runs import list_runs
from materialize.stores.layout import entity_collection, point_id
from materialize.stores.publication import open_reader


@pytest.fixture
def hats(catalogue):
    """Ten pins, saved but not written."""
    for number in range(10):
        catalogue.put(f"p{number}", f"hat {number}")
    catalogue.save()
    return catalogue


def rows_of(paths, view="pin_text"):
    project = load_definitions(paths).project
    with open_reader(paths.online) as store:
        ids = [point_id(project, view, {"pin_id": f"p{number}"}) for number in range(10)]
        return [point is not None for point in store.get_many(entity_collection(project, ["pin_id"]), ids)]


# Limit and only -----------------------------------------------------------------------------------------------------


def test_a_limit_writes_so_many_and_the_next_runs_the_rest(hats, encoder):
    first = run(hats, encoder, limit=4)
    assert (first.new, first.upserted, first.encoded_texts, first.remaining) == (4, 4, 4, 6)
    assert sum(point is not None for point in stored(hats.paths, *hats.pins)) == 4
    assert audit(hats.paths).clean
    second = run(hats, encoder, limit=4)
    third = run(hats, encoder, limit=4)
    assert [(counts.upserted, counts.remaining) for counts in (second, third)] == [(4, 2), (2, 0)]
    assert sorted(encoder.texts) == sorted(pin["title"] for pin in hats.pins.values())
    assert run(hats, encoder).quiet
    assert audit(hats.paths).clean


def test_a_limit_puts_no_deletion_off(hats, encoder):
    run(hats, encoder)
    del hats.pins["p9"]
    hats.put("p0", "cap 0").put("p1", "cap 1")
    counts = run(hats, encoder, limit=1)
    assert (counts.deleted, counts.changed, counts.remaining) == (1, 1, 1)
    assert stored(hats.paths, "p9") == [None]


def test_only_touches_nothing_else(hats, encoder):
    run(hats, encoder)
    encoder.calls = []
    del hats.pins["p8"], hats.pins["p9"]
    hats.put("p0", "cap 0").put("p1", "cap 1")
    told = []
    counts = run(hats, encoder, only=frozenset({"p0", "p2", "p9", "nobody"}), tell=told.append)
    assert (encoder.texts, counts.changed, counts.unchanged, counts.gone, counts.deleted) == (["cap 0"], 1, 1, 1, 1)
    assert counts.unknown == ["nobody"]
    assert [point is None for point in stored(hats.paths, "p1", "p8", "p9")] == [False, False, True]
    assert rows_of(hats.paths) == [*[True] * 9, False]
    assert counts.features["pin_text"] == {"changed": 1, "gone": 1, "rejected": 0}
    assert run(hats, encoder).changed == 1
    assert audit(hats.paths).clean


@pytest.mark.slow
def test_only_on_a_first_run_writes_these_pins_alone(hats, encoder):
    run(hats, encoder, only=frozenset({"p3"}))
    assert encoder.texts == ["hat 3"]
    assert rows_of(hats.paths) == [number == 3 for number in range(10)]
    assert audit(hats.paths).clean
    assert run(hats, encoder).new == 9


@pytest.mark.slow
def test_only_rewrites_a_view_in_whole_whose_rows_it_had_to_delete(hats, encoder):
    run(hats, encoder)
    (shard,) = (hats.paths.ledger / "view--pin_text").glob("*.parquet")
    shard.unlink()
    run(hats, encoder, only=frozenset({"p3"}))
    assert all(rows_of(hats.paths))
    assert audit(hats.paths).clean


@pytest.mark.slow
def test_a_partial_run_does_not_vouch_for_the_rows_that_it_left_out(hats, encoder, monkeypatch):
    run(hats, encoder)
    monkeypatch.setattr("materialize.plan.LEXICAL_VERSION", 99)
    monkeypatch.setattr("materialize.settled.LEXICAL_VERSION", 99)
    assert run(hats, encoder, only=frozenset({"p3"})).payload_only == 1
    assert run(hats, encoder, limit=4).payload_only == 4
    assert run(hats, encoder).payload_only == 5
    assert run(hats, encoder).quiet


def test_the_command_tells_of_unknown_pins_and_of_the_rest(pinfeather, hats):
    repo = hats.paths.root
    code, out, err = pinfeather("materialize", "--repo", repo, "--only", "p1", "--only", "nobody", "--json")
    counts = json.loads(out)
    assert (code, counts["upserted"], counts["unknown"]) == (0, 1, ["nobody"])
    assert "neither in the sources nor in the ledger: nobody" in err
    code, out, err = pinfeather("materialize", "--repo", repo, "--limit", "3")
    assert code == 0
    assert "6 pins are left for the next run" in err


# Stopping -----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_asked_to_stop_ends_between_two_batches(hats, encoder, monkeypatch):
    monkeypatch.setattr("materialize.run.BATCH_TEXTS", 4)
    counts = run(hats, encoder, stop=lambda: len(encoder.calls) == 2)
    assert (counts.interrupted, counts.upserted, counts.remaining) == (True, 8, 2)
    assert audit(hats.paths).clean
    assert list_runs(hats.paths)[0]["status"] == "interrupted"
    assert run(hats, encoder).upserted == 2
    assert [len(call) for call in encoder.calls] == [4, 4, 2]
    assert all(rows_of(hats.paths))


def test_a_run_that_is_asked_to_stop_before_it_writes_writes_nothing(hats, encoder):
    counts = run(hats, encoder, stop=lambda: True)
    assert (counts.interrupted, counts.upserted, counts.remaining, encoder.calls) == (True, 0, 10, [])
    assert run(hats, encoder).new == 10


@pytest.mark.slow
def test_feature_rows_stop_too_and_go_on_later(hats, encoder):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 10

    assert run(hats, encoder, stop=stop).interrupted
    assert audit(hats.paths).clean
    run(hats, encoder)
    assert all(rows_of(hats.paths))


STOPPABLE = """
    import sys
    sys.path.insert(0, {tests!r})
    import conftest, materialize.encoders, materialize.run
    from pinfeather import cli

    class Gated(conftest.CountingEncoder):
        def encode(self, texts, progress=None):
            print("encoding", len(self.calls), flush=True)
            sys.stdin.readline()  # until the test says go
            return super().encode(texts)

    encoder = Gated()
    materialize.encoders.load_encoder = lambda *_, **__: encoder
    materialize.run.BATCH_TEXTS = 4
    sys.argv = ["pinfeather", "materialize", "--repo", {repo!r}]
    cli.main()
"""


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_command_after_the_batch_under_way(hats, encoder, number):
    script = textwrap.dedent(STOPPABLE.format(tests=str(Path(__file__).parent), repo=str(hats.paths.root)))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "encoding 0\n", process.communicate()
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "encoding 1\n"
    process.send_signal(number)
    lines = []
    while "stopping after the batch" not in (lines or [""])[-1]:  # the handler has run
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    _, err = process.communicate("go\n")
    told = "".join(lines) + err
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "materialize: 4 of 10, " in told
    assert "s left" in told
    assert "8 pins were written and published, 2 are left, and maybe deletions and feature rows: run the same" in told
    assert audit(hats.paths).clean
    counts = materialize(hats.paths, RunOptions(encoder=encoder))
    assert (counts.upserted, counts.unchanged) == (2, 8)
    assert audit(hats.paths).clean


# Runs ---------------------------------------------------------------------------------------------------------------


def test_the_runs_table_says_how_each_run_ended(hats, encoder):
    assert list_runs(hats.paths) == []
    run(hats, encoder)
    hats.put("p0", "cap").save()
    killed_run(hats.paths, "materialize.vector_log.append = bang")
    assert [row["status"] for row in list_runs(hats.paths)] == ["killed", "done"]
    hats.pins = {"p1": hats.pins["p1"]}
    with pytest.raises(PinfeatherError):
        run(hats, encoder)
    (hats.paths.views / "pin_captions.parquet").write_bytes(b"no parquet")
    with pytest.raises(PinfeatherError):
        materialize(hats.paths, RunOptions(encoder=encoder))
    failed, refused, killed, done = list_runs(hats.paths)
    assert [row["status"] for row in (failed, refused, killed, done)] == ["failed", "refused", "killed", "done"]
    assert "pin_captions.parquet" in failed["error"]
    assert "9 of 10 pins are gone" in refused["error"]
    assert (killed["ended"], killed["seconds"]) == (None, None)
    assert (done["new"], done["upserted"], done["rejected"], done["error"]) == (10, 10, 0, None)
    assert done["rate"] > 0
    assert done["ended"] > done["started"]
    assert [row["run"] for row in list_runs(hats.paths, 2)] == [failed["run"], refused["run"]]


class Stuck(CountingEncoder):
    """Ends the run at its third call."""

    def encode(self, texts, progress=None):
        if len(self.calls) == 2:
            raise KeyboardInterrupt
        return super().encode(texts)


def test_a_failed_run_says_how_long_it_took_and_what_is_left(hats, monkeypatch):
    monkeypatch.setattr("materialize.run.BATCH_TEXTS", 4)
    with pytest.raises(KeyboardInterrupt):
        run(hats, Stuck())
    (row,) = list_runs(hats.paths)
    assert (row["status"], row["encoded_texts"], row["remaining"]) == ("failed", 8, 2)
    assert row["seconds"] > 0
    assert row["rate"] > 0


@pytest.mark.slow
def test_runs_that_wrote_nothing_say_how_long_they_took_and_what_is_left(hats, encoder):
    run(hats, encoder, stop=lambda: True)
    run(hats, encoder)
    hats.pins = {"p1": hats.pins["p1"]}
    with pytest.raises(PinfeatherError):
        run(hats.put("p1", "cap"), encoder)
    (hats.paths.views / "pin_captions.parquet").write_bytes(b"no parquet")
    with pytest.raises(PinfeatherError):
        materialize(hats.paths, RunOptions(encoder=encoder))
    failed, refused, _, interrupted = list_runs(hats.paths)
    assert [row["status"] for row in (failed, refused, interrupted)] == ["failed", "refused", "interrupted"]
    assert (interrupted["remaining"], refused["remaining"]) == (10, 1)
    assert min(row["seconds"] for row in (failed, refused, interrupted)) > 0


@pytest.mark.parametrize(
    ("counts", "rate"),
    [
        ({"texts_to_encode": 600, "encoded_texts": 600}, 1000.0),
        ({"texts_to_encode": 600, "encoded_texts": 598, "quarantined": 2}, 1000.0),
        ({"texts_to_encode": 600, "encoded_texts": 10}, None),  # the rest came from the vector log
        ({"texts_to_encode": 1, "encoded_texts": 600}, None),  # points that the store had lost
    ],
)
def test_only_a_run_that_encoded_what_was_planned_gives_a_rate(hats, counts, rate):
    with Ledger(hats.paths) as ledger:
        number = ledger.start_run("space")
        ledger.finish_run(number, "done", {"tokens": 2000, "encode_seconds": 2.0, "quarantined": 0, **counts})
        assert ledger.tokens_per_second("space") == rate


def test_a_run_under_way_is_running_and_not_killed(hats):
    def told() -> str:
        found = {name for name, value in metrics(metrics_text(hats.paths)).items() if "run_status" in name and value}
        assert found == {f'pinfeather_run_status{{space="some-space",status="{list_runs(hats.paths)[0]["status"]}"}}'}
        return list_runs(hats.paths)[0]["status"]

    with Ledger(hats.paths) as ledger:
        ledger.start_run("some-space")
    assert told() == "killed"
    with held_store(hats.paths):
        assert told() == "running"
    assert told() == "killed"


def test_the_runs_command(pinfeather, hats, encoder):
    repo = hats.paths.root
    assert json.loads(pinfeather("runs", "--repo", repo, "--json")[1]) == {"runs": []}
    assert "None yet" in pinfeather("runs", "--repo", repo)[2]
    run(hats, encoder)
    code, out, _ = pinfeather("runs", "--repo", repo, "--json", "--limit", "1")
    (row,) = json.loads(out)["runs"]
    assert (code, row["status"], row["new"]) == (0, "done", 10)
    code, out, _ = pinfeather("runs", "--repo", repo)
    assert code == 0
    assert "done" in out


# Metrics ------------------------------------------------------------------------------------------------------------


def metrics(text):
    """Name with labels to value; every sample has help and type before it."""
    found, declared = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            declared.add(line.split()[2])
        elif not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name.split("{")[0] in declared, line
            found[name] = float(value)
    return found


def test_metrics_of_a_run(hats, encoder):
    run(hats.put("p0", "oak sofa").put("p1", "oak sofa").put("empty", None), encoder)
    first = run(hats.put("p2", "green lamp"), encoder)
    found = metrics(metrics_text(hats.paths))
    label = f'space="{first.space}"'
    assert found[f'pinfeather_run_pins{{{label},outcome="changed"}}'] == 1
    assert found[f'pinfeather_run_pins{{{label},outcome="unchanged"}}'] == 9
    assert found[f'pinfeather_run_rejects{{{label},reason="no_text"}}'] == 1
    assert found[f'pinfeather_run_rejects{{{label},reason="quarantined"}}'] == 0
    assert found[f"pinfeather_run_texts_encoded{{{label}}}"] == 1
    assert found[f"pinfeather_run_tokens{{{label}}}"] == 4
    assert found[f'pinfeather_run_feature_rows{{{label},view="pin_text",outcome="changed"}}'] == 1
    assert found[f"pinfeather_ledger_entries{{{label}}}"] == 11
    assert found[f"pinfeather_quarantined_pins{{{label}}}"] == 0
    assert found[f'pinfeather_run_status{{{label},status="done"}}'] == 1
    assert {f'pinfeather_run_stage_seconds{{{label},stage="{stage}"}}' for stage in ("scan", "encode", "publish")} <= {
        *found
    }
    with open_reader(hats.paths.online) as reader:
        assert found["pinfeather_publication_number"] == reader.number
    assert found["pinfeather_ledger_bytes"] > 0


def test_the_last_success_outlives_a_failure(hats, encoder):
    space = run(hats, encoder).space
    name = f'pinfeather_last_success_timestamp_seconds{{space="{space}"}}'
    before = metrics(metrics_text(hats.paths))[name]
    hats.pins = {"p1": hats.pins["p1"]}
    with pytest.raises(PinfeatherError):
        run(hats, encoder)
    after = metrics(metrics_text(hats.paths))
    assert after[name] == before
    assert after[f'pinfeather_run_status{{space="{space}",status="refused"}}'] == 1
    assert after[f'pinfeather_run_status{{space="{space}",status="done"}}'] == 0


def test_every_metric_is_documented(hats, encoder):
    run(hats.put("p0", None), encoder)
    text = (CHECKOUT / "docs" / "operations.md").read_text()
    names = {name.split("{")[0] for name in metrics(metrics_text(hats.paths))}
    assert len(names) > 15
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_the_command_writes_metrics_however_the_run_ends(pinfeather, hats, tmp_path):
    file = tmp_path / "out" / "pinfeather.prom"
    file.parent.mkdir()
    repo = hats.paths.root
    assert pinfeather("materialize", "--repo", repo, "--metrics", file, "--json")[0] == 0
    assert 'status="done"} 1' in file.read_text()
    hats.pins = {"p1": hats.pins["p1"]}
    hats.save()
    assert pinfeather("materialize", "--repo", repo, "--metrics", file)[0] == 1
    assert 'status="refused"} 1' in file.read_text()
    assert [each.name for each in file.parent.iterdir()] == ["pinfeather.prom"]


def test_a_metrics_file_that_cannot_be_written_is_named(hats, encoder, tmp_path):
    run(hats, encoder)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PinfeatherError, match=r"file/m\.prom cannot be written.*The run itself is done"):
        write_metrics(hats.paths, tmp_path / "file" / "m.prom")
