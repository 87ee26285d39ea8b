"""Labels of a teacher: counted calls, kills at every seam, changed texts, and what a reader gets."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from labelling_shop import CountingTeacher, Died, chances, labels, pins, put_pins, put_sample, sampled_shop, stored
from past_tables import at, event, pin, put

from feature_repo.aggregates import aggregate
from feature_repo.errors import UsageError
from feature_repo.pin_text import DEFAULT_TEMPLATE
from pinfeather import labelling_store
from pinfeather.example_pairs import example_pairs
from pinfeather.label_sources import from_teacher
from pinfeather.labelling import LabelOptions, label
from pinfeather.labelling_store import PROBABILITIES, SCHEMA, LabelFolder, label_versions, read_labels
from pinfeather.training_set import TrainingSetOptions, build_training_set


@pytest.fixture
def shop(tmp_path):
    return sampled_shop(tmp_path / "repo")


def test_every_pair_gets_the_teachers_answer_and_equal_pairs_cost_once(shop):
    teacher = CountingTeacher()
    before = datetime.now(UTC)
    counts = label(shop, teacher)
    assert (counts.pairs, counts.labelled, counts.encoded_pairs, counts.remaining) == (12, 12, 9, 0)
    assert len(teacher.pairs) == len(set(teacher.pairs)) == 9  # a and b have one text
    rows = labels(shop)
    assert [(row["query"], row["pin_id"]) for row in rows] == sorted(
        (query, name) for query in ("oak", "lamp", "rug") for name in "abcd"
    )
    titles = {"a": "oak shelf", "b": "oak shelf", "c": "brass lamp", "d": "wool rug"}
    for row in rows:
        expected = chances(row["query"], titles[row["pin_id"]])
        np.testing.assert_allclose([row[name] for name in PROBABILITIES], expected, rtol=1e-6)
        assert row["text_fingerprint"] == xxhash.xxh3_128_hexdigest(titles[row["pin_id"]].encode())
        assert (row["teacher"], row["teacher_version"], row["sample"], row["weight"]) == ("fake", "f" * 32, "s", 2.0)
        assert row["event_timestamp"] == at(1)
        assert before <= row["labelled_at"] <= datetime.now(UTC)
    note = json.loads((shop.labels / ("f" * 32) / "teacher.json").read_text())
    assert note == {"teacher": "fake", "template": DEFAULT_TEMPLATE.to_json()}


def test_equal_pairs_meet_over_the_border_of_chunks(shop):
    teacher = CountingTeacher()
    counts = label(shop, teacher, LabelOptions(chunk=1))
    assert (counts.labelled, counts.encoded_pairs) == (12, 9)
    assert len(teacher.pairs) == 9


def test_what_is_labelled_is_skipped_and_what_changed_is_labelled_again(shop):
    label(shop, CountingTeacher())
    teacher = CountingTeacher()
    counts = label(shop, teacher)
    assert (counts.skipped, counts.labelled, counts.relabelled, teacher.calls) == (12, 0, 0, [])
    put_pins(shop, a="oak shelf", b="oak desk", c="brass lamp")
    counts = label(shop, teacher)
    assert (counts.skipped, counts.relabelled, counts.gone, counts.labelled) == (6, 3, 3, 0)
    assert sorted(teacher.pairs) == [("lamp", "oak desk"), ("oak", "oak desk"), ("rug", "oak desk")]
    newest = {(row["query"], row["pin_id"]): row for row in labels(shop)}
    assert len(newest) == 12
    expected = chances("oak", "oak desk")
    np.testing.assert_allclose([newest["oak", "b"][name] for name in PROBABILITIES], expected, rtol=1e-6)


def test_a_text_that_comes_back_costs_nothing(shop):
    label(shop, CountingTeacher())
    put_pins(shop, a="oak shelf", b="oak desk", c="brass lamp", d="wool rug")
    label(shop, CountingTeacher())
    put_pins(shop, a="oak shelf", b="oak shelf", c="brass lamp", d="wool rug")
    teacher = CountingTeacher()
    counts = label(shop, teacher)
    assert (counts.relabelled, counts.encoded_pairs, teacher.calls) == (3, 0, [])
    rows = {(row["query"], row["pin_id"]): row for row in labels(shop)}
    assert [rows["oak", "a"][name] for name in PROBABILITIES] == [rows["oak", "b"][name] for name in PROBABILITIES]


def test_swapped_texts_swap_their_labels(shop):
    label(shop, CountingTeacher())
    before = {(row["query"], row["pin_id"]): [row[name] for name in PROBABILITIES] for row in labels(shop)}
    put_pins(shop, a="oak shelf", b="oak shelf", c="wool rug", d="brass lamp")
    counts = label(shop, CountingTeacher())
    assert (counts.relabelled, counts.encoded_pairs) == (6, 0)
    after = {(row["query"], row["pin_id"]): [row[name] for name in PROBABILITIES] for row in labels(shop)}
    assert all(after[query, "c"] == before[query, "d"] for query in ("oak", "lamp", "rug"))


def test_another_version_of_the_teacher_labels_for_itself(shop):
    label(shop, CountingTeacher())
    counts = label(shop, CountingTeacher("e" * 32))
    assert (counts.labelled, counts.skipped) == (12, 0)
    assert label_versions(shop) == ["e" * 32, "f" * 32]
    with pytest.raises(UsageError, match="no labels of a teacher version ddd; there are: eeee"):
        read_labels(shop, "ddd")


def test_a_pair_of_two_samples_is_labelled_once(shop):
    put_sample(shop, ("oak", "a"), ("desk", "a"), name="again", weight=7.0)
    counts = label(shop, CountingTeacher(), LabelOptions(samples=("s", "again")))
    assert (counts.pairs, counts.labelled) == (13, 13)
    rows = {(row["query"], row["pin_id"]): (row["sample"], row["weight"]) for row in labels(shop)}
    assert rows["oak", "a"] == ("s", 2.0) and rows["desk", "a"] == ("again", 7.0)
    with pytest.raises(UsageError, match="no sample 'october'; there are: again, s"):
        label(shop, CountingTeacher(), LabelOptions(samples=("october",)))


def test_a_limit_leaves_the_rest_to_later_runs(shop):
    counts = label(shop, CountingTeacher(), LabelOptions(limit=5))
    assert (counts.labelled, counts.remaining) == (5, 7)
    counts = label(shop, CountingTeacher())
    assert (counts.labelled, counts.skipped, counts.remaining) == (7, 5, 0)


def test_a_pin_without_a_text_gets_no_label(shop):
    put(shop, pins=[pin("a", -10, "oak"), {**pin("b", -10), "title": None}], search_log=[event("oak", "a", "u", 1)])
    aggregate(shop, as_of=at(5))
    teacher = CountingTeacher()
    counts = label(shop, teacher)
    assert (counts.labelled, counts.textless, counts.gone) == (3, 3, 6)
    assert {text for _, text in teacher.pairs} == {"oak"}


def test_progress_is_told_in_pairs(shop):
    told = []
    label(shop, CountingTeacher(), LabelOptions(chunk=5, progress=lambda done, total: told.append((done, total))))
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_asked_to_stop_it_ends_between_two_chunks(shop):
    teacher = CountingTeacher()
    counts = label(shop, teacher, LabelOptions(chunk=5, stop=lambda: len(teacher.calls) == 1))
    assert (counts.interrupted, counts.labelled, counts.remaining) == (True, 5, 7)
    counts = label(shop, CountingTeacher())
    assert (counts.interrupted, counts.labelled, counts.skipped) == (False, 7, 5)


def test_small_parts_are_merged_and_say_the_same(shop, monkeypatch):
    monkeypatch.setattr(labelling_store, "MOST_PARTS", 4)
    label(shop, CountingTeacher(), LabelOptions(chunk=1))
    before = labels(shop)
    assert len(LabelFolder(shop, "f" * 32).parts()) == 12
    unlink = Path.unlink

    def dying(path, **more):
        if path.name.startswith("part-"):
            raise Died
        unlink(path, **more)

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(Path, "unlink", dying)
        label(shop, CountingTeacher())
    assert labels(shop) == before and len(stored(shop)) == 24  # killed after the merged part was written
    counts = label(shop, CountingTeacher())
    assert counts.skipped == 12
    assert labels(shop) == before and len(stored(shop)) == 12
    assert len(LabelFolder(shop, "f" * 32).parts()) == 1


def test_the_later_label_wins_also_where_a_clock_ran_ahead(shop, monkeypatch):
    label(shop, CountingTeacher())
    folder = LabelFolder(shop, "f" * 32)
    (part,) = folder.parts()
    table = pq.read_table(part)
    ahead = datetime.now(UTC) + timedelta(days=3)
    place = SCHEMA.get_field_index("labelled_at")
    pq.write_table(table.set_column(place, SCHEMA.field(place), pa.array([ahead] * 12, SCHEMA.field(place).type)), part)
    put_pins(shop, a="oak desk", b="oak shelf", c="brass lamp", d="wool rug")
    assert label(shop, CountingTeacher()).relabelled == 3
    assert label(shop, CountingTeacher()).skipped == 12


@pytest.mark.slow
def test_a_training_set_of_labels_has_the_features_of_when_the_pair_was_shown(shop, pinfeather):
    """The pair was shown on the first day; what happened then and later is in no feature of its row."""
    put(
        shop,
        pins=pins(a="oak shelf", b="oak shelf", c="brass lamp", d="wool rug"),
        search_log=[event("oak", "a", f"u{n}", days, "click") for n in range(3) for days in (-0.5, 0.5, 1, 2)],
    )
    aggregate(shop, as_of=at(5))
    label(shop, CountingTeacher())
    found = from_teacher(shop, "fake")
    assert found.columns == ("label", *PROBABILITIES, "weight") and len(found.table) == 12
    row = next(row for row in found.table.to_pylist() if (row["query"], row["pin_id"]) == ("oak", "a"))
    chance = chances("oak", "oak shelf | searches: oak")  # what the label was made of is the text of now
    assert row["label"] == pytest.approx(chance @ [1, 2, 3, 4, 5], rel=1e-6) and row["label_time"] == at(1)
    out = shop.root.parent / "soft.parquet"
    build_training_set(shop, found, out, TrainingSetOptions(DEFAULT_TEMPLATE))
    row = next(row for row in pq.read_table(out).to_pylist() if (row["query"], row["pin_id"]) == ("oak", "a"))
    assert row["query_pin_engagement__clicks"] == 3  # up to the midnight before
    np.testing.assert_allclose([row[name] for name in PROBABILITIES], chance, rtol=1e-6)
    pairs = example_pairs(out)
    place = list(zip(pairs.queries, (pairs.pins[pin].title for pin in pairs.pin_of), strict=True)).index(
        ("oak", "oak shelf")
    )
    np.testing.assert_allclose(pairs.require_targets()[place], chance, rtol=1e-6)
    assert len(pairs) == len([text for text in pq.read_table(out)["pin_text"].to_pylist() if text is not None])
    assert pairs.blobs[pairs.pin_of[place]] == row["pin_relevance__tokens"]
    assert pairs.click_rate[pairs.pin_of[place]] == pytest.approx(row["pin_relevance__click_rate"])
    code, _, err = pinfeather(
        *("train", "examples", "--repo", shop.root, "--out", out, "--from-teacher", "fake", "--from-log", "click")
    )
    assert code == 2 and "--from-log and --from-teacher are 2 sources of labels" in err


@pytest.mark.slow
def test_the_command_labels_with_a_trained_teacher(shop, pinfeather, tmp_path):
    from test_teacher import FAST, judged
    from tower_models import tiny_base

    from embedders.cross_model import CrossSettings
    from embedders.teacher import Teacher
    from embedders.teacher_training import train_teacher

    settings = CrossSettings(str(tiny_base(tmp_path / "bert")), max_length=48)
    train_teacher(judged(), shop.teachers / "tiny", settings=settings, training=FAST, device="cpu")
    teacher = Teacher.load(shop.teachers / "tiny", "cpu")
    code, out, err = pinfeather("label", "--repo", shop.root, "--teacher", "tiny", "--device", "cpu", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["teacher_version"], said["labelled"], said["encoded_pairs"]) == (teacher.fingerprint, 12, 9)
    found = {(row["query"], row["pin_id"]): row for row in labels(shop, teacher.fingerprint)}
    expected = teacher.probabilities(["lamp"], ["oak shelf"])[0]
    np.testing.assert_allclose([found["lamp", "b"][name] for name in PROBABILITIES], expected, atol=1e-3)
    code, out, _ = pinfeather("label", "--repo", shop.root, "--device", "cpu")  # there is only one
    assert code == 0 and "Labels by tiny" in out
    for words, status, error in (
        (["--sample", "october"], 2, "There is no sample 'october'; there are: s"),
        (["--teacher", "nobody"], 1, "There is no teacher nobody"),
        (["--chunk", "0"], 2, "--chunk"),
    ):
        code, out, err = pinfeather("label", "--repo", shop.root, *words)
        assert (code, out) == (status, "") and error in err
