"""Counts that a writer knows without opening a collection: right after anything, and forgotten when files differ."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from materialize.run import RunOptions, materialize
from materialize.stores import edge, known_counts
from materialize.stores.errors import BadInputError, CollectionMissingError
from materialize.stores.known_counts import FILE
from materialize.stores.points import CollectionSpec, Point
from materialize.stores.port import Match
from materialize.stores.publication import open_writer

NAMES = ("pins", "rows")
SPEC = CollectionSpec(packed=("f",), indexes={"view": "keyword"})


@pytest.fixture
def opened(monkeypatch):
    """Names of the collections that were opened."""
    names = []

    class Noting(edge.EdgeCollection):
        def __init__(self, path, *more):
            names.append(path.name)
            super().__init__(path, *more)

    monkeypatch.setattr(edge, "EdgeCollection", Noting)
    return names


def point(number, view="a"):
    return Point(f"00000000-0000-0000-0000-{number:012x}", {"view": view, "f": {"n": number}})


def fill(root, count=3):
    with open_writer(root) as writer:
        writer.create("pins", SPEC)
        writer.upsert("pins", [point(number, "ab"[number % 2]) for number in range(count)])
        writer.publish()


def counts(root):
    with open_writer(root) as writer:
        return writer.count("pins"), writer.count("pins", Match("view", "a")), writer.unindexed("pins")


def test_a_run_with_nothing_to_do_opens_no_collection(catalogue, encoder, opened):
    catalogue.put("a", "oak sofa").put("b", "green lamp").save()
    materialize(catalogue.paths, RunOptions(encoder=encoder))
    assert opened
    opened.clear()
    done = materialize(catalogue.paths, RunOptions(encoder=encoder))
    assert (done.unchanged, done.upserted, done.coverage) == (2, 0, 1.0)
    assert opened == []
    catalogue.put("c", "blue rug").save()
    assert materialize(catalogue.paths, RunOptions(encoder=encoder)).upserted == 1
    assert opened


def test_what_was_counted_is_known_to_the_next_writer(tmp_path, opened):
    fill(tmp_path)
    assert counts(tmp_path) == (3, 2, 0)
    opened.clear()
    assert counts(tmp_path) == (3, 2, 0)
    assert opened == []


@pytest.mark.parametrize("harm", ["touched", "grown", "copied", "gone", "garbage", "other version"])
def test_files_that_are_not_as_they_were_left_are_asked_again(tmp_path, opened, harm):
    fill(tmp_path)
    counts(tmp_path)
    opened.clear()
    writer, kept = tmp_path / "writer", tmp_path / "writer" / FILE
    some = next(path for path in sorted((writer / "pins").rglob("*")) if path.is_file())
    if harm == "touched":
        os.utime(some, ns=(1, 1))
    elif harm == "grown":
        (writer / "pins" / "more").touch()
    elif harm == "copied":
        shutil.copytree(writer / "pins", tmp_path / "copy")
        shutil.rmtree(writer / "pins")
        shutil.copytree(tmp_path / "copy", writer / "pins")
    elif harm == "gone":
        shutil.rmtree(writer / "pins")
        with open_writer(tmp_path) as again, pytest.raises(CollectionMissingError):
            again.count("pins")
        return
    else:
        kept.write_text({"garbage": "{", "other version": '{"version": 0, "collections": {}}'}[harm])
    assert counts(tmp_path) == (3, 2, 0)
    assert opened == ["pins"]


def test_what_cannot_be_written_down_is_counted_again(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(known_counts, "FILE", "none/counts")
    fill(tmp_path)
    for _ in range(2):
        opened.clear()
        assert counts(tmp_path) == (3, 2, 0)
        assert opened == ["pins"]


def test_a_writer_that_was_killed_leaves_nothing_known(tmp_path, opened):
    """It marks a collection before it changes it, and would have written down what it knows at its end."""
    fill(tmp_path)
    counts(tmp_path)
    (tmp_path / "writer" / ".dirty" / "pins").touch()
    opened.clear()
    assert counts(tmp_path) == (3, 2, 0)
    assert opened == ["pins"]


def test_names_and_filters_are_checked_as_ever(tmp_path):
    fill(tmp_path)
    with open_writer(tmp_path) as writer:
        with pytest.raises(BadInputError):
            writer.count("../pins")
        with pytest.raises(CollectionMissingError):
            writer.count("none")
        with pytest.raises(CollectionMissingError):
            writer.delete("none", ids=[])
        writer.delete("pins", ids=[])
        assert writer.count("pins") == 3


steps = st.one_of(
    st.tuples(
        st.just("upsert"), st.sampled_from(NAMES), st.lists(st.integers(0, 5), max_size=3), st.sampled_from("ab")
    ),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.lists(st.integers(0, 5), max_size=3)),
    st.tuples(st.just("empty"), st.sampled_from(NAMES), st.sampled_from("ab")),
    st.tuples(st.just("drop"), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["publish", "reopen"])),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(steps, st.booleans()), max_size=12))
def test_counts_are_those_of_a_dictionary_whatever_happens(tmp_path, history):
    root = tmp_path / os.urandom(8).hex()
    model = {name: {} for name in NAMES}
    writer = open_writer(root)
    try:
        for name in NAMES:
            writer.create(name, SPEC)
        for (what, *given), asked in history:
            if what == "upsert":
                name, numbers, view = given
                writer.upsert(name, [point(number, view) for number in numbers])
                model[name] |= dict.fromkeys(numbers, view)
            elif what == "delete":
                name, numbers = given
                writer.delete(name, ids=[point(number).id for number in numbers])
                model[name] = {number: view for number, view in model[name].items() if number not in numbers}
            elif what == "empty":
                name, view = given
                writer.delete(name, filter=Match("view", view))
                model[name] = {number: one for number, one in model[name].items() if one != view}
            elif what == "drop":
                writer.drop(given[0])
                writer.create(given[0], SPEC)
                model[given[0]] = {}
            elif what == "publish":
                writer.publish()
            elif what == "reopen":
                writer.close()
                writer = open_writer(root)
            for name in NAMES if asked else ():
                assert writer.count(name) == len(model[name])
                for view in "ab":
                    assert writer.count(name, Match("view", view)) == list(model[name].values()).count(view)
    finally:
        writer.close()
        shutil.rmtree(root)
