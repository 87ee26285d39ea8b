"""Labelling that dies, is stopped or finds damage: nothing is lost, done twice or believed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import examples, random_examples
from hypothesis import strategies as st
from labelling_shop import CountingTeacher, Died, chances, labels, put_pins, put_sample, sampled_shop, stored

from feature_repo.erasures import Subjects, record
from feature_repo.errors import PinfeatherError, UsageError
from materialize.stores.errors import StoreBusyError
from materialize.stores.lease import WriterLease
from pinfeather import labelling_store
from pinfeather.duck_session import duck_session
from pinfeather.init import init_repository
from pinfeather.labelling import LabelOptions, label
from pinfeather.labelling_store import PROBABILITIES, LabelFolder, label_versions


@pytest.fixture
def shop(tmp_path):
    return sampled_shop(tmp_path / "repo")


@pytest.mark.parametrize("dies_at", range(5))
def test_killed_at_any_call_nothing_is_lost_or_done_twice(shop, dies_at):
    dying = CountingTeacher(dies_at=dies_at)
    with pytest.raises(Died) if dies_at < 4 else suppress(Died):
        label(shop, dying, LabelOptions(chunk=3))
    assert len(stored(shop)) == min(12, 3 * dies_at)
    teacher = CountingTeacher()
    label(shop, teacher, LabelOptions(chunk=3))
    rows = stored(shop)
    assert len(rows) == len({(row["query"], row["pin_id"]) for row in rows}) == 12
    assert len(dying.pairs + teacher.pairs) == len({*dying.pairs, *teacher.pairs}) == 9


@pytest.mark.parametrize("written", [False, True], ids=["before the rename", "after it"])
def test_killed_while_a_part_is_written(shop, monkeypatch, written):
    whole = labelling_store.write_parquet

    def dying(path, table):
        if written:
            whole(path, table)
        else:
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(b"half")
        raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(labelling_store, "write_parquet", dying)
        label(shop, CountingTeacher(), LabelOptions(chunk=5))
    counts = label(shop, CountingTeacher(), LabelOptions(chunk=5))
    assert counts.labelled == (7 if written else 12)
    assert len(stored(shop)) == 12


edits = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["oak", "lamp", None]), st.integers(0, 6)), max_size=5
)


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    paths = init_repository(tmp_path_factory.mktemp("edited") / "repo")
    put_pins(paths, a="oak", b="lamp", c="rug", d="oak")
    put_sample(paths, *((query, name) for query in ("x", "y") for name in "abcd"))
    return paths


def put_titles(paths, titles):
    """The catalogue as a later `aggregate` would have it."""
    view = paths.views / "pin_text.parquet"
    rows = [{"pin_id": name, "title": title} for name, title in titles.items() if title]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(view)), view)


@examples(5, 40)
def test_whatever_happens_in_between_the_labels_end_as_those_of_the_present_texts(edited, examples):
    """Pins change, go and come back; runs die after some calls: in the end it is as if labelled once."""
    random_examples(examples, edits)(lambda steps: edit_and_label(edited, steps))()


def edit_and_label(edited, steps):
    shutil.rmtree(edited.labels, ignore_errors=True)
    titles = {"a": "oak", "b": "lamp", "c": "rug", "d": "oak"}
    computed = []
    for name, title, dies_at in [*steps, ("a", "desk", None)]:
        titles[name] = title
        put_titles(edited, titles)
        teacher = CountingTeacher(dies_at=dies_at)
        with suppress(Died):
            label(edited, teacher, LabelOptions(chunk=2))
        computed += teacher.pairs
    assert len(computed) == len(set(computed))
    rows = {(row["query"], row["pin_id"]): row for row in labels(edited)}
    for query in ("x", "y"):
        for name, title in titles.items():
            if title:
                found = [rows[query, name][column] for column in PROBABILITIES]
                np.testing.assert_allclose(found, chances(query, title), rtol=1e-6)


def test_one_process_labels_at_a_time(shop):
    with (
        WriterLease(shop.labels / "writer.lock", 0, "label"),
        pytest.raises(StoreBusyError, match=f"process {os.getpid()}"),
    ):
        label(shop, CountingTeacher(), LabelOptions(lock_timeout=0))


def test_an_answer_that_is_none_is_refused(shop):
    teacher = CountingTeacher()
    teacher.probabilities = lambda queries, texts: np.full((len(queries), 5), 0.1)
    with pytest.raises(PinfeatherError, match="do not sum to 1: nothing of it was written"):
        label(shop, teacher)
    assert label_versions(shop) == []


def test_what_is_erased_meanwhile_stops_it_before_the_next_part(shop):
    class Erasing(CountingTeacher):
        def probabilities(self, queries, texts, progress=None):
            if len(self.calls) == 1:
                record(shop, Subjects.of(queries=["oak"]))
            return super().probabilities(queries, texts)

    with pytest.raises(PinfeatherError, match="erased while this ran"):
        label(shop, Erasing(), LabelOptions(chunk=5))
    assert len(stored(shop)) == 5


def test_a_damaged_file_is_named(shop):
    label(shop, CountingTeacher())
    (part,) = LabelFolder(shop, "f" * 32).parts()
    part.write_bytes(part.read_bytes()[:100])
    for reading in (lambda: labels(shop), lambda: label(shop, CountingTeacher())):
        with pytest.raises(PinfeatherError, match=r"part-000001.*Delete a damaged part"):
            reading()


def test_ctrl_c_within_a_query_is_no_error_of_its_own(shop):
    with pytest.raises(KeyboardInterrupt), duck_session(shop, ""):
        raise RuntimeError("Query interrupted") from KeyboardInterrupt()
    with pytest.raises(RuntimeError, match="another"), duck_session(shop, ""):
        raise RuntimeError("another")


def test_without_a_sample_or_views_it_says_what_to_run(tmp_path):
    paths = init_repository(tmp_path / "repo")
    with pytest.raises(UsageError, match="pinfeather sample"):
        label(paths, CountingTeacher())
    put_sample(paths, ("oak", "a"))
    with pytest.raises(PinfeatherError, match="pinfeather aggregate"):
        label(paths, CountingTeacher())


def test_a_signal_ends_it_cleanly(shop):
    """In a process of its own, which sends itself SIGINT within the second chunk."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from embedders.teacher import Teacher
        from pinfeather import answers, cli
        from labelling_shop import CountingTeacher

        class Interrupting(CountingTeacher):
            def probabilities(self, queries, texts, progress=None):
                if len(self.calls) == 1:
                    os.kill(os.getpid(), signal.{signal.SIGINT.name})
                return super().probabilities(queries, texts)

        answers.named_models = lambda *_: (None, "folder")
        Teacher.load = classmethod(lambda cls, *_: Interrupting())
        sys.argv = ["pinfeather", "label", "--repo", {str(shop.root)!r}, "--chunk", "5", "--json"]
        cli.main()
        """
    )
    root = Path(__file__).resolve().parents[1]
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"},
    )
    assert found.returncode == 130, found.stderr
    said = json.loads(found.stdout)
    assert (said["interrupted"], said["labelled"], said["remaining"]) == (True, 10, 2)
    assert "once more to stop at once" in found.stderr and "run the same command again" in found.stderr
    assert len(stored(shop)) == 10
