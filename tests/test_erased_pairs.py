"""Erasures in samples and labels: what leaves with a pin, a query or a user, that it is proven, and killed anywhere."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from erase_shop import QUERY, SHARED_QUERY, fill, judged, plant_rows, tables, visit, write_raw
from labelling_shop import CountingTeacher, put_sample

from feature_repo import erased_pairs
from feature_repo.erasures import Subjects
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize.erasure.check import check
from materialize.erasure.flow import erase
from materialize.erasure.pending import is_pending
from pinfeather.init import init_repository
from pinfeather.labelling import LabelOptions, label

WEDDING, PARTY, ALONE = QUERY.lower(), SHARED_QUERY, "ann's own idea"
VERSION = "f" * 32


class Died(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The small shop; ann alone asked for one thing, and for another that people judged."""
    paths = init_repository(tmp_path_factory.mktemp("erased") / "repo")
    raw = tables()
    raw["search_log"] += [visit("ann", ALONE.upper(), "p6"), visit("ann", "judged alone", "p6")]
    raw["judgments"].append(judged("Judged  alone", "p7"))
    fill(paths, raw)
    pairs = [(WEDDING, "p2"), (PARTY, "p3"), (PARTY, "p4"), (ALONE, "p6"), (ALONE, "p8"), ("judged alone", "p6")]
    put_sample(paths, *pairs)
    put_sample(paths, (PARTY, "p5"), (WEDDING, "p5"), name="other")
    label(paths, CountingTeacher(), LabelOptions(chunk=3))
    return paths


@pytest.fixture
def shop(built, tmp_path):
    """A copy of it."""
    shutil.copytree(built.root, tmp_path / "repo")
    return RepoPaths(tmp_path / "repo")


def rows(paths):
    """(query, pin) of every sample and of all labels."""
    found = {}
    for folder in ("samples", "labels"):
        files = sorted((paths.data / folder).rglob("*.parquet"))
        found[folder] = sorted(
            (row["query"], row["pin_id"])
            for file in files
            for row in pq.read_table(file, columns=["query", "pin_id"]).to_pylist()
        )
    assert found["samples"] == found["labels"]
    return found["samples"]


def failing(paths, **names):
    return {place.name for place in check(paths, Subjects.of(**names)) if place.fails}


ALL = sorted(
    [
        *((WEDDING, "p2"), (PARTY, "p3"), (PARTY, "p4"), (ALONE, "p6"), (ALONE, "p8"), ("judged alone", "p6")),
        *((PARTY, "p5"), (WEDDING, "p5")),
    ]
)


@pytest.mark.parametrize(
    ("names", "gone"),
    [
        ({"pins": ["p5"]}, {(PARTY, "p5"), (WEDDING, "p5")}),
        ({"queries": ["  WEDDING arch"]}, {(WEDDING, "p2"), (WEDDING, "p5")}),
        ({"users": ["ann"]}, {(ALONE, "p6"), (ALONE, "p8")}),  # of the others people asked, or judged them
        ({"users": ["ann", "bob"]}, {(ALONE, "p6"), (ALONE, "p8")}),  # people judged the wedding arch
        ({"users": ["nobody"]}, set()),
    ],
    ids=["pin", "query", "user", "all users of a query", "unknown"],
)
def test_what_is_erased_leaves_samples_and_labels(shop, names, gone):
    assert rows(shop) == ALL
    report = erase(shop, Subjects.of(**names))
    assert rows(shop) == [pair for pair in ALL if pair not in gone]
    counted = {name: count for name, count in report.rows.items() if name in ("samples", "labels")}
    assert counted == ({"samples": len(gone), "labels": len(gone)} if gone else {})
    assert failing(shop, **names) == set()


def test_a_damaged_sample_is_named_and_the_erasure_goes_on_without_it(shop):
    (shop.samples / "x.parquet").write_bytes(b"garbage")
    with pytest.raises(PinfeatherError, match=r"x\.parquet cannot be read .* Delete it"):
        erase(shop, Subjects.of(pins=["p5"]))
    (shop.samples / "x.parquet").unlink()
    erase(shop, Subjects.of(pins=["p5"]))
    assert failing(shop, pins=["p5"]) == set()


def test_notes_of_samples_are_no_leftovers(shop):
    (shop.samples / "note.json").write_text('{"lang": "en", "freshness": "old"}')
    assert failing(shop, queries=["old"], users=["en"]) == set()


def test_a_query_that_erased_users_alone_asked_leaves_with_the_last_of_them(shop):
    write_raw(shop, "judgments", [])
    write_raw(shop, "search_log", [visit(user, QUERY, "p2") for user in ("ann", "bob")])
    validate(shop)
    erase(shop, Subjects.of(users=["ann"]))
    assert (WEDDING, "p2") in rows(shop)
    erase(shop, Subjects.of(users=["bob"]))
    assert (WEDDING, "p2") not in rows(shop) and (WEDDING, "p5") not in rows(shop)


def test_labels_do_not_come_back(shop):
    erase(shop, Subjects.of(pins=["p5"], queries=[WEDDING]))
    counts = label(shop, CountingTeacher())
    assert (counts.labelled, counts.skipped) == (0, 5)
    assert failing(shop, pins=["p5"], queries=[WEDDING]) == set()


def test_files_without_it_are_not_touched(shop):
    files = sorted((shop.labels / VERSION).glob("*.parquet"))
    before = {file.name: file.stat().st_mtime_ns for file in files}
    having = {file.name for file in files if "p5" in pq.read_table(file)["pin_id"].to_pylist()}
    erase(shop, Subjects.of(pins=["p5"]))
    after = {file.name: file.stat().st_mtime_ns for file in files}
    assert {name for name, time in after.items() if time != before[name]} == having != set(before)


@pytest.mark.parametrize("names", [{"pins": ["p5"]}, {"queries": [QUERY]}], ids=["pin", "query"])
def test_check_finds_what_is_planted(shop, names):
    erase(shop, Subjects.of(**names))
    assert failing(shop, **names) == set()
    plant_rows(shop.data / "samples/planted.parquet", query=QUERY.upper(), pin_id="p5")
    assert failing(shop, **names) == {"samples"}
    plant_rows(shop.data / "labels/old/part-000001.parquet", query=QUERY.upper(), pin_id="p5")
    assert failing(shop, **names) == {"samples", "labels"}
    erase(shop, Subjects.of(**names))
    assert failing(shop, **names) == set()


@pytest.mark.slow
@pytest.mark.parametrize("call", range(5))
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_killed_at_any_file_the_same_command_ends_it(shop, monkeypatch, call, done):
    """Of the user nothing is known any more once the rows of the log have left."""
    whole, calls = erased_pairs._rewrite, []

    def dying(*given):
        calls.append(given)
        if len(calls) <= call:
            return whole(*given)
        if done:
            whole(*given)
        raise Died

    names = {"users": ["ann"], "pins": ["p5"]}
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(erased_pairs, "_rewrite", dying)
        erase(shop, Subjects.of(**names))
    assert len(calls) == call + 1 and is_pending(shop)
    erase(shop, Subjects.of(**names))
    assert rows(shop) == [(query, name) for query, name in ALL if query != ALONE and name != "p5"]
    assert failing(shop, **names) == set()


def test_the_command_counts_them(shop, pinfeather):
    code, out, _ = pinfeather("erase", "--repo", shop.root, "--pin", "p5", "--json")
    assert code == 0
    said = json.loads(out)["rows"]
    assert (said["samples"], said["labels"]) == (2, 2)
